//! Names: texts by which processes find an array without its handle.
//!
//! One record has all names of a bucket. It is never changed: one compare-and-swap of the bucket's
//! word replaces it. `README.md` beside this file has the protocol and its proof.

mod buckets;
mod called;
pub(crate) mod error;
mod groups;
pub(crate) mod look;
mod place;
mod reclaim;
mod record;
mod rename;
mod single;
mod sort;
#[cfg(test)]
mod tests;

use core::convert::Infallible;

pub(crate) use error::NameError;
use ndarray::Dimension;

use crate::descriptor::{ArrayType, Descriptor};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::layout::Header;
use crate::sync::Ordering;
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::name_cache::CachedName;
use crate::word::BucketIndex;
use buckets::EntryStatus;
use groups::for_each_used;
pub(crate) use record::{Contents, Name, Value};

pub(crate) use buckets::Buckets;
pub(crate) use groups::{all, is_counted};
pub(crate) use place::{check, is_record, offset_of, word_of};
pub(crate) use reclaim::reclaim;
pub(crate) use sort::sort_names;

/// A name and its array.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct NameInfo {
    /// The name.
    pub name: String,
    /// The array, queue, partition or bundle that has the name.
    pub handle: AnyHandle,
    /// The process that gave the name, as numbered in its own pid namespace.
    pub pid: u32,
}

impl NameInfo {
    pub(crate) fn of(name: &Name, value: &Value) -> NameInfo {
        NameInfo::new(name.text(), value)
    }

    fn new(name: String, value: &Value) -> NameInfo {
        NameInfo {
            name,
            handle: value.handle,
            pid: value.pid,
        }
    }
}

impl Core {
    /// Gives an array a name, by which any process finds it.
    pub(crate) fn publish(
        &self,
        name: &str,
        handle: impl Into<AnyHandle>,
    ) -> Result<(), NameError> {
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

    /// Gives an array a name, and returns the array that had it before. A lookup finds the old or
    /// the new array at every moment.
    pub(crate) fn replace(
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
            Ok::<_, Infallible>(before)
        };
        let Ok(before) = self.give(name, handle.into(), put)?;
        Ok(before)
    }

    /// Returns the array of that name.
    pub(crate) fn find<T: Element, D: Dimension>(
        &self,
        name: &str,
    ) -> Result<Handle<T, D>, NameError> {
        let known = self.known_name(name, Name::hash(name.as_bytes()))?;
        let is_record = |index, text: &'static str| self.is_record::<T>(index, text);
        if let Some(known) = known
            && known.kind.is::<T, D>(is_record)
        {
            // As in `downcast`: a forked child is bound here, or refused.
            self.enter()?;
            return Ok(Handle::from_bits(known.handle.to_bits()));
        }
        self.find_with(name, |handle| {
            self.downcast(handle).map_err(NameError::from)
        })
    }

    /// Opens the array or structure of that name.
    ///
    /// If `open` fails, the name is looked up again: its array may have been freed since, and another
    /// may have the name now.
    pub(crate) fn find_with<R, E: From<NameError>>(
        &self,
        name: &str,
        mut open: impl FnMut(AnyHandle) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut handle = self.find_any(name)?;
        loop {
            let error = match open(handle) {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            let now = self.find_any(name)?;
            if now == handle {
                return Err(error);
            }
            handle = now;
        }
    }

    /// Returns the handle of that name, of any type: an array, a queue or a partition.
    pub(crate) fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        let hash = Name::hash(name.as_bytes());
        match self.known_name(name, hash)? {
            Some(known) => Ok(known.handle),
            None => self.search_name(name, hash),
        }
    }

    /// Returns this participant's entry of a name with this hash, if the name still stands for it.
    #[inline]
    fn known_name(&self, name: &str, hash: u64) -> Result<Option<CachedName>, NameError> {
        let Some(known) = self.name_cache().borrow().get(name, hash) else {
            return Ok(None);
        };
        let buckets = Buckets { table: self };
        let bucket = Name::bucket_of(hash, buckets.count());
        let holds = buckets.load(bucket)? == known.word && self.tables().live(known.handle).is_ok();
        Ok(holds.then_some(known))
    }

    #[cold]
    fn search_name(&self, name: &str, hash: u64) -> Result<AnyHandle, NameError> {
        let key = checked(name)?;
        let buckets = Buckets { table: self };
        let bucket = Name::bucket_of(hash, buckets.count());
        loop {
            let (word, found) = buckets.find(bucket, &key)?;
            let Some(value) = found else {
                return Err(not_found(name));
            };
            let handle = value.handle;
            if buckets.status(&value)? == EntryStatus::Good {
                // This bucket's word does not validate an arrival: it depends on another bucket.
                if value.arrival.is_none()
                    && let Some((slot, _)) = self.slot(handle)
                {
                    // The array was live just now. If the slot has another one by now, the handle is
                    // never live again, and the entry is never used.
                    let kind = ArrayType::load(self.segment().memory().descriptor(slot.index));
                    let found = CachedName { word, handle, kind };
                    self.name_cache().borrow_mut().insert(name, hash, found);
                }
                return Ok(handle);
            }
            if buckets.load(bucket)? == word {
                return Err(not_found(name));
            }
        }
    }

