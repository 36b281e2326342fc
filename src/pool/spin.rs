//! The time to spin before sleeping.

use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

use crate::sync::{Atom, Ordering, spin};

/// A bounded spin that adapts to other programs that compete for the processors.
///
/// Yielding pays while the processors belong to the pool: each turn costs less than a microsecond,
/// and can save waking a sleeper. It is expensive once another program is ready to run: the kernel
/// charges every yield as a whole time slice (some milliseconds), and a process that yields a
/// hundred times gives up its share without having used it. So a yield that takes longer than
/// [`LOST`] ends the spin.
///
/// Only the parent concludes that other programs compete, and tells the workers in a word of the
/// mailbox. A worker cannot tell: with more processes than processors it loses slices to a busy
/// parent, and then yielding is right. A busy parent waits for nothing. A waiting parent needs its
/// workers, from which another program takes slices.
pub(super) struct Spin<'m> {
    /// The first turns, which keep the processor.
    pauses: u32,
    /// Further turns that keep the processor, before those that yield it.
    patience: u32,
    yields: u32,
    /// Not 0 while all processes of the pool sleep instead of yielding. Or [the user's
    /// time](of_user), for which every wait keeps its processor instead of all these turns.
    crowded: &'m Atom,
    /// In the parent: the time slices that it lost lately.
    losses: Option<Cell<Losses>>,
}

/// The time slices that a parent lost lately.
#[derive(Clone, Copy, Default)]
struct Losses {
    count: u32,
    /// Yields since the last lost slice.
    short: u32,
    /// The length of the current pause in yielding, and its end.
    paused: Option<(Duration, Instant)>,
}

/// First turns of a process that shares its processor with the one that it waits for.
const FEW_PAUSES: u32 = 5;

/// A yield that takes longer than this was a time slice of another process.
const LOST: Duration = Duration::from_micros(500);

/// Lost slices before the parent pauses yielding. One or two may go to the system, or to a slow
/// worker.
const PATIENCE: u32 = 3;

/// The first pause in yielding. It doubles with each attempt that loses a slice, so attempts cost a
/// small part of the pool's share.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause in yielding.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// Short yields in a row that show that no program competes.
const ENOUGH: u32 = 200;

/// The longest time that a user may set. The parent looks for dead workers as often.
pub(super) const LONGEST: Duration = Duration::from_millis(10);

/// The state of a spin between two waits, for a value that does not borrow the words.
#[derive(Clone, Copy)]
pub(super) struct SpinState {
    pauses: u32,
    patience: u32,
    yields: u32,
    losses: Option<Losses>,
}

/// The word *crowded* of a pool whose user has set the time to spin: 2 and more. The parent writes it
/// before any worker starts, and nobody changes it, because such a pool does not yield.
pub(super) fn of_user(time: Duration) -> u64 {
    2 + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 2)
}

impl SpinState {
    /// Continues the spin.
    pub(super) fn on(self, crowded: &Atom) -> Spin<'_> {
        Spin {
            pauses: self.pauses,
            patience: self.patience,
            yields: self.yields,
            crowded,
            losses: self.losses.map(Cell::new),
        }
    }
}

impl<'m> Spin<'m> {
    /// Returns the state, which [`SpinState::on`] continues.
    pub(super) fn state(&self) -> SpinState {
        SpinState {
            pauses: self.pauses,
            patience: self.patience,
            yields: self.yields,
            losses: self.losses.as_ref().map(Cell::get),
        }
    }

    /// Creates the spin of a pool's parent. The parent sets `crowded` to tell the workers.
    pub(super) fn of_parent(workers: usize, crowded: &'m Atom) -> Spin<'m> {
        Spin {
            losses: Some(Cell::default()),
            ..Spin::of_worker(workers, crowded)
        }
    }

    /// Creates the spin of one of `workers` workers.
    ///
    /// After the pauses each turn offers the processor to others, because the awaited process may
    /// need it. If each process has its own, about 50 µs of this can save the 100 µs of waking a
    /// sleeper on an idle processor.
    pub(super) fn of_worker(workers: usize, crowded: &'m Atom) -> Spin<'m> {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Spin {
            pauses: spin::PAUSES,
            patience: 0,
            yields: if workers < processors { 200 } else { 100 },
            crowded,
            losses: None,
        }
    }

    /// Returns the spin of a foreign pool. Its workers may be interpreters, which take some 10 µs for
    /// a call. It keeps the processor for about 20 µs, if each process has its own: that costs
    /// less than to sleep and to be woken. Otherwise an awaited process may need this processor, and
    /// the spin offers it almost at once.
    pub(super) fn patient(self, workers: usize) -> Spin<'m> {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let (pauses, patience) = match workers < processors {
            true => (self.pauses, 10 * spin::PAUSES),
            false => (FEW_PAUSES, 0),
        };
        Spin {
            pauses,
            patience,
            ..self
        }
    }

