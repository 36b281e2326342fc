//! Arrays of any shape as one range of memory, divided into tiles with equal numbers of elements.
//!
//! All arrays of a segment are contiguous, in C or in Fortran order. So an operation that treats
//! all elements alike needs no axis: a tile is a slice, all tiles have one size for every shape (an
//! array of 3 columns in Fortran order has no good axis to divide), and an array without axes has
//! one element. The rows of such a partition are positions in memory order.

use core::ops::Range;

use ndarray::{Dimension, Ix1};

use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::memory::{Memory, TileAccesses};
use crate::partition::{AccessMode, Group, Plan, TileOf, UnitOf, sealed};
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::locate::check_view;
use crate::table::slot::Slot;

/// The elements of an array in memory, as a participant of a round sees them.
pub struct Stretch<T> {
    first: *mut T,
    len: usize,
    handle: AnyHandle,
}

impl<T: Element> Stretch<T> {
    /// Locates the elements. The caller has a lease of the array.
    fn locate<D: Dimension>(
        table: &Core,
        handle: AnyHandle,
        plan: &Plan,
    ) -> Result<Self, LeaseError> {
        let (index, _) = handle.unpack(table.segment().key());
        let slot = Slot::of(table.segment().memory(), index).ok_or(LeaseError::Stale { handle })?;
        let mut view = table.locate::<T, D>(slot, handle)?.view;
        if !plan.is_stretches_of(0, view.len()) {
            let what = "the array does not have the length that its partition divides";
            return Err(table.tables().corrupt(handle, what));
        }
        Ok(Stretch {
            first: view.as_mut_ptr(),
            len: view.len(),
            handle,
        })
    }

    /// Returns the first of these elements, and their number.
    fn part(&self, rows: Range<usize>) -> (*mut T, usize) {
        let end = rows.end.min(self.len);
        let start = rows.start.min(end);
        (self.first.wrapping_add(start), end - start)
    }

    fn check(&self, tile: TileOf<'_>) -> Result<(), LeaseError> {
        if !T::CHECKED {
            return Ok(());
        }
        let (first, len) = self.part(tile.rows());
        // SAFETY: `first` is aligned and non-null, and `len` elements from there are inside the
        // array's extent (see `locate`), which has at most `isize::MAX` bytes.
        let view = unsafe { ndarray::RawArrayViewMut::<T, Ix1>::from_shape_ptr(len, first) };
        check_view(&view, self.handle)
    }
}

macro_rules! flat {
    ($(#[$doc:meta])* $name:ident, $view:ty, $mode:expr, $make:path) => {
        $(#[$doc])*
        pub struct $name<T, D>(Handle<T, D>);

        impl<T, D> $name<T, D> {
            pub(super) fn new(handle: Handle<T, D>) -> Self {
                $name(handle)
            }
        }

        impl<T, D> Clone for $name<T, D> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T, D> Copy for $name<T, D> {}

        impl<T: Element, D: Dimension + 'static> Group for $name<T, D> {
            type Views<'a> = $view;
            type UnitViews<'a> = $view;
            type ReadViews<'a> = &'a [T];

            unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
                let (first, len) = raw.part(tile.rows());
                // SAFETY: `len` elements from `first` are mapped, aligned and inside the array (see
                // `Stretch::locate`). They hold values of `T`, and the tile's claim makes the
                // access exclusive or shared for `'a` (the caller's duties).
                unsafe { $make(first, len) }
            }

            unsafe fn unit_views<'a>(raw: &Self::Raw, unit: UnitOf<'_>) -> Self::UnitViews<'a> {
                let (first, len) = raw.part(unit.rows());
                // SAFETY: as above, for each of the unit's tiles.
                unsafe { $make(first, len) }
            }

            unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a> {
                let (first, len) = raw.part(tile.rows());
                // SAFETY: as above; nobody writes the elements for `'a` (the caller's duties).
                unsafe { core::slice::from_raw_parts(first, len) }
            }
        }

        impl<T: Element, D: Dimension + 'static> sealed::Group for $name<T, D> {
            type Raw = Stretch<T>;

            fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
                vec![(self.0.into(), $mode)]
            }

            const LEN: usize = 1;

            fn from_members(members: &[(AnyHandle, AccessMode)]) -> Option<Self> {
                match members {
                    [(handle, mode)] if *mode == $mode => {
                        Some($name(Handle::from_bits(handle.to_bits())))
                    }
                    _ => None,
                }
            }

            fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
                let elements = table.attach(self.0)?.shape().iter().product();
                Ok(vec![vec![elements]])
            }

            fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
                Stretch::locate::<D>(table, self.0.into(), plan)
            }

            fn check(raw: &Self::Raw, tile: TileOf<'_>) -> Result<(), LeaseError> {
                raw.check(tile)
            }

            // The model checker does not build primitives.
            fn track(_: &Self::Raw, _: &Memory, _: (TileOf<'_>, bool), _: &mut TileAccesses) {}
        }
    };
}

flat! {
    /// A group in which each tile reads its part of the array, as a slice.
    FlatRead, &'a [T], AccessMode::Read, core::slice::from_raw_parts
}
flat! {
    /// A group in which each tile writes its part of the array, as a mutable slice.
    FlatWrite, &'a mut [T], AccessMode::Write, core::slice::from_raw_parts_mut
}

/// Returns the number of elements of a tile that is copied, filled or exchanged: about 64 KiB of
/// them.
pub(super) const fn moved_tile<T>() -> usize {
    let elements = (64 << 10) / size_of::<T>();
    if elements == 0 { 1 } else { elements }
}
