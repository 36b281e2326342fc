//! One bucket: reading its record, and putting another one in its place.
//!
//! `README.md` beside this file is the protocol, with its argument.

use super::place::{
    bundle_of, get, is_live_bundle, offset_of, place_of, record_words, settle, was_freed, word_of,
};
use super::record::{self, Arrival, Contents, Departure, Name, Value};
use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{LeaseError, NameError};
use crate::handle::AnyHandle;
use crate::segment::Memory;
use crate::sync::{Atom, Ordering, Word};
use crate::table::HandleTable;
use crate::table::slot::Slot;
use crate::word::BucketWord;

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
                        true if was_freed(self.memory(), word) => {
                            word = self.heal(bucket, word)?;
                        }
                        true => return Err(self.corrupt(bucket)),
                        false => word = now,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a record that was freed while it was in its bucket out of it, with all that it held. Returns
    /// what the bucket's word says then.
    ///
    /// The caller has found the record stale, and after that the bucket's word unchanged.
    #[cold]
    fn heal(self, bucket: usize, lost: BucketWord) -> Result<BucketWord, NameError> {
        // From `lost` alone: another participant may have healed the bucket, and put names in it.
        // Relaxed: a bucket without a record publishes nothing. As a read-modify-write it carries on what
        // earlier changes of the bucket released.
        let place = place_of(self.memory(), bucket).ok_or_else(|| self.corrupt(bucket))?;
        let (seen, empty) = (lost.bits(), lost.emptied().bits());
        match place.compare_exchange(seen, empty, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(lost.emptied()),
            Err(_) => self.load(bucket),
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

/// What `name` stands for, in the words of a record.
pub(crate) fn find<'n>(name: &'n Name) -> impl FnOnce(&[Atom]) -> Option<Option<Value>> + 'n {
    move |words| record::find(get(words), name)
}
