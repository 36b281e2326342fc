//! Renaming: two buckets change, and for everybody else it is one step.

use super::buckets::{Buckets, Standing};
use super::record::{Arrival, Mover, Name, Value};
use super::{checked, not_found, taken};
use crate::error::NameError;
use crate::sync::Ordering;
use crate::table::HandleTable;
use crate::word::BucketWord;

impl HandleTable {
    /// Gives what is called `old` the name `new` instead, in one step: at every moment it has one of
    /// the two, and never both.
    ///
    /// If the caller is killed in it, the name is the old or the new one; which, is settled by the next
    /// who wants the new name, or who [reaps](HandleTable::reap).
    ///
    /// # Errors
    /// [`NameError::NotFound`] if nothing is called `old`, [`NameError::Taken`] if something else is
    /// called `new`, [`NameError::Length`], [`NameError::Alloc`].
    pub fn rename(&self, old: &str, new: &str) -> Result<(), NameError> {
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

    /// Both names are of one bucket, so that one change of it does. Whether it was made.
    fn rename_within(
        &self,
        bucket: usize,
        (old, leaving): (&str, &Name),
        (new, arriving): (&str, &Name),
    ) -> Result<bool, NameError> {
        let buckets = Buckets { table: self };
        let mut seen = buckets.read(bucket)?;
        buckets.tidy(bucket, &mut seen.contents, |_| true)?;
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
            // The new name may have arrived since the record was read, and the old one left.
            return match other.1.arrival {
                None if buckets.load(bucket)? == seen.word => Err(taken(new, &other.1)),
                _ => Ok(false),
            };
        }
        names[place].0 = *arriving;
        buckets.swap(bucket, seen.word, &mut seen.contents)
    }

    /// The names are of two buckets. Whether it was done; if not, another one has changed one of them
    /// in between.
    fn move_name(
        &self,
        (from, old, leaving): (usize, &str, &Name),
        (to, new, arriving): (usize, &str, &Name),
    ) -> Result<bool, NameError> {
        let buckets = Buckets { table: self };
        // As it is in the record, for the place of the name there is what others go by.
        let mut source = buckets.read(from)?;
        let place = source.contents.position(leaving);
        let value = place.map(|place| source.contents.names[place].1);
        let standing = value
            .as_ref()
            .map(|value| buckets.standing(value))
            .transpose()?;
        let (Some(place), Some(value), Some(Standing::Good)) = (place, value, standing) else {
            return match buckets.load(from)? == source.word {
                true => Err(not_found(old)),
                false => Ok(false),
            };
        };
        let mut target = buckets.read(to)?;
        buckets.tidy(to, &mut target.contents, |_| true)?;
        if let Some(at) = target.contents.position(arriving) {
            let other = &target.contents.names[at].1;
            // What has the new name may be what had the old one: then this was too late for both.
            let there =
                buckets.load(from)? == source.word && buckets.standing(&value)? == Standing::Good;
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
        // Both records first: once the arrival is in its bucket, nothing that may fail is left.
        let arriving = buckets.make(to, &mut target.contents)?;
        arrival.id = arriving;
        let departed = buckets.departure_record(&arrival, to, &mut source.contents);
        let departed = departed.inspect_err(|_| buckets.free(arriving))?;
        if !buckets.put(to, target.word, arriving) {
            buckets.free(departed);
            return Ok(false);
        }
        // The step that counts. Another one may have done it for us; the trace says so, which nobody
        // removes while we are here.
        let moved = buckets.put(from, source.word, departed) || {
            let now = buckets.read(from)?.contents;
            now.departures.iter().any(|left| left.id == arrival.id)
        };
        // What an error leaves undone, the next one does who comes by.
        let _ = match moved {
            true => self.remove_traces(&arrival, to),
            false => buckets.tidy_up(to, |_| true).map(drop),
        };
        Ok(moved)
    }

    /// Makes the arrival a plain name, and then takes its trace away.
    fn remove_traces(&self, arrival: &Arrival, to: usize) -> Result<(), NameError> {
        let buckets = Buckets { table: self };
        buckets.tidy_up(to, |_| true)?;
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

    fn mover(&self) -> Mover {
        let seat = self.own_seat();
        let word = seat
            .index()
            .map(|seat| self.segment().memory().seat_word(seat));
        // Relaxed: it is this participant's own.
        let epoch = word.map_or(0, |word| word.load(Ordering::Relaxed).epoch());
        Mover { seat, epoch }
    }
}
