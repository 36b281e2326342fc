//! The result of a wait: iterators over the tiles that are ready, failed and lost.

use core::fmt;
use core::slice;

use super::ready::{Place, ReadyTile};
use super::scan::{Failed, HandedOut, Lost};
use super::torn::{FailedTile, LostTile};
use crate::partition::Group;
use crate::word::ClaimState;

/// The tiles that [`RunningCall::wait_any`](super::RunningCall::wait_any) hands out.
///
/// The fields are iterators. A tile that is not taken from them rests until the end of the call, like
/// one that is dropped.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.from_shape_fn(100, |i| i as f64)?;
/// # let tiles = table.partition(x.write(), Axis(0), 10)?;
/// # let mut pool = Pool::threads(&table, 2)?;
/// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
/// let mut sum = 0.0;
/// loop {
///     let arrived = running.wait_any(4)?;
///     if arrived.is_empty() {
///         break;                                       // all tiles are done
///     }
///     println!("{} tiles", arrived.len());
///     for mut ready in arrived.ready {
///         sum += ready.views().sum();
///     }
/// }
/// running.finish()?;
/// assert_eq!(sum, 5050.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "tiles that are not sent back rest until the end of the call"]
pub struct Arrived<'w, 'r, G: Group> {
    /// Tiles that a worker has run, in the order of their indices.
    pub ready: ReadyTiles<'w, 'r, G>,
    /// Tiles at which the kernel panicked. Only under [`OnFailure::Skip`](crate::OnFailure::Skip).
    pub failed: FailedTiles<'w, 'r, G>,
    /// Tiles whose worker died. Only under [`OnFailure::Skip`](crate::OnFailure::Skip).
    pub lost: LostTiles<'w, 'r, G>,
}

// No field has a destructor. So the error beside it in a `Result` borrows nothing.
impl<'w, 'r, G: Group> Arrived<'w, 'r, G> {
    pub(super) fn new(place: Option<Place<'w, 'r, G>>, handed_out: &'w HandedOut) -> Self {
        Arrived {
            ready: ReadyTiles {
                place,
                tiles: handed_out.ready.iter(),
            },
            failed: FailedTiles {
                place,
                tiles: handed_out.failed.iter(),
            },
            lost: LostTiles {
                place,
                tiles: handed_out.lost.iter(),
            },
        }
    }

    /// Returns the number of tiles of all kinds that were not taken yet.
    ///
    /// [`Arrived`] has an example.
    pub fn len(&self) -> usize {
        self.ready.tiles.len() + self.failed.len() + self.lost.len()
    }

    /// Returns `true` if no tile is left.
    ///
    /// [`Arrived`] has an example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<G: Group> fmt::Debug for Arrived<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrived")
            .field("ready", &self.ready.tiles)
            .field("failed", &self.failed.len())
            .field("lost", &self.lost.len())
            .finish()
    }
}

/// The ready tiles of [`Arrived`].
#[must_use = "tiles that are not sent back rest until the end of the call"]
pub struct ReadyTiles<'w, 'r, G: Group> {
    place: Option<Place<'w, 'r, G>>,
    tiles: slice::Iter<'w, usize>,
}

impl<'w, 'r, G: Group> Iterator for ReadyTiles<'w, 'r, G> {
    type Item = ReadyTile<'w, 'r, G>;

    #[track_caller]
    fn next(&mut self) -> Option<ReadyTile<'w, 'r, G>> {
        let place = self.place?;
        for &tile in self.tiles.by_ref() {
            if let Some(tile) = place.part.retake(tile) {
                return Some(ReadyTile { tile, place });
            }
            // It holds bytes that are not values of its type: the next wait reports it.
            let claim = place.part.claim_of(tile);
            if claim.is_some_and(|claim| claim.state() == ClaimState::Torn) {
                place.resting[tile].set(false);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.tiles.len()))
    }
}

/// The failed tiles of [`Arrived`].
#[must_use = "failed tiles stay torn unless they are repaired or run again"]
pub struct FailedTiles<'w, 'r, G: Group> {
    place: Option<Place<'w, 'r, G>>,
    tiles: slice::Iter<'w, Failed>,
}

impl<'w, 'r, G: Group> Iterator for FailedTiles<'w, 'r, G> {
    type Item = FailedTile<'w, 'r, G>;

    fn next(&mut self) -> Option<FailedTile<'w, 'r, G>> {
        let (place, failed) = (self.place?, self.tiles.next()?);
        Some(FailedTile { place, failed })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.tiles.size_hint()
    }
}

impl<G: Group> ExactSizeIterator for FailedTiles<'_, '_, G> {}

/// The lost tiles of [`Arrived`].
#[must_use = "lost tiles stay torn unless they are repaired or run again"]
pub struct LostTiles<'w, 'r, G: Group> {
    place: Option<Place<'w, 'r, G>>,
    tiles: slice::Iter<'w, Lost>,
}

impl<'w, 'r, G: Group> Iterator for LostTiles<'w, 'r, G> {
    type Item = LostTile<'w, 'r, G>;

    fn next(&mut self) -> Option<LostTile<'w, 'r, G>> {
        let (place, lost) = (self.place?, self.tiles.next()?);
        Some(LostTile { place, lost })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.tiles.size_hint()
    }
}

impl<G: Group> ExactSizeIterator for LostTiles<'_, '_, G> {}

impl<G: Group> fmt::Debug for ReadyTiles<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadyTiles").field(&self.tiles).finish()
    }
}

impl<G: Group> fmt::Debug for FailedTiles<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiles = self.tiles.clone().map(|failed| failed.tile);
        f.debug_list().entries(tiles).finish()
    }
}

impl<G: Group> fmt::Debug for LostTiles<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiles = self.tiles.clone().map(|lost| lost.tile);
        f.debug_list().entries(tiles).finish()
    }
}
