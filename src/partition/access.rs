//! The ways in which a partition accesses an array, and groups of such accesses.

use core::fmt;

use ndarray::{
    ArrayView, ArrayViewMut, Axis, Dimension, RawArrayViewMut, RemoveAxis, ShapeBuilder,
};

use super::cover::{Covers, TileOf, UnitOf};
use super::extents::{Part, stretches};
use super::plan::Plan;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::memory::{Memory, TileAccesses};
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::locate::{Located, check_view};
use crate::table::slot::Slot;

/// The access of tiles to an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessMode {
    /// Each tile reads its own part.
    Read,
    /// Each tile writes its own part.
    Write,
    /// Each tile reads all of it.
    Whole,
    /// Each tile writes one row: the array's first axis has an index for each tile.
    PerTile,
}

impl AccessMode {
    /// Returns `true` if tiles write the array.
    ///
    /// ```
    /// use ndshm::partition::AccessMode;
    ///
    /// assert!(AccessMode::Write.writes() && AccessMode::PerTile.writes());
    /// assert!(!AccessMode::Read.writes() && !AccessMode::Whole.writes());
    /// ```
    pub fn writes(self) -> bool {
        matches!(self, AccessMode::Write | AccessMode::PerTile)
    }

    /// Returns `true` if the tiles' sides are cut from the array.
    pub(crate) fn is_cut(self) -> bool {
        matches!(self, AccessMode::Read | AccessMode::Write)
    }

    pub(crate) fn code(self) -> u64 {
        match self {
            AccessMode::Read => 0,
            AccessMode::Write => 1,
            AccessMode::Whole => 2,
            AccessMode::PerTile => 3,
        }
    }

    pub(crate) fn from_code(code: u64) -> Option<AccessMode> {
        match code {
            0 => Some(AccessMode::Read),
            1 => Some(AccessMode::Write),
            2 => Some(AccessMode::Whole),
            3 => Some(AccessMode::PerTile),
            _ => None,
        }
    }
}

impl<T, D> Handle<T, D> {
    /// Selects the array for a partition in which each tile reads its own part of it.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let (x, y) = (table.from_elem(10, 1.0)?, table.zeros::<f64, _>(10)?);
    /// let tiles = table.partition((x.read(), y.write()), Axis(0), 5)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |(x, mut y), (), _tile| y.assign(&x))?;
    /// assert_eq!(table.read(y)?.sum(), 10.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn read(self) -> Read<T, D> {
        Read { handle: self }
    }

    /// Selects the array for a partition in which each tile writes its own part of it.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(10)?;
    /// let tiles = table.partition(x.write(), Axis(0), 5)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |mut x, (), tile| x.fill(tile.index() as f64))?;
    /// assert_eq!(table.read(x)?.sum(), 5.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn write(self) -> Write<T, D> {
        Write { handle: self }
    }

    /// Selects the array for a partition in which each tile reads all of it, for example to gather
    /// from it.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let table_of_squares = table.from_shape_fn(10, |i| (i * i) as u64)?;
    /// let x = table.from_shape_fn(100, |i| i as u64 % 10)?;
    /// let tiles = table.partition((x.write(), table_of_squares.whole()), Axis(0), 20)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |(mut x, squares), (), _tile| {
    ///     x.map_inplace(|x| *x = squares[*x as usize]);
    /// })?;
    /// assert_eq!(table.read(x)?[7], 49);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn whole(self) -> WholeArray<T, D> {
        WholeArray { handle: self }
    }

    /// Selects the array for a partition in which each tile writes one row of it: row `i` belongs
    /// to tile `i`, beside the tile's part of other arrays.
    ///
    /// The first axis has as many indices as the partition has tiles. Creating the partition checks
    /// it. Partial results need this: a sum or a count for each tile.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let (x, sums) = (table.from_elem(1000, 0.5)?, table.zeros(16)?);
    /// let tiles = table.partition((x.read(), sums.per_tile()), Axis(0), 64)?;
    ///
    /// let round = tiles.begin()?;
    /// if let Some(mut part) = tiles.enter()? {
    ///     while let Some(mut tile) = part.claim()? {
    ///         let (x, mut sum) = tile.views();
    ///         sum.fill(x.sum());
    ///     }
    /// }
    /// round.finish(std::time::Duration::from_secs(1))?;
    /// assert_eq!(table.read(sums)?.sum(), 500.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn per_tile(self) -> PerTile<T, D> {
        PerTile { handle: self }
    }
}

