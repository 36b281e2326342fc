//! Looking at arrays of unknown type: their dtype, shape and state.

use super::core::Core;
use super::locate::TableView;
use super::slot::Slot;
use crate::descriptor::{Descriptor, WrongKind};
use crate::element::Order;
use crate::element::{DType, Element};
use crate::handle::{AnyHandle, Handle};
use crate::seat::{JoinError, ParticipantInfo, Peer};
use crate::segment::Segment;
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
    /// Processes that have [pinned](crate::HandleTable::pin) it.
    pub pins: Vec<u32>,
    /// A writer died or panicked.
    pub poisoned: bool,
}

impl Core {
    /// Returns the type, shape and state of the array that a handle names.
    pub(crate) fn info(&self, handle: impl Into<AnyHandle>) -> Result<ArrayInfo, LeaseError> {
        self.enter()?;
        self.tables().info(handle.into())
    }

    /// Returns this participant, as others see it.
    pub(crate) fn peer(&self) -> Result<Peer, JoinError> {
        let me = self.enter()?;
        // Its own seat is taken as long as it lives.
        Ok(Peer::of(self.segment().memory(), me).unwrap_or(bytemuck::Zeroable::zeroed()))
    }

    /// Returns the owner of what a handle names. Returns `None` if it is detached.
    pub(crate) fn owner(&self, handle: AnyHandle) -> Result<Option<Peer>, LeaseError> {
        self.enter()?;
        let memory = self.segment().memory();
        loop {
            let (slot, generation) = self.tables().live(handle)?;
            let seen = slot.word();
            let owner = Peer::of(memory, seen.owner());
            // The seat may have passed to another participant before the look at it. Then the word
            // shows that the one before has given the array up.
            let word = slot.word();
            if !word.is_live(generation) {
                return Err(LeaseError::Stale { handle });
            }
            if word.is_detached() {
                return Ok(None);
            }
            if word.owner() == seen.owner() {
                return Ok(owner);
            }
        }
    }

    /// Returns all live arrays, in the order of their slots.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = ArrayInfo> + '_ {
        self.tables().arrays()
    }

    /// Returns the handle as one of an array of `T` with dimension `D`.
    pub(crate) fn downcast<T: Element, D: Dimension>(
        &self,
        handle: AnyHandle,
    ) -> Result<Handle<T, D>, LeaseError> {
        let handle = Handle::from_bits(handle.to_bits());
        self.attach::<T, D>(handle).map(|_| handle)
    }
}

/// Returns all live arrays of a segment, in the order of their slots. Requires no seat.
pub(crate) fn live_arrays(segment: &Segment) -> impl Iterator<Item = ArrayInfo> + '_ {
    let tables = TableView {
        memory: segment.memory(),
        key: segment.key(),
    };
    tables.arrays()
}

impl<'m> TableView<'m> {
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
        Slot::all(self.memory).filter_map(move |(slot, _)| {
            let word = slot.word();
            if !word.is_live(word.generation()) {
                return None;
            }
            let handle = AnyHandle::pack(self.key, slot.index, word.generation());
            let info = self.describe(slot, word, handle).ok()??;
            slot.word().is_live(word.generation()).then_some(info)
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
        let pids = |seats: Vec<SeatId>| {
            let pids = seats.into_iter();
            pids.map(|seat| ParticipantInfo::of(memory, seat).pid)
                .collect()
        };
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
            readers: pids(slot.reader_seats()),
            // An array that was never pinned has no page for its row of pins.
            pins: match word.is_pinned() {
                true => pids(slot.pin_seats(self.memory)),
                false => Vec::new(),
            },
            poisoned: word.is_poisoned(),
        }))
    }
}
