//! Orderings by the place in the source that asks for them: which there are, and one of them
//! weakened, so that a model shows what it is for.
//!
//! The weakening and the record belong to the process, not to a model: a process weakens one
//! ordering and runs models under it.
#![expect(
    clippy::disallowed_types,
    reason = "what is counted here is outside of the model"
)]

use core::panic::Location;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use super::Ordering;

/// Which ordering of an operation is meant, where it has two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// That of a load, of the look before an exchange, and of an exchange that is refused.
    Look,
    /// That of whatever changes the word.
    Change,
}

/// One ordering in the source: where its operation is called, and which part of it is meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OrderingSite {
    /// The file, as the compiler names it.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// Its column, from 1.
    pub column: u32,
    /// The part of the operation.
    pub part: Part,
}

static WEAKENED: OnceLock<(OrderingSite, Ordering)> = OnceLock::new();
static RECORDING: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<BTreeMap<OrderingSite, Ordering>> = Mutex::new(BTreeMap::new());

/// From now on `site` uses `order`, whatever the source says. One site a process.
///
/// # Errors
/// The site, if another one is weakened already.
pub fn weaken(site: OrderingSite, order: Ordering) -> Result<(), OrderingSite> {
    WEAKENED.set((site, order)).map_err(|(site, _)| site)
}

/// From now on, notes where an ordering is used; see [`sites`].
pub fn record_sites() {
    RECORDING.store(true, Relaxed);
}

/// The orderings that were used since [`record_sites`].
pub fn sites() -> Vec<(OrderingSite, Ordering)> {
    let seen = SEEN.lock().unwrap_or_else(|seen| seen.into_inner());
    seen.iter()
        .map(|(site, order)| (site.clone(), *order))
        .collect()
}

/// The ordering that the operation called at `place` is to use instead of `order`.
pub(super) fn in_force(place: &Location<'_>, part: Part, order: Ordering) -> Ordering {
    if RECORDING.load(Relaxed) {
        let site = OrderingSite {
            file: place.file().to_owned(),
            line: place.line(),
            column: place.column(),
            part,
        };
        let mut seen = SEEN.lock().unwrap_or_else(|seen| seen.into_inner());
        seen.insert(site, order);
    }
    match WEAKENED.get() {
        Some((site, weaker))
            if site.line == place.line()
                && site.column == place.column()
                && site.part == part
                && site.file == place.file() =>
        {
            *weaker
        }
        _ => order,
    }
}
