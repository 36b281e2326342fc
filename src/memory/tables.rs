//! The only cast from a mapping's bytes to words: the view of a segment for protocol code.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;

use ndarray::{Dimension, RawArrayViewMut};

use crate::layout::{Geometry, Header, HintTree, Layout};
use crate::sync::{Atom, Ordering};
use crate::word::{BucketWord, SeatWord, SlotIndex, SlotWord, SpanWord};

/// The tables of a mapped segment, as slices of atomic words.
///
/// It owns no resource: the owner of the mapping keeps the mapping while this value is used.
pub struct Memory {
    base: NonNull<u8>,
    /// Offsets of the tables in the file.
    layout: Layout,
    /// Offsets of the tables in the mapping: the same, unless only parts of the file are mapped.
    mapped: Layout,
    tree: HintTree,
    /// Number of slots, computed once because every operation needs it.
    slots: usize,
    row_words: usize,
}

// SAFETY: all access to the mapping through `&Memory` is to atomics, or through raw pointers with
// duties of their own for their users; the struct itself never changes after `new`.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Views the mapping at `base` as a segment of `layout`.
    ///
    /// # Safety
    /// - `layout.total` bytes from `base` are mapped readable and writable, and stay so for as long
    ///   as the value lives (they may be mapped anew in place, from the same file).
    /// - `base` is aligned to a page.
    /// - Every process accesses the tables (all bytes before `layout.data`) by atomic operations
    ///   only.
    pub(crate) unsafe fn new(base: NonNull<u8>, layout: Layout) -> Memory {
        Memory {
            base,
            tree: HintTree::new(&layout.geometry),
            slots: layout.geometry.slots(),
            row_words: layout.geometry.row_words(),
            mapped: layout,
            layout,
        }
    }

    /// Returns the tables of a segment of `layout` of which only parts are mapped, at the offsets
    /// in `mapped`. Tables with an entry for each slot have their first `slots` entries mapped. The
    /// data region is not mapped, so `mapped` has a capacity of 0.
    ///
    /// # Safety
    /// As for [`new`](Memory::new), with `mapped` instead of `layout`. The mapping may be read-only
    /// if the value is not used for stores.
    pub(crate) unsafe fn of_parts(
        base: NonNull<u8>,
        layout: Layout,
        mapped: Layout,
        slots: usize,
    ) -> Memory {
        debug_assert!(mapped.geometry.capacity == 0 && slots <= layout.geometry.slots());
        Memory {
            mapped,
            slots,
            // SAFETY: the caller has the duties of `new` towards `mapped`, and accesses use only
            // the offsets in `mapped`.
            ..unsafe { Memory::new(base, layout) }
        }
    }

    #[inline]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn tree(&self) -> &HintTree {
        &self.tree
    }

    /// Returns `len` words at `offset`. This is the one cast.
    fn words<W>(&self, offset: u64, len: usize) -> &[Atom<W>] {
        debug_assert!(offset.is_multiple_of(8) && offset + len as u64 * 8 <= self.mapped.total);
        // SAFETY: callers pass a table's offset and length from `mapped`, so the address is inside
        // the mapping (first duty of `new`).
        let first = unsafe { self.base.add(offset as usize) }.cast::<Atom<W>>();
        // SAFETY: `Atom` is `repr(transparent)` over a lock-free 64-bit atomic, for which every bit
        // pattern is valid. The address is 8-aligned (page-aligned base, offset a multiple of 8).
        // The range is mapped for as long as `self` lives, and only atomics touch it (`new`).
        unsafe { slice::from_raw_parts(first.as_ptr(), len) }
    }

    #[inline]
    pub(crate) fn header(&self) -> &[Atom] {
        self.words(0, Header::WORDS)
    }

    pub(crate) fn seat_word(&self, seat: usize) -> &Atom<SeatWord> {
        assert!(seat < self.layout.geometry.seats as usize);
        let offset = self.mapped.seats + (seat * Layout::SEAT_WORDS * 8) as u64;
        &self.words(offset, 1)[0]
    }

    /// Returns the participant's information about itself: the words behind its seat word.
    pub(crate) fn seat_card(&self, seat: usize) -> &[Atom] {
        assert!(seat < self.layout.geometry.seats as usize);
        let offset = self.mapped.seats + ((seat * Layout::SEAT_WORDS + 1) * 8) as u64;
        self.words(offset, Layout::SEAT_WORDS - 1)
    }

    #[inline]
    pub(crate) fn spans(&self) -> &[Atom<SpanWord>] {
        self.words(self.mapped.spans, self.layout.geometry.spans as usize)
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[Atom<SlotWord>] {
        self.words(self.mapped.slots, self.slots)
    }

    /// Returns a slot's row of reader bits, one bit for each seat.
    #[inline]
    pub(crate) fn readers(&self, slot: SlotIndex) -> &[Atom] {
        assert!(slot.get() < self.slots);
        let row = self.row_words;
        self.words(self.mapped.readers + (slot.get() * row * 8) as u64, row)
    }

    /// Loads a word of each table that has one for the slot. A lease reads them one after the other,
    /// and its read-modify-writes wait for each. Loaded together, they take the time of one cache
    /// miss. Decides nothing.
    #[inline]
    pub(crate) fn load_ahead(&self, slot: SlotIndex) {
        if slot.get() < self.slots {
            let (span, _) = Geometry::place_of(slot);
            self.spans()[span.get()].load(Ordering::Relaxed);
            self.slots()[slot.get()].load(Ordering::Relaxed);
            self.readers(slot)[0].load(Ordering::Relaxed);
            self.descriptor(slot)[0].load(Ordering::Relaxed);
        }
    }

    /// Returns a slot's row of pins, one bit for each seat.
    pub(crate) fn pins(&self, slot: SlotIndex) -> &[Atom] {
        assert!(slot.get() < self.slots);
        let row = self.row_words;
        self.words(self.mapped.pins + (slot.get() * row * 8) as u64, row)
    }

    #[inline]
    pub(crate) fn descriptor(&self, slot: SlotIndex) -> &[Atom] {
        assert!(slot.get() < self.slots);
        let offset = self.mapped.descriptors + (slot.get() * Layout::DESCRIPTOR_WORDS * 8) as u64;
        self.words(offset, Layout::DESCRIPTOR_WORDS)
    }

    pub(crate) fn schema(&self, index: usize) -> &[Atom] {
        assert!(index < Layout::SCHEMAS);
        let offset = self.mapped.schemas + (index * Layout::SCHEMA_WORDS * 8) as u64;
        self.words(offset, Layout::SCHEMA_WORDS)
    }

    /// Returns the buckets of the names.
    #[inline]
    pub(crate) fn names(&self) -> &[Atom<BucketWord>] {
        self.words(self.mapped.names, self.layout.geometry.buckets())
    }

    /// Returns the counters of the groups of buckets.
    #[inline]
    pub(crate) fn name_counts(&self) -> &[Atom] {
        let groups = self.layout.geometry.bucket_groups();
        self.words(self.mapped.name_counts, groups)
    }

    pub(crate) fn hints(&self) -> &[Atom] {
        self.words(self.mapped.hints, self.tree.total_words())
    }

    /// Returns the address of the first byte of an extent at `offset` of the data region; `None` if
    /// the `len` bytes from there are not inside the region.
    #[inline]
    pub(crate) fn data(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.mapped.geometry.capacity {
            return None;
        }
        let at = (self.mapped.data + offset) as usize;
        // SAFETY: at + len <= mapped.total, so the address is inside the mapping, or one past its
        // end if len is 0.
        Some(unsafe { self.base.add(at) })
    }

    /// Returns `len` words of a control array at `offset` of the data region; `None` if they are
    /// not inside it.
    ///
    /// The caller holds a lease, or the reservation, of the slot with this extent. The descriptor
    /// says that the extent holds words, so every process accesses it by atomics only.
    pub(crate) fn control(&self, offset: u64, len: usize) -> Option<&[Atom]> {
        let bytes = (len as u64).checked_mul(8)?;
        self.data(offset, bytes)?;
        offset
            .is_multiple_of(8)
            .then(|| self.words(self.mapped.data + offset, len))
    }

    /// Notes for the model checker that the caller accesses these bytes until the result is
    /// dropped. Does nothing in production.
    pub(crate) fn track(&self, _offset: u64, _len: u64, _write: bool) -> Access {
        Access
    }
}

