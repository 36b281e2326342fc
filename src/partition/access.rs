//! How a partition accesses an array, and groups of such accesses.

use core::fmt;
use core::ops::Range;

use ndarray::{ArrayView, ArrayViewMut, Dimension, RawArrayViewMut, ShapeBuilder};

#[cfg(not(loom))]
use super::extents::{Part, stretches};
use super::plan::{Plan, Side};
use crate::element::Element;
use crate::error::LeaseError;
use crate::handle::{AnyHandle, Handle};
use crate::segment::{Access, Memory};
use crate::table::HandleTable;
use crate::table::attach::{Located, check_view};
use crate::table::slot::Slot;

/// What tiles do with an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each tile reads its own part.
    Read,
    /// Each tile writes its own part.
    Write,
    /// Each tile reads all of it.
    Whole,
}

impl Mode {
    pub(crate) fn code(self) -> u64 {
        match self {
            Mode::Read => 0,
            Mode::Write => 1,
            Mode::Whole => 2,
        }
    }

    pub(crate) fn from_code(code: u64) -> Option<Mode> {
        match code {
            0 => Some(Mode::Read),
            1 => Some(Mode::Write),
            2 => Some(Mode::Whole),
            _ => None,
        }
    }
}

macro_rules! access {
    ($(#[$doc:meta])* $name:ident, $view:ident, $mode:expr, $make:ident) => {
        $(#[$doc])*
        pub struct $name<T, D> {
            pub(crate) handle: Handle<T, D>,
        }

        impl<T, D> $name<T, D> {
            /// The array.
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

            fn members(&self) -> Vec<(AnyHandle, Mode)> {
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

            fn modes() -> Vec<Mode> {
                vec![$mode]
            }

            fn shapes(&self, table: &HandleTable) -> Result<Vec<Vec<usize>>, LeaseError> {
                Ok(vec![table.attach(self.handle)?.shape().to_vec()])
            }

            fn locate(&self, table: &HandleTable, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Raw::locate(table, self.handle.into(), $mode, plan)
            }

            #[inline]
            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                raw.check(tile)
            }

            #[track_caller]
            fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut Vec<Access>) {
                raw.track(memory, tile, to);
            }

            #[cfg(not(loom))]
            fn extents(raw: &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
                raw.extents(tile, to);
            }
        }
    };
}

access! {
    /// Tiles read their own part of the array: an `ArrayView` each.
    Read, ArrayView, Mode::Read, deref_into_view
}
access! {
    /// Tiles write their own part of the array: an `ArrayViewMut` each.
    Write, ArrayViewMut, Mode::Write, deref_into_view_mut
}
access! {
    /// Every tile reads the whole array, as a gather does: an `ArrayView` of all of it.
    Whole, ArrayView, Mode::Whole, deref_into_view
}

/// The arrays that a partition divides: one access ([`Read`], [`Write`], [`Whole`]) or a tuple of
/// up to 8.
///
/// A tile's views come as they were declared: one view, or a tuple of views.
pub trait Group: sealed::Group {
    /// The views of a tile.
    type Views<'a>;

    /// The views of a tile.
    ///
    /// # Safety
    /// For `'a`, the caller holds the tile's claim in the round for which the arrays are leased,
    /// has checked the tile, and has no other views of it.
    #[doc(hidden)]
    unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a>;
}

/// A tile of a partition's plan: which part of the arrays it covers.
#[derive(Clone, Copy, Debug)]
pub struct TileOf<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) tile: usize,
}

impl<'p> TileOf<'p> {
    /// What it covers along the axis that is cut first.
    pub(crate) fn rows(self) -> Range<usize> {
        self.plan.rows(self.tile)
    }

    /// What it covers along each axis that is cut.
    pub(crate) fn sides(self) -> impl Iterator<Item = Side> + 'p {
        self.plan.sides(self.tile)
    }
}

/// One array of a group, as a participant of a round sees it.
pub struct Raw<T, D> {
    view: RawArrayViewMut<T, D>,
    first: *mut T,
    shape: D,
    /// In elements; none is negative, for arrays lie in row-major or column-major order.
    strides: D,
    /// Of the array, in bytes of the data region.
    offset: u64,
    handle: AnyHandle,
    mode: Mode,
}

