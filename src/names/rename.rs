//! Renaming. It may change two buckets, but other participants see one step.

use super::buckets::{Buckets, EntryStatus};
use super::record::{Arrival, Name, Renamer, Value};
use super::{checked, not_found, taken};
use crate::names::error::NameError;
use crate::sync::Ordering;
use crate::table::core::Core;
use crate::word::{BucketIndex, BucketWord};

impl Core {
    /// Renames `old` to `new` in one step: at every moment the array has one of the two names, and
    /// never both.
    pub(crate) fn rename(&self, old: &str, new: &str) -> Result<(), NameError> {
        let (leaving, arriving) = (checked(old)?, checked(new)?);
        self.enter()?;
        let buckets = Buckets { table: self };
        let (from, to) = (buckets.of(&leaving), buckets.of(&arriving));
        loop {
            let done = match from == to {
                true => self.rename_within(from, (old, &leaving), (new, &arriving))?,
                false => self.move_name((from, old, &leaving), (to, new, &arriving))?,
            };
            if done {
                self.remember_named(to);
                return Ok(());
            }
        }
    }

    /// Renames within one bucket, by one change of it. Returns `true` on success.
    fn rename_within(
        &self,
        bucket: BucketIndex,
        (old, leaving): (&str, &Name),
        (new, arriving): (&str, &Name),
    ) -> Result<bool, NameError> {
        let buckets = Buckets { table: self };
        let mut seen = buckets.read(bucket)?;
        buckets.unlink_stale(bucket, &mut seen.contents, |_| true)?;
        let names = &mut seen.contents.names;
        let at = |names: &[(Name, Value)], wanted: &Name| {
            names
                .iter()
                .position(|(name, value)| name == wanted && value.arrival.is_none())
        };
        let Some(place) = at(names, leaving) else {
            return match buckets.load(bucket)? == seen.word {
                true => Err(not_found(old)),
                false => Ok(false),
            };
        };
        if leaving == arriving {
            return Ok(true);
        }
        if let Some(other) = names.iter().find(|(name, _)| name == arriving) {
            // The new name may have arrived, and the old name left, after the record was read.
            return match other.1.arrival {
                None if buckets.load(bucket)? == seen.word => Err(taken(new, &other.1)),
                _ => Ok(false),
            };
        }
        names[place].0 = *arriving;
        buckets.swap(bucket, seen.word, &mut seen.contents)
    }

    /// Moves a name between two buckets. Returns `true` on success, and `false` if another
    /// participant has changed one of the buckets meanwhile.
    fn move_name(
        &self,
        (from, old, leaving): (BucketIndex, &str, &Name),
        (to, new, arriving): (BucketIndex, &str, &Name),
    ) -> Result<bool, NameError> {
        let buckets = Buckets { table: self };
        // Do not tidy these contents: other participants use the place of the name in this record.
        let mut source = buckets.read(from)?;
        let place = source.contents.position(leaving);
        let value = place.map(|place| source.contents.names[place].1);
        let status = value
            .as_ref()
            .map(|value| buckets.status(value))
            .transpose()?;
        let (Some(place), Some(value), Some(EntryStatus::Good)) = (place, value, status) else {
            return match buckets.load(from)? == source.word {
                true => Err(not_found(old)),
                false => Ok(false),
            };
        };
        let mut target = buckets.read(to)?;
        buckets.unlink_stale(to, &mut target.contents, |_| true)?;
        if let Some(at) = target.contents.position(arriving) {
            let other = &target.contents.names[at].1;
            // The new name may be the old one, moved by another participant. Then retry.
            let there =
                buckets.load(from)? == source.word && buckets.status(&value)? == EntryStatus::Good;
            return match other.arrival {
                None if there => Err(taken(new, other)),
                _ => Ok(false),
            };
        }
        let mut arrival = Arrival {
            id: BucketWord::EMPTY,
            from,
            seen: source.word,
            place,
            mover: self.mover(),
        };
        let arrived = Value {
            arrival: Some(arrival),
            ..value
        };
        target.contents.names.push((*arriving, arrived));
        // Create both records first: once the arrival is in its bucket, no step can fail any more.
        let arriving = buckets.make(to, &mut target.contents)?;
        arrival.id = arriving;
        let departed = buckets.departure_record(&arrival, to, &mut source.contents);
        let departed = departed.inspect_err(|_| buckets.free(arriving))?;
        if !buckets.cas_bucket(to, target.word, arriving) {
            buckets.free(departed);
            return Ok(false);
        }
        // This step makes the arrival a name. If another participant did it for us, there is a
        // departure, which nobody removes while we are here.
        let moved = buckets.cas_bucket(from, source.word, departed) || {
            let now = buckets.read(from)?.contents;
            now.departures.iter().any(|left| left.id == arrival.id)
        };
        // After an error another participant finishes this later.
        let _ = match moved {
            true => self.remove_traces(&arrival, to),
            false => buckets.unlink_all_stale(to, |_| true).map(drop),
        };
        Ok(moved)
    }

    /// Makes the arrival a plain name, then removes its departure.
    fn remove_traces(&self, arrival: &Arrival, to: BucketIndex) -> Result<(), NameError> {
        let buckets = Buckets { table: self };
        buckets.unlink_all_stale(to, |_| true)?;
        loop {
            let mut seen = buckets.read(arrival.from)?;
            let before = seen.contents.departures.len();
            seen.contents
                .departures
                .retain(|left| left.id != arrival.id);
            let there = seen.contents.departures.len() < before;
            if !there
                || buckets.is_arriving(to, arrival.id)?
                || buckets.swap(arrival.from, seen.word, &mut seen.contents)?
            {
                return Ok(());
            }
        }
    }

    fn mover(&self) -> Renamer {
        let seat = self.own_seat();
        let word = seat
            .index()
            .map(|seat| self.segment().memory().seat_word(seat));
        // Relaxed: the word of this participant's own seat.
        let epoch = word.map_or(0, |word| word.load(Ordering::Relaxed).epoch());
        Renamer { seat, epoch }
    }
}
