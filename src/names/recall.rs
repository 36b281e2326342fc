//! A private cache of the names that this participant has found.
//!
//! A record is never changed, and its word never repeats. So an entry holds while its bucket has
//! the same word, and one load validates it.

use super::record::Name;
use crate::handle::AnyHandle;
use crate::word::BucketWord;

/// The number of cached names. Each place has the last name that was found for it.
const PLACES: usize = 1024;

/// The names that were found last.
#[derive(Default)]
pub(crate) struct Recall {
    /// Empty until a name was found.
    places: Vec<Option<Place>>,
}

struct Place {
    name: Box<str>,
    found: Found,
}

/// The handle of a name while its bucket had this word.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) bucket: usize,
    pub(super) word: BucketWord,
    pub(super) handle: AnyHandle,
}

impl Recall {
    pub(super) fn get(&self, name: &str) -> Option<Found> {
        let place = self.places.get(place_of(name))?.as_ref()?;
        (*place.name == *name).then_some(place.found)
    }

    pub(super) fn put(&mut self, name: &str, found: Found) {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        self.places[place_of(name)] = Some(Place {
            name: name.into(),
            found,
        });
    }
}

/// Returns the place of a name. Takes the hash's upper bits, because the bucket takes the lower
/// ones.
fn place_of(name: &str) -> usize {
    (Name::hash(name.as_bytes()) >> 48) as usize % PLACES
}
