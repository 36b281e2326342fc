//! Checking a whole segment: damage is reported, and states in transit are counted.
//!
//! Every verdict is exact even while others change the tables. A single word must be one that a
//! transition makes. Where two words are compared, the first is read again: a seat that was FREE in
//! the same epoch before and after everything was read had no holder in between.

use core::fmt;

use crate::descriptor::{ControlKind, Descriptor};
use crate::handle_table::HandleTable;
use crate::handle_table::shared::SharedTable;
use crate::layout::{Header, Layout};
use crate::memory::Memory;
use crate::names;
use crate::partition::control::Control;
use crate::pool::foreign;
use crate::queue::cells::Cells;
use crate::seat::{JoinError, ParticipantInfo};
use crate::span::{Extent, Span, Spans};
use crate::sync::{Atom, Ordering, Word};
use crate::table::alloc::give_hint;
use crate::table::hints::Hints;
use crate::table::slot::Slot;
use crate::word::{
    BucketIndex, BucketWord, Lifecycle, SeatId, SeatWord, SlotIndex, SlotWord, SpanIndex,
};

/// The result of [`HandleTable::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Taken seats.
    pub seats: usize,
    /// Spans that the data region is divided into so far.
    pub spans: usize,
    /// Slots in those spans. The next five counts add up to it, except for damaged slots.
    pub slots: usize,
    /// Slots without an owner.
    pub free: usize,
    /// Slots in which an array is being created or cleaned.
    pub reserved: usize,
    /// Live arrays, those of partitions, queues and pools included.
    pub live: usize,
    /// Freed arrays that are still leased or pinned.
    pub retired: usize,
    /// Slots that have used up their generations.
    pub exhausted: usize,
    /// Live arrays that are poisoned.
    pub poisoned: usize,
    /// Exclusive leases, and arrays that rounds write.
    pub writers: usize,
    /// Shared leases and places in rounds, one per seat and array.
    pub readers: usize,
    /// Pins, one per seat and array.
    pub pins: usize,
    /// Slots in a state that only a participant in the middle of a call leaves. After its death
    /// they stay so until it is reaped.
    pub in_transit: usize,
    /// Free slots that no hint leads to: their last owner keeps them in its cache, or a hint was
    /// lost. An allocation that finds nothing else searches for them.
    pub unhinted: usize,
    /// Words that no participant writes.
    pub damage: Vec<Damage>,
}

impl Verification {
    /// Returns `true` if nothing is damaged.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let found = table.verify()?;
    /// assert!(found.is_clean(), "{found}");                // displayed, it lists the damage
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A word in a segment that no participant writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Its offset in bytes from the start of the segment.
    pub offset: u64,
    /// The fault.
    pub what: &'static str,
    /// The word that was found.
    pub found: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage {
            offset,
            what,
            found,
        } = self;
        write!(f, "at byte {offset:#x}: {what} (found {found:#018x})")
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seats taken, {} spans, {} slots: {} live ({} poisoned), {} free ({} without a \
             hint), {} reserved, {} retired, {} exhausted; {} writers, {} readers, {} pins, {} in \
             transit; {} damaged",
            self.seats,
            self.spans,
            self.slots,
            self.live,
            self.poisoned,
            self.free,
            self.unhinted,
            self.reserved,
            self.retired,
            self.exhausted,
            self.writers,
            self.readers,
            self.pins,
            self.in_transit,
            self.damage.len(),
        )?;
        self.damage
            .iter()
            .try_for_each(|damage| writeln!(f, "{damage}"))
    }
}

impl HandleTable {
    /// Checks every word of the segment's tables, and how the words fit together.
    ///
    /// The check may run at any time: concurrent changes are never reported as damage, and the
    /// counts take each slot as it was at some moment during the call. Its only changes are brief leases of the
    /// table's own arrays, and it waits for nobody. 10^6 live arrays took 0.14 s.
    ///
    /// ```
    /// let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let found = table.verify()?;
    /// assert!(found.is_clean(), "{found}");
    /// assert_eq!((found.live, found.in_transit), (1, 0));
    /// # table.free(x)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError`], only in a child that a fork has made.
    pub fn verify(&self) -> Result<Verification, JoinError> {
        let me = self.core.enter()?;
        Ok(verify(self.segment().memory(), Some(me)))
    }
}

impl SharedTable {
    /// Checks every word of the segment's tables; see [`HandleTable::verify`]. The other threads of
    /// this process wait for the check at their next call, because it takes leases of the seat that
    /// they share.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let found = table.verify()?;
    /// assert!(found.is_clean(), "{found}");
    /// assert_eq!((found.live, found.in_transit), (1, 0));
    /// # table.free(x)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError`], only in a child that a fork has made.
    pub fn verify(&self) -> Result<Verification, JoinError> {
        self.with_table(HandleTable::verify)?
    }
}

