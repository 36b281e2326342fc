//! The counters of the buckets in use, one for each group of buckets. Walks over the names skip
//! the groups without any.
//!
//! `README.md` beside this file has the steps and the proof, under *Listing*.

use super::place::load_word;
use crate::layout::{Header, SCALE};
use crate::memory::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::{BucketIndex, BucketWord};

/// Calls `change`, which attempts to change a bucket's word from `seen` to `new`. Counts the bucket
/// if that fills or empties it. Returns the result of `change`: `true` on success.
pub(super) fn counted(
    memory: &Memory,
    bucket: BucketIndex,
    seen: BucketWord,
    new: BucketWord,
    change: impl FnOnce() -> bool,
) -> bool {
    let fills = seen.is_empty();
    // `None` if a bucket stays filled or empty, and for the bucket of a bundle.
    let count = match fills == new.is_empty() {
        true => None,
        false => count_of(memory, bucket),
    };
    if fills && let Some(count) = count {
        // Relaxed: sequenced before the CAS of the bucket's word, which releases it.
        count.fetch_add(1, Ordering::Relaxed);
    }
    let put = change();
    // The bucket was emptied, or the attempt to fill it has failed.
    if put != fills
        && let Some(count) = count
    {
        // Subtracts 1. Release: pairs with the Acquire in `is_filled`.
        count.fetch_add(u64::MAX, Ordering::Release);
    }
    put
}

/// Returns the counter of the group of a bucket of the table.
fn count_of(memory: &Memory, bucket: BucketIndex) -> Option<&Atom> {
    match bucket.get() < memory.names().len() {
        true => memory.name_counts().get(bucket.get() / SCALE.bucket_group),
        false => None,
    }
}

/// Returns `true` if buckets are counted in the group of a bucket of the table.
pub(crate) fn is_counted(memory: &Memory, bucket: BucketIndex) -> bool {
    count_of(memory, bucket).is_none_or(is_filled)
}

/// Returns `true` if buckets are counted by this counter.
fn is_filled(count: &Atom) -> bool {
    // Acquire: pairs with the Release in `counted`. If no bucket is counted, the caller sees that
    // the buckets are empty, and what was changed before.
    count.load(Ordering::Acquire) != 0
}

/// Returns the buckets that may hold names, with their words at this moment. A search of all others
/// in vain would cost memory and time.
pub(crate) fn used(memory: &Memory) -> impl Iterator<Item = (BucketIndex, BucketWord)> + use<'_> {
    let groups = memory.names()[..all(memory)].chunks(SCALE.bucket_group);
    let groups = groups.zip(memory.name_counts()).enumerate();
    let filled = groups.filter(|(_, (_, count))| is_filled(count));
    filled
        .flat_map(|(group, (places, _))| {
            let first = group * SCALE.bucket_group;
            let words = places.iter().map(load_word).enumerate();
            words.map(move |(at, word)| (BucketIndex::new(first + at), word))
        })
        .filter(|(_, word)| !word.is_empty())
}

/// Returns the number of buckets, or 0 if no array ever had a name.
pub(crate) fn all(memory: &Memory) -> usize {
    match memory.header()[Header::NAMES].load(Ordering::Relaxed) {
        0 => 0,
        _ => memory.names().len(),
    }
}
