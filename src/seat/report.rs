//! The report of what a reap has taken back.

use crate::handle::AnyHandle;

/// The result of a reap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReapReport {
    /// Seats of dead participants that are free again.
    pub seats: usize,
    /// Arrays that were freed because their owner died.
    pub arrays_freed: usize,
    /// Reservations that were never published.
    pub reservations: usize,
    /// Shared leases and places in rounds that were given back.
    pub leases: usize,
    /// Pins that were given back, one per seat and array.
    pub pins: usize,
    /// Arrays that a dead participant was writing, poisoned now; each once.
    pub poisoned: Vec<AnyHandle>,
    /// Tiles that a dead participant was writing.
    pub torn: Vec<TornTile>,
    /// Jobs that a dead participant was taking out of a queue, or had not acknowledged; they are in
    /// the queue again.
    pub jobs: usize,
    /// Seats of dead participants that cannot be reaped, because a process outside the crate has a
    /// read lock on them. See [`HandleTable::foreign_locks`](crate::HandleTable::foreign_locks).
    pub locked: usize,
    /// There are names, and some may be of freed arrays.
    pub(crate) names: bool,
}

/// A tile that was not finished: its rows are half-written, or not begun where several tiles are
/// claimed at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTile {
    /// Index of the tile in its partition.
    pub tile: usize,
    /// The indices that the tile covers along the first axis that its partition cuts.
    pub rows: core::ops::Range<usize>,
    /// The round in which it was torn.
    pub round: u64,
}

impl ReapReport {
    pub(super) fn add(&mut self, other: ReapReport) {
        self.arrays_freed += other.arrays_freed;
        self.reservations += other.reservations;
        self.leases += other.leases;
        self.pins += other.pins;
        for handle in other.poisoned {
            self.add_poisoned(handle);
        }
        self.torn.extend(other.torn);
        self.jobs += other.jobs;
        self.names |= other.names;
    }

    /// Adds an array, unless it is there: the dead may have opened a round and torn tiles of it,
    /// and several may have torn tiles of the same array.
    pub(crate) fn add_poisoned(&mut self, handle: AnyHandle) {
        if !self.poisoned.contains(&handle) {
            self.poisoned.push(handle);
        }
    }
}
