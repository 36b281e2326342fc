//! The claims of one participant in one round, without a borrow of its table.

use core::cell::Cell;

use super::control::Control;
use crate::memory::Memory;
use crate::word::{Claim, SeatId};

/// The unit of several tiles that a participant holds, if any. Each field is a cell of its own, to
/// avoid a wide read after a narrow write.
#[derive(Default)]
struct Held {
    is_on: Cell<bool>,
    unit: Cell<usize>,
    /// The unit's first tile.
    first: Cell<usize>,
    /// The unit's tiles that were not handed out yet, one bit each.
    left: Cell<u16>,
    /// The unit's tiles that were run, one bit each.
    ran: Cell<u16>,
}

impl Held {
    /// Hands out the unit's next tile.
    #[inline]
    fn next(&self) -> Option<usize> {
        let left = self.left.get();
        if left == 0 {
            return None;
        }
        self.left.set(left & (left - 1));
        Some(self.first.get() + left.trailing_zeros() as usize)
    }
}

/// Returns `count` bits, from the lowest on; `count` is at most 16, the tiles of a unit.
#[inline]
pub(super) fn bits(count: usize) -> u16 {
    ((1u32 << count) - 1) as u16
}

/// Released tiles that a participant counts at once: all participants change the count.
const COUNTED_AT_ONCE: u64 = 256;

/// No claimed tile is out.
const NONE_OUT: usize = usize::MAX;

/// What a participant claims next, and what it holds.
pub(super) struct Claims {
    pub(super) round: u64,
    pub(super) me: SeatId,
    /// The unit at which the participant's own range begins.
    first: usize,
    /// The number of units tried so far, counted from `first`.
    tried: usize,
    /// The unit of several tiles that the participant holds.
    held: Held,
    /// Tiles that were released and not counted yet.
    uncounted: Cell<u64>,
    /// The last claim was of any tile, so the participant will ask for the next one or leave. A
    /// participant that takes given tiles may do something else for as long as it likes.
    in_pass: bool,
    /// The tile that was claimed last, until it is released or torn; else [`NONE_OUT`].
    ///
    /// At most one claimed tile is out. If this is still set at the next claim, or at the end, the
    /// tile was forgotten.
    out: Cell<usize>,
}

/// The outcome of claiming a given tile.
pub(super) enum Given {
    Claimed,
    Done,
    Torn,
    /// The claim word of its unit refuses.
    Refused(Claim),
}

impl Default for Claims {
    /// Returns claims of no round, of nobody.
    fn default() -> Claims {
        Claims::new(0, SeatId::NONE, 0)
    }
}

impl Claims {
    pub(super) fn new(round: u64, me: SeatId, first: usize) -> Claims {
        Claims {
            round,
            me,
            first,
            tried: 0,
            held: Held::default(),
            uncounted: Cell::new(0),
            in_pass: false,
            out: Cell::new(NONE_OUT),
        }
    }

    /// Begins a pass over the tiles of `round`. Nothing is held.
    pub(super) fn begin(&mut self, round: u64) {
        *self = Claims::new(round, self.me, self.first);
    }

    /// Claims the next tile that is unclaimed in this round.
    #[inline]
    pub(super) fn next(&mut self, control: &Control<'_>, memory: &Memory) -> Option<usize> {
        if self.out.get() != NONE_OUT {
            self.tear_forgotten(control, memory);
        }
        let index = self.held.next().or_else(|| self.claim_unit(control))?;
        self.out.set(index);
        Some(index)
    }

    #[inline(never)]
    fn claim_unit(&mut self, control: &Control<'_>) -> Option<usize> {
        let units = control.units();
        self.in_pass = true;
        while self.tried < units {
            let ahead = self.first + self.tried;
            let unit = if ahead < units { ahead } else { ahead - units };
            self.tried += 1;
            if !control.claim(unit, self.round, self.me) {
                // The next units may be another participant's, too, and the search takes time.
                self.count(control);
                continue;
            }
            if control.unit() == 1 {
                return Some(unit);
            }
            self.hold(control, unit);
            match self.held.next() {
                Some(index) => return Some(index),
                // All tiles were run, but the unit was not released.
                None => self.close_unit(control),
            }
        }
        self.count(control);
        None
    }

    /// Releases a unit, all `tiles` of which were run.
    #[inline]
    fn release(&self, control: &Control<'_>, unit: usize, tiles: u64) {
        if !control.release(unit, self.me) {
            return;
        }
        let uncounted = self.uncounted.get() + tiles;
        self.uncounted.set(uncounted);
        if uncounted >= COUNTED_AT_ONCE || !self.in_pass {
            self.count(control);
        }
    }

    /// Counts the tiles that were released since the last time. Out of line, because a claim seldom
    /// comes here.
    #[inline(never)]
    fn count(&self, control: &Control<'_>) {
        let tiles = self.uncounted.take();
        if tiles > 0 {
            control.count(self.round, tiles);
        }
    }

