//! Locating an array: from a handle to its place, type and shape.

use core::ptr::NonNull;

use ndarray::{Dimension, RawArrayViewMut, Shape};

use super::slot::Slot;
use crate::descriptor::{Descriptor, WrongKind};
use crate::element::{DType, Element};
use crate::handle::AnyHandle;
use crate::memory::{Access, Corrupt, Memory};
use crate::span::{Extent, Spans};
use crate::sync::Atom;
use crate::table::error::{BoxedLeaseError, LeaseError};
use crate::word::{Lifecycle, SlotIndex};

/// A live array's bytes, checked against its descriptor, its extent and the requested types.
pub(crate) struct Located<T, D> {
    /// Offset of the extent in the data region.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) view: RawArrayViewMut<T, D>,
}

/// A view of a segment's tables for a participant or an observer.
#[derive(Clone, Copy)]
pub(crate) struct TableView<'m> {
    pub(crate) memory: &'m Memory,
    pub(crate) key: u64,
}

impl<'m> TableView<'m> {
    /// Returns the slot and generation that a handle names, if the segment has such a slot.
    #[inline]
    pub(crate) fn slot(self, handle: AnyHandle) -> Option<(Slot<'m>, u32)> {
        let (index, generation) = handle.unpack(self.key);
        Some((Slot::of(self.memory, index)?, generation))
    }

    /// Returns `true` if the handle named an array once, which was freed since.
    pub(crate) fn was_freed(self, handle: AnyHandle) -> bool {
        self.slot(handle).is_some_and(|(slot, generation)| {
            let word = slot.word();
            let is_over = matches!(word.lifecycle(), Lifecycle::Retired | Lifecycle::Exhausted);
            word.generation() > generation || word.generation() == generation && is_over
        })
    }

    /// Returns the slot of a handle that is live at this moment.
    #[inline]
    pub(crate) fn live(self, handle: AnyHandle) -> Result<(Slot<'m>, u32), LeaseError> {
        match self.slot(handle) {
            Some((slot, generation)) if slot.word().is_live(generation) => Ok((slot, generation)),
            _ => Err(LeaseError::Stale { handle }),
        }
    }

    /// Returns the slot and the generation of an array that is live at this moment. Refuses control
    /// arrays that the crate keeps for itself.
    pub(crate) fn usable(self, handle: AnyHandle) -> Result<(Slot<'m>, u32), LeaseError> {
        let (slot, generation) = self.live(handle)?;
        match self.internal(slot.index, generation) {
            Some(what) => Err(LeaseError::Internal { handle, what }),
            None => Ok((slot, generation)),
        }
    }

    /// Returns the purpose of a control array that the crate keeps for itself, if the slot holds
    /// one that is live in this generation.
    pub(crate) fn internal(self, slot: SlotIndex, generation: u32) -> Option<&'static str> {
        let slot = Slot::of(self.memory, slot)?;
        if !slot.word().is_control() {
            return None;
        }
        let what = Descriptor::load(self.memory.descriptor(slot.index))?.internal()?;
        // Read the word again, as in `attach`: the descriptor then belongs to this generation.
        slot.word().is_live(generation).then_some(what)
    }

    /// Returns the error for words of an array that do not fit together.
    #[cold]
    pub(crate) fn corrupt(self, handle: AnyHandle, what: &'static str) -> LeaseError {
        let (slot, _) = handle.unpack(self.key);
        LeaseError::Corrupt {
            handle,
            error: Corrupt {
                offset: self.memory.layout().descriptor_at(slot),
                what,
            },
        }
    }
}

impl TableView<'_> {
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
    /// has the duties of [`locate`](TableView::locate).
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

/// The place of an array of a type that only its descriptor tells.
pub(crate) struct Measured {
    pub(crate) descriptor: Descriptor,
    pub(crate) dtype: DType,
    /// Bytes of its elements.
    pub(crate) bytes: u64,
    /// Has at least as many bytes.
    pub(crate) extent: Extent,
}

impl TableView<'_> {
    /// Reads and checks the descriptor of an array of any type, but for control arrays. The caller
    /// has a lease, or validates afterwards.
    pub(crate) fn measure_untyped(
        self,
        slot: SlotIndex,
        handle: AnyHandle,
    ) -> Result<Measured, LeaseError> {
        let memory = self.memory;
        let corrupt = |what| self.corrupt(handle, what);
        let descriptor = Descriptor::load(memory.descriptor(slot))
            .ok_or_else(|| corrupt("the descriptor is not one of an array"))?;
        if descriptor.is_control() {
            let words = memory.descriptor(slot);
            return Err(WrongKind::found_in(handle, words, memory, "an array").into());
        }
        let dtype = descriptor
            .dtype(memory)
            .ok_or_else(|| corrupt("the element type is not known"))?;
        let bytes = descriptor
            .bytes(dtype.size())
            .ok_or_else(|| corrupt("the shape's size is not representable"))?;
        let extent = Spans::of(memory)
            .extent(slot)
            .filter(|extent| bytes <= extent.size())
            .ok_or_else(|| corrupt("the shape does not fit into the extent"))?;
        Ok(Measured {
            descriptor,
            dtype,
            bytes,
            extent,
        })
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
    pub(crate) fn track(&self, memory: &Memory, write: bool) -> Access {
        memory.track(self.offset, self.bytes, write)
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