macro_rules! access {
    (
        $(#[$doc:meta])* $name:ident, $dim:ident, $view:ty, $read:ty, $mode:expr, $part:ident,
        $make:ident, of a unit: $unit_view:ty, $unit_part:ident
    ) => {
        $(#[$doc])*
        pub struct $name<T, D> {
            pub(crate) handle: Handle<T, D>,
        }

        impl<T, D> $name<T, D> {
            /// Returns the array's handle.
            ///
            /// ```
            /// # use ndshm::{HandleTable, Segment};
            /// # let table = HandleTable::join(&Segment::anonymous()?)?;
            /// let x = table.zeros::<f64, _>(3)?;
            /// assert_eq!((x.read().handle(), x.write().handle()), (x, x));
            /// assert_eq!((x.whole().handle(), x.per_tile().handle()), (x, x));
            /// # Ok::<(), ndshm::Error>(())
            /// ```
            pub fn handle(self) -> Handle<T, D> {
                self.handle
            }
        }

        impl<T, D> Clone for $name<T, D> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T, D> Copy for $name<T, D> {}

        impl<T, D> fmt::Debug for $name<T, D> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.handle)
            }
        }

        impl<T: Element, D: $dim + 'static> Group for $name<T, D> {
            type Views<'a> = $view;
            type UnitViews<'a> = $unit_view;
            type ReadViews<'a> = $read;

            #[inline]
            unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
                // SAFETY: the caller's duties are those of `deref_into_view` (or `_mut`) for the
                // part of the array that the tile covers.
                unsafe { raw.$part(tile).$make() }
            }

            #[inline]
            unsafe fn unit_views<'a>(raw: &Self::Raw, unit: UnitOf<'_>) -> Self::UnitViews<'a> {
                // SAFETY: as above, for the parts of the tiles of the unit.
                unsafe { raw.$unit_part(unit).$make() }
            }

            unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a> {
                // SAFETY: as above.
                unsafe { raw.$part(tile).deref_into_view() }
            }
        }

        impl<T: Element, D: $dim + 'static> sealed::Group for $name<T, D> {
            type Raw = Raw<T, D>;

            fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
                vec![(self.handle.into(), $mode)]
            }

            const LEN: usize = 1;

            fn from_members(members: &[(AnyHandle, AccessMode)]) -> Option<Self> {
                match members {
                    [(handle, mode)] if *mode == $mode => Some($name {
                        handle: Handle::from_bits(handle.to_bits()),
                    }),
                    _ => None,
                }
            }

            fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
                Ok(vec![table.attach(self.handle)?.shape().to_vec()])
            }

            fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Raw::locate(table, self.handle.into(), $mode, plan)
            }

            #[inline]
            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                raw.check(|| raw.$part(tile))
            }

            #[track_caller]
            fn track(
                raw: &Self::Raw,
                memory: &Memory,
                (tile, writes): (TileOf<'_>, bool),
                to: &mut TileAccesses,
            ) {
                raw.track(memory, writes, || raw.$part(tile), to);
            }

            fn extents(raw: &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
                raw.extents(raw.$part(tile), to);
            }
        }
    };
}

access! {
    /// Tiles read their own part of the array, as an `ArrayView` each.
    Read, Dimension, ArrayView<'a, T, D>, ArrayView<'a, T, D>, AccessMode::Read, part,
    deref_into_view, of a unit: ArrayView<'a, T, D>, part
}
access! {
    /// Tiles write their own part of the array, as an `ArrayViewMut` each.
    Write, Dimension, ArrayViewMut<'a, T, D>, ArrayView<'a, T, D>, AccessMode::Write, part,
    deref_into_view_mut, of a unit: ArrayViewMut<'a, T, D>, part
}
access! {
    /// Every tile reads the whole array, as an `ArrayView` of all of it. Gathers need this.
    WholeArray, Dimension, ArrayView<'a, T, D>, ArrayView<'a, T, D>, AccessMode::Whole, part,
    deref_into_view, of a unit: ArrayView<'a, T, D>, part
}
access! {
    /// Each tile writes one row of the array, as an `ArrayViewMut` each: row `i` belongs to tile
    /// `i`.
    PerTile, RemoveAxis, ArrayViewMut<'a, T, D::Smaller>, ArrayView<'a, T, D::Smaller>,
    AccessMode::PerTile, row, deref_into_view_mut, of a unit: ArrayViewMut<'a, T, D>, rows
}