    /// Claims a given tile, which the partition has.
    pub(super) fn at(&mut self, control: &Control<'_>, memory: &Memory, tile: usize) -> Given {
        self.tear_forgotten(control, memory);
        self.count(control);
        self.in_pass = false;
        let unit = tile / control.unit();
        if !(self.held.is_on.get() && self.held.unit.get() == unit) {
            if self.let_go(control, memory) {
                // The unit may lie behind this participant's pass.
                self.tried = 0;
            }
            while !control.claim(unit, self.round, self.me) {
                // Acquire: the caller reads the record of a torn unit.
                let word = control.claim_word(unit);
                if word.claim(self.round, self.me).is_none() {
                    return Given::Refused(word);
                }
            }
            if control.unit() == 1 {
                self.out.set(tile);
                return Given::Claimed;
            }
            self.hold(control, unit);
        }
        let held = &self.held;
        let bit = 1u16 << (tile - held.first.get());
        if held.left.get() & bit != 0 {
            held.left.set(held.left.get() & !bit);
            self.out.set(tile);
            return Given::Claimed;
        }
        let done = held.ran.get() & bit != 0;
        if held.left.get() == 0 {
            // All tiles were run, but the unit was not released.
            self.close_unit(control);
        }
        if done { Given::Done } else { Given::Torn }
    }

    /// Notes that this participant has claimed a unit of several tiles.
    #[inline]
    fn hold(&self, control: &Control<'_>, unit: usize) {
        // An earlier holder may have run some of its tiles and left.
        let ran = control.ran(unit, self.round);
        self.held.is_on.set(true);
        self.held.unit.set(unit);
        self.held.first.set(control.tiles_of(unit).start);
        self.held.left.set(control.all_of(unit) & !ran);
        self.held.ran.set(ran);
    }

    /// Takes more tiles of the unit to the tile `first`, which was just claimed: those that follow it
    /// without a gap, are below `end`, and satisfy `may_join`. Returns the last one.
    ///
    /// They are released and torn together, by the first one's index.
    #[inline]
    pub(super) fn join(&self, first: usize, end: usize, may_join: impl Fn(usize) -> bool) -> usize {
        let held = &self.held;
        if held.left.get() == 0 {
            return first;
        }
        let at = first + 1 - held.first.get();
        let in_a_row = (u32::from(held.left.get()) >> at).trailing_ones() as usize;
        let more = first + 1..end.min(first + 1 + in_a_row);
        let refused = more.clone().find(|&tile| !may_join(tile));
        let end = refused.unwrap_or(more.end).max(first + 1);
        held.left
            .set(held.left.get() & !(bits(end - first) << (at - 1)));
        end - 1
    }

    /// Releases tiles that were run to their end: the one at `index`, or all of `tiles`, one bit each
    /// from `index` on.
    #[inline]
    pub(super) fn finish(&self, control: &Control<'_>, index: usize, tiles: u16) {
        self.out.set(NONE_OUT);
        let held = &self.held;
        if !held.is_on.get() {
            self.release(control, index, 1);
            return;
        }
        let ran = held.ran.get() | tiles << (index - held.first.get());
        held.ran.set(ran);
        control.note(held.unit.get(), self.round, ran);
        if held.left.get() == 0 {
            self.close_unit(control);
        }
    }

    /// Releases the unit. All of its tiles were handed out.
    #[inline(never)]
    fn close_unit(&self, control: &Control<'_>) {
        let unit = self.held.unit.get();
        self.held.is_on.set(false);
        let ran = self.held.ran.get();
        match ran == control.all_of(unit) {
            true => self.release(control, unit, u64::from(ran.count_ones())),
            // Each missing tile was torn, and its arrays were poisoned.
            false => drop(control.tear(unit, self.me)),
        }
    }

    /// Performs the transition HELD → TORN, after poisoning the arrays that the tile writes. The
    /// other tiles of its unit are run first.
    pub(super) fn tear(&self, control: &Control<'_>, memory: &Memory, index: usize) {
        self.out.set(NONE_OUT);
        control.poison_written(memory);
        match self.held.is_on.get() {
            false => drop(control.tear(index, self.me)),
            true if self.held.left.get() == 0 => self.close_unit(control),
            true => {}
        }
    }

    /// Tears the claimed tile that was forgotten: it can no longer be released, and its rows may be
    /// half-written.
    #[cold]
    fn tear_forgotten(&self, control: &Control<'_>, memory: &Memory) {
        let index = self.out.get();
        if index != NONE_OUT {
            self.tear(control, memory, index);
        }
    }

    /// Gives up the unit of several tiles that this participant holds, if any. No tile of it is
    /// out. Returns `true` if others can claim it now.
    fn let_go(&self, control: &Control<'_>, memory: &Memory) -> bool {
        let held = &self.held;
        if !held.is_on.replace(false) {
            return false;
        }
        let unit = held.unit.get();
        let left = held.left.replace(0);
        // Tiles that were handed out but not run to the end are torn.
        match control.all_of(unit) & !left & !held.ran.get() {
            // The next holder runs the remaining tiles.
            0 => control.reopen(unit, self.round, self.me),
            _ => {
                control.poison_written(memory);
                control.tear(unit, self.me);
                false
            }
        }
    }

    /// Tears the tile that is out, and gives up the unit. Then nothing is held.
    pub(super) fn end(&self, control: &Control<'_>, memory: &Memory) {
        self.tear_forgotten(control, memory);
        self.let_go(control, memory);
        self.count(control);
    }
}
