//! The transitions of one bucket: reading its record, and replacing it.
//!
//! `README.md` beside this file has the protocol and its proof.

use super::groups::counted;
use super::place::{
    get, hand_over, is_live_bundle, offset_of, place_of, record_words, was_freed, word_of,
};
use super::record::{self, Arrival, Contents, Departure, Name, Value};
use super::single::Single;
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::memory::Corrupt;
use crate::memory::Memory;
use crate::names::NameInfo;
use crate::names::error::NameError;
use crate::sync::{Atom, Ordering};
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::slot::Slot;
use crate::word::{BucketIndex, BucketWord};

/// The buckets of a table, as seen by one participant.
#[derive(Clone, Copy)]
pub(crate) struct Buckets<'t> {
    pub(crate) table: &'t Core,
}

/// The contents of a bucket at one moment.
pub(crate) struct Seen {
    pub(crate) word: BucketWord,
    pub(crate) contents: Contents,
}

/// The status of a name in a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryStatus {
    /// The name stands for a live array.
    Good,
    /// The array was freed.
    Dead,
    /// An arrival. Its old name is still in the other bucket.
    Pending,
    /// An arrival that will never be a name: the other bucket changed before the old name left it.
    Void,
}

impl<'t> Buckets<'t> {
    fn memory(self) -> &'t Memory {
        self.table.segment().memory()
    }

    pub(super) fn count(self) -> usize {
        self.memory().names().len()
    }

    pub(super) fn of(self, name: &Name) -> BucketIndex {
        name.bucket(self.count())
    }

    /// Loads the word of a bucket. Returns `Corrupt` if there is no such bucket: a damaged record
    /// may name one.
    pub(crate) fn load(self, bucket: BucketIndex) -> Result<BucketWord, NameError> {
        word_of(self.memory(), bucket).ok_or_else(|| self.corrupt(BucketIndex::new(0)))
    }

    #[cold]
    pub(super) fn corrupt(self, bucket: BucketIndex) -> NameError {
        NameError::Corrupt(Corrupt {
            offset: offset_of(self.memory(), bucket),
            what: "a bucket of names has no valid list",
        })
    }

    /// Returns the value of a name, if its bucket has the name, and the bucket's word.
    pub(crate) fn find(
        self,
        bucket: BucketIndex,
        name: &Name,
    ) -> Result<(BucketWord, Option<Value>), NameError> {
        let word = self.load(bucket)?;
        if let Some(single) = Single::read(self.memory(), word, bucket) {
            return Ok((word, single.find(name)));
        }
        let look = |words: &[Atom]| record::find(get(words), name);
        let (word, found) = self.visit_from(bucket, word, look)?;
        Ok((word, found.flatten()))
    }

    /// Calls `look` with the words of a bucket's record, under a lease. Returns `None` if the
    /// bucket has no record.
    pub(crate) fn visit<R>(
        self,
        bucket: BucketIndex,
        look: impl FnOnce(&[Atom]) -> Option<R>,
    ) -> Result<(BucketWord, Option<R>), NameError> {
        self.visit_from(bucket, self.load(bucket)?, look)
    }

    /// Does the same, beginning with a loaded word of the bucket.
    fn visit_from<R>(
        self,
        bucket: BucketIndex,
        mut word: BucketWord,
        look: impl FnOnce(&[Atom]) -> Option<R>,
    ) -> Result<(BucketWord, Option<R>), NameError> {
        loop {
            let Some((slot, generation)) = word.record() else {
                return match word.is_empty() {
                    true => Ok((word, None)),
                    false => Err(self.corrupt(bucket)),
                };
            };
            self.memory().load_ahead(slot);
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
                    // A record is freed after it was replaced, or with its bundle. In the first
                    // case the bucket's word has changed by now.
                    let now = self.load(bucket)?;
                    let freed = || {
                        bucket
                            .bundle(self.memory())
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

    /// Attempts the transition from `lost`, a record that was freed in its bucket, to the empty
    /// bucket. Returns the bucket's word afterwards.
    ///
    /// The caller has found the record stale, and then the bucket's word unchanged.
    #[cold]
    fn heal(self, bucket: BucketIndex, lost: BucketWord) -> Result<BucketWord, NameError> {
        // CAS from `lost` only: another participant may have healed the bucket and put names in it.
        // Relaxed: an empty bucket publishes nothing, and a read-modify-write continues the release
        // sequences of earlier changes.
        let place = place_of(self.memory(), bucket).ok_or_else(|| self.corrupt(bucket))?;
        let empty = lost.emptied();
        let healed = counted(self.memory(), bucket, lost, empty, || {
            place
                .compare_exchange(lost, empty, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        });
        match healed {
            true => Ok(empty),
            false => self.load(bucket),
        }
    }

    /// Reads the contents of a bucket.
    pub(crate) fn read(self, bucket: BucketIndex) -> Result<Seen, NameError> {
        let decode = |words: &[Atom]| Contents::decode(get(words));
        let (word, contents) = self.visit(bucket, decode)?;
        Ok(Seen {
            word,
            contents: contents.unwrap_or_default(),
        })
    }

    /// Adds the names of a bucket that begin with `prefix` to `list`. `word` is a loaded word of the
    /// bucket. Returns `true` if the bucket has entries that a dead participant may have left.
    pub(super) fn list(
        self,
        bucket: BucketIndex,
        word: BucketWord,
        prefix: &str,
        list: &mut Vec<NameInfo>,
    ) -> Result<bool, NameError> {
        let single = Single::read(self.memory(), word, bucket);
        match single.as_ref().and_then(Single::decode) {
            Some((name, value)) => Ok(!self.list_name(name, &value, prefix, list)),
            None => self.list_from(bucket, word, prefix, list),
        }
    }

    /// Adds a plain name to `list`, if it begins with `prefix`. Returns `false` if its array was
    /// freed.
    #[inline]
    fn list_name(self, name: &str, value: &Value, prefix: &str, list: &mut Vec<NameInfo>) -> bool {
        let live = self.table.tables().live(value.handle).is_ok();
        if live && name.starts_with(prefix) {
            list.push(NameInfo::new(name.to_owned(), value));
        }
        live
    }

    #[cold]
    fn list_from(
        self,
        bucket: BucketIndex,
        word: BucketWord,
        prefix: &str,
        list: &mut Vec<NameInfo>,
    ) -> Result<bool, NameError> {
        let mut untidy = false;
        // Arrivals need a look at another bucket, without the lease of this one.
        let mut arrived = Vec::new();
        self.visit_from(bucket, word, |words| {
            let on_name = |name: &Name, value: Value| match value.arrival {
                Some(_) => arrived.push((*name, value)),
                None => untidy |= !self.list_name(name.as_str(), &value, prefix, list),
            };
            let mut departures = false;
            record::decode_with(get(words), on_name, |_| departures = true)?;
            untidy |= departures;
            Some(())
        })?;
        untidy |= !arrived.is_empty();
        for (name, value) in arrived {
            if self.status(&value)? == EntryStatus::Good && name.starts_with(prefix) {
                list.push(NameInfo::of(&name, &value));
            }
        }
        Ok(untidy)
    }

    /// Reads the record in a leased slot. Returns empty contents if it is not a record of the
    /// bucket.
    pub(crate) fn contents(self, slot: Slot<'_>, bucket: BucketIndex) -> Contents {
        let words = record_words(self.memory(), slot, bucket);
        let contents = words.and_then(|words| Contents::decode(get(words)));
        contents.unwrap_or_default()
    }

    /// Creates a record of `contents`. This participant owns it until it is in its bucket. Returns
    /// the empty word if the contents are empty.
    ///
    /// An arrival without an id gets the word of this record as its id.
    pub(super) fn make(
        self,
        bucket: BucketIndex,
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
        // Relaxed: readers have a lease. Its Acquire pairs with the Release that makes the record
        // LIVE.
        contents.encode(|word| {
            if let Some(place) = at.next() {
                place.store(word, Ordering::Relaxed);
            }
        });
        self.table.publish_record(reserved, |descriptor| {
            Descriptor::control(ControlKind::Names, words).store(descriptor);
            Descriptor::store_name(descriptor, contents.only_entry());
            Descriptor::store_bucket(descriptor, bucket, word.record().map_or(0, |(_, g)| g));
        });
        Ok(word)
    }

    /// Attempts to replace `seen` by `new`, which this participant has created. Returns `true` on
    /// success. Frees the record that is not in the bucket afterwards.
    pub(super) fn cas_bucket(self, bucket: BucketIndex, seen: BucketWord, new: BucketWord) -> bool {
        let put = counted(self.memory(), bucket, seen, new, || {
            // Release: pairs with the Acquire in `load_word`.
            place_of(self.memory(), bucket).is_some_and(|word| {
                word.compare_exchange(seen, new, Ordering::Release, Ordering::Relaxed)
                    .is_ok()
            })
        });
        if put && let Some((slot, generation)) = new.record() {
            let me = self.table.own_seat();
            let still_there = Slot::of(self.memory(), slot)
                .is_none_or(|slot| hand_over(self.memory(), slot, generation, bucket, me));
            if !still_there {
                match bucket.bundle(self.memory()) {
                    // The bundle was freed before this change, so its freer did not see these
                    // parts.
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

    /// Creates a record of `contents`, and attempts to replace `seen` by it.
    pub(crate) fn swap(
        self,
        bucket: BucketIndex,
        seen: BucketWord,
        contents: &mut Contents,
    ) -> Result<bool, NameError> {
        let new = self.make(bucket, contents)?;
        Ok(self.cas_bucket(bucket, seen, new))
    }

    /// Frees a record that is not in its bucket.
    pub(crate) fn free(self, record: BucketWord) {
        if let Some((slot, generation)) = record.record() {
            // An error says that another participant saw it out of its bucket, and freed it.
            let _ = self.table.free_slot(self.table.handle_of(slot, generation));
        }
    }

    /// Classifies a value from a bucket as `Good`, `Dead`, `Pending` or `Void`. Every result but
    /// `Good` holds only while the bucket's word is unchanged. The caller checks that.
    pub(super) fn status(self, value: &Value) -> Result<EntryStatus, NameError> {
        if let Some(arrival) = &value.arrival {
            let departed = |words: &[Atom]| {
                let contents = Contents::decode(get(words))?;
                Some(contents.departures.iter().any(|left| left.id == arrival.id))
            };
            match self.visit(arrival.from, departed)? {
                (_, Some(true)) => {}
                (word, _) if word == arrival.seen => return Ok(EntryStatus::Pending),
                _ => return Ok(EntryStatus::Void),
            }
        }
        Ok(match self.table.tables().live(value.handle) {
            Ok(_) => EntryStatus::Good,
            Err(_) => EntryStatus::Dead,
        })
    }

    /// Attempts to remove the old name of `arrival` from its bucket and to leave a departure. From
    /// then on the arrival is a name.
    ///
    /// Called by any participant that the arrival holds up. Does nothing if the old bucket has
    /// changed.
    pub(super) fn depart(self, arrival: &Arrival, to: BucketIndex) -> Result<(), NameError> {
        let mut seen = self.read(arrival.from)?;
        if seen.word != arrival.seen {
            return Ok(());
        }
        if arrival.place >= seen.contents.names.len() {
            return Err(self.corrupt(to));
        }
        let record = self.departure_record(arrival, to, &mut seen.contents)?;
        self.cas_bucket(arrival.from, arrival.seen, record);
        Ok(())
    }

    /// Creates the record of the old bucket, without the old name and with a departure.
    pub(super) fn departure_record(
        self,
        arrival: &Arrival,
        to: BucketIndex,
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

    /// Finishes the pending operations of other participants in `contents`, and drops its obsolete
    /// entries: names of arrays that were freed or are not `kept`, void arrivals, departures that
    /// are not needed.
    pub(crate) fn unlink_stale(
        self,
        bucket: BucketIndex,
        contents: &mut Contents,
        kept: impl Fn(AnyHandle) -> bool,
    ) -> Result<(), NameError> {
        let mut names = Vec::with_capacity(contents.names.len());
        for (name, mut value) in contents.names.drain(..) {
            let mut status = self.status(&value)?;
            if let (EntryStatus::Pending, Some(arrival)) = (status, &value.arrival) {
                self.depart(arrival, bucket)?;
                status = self.status(&value)?;
            }
            match status {
                EntryStatus::Good => value.arrival = None,
                EntryStatus::Pending => {}
                EntryStatus::Dead | EntryStatus::Void => continue,
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

    /// Returns `true` if a departure must stay: its arrival needs it, or the renaming participant
    /// has yet to see it.
    fn is_needed(self, departure: &Departure) -> Result<bool, NameError> {
        let mover = departure.mover;
        let seats = self.memory().layout().geometry.seats as usize;
        let here = mover.seat.index().filter(|&seat| seat < seats);
        let word = here.map(|seat| self.memory().seat_word(seat).load(Ordering::Relaxed));
        // Epochs only grow. A different epoch proves that the mover is gone.
        if word.is_some_and(|word| word.is_taken() && word.epoch() == mover.epoch) {
            return Ok(true);
        }
        self.is_arriving(departure.to, departure.id)
    }

    /// Returns `true` if the arrival with this id is in the bucket and is not a plain name yet.
    pub(super) fn is_arriving(
        self,
        bucket: BucketIndex,
        id: BucketWord,
    ) -> Result<bool, NameError> {
        let contents = self.read(bucket)?.contents;
        let arrivals = contents.names.iter().filter_map(|(_, value)| value.arrival);
        Ok(arrivals.into_iter().any(|arrival| arrival.id == id))
    }

    /// Tidies a bucket until nothing is left to do. Returns the buckets from which arrivals came.
    pub(super) fn unlink_all_stale(
        self,
        bucket: BucketIndex,
        kept: impl Fn(AnyHandle) -> bool,
    ) -> Result<Vec<BucketIndex>, NameError> {
        loop {
            let seen = self.read(bucket)?;
            let mut contents = seen.contents.clone();
            self.unlink_stale(bucket, &mut contents, &kept)?;
            if contents == seen.contents || self.swap(bucket, seen.word, &mut contents)? {
                let arrivals = seen.contents.names.iter();
                return Ok(arrivals
                    .filter_map(|(_, value)| Some(value.arrival?.from))
                    .collect());
            }
        }
    }
}
