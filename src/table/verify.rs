//! Checking a whole segment: what cannot be is found and named, what is on its way is counted.
//!
//! Every verdict is exact whatever others do meanwhile. One word alone must be one that a
//! transition makes. Where two words are compared, the first is looked at again: a seat that was
//! FREE in the same epoch before and after all of it was read was nobody's in between.

use core::fmt;

use super::HandleTable;
use super::hints::Hints;
use super::slot::{Slot, Tail};
use crate::descriptor::{ControlKind, Descriptor};
use crate::error::JoinError;
use crate::layout::{Header, Layout};
use crate::names;
use crate::partition::control::Control;
use crate::queue::cells::Cells;
use crate::segment::Memory;
use crate::span::{Extent, Span, Spans};
use crate::sync::{Atom, Ordering, Word};
use crate::word::{BucketWord, Lifecycle, SeatId, SeatWord, SlotWord};

/// What [`HandleTable::verify`] found in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Seats that are taken.
    pub seats: usize,
    /// Spans that the data region is cut into so far.
    pub spans: usize,
    /// Slots in those spans; the next five add up to it, but for damaged ones.
    pub slots: usize,
    /// Slots that are nobody's.
    pub free: usize,
    /// Slots that somebody is making an array in, or cleaning.
    pub reserved: usize,
    /// Live arrays, those of partitions, queues and pools included.
    pub live: usize,
    /// Freed arrays that somebody still leases.
    pub retired: usize,
    /// Slots whose generations are used up.
    pub exhausted: usize,
    /// Live arrays that are poisoned.
    pub poisoned: usize,
    /// Exclusive leases, and arrays that rounds write.
    pub writers: usize,
    /// Shared leases, and places in rounds: one a seat and array.
    pub readers: usize,
    /// Slots in a state in which only a participant in the middle of a call leaves them; after its
    /// death, until it is reaped.
    pub in_transit: usize,
    /// Free slots that no hint leads to: their last owner keeps them for itself, or a hint was
    /// lost. An allocation that finds nothing else searches for them.
    pub unhinted: usize,
    /// What no participant writes.
    pub damage: Vec<Damage>,
}

impl Verification {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A place in a segment that holds what no participant writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where, in bytes from the start of the segment.
    pub offset: u64,
    /// What does not fit.
    pub what: &'static str,
    /// The word that is there.
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
             hint), {} reserved, {} retired, {} exhausted; {} writers, {} readers, {} in transit; \
             {} damaged",
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
            self.in_transit,
            self.damage.len(),
        )?;
        self.damage
            .iter()
            .try_for_each(|damage| writeln!(f, "{damage}"))
    }
}

impl HandleTable {
    /// Checks every word of the segment's tables, and what they say together.
    ///
    /// It may run at any time: what others do meanwhile is never taken for damage, and the counts
    /// are those of some moment in between. It changes nothing but for leases of the table's own
    /// arrays that it takes for a moment, and waits for nobody. 10^6 live arrays took 0.14 s.
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
    /// Only those of joining, in a child that a fork has made.
    pub fn verify(&self) -> Result<Verification, JoinError> {
        let me = self.enter()?;
        Ok(verify(self.segment.memory(), Some(me)))
    }
}

