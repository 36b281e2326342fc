//! The processor of a worker.
//!
//! The scheduler may leave two workers on one processor, while the parent that waits for them is alone
//! on another. Both processors are busy, so it sees nothing to improve, and a call takes as long as
//! with one worker. Workers that spin between calls do not sleep, so they are not placed anew either.

use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::pool::mailbox::Mailbox;

/// The time between two moves. The scheduler decides in between.
const PAUSE: Duration = Duration::from_millis(10);

/// The moves of one worker, which moves itself.
#[derive(Default)]
pub(in crate::pool) struct Placement {
    moved: Cell<Option<Instant>>,
}

impl Placement {
    /// Notes the processor of `worker`, which begins a job. Moves the worker to a processor without a
    /// worker, if one with a smaller number is on this one. The words only tell where the others were
    /// when they began their last jobs.
    pub(in crate::pool) fn look(&self, mailbox: Mailbox<'_>, worker: usize, workers: usize) {
        // Miri has no processors.
        if cfg!(miri) {
            return;
        }
        let here = sched_getcpu();
        mailbox.note_processor(worker, here);
        let shares = (0..worker).any(|other| mailbox.processor(other) == Some(here));
        if shares && !mailbox.is_crowded() {
            self.move_away(mailbox, worker, workers);
        }
    }

    /// Moves this thread to a processor without a worker, if it may use one. The processors that it
    /// may use stay the same.
    #[cold]
    fn move_away(&self, mailbox: Mailbox<'_>, worker: usize, workers: usize) {
        let now = Instant::now();
        if self.moved.get().is_some_and(|moved| now - moved < PAUSE) {
            return;
        }
        self.moved.set(Some(now));
        let Ok(allowed) = sched_getaffinity(None) else {
            return;
        };
        let has_worker = |cpu| (0..workers).any(|other| mailbox.processor(other) == Some(cpu));
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        let Some(free) = usable.find(|&cpu| !has_worker(cpu)) else {
            return;
        };
        let mut only = CpuSet::new();
        only.set(free);
        // The system moves the thread before the first call returns. An error leaves it where it is.
        if sched_setaffinity(None, &only).is_ok() {
            let _ = sched_setaffinity(None, &allowed);
            mailbox.note_processor(worker, free);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Atom;

    #[test]
    fn a_worker_leaves_the_processor_of_another() {
        // In a thread of its own, whose processors nothing else depends on.
        std::thread::spawn(|| {
            let before = sched_getaffinity(None).unwrap();
            let words: Vec<Atom> = (0..Mailbox::words(2)).map(|_| Atom::zero()).collect();
            let mailbox = Mailbox::in_words(&words);
            let placement = Placement::default();
            let mut moves = 0;
            // Another program may move this thread between the two looks.
            for _ in 0..1000 {
                mailbox.note_processor(0, sched_getcpu());
                placement.moved.set(None);
                placement.look(mailbox, 1, 2);
                moves += u32::from(placement.moved.get().is_some());
                let [first, second] = [0, 1].map(|worker| mailbox.processor(worker));
                assert!(before.count() == 1 || first != second);
            }
            assert!(moves > 0);
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_first_worker_stays_and_moves_are_rare() {
        let words: Vec<Atom> = (0..Mailbox::words(2)).map(|_| Atom::zero()).collect();
        let mailbox = Mailbox::in_words(&words);
        let placement = Placement::default();
        mailbox.note_processor(1, sched_getcpu());
        placement.look(mailbox, 0, 2);
        assert_eq!(placement.moved.get(), None);
        let moved = Instant::now() + PAUSE;
        placement.moved.set(Some(moved));
        mailbox.note_processor(0, sched_getcpu());
        placement.look(mailbox, 1, 2);
        assert_eq!(placement.moved.get(), Some(moved));
    }
}