/// Checks the tables in `memory`. Skips the words of partitions and queues if `me` is `None`,
/// because nothing keeps them in place.
pub(crate) fn verify(memory: &Memory, me: Option<SeatId>) -> Verification {
    let mut check = Check {
        memory,
        layout: memory.layout(),
        me,
        seats: seat_words(memory),
        any_pins: (0..memory.layout().geometry.seats as usize)
            .any(|seat| ParticipantInfo::has_pins(memory, SeatId::from_index(seat))),
        suspects: Vec::new(),
        found: Verification::default(),
    };
    check.header();
    let spans = check.spans();
    for span in &spans {
        check.slots(span);
    }
    check.names();
    check.acquit();
    check.found
}

fn seat_words(memory: &Memory) -> Vec<SeatWord> {
    (0..memory.layout().geometry.seats as usize)
        // Acquire: pairs with the Release of the participant that left the seat, after it had
        // released all that it held.
        .map(|seat| memory.seat_word(seat).load(Ordering::Acquire))
        .collect()
}

struct Check<'m> {
    memory: &'m Memory,
    layout: &'m Layout,
    me: Option<SeatId>,
    /// The seat words, read before anything else.
    seats: Vec<SeatWord>,
    /// The holder of a seat, or the last one, has pinned an array.
    any_pins: bool,
    /// Words that are damage if their seat was FREE all the time.
    suspects: Vec<(usize, Damage)>,
    found: Verification,
}