/// The arrays that a partition divides: one access ([`Read`], [`Write`], [`WholeArray`],
/// [`PerTile`]) or a tuple of up to 8.
///
/// A tile's views have the form of the group: one view, or a tuple of views.
///
/// ```compile_fail,E0277
/// # use ndshm::{HandleTable, Segment};
/// # use ndarray::Axis;
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>(100)?;
/// let tiles = table.partition(x, Axis(0), 10)?;           // x.write(): the tiles need an access
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how tiles access the array",
    label = "say `.read()`, `.write()` or `.whole()`",
    note = "a partition divides handles with an access: `x.read()` and `x.write()` for a tile's \
            part, `x.whole()` for all of the array in each tile, `x.per_tile()` for one row per tile",
    note = "or a tuple of up to 8: `table.partition((x.write(), y.read()), Axis(0), 64)`"
)]
pub trait Group: sealed::Group {
    /// The views of a tile.
    type Views<'a>;

    /// The views of a unit of tiles, one for all of them; see
    /// [`Pool::for_each_unit`](crate::Pool::for_each_unit). Of an array with a row for each tile
    /// ([`PerTile`]) it has one row for each tile of the unit.
    type UnitViews<'a>;

    /// The same views, for reading only.
    type ReadViews<'a>;

    /// Returns the views of a tile.
    ///
    /// # Safety
    /// For `'a`, the caller
    /// - holds the tile's claim in the round for which the arrays are leased,
    /// - has checked the tile,
    /// - has no other views of it.
    #[doc(hidden)]
    unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a>;

    /// Returns the views of a unit: of consecutive tiles that form one block of the arrays.
    ///
    /// # Safety
    /// The caller's duties are those of [`views`](Group::views), for each of the tiles.
    #[doc(hidden)]
    unsafe fn unit_views<'a>(raw: &Self::Raw, unit: UnitOf<'_>) -> Self::UnitViews<'a>;

    /// Returns the views of a tile, for reading only.
    ///
    /// # Safety
    /// For `'a`, the caller
    /// - has leases of the arrays, and the tile is not torn,
    /// - has checked the tile.
    #[doc(hidden)]
    unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a>;
}

/// One array of a group, located for a participant of a round.
pub struct Raw<T, D> {
    view: RawArrayViewMut<T, D>,
    first: *mut T,
    shape: D,
    /// In elements. None is negative, because arrays lie in row-major or column-major order.
    strides: D,
    /// Offset of the array in the data region, in bytes.
    offset: u64,
    handle: AnyHandle,
    mode: AccessMode,
}

impl<T: Element, D: Dimension> Raw<T, D> {
    fn locate(
        table: &Core,
        handle: AnyHandle,
        mode: AccessMode,
        plan: &Plan,
    ) -> Result<Self, LeaseError> {
        let (index, _) = handle.unpack(table.segment().key());
        let slot = Slot::of(table.segment().memory(), index).ok_or(LeaseError::Stale { handle })?;
        let located: Located<T, D> = table.locate(slot, handle)?;
        let mut view = located.view;
        let fits = |(axis, len): (usize, usize)| view.shape().get(axis) == Some(&len);
        let is_whole = match mode {
            AccessMode::Read | AccessMode::Write => plan.axes().all(fits),
            AccessMode::Whole => true,
            AccessMode::PerTile => view.shape().first().copied() == plan.tiles(),
        };
        if !is_whole {
            let what = "the array does not have the length that its partition divides";
            return Err(table.tables().corrupt(handle, what));
        }
        let mut strides = D::zeros(view.ndim());
        for (to, &stride) in strides.slice_mut().iter_mut().zip(view.strides()) {
            *to = stride.unsigned_abs();
        }
        Ok(Raw {
            first: view.as_mut_ptr(),
            shape: view.raw_dim(),
            strides,
            view,
            offset: located.offset,
            handle,
            mode,
        })
    }

