//! The barrier at which the workers of a call wait for each other: one word.
//!
//! A worker arrives by a compare-and-swap that counts it; that of the last arrival opens the next
//! epoch. A worker that dies or leaves breaks the barrier: present and later waiters get an error.
//! Each call begins an epoch of its own, so late workers of an abandoned call change nothing.

use core::time::Duration;

use super::spin::Spin;
use crate::sync::{Atom, Ordering};
use crate::word::{Field, word_type};

word_type! {
    /// A barrier's word: asleep 1 | broken 1 | arrived 14 | epoch 48.
    ///
    /// An epoch is step 32 | call 16. Both wrap, but no worker is late enough to notice.
    State
}

impl State {
    const ASLEEP: Field = Field::first(1);
    const BROKEN: Field = Self::ASLEEP.then(1);
    const ARRIVED: Field = Self::BROKEN.then(14);
    const EPOCH: Field = Self::ARRIVED.then(48);
    /// The fields of an epoch.
    const STEP: Field = Field::first(32);
    const CALL: Field = Self::STEP.then(16);

    fn epoch(self) -> u64 {
        Self::EPOCH.get(self.0)
    }

    fn arrived(self) -> u64 {
        Self::ARRIVED.get(self.0)
    }

    fn is_broken(self) -> bool {
        Self::BROKEN.get(self.0) == 1
    }

    fn is_awaited(self) -> bool {
        Self::ASLEEP.get(self.0) == 1
    }

    fn broken(self) -> State {
        State(self.0 | Self::BROKEN.mask())
    }

    /// Returns the state of `epoch` before any arrival.
    fn fresh(epoch: u64) -> State {
        State(Self::EPOCH.set(0, epoch))
    }

    /// Returns the epoch after `epoch` in the same call.
    fn next(epoch: u64) -> u64 {
        Self::STEP.set(epoch, epoch.wrapping_add(1))
    }

    /// Returns the first epoch of the call after the one of `epoch`.
    fn next_call(epoch: u64) -> u64 {
        Self::CALL.set(0, Self::CALL.get(epoch).wrapping_add(1))
    }

    fn is_of_call(self, base: u64) -> bool {
        Self::CALL.get(self.epoch()) == Self::CALL.get(base)
    }

    /// Counts one of `workers` arrivals. The last one opens the next epoch. Returns `None` if the
    /// barrier is broken or in another epoch.
    #[must_use]
    fn arrive(self, epoch: u64, workers: usize) -> Option<State> {
        if self.epoch() != epoch || self.is_broken() {
            return None;
        }
        Some(match self.arrived() + 1 >= workers as u64 {
            true => State::fresh(Self::next(epoch)),
            false => State(Self::ARRIVED.set(self.0, self.arrived() + 1)),
        })
    }
}

/// The reasons for a wait that ends early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// A worker of the call is dead or has returned, or the call was abandoned.
    Left,
    /// The waiter may not wait any longer.
    Late,
}

/// The worker that arrives last at a barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Last {
    Any,
    /// The one that [waits for the others](Barrier::wait_for_others) first.
    Leader,
}

/// The way in which a worker waits.
pub(super) struct Patience<'a, F> {
    pub(super) spin: &'a Spin<'a>,
    /// The longest sleep.
    pub(super) look: Duration,
    /// Asked before each sleep. The wait gives up at `false`.
    pub(super) may_wait: F,
}

/// The barrier of a pool.
#[derive(Clone, Copy)]
pub(super) struct Barrier<'m> {
    word: &'m Atom<State>,
}

impl<'m> Barrier<'m> {
    pub(super) fn new(word: &'m Atom) -> Barrier<'m> {
        Barrier { word: word.typed() }
    }

    fn state(self) -> State {
        // Acquire: pairs with the Release of every arrival, through the chain of them.
        self.word.load(Ordering::Acquire)
    }

    /// Begins a call. Returns its first epoch, without arrivals.
    pub(super) fn begin(self) -> u64 {
        let next = |state: State| Some(State::fresh(State::next_call(state.epoch())));
        // Relaxed: workers learn the call and its epoch from the mailbox.
        match self.word.update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok((_, fresh)) => fresh.epoch(),
            Err(state) => state.epoch(),
        }
    }

    /// Breaks the barrier of the call that began with `base`. Present and later waiters fail.
    pub(super) fn break_up(self, base: u64) {
        let broken = |state: State| state.is_of_call(base).then(|| state.broken());
        let _ = self
            .word
            .update(Ordering::Relaxed, Ordering::Relaxed, broken);
        self.word.wake_all();
    }

