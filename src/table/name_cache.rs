//! A private cache of the names that this participant has found.
//!
//! A record is never changed, and its word never repeats. So an entry holds while its bucket has
//! the same word, and one load validates it.

use crate::handle::AnyHandle;
use crate::word::BucketWord;

/// The number of places of a new cache.
const PLACES: usize = 1024;

/// The largest number of places. They take 16 MiB.
const MOST: usize = 1 << 18;

/// The longest text that fits into its place.
const SHORT: usize = 35;

/// The names that were found last. The hash of a name leads to its home place. The name is there, or in
/// the other place of the pair.
#[derive(Default)]
pub(crate) struct NameCache {
    /// Empty until a name was found. Then their number is a power of two.
    places: Vec<Place>,
    /// The texts of the places whose names are longer than [`SHORT`]. Empty until there is one.
    long: Vec<Box<str>>,
    /// The number of places that have a name.
    used: usize,
}

/// A name, on one cache line: a lookup of one name among many misses the cache once for it.
#[repr(align(64))]
#[derive(Clone)]
struct Place {
    /// The hash of the name. Spares most lookups of other names a look at its text.
    hash: u64,
    found: CachedName,
    /// Half of the hash of the name that was last found and not remembered.
    passed: u32,
    /// The length of the name, or 0 if the place has none.
    length: u8,
    text: [u8; SHORT],
}

const _: () = assert!(size_of::<Place>() == 64);

