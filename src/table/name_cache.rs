//! A private cache of the names that this participant has found.
//!
//! A record is never changed, and its word never repeats. So an entry holds while its bucket has
//! the same word, and one load validates it.

use crate::handle::AnyHandle;
use crate::word::{BucketIndex, BucketWord};

/// The number of cached names. Each place has one of the names whose hash leads to it.
const PLACES: usize = 1024;

/// The names that were found last.
#[derive(Default)]
pub(crate) struct NameCache {
    /// Empty until a name was found.
    places: Vec<Place>,
}

#[derive(Default)]
struct Place {
    /// The hash of the name that was last found and not remembered.
    passed: u64,
    /// The hash of the remembered name. Spares most lookups of other names a look at its text.
    hash: u64,
    known: Option<(Box<str>, CachedName)>,
}

/// The handle of a name while its bucket had this word.
#[derive(Clone, Copy)]
pub(crate) struct CachedName {
    pub(crate) bucket: BucketIndex,
    pub(crate) word: BucketWord,
    pub(crate) handle: AnyHandle,
}

impl NameCache {
    pub(crate) fn get(&self, name: &str, hash: u64) -> Option<CachedName> {
        let place = self.places.get(place_of(hash))?;
        if place.hash != hash {
            return None;
        }
        let (known, found) = place.known.as_ref()?;
        (**known == *name).then_some(*found)
    }

    /// Remembers what was found. Another name gives way only if this one is found twice in a row:
    /// lookups of many names would else allocate and free a text each.
    pub(crate) fn insert(&mut self, name: &str, hash: u64, found: CachedName) {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, Place::default);
        }
        let place = &mut self.places[place_of(hash)];
        match &mut place.known {
            Some((known, before)) if place.hash == hash && **known == *name => *before = found,
            Some(_) if place.passed != hash => place.passed = hash,
            known => {
                *known = Some((name.into(), found));
                place.hash = hash;
            }
        }
    }
}

/// Returns the place of a name with this hash. Takes the hash's upper bits, because the bucket
/// takes the lower ones.
fn place_of(hash: u64) -> usize {
    (hash >> 48) as usize % PLACES
}
