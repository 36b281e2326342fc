//! The ways in which a partition accesses an array, and groups of such accesses.

use core::fmt;
use core::ops::Range;

use ndarray::{ArrayView, ArrayViewMut, Dimension, RawArrayViewMut, ShapeBuilder};

use super::extents::{Part, stretches};
use super::plan::{Plan, TileSide};
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
}

impl AccessMode {
    pub(crate) fn code(self) -> u64 {
        match self {
            AccessMode::Read => 0,
            AccessMode::Write => 1,
            AccessMode::Whole => 2,
        }
    }

    pub(crate) fn from_code(code: u64) -> Option<AccessMode> {
        match code {
            0 => Some(AccessMode::Read),
            1 => Some(AccessMode::Write),
            2 => Some(AccessMode::Whole),
            _ => None,
        }
    }
}

impl<T, D> Handle<T, D> {
    /// Selects the array for a partition in which each tile reads its own part of it.
    pub const fn read(self) -> Read<T, D> {
        Read { handle: self }
    }

    /// Selects the array for a partition in which each tile writes its own part of it.
    pub const fn write(self) -> Write<T, D> {
        Write { handle: self }
    }

    /// Selects the array for a partition in which each tile reads all of it, for example to gather
    /// from it.
    pub const fn whole(self) -> WholeArray<T, D> {
        WholeArray { handle: self }
    }
}

macro_rules! access {
    ($(#[$doc:meta])* $name:ident, $view:ident, $mode:expr, $make:ident) => {
        $(#[$doc])*
        pub struct $name<T, D> {
            pub(crate) handle: Handle<T, D>,
        }

        impl<T, D> $name<T, D> {
            /// Returns the array's handle.
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

        impl<T: Element, D: Dimension + 'static> Group for $name<T, D> {
            type Views<'a> = $view<'a, T, D>;

            #[inline]
            unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
                // SAFETY: the caller's duties are those of `deref_into_view` (or `_mut`) for the
                // part of the array that the tile covers.
                unsafe { raw.part(tile).$make() }
            }
        }

        impl<T: Element, D: Dimension + 'static> sealed::Group for $name<T, D> {
            type Raw = Raw<T, D>;

            fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
                vec![(self.handle.into(), $mode)]
            }

            fn from_handles(handles: &[AnyHandle]) -> Option<Self> {
                match handles {
                    [handle] => Some($name {
                        handle: Handle::from_bits(handle.to_bits()),
                    }),
                    _ => None,
                }
            }

            fn modes() -> Vec<AccessMode> {
                vec![$mode]
            }

            fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
                Ok(vec![table.attach(self.handle)?.shape().to_vec()])
            }

            fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Raw::locate(table, self.handle.into(), $mode, plan)
            }

            #[inline]
            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                raw.check(tile)
            }

            #[track_caller]
            fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut TileAccesses) {
                raw.track(memory, tile, to);
            }

            fn extents(raw: &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
                raw.extents(tile, to);
            }
        }
    };
}

access! {
    /// Tiles read their own part of the array, as an `ArrayView` each.
    Read, ArrayView, AccessMode::Read, deref_into_view
}
access! {
    /// Tiles write their own part of the array, as an `ArrayViewMut` each.
    Write, ArrayViewMut, AccessMode::Write, deref_into_view_mut
}
access! {
    /// Every tile reads the whole array, as an `ArrayView` of all of it. Gathers need this.
    WholeArray, ArrayView, AccessMode::Whole, deref_into_view
}

/// The arrays that a partition divides: one access ([`Read`], [`Write`], [`WholeArray`]) or a tuple
/// of up to 8.
///
/// A tile's views have the form of the group: one view, or a tuple of views.
pub trait Group: sealed::Group {
    /// The views of a tile.
    type Views<'a>;

    /// Returns the views of a tile.
    ///
    /// # Safety
    /// For `'a`, the caller
    /// - holds the tile's claim in the round for which the arrays are leased,
    /// - has checked the tile,
    /// - has no other views of it.
    #[doc(hidden)]
    unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a>;
}

