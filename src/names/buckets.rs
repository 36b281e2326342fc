//! One bucket: reading its record, and putting another one in its place.
//!
//! `README.md` beside this file is the protocol, with its argument.

use super::record::{self, Arrival, Contents, Departure, Name, Value};
use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{LeaseError, NameError};
use crate::handle::AnyHandle;
use crate::layout::Layout;
use crate::segment::{Memory, Segment};
use crate::span::Spans;
use crate::sync::{Atom, Ordering, Word};
use crate::table::HandleTable;
use crate::table::hints::Hints;
use crate::table::slot::{Slot, Tail};
use crate::word::{BucketWord, SeatId, SlotWord};

/// The buckets of a table, as one participant sees them.
#[derive(Clone, Copy)]
pub(crate) struct Buckets<'t> {
    pub(crate) table: &'t HandleTable,
}

/// What a bucket held at one moment.
pub(crate) struct Seen {
    pub(crate) word: BucketWord,
    pub(crate) contents: Contents,
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
    pub(crate) fn load(self, bucket: usize) -> Result<BucketWord, NameError> {
        word_of(self.memory(), bucket).ok_or_else(|| self.corrupt(0))
    }

    #[cold]
    pub(super) fn corrupt(self, bucket: usize) -> NameError {
        NameError::Corrupt {
            offset: offset_of(self.memory().layout(), bucket),
            what: "a bucket of names without a record of them",
        }
    }

