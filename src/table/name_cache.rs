//! A private cache of the names that this participant has found.
//!
//! A record is never changed, and its word never repeats. So an entry holds while its bucket has
//! the same word, and one load validates it.

use crate::handle::AnyHandle;
use crate::word::{BucketIndex, BucketWord};

/// The number of cached names. Each place has the last name that was found for it.
const PLACES: usize = 1024;

/// The names that were found last.
#[derive(Default)]
pub(crate) struct NameCache {
    /// Empty until a name was found.
    places: Vec<Option<Place>>,
}

struct Place {
    name: Box<str>,
    found: CachedName,
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
        let place = self.places.get(place_of(hash))?.as_ref()?;
        (*place.name == *name).then_some(place.found)
    }

    pub(crate) fn insert(&mut self, name: &str, hash: u64, found: CachedName) {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        self.places[place_of(hash)] = Some(Place {
            name: name.into(),
            found,
        });
    }
}

/// Returns the place of a name with this hash. Takes the hash's upper bits, because the bucket
/// takes the lower ones.
fn place_of(hash: u64) -> usize {
    (hash >> 48) as usize % PLACES
}
