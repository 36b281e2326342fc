//! A private cache of the names that this participant has found.
//!
//! A record is never changed, and its word never repeats. So an entry holds while its bucket has
//! the same word, and one load validates it. Nor does the type of an array change, so the entry keeps
//! it as well.

use crate::descriptor::ArrayType;
use crate::handle::AnyHandle;
use crate::word::BucketWord;

/// The number of pairs of a new cache. They take 2 KiB, because most programs look for a few names.
const PAIRS: usize = 16;

/// The largest number of pairs. They take 16 MiB.
const MOST: usize = 1 << 17;

/// The longest text that fits into its place.
const SHORT: usize = 27;

/// The names that were found last. The hash of a name leads to two pairs of places. A name is in the
/// second pair only if the first one is full: no place becomes free again.
#[derive(Default)]
pub(crate) struct NameCache {
    /// Empty until a name was found. Then their number is a power of two.
    pairs: Vec<Pair>,
    /// The texts of the places whose names are longer than [`SHORT`]. Empty until there is one.
    long: Vec<Box<str>>,
    /// The number of places that have a name.
    used: usize,
}

/// Two places on neighbouring cache lines. Processors often load such a pair together.
#[repr(align(128))]
#[derive(Clone)]
struct Pair([Place; 2]);

/// A name, on one cache line: a lookup of one name among many misses the cache once for it.
#[repr(align(64))]
#[derive(Clone)]
struct Place {
    /// The hash of the name. Spares most lookups of other names a look at its text.
    hash: u64,
    found: CachedName,
    /// In the first place of a pair: half of the hash of the name that was last found, had this pair as
    /// its first one, and was not remembered.
    passed: u32,
    /// The length of the name, or 0 if the place has none.
    length: u8,
    text: [u8; SHORT],
}

const _: () = assert!(size_of::<Place>() == 64);

impl Place {
    const EMPTY: Place = Place {
        // Not the hash of the empty text, which is no name.
        hash: 1,
        found: CachedName {
            word: BucketWord::EMPTY,
            handle: AnyHandle::from_bits(0),
            kind: ArrayType::NONE,
        },
        passed: 0,
        length: 0,
        text: [0; SHORT],
    };
}

/// The handle of a name while its bucket had this word.
#[derive(Clone, Copy)]
pub(crate) struct CachedName {
    pub(crate) word: BucketWord,
    pub(crate) handle: AnyHandle,
    /// The type of the array that has this handle.
    pub(crate) kind: ArrayType,
}

impl NameCache {
    #[inline]
    pub(crate) fn get(&self, name: &str, hash: u64) -> Option<CachedName> {
        Some(self.place(self.position(name, hash)?).found)
    }

    /// Returns the place with this number.
    fn place(&self, at: usize) -> &Place {
        &self.pairs[at / 2].0[at % 2]
    }

    fn place_mut(&mut self, at: usize) -> &mut Place {
        &mut self.pairs[at / 2].0[at % 2]
    }

    /// Returns the number of the place that has the name.
    #[inline]
    fn position(&self, name: &str, hash: u64) -> Option<usize> {
        let [first, second] = pairs_of(hash, self.pairs.len());
        let found = self.in_pair(first, name, hash);
        if found.is_some() || !self.pairs.get(first)?.is_full() {
            return found;
        }
        self.in_pair(second, name, hash)
    }

    #[inline]
    fn in_pair(&self, pair: usize, name: &str, hash: u64) -> Option<usize> {
        // Load both places before the first branch, because each may be a cache miss.
        let Pair([home, other]) = self.pairs.get(pair)?;
        let is_other = other.hash == hash;
        let place = if is_other { other } else { home };
        let at = pair * 2 + usize::from(is_other);
        let text = || match place.text.get(..usize::from(place.length)) {
            Some(text) => text,
            None => self.long[at].as_bytes(),
        };
        (place.hash == hash && text() == name.as_bytes()).then_some(at)
    }

    /// Returns the number of a place for a name with this hash that has no name yet.
    fn free_place(&self, hash: u64) -> Option<usize> {
        let places = pairs_of(hash, self.pairs.len()).map(|pair| [pair * 2, pair * 2 + 1]);
        let is_free = |&at: &usize| self.place(at).length == 0;
        places.into_iter().flatten().find(is_free)
    }

    /// Remembers a name that was found. Another name gives way only if this one is found twice in a row:
    /// lookups of many names would else write, and allocate and free long texts.
    pub(crate) fn insert(&mut self, name: &str, hash: u64, found: CachedName) {
        if self.used >= self.pairs.len() {
            self.grow();
        }
        if let Some(at) = self.position(name, hash) {
            self.place_mut(at).found = found;
            return;
        }
        let at = match self.free_place(hash) {
            Some(free) => {
                self.used += 1;
                free
            }
            None => {
                let [first, _] = pairs_of(hash, self.pairs.len());
                let (home, half) = (first * 2, hash as u32);
                if core::mem::replace(&mut self.place_mut(home).passed, half) != half {
                    return;
                }
                home
            }
        };
        let place = self.place_mut(at);
        place.hash = hash;
        place.found = found;
        // A name that was found has 1 to 255 bytes.
        place.length = name.len() as u8;
        match place.text.get_mut(..name.len()) {
            Some(text) => text.copy_from_slice(name.as_bytes()),
            None => {
                self.long.resize(self.pairs.len() * 2, Box::default());
                self.long[at] = name.into();
            }
        }
    }

