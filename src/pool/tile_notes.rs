//! The notes of a started call, one per tile: how often it was sent back, and how it failed last.

use core::cell::Cell;

use super::call_memory::Opened;
use super::report::{Failure, store_text, text_of};
use super::workers::platform::sizes::TEXT_WORDS;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::sync::{Atom, Ordering};
use crate::table::error::LeaseError;
use crate::table::lease::SharedLease;

const RUNS: usize = 0;
/// The number of the worker whose kernel failed, plus 1, or 0.
const FAILURE: usize = 1;
const LEN: usize = 2;
/// Words of a tile before the texts.
const HEAD: usize = 3;

/// Words of a tile's notes. The texts of all tiles follow the heads of all tiles.
const WORDS: usize = HEAD + TEXT_WORDS;

/// The notes of a started call, in its memory.
///
/// The parent counts the runs of a tile while no participant can claim it. A worker notes the
/// failure of a tile that it holds, and then tears it. The claim word orders the two; see
/// `README.md`.
pub(super) struct TileNotes<'t> {
    heads: &'t [Atom],
    texts: &'t [Atom],
    /// Keeps the words in place if the parent abandons the call and frees the memory.
    _lease: Option<SharedLease<'t>>,
}

impl<'t> TileNotes<'t> {
    /// Returns the number of words for `tiles` tiles, and the number of those that start as 0.
    pub(super) fn words(tiles: usize) -> (usize, usize) {
        (tiles * WORDS, tiles * HEAD)
    }

    /// Opens the notes that `handle` names.
    pub(super) fn open(table: &'t HandleTable, handle: AnyHandle) -> Result<Self, LeaseError> {
        let Opened {
            len, offset, lease, ..
        } = Opened::of(table, handle)?;
        let words = table
            .segment()
            .memory()
            .control(offset, len / size_of::<u64>());
        Ok(TileNotes {
            _lease: Some(lease),
            ..TileNotes::in_words(words.unwrap_or(&[]))
        })
    }

    /// Creates the notes in these words.
    pub(super) fn in_words(words: &'t [Atom]) -> Self {
        let (heads, texts) = words.split_at(words.len() / WORDS * HEAD);
        TileNotes {
            heads,
            texts,
            _lease: None,
        }
    }

    fn head(&self, tile: usize) -> Option<&'t [Atom; HEAD]> {
        self.heads.get(tile.checked_mul(HEAD)?..)?.first_chunk()
    }

    fn text(&self, tile: usize) -> Option<&'t [Atom; TEXT_WORDS]> {
        self.texts
            .get(tile.checked_mul(TEXT_WORDS)?..)?
            .first_chunk()
    }

    /// Returns the number of times that a tile was sent back. The caller has claimed the tile.
    pub(super) fn runs(&self, tile: usize) -> u64 {
        // Relaxed: the claim has acquired the count.
        self.head(tile)
            .map_or(0, |head| head[RUNS].load(Ordering::Relaxed))
    }

    /// Counts one more run of a tile that no participant can claim, and that the caller is about to
    /// send back.
    pub(super) fn count(&self, tile: usize) {
        if let Some(head) = self.head(tile) {
            head[RUNS].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that the kernel of `worker` has failed at a tile. The worker tears it next.
    pub(super) fn fail(&self, tile: usize, worker: usize, message: &str) {
        if let (Some(head), Some(text)) = (self.head(tile), self.text(tile)) {
            let len = store_text(text, message);
            head[LEN].store(len as u64, Ordering::Relaxed);
            // Release: pairs with the Acquire in `failure`.
            head[FAILURE].store(worker as u64 + 1, Ordering::Release);
        }
    }

    /// Returns the failure of a torn tile and the number of the worker, or `None` if its holder has
    /// died.
    pub(super) fn failure(&self, tile: usize) -> Option<(usize, Failure)> {
        let (head, text) = (self.head(tile)?, self.text(tile)?);
        // Acquire: pairs with the Release in `fail`.
        let worker = head[FAILURE].load(Ordering::Acquire).checked_sub(1)?;
        let len = head[LEN].load(Ordering::Relaxed);
        let failure = Failure::at(tile, &text_of(text, len));
        Some((usize::try_from(worker).unwrap_or(usize::MAX), failure))
    }

    /// Clears the failure of a tile that no participant can claim.
    pub(super) fn clear(&self, tile: usize) {
        if let Some(head) = self.head(tile) {
            // Relaxed: the parent releases the tile after this.
            head[FAILURE].store(0, Ordering::Relaxed);
        }
    }
}

/// The parts of a started call that a check of its workers needs.
#[derive(Clone, Copy)]
pub(super) struct StartedTiles<'a> {
    pub(super) notes: &'a TileNotes<'a>,
    /// Tiles that were handed out and not sent back.
    pub(super) resting: &'a [Cell<bool>],
}

impl StartedTiles<'_> {
    /// Returns `true` if a tile was handed out: only the parent changes it.
    pub(super) fn rests(&self, tile: usize) -> bool {
        self.resting.get(tile).is_some_and(Cell::get)
    }
}
