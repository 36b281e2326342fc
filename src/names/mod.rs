//! Names: what stands for an array to those who have not got its handle.
//!
//! A name is found by its bucket, and all that a bucket holds is in one record, which is never
//! changed but replaced: by one compare-and-swap of the bucket's word. `README.md` beside this file
//! is the protocol, with its argument.

mod buckets;
mod called;
#[cfg(not(loom))]
mod look;
mod place;
mod recall;
mod record;
mod rename;
#[cfg(all(test, not(loom)))]
mod tests;
mod vacate;

use ndarray::Dimension;

use crate::descriptor::Descriptor;
use crate::element::Element;
use crate::error::{LeaseError, NameError};
use crate::handle::{AnyHandle, Handle};
use crate::layout::Header;
use crate::segment::Memory;
use crate::sync::Ordering;
use crate::table::HandleTable;
use buckets::Standing;
use recall::Found;
pub(crate) use record::{Contents, Name, Value};

pub(crate) use buckets::{Buckets, find};
#[cfg(not(loom))]
pub(crate) use look::LookAtNames;
pub(crate) use place::{check, is_bundle, is_record, offset_of, word_of};
pub(crate) use recall::Recall;
pub(crate) use vacate::{Emptied, Following, vacate};

/// A name, and what it stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct NameInfo {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub handle: AnyHandle,
    /// The process that gave the name, as it knew its own number.
    pub pid: u32,
}

impl NameInfo {
    pub(crate) fn of((name, value): &(Name, Value)) -> NameInfo {
        NameInfo {
            name: name.text(),
            handle: value.handle,
            pid: value.pid,
        }
    }
}

impl HandleTable {
    /// Gives an array a name, by which any process finds it.
    ///
    /// Of several who give the same name at the same time one succeeds. The name goes with the array:
    /// when that is freed, nothing is called so any more. An array may have several names. Whatever
    /// has a handle can have one, a queue for instance.
    ///
    /// A name is 1 to 255 bytes of UTF-8, and no further rules; `/` is a custom, as in `layer/1/bias`.
    ///
    /// ```
    /// use ndarray::Ix2;
    /// use ndshm::{HandleTable, NameError, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((3, 4))?;
    /// table.publish("positions", x)?;
    ///
    /// // In any process:
    /// let found = table.find::<f64, Ix2>("positions")?;
    /// assert_eq!(found, x);
    ///
    /// let y = table.zeros::<f64, _>((3, 4))?;
    /// assert!(matches!(table.publish("positions", y), Err(NameError::Taken { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError::Taken`] says what has the name, and who gave it; [`NameError::Lease`] for a stale
    /// handle, and for one of memory that the crate keeps for itself; [`NameError::Length`], [`NameError::Alloc`].
    pub fn publish(&self, name: &str, handle: impl Into<AnyHandle>) -> Result<(), NameError> {
        let put = |contents: &mut Contents, name: Name, value: Value| match contents.position(&name)
        {
            Some(at) => Err(contents.names[at].1),
            None => {
                contents.names.push((name, value));
                Ok(())
            }
        };
        match self.give(name, handle.into(), put)? {
            Ok(()) => Ok(()),
            Err(other) => Err(taken(name, &other)),
        }
    }

    /// Gives an array a name, whatever had it before, and returns that. Who looks the name up finds
    /// the old or the new array, at every moment one of them.
    ///
    /// The old array is not freed: others may have found it just before. When that is over is for
    /// the program to know; until then they can lease it.
    ///
    /// # Errors
    /// As [`publish`](HandleTable::publish), but for `Taken`.
    pub fn replace(
        &self,
        name: &str,
        handle: impl Into<AnyHandle>,
    ) -> Result<Option<AnyHandle>, NameError> {
        let put = |contents: &mut Contents, name: Name, value: Value| {
            let before = match contents.position(&name) {
                Some(at) => Some(core::mem::replace(&mut contents.names[at].1, value).handle),
                None => {
                    contents.names.push((name, value));
                    None
                }
            };
            Ok::<_, core::convert::Infallible>(before)
        };
        let Ok(before) = self.give(name, handle.into(), put)?;
        Ok(before)
    }