    /// Returns the part of the array that a tile or a unit covers.
    ///
    /// Works as ndarray's `slice_axis`, with its checks run once in `locate`: they cost more than
    /// claiming a tile.
    #[inline]
    fn part(&self, covers: impl Covers) -> RawArrayViewMut<T, D> {
        if self.mode == AccessMode::Whole {
            return self.view.clone();
        }
        let mut shape = self.shape.clone();
        let mut strides = self.strides.clone();
        let mut offset = 0;
        covers.for_each_side(|side| {
            let stride = &mut strides.slice_mut()[side.axis];
            offset += side.range.start * *stride;
            *stride *= side.step;
            shape.slice_mut()[side.axis] = side.range.len().div_ceil(side.step);
        });
        // An empty part may begin beyond the array, and ndarray refuses strides of 0 for it.
        let first = self.first.wrapping_add(offset);
        if shape.slice().contains(&0) {
            // SAFETY: `first` is aligned and not null, as below. There are no elements.
            return unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        }
        // SAFETY: `first` is aligned as the array's elements are. It is not null, because it is
        // less than a segment beyond the array. The elements of the part are elements of the array:
        // their indices are those of the sides, which are below the axes' lengths (`locate` has
        // compared these with the lengths that `Plan` covers). The strides are the array's, times a
        // step of at most 2^24. So they do not overflow, and no element is named twice.
        unsafe { RawArrayViewMut::from_shape_ptr(shape.strides(strides), first) }
    }

    #[inline]
    fn check<E: Dimension>(
        &self,
        part: impl FnOnce() -> RawArrayViewMut<T, E>,
    ) -> Result<(), LeaseError> {
        if !T::CHECKED {
            return Ok(());
        }
        check_view(&part(), self.handle)
    }

    /// Reports the accesses to the tile's elements to the model checker.
    #[track_caller]
    #[inline]
    fn track<E: Dimension>(
        &self,
        memory: &Memory,
        writes: bool,
        part: impl FnOnce() -> RawArrayViewMut<T, E>,
        to: &mut TileAccesses,
    ) {
        let writes = writes && self.mode.writes();
        to.add(memory, self.offset, writes, || (part(), self.view.as_ptr()));
    }

    /// Appends the bytes of the tile's own part. An array that every tile reads whole has none.
    fn extents<E: Dimension>(&self, mut part: RawArrayViewMut<T, E>, to: &mut Vec<Part>) {
        if self.mode == AccessMode::Whole {
            return;
        }
        let size = size_of::<T>() as u64;
        let start = self.offset + (part.as_mut_ptr() as u64).wrapping_sub(self.first as u64);
        let array = self.offset..self.offset + self.view.len() as u64 * size;
        // No stride is negative.
        let strides = part.strides().iter().map(|&stride| stride as u64 * size);
        let axes = part.shape().iter().map(|&len| len as u64).zip(strides);
        for bytes in stretches(start, size, axes.collect()) {
            let array = array.clone();
            to.push(Part { bytes, array });
        }
    }
}

impl<T: Element, D: RemoveAxis> Raw<T, D> {
    /// Returns the row of the array that belongs to the tile.
    #[inline]
    fn row(&self, tile: TileOf<'_>) -> RawArrayViewMut<T, D::Smaller> {
        let shape = self.shape.remove_axis(Axis(0));
        let strides = self.strides.remove_axis(Axis(0));
        let first = self.first.wrapping_add(tile.tile * self.strides[0]);
        if shape.slice().contains(&0) {
            // SAFETY: `first` is aligned and not null, as in `part`. There are no elements.
            return unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        }
        // SAFETY: as in `part`. The elements are elements of the array: the tile is one of the
        // plan, and `locate` has compared their number with the length of the first axis.
        unsafe { RawArrayViewMut::from_shape_ptr(shape.strides(strides), first) }
    }

    /// Returns the rows of the array that belong to the tiles of a unit.
    #[inline]
    fn rows(&self, unit: UnitOf<'_>) -> RawArrayViewMut<T, D> {
        let mut shape = self.shape.clone();
        shape[0] = unit.last + 1 - unit.first;
        let first = self.first.wrapping_add(unit.first * self.strides[0]);
        if shape.slice().contains(&0) {
            // SAFETY: `first` is aligned and not null, as in `part`. There are no elements.
            return unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        }
        let strides = self.strides.clone();
        // SAFETY: as in `row`, for each of the tiles.
        unsafe { RawArrayViewMut::from_shape_ptr(shape.strides(strides), first) }
    }
}

