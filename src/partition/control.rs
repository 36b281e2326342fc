//! The words of a partition: its round, its tiles' claims, and what it divides.
//!
//! They lie in an array of the same table whose dtype no element type matches, so that safe code
//! cannot reach them but through here.

use core::ops::Range;

use super::access::Mode;
use super::grid::{CUT_WORDS, MAX_CUTS, Plan};
use crate::segment::Memory;
use crate::span::Extent;
use crate::sync::{Atom, Ordering, Word};
use crate::word::{Claim, ClaimState, DoneCount, SeatId};

/// Arrays that a group may have.
pub(crate) const MAX_MEMBERS: usize = 8;

const ROUND: usize = 0;
const TILES: usize = 1;
const CUTS: usize = 2;
const MEMBERS: usize = 3;
/// On a line of its own: every worker adds to it. A model's arrays are small, and have no lines.
const DONE: usize = if cfg!(loom) { 4 } else { 16 };
const FIRST_MEMBER: usize = if cfg!(loom) { 5 } else { 32 };
const FIRST_CUT: usize = FIRST_MEMBER + 2 * MAX_MEMBERS;
const FIRST_TILE: usize = FIRST_CUT + MAX_CUTS * CUT_WORDS;

/// One array of a group: its slot, its generation, and how tiles access it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) slot: usize,
    pub(crate) generation: u32,
    pub(crate) mode: Mode,
}

/// The words of one partition. The holder of one has a lease on their slot, or its reservation.
#[derive(Clone, Copy)]
pub(crate) struct Control<'m> {
    /// The head, and the claims.
    words: &'m [Atom],
    /// What lies behind the claims.
    bounds: &'m [Atom],
}

impl<'m> Control<'m> {
    /// Words that a partition takes: head, claims, bounds.
    pub(crate) fn words(tiles: usize, plan: &Plan) -> usize {
        FIRST_TILE + tiles + plan.bound_words()
    }

    /// Writes the words of a new partition; the slot is RESERVED by the caller.
    pub(crate) fn create(
        memory: &'m Memory,
        extent: Extent,
        tiles: usize,
        plan: &Plan,
        members: &[Member],
    ) -> Option<()> {
        let words = memory.control(extent.offset, Self::words(tiles, plan))?;
        // Relaxed: published with the slot.
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        for (at, value) in [
            (TILES, tiles),
            (CUTS, plan.axes().count()),
            (MEMBERS, members.len()),
        ] {
            words[at].store(value as u64, Ordering::Relaxed);
        }
        for (at, member) in members.iter().enumerate() {
            let identity = (member.slot as u64) << 32 | u64::from(member.generation);
            words[FIRST_MEMBER + 2 * at].store(identity, Ordering::Relaxed);
            words[FIRST_MEMBER + 2 * at + 1].store(member.mode.code(), Ordering::Relaxed);
        }
        plan.store(&words[FIRST_CUT..FIRST_TILE], &words[FIRST_TILE + tiles..]);
        Some(())
    }