impl Place {
    const EMPTY: Place = Place {
        hash: 0,
        found: CachedName {
            word: BucketWord::EMPTY,
            handle: AnyHandle::from_bits(0),
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
}

impl NameCache {
    #[inline]
    pub(crate) fn get(&self, name: &str, hash: u64) -> Option<CachedName> {
        let home = home_of(hash, self.places.len());
        // Load both places before the first branch, because each may be a cache miss.
        let other = self.places.get(home ^ 1)?;
        let at = home ^ usize::from(other.hash == hash);
        let found = self.places[at].found;
        self.has(at, name, hash).then_some(found)
    }

    /// Returns `true` if the name is in that place.
    #[inline]
    fn has(&self, at: usize, name: &str, hash: u64) -> bool {
        let place = &self.places[at];
        let text = || match place.text.get(..usize::from(place.length)) {
            Some(text) => text,
            None => self.long[at].as_bytes(),
        };
        place.hash == hash && text() == name.as_bytes()
    }

    /// Remembers what was found. Another name gives way only if this one is found twice in a row:
    /// lookups of many names would else write, and allocate and free long texts.
    pub(crate) fn insert(&mut self, name: &str, hash: u64, found: CachedName) {
        if self.used >= self.places.len() / 2 {
            self.grow();
        }
        let home = home_of(hash, self.places.len());
        let pair = [home, home ^ 1];
        if let Some(at) = pair.into_iter().find(|&at| self.has(at, name, hash)) {
            self.places[at].found = found;
            return;
        }
        let free = pair.into_iter().find(|&at| self.places[at].length == 0);
        if free.is_some() {
            self.used += 1;
        } else if self.places[home].passed != hash as u32 {
            self.places[home].passed = hash as u32;
            return;
        }
        let at = free.unwrap_or(home);
        let place = &mut self.places[at];
        place.hash = hash;
        place.found = found;
        // A name that was found has 1 to 255 bytes.
        place.length = name.len() as u8;
        match place.text.get_mut(..name.len()) {
            Some(text) => text.copy_from_slice(name.as_bytes()),
            None => {
                self.long.resize(self.places.len(), Box::default());
                self.long[at] = name.into();
            }
        }
    }

    /// Doubles the number of places, unless there are [`MOST`].
    #[cold]
    fn grow(&mut self) {
        let places = match self.places.len() {
            0 => PLACES,
            MOST.. => return,
            before => before * 2,
        };
        let old = core::mem::replace(&mut self.places, vec![Place::EMPTY; places]);
        let mut texts = core::mem::take(&mut self.long);
        if !texts.is_empty() {
            self.long.resize(places, Box::default());
        }
        for (before, place) in old
            .into_iter()
            .enumerate()
            .filter(|(_, place)| place.length > 0)
        {
            // One of the two is free: only the names of one old pair come to a pair.
            let home = home_of(place.hash, places);
            let at = home ^ usize::from(self.places[home].length > 0);
            if usize::from(place.length) > SHORT {
                self.long[at] = core::mem::take(&mut texts[before]);
            }
            self.places[at] = place;
        }
    }
}

/// Returns the home place of a name with this hash. Takes upper bits of the hash, because the bucket
/// takes the lower ones.
fn home_of(hash: u64, places: usize) -> usize {
    (hash >> 40) as usize & places.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::SlotIndex;

    fn found(number: usize) -> CachedName {
        CachedName {
            word: BucketWord::of(SlotIndex::new(number), 1),
            handle: AnyHandle::from_bits(number as u64),
        }
    }

    fn get(cache: &NameCache, name: &str, hash: u64) -> Option<u64> {
        Some(cache.get(name, hash)?.handle.to_bits())
    }

    /// Returns a hash whose home is this place of a cache that has not grown.
    fn leading_to(place: u64, rest: u64) -> u64 {
        place << 40 | rest
    }

    #[test]
    fn names_of_every_length_are_found_while_the_cache_grows() {
        let mut cache = NameCache::default();
        let name = |at: usize| format!("{at:0length$}", length = 1 + at % 255);
        let hash = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let count = PLACES * 4;
        for at in 0..count {
            // If its pair is full, the second attempt remembers it.
            cache.insert(&name(at), hash(at), found(at));
            cache.insert(&name(at), hash(at), found(at));
            assert_eq!(get(&cache, &name(at), hash(at)), Some(at as u64));
        }
        assert!(
            cache.places.len() > count,
            "grown to {}",
            cache.places.len()
        );
        let kept = (0..count).filter(|&at| match get(&cache, &name(at), hash(at)) {
            Some(bits) => bits == at as u64 || panic!("{} leads to {bits}", name(at)),
            None => false,
        });
        assert_eq!(kept.count(), cache.used);
        let empty = cache.places.iter().filter(|place| place.length == 0);
        assert_eq!(cache.places.len() - empty.count(), cache.used);
    }

    #[test]
    fn a_pair_holds_two_names_and_a_third_is_remembered_at_the_second_attempt() {
        let mut cache = NameCache::default();
        let hashes = [1, 2, 3].map(|rest| leading_to(6, rest));
        let remembered = |cache: &NameCache| {
            let names = ["a", "b", "c"].into_iter().zip(hashes);
            names
                .map(|(name, hash)| get(cache, name, hash))
                .collect::<Vec<_>>()
        };
        cache.insert("a", hashes[0], found(1));
        cache.insert("b", hashes[1], found(2));
        cache.insert("c", hashes[2], found(3));
        assert_eq!(remembered(&cache), [Some(1), Some(2), None]);
        cache.insert("c", hashes[2], found(3));
        assert_eq!(remembered(&cache), [None, Some(2), Some(3)]);
        cache.insert("b", hashes[1], found(4));
        assert_eq!(
            (remembered(&cache), cache.used),
            (vec![None, Some(4), Some(3)], 2)
        );
    }

    #[test]
    fn names_with_one_hash_are_told_apart_by_their_texts() {
        let mut cache = NameCache::default();
        let long = "x".repeat(SHORT + 1);
        let hash = leading_to(9, 0);
        cache.insert("a", hash, found(1));
        cache.insert(&long, hash, found(2));
        for (name, bits) in [
            ("b", None),
            (&long[..SHORT], None),
            (&format!("{}y", &long[1..]), None),
        ] {
            assert_eq!(get(&cache, name, hash), bits);
        }
        // Both places have this hash. The search looks at one of them.
        assert_eq!(get(&cache, &long, hash), Some(2));
    }

    #[test]
    fn the_largest_cache_does_not_grow() {
        let mut cache = NameCache::default();
        for at in 0..MOST as u64 * 2 {
            let name = at.to_string();
            cache.insert(&name, leading_to(at, at), found(at as usize));
        }
        assert_eq!((cache.places.len(), cache.used), (MOST, MOST));
    }
}
