//! What a wait of a running call finds: ready and torn tiles, and the causes of the torn ones.

use core::cell::Cell;

use crate::partition::{Group, RoundMember};
use crate::pool::report::Failure;
use crate::pool::tile_notes::TileNotes;
use crate::pool::workers::Death;
use crate::word::{ClaimState, SeatId};

/// The tiles that were not handed out, by state.
pub(super) struct Scan {
    pub(super) ready: usize,
    /// Tiles that were not handed out, or were sent back.
    pub(super) under_way: usize,
    pub(super) torn: Vec<Torn>,
    /// Torn tiles without a cause stay so: no death will explain them.
    pub(super) is_final: bool,
}

/// A torn tile.
pub(super) struct Torn {
    tile: usize,
    /// Its last holder.
    seat: SeatId,
    cause: Option<Cause>,
}

/// The reason for which a tile is torn.
enum Cause {
    /// The kernel failed in the worker of this number.
    Kernel(usize, Failure),
    Death(Death),
}

impl Scan {
    /// Looks at the tiles. `deaths` are those of the call so far.
    pub(super) fn of<G: Group>(
        resting: &[Cell<bool>],
        part: &RoundMember<'_, '_, G>,
        notes: &TileNotes<'_>,
        deaths: &[Death],
    ) -> Scan {
        let mut scan = Scan {
            ready: 0,
            under_way: 0,
            torn: Vec::new(),
            is_final: false,
        };
        for (tile, _) in resting.iter().enumerate().filter(|(_, rests)| !rests.get()) {
            scan.under_way += 1;
            let Some(claim) = part.claim_of(tile) else {
                continue;
            };
            match claim.state() {
                ClaimState::Done => scan.ready += 1,
                ClaimState::Torn => {
                    let seat = claim.seat();
                    // The last of several workers that had the same seat in turn.
                    let death = deaths.iter().rev().find(|death| death.seat == seat);
                    let cause = match notes.failure(tile) {
                        Some((worker, failure)) => Some(Cause::Kernel(worker, failure)),
                        None => death.copied().map(Cause::Death),
                    };
                    scan.torn.push(Torn { tile, seat, cause });
                }
                ClaimState::Open | ClaimState::Held | ClaimState::Invalid => {}
            }
        }
        scan
    }

    /// Returns the number of ready tiles.
    pub(super) fn ready<G: Group>(resting: &[Cell<bool>], part: &RoundMember<'_, '_, G>) -> usize {
        ready(resting, part).count()
    }

    /// Returns `true` if the cause of a torn tile is known.
    pub(super) fn has_explained(&self) -> bool {
        self.torn.iter().any(|torn| torn.cause.is_some())
    }

    /// Returns `true` if the cause of a torn tile is not known.
    pub(super) fn has_unexplained(&self) -> bool {
        self.torn.iter().any(|torn| torn.cause.is_none())
    }

    /// Returns `true` if this death has torn a tile.
    pub(super) fn is_by(&self, death: Death) -> bool {
        let is_by =
            |torn: &Torn| torn.seat == death.seat && matches!(torn.cause, Some(Cause::Death(_)));
        self.torn.iter().any(is_by)
    }

    /// Returns the failures of kernels, each with the worker's number.
    pub(super) fn failures(self) -> impl Iterator<Item = (usize, Failure)> {
        self.torn.into_iter().filter_map(|torn| match torn.cause {
            Some(Cause::Kernel(worker, failure)) => Some((worker, failure)),
            Some(Cause::Death(_)) | None => None,
        })
    }
}

/// Returns the ready tiles.
fn ready<G: Group>(
    resting: &[Cell<bool>],
    part: &RoundMember<'_, '_, G>,
) -> impl Iterator<Item = usize> {
    let is_done = |&tile: &usize| {
        let claim = part.claim_of(tile);
        !resting[tile].get() && claim.is_some_and(|claim| claim.state() == ClaimState::Done)
    };
    (0..resting.len()).filter(is_done)
}

/// The tiles that a wait hands out.
#[derive(Default)]
pub(super) struct HandedOut {
    pub(super) ready: Vec<usize>,
    pub(super) failed: Vec<Failed>,
    pub(super) lost: Vec<Lost>,
}

/// A tile at which a kernel failed.
pub(super) struct Failed {
    pub(super) tile: usize,
    pub(super) worker: usize,
    pub(super) message: String,
}

/// A tile whose holder died.
pub(super) struct Lost {
    pub(super) tile: usize,
    /// `None` if the holder was no worker of the pool.
    pub(super) death: Option<Death>,
}

impl HandedOut {
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.failed.clear();
        self.lost.clear();
    }

    /// Returns `true` if there is neither a failed nor a lost tile.
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.lost.is_empty()
    }

    /// Hands out the ready tiles.
    pub(super) fn ready<G: Group>(
        &mut self,
        resting: &[Cell<bool>],
        part: &RoundMember<'_, '_, G>,
    ) {
        self.ready.extend(ready(resting, part));
        for &tile in &self.ready {
            resting[tile].set(true);
        }
    }

    /// Hands out the torn tiles of which the causes are known, or never will be.
    pub(super) fn report(&mut self, resting: &[Cell<bool>], scan: &Scan) {
        for torn in &scan.torn {
            let tile = torn.tile;
            match &torn.cause {
                Some(Cause::Kernel(worker, failure)) => self.failed.push(Failed {
                    tile,
                    worker: *worker,
                    message: failure.message.clone(),
                }),
                Some(Cause::Death(death)) => self.lost.push(Lost {
                    tile,
                    death: Some(*death),
                }),
                None if scan.is_final => self.lost.push(Lost { tile, death: None }),
                None => continue,
            }
            resting[tile].set(true);
        }
    }
}