    /// Removes a name, and returns the handle that had it. The array stays.
    pub(crate) fn unpublish(&self, name: &str) -> Result<AnyHandle, NameError> {
        let key = checked(name)?;
        let buckets = Buckets { table: self };
        let bucket = buckets.of(&key);
        loop {
            let mut seen = buckets.read(bucket)?;
            buckets.unlink_stale(bucket, &mut seen.contents, |_| true)?;
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

    /// Returns all names that begin with `prefix`, sorted. With `""`, returns all names.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        let buckets = Buckets { table: self };
        let mut names = Vec::new();
        let mut untidy = false;
        for_each_used(self.segment().memory(), |bucket, word| {
            untidy |= buckets.list(bucket, word, prefix, &mut names)?;
            Ok::<_, NameError>(())
        })?;
        if untidy {
            // No reap had the memory to remove these entries of dead participants.
            self.forget_all_dead();
        }
        sort_names(&mut names);
        Ok(names)
    }

    /// Changes a bucket by `put`, which may decline, and gives the name to the array.
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
        self.mark_named(handle, bucket)?;
        let done = loop {
            let mut seen = buckets.read(bucket)?;
            buckets.unlink_stale(bucket, &mut seen.contents, |_| true)?;
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
        // A read-modify-write: either a participant that frees the array after this sees the name,
        // or we see that the array is freed. With a load both may miss it (store buffering).
        let freed = self.slot(handle).is_none_or(|(slot, generation)| {
            let word = slot.newest();
            !word.is_live(generation)
        });
        if freed {
            self.forget_names(bucket);
            return Err(LeaseError::Stale { handle }.into());
        }
        Ok(Ok(done))
    }

    /// Notes the bucket at the array, and sets the array's flag NAMED.
    fn mark_named(&self, handle: AnyHandle, bucket: BucketIndex) -> Result<(), NameError> {
        let (slot, generation) = self.tables().usable(handle)?;
        // Note the bucket first: a participant that retires the array and finds it NAMED also finds
        // the note.
        Descriptor::note_name(self.segment().memory().descriptor(slot.index), bucket);
        slot.change(|word| word.name(generation))
            .map_err(|_| LeaseError::Stale { handle })?;
        let hint = &self.segment().memory().header()[Header::NAMES];
        // Relaxed, as in `groups`. A participant that must see this name also sees the hint.
        if hint.load(Ordering::Relaxed) == 0 {
            hint.store(1, Ordering::Relaxed);
        }
        self.remember_named(bucket);
        Ok(())
    }

    /// Returns `true` if the array is a part of the bundle of that bucket. The bundle may be freed
    /// by now.
    pub(crate) fn is_part(&self, bucket: BucketIndex, handle: AnyHandle) -> bool {
        reclaim::is_part(self.segment().memory(), bucket, handle, self.own_seat())
    }

    /// Removes dead entries from a bucket.
    ///
    /// After an error they remain: readers find them dead, and the bucket's next change drops them.
    #[cold]
    pub(crate) fn forget_names(&self, bucket: BucketIndex) {
        let buckets = Buckets { table: self };
        if bucket.get() < buckets.count() {
            let _ = buckets.unlink_all_stale(bucket, |_| true);
        }
    }

    /// Removes dead entries from all buckets.
    #[cold]
    pub(crate) fn forget_all_dead(&self) {
        let buckets = Buckets { table: self };
        let mut left = Vec::new();
        let Ok(()) = for_each_used(self.segment().memory(), |bucket, _| {
            // An error leaves only dead entries, as in `forget_names`.
            let from = buckets.unlink_all_stale(bucket, |_| true);
            left.extend(from.into_iter().flatten());
            Ok::<_, Infallible>(())
        });
        // A departure is needed until its arrival is a plain name, which it is by now.
        for bucket in left {
            let _ = buckets.unlink_all_stale(bucket, |_| true);
        }
    }

    /// Removes the names of the arrays that leave with this participant.
    pub(crate) fn forget_own_names(&self) {
        let buckets = Buckets { table: self };
        for bucket in self.take_named() {
            let _ = buckets.unlink_all_stale(bucket, |handle| {
                let own = self
                    .tables()
                    .live(handle)
                    .map(|(slot, _)| slot.word().is_owned_by(self.own_seat()));
                own.is_ok_and(|own| !own)
            });
        }
    }
}

/// Returns the bucket of a name.
#[cfg(loom)]
pub(crate) fn bucket(memory: &crate::memory::Memory, name: &str) -> Option<BucketIndex> {
    Name::new(name).map(|name| name.bucket(memory.names().len()))
}

/// Returns the name in the form of records, or an error if its length is invalid.
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