/// The partition's requirements on a group. Not for use outside this crate.
pub(crate) mod sealed {
    use super::*;

    pub trait Group: Clone + 'static {
        type Raw;

        /// The number of arrays. `usize::MAX` if it varies: then the group is no member of a tuple.
        const LEN: usize;

        fn members(&self) -> Vec<(AnyHandle, AccessMode)>;
        fn from_members(members: &[(AnyHandle, AccessMode)]) -> Option<Self>;

        /// Returns the shape of each array. Checks the arrays' types on the way.
        fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError>;

        /// Locates the arrays. The caller has leases of them.
        fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError>;

        /// Returns an error if elements of the tile are not values of their type.
        fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError>;

        /// Reports the accesses to the tile to the model checker: reads, and, with `true`, writes.
        fn track(raw: &Self::Raw, memory: &Memory, how: (TileOf<'_>, bool), to: &mut TileAccesses);

        /// Appends the bytes that the tile covers. The groups of primitives append nothing: they
        /// are never prefaulted.
        fn extents(_raw: &Self::Raw, _tile: TileOf<'_>, _to: &mut Vec<Part>) {}
    }
}

macro_rules! tuple_group {
    ($($name:ident $at:tt),+) => {
        impl<$($name: Group),+> Group for ($($name,)+) {
            type Views<'a> = ($($name::Views<'a>,)+);
            type UnitViews<'a> = ($($name::UnitViews<'a>,)+);
            type ReadViews<'a> = ($($name::ReadViews<'a>,)+);

            #[inline]
            unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
                ($(
                    // SAFETY: the caller's duties are the same for every member.
                    unsafe { $name::views(&raw.$at, tile) },
                )+)
            }

            #[inline]
            unsafe fn unit_views<'a>(raw: &Self::Raw, unit: UnitOf<'_>) -> Self::UnitViews<'a> {
                ($(
                    // SAFETY: the caller's duties are the same for every member.
                    unsafe { $name::unit_views(&raw.$at, unit) },
                )+)
            }

            unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a> {
                ($(
                    // SAFETY: the caller's duties are the same for every member.
                    unsafe { $name::read_views(&raw.$at, tile) },
                )+)
            }
        }

        impl<$($name: Group),+> sealed::Group for ($($name,)+) {
            type Raw = ($($name::Raw,)+);

            fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
                [$(self.$at.members()),+].concat()
            }

            const LEN: usize = 0 $(+ $name::LEN)+;

            fn from_members(mut members: &[(AnyHandle, AccessMode)]) -> Option<Self> {
                let group = ($({
                    let (own, rest) = members.split_at_checked($name::LEN)?;
                    members = rest;
                    $name::from_members(own)?
                },)+);
                members.is_empty().then_some(group)
            }

            fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
                Ok([$(self.$at.shapes(table)?),+].concat())
            }

            fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Ok(($(self.$at.locate(table, plan)?,)+))
            }

            #[inline]
            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                $($name::check(&raw.$at, tile)?;)+
                Ok(())
            }

            #[track_caller]
            fn track(
                raw: &Self::Raw,
                memory: &Memory,
                how: (TileOf<'_>, bool),
                to: &mut TileAccesses,
            ) {
                $($name::track(&raw.$at, memory, how, to);)+
            }

            fn extents(raw: &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
                $($name::extents(&raw.$at, tile, to);)+
            }
        }
    };
}

tuple_group!(A 0);
tuple_group!(A 0, B 1);
tuple_group!(A 0, B 1, C 2);
tuple_group!(A 0, B 1, C 2, E 3);
tuple_group!(A 0, B 1, C 2, E 3, F 4);
tuple_group!(A 0, B 1, C 2, E 3, F 4, G 5);
tuple_group!(A 0, B 1, C 2, E 3, F 4, G 5, H 6);
tuple_group!(A 0, B 1, C 2, E 3, F 4, G 5, H 6, I 7);
