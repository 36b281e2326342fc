//! The state of single tiles, for the opener of a round, and sending finished tiles back.

use super::super::control::Control;
use super::{OwnedRound, damaged};
use crate::partition::error::RoundError;
use crate::table::core::Core;
use crate::word::ClaimState;

const UNITS: &str = "the tiles of a partition of more than 2,048 tiles are claimed several at once, and \
     cannot be sent back: make longer tiles";

/// The state of a tile in a running round: [`OwnedRound::tile`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TileState {
    /// No participant has claimed it in this round.
    Open,
    /// A participant holds it, or tiles that are claimed with it.
    Held,
    /// It was run to its end.
    Done,
    /// A participant has left it half-written.
    Torn,
}

impl OwnedRound {
    /// Returns the round's words. Uses no table: the lease of this value keeps the words in place.
    fn control(&self) -> Option<Control<'_>> {
        // In a child it is the parent's lease.
        self.check_process().ok()?;
        if self.kept.segment.has_left() {
            return None;
        }
        let parts = self.kept.parts.as_ref()?;
        Control::of(self.kept.segment.memory(), parts.partition.lease.slot())
    }

    /// Returns the state of a tile in this round, or `None` if the round is over, has no such tile,
    /// or belongs to the parent of this process. The writes to a tile that is done happen before this returns.
    ///
    /// It needs no table, and so takes no lock of a [`SharedTable`](crate::SharedTable): a program
    /// can call it while it waits.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, TileState, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// assert_eq!(round.tile(token.tile()), Some(TileState::Held));
    /// member.done(&table, token)?;
    /// assert_eq!(round.tile(token.tile()), Some(TileState::Done));
    /// assert_eq!(round.tile(4), None);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn tile(&self, tile: usize) -> Option<TileState> {
        let control = self.control()?;
        if tile >= control.tiles() {
            return None;
        }
        let unit = tile / control.unit();
        let claim = control.claim_word(unit);
        let ran = || control.ran(unit, self.number) >> (tile % control.unit()) & 1 == 1;
        Some(match claim.state() {
            ClaimState::Held => TileState::Held,
            _ if claim.round() != self.number => TileState::Open,
            ClaimState::Done => TileState::Done,
            ClaimState::Torn if ran() => TileState::Done,
            ClaimState::Torn => TileState::Torn,
            ClaimState::Open | ClaimState::Invalid => TileState::Open,
        })
    }

    pub(crate) fn again_in(&mut self, core: &Core, tiles: &[usize]) -> Result<usize, RoundError> {
        let parts = self.kept.take(core)?;
        let (me, slot) = (parts.round.me, parts.partition.lease.slot());
        let handle = parts.partition.control;
        self.kept.parts = Some(parts);
        let control = Control::of(core.segment().memory(), slot);
        let control = control.ok_or_else(|| damaged(core, handle))?;
        let count = control.tiles();
        if let Some(&tile) = tiles.iter().find(|&&tile| tile >= count) {
            return Err(RoundError::NoSuchTile { tile, tiles: count });
        }
        if control.unit() != 1 && !tiles.is_empty() {
            return Err(RoundError::NotHeld { why: UNITS });
        }
        let mut sent = 0;
        for &tile in tiles {
            // Held by the opener in between: of two calls for one tile, one sends it back.
            let again =
                control.retake(tile, self.number, me) && control.reopen(tile, self.number, me);
            sent += usize::from(again);
        }
        Ok(sent)
    }
}