    /// The partition in `extent`; `None` if its words do not fit into the extent.
    pub(crate) fn open(memory: &'m Memory, extent: Extent) -> Option<Control<'m>> {
        let head = memory.control(extent.offset, FIRST_TILE)?;
        let tiles = head[TILES].load(Ordering::Relaxed);
        let end = tiles.checked_add(FIRST_TILE as u64)?;
        if tiles > DoneCount::MAX_TILES || end.checked_mul(8)? > extent.size() {
            return None;
        }
        let words = memory.control(extent.offset, (extent.size() / 8) as usize)?;
        let (words, bounds) = words.split_at_checked(end as usize)?;
        Some(Control { words, bounds })
    }

    /// What is divided; `None` if the words do not fit together.
    pub(crate) fn plan(&self) -> Option<Plan> {
        let count = usize::try_from(self.words[CUTS].load(Ordering::Relaxed)).ok()?;
        let cuts = &self.words[FIRST_CUT..FIRST_TILE];
        Plan::load(count, cuts, self.bounds).filter(|plan| plan.tiles() == Some(self.tiles()))
    }

    pub(crate) fn tiles(&self) -> usize {
        self.words.len() - FIRST_TILE
    }

    /// The indices that tiles cover along the axis that is cut first.
    pub(crate) fn rows(&self, tiles: &[usize]) -> Vec<Range<usize>> {
        let plan = self.plan();
        let rows = |&tile| plan.as_ref().map_or(0..0, |plan| plan.rows(tile));
        tiles.iter().map(rows).collect()
    }

    /// The arrays of the group; those whose words mean nothing are left out.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + 'm {
        let words = self.words;
        let count = words[MEMBERS]
            .load(Ordering::Relaxed)
            .min(MAX_MEMBERS as u64);
        (0..count as usize).filter_map(move |at| {
            let identity = words[FIRST_MEMBER + 2 * at].load(Ordering::Relaxed);
            let mode = words[FIRST_MEMBER + 2 * at + 1].load(Ordering::Relaxed);
            Some(Member {
                slot: (identity >> 32) as usize,
                generation: identity as u32,
                mode: Mode::from_code(mode)?,
            })
        })
    }