impl<T: Element, D: Dimension> Raw<T, D> {
    fn locate(
        table: &HandleTable,
        handle: AnyHandle,
        mode: Mode,
        plan: &Plan,
    ) -> Result<Self, LeaseError> {
        let (index, _) = handle.unpack(table.segment().key());
        let slot = Slot::of(table.segment().memory(), index).ok_or(LeaseError::Stale { handle })?;
        let located: Located<T, D> = table.locate(slot, handle)?;
        let mut view = located.view;
        let fits = |(axis, len): (usize, usize)| view.shape().get(axis) == Some(&len);
        if mode != Mode::Whole && !plan.axes().all(fits) {
            let what = "the array does not have the length that its partition divides";
            return Err(table.look().corrupt(handle, what));
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

    /// The part of the array that the tile covers.
    ///
    /// As ndarray's `slice_axis`, whose checks, made here once in `locate`, cost more than claiming
    /// a tile does.
    #[inline]
    fn part(&self, tile: TileOf<'_>) -> RawArrayViewMut<T, D> {
        if self.mode == Mode::Whole {
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
        // An empty part may begin beyond the array, and strides of 0 are refused for it.
        let first = self.first.wrapping_add(offset);
        if shape.slice().contains(&0) {
            // SAFETY: aligned, and not null, as below; there are no elements.
            return unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        }
        // SAFETY: `first` is aligned as the array's elements are, and it is not null: it is less
        // than a segment beyond the array. Elements of the part are elements of the array: those at
        // the sides' indices, which are below the axis' lengths (`Plan` covers the lengths that
        // `locate` has compared). The strides are the array's, times a step of at most 2^24, so
        // that they do not overflow, and no element is named twice.
        unsafe { RawArrayViewMut::from_shape_ptr(shape.strides(strides), first) }
    }

    #[inline]
    fn check(&self, tile: TileOf<'_>) -> Result<(), LeaseError> {
        if !T::CHECKED {
            return Ok(());
        }
        check_view(&self.part(tile), self.handle)
    }

    /// Tells the model checker of the access to the tile's elements.
    #[cfg(loom)]
    #[track_caller]
    fn track(&self, memory: &Memory, tile: TileOf<'_>, to: &mut Vec<Access>) {
        let write = self.mode == Mode::Write;
        for run in crate::table::runs::runs(&self.part(tile), self.view.as_ptr()) {
            let Range { start, end } = run;
            to.push(memory.track(self.offset + start, end - start, write));
        }
    }

    /// The bytes that the tile covers of its own part of the array; of an array that every tile reads
    /// whole, none.
    #[cfg(not(loom))]
    fn extents(&self, tile: TileOf<'_>, to: &mut Vec<Part>) {
        if self.mode == Mode::Whole {
            return;
        }
        let part = self.part(tile);
        let size = size_of::<T>() as u64;
        let start = self.offset + (part.as_ptr() as u64).wrapping_sub(self.first as u64);
        let array = self.offset..self.offset + self.view.len() as u64 * size;
        // None is negative.
        let strides = part.strides().iter().map(|&stride| stride as u64 * size);
        let axes = part.shape().iter().map(|&len| len as u64).zip(strides);
        for bytes in stretches(start, size, axes.collect()) {
            let array = array.clone();
            to.push(Part { bytes, array });
        }
    }

    #[cfg(not(loom))]
    fn track(&self, _memory: &Memory, _tile: TileOf<'_>, _to: &mut Vec<Access>) {}
}

/// What the partition needs of a group; not for use outside this crate.
pub(crate) mod sealed {
    use super::*;

    pub trait Group: Copy + 'static {
        type Raw;

        fn members(&self) -> Vec<(AnyHandle, Mode)>;
        fn from_handles(handles: &[AnyHandle]) -> Option<Self>;
        fn modes() -> Vec<Mode>;

        /// The shape of each array, whose types are checked on the way.
        fn shapes(&self, table: &HandleTable) -> Result<Vec<Vec<usize>>, LeaseError>;

        /// Where the arrays are. The caller has leases of them.
        fn locate(&self, table: &HandleTable, plan: &Plan) -> Result<Self::Raw, LeaseError>;

        /// Refuses elements of the tile that are no values of their type.
        fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError>;

        /// Tells the model checker of the accesses to the tile.
        fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut Vec<Access>);

        /// Appends where the tile lies. Not of the groups that primitives make for a call: these
        /// are never prefaulted.
        #[cfg(not(loom))]
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

            fn members(&self) -> Vec<(AnyHandle, Mode)> {
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

            fn modes() -> Vec<Mode> {
                [$($name::modes()),+].concat()
            }

            fn shapes(&self, table: &HandleTable) -> Result<Vec<Vec<usize>>, LeaseError> {
                Ok([$(self.$at.shapes(table)?),+].concat())
            }

            fn locate(&self, table: &HandleTable, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Ok(($(self.$at.locate(table, plan)?,)+))
            }

            #[inline]
            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                $($name::check(&raw.$at, tile)?;)+
                Ok(())
            }

            #[track_caller]
            fn track(raw: &Self::Raw, memory: &Memory, tile: TileOf<'_>, to: &mut Vec<Access>) {
                $($name::track(&raw.$at, memory, tile, to);)+
            }

            #[cfg(not(loom))]
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