    /// Calls `ready` until it returns a value or the spin ends. In a model that is at once: a
    /// sleeper checks first.
    pub(super) fn until<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        if cfg!(loom) {
            return None;
        }
        if let Some(time) = self.time_of_user() {
            return spin::lasting(time, ready);
        }
        if let Some(found) = spin::pausing_for(self.pauses, &ready) {
            return Some(found);
        }
        let mut before = Instant::now();
        if !self.may_yield(before) {
            return ready();
        }
        if self.patience > 0 {
            if let Some(found) = spin::pausing_for(self.patience, &ready) {
                return Some(found);
            }
            before = Instant::now();
        }
        let kept = || {
            let now = Instant::now();
            let lost = self.note(now - before, now);
            before = now;
            !lost
        };
        spin::yielding(self.yields, &ready, kept).or_else(ready)
    }

    /// Returns the time that the user has set. In a damaged segment it is not longer, either.
    fn time_of_user(&self) -> Option<Duration> {
        // Relaxed: the word was written before the mailbox was published.
        let word = self.crowded.load(Ordering::Relaxed);
        let time = Duration::from_nanos(word.checked_sub(of_user(Duration::ZERO))?);
        Some(time.min(LONGEST))
    }

    /// Returns `true` unless yielding is paused.
    fn may_yield(&self, now: Instant) -> bool {
        match &self.losses {
            Some(losses) => losses.get().paused.is_none_or(|(_, until)| now >= until),
            // Relaxed: the word only affects when a worker sleeps.
            None => self.crowded.load(Ordering::Relaxed) == 0,
        }
    }

    /// Records the time that a yield took. Returns `true` if it lost a time slice.
    fn note(&self, took: Duration, now: Instant) -> bool {
        let lost = took >= LOST;
        let Some(losses) = &self.losses else {
            return lost;
        };
        let mut seen = losses.get();
        if lost {
            (seen.count, seen.short) = (seen.count + 1, 0);
            if seen.count >= PATIENCE {
                let longer = |(pause, _)| LONGEST_PAUSE.min(2 * pause);
                let pause = seen.paused.map_or(FIRST_PAUSE, longer);
                seen.paused = Some((pause, now + pause));
            }
        } else if seen.count > 0 {
            seen.short += 1;
            if seen.short >= ENOUGH {
                seen = Losses::default();
            }
        } else {
            return false;
        }
        losses.set(seen);
        let crowded = u64::from(seen.paused.is_some());
        // Relaxed: see `may_yield`.
        self.crowded.store(crowded, Ordering::Relaxed);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::spin::PAUSES;

    #[test]
    fn each_lost_slice_doubles_the_pause() {
        let crowded = Atom::zero();
        let spin = Spin::of_parent(1, &crowded);
        let now = Instant::now();
        assert!(!spin.note(LOST / 2, now));
        assert!(spin.may_yield(now));
        for _ in 1..PATIENCE {
            assert!(spin.note(LOST, now), "it ends the spin");
            assert!(spin.may_yield(now), "but does not pause yielding");
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(spin.note(LOST, now));
            let (pause, until) = spin.losses.as_ref().unwrap().get().paused.unwrap();
            assert!(!spin.may_yield(until - Duration::from_nanos(1)));
            assert!(spin.may_yield(until));
            assert_eq!(until, now + pause);
            pauses.push(pause);
        }
        assert_eq!(pauses[..3], [20, 40, 80].map(Duration::from_millis));
        assert_eq!(pauses[7], LONGEST_PAUSE);
    }

    #[test]
    fn workers_sleep_while_the_parent_says_so() {
        let crowded = Atom::zero();
        let (parent, worker) = (Spin::of_parent(1, &crowded), Spin::of_worker(1, &crowded));
        let now = Instant::now();
        for _ in 0..PATIENCE {
            assert!(worker.note(LOST, now), "it ends the spin");
        }
        assert!(worker.may_yield(now) && parent.may_yield(now));
        for _ in 0..PATIENCE {
            assert!(parent.note(LOST, now));
        }
        assert!(!worker.may_yield(now));
        for _ in 1..ENOUGH {
            assert!(!parent.note(LOST / 2, now));
        }
        assert!(!worker.may_yield(now));
        assert!(!parent.note(LOST / 2, now));
        assert!(worker.may_yield(now) && parent.may_yield(now));
    }

    #[test]
    fn a_spin_is_longer_where_each_worker_has_a_processor() {
        let crowded = Atom::zero();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let yields = |workers| Spin::of_worker(workers, &crowded).yields;
        assert_eq!(yields(processors - 1), 200, "the parent has one, too");
        assert_eq!([processors, processors + 1].map(yields), [100, 100]);
        assert_eq!(Spin::of_parent(processors, &crowded).yields, 100);
    }

    #[test]
    fn a_shared_processor_is_offered_after_few_pauses() {
        let crowded = Atom::zero();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let spin = |workers| Spin::of_worker(workers, &crowded).patient(workers);
        assert_eq!(
            spin(processors - 1).pauses,
            PAUSES,
            "the parent has one, too"
        );
        crowded.store(1, Ordering::Relaxed);
        for spin in [spin(processors), spin(processors + 1).state().on(&crowded)] {
            let asked = Cell::new(0);
            let ask = || {
                asked.set(asked.get() + 1);
                None::<()>
            };
            assert_eq!(spin.until(ask), None);
            assert_eq!(asked.get(), FEW_PAUSES + 1, "then it would yield");
        }
    }

    #[test]
    fn a_spin_asks_until_its_turns_are_over() {
        let crowded = Atom::zero();
        let spin = Spin::of_worker(usize::MAX, &crowded);
        let asked = Cell::new(0);
        let ask = |gives_at: u32| {
            asked.set(asked.get() + 1);
            (asked.get() == gives_at).then_some(gives_at)
        };
        for at in [1, PAUSES, PAUSES + 1] {
            asked.set(0);
            assert_eq!(spin.until(|| ask(at)), Some(at));
            assert_eq!(asked.get(), at);
        }
        asked.set(0);
        assert_eq!(spin.until(|| ask(0)), None);
        // A lost slice ends it early.
        let turns = asked.get() - PAUSES;
        assert!((2..=101).contains(&turns), "{turns}");
    }

    #[test]
    fn a_time_of_the_user_replaces_all_turns() {
        let crowded = Atom::zero();
        let none = || {
            let spin = Spin::of_worker(1, &crowded);
            spin.until(|| None::<()>)
        };
        let time = Duration::from_millis(3);
        crowded.store(of_user(time), Ordering::Relaxed);
        let start = Instant::now();
        assert_eq!(none(), None);
        assert!(start.elapsed() >= time);
        let spins = [Spin::of_parent(9, &crowded), Spin::of_worker(1, &crowded)];
        for spin in spins {
            assert_eq!(spin.time_of_user(), Some(time));
        }
        crowded.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(Spin::of_worker(1, &crowded).time_of_user(), Some(LONGEST));
        // With a time of 0 a participant asks once.
        crowded.store(of_user(Duration::ZERO), Ordering::Relaxed);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            None::<()>
        };
        assert_eq!(Spin::of_worker(1, &crowded).until(ask), None);
        assert_eq!(asked.get(), 1);
    }

    #[test]
    fn no_yields_during_a_pause() {
        let crowded = Atom::zero();
        crowded.store(1, Ordering::Relaxed);
        let spin = Spin::of_worker(1, &crowded);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            None::<()>
        };
        assert_eq!(spin.until(ask), None);
        assert_eq!(asked.get(), PAUSES + 1, "it sleeps after the pauses");
        crowded.store(0, Ordering::Relaxed);
        assert_eq!(spin.until(|| (asked.get() > 0).then_some(1)), Some(1));
    }
}
