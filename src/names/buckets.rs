//! One bucket: reading its record, and putting another one in its place.
//!
//! `README.md` beside this file is the protocol, with its argument.

use super::record::{self, Arrival, Contents, Departure, Name, Value};
use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{LeaseError, NameError};
use crate::handle::AnyHandle;
use crate::segment::Memory;
use crate::span::Spans;
use crate::sync::{Atom, Ordering};
use crate::table::HandleTable;
use crate::table::slot::Slot;
use crate::word::{BucketWord, SeatId, SlotWord};

/// The buckets of a table, as one participant sees them.
#[derive(Clone, Copy)]
pub(super) struct Buckets<'t> {
    pub(super) table: &'t HandleTable,
}

/// What a bucket held at one moment.
pub(super) struct Seen {
    pub(super) word: BucketWord,
    pub(super) contents: Contents,
}

/// What a name is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It stands for something.
    Good,
    /// What it stood for has been freed.
    Dead,
    /// The name that it is to replace is still there.
    Pending,
    /// It will never be a name: the other bucket has changed before the old name could leave it.
    Void,
}

impl<'t> Buckets<'t> {
    fn memory(self) -> &'t Memory {
        self.table.segment().memory()
    }

    pub(super) fn count(self) -> usize {
        self.memory().names().len()
    }

    pub(super) fn of(self, name: &Name) -> usize {
        name.bucket(self.count())
    }

    /// The word of a bucket. A damaged record may name one that there is not.
    pub(super) fn load(self, bucket: usize) -> Result<BucketWord, NameError> {
        let word = self.memory().names().get(bucket);
        // Acquire: pairs with the Release in `put`. Who finds a bucket changed finds what was done
        // before: a name that has arrived before its trace went, for instance.
        word.map(|word| word.load(Ordering::Acquire))
            .ok_or_else(|| self.corrupt(0))
    }

    #[cold]
    pub(super) fn corrupt(self, bucket: usize) -> NameError {
        NameError::Corrupt {
            offset: self.memory().layout().names + bucket as u64 * 8,
            what: "a bucket of names without a record of them",
        }
    }

    /// Shows `look` the words of a bucket's record, under a lease. `None` if it has none.
    pub(super) fn visit<R>(
        self,
        bucket: usize,
        look: impl FnOnce(&[Atom]) -> Option<R>,
    ) -> Result<(BucketWord, Option<R>), NameError> {
        let mut word = self.load(bucket)?;
        loop {
            let Some((slot, generation)) = word.record() else {
                return match word == BucketWord::EMPTY {
                    true => Ok((word, None)),
                    false => Err(self.corrupt(bucket)),
                };
            };
            match self
                .table
                .lease_shared(self.table.handle_of(slot, generation))
            {
                Ok(lease) => {
                    let words = record_words(self.memory(), lease.slot, bucket);
                    let seen = words.and_then(look).ok_or_else(|| self.corrupt(bucket))?;
                    return Ok((word, Some(seen)));
                }
                Err(LeaseError::Stale { .. }) => {
                    // A record is freed after another has taken its place, and who finds it freed
                    // finds that.
                    let now = self.load(bucket)?;
                    if now == word {
                        return Err(self.corrupt(bucket));
                    }
                    word = now;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All that a bucket holds.
    pub(super) fn read(self, bucket: usize) -> Result<Seen, NameError> {
        let decode = |words: &[Atom]| Contents::decode(get(words));
        let (word, contents) = self.visit(bucket, decode)?;
        Ok(Seen {
            word,
            contents: contents.unwrap_or_default(),
        })
    }

    /// A record of `contents`, which is this participant's until it is in its bucket. `None` for no
    /// contents, which need none.
    ///
    /// An arrival without an id gets that of the record.
    pub(super) fn make(
        self,
        bucket: usize,
        contents: &mut Contents,
    ) -> Result<BucketWord, NameError> {
        if contents.is_empty() {
            return Ok(BucketWord::EMPTY);
        }
        let Some(words) = contents.words() else {
            return Err(NameError::Crowded {
                names: contents.names.len(),
            });
        };
        let reserved = self.table.reserve(words as u64 * 8)?;
        let word = BucketWord::of(reserved.slot.index, reserved.word.generation());
        let arrivals = contents
            .names
            .iter_mut()
            .flat_map(|(_, value)| &mut value.arrival);
        for arrival in arrivals.filter(|arrival| arrival.id == BucketWord::EMPTY) {
            arrival.id = word;
        }
        let Some(control) = self.memory().control(reserved.extent.offset, words) else {
            return Err(self.table.abandon_damaged(reserved).into());
        };
        let mut at = control.iter();
        // Relaxed: whoever reads them has a lease, whose Acquire pairs with the Release that makes
        // the record LIVE.
        contents.encode(|word| {
            if let Some(place) = at.next() {
                place.store(word, Ordering::Relaxed);
            }
        });
        self.table.publish_record(reserved, |descriptor| {
            Descriptor::control(ControlKind::Names, words).store(descriptor);
            Descriptor::store_bucket(descriptor, bucket);
        });
        Ok(word)
    }

    /// Puts a record that this participant has made in the place of `seen`; whether it was still
    /// there. The one that is not in the bucket afterwards is freed.
    pub(super) fn put(self, bucket: usize, seen: BucketWord, new: BucketWord) -> bool {
        // Release: pairs with the Acquire in `load`. Acquire: the next record was made after whatever
        // led to this one.
        let put = self.memory().names().get(bucket).is_some_and(|word| {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            word.compare_exchange(seen, new, order.0, order.1).is_ok()
        });
        if put && let Some((slot, generation)) = new.record() {
            let still_there = Slot::of(self.memory(), slot)
                .is_none_or(|slot| settle(self.memory(), slot, generation, bucket));
            if !still_there {
                self.free(new);
            }
        }
        self.free(if put { seen } else { new });
        put
    }

    /// Makes and puts.
    pub(super) fn swap(
        self,
        bucket: usize,
        seen: BucketWord,
        contents: &mut Contents,
    ) -> Result<bool, NameError> {
        let new = self.make(bucket, contents)?;
        Ok(self.put(bucket, seen, new))
    }

    /// Frees a record that is not in its bucket.
    pub(super) fn free(self, record: BucketWord) {
        if let Some((slot, generation)) = record.record() {
            // An error says that somebody else, who saw it out of its bucket, was faster.
            let _ = self.table.free_slot(self.table.handle_of(slot, generation));
        }
    }

    /// What a value that was found in a bucket is worth. If it is not `Good`, that holds of the bucket
    /// as it is now only if its word has not changed.
    pub(super) fn standing(self, value: &Value) -> Result<Standing, NameError> {
        if let Some(arrival) = &value.arrival {
            let departed = |words: &[Atom]| {
                let contents = Contents::decode(get(words))?;
                Some(contents.departures.iter().any(|left| left.id == arrival.id))
            };
            match self.visit(arrival.from, departed)? {
                (_, Some(true)) => {}
                (word, _) if word == arrival.seen => return Ok(Standing::Pending),
                _ => return Ok(Standing::Void),
            }
        }
        Ok(match self.table.look().live(value.handle) {
            Ok(_) => Standing::Good,
            Err(_) => Standing::Dead,
        })
    }

    /// Lets the name that an arrival replaces leave its bucket: from then on the arrival is a name.
    ///
    /// Done by anyone whom the arrival would hold up. Nothing comes of it if the bucket has changed.
    pub(super) fn depart(self, arrival: &Arrival, to: usize) -> Result<(), NameError> {
        let mut seen = self.read(arrival.from)?;
        if seen.word != arrival.seen {
            return Ok(());
        }
        if arrival.place >= seen.contents.names.len() {
            return Err(self.corrupt(to));
        }
        let record = self.departure_record(arrival, to, &mut seen.contents)?;
        self.put(arrival.from, arrival.seen, record);
        Ok(())
    }

    /// The record that a bucket has once the name has left it.
    pub(super) fn departure_record(
        self,
        arrival: &Arrival,
        to: usize,
        contents: &mut Contents,
    ) -> Result<BucketWord, NameError> {
        contents.names.remove(arrival.place);
        contents.departures.push(Departure {
            id: arrival.id,
            to,
            mover: arrival.mover,
        });
        self.make(arrival.from, contents)
    }

    /// Finishes what others have begun in a bucket, and leaves out what is over: names whose array was
    /// freed (or is not `kept`), arrivals that came to nothing, traces that nobody needs.
    pub(super) fn tidy(
        self,
        bucket: usize,
        contents: &mut Contents,
        kept: impl Fn(AnyHandle) -> bool,
    ) -> Result<(), NameError> {
        let mut names = Vec::with_capacity(contents.names.len());
        for (name, mut value) in contents.names.drain(..) {
            let mut standing = self.standing(&value)?;
            if let (Standing::Pending, Some(arrival)) = (standing, &value.arrival) {
                self.depart(arrival, bucket)?;
                standing = self.standing(&value)?;
            }
            match standing {
                Standing::Good => value.arrival = None,
                Standing::Pending => {}
                Standing::Dead | Standing::Void => continue,
            }
            if kept(value.handle) {
                names.push((name, value));
            }
        }
        contents.names = names;
        let mut departures = Vec::with_capacity(contents.departures.len());
        for departure in contents.departures.drain(..) {
            if self.is_needed(&departure)? {
                departures.push(departure);
            }
        }
        contents.departures = departures;
        Ok(())
    }

    /// Whether a trace must stay: the arrival looks for it, or whoever renames has yet to see it.
    fn is_needed(self, departure: &Departure) -> Result<bool, NameError> {
        let mover = departure.mover;
        let seats = self.memory().layout().geometry.seats as usize;
        let here = mover.seat.index().filter(|&seat| seat < seats);
        let word = here.map(|seat| self.memory().seat_word(seat).load(Ordering::Relaxed));
        // Epochs only grow: another one says that the mover is gone.
        if word.is_some_and(|word| word.is_taken() && word.epoch() == mover.epoch) {
            return Ok(true);
        }
        self.is_arriving(departure.to, departure.id)
    }

    /// Whether an arrival is in that bucket, and not a plain name by now.
    pub(super) fn is_arriving(self, bucket: usize, id: BucketWord) -> Result<bool, NameError> {
        let contents = self.read(bucket)?.contents;
        let arrivals = contents.names.iter().filter_map(|(_, value)| value.arrival);
        Ok(arrivals.into_iter().any(|arrival| arrival.id == id))
    }

    /// Tidies a bucket until there is nothing to do. The buckets that names had come from.
    pub(super) fn tidy_up(
        self,
        bucket: usize,
        kept: impl Fn(AnyHandle) -> bool,
    ) -> Result<Vec<usize>, NameError> {
        loop {
            let seen = self.read(bucket)?;
            let mut contents = seen.contents.clone();
            self.tidy(bucket, &mut contents, &kept)?;
            if contents == seen.contents || self.swap(bucket, seen.word, &mut contents)? {
                let arrivals = seen.contents.names.iter();
                return Ok(arrivals
                    .filter_map(|(_, value)| Some(value.arrival?.from))
                    .collect());
            }
        }
    }
}

/// How the words of a record are read: nobody changes them while it lives.
pub(super) fn get(words: &[Atom]) -> impl Fn(usize) -> Option<u64> + '_ {
    |at| Some(words.get(at)?.load(Ordering::Relaxed))
}

/// The words of the record of `bucket` in a slot that the caller has leased.
fn record_words<'m>(memory: &'m Memory, slot: Slot<'_>, bucket: usize) -> Option<&'m [Atom]> {
    let words = memory.descriptor(slot.index);
    let descriptor = Descriptor::load(words)?;
    let ours =
        descriptor.is_control_of(ControlKind::Names) && Descriptor::bucket(words) == bucket as u64;
    let extent = Spans::of(memory).extent(slot.index).filter(|_| ours)?;
    let len = *descriptor.shape().first()?;
    let fits = len
        .checked_mul(8)
        .is_some_and(|bytes| bytes <= extent.size());
    memory.control(extent.offset, fits.then_some(len as usize)?)
}

/// Gives a record to its bucket, where it has just been put; whether it is still there. If not, the
/// caller frees it, for whoever has put another one there may have died before.
pub(crate) fn settle(memory: &Memory, slot: Slot<'_>, generation: u32, bucket: usize) -> bool {
    slot.detach_record(generation);
    is_in_bucket(memory, slot, generation, bucket)
}

fn is_in_bucket(memory: &Memory, slot: Slot<'_>, generation: u32, bucket: usize) -> bool {
    let word = memory.names().get(bucket);
    word.is_some_and(|word| word.load(Ordering::Acquire) == BucketWord::of(slot.index, generation))
}

/// Whether a bucket's word names a live record of that bucket, at this moment.
pub(crate) fn is_record(memory: &Memory, word: BucketWord, bucket: usize) -> bool {
    let Some((slot, generation)) = word.record() else {
        return false;
    };
    let Some(slot) = Slot::of(memory, slot).filter(|slot| slot.word().is_live(generation)) else {
        return false;
    };
    let words = memory.descriptor(slot.index);
    let ours = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names))
        && Descriptor::bucket(words) == bucket as u64;
    ours && slot.word().is_named()
}