/// An access to payload bytes in progress.
pub struct Access;

/// The accesses to an array by views without a lease. Only a model checker records them.
pub struct ViewAccesses<'t>(PhantomData<&'t Memory>);

impl<'t> ViewAccesses<'t> {
    #[inline(always)]
    pub(crate) fn new(_memory: &'t Memory, _offset: u64) -> Self {
        ViewAccesses(PhantomData)
    }

    /// Records nothing.
    #[inline(always)]
    pub(crate) fn read<T, D: Dimension>(&self, _part: &RawArrayViewMut<T, D>, _base: *const T) {}

    /// Records nothing.
    #[inline(always)]
    pub(crate) fn write<T, D: Dimension>(
        &mut self,
        _part: &RawArrayViewMut<T, D>,
        _base: *const T,
    ) {
    }
}

/// The accesses to the arrays of a tile, which only a model checker needs.
pub struct TileAccesses;

impl TileAccesses {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        TileAccesses
    }

    /// Does nothing, and does not call `view`.
    #[inline(always)]
    pub(crate) fn add<T, D: Dimension>(
        &mut self,
        _memory: &Memory,
        _offset: u64,
        _write: bool,
        _view: impl FnOnce() -> (RawArrayViewMut<T, D>, *const T),
    ) {
    }

    #[inline(always)]
    pub(crate) fn end(&mut self) {}
}