    /// Arrives, and waits until all `workers` of the call have arrived in `epoch`. Returns the next
    /// epoch.
    pub(super) fn wait(
        self,
        epoch: u64,
        workers: usize,
        last: Last,
        patience: &Patience<'_, impl Fn() -> bool>,
    ) -> Result<u64, Broken> {
        // AcqRel: everything before this arrival happens before everything after the epoch's end,
        // in every worker.
        let arrive = |state: State| state.arrive(epoch, workers);
        let arrived = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, arrive);
        let (before, after) = arrived.map_err(|_| Broken::Left)?;
        if after.epoch() != epoch {
            if before.is_awaited() {
                self.word.wake_all();
            }
            return Ok(State::next(epoch));
        }
        let leader_is_missing = after.arrived() + 1 == workers as u64;
        if last == Last::Leader && leader_is_missing && after.is_awaited() {
            self.word.wake_all();
        }
        let next = State::next(epoch);
        let ended = |state: State| match state.epoch() == epoch {
            true => state.is_broken().then_some(Err(Broken::Left)),
            // An epoch other than the next belongs to another call.
            false => Some((state.epoch() == next).then_some(next).ok_or(Broken::Left)),
        };
        self.until(ended, patience)
    }

    /// Waits until all other `workers` of the call have arrived in `epoch`. Then the caller, their
    /// leader, is the only one that has not, and nobody passes before it [arrives](Barrier::wait).
    pub(super) fn wait_for_others(
        self,
        epoch: u64,
        workers: usize,
        patience: &Patience<'_, impl Fn() -> bool>,
    ) -> Result<(), Broken> {
        let others = workers as u64 - 1;
        let ended = |state: State| match state.epoch() == epoch && !state.is_broken() {
            true => (state.arrived() >= others).then_some(Ok(())),
            false => Some(Err(Broken::Left)),
        };
        self.until(ended, patience)
    }

    fn until<T>(
        self,
        ended: impl Fn(State) -> Option<Result<T, Broken>>,
        patience: &Patience<'_, impl Fn() -> bool>,
    ) -> Result<T, Broken> {
        loop {
            let seen = self.state();
            let spin = || patience.spin.until(|| ended(self.state()));
            if let Some(ended) = ended(seen).or_else(spin) {
                return ended;
            }
            if !(patience.may_wait)() {
                return Err(Broken::Late);
            }
            self.sleep(seen, patience.look);
        }
    }

    /// Sleeps while the word is `seen`, at most for `timeout`. Returns at once if another worker
    /// has set the flag meanwhile, unlike [`park`](crate::sync::park::park): the caller looks
    /// again.
    fn sleep(self, seen: State, timeout: Duration) {
        let asleep = State(seen.0 | State::ASLEEP.mask());
        // Relaxed: `wait` reads the word again.
        let marked = self
            .word
            .compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed);
        if marked.is_ok() {
            self.word.wait(asleep.0 as u32, timeout);
        }
    }
}

#[cfg(test)]
mod steps;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::testing::assert_disjoint;

    #[test]
    fn the_last_arrival_opens_the_next_epoch() {
        let first = State::fresh(7).arrive(7, 3).unwrap();
        assert_eq!((first.epoch(), first.arrived()), (7, 1));
        let second = first.arrive(7, 3).unwrap();
        let third = second.arrive(7, 3).unwrap();
        assert!(third == State::fresh(8));
        assert!(third.arrive(7, 3).is_none(), "its epoch is over");
    }

    #[test]
    fn steps_and_calls_use_separate_bits() {
        let last_step = 3 << 32 | 0xffff_ffff;
        assert_eq!(
            State::next(last_step),
            3 << 32,
            "steps wrap within the call"
        );
        assert!(State::fresh(last_step).is_of_call(3 << 32));
        assert!(!State::fresh(4 << 32).is_of_call(3 << 32));
    }

    #[test]
    fn fields_are_disjoint() {
        assert_disjoint(&[State::ASLEEP, State::BROKEN, State::ARRIVED, State::EPOCH]);
        assert_disjoint(&[State::STEP, State::CALL]);
        assert_eq!(State::EPOCH.max(), State::STEP.mask() | State::CALL.mask());
    }

    #[test]
    fn a_broken_barrier_admits_no_arrival() {
        let broken = State::fresh(1).broken();
        assert!(broken.arrive(1, 2).is_none());
        assert!(broken.is_broken());
    }
}
