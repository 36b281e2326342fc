//! Names that this participant has found before: private, and as good as the bucket's word is.
//!
//! A record is never changed, and its word never comes back: so what was found in a bucket holds for
//! as long as that has the same word, and one load tells.

use super::record::Name;
use crate::handle::AnyHandle;
use crate::word::BucketWord;

/// How many names are remembered; of those that fall on one place, the last one.
const PLACES: usize = 1024;

/// The names that were found last.
#[derive(Default)]
pub(crate) struct Recall {
    /// Empty until something was found.
    places: Vec<Option<Place>>,
}

struct Place {
    name: Box<str>,
    found: Found,
}

/// What a name stood for when its bucket had this word.
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

/// The upper bits, of which the bucket uses the lower ones.
fn place_of(name: &str) -> usize {
    (Name::hash(name.as_bytes()) >> 48) as usize % PLACES
}
