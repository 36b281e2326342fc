//! The orderings in the source by their place: a record of them, and one that is weakened, so a
//! model shows why it is needed.
//!
//! The weakening and the record belong to the process, not to a model: a process weakens one
//! ordering and runs models under it.
#![expect(
    clippy::disallowed_types,
    reason = "these counters are outside the model"
)]

use core::panic::Location;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use super::Ordering;

/// The ordering of an operation that is meant, where it has two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The ordering of a load, of the load before an exchange, and of a failed exchange.
    Look,
    /// The ordering of an operation that changes the word.
    Change,
}

/// One ordering in the source: the place of the call, and the part of the operation.
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

/// Makes `site` use `order` from now on, instead of the ordering in the source. One site per
/// process.
///
/// # Errors
/// The site, if another one is weakened already.
pub fn weaken(site: OrderingSite, order: Ordering) -> Result<(), OrderingSite> {
    WEAKENED.set((site, order)).map_err(|(site, _)| site)
}

/// Starts recording the orderings that are used; see [`sites`].
pub fn record_sites() {
    RECORDING.store(true, Relaxed);
}

/// Returns the orderings that were used since [`record_sites`].
pub fn sites() -> Vec<(OrderingSite, Ordering)> {
    let seen = SEEN.lock().unwrap_or_else(|seen| seen.into_inner());
    seen.iter()
        .map(|(site, order)| (site.clone(), *order))
        .collect()
}

/// Returns the ordering that the operation called at `place` must use instead of `order`.
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
