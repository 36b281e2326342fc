//! Locating an array: from a handle to its place, type and shape.

use core::ptr::NonNull;

use ndarray::{Dimension, RawArrayViewMut, Shape};

use super::core::Core;
use super::info::Look;
use super::slot::{Refused, Slot};
use crate::array::Attached;
use crate::descriptor::{Descriptor, PoisonNote, WrongKind};
use crate::element::{Element, schema};
use crate::handle::{AnyHandle, Handle};
use crate::memory::Access;
use crate::span::{Extent, Spans};
use crate::sync::Atom;
use crate::table::error::{BoxedLeaseError, LeaseError};

/// A live array's bytes, checked against its descriptor, its extent and the requested types.
pub(crate) struct Located<T, D> {
    /// Offset of the extent in the data region.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) view: RawArrayViewMut<T, D>,
}

impl Core {
    /// Looks up an array without a lease. Returns its shape, and a pointer for callers that
    /// synchronise by other means.
    #[inline]
    pub(crate) fn attach<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<Attached<'_, T, D>, LeaseError> {
        self.enter()?;
        let handle = AnyHandle::from(handle);
        let (slot, generation) = self.look().live(handle)?;
        let located = self.locate(slot, handle);
        // Read the word again. If it is still LIVE in this generation, no other descriptor was
        // written between the two reads, and the result of `locate` belongs to this array.
        match slot.word().is_live(generation) {
            true => located
                .map(|located| Attached::new(self, located))
                .map_err(LeaseError::from),
            false => Err(LeaseError::Stale { handle }),
        }
    }

    /// Reads and checks the descriptor. The caller has a lease, or validates afterwards.
    #[inline(always)]
    pub(crate) fn locate<T: Element, D: Dimension>(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
    ) -> Result<Located<T, D>, BoxedLeaseError> {
        let same_schema = |index, text: &'static str| self.is_record::<T>(index, text);
        self.look().locate(slot, handle, same_schema)
    }

    /// Returns `true` if the layout at `index` is that of record `T`, with this `text`.
    fn is_record<T: Element>(&self, index: u16, text: &str) -> bool {
        let record = core::any::TypeId::of::<T>();
        if self.schemas.borrow().get(&record) == Some(&index) {
            return true;
        }
        let same = schema::schema_index_matches(self.segment.memory(), index, text);
        if same {
            self.schemas.borrow_mut().insert(record, index);
        }
        same
    }

    #[cold]
    pub(super) fn lease_error(&self, handle: AnyHandle, slot: usize, why: Refused) -> LeaseError {
        match why {
            Refused::Stale => LeaseError::Stale { handle },
            Refused::Busy(seat) => self.busy(handle, seat),
            Refused::Control => WrongKind::control(handle).into(),
            Refused::Poisoned => {
                let words = self.segment.memory().descriptor(slot);
                let note = PoisonNote::load(words);
                LeaseError::Poisoned {
                    handle,
                    name: self.above.name_of(self, handle),
                    pid: note.pid,
                    unix_time: note.time,
                    what: note.what,
                }
            }
        }
    }
}

impl Look<'_> {
    /// Reads and checks the descriptor. The caller has a lease, or validates afterwards.
    /// `same_schema(index, text)` returns `true` if the layout at `index` has this `text`.
    #[inline(always)]
    pub(crate) fn locate<T: Element, D: Dimension>(
        self,
        slot: Slot<'_>,
        handle: AnyHandle,
        same_schema: impl Fn(u16, &'static str) -> bool,
    ) -> Result<Located<T, D>, BoxedLeaseError> {
        let (shape, bytes, extent) = self.measure::<T, D>(slot, handle, same_schema)?;
        let ptr: NonNull<T> = self
            .memory
            .data(extent.offset, extent.size())
            .ok_or_else(|| self.corrupt(handle, "the extent is not in the data region"))?
            .cast();
        // SAFETY: `ptr` is non-null and aligned (extents start on multiples of 64, the largest
        // alignment of an element). The shape's `bytes` are inside the extent, which is inside the
        // mapping; their total is at most `isize::MAX` (`Descriptor::bytes`).
        let view = unsafe { RawArrayViewMut::from_shape_ptr(shape, ptr.as_ptr()) };
        Ok(Located {
            offset: extent.offset,
            bytes,
            view,
        })
    }

    /// Returns the array's shape, its bytes, and its extent, which has at least as many. The caller
    /// has the duties of [`locate`](Look::locate).
    #[inline(always)]
    pub(crate) fn measure<T: Element, D: Dimension>(
        self,
        slot: Slot<'_>,
        handle: AnyHandle,
        same_schema: impl Fn(u16, &'static str) -> bool,
    ) -> Result<(Shape<D>, u64, Extent), BoxedLeaseError> {
        let memory = self.memory;
        let corrupt = |what| self.corrupt(handle, what);
        let words = memory.descriptor(slot.index);
        let Some((shape, bytes)) = Descriptor::load_typed::<T, D>(words, &same_schema) else {
            return Err(self.other_than::<T, D>(words, handle, same_schema).into());
        };
        let extent = Spans::of(memory)
            .extent(slot.index)
            .filter(|extent| bytes <= extent.size())
            .ok_or_else(|| corrupt("the shape does not fit into the extent"))?;
        Ok((shape, bytes, extent))
    }
}

impl Look<'_> {
    #[cold]
    fn other_than<T: Element, D: Dimension>(
        self,
        words: &[Atom],
        handle: AnyHandle,
        same_schema: impl Fn(u16, &'static str) -> bool,
    ) -> LeaseError {
        match Descriptor::why_not::<T, D>(words, self.memory, handle, same_schema) {
            Some(mismatch) => mismatch.into(),
            None => self.corrupt(handle, "the descriptor is not one of an array"),
        }
    }
}

impl<T: Element, D: Dimension> Located<T, D> {
    /// Refuses bytes that are not values of `T`. The caller has a lease on them.
    pub(crate) fn check(&self, handle: AnyHandle) -> Result<(), LeaseError> {
        if !T::CHECKED {
            return Ok(());
        }
        check_view(&self.view, handle)
    }

    /// Reports an access to the whole array to the model checker.
    #[track_caller]
    pub(crate) fn track(&self, table: &Core, write: bool) -> Access {
        table.segment.memory().track(self.offset, self.bytes, write)
    }
}

/// Refuses elements of `view` that are not values of `T`. The caller may read them.
pub(crate) fn check_view<T: Element, D: Dimension>(
    view: &RawArrayViewMut<T, D>,
    handle: AnyHandle,
) -> Result<(), LeaseError> {
    if !T::CHECKED {
        return Ok(());
    }
    // SAFETY: the view is of mapped memory (see `locate`) that the caller may read. Bytes are read
    // as `u8`, which accepts any value. The cast keeps size and alignment, because the checked
    // types have one byte.
    const { assert!(!T::CHECKED || size_of::<T>() == 1) };
    let bytes = view.clone().cast::<u8>();
    // SAFETY: as above.
    let bytes = unsafe { bytes.deref_into_view() };
    let error = match bytes.as_slice_memory_order() {
        Some(slice) => T::check(slice).err(),
        None => bytes.iter().enumerate().find_map(|(index, &byte)| {
            T::check(&[byte])
                .err()
                .map(|found| crate::element::InvalidElement { index, ..found })
        }),
    };
    match error {
        None => Ok(()),
        Some(error) => Err(LeaseError::InvalidElement { handle, error }),
    }
}
