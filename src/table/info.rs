//! Looking at arrays of unknown type: their dtype, shape and state.

use super::core::Core;
use super::slot::Slot;
use crate::descriptor::{Descriptor, Order, WrongKind};
use crate::element::{DType, Element};
use crate::handle::{AnyHandle, Handle};
use crate::memory::{Corrupt, Memory};
use crate::seat::ParticipantInfo;
use crate::span::Spans;
use crate::table::error::LeaseError;
use crate::word::{SeatId, SlotWord};
use ndarray::Dimension;

/// The state of a live array, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArrayInfo {
    /// The array's handle.
    pub handle: AnyHandle,
    /// The type of its elements.
    pub dtype: DType,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Whether the first or the last axis is contiguous.
    pub order: Order,
    /// Bytes of its elements.
    pub bytes: u64,
    /// The process that owns it; `None` if it is detached.
    pub owner: Option<u32>,
    /// The process that writes it, or has opened a round on it.
    pub writer: Option<u32>,
    /// Processes that read it, or take part in a round on it.
    pub readers: Vec<u32>,
    /// A writer died or panicked.
    pub poisoned: bool,
}

impl Core {
    /// Returns the type, shape and state of the array that a handle names.
    pub(crate) fn info(&self, handle: impl Into<AnyHandle>) -> Result<ArrayInfo, LeaseError> {
        self.enter()?;
        self.look().info(handle.into())
    }

    /// Returns all live arrays, in the order of their slots.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = ArrayInfo> + '_ {
        self.look().arrays()
    }

    /// Returns the handle as one of an array of `T` with dimension `D`.
    pub(crate) fn typed<T: Element, D: Dimension>(
        &self,
        handle: AnyHandle,
    ) -> Result<Handle<T, D>, LeaseError> {
        let handle = Handle::from_bits(handle.to_bits());
        self.attach::<T, D>(handle).map(|_| handle)
    }

    pub(crate) fn look(&self) -> Look<'_> {
        Look {
            memory: self.segment.memory(),
            key: self.segment.key(),
        }
    }
}

/// A view of a segment's tables for a participant or an observer.
#[derive(Clone, Copy)]
pub(crate) struct Look<'m> {
    pub(crate) memory: &'m Memory,
    pub(crate) key: u64,
}

impl<'m> Look<'m> {
    /// Returns the slot and generation that a handle names, if the segment has such a slot.
    #[inline]
    pub(crate) fn slot(self, handle: AnyHandle) -> Option<(Slot<'m>, u32)> {
        let (index, generation) = handle.unpack(self.key);
        Some((Slot::of(self.memory, index)?, generation))
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
    pub(crate) fn internal(self, slot: usize, generation: u32) -> Option<&'static str> {
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

    pub(crate) fn info(self, handle: AnyHandle) -> Result<ArrayInfo, LeaseError> {
        let (slot, generation) = self.live(handle)?;
        let info = self.describe(slot, slot.word(), handle);
        match slot.word().is_live(generation) {
            true => {
                // The handle may come from a name, which may lead to a queue.
                info?.ok_or_else(|| {
                    let words = self.memory.descriptor(slot.index);
                    WrongKind::found_in(handle, words, self.memory, "an array").into()
                })
            }
            false => Err(LeaseError::Stale { handle }),
        }
    }

    pub(crate) fn arrays(self) -> impl Iterator<Item = ArrayInfo> + 'm {
        let geometry = &self.memory.layout().geometry;
        Spans::of(self.memory).iter().flat_map(move |span| {
            (0..span.count).filter_map(move |position| {
                let slot = Slot::of(self.memory, span.slot(geometry, position))?;
                let word = slot.word();
                if !word.is_live(word.generation()) {
                    return None;
                }
                let handle = AnyHandle::pack(self.key, slot.index, word.generation());
                let info = self.describe(slot, word, handle).ok()??;
                slot.word().is_live(word.generation()).then_some(info)
            })
        })
    }

    /// Describes an array. Returns `None` for the table's own arrays.
    fn describe(
        self,
        slot: Slot<'_>,
        word: SlotWord,
        handle: AnyHandle,
    ) -> Result<Option<ArrayInfo>, LeaseError> {
        let memory = self.memory;
        let corrupt = |what| self.corrupt(handle, what);
        let descriptor = Descriptor::load(memory.descriptor(slot.index))
            .ok_or_else(|| corrupt("the descriptor is not one"))?;
        if descriptor.is_control() {
            return Ok(None);
        }
        let pid = |seat: SeatId| (!seat.is_none()).then(|| ParticipantInfo::of(memory, seat).pid);
        let dtype = descriptor
            .dtype(memory)
            .ok_or_else(|| corrupt("the element type is not known"))?;
        Ok(Some(ArrayInfo {
            handle,
            shape: descriptor.shape().iter().map(|&len| len as usize).collect(),
            order: descriptor.order,
            bytes: descriptor
                .bytes(dtype.size())
                .ok_or_else(|| corrupt("the shape's size is not representable"))?,
            dtype,
            owner: pid(word.owner()).filter(|_| !word.is_detached()),
            writer: pid(word.writer()),
            readers: slot
                .reader_seats()
                .into_iter()
                .map(|seat| ParticipantInfo::of(memory, seat).pid)
                .collect(),
            poisoned: word.is_poisoned(),
        }))
    }
}
