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

/// Calls `visit` with each bucket that may hold names, and its word at that moment. Stops at the first
/// error. A search of all other buckets in vain would cost memory and time.
pub(crate) fn for_each_used<E>(
    memory: &Memory,
    mut visit: impl FnMut(BucketIndex, BucketWord) -> Result<(), E>,
) -> Result<(), E> {
    let buckets = &memory.names()[..all(memory)];
    let groups = buckets.chunks(SCALE.bucket_group);
    let counted = &memory.name_counts()[..groups.len()];
    let count = |count: &Atom| is_filled(count).then_some(());
    let word = |place: &Atom<BucketWord>| Some(load_word(place)).filter(|word| !word.is_empty());
    for_each_filled(counted, count, |group, ()| {
        let first = group * SCALE.bucket_group;
        let end = buckets.len().min(first + SCALE.bucket_group);
        for_each_filled(&buckets[first..end], word, |at, word| {
            visit(BucketIndex::new(first + at), word)
        })
    })
}

/// Words of a cache line; fewer in a model, whose tables are shorter.
const BLOCK: usize = if cfg!(loom) { 2 } else { 8 };

/// Calls `visit` with the position of each filled place, and its value. A place is filled if `load`
/// returns a value. Stops at the first error.
///
/// Most blocks are empty. The places of a block are loaded together, without a branch for each. They
/// are loaded again after each visit: the load of a later place must not come before the visit of an
/// earlier one (see *A move* in `README.md`).
#[inline]
fn for_each_filled<W, T, E>(
    places: &[Atom<W>],
    load: impl Fn(&Atom<W>) -> Option<T>,
    mut visit: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let (blocks, rest) = places.as_chunks::<BLOCK>();
    for (block, places) in blocks.iter().enumerate() {
        if !places
            .iter()
            .fold(false, |any, place| any | load(place).is_some())
        {
            continue;
        }
        // The places that were not visited, a bit each.
        let mut left = u32::MAX;
        loop {
            let bit = |(at, place)| u32::from(load(place).is_some()) << at;
            let filled = places.iter().enumerate().map(bit);
            let at = (filled.fold(0, |all, bit| all | bit) & left).trailing_zeros();
            let Some(place) = places.get(at as usize) else {
                break;
            };
            if let Some(value) = load(place) {
                visit(block * BLOCK + at as usize, value)?;
            }
            left = u32::MAX << at << 1;
        }
    }
    for (at, place) in rest.iter().enumerate() {
        if let Some(value) = load(place) {
            visit(blocks.len() * BLOCK + at, value)?;
        }
    }
    Ok(())
}

/// Returns the number of buckets, or 0 if no array ever had a name.
pub(crate) fn all(memory: &Memory) -> usize {
    match memory.header()[Header::NAMES].load(Ordering::Relaxed) {
        0 => 0,
        _ => memory.names().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn load(place: &Atom) -> Option<u64> {
        Some(place.load(Ordering::Relaxed)).filter(|&word| word != 0)
    }

    fn places(words: &[u64]) -> Vec<Atom> {
        let place = |&word| {
            let place = Atom::zero();
            place.store(word, Ordering::Relaxed);
            place
        };
        words.iter().map(place).collect()
    }

    proptest! {
        #[test]
        fn filled_places_are_visited_in_order(words in vec(prop_oneof![9 => Just(0u64), 1 => 1u64..9], 0..40)) {
            let mut seen = Vec::new();
            let all = for_each_filled(&places(&words), load, |at, word| {
                seen.push((at, word));
                Ok::<_, Infallible>(())
            });
            let filled = words.iter().copied().enumerate().filter(|&(_, word)| word != 0);
            prop_assert_eq!(seen, filled.collect::<Vec<_>>());
            prop_assert_eq!(all, Ok(()));
        }
    }

    #[test]
    fn a_change_during_a_visit_is_seen_in_all_later_places() {
        let places = places(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut seen = Vec::new();
        let all = for_each_filled(&places, load, |at, word| {
            seen.push((at, word));
            if at == 1 {
                places[0].store(5, Ordering::Relaxed);
                places[2].store(6, Ordering::Relaxed);
                places[3].store(0, Ordering::Relaxed);
                places[7].store(7, Ordering::Relaxed);
                places[9].store(8, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(())
        });
        assert_eq!((seen, all), (vec![(1, 1), (2, 6), (7, 7), (9, 8)], Ok(())));
    }

    #[test]
    fn an_error_ends_the_walk() {
        let places = places(&[1, 2, 3, 0, 0, 0, 0, 4, 5]);
        let mut seen = Vec::new();
        for end in [2, 4, 5] {
            seen.clear();
            let all = for_each_filled(&places, load, |_, word| {
                seen.push(word);
                if word == end { Err(word) } else { Ok(()) }
            });
            assert_eq!((all, seen.last()), (Err(end), Some(&end)));
        }
    }
}