impl Check<'_> {
    fn damage(&mut self, offset: u64, what: &'static str, found: u64) {
        self.found.damage.push(Damage {
            offset,
            what,
            found,
        });
    }

    /// Reads the newest value of a word, after all earlier reads.
    ///
    /// Uses an RMW: a value older than the newest could miss a change whose neighbours were read
    /// before. An observer (`me == None`) maps the segment read-only and cannot; its Relaxed load
    /// may be older by nanoseconds, so it may rarely report damage that a concurrent change
    /// explains.
    fn now<W: Word>(&self, word: &Atom<W>) -> W {
        match self.me {
            Some(_) => word.read_modify_write(Ordering::Relaxed),
            None => word.load(Ordering::Relaxed),
        }
    }

    fn header(&mut self) {
        let get = |at: usize| self.memory.header()[at].load(Ordering::Relaxed);
        let (alive, persistent) = (get(Header::ALIVE), get(Header::PERSISTENT));
        // A model's segment has no initialised header.
        let header = Header::with_pinned(
            Header::encode(&self.layout.geometry),
            Header::is_pinned(alive),
        );
        if cfg!(not(loom)) && alive != header {
            self.damage(
                Header::ALIVE as u64 * 8,
                "the header does not match the segment's sizes",
                alive,
            );
        }
        if persistent > 1 {
            let offset = Header::PERSISTENT as u64 * 8;
            self.damage(
                offset,
                "the persistence flag is neither 0 nor 1",
                persistent,
            );
        }
        self.found.seats = self.seats.iter().filter(|word| word.is_taken()).count();
    }

    /// Returns the spans before the first entry that is empty or invalid.
    fn spans(&mut self) -> Vec<Span> {
        let table = Spans::of(self.memory);
        let entries = self.memory.spans();
        let spans: Vec<Span> = table.iter().collect();
        let mut end = 0;
        for span in &spans {
            if span.base < end {
                let word = entries[span.index.get()].load(Ordering::Relaxed);
                self.damage(
                    self.span_at(span.index),
                    "a span of arrays overlaps the span before it",
                    word.bits(),
                );
            }
            end = span.end();
        }
        let first = spans.len();
        for (index, entry) in entries.iter().enumerate().skip(first) {
            let word = entry.load(Ordering::Relaxed);
            // Entries are set in order: if the first one is still empty or invalid, appending has
            // not set this one.
            let unset = || table.decode(SpanIndex::new(first), self.now(&entries[first]));
            if !word.is_empty() && unset().is_none() {
                self.damage(
                    self.span_at(SpanIndex::new(index)),
                    "an invalid entry in the table of spans",
                    word.bits(),
                );
            }
        }
        self.found.spans = first;
        spans
    }

    fn span_at(&self, index: SpanIndex) -> u64 {
        self.layout.spans + index.get() as u64 * 8
    }

    fn slots(&mut self, span: &Span) {
        let geometry = &self.layout.geometry;
        for position in 0..geometry.span_slots {
            let Some(slot) = Slot::of(self.memory, span.slot(geometry, position)) else {
                continue;
            };
            if position < span.count {
                self.found.slots += 1;
                self.slot(slot, span.extent(position));
            } else if !slot.word().is_never_used() {
                let offset = self.slot_at(slot.index);
                self.damage(
                    offset,
                    "a slot is in use that its span does not have",
                    slot.word().bits(),
                );
            }
        }
    }

    fn slot_at(&self, index: SlotIndex) -> u64 {
        self.layout.slots + index.get() as u64 * 8
    }

    fn slot(&mut self, slot: Slot<'_>, extent: Extent) {
        let word = slot.word();
        let offset = self.slot_at(slot.index);
        if let Some(what) = word.fault() {
            self.damage(offset, what, word.bits());
            return;
        }
        let readers = slot.reader_seats();
        self.found.readers += readers.len();
        let what = "a read lease belongs to a free seat";
        self.row(slot.index, &readers, self.layout.readers, what);
        // Do not read rows in which there cannot be a pin: that would allocate their pages.
        let pins = match self.any_pins || word.is_pinned() {
            true => slot.pin_seats(self.memory),
            false => Vec::new(),
        };
        self.found.pins += pins.len();
        let what = "a pin belongs to a free seat";
        self.row(slot.index, &pins, self.layout.pins, what);
        if !word.writer().is_none() {
            self.found.writers += 1;
            if word.writer() != SeatId::ORPHAN {
                let what = "a write lease belongs to a free seat";
                self.seat(word.writer(), offset, what, word.bits());
            }
        }
        let unread = readers.is_empty();
        let unpinned = pins.is_empty();
        let (count, in_transit) = match word.lifecycle() {
            Lifecycle::Free => {
                if !Hints::of(self.memory).leads_to(extent.class, slot.index) {
                    self.found.unhinted += 1;
                }
                (&mut self.found.free, !unread || !unpinned)
            }
            Lifecycle::Reserved => {
                let what = "an unfinished array belongs to a free seat";
                self.seat(word.owner(), offset, what, word.bits());
                (&mut self.found.reserved, true)
            }
            Lifecycle::Live => {
                self.live(slot, word, extent);
                self.found.poisoned += usize::from(word.is_poisoned());
                let orphan = word.writer() == SeatId::ORPHAN;
                // A participant sets its pin first, and then the flag.
                let in_transit = orphan && unread || !unpinned && !word.is_pinned();
                (&mut self.found.live, in_transit)
            }
            Lifecycle::Retired => {
                let leased = !unread || !matches!(word.writer(), SeatId::NONE | SeatId::ORPHAN);
                let kept = leased || !unpinned && word.is_pinned();
                (&mut self.found.retired, !kept)
            }
            Lifecycle::Exhausted => (&mut self.found.exhausted, !unread || !unpinned),
            // `fault` has refused it.
            Lifecycle::Invalid => return,
        };
        *count += 1;
        self.found.in_transit += usize::from(in_transit);
    }

    /// Checks the seats with a bit set in the row of a slot, in the table at `table`.
    fn row(&mut self, slot: SlotIndex, seats: &[SeatId], table: u64, what: &'static str) {
        for &seat in seats {
            let row = self.layout.geometry.row_words();
            let at = slot.get() * row + seat.index().unwrap_or(0) / 64;
            self.seat(seat, table + at as u64 * 8, what, 0);
        }
    }

    /// Checks a LIVE slot: its owner, and its descriptor.
    fn live(&mut self, slot: Slot<'_>, word: SlotWord, extent: Extent) {
        if !word.is_detached() {
            let what = "the array's owner is a free seat";
            self.seat(word.owner(), self.slot_at(slot.index), what, word.bits());
        }
        let words = self.memory.descriptor(slot.index);
        let head = words[0].load(Ordering::Relaxed);
        let descriptor = Descriptor::load(words);
        let what = match &descriptor {
            None => Some("the description of the array is invalid"),
            Some(descriptor) if descriptor.is_control() != word.is_control() => {
                Some("slot and description disagree on whether the array is internal")
            }
            Some(descriptor) if descriptor.is_control() => None,
            Some(descriptor) => match descriptor.dtype(self.memory) {
                None => Some("the array's element type is unknown"),
                Some(dtype) => match descriptor.bytes(dtype.size()) {
                    Some(bytes) if bytes <= extent.size() => None,
                    _ => Some("the array's shape needs more bytes than the array has"),
                },
            },
        };
        // Read the word again, as in `attach`: the descriptor read above is then this array's.
        if !slot.word().is_live(word.generation()) {
            return;
        }
        if let Some(what) = what {
            self.damage(self.layout.descriptor_at(slot.index), what, head);
        } else if let (Some(descriptor), Some(me)) = (descriptor, self.me)
            && descriptor.is_control()
        {
            let tail = match slot.lock_shared(word.generation(), me) {
                Ok(shared) => {
                    self.control(slot, &descriptor, extent);
                    slot.undo(shared, me)
                }
                // It was freed meanwhile, and this attempt may have been its last lease.
                Err((_, tail)) => tail,
            };
            give_hint(self.memory, slot, tail);
        }
    }

    /// Checks the words of a control array. The caller has a lease.
    fn control(&mut self, slot: Slot<'_>, descriptor: &Descriptor, extent: Extent) {
        let start = self.layout.data + extent.offset;
        if descriptor.is_control_of(ControlKind::Partition) {
            let control = Control::open(self.memory, extent);
            let Some(control) = control.filter(|control| control.plan().is_some()) else {
                return self.damage(start, "the contents of a partition are invalid", 0);
            };
            control.faults(|at, word, holder| {
                self.word(
                    start + at as u64 * 8,
                    word,
                    holder,
                    "the state of a tile is invalid",
                );
            });
        } else if descriptor.is_control_of(ControlKind::Queue) {
            let Some((cells, _)) = Cells::open(self.memory, extent) else {
                return self.damage(start, "the contents of a queue are invalid", 0);
            };
            cells.faults(|at, word, holder| {
                let data = self.layout.data;
                self.word(data + at, word, holder, "a cell of a queue is invalid");
            });
        } else if descriptor.is_control_of(ControlKind::Names) {
            match names::check(self.memory, slot) {
                None => self.damage(start, "a list of names is invalid", 0),
                Some(in_bucket) => self.found.in_transit += usize::from(!in_bucket),
            }
        } else if descriptor.is_control_of(ControlKind::Bundle) {
            let bucket = BucketIndex::of_bundle(self.memory, slot.index);
            self.bucket(
                bucket,
                Descriptor::bundle(self.memory.descriptor(slot.index)),
            );
        } else if descriptor.is_control_of(ControlKind::Call) {
            // Any bytes are valid, but there must be room for them.
            let bytes = descriptor.bytes(size_of::<u64>());
            if bytes.is_none_or(|bytes| bytes > extent.size()) {
                self.damage(
                    start,
                    "the memory of a pool's call needs more bytes than it has",
                    0,
                );
            }
        } else if descriptor.is_control_of(ControlKind::Foreign) {
            if !foreign::is_sound(descriptor, extent) {
                self.damage(start, "the length of a foreign pool is invalid", 0);
            }
        } else if !descriptor.is_control_of(ControlKind::Pool) {
            self.damage(start, "an internal array of unknown kind", 0);
        }
    }

    /// Checks that each bucket of names is empty, or names a live record of it and is counted in
    /// its group.
    fn names(&mut self) {
        for (at, word) in self.memory.names()[..names::all(self.memory)]
            .iter()
            .enumerate()
        {
            let bucket = BucketIndex::new(at);
            let seen = self.bucket(bucket, word);
            // A bucket is counted before it gets a record, and until it has lost the record.
            let counted = seen.is_empty() || names::is_counted(self.memory, bucket);
            if !counted && self.now(word) == seen {
                let offset = names::offset_of(self.memory, bucket);
                let what = "a bucket with names is not counted, and a listing may miss them";
                self.damage(offset, what, seen.bits());
            }
        }
    }

    /// Checks a bucket. Returns its word.
    fn bucket(&mut self, bucket: BucketIndex, word: &Atom<BucketWord>) -> BucketWord {
        let seen = names::word_of(self.memory, bucket).unwrap_or(BucketWord::EMPTY);
        let good = seen.is_empty() || names::is_record(self.memory, seen, bucket);
        // A record is freed only after the bucket names another one.
        if !good && self.now(word) == seen {
            let offset = names::offset_of(self.memory, bucket);
            let what = "a bucket of names has no valid list";
            self.damage(offset, what, seen.bits());
        }
        seen
    }

    /// Reports a word as invalid if it has no holder, or if its holder may be free.
    fn word(&mut self, offset: u64, word: u64, holder: Option<SeatId>, what: &'static str) {
        match holder {
            None => self.damage(offset, what, word),
            Some(seat) => self.seat(
                seat,
                offset,
                "a tile or a cell is held by a free seat",
                word,
            ),
        }
    }

    /// Checks the seat that the word at `offset` names.
    fn seat(&mut self, seat: SeatId, offset: u64, what: &'static str, found: u64) {
        let damage = Damage {
            offset,
            what,
            found,
        };
        match seat
            .index()
            .and_then(|index| Some((index, self.seats.get(index)?)))
        {
            None => self.damage(offset, "the seat number is out of range", found),
            Some((index, word)) if !word.is_taken() => self.suspects.push((index, damage)),
            Some(_) => {}
        }
    }

    /// Drops the suspects if their seat was taken meanwhile.
    fn acquit(&mut self) {
        for (seat, damage) in core::mem::take(&mut self.suspects) {
            if self.now(self.memory.seat_word(seat)) == self.seats[seat] {
                self.found.damage.push(damage);
            }
        }
    }
}

#[cfg(test)]
mod tests;
