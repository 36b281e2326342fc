//! Where the workers of a call wait for each other: one word.
//!
//! A worker arrives by a compare-and-swap that counts it; the last one to arrive opens the next
//! epoch by the same step. A worker that dies or leaves breaks the barrier: whoever waits, and
//! whoever comes, is told so. Each call begins an epoch of its own, so that a worker that is late
//! from a call that was given up finds that it is not meant.

use core::time::Duration;

use super::spin::Spin;
use crate::sync::{Atom, Ordering};

/// A barrier's word: asleep 1 | broken 1 | arrived 14 | epoch 48.
///
/// An epoch is step 32 | call 16. Both wrap: nobody is so late that it would matter.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    const ASLEEP: u64 = 1;
    const BROKEN: u64 = 2;
    const ARRIVED: u64 = 4;
    const EPOCH: u32 = 16;
    /// The part of an epoch that says which call it is of.
    const CALL: u64 = 0xffff_0000_0000;

    fn epoch(self) -> u64 {
        self.0 >> Self::EPOCH
    }

    fn arrived(self) -> u64 {
        self.0 >> 2 & 0x3fff
    }

    fn is_broken(self) -> bool {
        self.0 & Self::BROKEN != 0
    }

    /// Nobody has arrived in `epoch` yet.
    fn fresh(epoch: u64) -> State {
        State(epoch << Self::EPOCH)
    }

    /// The epoch after `epoch` in the same call.
    fn next(epoch: u64) -> u64 {
        epoch & Self::CALL | epoch.wrapping_add(1) & !Self::CALL
    }

    fn is_of_call(self, base: u64) -> bool {
        (self.epoch() ^ base) & Self::CALL == 0
    }

    /// One more of `workers` has arrived; the last one opens the next epoch.
    #[must_use]
    fn arrive(self, epoch: u64, workers: usize) -> Option<State> {
        if self.epoch() != epoch || self.is_broken() {
            return None;
        }
        Some(match self.arrived() + 1 >= workers as u64 {
            true => State::fresh(Self::next(epoch)),
            false => State(self.0 + Self::ARRIVED),
        })
    }
}

/// How a wait at the barrier ended without all workers having arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// A worker of the call is dead, or through, or the call was given up.
    Left,
    /// Time is up.
    Late,
}

/// The barrier of a pool.
#[derive(Clone, Copy)]
pub(super) struct Barrier<'m> {
    word: &'m Atom,
}

impl<'m> Barrier<'m> {
    pub(super) fn new(word: &'m Atom) -> Barrier<'m> {
        Barrier { word }
    }

    fn state(self) -> State {
        // Acquire: pairs with the Release of every arrival, through the chain of them.
        State(self.word.load(Ordering::Acquire))
    }

    /// Begins a call: the epoch in which nobody has arrived.
    pub(super) fn begin(self) -> u64 {
        let next = |word| {
            let call = (State(word).epoch() & State::CALL).wrapping_add(1 << 32);
            Some(State::fresh(call & State::CALL).0)
        };
        // Relaxed: workers learn of the call, and of its epoch, from the mailbox.
        match self.word.update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok((_, fresh)) => State(fresh).epoch(),
            Err(word) => State(word).epoch(),
        }
    }

    /// Breaks the barrier of the call that began with `base`, for all who wait and all who come.
    pub(super) fn break_up(self, base: u64) {
        let broken = |word| State(word).is_of_call(base).then_some(word | State::BROKEN);
        let _ = self
            .word
            .update(Ordering::Relaxed, Ordering::Relaxed, broken);
        self.word.wake_all();
    }

    /// Waits until all `workers` of the call have arrived in `epoch`. The next epoch.
    ///
    /// Looks after each `look` whether `may_wait` still says so.
    pub(super) fn wait(
        self,
        epoch: u64,
        workers: usize,
        spin: &Spin<'_>,
        look: Duration,
        may_wait: impl Fn() -> bool,
    ) -> Result<u64, Broken> {
        // AcqRel: what came before this worker's arrival happens before all that comes after the
        // epoch's end, in every worker.
        let arrive = |word| State(word).arrive(epoch, workers).map(|state| state.0);
        let arrived = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, arrive);
        let (before, after) = arrived.map_err(|_| Broken::Left)?;
        if State(after).epoch() != epoch {
            if before & State::ASLEEP != 0 {
                self.word.wake_all();
            }
            return Ok(State::next(epoch));
        }
        let next = State::next(epoch);
        let ended = |state: State| match state.epoch() == epoch {
            true => state.is_broken().then_some(Err(Broken::Left)),
            // A later epoch than the next one is of another call.
            false => Some((state.epoch() == next).then_some(next).ok_or(Broken::Left)),
        };
        loop {
            let seen = self.state();
            if let Some(ended) = ended(seen).or_else(|| spin.until(|| ended(self.state()))) {
                return ended;
            }
            if !may_wait() {
                return Err(Broken::Late);
            }
            self.sleep(seen, look);
        }
    }

    fn sleep(self, seen: State, timeout: Duration) {
        let asleep = seen.0 | State::ASLEEP;
        // Relaxed: the word is read again before anything is concluded.
        let marked =
            self.word
                .compare_exchange(seen.0, asleep, Ordering::Relaxed, Ordering::Relaxed);
        if marked.is_ok() {
            self.word.wait(asleep as u32, timeout);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod steps;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_opens_the_next_epoch() {
        let first = State::fresh(7).arrive(7, 3).unwrap();
        assert_eq!((first.epoch(), first.arrived()), (7, 1));
        let second = first.arrive(7, 3).unwrap();
        let third = second.arrive(7, 3).unwrap();
        assert!(third == State::fresh(8));
        assert!(third.arrive(7, 3).is_none(), "late from the last epoch");
    }

    #[test]
    fn calls_do_not_meet() {
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
    fn whoever_comes_to_a_broken_barrier_is_told() {
        let broken = State(State::fresh(1).0 | State::BROKEN);
        assert!(broken.arrive(1, 2).is_none());
        assert!(broken.is_broken());
    }
}
