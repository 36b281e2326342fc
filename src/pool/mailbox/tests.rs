//! Tests of the mailbox's words, and of each side's steps on them.

use std::thread;
use std::time::Instant;

use super::*;
use crate::segment::Segment;
use crate::span::class_of;

/// Longer than any test may take. Only a lost wake-up waits this long.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(1);

/// The first word of the workers, and the words of each worker.
const WORKERS: usize = 96;
const EACH: usize = 58;

fn with(workers: usize, act: impl FnOnce(Mailbox<'_>, &[Atom])) {
    let segment = Segment::in_process().unwrap();
    let memory = segment.memory();
    let bytes = Mailbox::words(workers) as u64 * 8;
    let extent = Extent {
        offset: 64,
        class: class_of(bytes).unwrap(),
    };
    let mailbox = Mailbox::open(memory, extent, workers).unwrap();
    mailbox.clear();
    let words = memory.control(64, Mailbox::words(workers)).unwrap();
    act(mailbox, words);
}

fn value(word: &Atom) -> u64 {
    word.load(Ordering::Relaxed)
}

fn arguments(params_len: u64) -> Arguments {
    Arguments {
        task: 1,
        partition: 2,
        results: 3,
        seed: 4,
        call: 5,
        params_len,
        params: 7,
        flags: 9 << 8 | Arguments::EACH_TILE,
    }
}

fn params() -> ParamWords {
    core::array::from_fn(|at| at as u64 + 10)
}

#[test]
fn an_extent_that_is_large_enough_is_opened() {
    let segment = Segment::in_process().unwrap();
    let of = |bytes| Extent {
        offset: 64,
        class: class_of(bytes).unwrap(),
    };
    assert_eq!(Mailbox::words(0), WORKERS);
    assert_eq!(Mailbox::words(4), WORKERS + 4 * EACH);
    let extent = of(8 * Mailbox::words(4) as u64);
    let most = (extent.size() as usize / 8 - WORKERS) / EACH;
    assert!(Mailbox::open(segment.memory(), extent, most).is_some());
    assert!(Mailbox::open(segment.memory(), extent, most + 1).is_none());
    assert!(Mailbox::open(segment.memory(), extent, 3).is_some());
}

#[test]
fn a_new_pool_has_no_job_and_no_workers() {
    with(2, |mailbox, words| {
        for word in words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        mailbox.clear();
        assert!(words.iter().all(|word| value(word) == 0));
        assert!(!mailbox.job().is_open());
        assert_eq!((mailbox.job().number(), mailbox.events()), (0, 0));
        assert!(!mailbox.is_ready(0) && !mailbox.is_in(0));
    });
}

#[test]
fn a_worker_that_checks_in_has_what_the_parent_has_written() {
    with(2, |mailbox, words| {
        mailbox.arrive(1);
        assert!(mailbox.is_ready(1) && !mailbox.is_ready(0));
        let number = mailbox.open_job(&arguments(17), &params());
        let job = mailbox.job();
        assert_eq!((number, job.number(), job.is_open()), (1, 1, true));
        let written: Vec<u64> = words[64..77].iter().map(value).collect();
        let flags = 9 << 8 | 2;
        assert_eq!(written, [1, 2, 3, 4, 5, 17, 7, flags, 10, 11, 12, 0, 0]);
        let (found, params) = mailbox.check_in(1, job).unwrap();
        assert_eq!(found, arguments(17));
        let mut expected = [0; PARAM_WORDS];
        expected[..3].copy_from_slice(&[10, 11, 12]);
        assert_eq!(params, expected);
        assert!(mailbox.is_in(1) && !mailbox.is_in(0));
        assert_eq!(value(&words[WORKERS + EACH]), 0b011, "ready and in");
        mailbox.check_out(1, Some(1));
        assert_eq!(value(&words[WORKERS + EACH]), 1 << 3 | 0b010);
        assert!(!mailbox.is_in(1) && mailbox.is_ready(1));
        assert!(mailbox.has_served(1, 1) && !mailbox.has_served(0, 1));
    });
}

#[test]
fn parameters_cross_up_to_the_size_of_the_mailbox() {
    with(1, |mailbox, _| {
        for len in [0, 8 * PARAM_WORDS as u64, 1 << 40, u64::MAX] {
            mailbox.open_job(&arguments(len), &params());
            let (_, found) = mailbox.check_in(0, mailbox.job()).unwrap();
            let expected = if len == 0 { [0; PARAM_WORDS] } else { params() };
            assert_eq!(found, expected, "{len}");
            mailbox.check_out(0, None);
        }
    });
}

#[test]
fn fields_of_a_job_are_disjoint() {
    crate::word::testing::assert_disjoint(&[Job::OPEN, Job::ASLEEP, Job::NUMBER]);
}

#[test]
fn flags_are_distinct() {
    let flagged = |flags| Arguments {
        flags,
        ..arguments(0)
    };
    let has = |flags| {
        let arguments = flagged(flags);
        [Arguments::PROFILE, Arguments::EACH_TILE].map(|flag| arguments.has(flag))
    };
    assert_eq!(has(0), [false, false]);
    assert_eq!(has(1), [true, false]);
    assert_eq!(has(2), [false, true]);
    assert_eq!(
        has(7 << 8),
        [false, false],
        "the epoch is in the upper bits"
    );
}

#[test]
fn no_worker_checks_in_to_a_closed_or_earlier_job() {
    with(1, |mailbox, words| {
        mailbox.arrive(0);
        mailbox.open_job(&arguments(0), &params());
        let job = mailbox.job();
        assert!(mailbox.is_open(job));
        mailbox.close_job();
        assert!(!mailbox.job().is_open() && !mailbox.is_open(job));
        assert_eq!(mailbox.job().number(), 1);
        assert_eq!(mailbox.check_in(0, job), None);
        assert!(!mailbox.is_in(0) && mailbox.is_ready(0));
        mailbox.announce();
        assert_eq!(mailbox.check_in(0, job), None, "the next job is open");
        assert!(mailbox.job().is_open() && !mailbox.is_in(0));
        // Checking out without a finished job keeps the number of the last one.
        let job = mailbox.job();
        assert_eq!(job.number(), 2);
        mailbox.check_in(0, job).unwrap();
        mailbox.check_out(0, Some(2));
        mailbox.check_in(0, job).unwrap();
        mailbox.check_out(0, None);
        assert_eq!(value(&words[WORKERS]), 2 << 3 | 0b010);
        mailbox.end();
        assert_eq!(mailbox.job().number(), ENDED);
    });
}

#[test]
fn reset_affects_only_the_dead_worker() {
    with(3, |mailbox, words| {
        for worker in 0..3 {
            mailbox.arrive(worker);
            // The cause in the report: a kernel's panic.
            words[WORKERS + worker * EACH + 3].store(1, Ordering::Relaxed);
            mailbox.note_processor(worker, 5);
        }
        mailbox.reset(1);
        for worker in 0..3 {
            let state = &words[WORKERS + worker * EACH..][..4];
            let expected = if worker == 1 { [0, 0] } else { [0b010, 1] };
            assert_eq!([value(&state[0]), value(&state[3])], expected);
            let processor = if worker == 1 { None } else { Some(5) };
            assert_eq!(mailbox.processor(worker), processor);
        }
    });
}

#[test]
fn wait_event_clears_its_flag() {
    with(1, |mailbox, words| {
        let word = &words[16];
        mailbox.event();
        assert_eq!((mailbox.events(), value(word)), (2, 2));
        // The count has passed 0, so the parent does not sleep.
        mailbox.wait_event(0, LONG);
        assert_eq!(value(word), 2);
        mailbox.wait_event(2, SHORT);
        assert_eq!(value(word), 2);
        // The flag may already be set.
        word.store(3, Ordering::Relaxed);
        assert_eq!(mailbox.events(), 2);
        mailbox.wait_event(2, SHORT);
        assert_eq!(value(word), 2);
    });
}

#[test]
fn a_sleeping_parent_is_woken_by_an_event() {
    with(2, |mailbox, words| {
        let start = Instant::now();
        let steps: [&dyn Fn(); 4] = [
            &|| mailbox.event(),
            &|| mailbox.arrive(1),
            &|| mailbox.check_out(1, None),
            &|| mailbox.check_out(1, Some(1)),
        ];
        for step in steps {
            let seen = mailbox.events();
            thread::scope(|scope| {
                scope.spawn(|| mailbox.wait_event(seen, LONG));
                until(&start, || value(&words[16]) & 1 != 0);
                step();
            });
            assert_eq!(mailbox.events(), seen + 2);
        }
        assert!(start.elapsed() < LONG);
    });
}

#[test]
fn a_sleeping_worker_is_woken_by_a_job() {
    with(1, |mailbox, words| {
        let start = Instant::now();
        let steps: [&dyn Fn(); 3] = [
            &|| assert_eq!(mailbox.open_job(&arguments(0), &params()), 1),
            &|| assert_eq!(mailbox.announce(), 2),
            &|| mailbox.end(),
        ];
        for step in steps {
            let seen = mailbox.job();
            thread::scope(|scope| {
                // A second sleeper finds the flag already set.
                scope.spawn(|| mailbox.sleep(seen, LONG));
                until(&start, || value(&words[0]) & 2 != 0);
                assert!(mailbox.is_open(seen) || !seen.is_open());
                scope.spawn(|| mailbox.sleep(seen, LONG));
                step();
            });
            assert_eq!(value(&words[0]) & 0b11, 1, "open, without the sleep flag");
            // The job word has changed, so the worker does not sleep.
            let now = value(&words[0]);
            mailbox.sleep(seen, LONG);
            assert_eq!(value(&words[0]), now);
        }
        assert!(start.elapsed() < LONG);
    });
}

#[test]
fn a_sleep_ends_at_its_timeout_even_if_the_flag_was_set() {
    with(1, |mailbox, words| {
        let awake = mailbox.job();
        mailbox.sleep(awake, SHORT);
        assert_eq!(value(&words[0]), 2);
        // The job may have been seen before or after the other one slept.
        for seen in [awake, mailbox.job()] {
            let start = Instant::now();
            mailbox.sleep(seen, SHORT);
            assert!(start.elapsed() >= SHORT, "it did sleep");
            assert_eq!(value(&words[0]), 2);
        }
        assert_eq!(mailbox.job().number(), 0);
    });
}

fn until(start: &Instant, ready: impl Fn() -> bool) {
    while !ready() {
        assert!(start.elapsed() < LONG, "the condition did not become true");
        thread::yield_now();
    }
}

#[test]
fn the_barrier_and_what_sleepers_are_told_have_lines_of_their_own() {
    with(1, |mailbox, words| {
        mailbox.barrier().begin();
        mailbox.crowded().store(1, Ordering::Relaxed);
        for (at, word) in words.iter().enumerate() {
            assert_eq!(value(word) != 0, at == 32 || at == 48, "word {at}");
        }
    });
}
