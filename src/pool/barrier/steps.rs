//! Tests of a worker's steps at a barrier, and of the call that each step belongs to.

use std::thread;
use std::time::Instant;

use super::*;

/// Longer than any test may take. Only a lost wake-up waits this long.
const LONG: Duration = Duration::from_secs(120);

fn value(word: &Atom) -> u64 {
    word.load(Ordering::Relaxed)
}

/// Returns a barrier's word: asleep 1 | broken 1 | arrived 14 | step 32 | call 16.
fn state(call: u64, step: u64, arrived: u64, flags: u64) -> u64 {
    flags | arrived << 2 | step << 16 | call << 48
}

/// Calls `act` with a way to wait.
fn patiently<R>(
    look: Duration,
    may_wait: fn() -> bool,
    act: impl FnOnce(&Patience<'_, fn() -> bool>) -> R,
) -> R {
    let crowded = Atom::zero();
    act(&Patience {
        spin: &Spin::of_worker(1, &crowded),
        look,
        may_wait,
    })
}

fn wait(barrier: Barrier<'_>, epoch: u64, workers: usize) -> Result<u64, Broken> {
    patiently(
        LONG,
        || true,
        |how| barrier.wait(epoch, workers, Last::Any, how),
    )
}

/// Waits until a thread sleeps at the word.
fn until_asleep(word: &Atom) {
    let start = Instant::now();
    while value(word) & State::ASLEEP.mask() == 0 {
        assert!(start.elapsed() < LONG, "no thread sleeps");
        thread::yield_now();
    }
}

#[test]
fn each_call_begins_at_step_0_without_arrivals() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    assert_eq!(barrier.begin(), 1 << 32);
    assert_eq!(value(&word), state(1, 0, 0, 0));
    word.store(state(1, 7, 3, 3), Ordering::Relaxed);
    assert_eq!(barrier.begin(), 2 << 32);
    assert_eq!(value(&word), state(2, 0, 0, 0));
    word.store(state(0xffff, 7, 3, 0), Ordering::Relaxed);
    assert_eq!(barrier.begin(), 0, "calls wrap");
    assert_eq!(value(&word), 0);
}

#[test]
fn only_the_barrier_of_the_named_call_breaks() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let first = barrier.begin();
    let second = barrier.begin();
    barrier.break_up(first);
    assert_eq!(
        value(&word),
        state(2, 0, 0, 0),
        "a late worker breaks nothing"
    );
    assert_eq!(wait(barrier, second, 1), Ok(second + 1));
    // `break_up` acts in any step of the call.
    barrier.break_up(second);
    assert_eq!(value(&word), state(2, 1, 0, State::BROKEN.mask()));
    barrier.break_up(second);
    assert_eq!(
        value(&word),
        state(2, 1, 0, State::BROKEN.mask()),
        "it stays broken"
    );
    assert_eq!(wait(barrier, second + 1, 1), Err(Broken::Left));
    let third = barrier.begin();
    assert_eq!(wait(barrier, third, 1), Ok(third + 1));
}

#[test]
fn a_worker_that_may_not_wait_returns_late() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let epoch = barrier.begin();
    let late = patiently(LONG, || false, |how| barrier.wait(epoch, 2, Last::Any, how));
    assert_eq!(late, Err(Broken::Late));
    assert_eq!(value(&word), state(1, 0, 1, 0), "the arrival counts");
    assert_eq!(wait(barrier, epoch, 2), Ok(epoch + 1));
    assert_eq!(
        wait(barrier, epoch, 2),
        Err(Broken::Left),
        "the epoch is over"
    );
}

#[test]
fn a_sleeping_worker_is_woken_by_the_last_arrival() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let epoch = barrier.begin();
    let start = Instant::now();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| wait(barrier, epoch, 2));
        until_asleep(&word);
        assert_eq!(wait(barrier, epoch, 2), Ok(epoch + 1));
        assert_eq!(sleeper.join().unwrap(), Ok(epoch + 1));
    });
    assert_eq!(value(&word), state(1, 1, 0, 0));
    assert!(start.elapsed() < LONG);
}

#[test]
fn breaking_the_barrier_wakes_a_sleeping_worker() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let epoch = barrier.begin();
    let start = Instant::now();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| wait(barrier, epoch, 2));
        until_asleep(&word);
        barrier.break_up(epoch);
        assert_eq!(sleeper.join().unwrap(), Err(Broken::Left));
    });
    assert!(start.elapsed() < LONG);
}

#[test]
fn a_wait_ends_when_the_next_call_begins() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let epoch = barrier.begin();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let brief = Duration::from_millis(1);
            patiently(brief, || true, |how| barrier.wait(epoch, 2, Last::Any, how))
        });
        until_asleep(&word);
        barrier.begin();
        assert_eq!(sleeper.join().unwrap(), Err(Broken::Left));
    });
}

#[test]
fn a_leader_waits_for_the_others_and_lets_them_pass() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    let epoch = barrier.begin();
    let start = Instant::now();
    let follow = || {
        patiently(
            LONG,
            || true,
            |how| barrier.wait(epoch, 3, Last::Leader, how),
        )
    };
    let others_at = |epoch, workers| {
        patiently(
            LONG,
            || true,
            |how| barrier.wait_for_others(epoch, workers, how),
        )
    };
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            others_at(epoch, 3)?;
            assert_eq!(value(&word) & !State::ASLEEP.mask(), state(1, 0, 2, 0));
            wait(barrier, epoch, 3)
        });
        until_asleep(&word);
        let follower = scope.spawn(follow);
        assert_eq!(follow(), Ok(epoch + 1));
        assert_eq!(follower.join().unwrap(), Ok(epoch + 1));
        assert_eq!(leader.join().unwrap(), Ok(epoch + 1));
    });
    assert!(start.elapsed() < LONG);
    assert_eq!(others_at(epoch, 3), Err(Broken::Left), "the epoch is over");
    assert_eq!(
        others_at(epoch + 1, 1),
        Ok(()),
        "alone, it waits for nobody"
    );
    barrier.break_up(epoch);
    assert_eq!(others_at(epoch + 1, 1), Err(Broken::Left));
}

#[test]
fn a_second_sleeper_keeps_the_flag_of_the_first() {
    let word = Atom::zero();
    let barrier = Barrier::new(&word);
    word.store(state(1, 0, 2, State::ASLEEP.mask()), Ordering::Relaxed);
    barrier.sleep(State(value(&word)), Duration::from_millis(1));
    assert_eq!(value(&word), state(1, 0, 2, State::ASLEEP.mask()));
}
