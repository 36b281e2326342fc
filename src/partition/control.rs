//! The words of a partition: the round word, the claims of the tiles, and the divided arrays.
//!
//! They lie in an array of the table with a dtype of no element type, so safe code reaches them
//! only through this module.

use core::ops::Range;
use core::time::Duration;

use super::access::AccessMode;
use super::plan::{CUT_WORDS, MAX_CUTS, Plan};
use crate::descriptor::{ControlKind, Descriptor, HalfWritten, PoisonNote};
use crate::memory::Memory;
use crate::span::{Extent, Spans};
use crate::sync::park::{park, unpark};
use crate::sync::{Atom, Ordering, Word};
use crate::table::slot::Slot;
use crate::word::{
    Claim, ClaimState, DoneCount, RoundState, RoundWord, SeatId, SlotIndex, UnitRecord,
};

/// Arrays that a group may have.
pub(crate) const MAX_MEMBERS: usize = 8;

const ROUND: usize = 0;
const TILES: usize = 1;
const CUTS: usize = 2;
const MEMBERS: usize = 3;
const UNIT: usize = 4;
/// On a cache line of its own: every worker adds to it. A model's arrays are too small for lines.
const DONE: usize = if cfg!(loom) { 5 } else { 16 };
const FIRST_MEMBER: usize = if cfg!(loom) { 6 } else { 32 };
const FIRST_CUT: usize = FIRST_MEMBER + 2 * MAX_MEMBERS;
const FIRST_CLAIM: usize = FIRST_CUT + MAX_CUTS * CUT_WORDS;

/// Up to this many tiles, each has its own claim word; beyond, tiles are claimed in units.
const UNITS: usize = if cfg!(loom) { 2 } else { 2048 };

/// Returns the number of tiles per claim in a partition of `tiles` tiles.
fn unit_of(tiles: usize) -> usize {
    tiles.div_ceil(UNITS).clamp(1, UnitRecord::MAX_TILES)
}

/// One array of a group: its slot, its generation, and how tiles access it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) slot: SlotIndex,
    pub(crate) generation: u32,
    pub(crate) mode: AccessMode,
}

/// The words of one partition. The holder of a `Control` has a lease on their slot, or reserved it.
#[derive(Clone, Copy)]
pub(crate) struct Control<'m> {
    /// The slot of the words; `None` for a copy of them.
    slot: Option<SlotIndex>,
    head: &'m [Atom],
    claims: &'m [Atom<Claim>],
    /// One per unit if units have several tiles, else none.
    records: &'m [Atom<UnitRecord>],
    bounds: &'m [Atom],
    tiles: usize,
    /// Tiles per claim, from 1 to 16.
    unit: usize,
}

/// Returns the numbers of claim words and of record words.
fn lengths(tiles: usize, unit: usize) -> (usize, usize) {
    let units = tiles.div_ceil(unit);
    (units, if unit > 1 { units } else { 0 })
}

impl<'m> Control<'m> {
    /// Returns the number of words of a partition: head, claims, records, bounds.
    pub(crate) fn words(tiles: usize, plan: &Plan) -> usize {
        let (claims, records) = lengths(tiles, unit_of(tiles));
        FIRST_CLAIM + claims + records + plan.bound_words()
    }

    /// Writes the words of a new partition. The caller has reserved the slot.
    pub(crate) fn create(
        memory: &'m Memory,
        extent: Extent,
        tiles: usize,
        plan: &Plan,
        members: &[Member],
    ) -> Option<()> {
        let count = Self::words(tiles, plan);
        let words = memory.control(extent.offset, count)?;
        // Relaxed: published with the slot.
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        for (at, value) in [
            (TILES, tiles),
            (CUTS, plan.axes().count()),
            (MEMBERS, members.len()),
            (UNIT, unit_of(tiles)),
        ] {
            words[at].store(value as u64, Ordering::Relaxed);
        }
        for (at, member) in members.iter().enumerate() {
            let identity = (member.slot.get() as u64) << 32 | u64::from(member.generation);
            words[FIRST_MEMBER + 2 * at].store(identity, Ordering::Relaxed);
            words[FIRST_MEMBER + 2 * at + 1].store(member.mode.code(), Ordering::Relaxed);
        }
        let bounds = &words[count - plan.bound_words()..];
        plan.store(&words[FIRST_CUT..FIRST_CLAIM], bounds);
        Some(())
    }