/// Whether the record in a leased slot is in its bucket; `None` if it is no record.
pub(crate) fn check(memory: &Memory, slot: Slot<'_>) -> Option<bool> {
    let bucket = Descriptor::bucket(memory.descriptor(slot.index)) as usize;
    let words = record_words(memory, slot, bucket)?;
    let contents = Contents::decode(get(words))?;
    let buckets = memory.names().len();
    let here = |(name, _): &(Name, Value)| name.bucket(buckets) == bucket;
    let ours = bucket < buckets && contents.names.iter().all(here);
    ours.then(|| is_in_bucket(memory, slot, slot.word().generation(), bucket))
}

/// What becomes of the record in `slot`, if it is one, when `seat` is vacated.
///
/// One that `seat` has put into its bucket is the bucket's; one that it had not, or whose place has
/// been taken by somebody who then died, is retired.
///
/// `seen` is LIVE and named, and the slot's word a moment ago.
pub(crate) fn vacate(memory: &Memory, slot: Slot<'_>, seen: SlotWord, seat: SeatId) {
    let generation = seen.generation();
    let words = memory.descriptor(slot.index);
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    let bucket = Descriptor::bucket(words) as usize;
    // A read-modify-write, so that a participant that gives its record to the bucket after this sees
    // what the dead one has put there instead.
    let word = slot.newest();
    if !record || !word.is_live(generation) || !(word.is_detached() || word.owner() == seat) {
        return;
    }
    let stays = match word.is_detached() {
        true => is_in_bucket(memory, slot, generation, bucket),
        false => {
            is_in_bucket(memory, slot, generation, bucket)
                && settle(memory, slot, generation, bucket)
        }
    };
    if !stays {
        // Who was faster has retired it. The tail check follows in the walk.
        let _ = slot.change(|word| word.retire(generation, seat));
    }
}

/// What `name` stands for, in the words of a record.
pub(super) fn find<'n>(name: &'n Name) -> impl FnOnce(&[Atom]) -> Option<Option<Value>> + 'n {
    move |words| record::find(get(words), name)
}