/// A tile of a partition's plan, which determines the parts of the arrays that it covers.
#[derive(Clone, Copy, Debug)]
pub struct TileOf<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) tile: usize,
}

impl<'p> TileOf<'p> {
    /// Returns the indices that the tile covers along the first cut axis.
    pub(crate) fn rows(self) -> Range<usize> {
        self.plan.rows(self.tile)
    }

    /// Returns the tile's side along each cut axis.
    pub(crate) fn sides(self) -> impl Iterator<Item = TileSide> + 'p {
        self.plan.sides(self.tile)
    }
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
        if mode != AccessMode::Whole && !plan.axes().all(fits) {
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

    /// Returns the part of the array that the tile covers.
    ///
    /// Works as ndarray's `slice_axis`, with its checks run once in `locate`: they cost more than
    /// claiming a tile.
    #[inline]
    fn part(&self, tile: TileOf<'_>) -> RawArrayViewMut<T, D> {
        if self.mode == AccessMode::Whole {
            return self.view.clone();
        }
        let mut shape = self.shape.clone();
        let mut strides = self.strides.clone();
        let mut offset = 0;
        tile.plan.for_each_side(tile.tile, |side| {
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
    fn check(&self, tile: TileOf<'_>) -> Result<(), LeaseError> {
        if !T::CHECKED {
            return Ok(());
        }
        check_view(&self.part(tile), self.handle)
    }

    /// Reports the accesses to the tile's elements to the model checker.
    #[track_caller]
    #[inline]
    fn track(&self, memory: &Memory, tile: TileOf<'_>, to: &mut TileAccesses) {
        to.add(memory, self.offset, self.mode == AccessMode::Write, || {
            (self.part(tile), self.view.as_ptr())
        });
    }

    /// Appends the bytes of the tile's own part. An array that every tile reads whole has none.
    fn extents(&self, tile: TileOf<'_>, to: &mut Vec<Part>) {
        if self.mode == AccessMode::Whole {
            return;
        }
        let part = self.part(tile);
        let size = size_of::<T>() as u64;
        let start = self.offset + (part.as_ptr() as u64).wrapping_sub(self.first as u64);
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

/// The partition's requirements on a group. Not for use outside this crate.
pub(crate) mod sealed {
    use super::*;

    pub trait Group: Copy + 'static {
        type Raw;

        fn members(&self) -> Vec<(AnyHandle, AccessMode)>;
        fn from_handles(handles: &[AnyHandle]) -> Option<Self>;
        fn modes() -> Vec<AccessMode>;

        /// Returns the shape of each array. Checks the arrays' types on the way.
        fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError>;

        /// Locates the arrays. The caller has leases of them.
        fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError>;

        /// Returns an error if elements of the tile are not values of their type.
        fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError>;

        /// Reports the accesses to the tile to the model checker.
        fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut TileAccesses);

        /// Appends the bytes that the tile covers. The groups of primitives append nothing: they
        /// are never prefaulted.
        fn extents(_raw: &Self::Raw, _tile: TileOf<'_>, _to: &mut Vec<Part>) {}
    }
}

macro_rules! tuple_group {
    ($($name:ident $at:tt),+) => {
        impl<$($name: Group),+> Group for ($($name,)+) {
            type Views<'a> = ($($name::Views<'a>,)+);

            #[inline]
            unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
                ($(
                    // SAFETY: the caller's duties are the same for every member.
                    unsafe { $name::views(&raw.$at, tile) },
                )+)
            }
        }

        impl<$($name: Group),+> sealed::Group for ($($name,)+) {
            type Raw = ($($name::Raw,)+);

            fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
                [$(self.$at.members()),+].concat()
            }

            fn from_handles(mut handles: &[AnyHandle]) -> Option<Self> {
                let group = ($({
                    let (own, rest) = handles.split_at_checked($name::modes().len())?;
                    handles = rest;
                    $name::from_handles(own)?
                },)+);
                handles.is_empty().then_some(group)
            }

            fn modes() -> Vec<AccessMode> {
                [$($name::modes()),+].concat()
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
            fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut TileAccesses) {
                $($name::track(&raw.$at, memory, tile, to);)+
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