    /// Shows `look` the words of a bucket's record, under a lease. `None` if it has none.
    pub(crate) fn visit<R>(
        self,
        bucket: usize,
        look: impl FnOnce(&[Atom]) -> Option<R>,
    ) -> Result<(BucketWord, Option<R>), NameError> {
        let mut word = self.load(bucket)?;
        loop {
            let Some((slot, generation)) = word.record() else {
                return match word.is_empty() {
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
                Err(stale @ LeaseError::Stale { .. }) => {
                    // A record is freed after another has taken its place, and who finds it freed
                    // finds that; or with its bundle.
                    let now = self.load(bucket)?;
                    let freed = || {
                        bundle_of(self.memory(), bucket)
                            .is_some_and(|slot| !is_live_bundle(self.memory(), slot))
                    };
                    match now == word {
                        true if freed() => return Err(stale.into()),
                        true => return Err(self.corrupt(bucket)),
                        false => word = now,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All that a bucket holds.
    pub(crate) fn read(self, bucket: usize) -> Result<Seen, NameError> {
        let decode = |words: &[Atom]| Contents::decode(get(words));
        let (word, contents) = self.visit(bucket, decode)?;
        Ok(Seen {
            word,
            contents: contents.unwrap_or_default(),
        })
    }

    /// What the record in a leased slot holds; nothing if it is not that of the bucket.
    pub(crate) fn contents(self, slot: Slot<'_>, bucket: usize) -> Contents {
        let words = record_words(self.memory(), slot, bucket);
        let contents = words.and_then(|words| Contents::decode(get(words)));
        contents.unwrap_or_default()
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
            Descriptor::store_bucket(descriptor, bucket, word.record().map_or(0, |(_, g)| g));
        });
        Ok(word)
    }

    /// Puts a record that this participant has made in the place of `seen`; whether it was still
    /// there. The one that is not in the bucket afterwards is freed.
    pub(super) fn put(self, bucket: usize, seen: BucketWord, new: BucketWord) -> bool {
        // Release: pairs with the Acquire in `load`.
        let put = place_of(self.memory(), bucket).is_some_and(|word| {
            let (seen, new) = (seen.bits(), new.bits());
            word.compare_exchange(seen, new, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        });
        if put && let Some((slot, generation)) = new.record() {
            let still_there = Slot::of(self.memory(), slot)
                .is_none_or(|slot| settle(self.memory(), slot, generation, bucket));
            if !still_there {
                match bundle_of(self.memory(), bucket) {
                    // Freed before this, so that its parts are for us as well.
                    Some(bundle) if !is_live_bundle(self.memory(), bundle) => {
                        self.table.free_parts(bucket, new);
                    }
                    _ => self.free(new),
                }
            }
        }
        self.free(if put { seen } else { new });
        put
    }

    /// Makes and puts.
    pub(crate) fn swap(
        self,
        bucket: usize,
        seen: BucketWord,
        contents: &mut Contents,
    ) -> Result<bool, NameError> {
        let new = self.make(bucket, contents)?;
        Ok(self.put(bucket, seen, new))
    }

    /// Frees a record that is not in its bucket.
    pub(crate) fn free(self, record: BucketWord) {
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
    pub(crate) fn tidy(
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
    let ours = descriptor.is_control_of(ControlKind::Names) && is_of(words, slot.word(), bucket);
    let extent = Spans::of(memory).extent(slot.index).filter(|_| ours)?;
    let len = *descriptor.shape().first()?;
    let fits = len
        .checked_mul(8)
        .is_some_and(|bytes| bytes <= extent.size());
    memory.control(extent.offset, fits.then_some(len as usize)?)
}

/// Whether these are the words of a record of that bucket, in a slot that has this word.
fn is_of(words: &[Atom], word: SlotWord, bucket: usize) -> bool {
    Descriptor::bucket(words, word.generation()) == Some(bucket)
}

/// Gives a record to its bucket, where it has just been put; whether it is still there. If not, the
/// caller frees it, for whoever has put another one there may have died before.
pub(crate) fn settle(memory: &Memory, slot: Slot<'_>, generation: u32, bucket: usize) -> bool {
    slot.detach_record(generation);
    is_in_bucket(memory, slot, generation, bucket)
}

fn is_in_bucket(memory: &Memory, slot: Slot<'_>, generation: u32, bucket: usize) -> bool {
    bundle_of(memory, bucket).is_none_or(|bundle| is_live_bundle(memory, bundle))
        && record_in(memory, bucket).is_some_and(|record| record == (slot.index, generation))
}

/// Slot and generation of a bucket's record, as its word says now.
fn record_in(memory: &Memory, bucket: usize) -> Option<(usize, u32)> {
    word_of(memory, bucket)?.record()
}

/// What a bucket's word says now; `None` if there is no such bucket.
pub(crate) fn word_of(memory: &Memory, bucket: usize) -> Option<BucketWord> {
    // Acquire: pairs with the Release in `put`. Who finds a bucket changed finds what was done before: a
    // name that has arrived before its trace went, for instance.
    let word = place_of(memory, bucket)?.load(Ordering::Acquire);
    Some(BucketWord::from_bits(word))
}

/// The word of a bucket. Behind the buckets of the table, each slot is the number of one: that of the
/// bundle which is in it.
pub(crate) fn place_of(memory: &Memory, bucket: usize) -> Option<&Atom> {
    match bundle_of(memory, bucket) {
        None => memory.names().get(bucket),
        Some(slot) if slot < memory.slots().len() => {
            Some(Descriptor::bundle(memory.descriptor(slot)))
        }
        Some(_) => None,
    }
}

/// Where the word of a bucket is, or the descriptor that has it, in bytes from the start of the segment.
pub(crate) fn offset_of(layout: &Layout, bucket: usize) -> u64 {
    match bucket.checked_sub(layout.geometry.buckets()) {
        None => layout.names + bucket as u64 * 8,
        Some(slot) => layout.descriptor_at(slot),
    }
}

/// The slot of the bundle whose bucket has that number; `None` if it is one of the table's.
fn bundle_of(memory: &Memory, bucket: usize) -> Option<usize> {
    bucket.checked_sub(memory.names().len())
}

/// Whether there is a bundle in the slot, at the moment of this call.
fn is_live_bundle(memory: &Memory, slot: usize) -> bool {
    let Some(slot) = Slot::of(memory, slot) else {
        return false;
    };
    // A read-modify-write: either who frees the bundle afterwards sees what its bucket holds now, or
    // we see that it is freed.
    let word = slot.newest();
    let descriptor = Descriptor::load(memory.descriptor(slot.index));
    word.is_live(word.generation())
        && descriptor.is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Bundle))
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
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    record && Descriptor::bucket(words, generation) == Some(bucket) && slot.word().is_named()
}

/// Whether the record in a leased slot is in its bucket; `None` if it is no record.
pub(crate) fn check(memory: &Memory, slot: Slot<'_>) -> Option<bool> {
    let words = memory.descriptor(slot.index);
    let bucket = Descriptor::bucket(words, slot.word().generation())?;
    let words = record_words(memory, slot, bucket)?;
    let contents = Contents::decode(get(words))?;
    let buckets = memory.names().len();
    let here = |(name, _): &(Name, Value)| bucket >= buckets || name.bucket(buckets) == bucket;
    let ours = place_of(memory, bucket).is_some() && contents.names.iter().all(here);
    ours.then(|| is_in_bucket(memory, slot, slot.word().generation(), bucket))
}

/// What becomes of a record, or a part of a bundle, when `seat` is vacated. `seen` is LIVE and named,
/// and the slot's word a moment ago.
///
/// With `all`, also what belongs to nobody is looked at: garbage that somebody who died has left.
pub(crate) fn vacate(segment: &Segment, slot: Slot<'_>, seen: SlotWord, seat: SeatId, all: bool) {
    let memory = segment.memory();
    let generation = seen.generation();
    let words = memory.descriptor(slot.index);
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    if record {
        let Some(bucket) = Descriptor::bucket(words, generation) else {
            return;
        };
        let there = || is_in_bucket(memory, slot, generation, bucket);
        vacate_member(slot, generation, seat, all, there);
    } else if let Some(bundle) = Descriptor::part_of(words, generation) {
        let handle = AnyHandle::pack(segment.key(), slot.index, generation);
        let there = || is_part(memory, bundle, handle, seat);
        vacate_member(slot, generation, seat, all, there);
    }
}

/// One that `seat` has put where it belongs is given away; one that it had not, and one of nobody that
/// is not there any more, are retired.
fn vacate_member(
    slot: Slot<'_>,
    generation: u32,
    seat: SeatId,
    all: bool,
    there: impl Fn() -> bool,
) {
    // A read-modify-write, so that a participant that gives its own away after this sees what the
    // dead one has put in its place.
    let word = slot.newest();
    let owned = word.owner() == seat && !word.is_detached();
    if !word.is_live(generation) || !(owned || all && word.is_detached()) {
        return;
    }
    let mut stays = there();
    if owned && stays {
        slot.detach_record(generation);
        stays = there();
    }
    if !stays {
        // Who was faster has retired it. The tail check follows in the walk.
        let _ = slot.change(|word| word.retire(generation, seat));
    }
}

/// Whether an array is a part of the bundle of that bucket. `seat` takes a lease of the record for it.
pub(crate) fn is_part(memory: &Memory, bucket: usize, handle: AnyHandle, seat: SeatId) -> bool {
    let live = || bundle_of(memory, bucket).is_some_and(|slot| is_live_bundle(memory, slot));
    while live() {
        let Some((slot, generation)) = record_in(memory, bucket) else {
            return false;
        };
        let record = Slot::of(memory, slot);
        let lease = record.and_then(|slot| Some((slot, slot.lock_shared(generation, seat).ok()?)));
        let Some((slot, shared)) = lease else {
            if record_in(memory, bucket) == Some((slot, generation)) {
                return false;
            }
            continue;
        };
        let contents =
            record_words(memory, slot, bucket).and_then(|words| Contents::decode(get(words)));
        if let Tail::Freed(_) = slot.undo(shared, seat)
            && let Some(extent) = Spans::of(memory).extent(slot.index)
        {
            Hints::of(memory).set(extent.class, slot.index);
        }
        return contents.is_some_and(|contents| {
            let mut values = contents.names.iter().map(|(_, value)| value.handle);
            values.any(|value| value == handle)
        });
    }
    false
}

/// What goes with something that is freed.
pub(crate) struct Following {
    /// The bucket of the name that it was given last.
    pub(crate) name: u64,
    /// The number of its own bucket, and what that held, if it is a bundle.
    pub(crate) bundle: Option<(usize, BucketWord)>,
}

/// What goes with what was in a slot, which the caller has just retired and found named.
#[cold]
pub(crate) fn following(memory: &Memory, slot: Slot<'_>) -> Following {
    let words = memory.descriptor(slot.index);
    let bundle = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Bundle));
    // Relaxed: who put something there before the bundle was retired was acquired by that.
    let word = || BucketWord::from_bits(Descriptor::bundle(words).load(Ordering::Relaxed));
    Following {
        name: Descriptor::named_in(words),
        bundle: bundle.then(|| (memory.names().len() + slot.index, word())),
    }
}

/// What `name` stands for, in the words of a record.
pub(crate) fn find<'n>(name: &'n Name) -> impl FnOnce(&[Atom]) -> Option<Option<Value>> + 'n {
    move |words| record::find(get(words), name)
}
