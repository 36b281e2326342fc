//! A segment for the model checker: every word is an object of the checker, and accesses to the
//! payload are checked for races.

mod races;
mod views;

use std::ptr::NonNull;

use crate::layout::{Geometry, Header, HintTree, Layout};
use crate::sync::{Atom, Word};
use crate::word::{BucketWord, SeatWord, SlotIndex, SlotWord, SpanWord};
use races::Races;
pub use races::{Access, put_down_to};
pub use views::{TileAccesses, ViewAccesses};

/// The same interface as the mapping's `Memory`, built word by word inside the model.
pub struct Memory {
    layout: Layout,
    tree: HintTree,
    header: Vec<Atom>,
    seat_words: Vec<Atom<SeatWord>>,
    seat_cards: Vec<Atom>,
    spans: Vec<Atom<SpanWord>>,
    slots: Vec<Atom<SlotWord>>,
    readers: Vec<Atom>,
    pins: Vec<Atom>,
    descriptors: Vec<Atom>,
    schemas: Vec<Atom>,
    names: Vec<Atom<BucketWord>>,
    name_counts: Vec<Atom>,
    hints: Vec<Atom>,
    control: Vec<Atom>,
    races: Races,
    payload: NonNull<u64>,
}

/// The used words of a seat's card.
const MODEL_CARD_WORDS: usize = 2;

fn words<W: Word>(count: usize) -> Vec<Atom<W>> {
    (0..count).map(|_| Atom::zero()).collect()
}

// SAFETY: `payload` is reached through `data` alone, and the users of `data` hold leases that make
// their accesses exclusive or read-only; `races` checks exactly that.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn model(geometry: Geometry) -> Memory {
        let tree = HintTree::new(&geometry);
        let slots = geometry.slots();
        let data_words = geometry.capacity.div_ceil(8) as usize;
        let payload = Box::leak(vec![0u64; data_words].into_boxed_slice());
        Memory {
            layout: Layout::new(geometry),
            tree,
            header: words(Header::NAMES + 1),
            seat_words: words(geometry.seats as usize),
            seat_cards: words(geometry.seats as usize * MODEL_CARD_WORDS),
            spans: words(geometry.spans as usize),
            slots: words(slots),
            readers: words(slots * geometry.row_words()),
            pins: words(slots * geometry.row_words()),
            descriptors: words(slots * Layout::DESCRIPTOR_WORDS),
            schemas: words(Layout::SCHEMAS * Layout::SCHEMA_WORDS),
            names: words(geometry.buckets()),
            name_counts: words(geometry.bucket_groups()),
            hints: words(tree.total_words()),
            control: words(data_words),
            races: Races::default(),
            payload: NonNull::from(payload).cast(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn tree(&self) -> &HintTree {
        &self.tree
    }

    pub(crate) fn header(&self) -> &[Atom] {
        &self.header
    }

    pub(crate) fn seat_word(&self, seat: usize) -> &Atom<SeatWord> {
        &self.seat_words[seat]
    }

    pub(crate) fn seat_card(&self, seat: usize) -> &[Atom] {
        &self.seat_cards[seat * MODEL_CARD_WORDS..][..MODEL_CARD_WORDS]
    }

    pub(crate) fn spans(&self) -> &[Atom<SpanWord>] {
        &self.spans
    }

    pub(crate) fn slots(&self) -> &[Atom<SlotWord>] {
        &self.slots
    }

    pub(crate) fn readers(&self, slot: SlotIndex) -> &[Atom] {
        let row = self.layout.geometry.row_words();
        &self.readers[slot.get() * row..][..row]
    }

    /// Does nothing: the model checker has no caches, and each load would add executions.
    pub(crate) fn load_ahead(&self, _slot: SlotIndex) {}

    pub(crate) fn pins(&self, slot: SlotIndex) -> &[Atom] {
        let row = self.layout.geometry.row_words();
        &self.pins[slot.get() * row..][..row]
    }

    pub(crate) fn descriptor(&self, slot: SlotIndex) -> &[Atom] {
        &self.descriptors[slot.get() * Layout::DESCRIPTOR_WORDS..][..Layout::DESCRIPTOR_WORDS]
    }

    pub(crate) fn schema(&self, index: usize) -> &[Atom] {
        &self.schemas[index * Layout::SCHEMA_WORDS..][..Layout::SCHEMA_WORDS]
    }

    pub(crate) fn names(&self) -> &[Atom<BucketWord>] {
        &self.names
    }

    pub(crate) fn name_counts(&self) -> &[Atom] {
        &self.name_counts
    }

    pub(crate) fn hints(&self) -> &[Atom] {
        &self.hints
    }

    pub(crate) fn data(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.layout.geometry.capacity {
            return None;
        }
        // SAFETY: `end` is within the payload, which is leaked memory of that many bytes.
        Some(unsafe { self.payload.cast::<u8>().add(offset as usize) })
    }

    pub(crate) fn control(&self, offset: u64, len: usize) -> Option<&[Atom]> {
        self.control
            .get((offset / 8) as usize..)
            .and_then(|rest| rest.get(..len))
    }

    /// Notes an access to these bytes until the result is dropped. loom refuses an access that
    /// races with it.
    #[track_caller]
    pub(crate) fn track(&self, offset: u64, len: u64, write: bool) -> Access {
        self.races.access(offset..offset + len, write)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let words = self.layout.geometry.capacity.div_ceil(8) as usize;
        let slice = NonNull::slice_from_raw_parts(self.payload, words);
        // SAFETY: `model` leaked this very boxed slice, and only this call frees it.
        drop(unsafe { Box::from_raw(slice.as_ptr()) });
    }
}