    /// Slot and generation of the arrays that tiles write.
    pub(crate) fn written(&self) -> impl Iterator<Item = (usize, u32)> + 'm {
        self.members()
            .filter(|member| member.mode == Mode::Write)
            .map(|member| (member.slot, member.generation))
    }

    // ---- rounds -----------------------------------------------------------------------------

    /// The round word. Acquire: pairs with the Release of `begin` and `close`.
    pub(crate) fn round(&self) -> Claim {
        Claim::from_bits(self.words[ROUND].load(Ordering::Acquire))
    }

    /// No round runs → the next one does, opened by `me`, who holds the arrays. Its number.
    pub(crate) fn begin(&self, me: SeatId) -> Result<u64, Claim> {
        let (_, now) = update(&self.words[ROUND], Ordering::AcqRel, |round| {
            round.open_next(me)
        })?;
        Ok(now.round())
    }

    /// Starts the count of `round`. Only the opener of a running round does.
    ///
    /// Until it has, tiles that are given back do not count themselves: the claim words decide.
    pub(crate) fn start_count(&self, round: u64) {
        let _ = self.words[DONE].update(Ordering::AcqRel, Ordering::Relaxed, |_| {
            Some(DoneCount::start(round).bits())
        });
    }

    /// The round that `opener` runs is over. Whether there was one.
    pub(crate) fn close(&self, opener: SeatId) -> bool {
        // Release: all tiles' writes happen before the next opener's round.
        update(&self.words[ROUND], Ordering::AcqRel, |round| {
            round.close(opener)
        })
        .is_ok()
    }

    /// Whether all tiles of `round` are done by the count alone.
    ///
    /// Acquire: pairs with the Release of every `give_back`, through the chain of additions.
    pub(crate) fn all_counted(&self, round: u64) -> bool {
        let count = DoneCount::from_bits(self.words[DONE].load(Ordering::Acquire));
        count.is_of(round) && count.count() == self.tiles() as u64
    }

    /// What the claim words say of `round`.
    pub(crate) fn progress(&self, round: u64) -> Progress {
        let mut progress = Progress::default();
        for tile in 0..self.tiles() {
            let claim = self.claim_word(tile);
            match claim.state() {
                ClaimState::Done if claim.round() == round => progress.done += 1,
                ClaimState::Torn if claim.round() == round => progress.torn.push(tile),
                ClaimState::Held => progress.held += 1,
                _ => progress.open += 1,
            }
        }
        progress
    }

    // ---- tiles ------------------------------------------------------------------------------

    /// Acquire: pairs with the Release of `give_back`.
    pub(crate) fn claim_word(&self, tile: usize) -> Claim {
        Claim::from_bits(self.words[FIRST_TILE + tile].load(Ordering::Acquire))
    }

    /// Claims `tile` for `round`: its views are the caller's alone until it gives the tile back.
    #[inline]
    pub(crate) fn claim(&self, tile: usize, round: u64, me: SeatId) -> bool {
        // Acquire: pairs with the Release of whoever gave this tile back in an earlier round.
        update(&self.words[FIRST_TILE + tile], Ordering::Acquire, |claim| {
            claim.claim(round, me)
        })
        .is_ok()
    }

    /// HELD by `me` → DONE, and counted.
    #[inline]
    pub(crate) fn give_back(&self, tile: usize, me: SeatId) {
        let word = &self.words[FIRST_TILE + tile];
        let held = Claim::from_bits(word.load(Ordering::Relaxed));
        let Some(done) = held.give_back(me) else {
            return;
        };
        // Release: pairs with the next round's `claim`, and with `claim_word`.
        word.publish_owned(held.bits(), done.bits());
        // AcqRel: whoever reads the last count has all the tiles' writes before it.
        let _ = self.words[DONE].update(Ordering::AcqRel, Ordering::Relaxed, |count| {
            DoneCount::from_bits(count)
                .add(held.round())
                .map(Word::bits)
        });
    }

    /// Whether `tile` is done in `round`.
    pub(crate) fn is_done(&self, tile: usize, round: u64) -> bool {
        let claim = self.claim_word(tile);
        claim.state() == ClaimState::Done && claim.round() == round
    }

    /// DONE in `round` → HELD by the round's opener, and not counted any more.
    pub(crate) fn retake(&self, tile: usize, round: u64, opener: SeatId) -> bool {
        if !self.is_done(tile, round) {
            return false;
        }
        // The count first, so that it never exceeds the tiles that are done. Nobody else takes a
        // tile that is done away: the opener is one thread.
        let _ = self.words[DONE].update(Ordering::AcqRel, Ordering::Relaxed, |count| {
            DoneCount::from_bits(count).remove(round).map(Word::bits)
        });
        // Acquire: pairs with the Release of `give_back`.
        update(&self.words[FIRST_TILE + tile], Ordering::Acquire, |claim| {
            claim.retake(round, opener)
        })
        .is_ok()
    }

    /// HELD by the round's opener, or TORN → to be claimed in `round` again.
    pub(crate) fn reopen(&self, tile: usize, round: u64, opener: SeatId) -> bool {
        // Release: pairs with the Acquire of `claim`. What the opener, or a reaper, did to the
        // tile happens before its next run.
        update(&self.words[FIRST_TILE + tile], Ordering::AcqRel, |claim| {
            claim.reopen(round, opener)
        })
        .is_ok()
    }

    /// HELD by `seat` → TORN. The round in which it was held.
    pub(crate) fn tear(&self, tile: usize, seat: SeatId) -> Option<u64> {
        update(&self.words[FIRST_TILE + tile], Ordering::AcqRel, |claim| {
            claim.tear(seat)
        })
        .ok()
        .map(|(_, torn)| torn.round())
    }

    /// Whether `seat` holds a tile, or the round itself.
    pub(crate) fn is_held_by(&self, seat: SeatId) -> bool {
        self.round().is_held_by(seat)
            || (0..self.tiles()).any(|tile| self.claim_word(tile).is_held_by(seat))
    }
}

/// What became of the tiles of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) done: usize,
    /// Held by somebody, in this round or, left over, in an earlier one.
    pub(crate) held: usize,
    /// Not claimed yet.
    pub(crate) open: usize,
    pub(crate) torn: Vec<usize>,
}

#[track_caller]
fn update(
    word: &Atom,
    success: Ordering,
    mut next: impl FnMut(Claim) -> Option<Claim>,
) -> Result<(Claim, Claim), Claim> {
    word.update(success, Ordering::Acquire, |bits| {
        next(Claim::from_bits(bits)).map(Word::bits)
    })
    .map(|(before, after)| (Claim::from_bits(before), Claim::from_bits(after)))
    .map_err(Claim::from_bits)
}