/// Checks what `memory` holds. Without a seat the arrays of partitions and queues are not looked
/// into, for nothing keeps them in place.
pub(crate) fn verify(memory: &Memory, me: Option<SeatId>) -> Verification {
    let mut check = Check {
        memory,
        layout: memory.layout(),
        me,
        seats: seat_words(memory),
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
        // Acquire: pairs with the Release of who has left the seat, and has taken back all it held.
        .map(|seat| memory.seat_word(seat).load(Ordering::Acquire))
        .collect()
}

struct Check<'m> {
    memory: &'m Memory,
    layout: &'m Layout,
    me: Option<SeatId>,
    /// The seats before anything else was read.
    seats: Vec<SeatWord>,
    /// What is damage if its seat was FREE all the time.
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

    /// A word as it is now, after all that has been read.
    ///
    /// A read-modify-write, which an older value than the newest cannot satisfy: what somebody did
    /// next to a change of this word may have been read before. One who only looks on cannot have
    /// that; it reads late, and that the processor may read early, by nanoseconds, is its risk.
    fn now<W: Word>(&self, word: &Atom<W>) -> W {
        match self.me {
            Some(_) => word.read_modify_write(Ordering::Relaxed),
            None => word.load(Ordering::Relaxed),
        }
    }

    fn header(&mut self) {
        let get = |at: usize| self.memory.header()[at].load(Ordering::Relaxed);
        let (alive, persistent) = (get(Header::ALIVE), get(Header::PERSISTENT));
        // A model's segment has not been brought to life.
        if cfg!(not(loom)) && alive != Header::encode(&self.layout.geometry) {
            self.damage(Header::ALIVE as u64 * 8, "the header has changed", alive);
        }
        if persistent > 1 {
            let offset = Header::PERSISTENT as u64 * 8;
            self.damage(offset, "neither persistent nor not", persistent);
        }
        self.found.seats = self.seats.iter().filter(|word| word.is_taken()).count();
    }

    /// The spans up to the first entry that is empty or none.
    fn spans(&mut self) -> Vec<Span> {
        let table = Spans::of(self.memory);
        let entries = self.memory.spans();
        let spans: Vec<Span> = table.iter().collect();
        let mut end = 0;
        for span in &spans {
            if span.base < end {
                let word = entries[span.index].load(Ordering::Relaxed);
                self.damage(
                    self.span_at(span.index),
                    "a span overlaps the one before",
                    word.bits(),
                );
            }
            end = span.end();
        }
        let first = spans.len();
        for (index, entry) in entries.iter().enumerate().skip(first) {
            let word = entry.load(Ordering::Relaxed);
            // Entries are set in their order: if the first one still is empty, or none, carving has
            // not set this one.
            if !word.is_empty() && table.decode(first, self.now(&entries[first])).is_none() {
                self.damage(
                    self.span_at(index),
                    "not an entry of the span table",
                    word.bits(),
                );
            }
        }
        self.found.spans = first;
        spans
    }

    fn span_at(&self, index: usize) -> u64 {
        self.layout.spans + index as u64 * 8
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
                self.damage(offset, "a slot beyond its span's last", slot.word().bits());
            }
        }
    }

    fn slot_at(&self, index: usize) -> u64 {
        self.layout.slots + index as u64 * 8
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
        for seat in &readers {
            let row = self.layout.geometry.reader_words();
            let at = slot.index * row + seat.index().unwrap_or(0) / 64;
            let offset = self.layout.readers + at as u64 * 8;
            self.seat(*seat, offset, "a reader's bit of a seat that is free", 0);
        }
        if !word.writer().is_none() {
            self.found.writers += 1;
            if word.writer() != SeatId::ORPHAN {
                let what = "written by a seat that is free";
                self.seat(word.writer(), offset, what, word.bits());
            }
        }
        let unread = readers.is_empty();
        let (count, in_transit) = match word.lifecycle() {
            Lifecycle::Free => {
                if !Hints::of(self.memory).leads_to(extent.class, slot.index) {
                    self.found.unhinted += 1;
                }
                (&mut self.found.free, !unread)
            }
            Lifecycle::Reserved => {
                let what = "reserved by a seat that is free";
                self.seat(word.owner(), offset, what, word.bits());
                (&mut self.found.reserved, true)
            }
            Lifecycle::Live => {
                self.live(slot, word, extent);
                self.found.poisoned += usize::from(word.is_poisoned());
                let orphan = word.writer() == SeatId::ORPHAN;
                (&mut self.found.live, orphan && unread)
            }
            Lifecycle::Retired => {
                let leased = !unread || !matches!(word.writer(), SeatId::NONE | SeatId::ORPHAN);
                (&mut self.found.retired, !leased)
            }
            Lifecycle::Exhausted => (&mut self.found.exhausted, !unread),
            // `fault` has refused it.
            Lifecycle::Invalid => return,
        };
        *count += 1;
        self.found.in_transit += usize::from(in_transit);
    }

    /// A LIVE slot: its owner, and what its descriptor says.
    fn live(&mut self, slot: Slot<'_>, word: SlotWord, extent: Extent) {
        if !word.is_detached() {
            let what = "owned by a seat that is free";
            self.seat(word.owner(), self.slot_at(slot.index), what, word.bits());
        }
        let words = self.memory.descriptor(slot.index);
        let head = words[0].load(Ordering::Relaxed);
        let descriptor = Descriptor::load(words);
        let what = match &descriptor {
            None => Some("not a descriptor"),
            Some(descriptor) if descriptor.is_control() != word.is_control() => {
                Some("a control array's descriptor or word, but not both")
            }
            Some(descriptor) if descriptor.is_control() => None,
            Some(descriptor) => match descriptor.dtype(self.memory) {
                None => Some("an element type that is not known"),
                Some(dtype) => match descriptor.bytes(dtype.size()) {
                    Some(bytes) if bytes <= extent.size() => None,
                    _ => Some("a shape that does not fit into the extent"),
                },
            },
        };
        // The word again, as in `attach`: what was read is this array's.
        if !slot.word().is_live(word.generation()) {
            return;
        }
        if let Some(what) = what {
            self.damage(self.layout.descriptor_at(slot.index), what, head);
        } else if let (Some(descriptor), Some(me)) = (descriptor, self.me)
            && descriptor.is_control()
            && let Ok(shared) = slot.lock_shared(word.generation(), me)
        {
            self.control(slot, &descriptor, extent);
            if let Tail::Freed(_) = slot.undo(shared, me) {
                Hints::of(self.memory).set(extent.class, slot.index);
            }
        }
    }

    /// The words of a partition, a queue or a record of names, under a lease.
    fn control(&mut self, slot: Slot<'_>, descriptor: &Descriptor, extent: Extent) {
        let start = self.layout.data + extent.offset;
        if descriptor.is_control_of(ControlKind::Partition) {
            let control = Control::open(self.memory, extent);
            let Some(control) = control.filter(|control| control.plan().is_some()) else {
                return self.damage(start, "not the words of a partition", 0);
            };
            control.faults(|at, word, holder| {
                self.word(
                    start + at as u64 * 8,
                    word,
                    holder,
                    "not a claim of this partition",
                );
            });
        } else if descriptor.is_control_of(ControlKind::Queue) {
            let Some((cells, _)) = Cells::open(self.memory, extent) else {
                return self.damage(start, "not the words of a queue", 0);
            };
            cells.faults(|at, word, holder| {
                let data = self.layout.data;
                self.word(data + at, word, holder, "not a cell of this queue");
            });
        } else if descriptor.is_control_of(ControlKind::Names) {
            match names::check(self.memory, slot) {
                None => self.damage(start, "not the record of a bucket of names", 0),
                Some(in_bucket) => self.found.in_transit += usize::from(!in_bucket),
            }
        } else if descriptor.is_control_of(ControlKind::Bundle) {
            let bucket = self.memory.names().len() + slot.index;
            self.bucket(
                bucket,
                Descriptor::bundle(self.memory.descriptor(slot.index)),
            );
        } else if descriptor.is_control_of(ControlKind::Call) {
            // Any bytes are good; there must be room for them.
            let bytes = descriptor.bytes(size_of::<u64>());
            if bytes.is_none_or(|bytes| bytes > extent.size()) {
                self.damage(start, "the memory of a call, larger than its extent", 0);
            }
        } else if !descriptor.is_control_of(ControlKind::Pool) {
            self.damage(start, "words of an unknown kind", 0);
        }
    }

    /// The buckets of the names: each is empty, or names a live record that says so.
    fn names(&mut self) {
        for bucket in names::used(self.memory) {
            self.bucket(bucket, &self.memory.names()[bucket]);
        }
    }

    fn bucket(&mut self, bucket: usize, word: &Atom) {
        let seen = names::word_of(self.memory, bucket).unwrap_or(BucketWord::EMPTY);
        let good = seen.is_empty() || names::is_record(self.memory, seen, bucket);
        // A record is freed after another has come into its place.
        if !good && self.now(word) == seen.bits() {
            let offset = names::offset_of(self.layout, bucket);
            let what = "a bucket of names without a record of them";
            self.damage(offset, what, seen.bits());
        }
    }

    /// A word that is none, if it has no holder, or has one that may be free.
    fn word(&mut self, offset: u64, word: u64, holder: Option<SeatId>, what: &'static str) {
        match holder {
            None => self.damage(offset, what, word),
            Some(seat) => self.seat(seat, offset, "held by a seat that is free", word),
        }
    }

    /// What `offset` holds names `seat`.
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
            None => self.damage(offset, "a seat that the segment does not have", found),
            Some((index, word)) if !word.is_taken() => self.suspects.push((index, damage)),
            Some(_) => {}
        }
    }

    /// Lets go of suspects whose seat was taken meanwhile.
    fn acquit(&mut self) {
        for (seat, damage) in core::mem::take(&mut self.suspects) {
            if self.now(self.memory.seat_word(seat)) == self.seats[seat] {
                self.found.damage.push(damage);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