    /// The array of that name.
    ///
    /// It may be renamed, replaced or freed at any moment after. Where it must stay what it is,
    /// take a lease and look whether the name still says so.
    ///
    /// # Errors
    /// [`NameError::NotFound`]; [`NameError::Lease`] with
    /// [`TypeMismatch`](LeaseError::TypeMismatch) if it is of another type.
    pub fn find<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, NameError> {
        loop {
            let found = self.find_any(name)?;
            match found.typed::<T, D>(self) {
                Ok(handle) => return Ok(handle),
                // Freed since it was found: the name is another's by now, or nobody's.
                Err(LeaseError::Stale { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What has that name, of whichever type: an array, a queue or a partition.
    ///
    /// # Errors
    /// [`NameError::NotFound`].
    pub fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        let buckets = Buckets { table: self };
        let known = self.recall().borrow().get(name);
        if let Some(known) = known
            && buckets.load(known.bucket)? == known.word
            && self.look().live(known.handle).is_ok()
        {
            return Ok(known.handle);
        }
        self.search_name(name)
    }

    #[cold]
    fn search_name(&self, name: &str) -> Result<AnyHandle, NameError> {
        let key = checked(name)?;
        let buckets = Buckets { table: self };
        let bucket = buckets.of(&key);
        loop {
            let (word, found) = buckets.visit(bucket, find(&key))?;
            let Some(value) = found.flatten() else {
                return Err(not_found(name));
            };
            let handle = value.handle;
            if buckets.standing(&value)? == Standing::Good {
                // An arrival counts by what another bucket holds.
                if value.arrival.is_none() {
                    let found = Found {
                        bucket,
                        word,
                        handle,
                    };
                    self.recall().borrow_mut().put(name, found);
                }
                return Ok(handle);
            }
            if buckets.load(bucket)? == word {
                return Err(not_found(name));
            }
        }
    }

    /// Takes a name away, and returns what had it. The array stays.
    ///
    /// # Errors
    /// [`NameError::NotFound`]; [`NameError::Alloc`] if other names of the bucket need a new record
    /// and there is no memory for it.
    pub fn unpublish(&self, name: &str) -> Result<AnyHandle, NameError> {
        let key = checked(name)?;
        let buckets = Buckets { table: self };
        let bucket = buckets.of(&key);
        loop {
            let mut seen = buckets.read(bucket)?;
            buckets.tidy(bucket, &mut seen.contents, |_| true)?;
            match seen.contents.position(&key) {
                Some(at) if seen.contents.names[at].1.arrival.is_none() => {
                    let (_, value) = seen.contents.names.remove(at);
                    if buckets.swap(bucket, seen.word, &mut seen.contents)? {
                        return Ok(value.handle);
                    }
                }
                _ if buckets.load(bucket)? == seen.word => return Err(not_found(name)),
                _ => {}
            }
        }
    }

    /// All names that begin with `prefix`, sorted; with `""` all there are.
    ///
    /// Names that come or go meanwhile may be in it or not; one that is renamed meanwhile may be
    /// in it under both names, or under none.
    pub fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        let buckets = Buckets { table: self };
        let mut names = Vec::new();
        let mut untidy = false;
        for bucket in used(self.segment().memory()) {
            let contents = buckets.read(bucket)?.contents;
            untidy |= !contents.departures.is_empty();
            for named in contents.names {
                let good = buckets.standing(&named.1)? == Standing::Good;
                untidy |= !good || named.1.arrival.is_some();
                if good {
                    names.push(NameInfo::of(&named));
                }
            }
        }
        if untidy {
            // What the dead have left, and was not met by a reap that could make records.
            self.forget_all_dead();
        }
        names.retain(|info| info.name.starts_with(prefix));
        names.sort();
        Ok(names)
    }

    /// Puts a name into its bucket as `put` says, which may decline.
    fn give<R, E>(
        &self,
        name: &str,
        handle: AnyHandle,
        put: impl Fn(&mut Contents, Name, Value) -> Result<R, E>,
    ) -> Result<Result<R, E>, NameError> {
        let key = checked(name)?;
        self.enter()?;
        let buckets = Buckets { table: self };
        let bucket = buckets.of(&key);
        let value = Value {
            handle,
            pid: std::process::id(),
            arrival: None,
        };
        self.mark(handle, bucket)?;
        let done = loop {
            let mut seen = buckets.read(bucket)?;
            buckets.tidy(bucket, &mut seen.contents, |_| true)?;
            let undecided = |at: usize| seen.contents.names[at].1.arrival.is_some();
            if seen.contents.position(&key).is_some_and(undecided) {
                continue;
            }
            match put(&mut seen.contents, key, value) {
                Ok(done) => {
                    if buckets.swap(bucket, seen.word, &mut seen.contents)? {
                        break done;
                    }
                }
                Err(declined) => return Ok(Err(declined)),
            }
        };
        // A read-modify-write: whoever frees it after this sees the name, and else we see that it is
        // freed. With a load both may be missed (store buffering).
        let freed = self.slot(handle).is_none_or(|(slot, generation)| {
            let word = slot.newest();
            !word.is_live(generation)
        });
        if freed {
            self.forget_names(bucket as u64);
            return Err(LeaseError::Stale { handle }.into());
        }
        Ok(Ok(done))
    }

    /// Notes that something has a name, or is about to get one.
    fn mark(&self, handle: AnyHandle, bucket: usize) -> Result<(), NameError> {
        let (slot, generation) = self.look().usable(handle)?;
        // The note first: who retires the array and finds it named has the note as well.
        Descriptor::note_name(self.segment().memory().descriptor(slot.index), bucket);
        slot.change(|word| word.name(generation))
            .map_err(|_| LeaseError::Stale { handle })?;
        let hint = &self.segment().memory().header()[Header::NAMES];
        // Relaxed, as the looks: who comes after this name sees it, and who does not need not.
        if hint.load(Ordering::Relaxed) == 0 {
            hint.store(1, Ordering::Relaxed);
        }
        self.remember_named(bucket);
        Ok(())
    }

    /// Takes the name of what was freed away, and the parts of a bundle.
    #[cold]
    pub(crate) fn free_following(&self, following: Following<'_>) {
        self.forget_names(following.name);
        if let Some(Emptied { bucket, word, kept }) = following.bundle {
            self.free_parts(bucket, word);
            drop(kept);
        }
    }

    /// Whether an array is a part of the bundle of that bucket, which may be freed by now.
    pub(crate) fn is_part(&self, bucket: usize, handle: AnyHandle) -> bool {
        vacate::is_part(self.segment().memory(), bucket, handle, self.own_seat())
    }

    /// Takes out of a bucket what stands for nothing any more.
    ///
    /// What an error leaves there is found dead by all who look, and goes with the next change of the
    /// bucket.
    #[cold]
    pub(crate) fn forget_names(&self, bucket: u64) {
        let buckets = Buckets { table: self };
        if let Ok(bucket) = usize::try_from(bucket)
            && bucket < buckets.count()
        {
            let _ = buckets.tidy_up(bucket, |_| true);
        }
    }

    /// As [`HandleTable::forget_names`], for all buckets: what the dead have left.
    #[cold]
    pub(crate) fn forget_all_dead(&self) {
        let buckets = Buckets { table: self };
        let mut left = Vec::new();
        for bucket in used(self.segment().memory()) {
            // As in `forget_names`: what an error leaves is dead.
            left.extend(buckets.tidy_up(bucket, |_| true).into_iter().flatten());
        }
        // A trace is needed until its name has arrived, which it has by now.
        for bucket in left {
            let _ = buckets.tidy_up(bucket, |_| true);
        }
    }

    /// Takes away the names of what goes with this participant.
    pub(crate) fn forget_own_names(&self) {
        let buckets = Buckets { table: self };
        for bucket in self.take_named() {
            let _ = buckets.tidy_up(bucket, |handle| {
                let own = self
                    .look()
                    .live(handle)
                    .map(|(slot, _)| slot.word().is_owned_by(self.own_seat()));
                own.is_ok_and(|own| !own)
            });
        }
    }
}

/// The bucket of a name.
#[cfg(loom)]
pub(crate) fn bucket(memory: &Memory, name: &str) -> Option<usize> {
    Name::new(name).map(|name| name.bucket(memory.names().len()))
}

/// The buckets that may hold names: all or none. There are so many that to look at them in vain costs
/// memory and time.
pub(crate) fn used(memory: &Memory) -> core::ops::Range<usize> {
    match memory.header()[Header::NAMES].load(Ordering::Relaxed) {
        0 => 0..0,
        _ => 0..memory.names().len(),
    }
}

/// The name as records hold it.
pub(crate) fn checked(name: &str) -> Result<Name, NameError> {
    Name::new(name).ok_or_else(|| NameError::Length {
        length: name.len(),
        start: name.chars().take(32).collect(),
    })
}

#[cold]
fn not_found(name: &str) -> NameError {
    NameError::NotFound { name: name.into() }
}

#[cold]
fn taken(name: &str, other: &Value) -> NameError {
    NameError::Taken {
        name: name.into(),
        handle: other.handle,
        pid: other.pid,
    }
}
