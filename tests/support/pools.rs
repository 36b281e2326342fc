//! Tables and pools for tests that need no special ones.

use ndshm::{HandleTable, Pool, Segment};

/// Returns the first participant of a new anonymous segment.
pub fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

/// The kinds of workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fork,
    Spawn,
    Threads,
}

pub const KINDS: [Kind; 3] = [Kind::Fork, Kind::Spawn, Kind::Threads];
pub const PROCESSES: [Kind; 2] = [Kind::Fork, Kind::Spawn];

/// Starts a pool of this kind.
pub fn start(kind: Kind, table: &HandleTable, workers: usize) -> Pool<'_> {
    let pool = match kind {
        Kind::Fork => Pool::fork(table, workers),
        Kind::Spawn => Pool::spawn(table, workers),
        Kind::Threads => Pool::threads(table, workers),
    };
    pool.unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}