    /// Returns the partition in the control array of a slot, or `None` if it has none.
    pub(super) fn of(memory: &'m Memory, index: SlotIndex) -> Option<Control<'m>> {
        Descriptor::load(memory.descriptor(index))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Partition))?;
        let control = Control::open(memory, Spans::of(memory).extent(index)?)?;
        Some(control.at(index))
    }

    /// Returns the partition in `extent`, or `None` if its words do not fit into the extent.
    pub(crate) fn open(memory: &'m Memory, extent: Extent) -> Option<Control<'m>> {
        Self::over(memory.control(extent.offset, (extent.size() / 8) as usize)?)
    }

    /// Returns the partition in these words, or a copy of them; `None` if they are too few.
    pub(crate) fn over(words: &'m [Atom]) -> Option<Control<'m>> {
        let (head, rest) = words.split_at_checked(FIRST_CLAIM)?;
        let get = |at: usize| usize::try_from(head[at].load(Ordering::Relaxed)).ok();
        let tiles = get(TILES).filter(|&tiles| tiles as u64 <= DoneCount::MAX_TILES)?;
        let unit = get(UNIT).filter(|&unit| (1..=UnitRecord::MAX_TILES).contains(&unit))?;
        let (claims, records) = lengths(tiles, unit);
        let (claims, rest) = rest.split_at_checked(claims)?;
        let (records, bounds) = rest.split_at_checked(records)?;
        Some(Control {
            slot: None,
            head,
            claims: Atom::typed_slice(claims),
            records: Atom::typed_slice(records),
            bounds,
            tiles,
            unit,
        })
    }

    /// Returns the same words, which lie in `slot`.
    pub(crate) fn at(self, slot: SlotIndex) -> Control<'m> {
        Control {
            slot: Some(slot),
            ..self
        }
    }

    /// Returns the slot of the words; `None` for a copy of them.
    pub(crate) fn slot(&self) -> Option<SlotIndex> {
        self.slot
    }

    /// Reads the plan. Returns `None` if the words are inconsistent.
    pub(crate) fn plan(&self) -> Option<Plan> {
        let count = usize::try_from(self.head[CUTS].load(Ordering::Relaxed)).ok()?;
        let cuts = &self.head[FIRST_CUT..FIRST_CLAIM];
        Plan::load(count, cuts, self.bounds).filter(|plan| plan.tiles() == Some(self.tiles()))
    }

    pub(crate) fn tiles(&self) -> usize {
        self.tiles
    }

    /// Returns the number of tiles per claim.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    pub(crate) fn units(&self) -> usize {
        self.claims.len()
    }

    /// Returns the tiles of a unit.
    #[inline]
    pub(crate) fn tiles_of(&self, unit: usize) -> Range<usize> {
        let start = unit * self.unit;
        start..(start + self.unit).min(self.tiles)
    }

    /// Returns all tiles of a unit, one bit each.
    pub(crate) fn all_of(&self, unit: usize) -> u16 {
        u16::MAX >> (u16::BITS as usize - self.tiles_of(unit).len().clamp(1, 16))
    }

    /// Returns the indices that each tile covers along the first cut axis.
    pub(crate) fn rows(&self, tiles: &[usize]) -> Vec<Range<usize>> {
        let plan = self.plan();
        let rows = |&tile| plan.as_ref().map_or(0..0, |plan| plan.rows(tile));
        tiles.iter().map(rows).collect()
    }

    /// Returns the arrays of the group. Skips members of an invalid mode.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + 'm {
        let words = self.head;
        let count = words[MEMBERS]
            .load(Ordering::Relaxed)
            .min(MAX_MEMBERS as u64);
        (0..count as usize).filter_map(move |at| {
            let identity = words[FIRST_MEMBER + 2 * at].load(Ordering::Relaxed);
            let mode = words[FIRST_MEMBER + 2 * at + 1].load(Ordering::Relaxed);
            Some(Member {
                slot: SlotIndex::new((identity >> 32) as usize),
                generation: identity as u32,
                mode: AccessMode::from_code(mode)?,
            })
        })
    }

    /// Returns slot and generation of the arrays that tiles write.
    pub(crate) fn written(&self) -> impl Iterator<Item = (SlotIndex, u32)> + 'm {
        self.members()
            .filter(|member| member.mode.writes())
            .map(|member| (member.slot, member.generation))
    }

    fn round_word(&self) -> &'m Atom<RoundWord> {
        self.head[ROUND].typed()
    }

    fn count_word(&self) -> &'m Atom<DoneCount> {
        self.head[DONE].typed()
    }

    // ---- rounds -----------------------------------------------------------------------------

    /// Poisons the arrays that the tiles write. The caller holds a tile.
    pub(super) fn poison_written(&self, memory: &Memory) {
        for (index, generation) in self.written() {
            let Some(slot) = Slot::of(memory, index) else {
                continue;
            };
            // The first to poison has left its note. An error means that the array was freed
            // meanwhile.
            let word = slot.word();
            if word.is_live(generation) && !word.is_poisoned() {
                let note = PoisonNote::now(std::process::id(), HalfWritten::Tiles);
                note.torn_in(self.slot).store(memory.descriptor(index));
                let _ = slot.change(|word| word.poison(generation));
            }
        }
    }

    /// Loads the round word. Acquire: pairs with the Release of `begin`, `go_on` and `settle`.
    pub(crate) fn round(&self) -> RoundWord {
        self.round_word().load(Ordering::Acquire)
    }

    /// Sleeps, at most for `timeout`, if the round word is `seen`. May wake up without a reason.
    pub(super) fn sleep(&self, seen: RoundWord, timeout: Duration) {
        park(self.round_word(), seen, RoundWord::ASLEEP.mask(), timeout);
    }

    /// Changes the round word and wakes its sleepers. Returns the new word, or the word for which
    /// `next` returned `None`.
    #[track_caller]
    #[inline]
    fn change_round(
        &self,
        order: Ordering,
        next: impl FnMut(RoundWord) -> Option<RoundWord>,
    ) -> Result<RoundWord, RoundWord> {
        let word = self.round_word();
        let (before, now) = word.update(order, Ordering::Relaxed, next)?;
        unpark(word, before, RoundWord::ASLEEP.mask());
        Ok(now)
    }

    /// Attempts to open the next round for `me`, if no round is running. The caller holds the
    /// arrays. Returns the number of the round.
    pub(crate) fn begin(&self, me: SeatId) -> Result<u64, RoundWord> {
        // Release: pairs with the Acquire in `round`. A participant that sees the round sees its
        // leases.
        let now = self.change_round(Ordering::Release, |round| round.open_next(me))?;
        Ok(now.round())
    }

    /// Starts the count of `round`. Only an opener does this.
    ///
    /// Before it, released tiles are not counted, and the claim words decide.
    pub(crate) fn start_count(&self, round: u64) {
        let _ = self
            .count_word()
            .update(Ordering::Relaxed, Ordering::Relaxed, |_| {
                Some(DoneCount::start(round))
            });
    }

    /// Attempts to go on to the next round of `me`, which keeps the arrays. All tiles of the running
    /// round are done. Returns the number of the next round.
    pub(super) fn go_on(&self, me: SeatId) -> Result<u64, RoundWord> {
        // Release: pairs with the Acquire in `round`. A participant that sees the next round sees the
        // writes to all tiles of the last one.
        let now = self.change_round(Ordering::Release, |round| round.go_on(me))?;
        Ok(now.round())
    }

    /// Attempts to end the round that `opener` runs, before it releases the arrays. Returns `true`
    /// if there was one.
    pub(crate) fn close(&self, opener: SeatId, state: RoundState) -> bool {
        // Relaxed: the opener releases the arrays afterwards, and settles the round.
        self.change_round(Ordering::Relaxed, |round| round.close(opener, state))
            .is_ok()
    }

    /// Performs the last step of an end: the `opener` has released the arrays.
    pub(crate) fn settle(&self, opener: SeatId) {
        // Release: pairs with the Acquire in `round`. A participant that sees the round settled
        // sees the arrays released, the writes to all tiles, and the torn claims.
        let _ = self.change_round(Ordering::Release, |round| round.settle(opener));
    }

    /// Ends the round of a seat that has died or leaves, whatever step it has reached.
    pub(crate) fn abandon(&self, opener: SeatId) {
        // Relaxed: a participant that sees it reads nothing else because of it.
        let _ = self.change_round(Ordering::Relaxed, |round| round.abandon(opener));
    }

    /// Closes the partition for good, unless a round runs. Its owner frees it next.
    pub(crate) fn free(&self) {
        // Relaxed: nothing is read because of the flag.
        let _ = self.change_round(Ordering::Relaxed, RoundWord::free);
    }

    /// Returns `true` if the count alone proves that all tiles of `round` are done.
    ///
    /// Acquire: pairs with the Release of every `count`, through the chain of additions.
    pub(crate) fn all_counted(&self, round: u64) -> bool {
        let count = self.count_word().load(Ordering::Acquire);
        count.is_of(round) && count.count() == self.tiles() as u64
    }

    /// Counts the tiles of `round` by state, from the claim words and the records of units.
    pub(crate) fn progress(&self, round: u64) -> Progress {
        let mut progress = Progress::default();
        for unit in 0..self.units() {
            let claim = self.claim_word(unit);
            let tiles = self.tiles_of(unit).len();
            let ran = tiles - self.missing(unit, claim.round()).count();
            match claim.state() {
                ClaimState::Done if claim.round() == round => progress.done += tiles,
                ClaimState::Torn if claim.round() == round => {
                    progress.done += ran;
                    progress.torn.extend(self.missing(unit, round));
                }
                // The holder has not released the unit yet.
                ClaimState::Held if claim.round() == round => {
                    progress.done += ran.min(tiles - 1);
                    progress.held += tiles - ran.min(tiles - 1);
                }
                ClaimState::Held => progress.held += tiles,
                // The unit may have been released half-way. If all of it was run, the record is that
                // of a later holder, which has not released the unit yet.
                _ => {
                    let ran = tiles - self.missing(unit, round).count();
                    progress.done += ran.min(tiles - 1);
                    progress.open += tiles - ran.min(tiles - 1);
                }
            }
        }
        progress
    }

    // ---- units of tiles ---------------------------------------------------------------------

    /// Loads the claim of `unit`. Acquire: pairs with the Release of `release` and `tear`.
    pub(crate) fn claim_word(&self, unit: usize) -> Claim {
        self.claims[unit].load(Ordering::Acquire)
    }

    /// Attempts to claim `unit` for `round`. Its views then belong to the caller alone until the
    /// release.
    #[inline]
    pub(crate) fn claim(&self, unit: usize, round: u64, me: SeatId) -> bool {
        // Acquire: pairs with the Release of `release`, `reopen` and `tear` by earlier holders.
        self.claims[unit]
            .update(Ordering::Acquire, Ordering::Relaxed, |claim| {
                claim.claim(round, me)
            })
            .is_ok()
    }

    /// Performs the transition HELD by `me` → DONE. The caller [counts](Control::count) the tiles of
    /// the unit. Returns `false` if `me` does not hold it.
    #[inline]
    pub(crate) fn release(&self, unit: usize, me: SeatId) -> bool {
        let word = &self.claims[unit];
        let held = word.load(Ordering::Relaxed);
        let Some(done) = held.give_back(me) else {
            return false;
        };
        // Release: pairs with the next round's `claim`, and with `claim_word`.
        word.publish_owned(held, done);
        true
    }

    /// Adds tiles of units that the caller has released in `round` to the count of the round.
    #[inline]
    pub(crate) fn count(&self, round: u64, tiles: u64) {
        // Release: pairs with the Acquire in `all_counted`. The additions are read-modify-writes
        // and form one release sequence, so all tiles' writes happen before a reader of the last
        // count.
        let _ = self
            .count_word()
            .update(Ordering::Release, Ordering::Relaxed, |count| {
                count.add(round, tiles)
            });
    }

    /// Returns the tiles of `unit` that its holders have run in `round`, one bit each.
    pub(crate) fn ran(&self, unit: usize, round: u64) -> u16 {
        // Relaxed: a caller that acts on the record has acquired the claim word, which is released
        // after the record is written.
        let record = |record: &Atom<UnitRecord>| record.load(Ordering::Relaxed).done(round);
        self.records.get(unit).map_or(0, record) & self.all_of(unit)
    }

    /// Records which tiles of `unit` were run in `round`. Only the unit's holder does this.
    #[inline]
    pub(crate) fn note(&self, unit: usize, round: u64, ran: u16) {
        if let Some(record) = self.records.get(unit) {
            // Relaxed: see `ran`.
            record.store(UnitRecord::new(round, ran), Ordering::Relaxed);
        }
    }

    /// Returns the tiles of `unit` that were not run to their end in `round`.
    pub(crate) fn missing(&self, unit: usize, round: u64) -> impl Iterator<Item = usize> {
        let ran = self.ran(unit, round);
        self.tiles_of(unit)
            .enumerate()
            .filter(move |(at, _)| ran >> at & 1 == 0)
            .map(|(_, tile)| tile)
    }

    /// Returns `true` if the one tile of `unit` is done in `round`.
    pub(crate) fn is_done(&self, unit: usize, round: u64) -> bool {
        let claim = self.claim_word(unit);
        claim.state() == ClaimState::Done && claim.round() == round
    }

    /// Attempts the transition DONE in `round` → HELD by the round's opener. For units of one tile.
    pub(crate) fn retake(&self, unit: usize, round: u64, opener: SeatId) -> bool {
        if !self.is_done(unit, round) {
            return false;
        }
        // Give up the count before retaking a tile: its first run may not be counted yet, and it
        // would be counted twice. From here on the claim words decide.
        let _ = self
            .count_word()
            .update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                count.is_of(round).then(DoneCount::given_up)
            });
        // Relaxed: `is_done` acquired the tile's writes, and only the opener changes the claim now.
        self.claims[unit]
            .update(Ordering::Relaxed, Ordering::Relaxed, |claim| {
                claim.retake(round, opener)
            })
            .is_ok()
    }

    /// Attempts the transition TORN in `round` → HELD by the round's opener. For units of one tile.
    pub(crate) fn retake_torn(&self, unit: usize, round: u64, opener: SeatId) -> bool {
        // Relaxed: the caller has found the tile torn by `claim_word`, which acquired the tile's
        // writes, and only the opener changes the claim now.
        self.claims[unit]
            .update(Ordering::Relaxed, Ordering::Relaxed, |claim| {
                claim.retake_torn(round, opener)
            })
            .is_ok()
    }

    /// Attempts the transition HELD by `holder`, or TORN, → claimable in `round` again. The next
    /// holder runs the missing tiles.
    pub(crate) fn reopen(&self, unit: usize, round: u64, holder: SeatId) -> bool {
        // Release: pairs with the Acquire of `claim`. The writes of the holder, or of a reaper, to
        // the tiles happen before their next run.
        self.claims[unit]
            .update(Ordering::Release, Ordering::Relaxed, |claim| {
                claim.reopen(round, holder)
            })
            .is_ok()
    }

    /// Marks a torn tile of `round` as done. The caller has repaired it, and has exclusive leases of
    /// all arrays that the tiles write.
    pub(super) fn mend(&self, tile: usize, round: u64, me: SeatId) {
        let unit = tile / self.unit;
        let ran = self.ran(unit, round) | 1 << (tile % self.unit);
        self.note(unit, round, ran);
        if self.unit == 1 || ran == self.all_of(unit) {
            // Relaxed: the leases of the arrays order it, here and in `mend_round`.
            let _ = self.claims[unit].update(Ordering::Relaxed, Ordering::Relaxed, |claim| {
                claim.mend(round, me)
            });
        }
    }

    /// Performs the transition TORN in `round` → WHOLE, unless a later round was opened. The caller
    /// has repaired all torn tiles, and released the arrays.
    pub(super) fn mend_round(&self, round: u64) {
        let _ = self.change_round(Ordering::Relaxed, |now| now.mend(round));
    }

    /// Attempts the transition HELD by `seat` → TORN. Returns the round in which the unit was held.
    pub(crate) fn tear(&self, unit: usize, seat: SeatId) -> Option<u64> {
        // Release: pairs with the Acquire of `claim_word` and `claim`. A participant that sees TORN
        // also sees the dead holder's writes, and the arrays poisoned.
        self.claims[unit]
            .update(Ordering::Release, Ordering::Relaxed, |claim| {
                claim.tear(seat)
            })
            .ok()
            .map(|(_, torn)| torn.round())
    }

    /// Returns `true` if `seat` holds a tile, or the round itself.
    pub(crate) fn is_held_by(&self, seat: SeatId) -> bool {
        self.round().is_held_by(seat)
            || (0..self.units()).any(|unit| self.claim_word(unit).is_held_by(seat))
    }

    /// Calls `visit(index, bits, None)` for every invalid word, including claims of a round that
    /// has not begun. Calls `visit(index, bits, Some(holder))` for every held word.
    pub(crate) fn faults(&self, mut visit: impl FnMut(usize, u64, Option<SeatId>)) {
        let claims: Vec<Claim> = (0..self.units())
            .map(|unit| self.claim_word(unit))
            .collect();
        // Load the round after the claims: no claim can be of a later round.
        let round = self.round();
        match round.seat().is_none() {
            _ if round.is_invalid() => visit(ROUND, round.bits(), None),
            false => visit(ROUND, round.bits(), Some(round.seat())),
            true => {}
        }
        for (at, claim) in (FIRST_CLAIM..).zip(claims) {
            match claim.state() {
                ClaimState::Held => visit(at, claim.bits(), Some(claim.seat())),
                ClaimState::Invalid => visit(at, claim.bits(), None),
                _ if claim.round() > round.round() => visit(at, claim.bits(), None),
                ClaimState::Open | ClaimState::Done | ClaimState::Torn => {}
            }
        }
    }
}

/// The tiles of a round by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) done: usize,
    /// Held in this round, or still held from an earlier round.
    pub(crate) held: usize,
    /// Not claimed yet.
    pub(crate) open: usize,
    pub(crate) torn: Vec<usize>,
}

#[cfg(test)]
mod tests;
