//! Names as seen by observers. They copy a record, and accept the copy if the record was live
//! before and after.

use super::groups::for_each_used;
use super::place::{offset_of, was_freed, word_of};
use super::record::{Contents, Name, Value};
use super::{NameInfo, checked, not_found, sort_names};
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::memory::Corrupt;
use crate::names::error::NameError;
use crate::span::Spans;
use crate::table::locate::TableView;
use crate::table::slot::Slot;
use crate::word::{BucketIndex, BucketWord};

/// The number of attempts to read a bucket that keeps changing. An observer must not retry for
/// ever.
const LOOKS: usize = 1000;

/// The names as seen by an observer. `copy` copies bytes from an offset of the segment, and returns
/// `false` if it cannot.
pub(crate) struct LookAtNames<'m, C> {
    pub(crate) look: TableView<'m>,
    pub(crate) copy: C,
}

impl<C: Fn(u64, &mut [u8]) -> bool> LookAtNames<'_, C> {
    /// Returns all names that begin with `prefix`, sorted.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        let mut names = Vec::new();
        for_each_used(self.look.memory, |bucket, _| {
            let mut good = self.good(bucket)?;
            good.retain(|(name, _)| name.starts_with(prefix));
            names.extend(good.iter().map(|(name, value)| NameInfo::of(name, value)));
            Ok::<_, NameError>(())
        })?;
        sort_names(&mut names);
        Ok(names)
    }

    /// Returns the handle that has the name.
    pub(crate) fn find(&self, name: &str) -> Result<AnyHandle, NameError> {
        let key = checked(name)?;
        let bucket = key.bucket(self.look.memory.names().len());
        let found = self
            .good(bucket)?
            .into_iter()
            .find(|(name, _)| *name == key);
        found
            .map(|(_, value)| value.handle)
            .ok_or_else(|| not_found(name))
    }

    /// Returns the parts in the bucket of a bundle, sorted, and `true` if the bundle is frozen.
    pub(crate) fn parts(&self, bucket: BucketIndex) -> Result<(bool, Vec<NameInfo>), NameError> {
        let good = self.good(bucket)?;
        let mut parts: Vec<NameInfo> = good
            .iter()
            .map(|(name, value)| NameInfo::of(name, value))
            .collect();
        sort_names(&mut parts);
        Ok((self.load(bucket)?.is_frozen(), parts))
    }

    /// Returns the names of a bucket that stand for something.
    fn good(&self, bucket: BucketIndex) -> Result<Vec<(Name, Value)>, NameError> {
        for _ in 0..LOOKS {
            let (word, contents) = self.read(bucket)?;
            let mut good = contents.names;
            let mut failed = None;
            good.retain(|(_, value)| {
                self.is_good(value).unwrap_or_else(|error| {
                    failed = Some(error);
                    false
                })
            });
            // As for a participant, a rejected name is certain only if the bucket's word is
            // unchanged.
            if self.load(bucket)? == word {
                return failed.map_or(Ok(good), Err);
            }
        }
        Err(self.corrupt(bucket))
    }

    fn is_good(&self, value: &Value) -> Result<bool, NameError> {
        if let Some(arrival) = &value.arrival {
            let (_, there) = self.read(arrival.from)?;
            if there.departures.iter().all(|left| left.id != arrival.id) {
                return Ok(false);
            }
        }
        Ok(self.look.live(value.handle).is_ok())
    }

    /// Reads the contents of a bucket.
    fn read(&self, bucket: BucketIndex) -> Result<(BucketWord, Contents), NameError> {
        for _ in 0..LOOKS {
            let word = self.load(bucket)?;
            if word.is_empty() {
                return Ok((word, Contents::default()));
            }
            if let Some(contents) = self.copy_record(word, bucket) {
                return Ok((word, contents));
            }
            // A record is freed after it was replaced. A record that was freed in its bucket is
            // lost: the next participant that uses the bucket empties it.
            let freed = was_freed(self.look.memory, word);
            match self.load(bucket)? == word {
                true if freed => return Ok((word, Contents::default())),
                true => break,
                false => {}
            }
        }
        Err(self.corrupt(bucket))
    }

    /// Copies the record that a bucket's word names. Returns `None` if it is invalid, or was freed
    /// meanwhile.
    fn copy_record(&self, word: BucketWord, bucket: BucketIndex) -> Option<Contents> {
        let memory = self.look.memory;
        let (slot, generation) = word.record()?;
        let slot = Slot::of(memory, slot).filter(|slot| slot.word().is_live(generation))?;
        let words = memory.descriptor(slot.index);
        let descriptor = Descriptor::load(words)?;
        let ours = descriptor.is_control_of(ControlKind::Names)
            && Descriptor::bucket(words, generation) == Some(bucket);
        let extent = Spans::of(memory).extent(slot.index).filter(|_| ours)?;
        let len = *descriptor.shape().first()?;
        let bytes = len.checked_mul(8).filter(|&bytes| bytes <= extent.size())?;
        // The extent may be as large as the segment. A record has at most `MOST` bytes.
        let mut copied = vec![0u64; usize::try_from(bytes / 8).ok().filter(|_| bytes <= MOST)?];
        let offset = memory.layout().data + extent.offset;
        if !(self.copy)(offset, bytemuck::cast_slice_mut(&mut copied)) {
            return None;
        }
        let contents = Contents::decode(|at| copied.get(at).copied())?;
        slot.word().is_live(generation).then_some(contents)
    }

    fn load(&self, bucket: BucketIndex) -> Result<BucketWord, NameError> {
        word_of(self.look.memory, bucket).ok_or_else(|| self.corrupt(BucketIndex::new(0)))
    }

    fn corrupt(&self, bucket: BucketIndex) -> NameError {
        NameError::Corrupt(Corrupt {
            offset: offset_of(self.look.memory, bucket),
            what: "a bucket of names has no valid list",
        })
    }
}

/// The size of the largest record in bytes: 65,535 names of 38 words, as many departures, and the
/// head.
const MOST: u64 = 8 * (1 + 65_535 * (38 + 3));