    /// Doubles the number of places, unless there are [`MOST`]. Forgets the few names whose new places
    /// are taken.
    #[cold]
    fn grow(&mut self) {
        let pairs = match self.pairs.len() {
            0 => PAIRS,
            MOST.. => return,
            before => before * 2,
        };
        let old = core::mem::replace(&mut self.pairs, vec![Pair::EMPTY; pairs]);
        let mut texts = core::mem::take(&mut self.long);
        if !texts.is_empty() {
            self.long.resize(pairs * 2, Box::default());
        }
        self.used = 0;
        for (before, place) in old.into_iter().flat_map(|pair| pair.0).enumerate() {
            if place.length == 0 {
                continue;
            }
            if let Some(at) = self.free_place(place.hash) {
                if usize::from(place.length) > SHORT {
                    self.long[at] = core::mem::take(&mut texts[before]);
                }
                *self.place_mut(at) = place;
                self.used += 1;
            }
        }
    }
}

impl Pair {
    const EMPTY: Pair = Pair([Place::EMPTY, Place::EMPTY]);

    #[inline]
    fn is_full(&self) -> bool {
        self.0.iter().all(|place| place.length > 0)
    }
}

/// Returns the two pairs for names with this hash. Takes upper bits of the hash, because the bucket takes
/// the lower ones.
#[inline]
fn pairs_of(hash: u64, pairs: usize) -> [usize; 2] {
    [hash >> 44, hash >> 24].map(|bits| bits as usize & pairs.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::SlotIndex;

    fn found(number: usize) -> CachedName {
        CachedName {
            word: BucketWord::of(SlotIndex::new(number), 1),
            handle: AnyHandle::from_bits(number as u64),
            kind: ArrayType::NONE,
        }
    }

    fn get(cache: &NameCache, name: &str, hash: u64) -> Option<u64> {
        Some(cache.get(name, hash)?.handle.to_bits())
    }

    /// Returns a hash that leads to these pairs of a cache that has not grown.
    fn leading_to(first: u64, second: u64, rest: u64) -> u64 {
        first << 44 | second << 24 | rest
    }

    #[test]
    fn names_of_every_length_are_found_while_the_cache_grows() {
        let mut cache = NameCache::default();
        let name = |at: usize| format!("{at:0length$}", length = 1 + at % 255);
        let hash = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let count = 4096;
        for at in 0..count {
            // If both pairs are full, the second attempt remembers it.
            cache.insert(&name(at), hash(at), found(at));
            cache.insert(&name(at), hash(at), found(at));
            assert_eq!(get(&cache, &name(at), hash(at)), Some(at as u64));
        }
        assert!(cache.pairs.len() >= count, "grown to {}", cache.pairs.len());
        // Names that gave way while the cache was smaller find a place now.
        for at in 0..count {
            cache.insert(&name(at), hash(at), found(at));
        }
        let kept = (0..count).filter(|&at| match get(&cache, &name(at), hash(at)) {
            Some(bits) => bits == at as u64 || panic!("{} leads to {bits}", name(at)),
            None => false,
        });
        assert_eq!(kept.count(), cache.used);
        assert!(cache.used * 100 > count * 98, "{} of {count}", cache.used);
        let places = cache.pairs.iter().flat_map(|pair| &pair.0);
        assert_eq!(places.filter(|place| place.length > 0).count(), cache.used);
    }

    #[test]
    fn two_pairs_hold_four_names_and_a_fifth_is_remembered_at_the_second_attempt() {
        let mut cache = NameCache::default();
        let names = ["a", "b", "c", "d", "e"];
        let hash = |at: usize| leading_to(6, 7, at as u64 + 1);
        let remembered = |cache: &NameCache| {
            let names = names.into_iter().enumerate();
            names
                .map(|(at, name)| get(cache, name, hash(at)).is_some())
                .collect::<Vec<_>>()
        };
        for (at, name) in names.into_iter().enumerate() {
            cache.insert(name, hash(at), found(at + 1));
        }
        assert_eq!(remembered(&cache), [true, true, true, true, false]);
        cache.insert("e", hash(4), found(5));
        assert_eq!(remembered(&cache), [false, true, true, true, true]);
        // A name that is remembered already takes no other place.
        cache.insert("c", hash(2), found(6));
        assert_eq!((get(&cache, "c", hash(2)), cache.used), (Some(6), 4));
        // The pairs of this hash overlap with those of the others.
        assert_eq!(get(&cache, "f", leading_to(7, 6, 1)), None);
    }

    #[test]
    fn names_with_one_hash_are_told_apart_by_their_texts() {
        let mut cache = NameCache::default();
        let long = "x".repeat(SHORT + 1);
        let hash = leading_to(9, 8, 0);
        cache.insert("a", hash, found(1));
        cache.insert(&long, hash, found(2));
        for (name, bits) in [
            ("b", None),
            (&long[..SHORT], None),
            (&format!("{}y", &long[1..]), None),
        ] {
            assert_eq!(get(&cache, name, hash), bits);
        }
        // The empty text is in no place that has no name.
        assert_eq!(get(&cache, "", 0), None);
        // Both places have this hash. The search looks at one of them.
        assert_eq!(get(&cache, &long, hash), Some(2));
    }

    #[test]
    fn the_largest_cache_does_not_grow() {
        let mut cache = NameCache::default();
        for at in 0..MOST as u64 * 2 {
            let name = at.to_string();
            cache.insert(&name, leading_to(at, at, 0), found(at as usize));
        }
        assert_eq!((cache.pairs.len(), cache.used), (MOST, MOST * 2));
    }
}
