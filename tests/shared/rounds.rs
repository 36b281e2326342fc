//! Partitions that several threads of a process use with one seat: rounds, waits, and what becomes
//! of values that a thread drops.

#![expect(
    clippy::disallowed_types,
    reason = "the flags of the test are no words of the segment"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ndarray::Axis;
use ndshm::error::{LeaseError, PartitionError, RoundError};
use ndshm::partition::{
    AccessMode, Claimed, Entered, OwnedMember, OwnedPartition, OwnedRound, TilePart, TileToken,
    UntypedGroup,
};
use ndshm::{Grid, HandleTable, PartitionHandle, SharedTable, TableAccess};

use crate::support::{Child, DEADLINE, Pipe, die, sleep_for_ever};
use crate::threads::{Vector, assert_clean, is_busy, segment};

const NOW: Duration = Duration::ZERO;
/// A nap in which another thread falls asleep in its wait.
const NAP: Duration = Duration::from_millis(50);

type Name = PartitionHandle<UntypedGroup>;

/// Makes a vector of zeros, and a partition of it in tiles of one element.
fn ground(table: &SharedTable, len: usize) -> (Vector, OwnedPartition) {
    let x = table.zeros(len).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    (x, table.partition_untyped(group, &grid).unwrap())
}

fn enter(tiles: &mut OwnedPartition, table: &impl TableAccess, after: u64) -> OwnedMember {
    match tiles.enter_next(table, after, DEADLINE).unwrap() {
        Entered::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

/// Adds one to the element of a claimed tile.
fn add(member: &mut OwnedMember, table: &impl TableAccess, token: TileToken) {
    let first = member.parts(table, token).unwrap()[0].first();
    let first = first.cast::<u64>();
    // SAFETY: the tile is claimed, and has one `u64`.
    let value = unsafe { first.read() };
    // SAFETY: as above, and the part is writable.
    unsafe { first.write(value + 1) };
}

/// Runs each tile that can be claimed. Returns their number.
fn work(member: &mut OwnedMember, table: &impl TableAccess) -> usize {
    let mut done = 0;
    while let Some(token) = member.claim(table).unwrap() {
        add(member, table, token);
        member.done(table, token).unwrap();
        done += 1;
    }
    done
}

/// Runs the tiles of each round until the partition is freed. Returns the number of the tiles.
fn serve(table: &impl TableAccess, mut tiles: OwnedPartition) -> usize {
    let (mut last, mut done) = (0, 0);
    loop {
        last = match tiles.enter_next(table, last, DEADLINE).unwrap() {
            Entered::Member(mut member) => {
                done += work(&mut member, table);
                let round = member.round();
                match round % 2 {
                    0 => member.leave(table).unwrap(),
                    _ => drop(member),
                }
                round
            }
            Entered::Over { round } => round,
            _ => return done,
        };
    }
}

fn finish(round: &mut OwnedRound, table: &SharedTable) {
    let start = Instant::now();
    while !round.try_finish(table).unwrap() {
        assert!(start.elapsed() < DEADLINE, "a tile is held");
        thread::yield_now();
    }
}

/// Opens a partition, or returns `None` if it was freed.
fn open(table: &SharedTable, name: Name) -> Option<OwnedPartition> {
    match table.open_untyped(name) {
        Ok(tiles) => Some(tiles),
        Err(PartitionError::Freed { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Compiles only for types that may be sent to another thread.
fn assert_send<T: Send + 'static>() {}

/// Four threads with one seat, and a participant of its own, run all rounds. Each tile is run once in
/// each round, and nobody can write the array while a participant is in its round.
pub fn threads_share_rounds_through_one_seat() {
    const ROUNDS: u64 = 200;
    assert_send::<OwnedPartition>();
    assert_send::<OwnedRound>();
    assert_send::<OwnedMember>();
    assert_send::<TileToken>();
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    // 17 tiles are claimed one by one, 5,000 tiles by several.
    for (len, rounds) in [(17, ROUNDS), (5000, 5)] {
        let (x, mut tiles) = ground(&table, len);
        let name = tiles.handle();
        let other = HandleTable::join(&segment).unwrap();
        let done = thread::scope(|scope| {
            let mut threads: Vec<_> = (0..4)
                .map(|_| {
                    let table = table.clone();
                    let life = move || open(&table, name).map_or(0, |tiles| serve(&table, tiles));
                    scope.spawn(life)
                })
                .collect();
            let theirs = other.open_untyped(name).unwrap();
            threads.push(scope.spawn(move || serve(&other, theirs)));
            for turn in 1..=rounds {
                let start = Instant::now();
                let mut round = loop {
                    match tiles.begin(&table) {
                        Ok(round) => break round,
                        // A participant of the last round has not left.
                        Err(RoundError::Lease(LeaseError::Busy { .. })) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                    assert!(start.elapsed() < DEADLINE, "a participant has not left");
                };
                assert_eq!(round.number(), turn);
                finish(&mut round, &table);
                let sum = table.read(x).unwrap().sum();
                assert_eq!(sum, turn * len as u64, "each tile once");
            }
            tiles.free(&table).unwrap();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(done as u64, rounds * len as u64);
        table.free(x).unwrap();
    }
    table.reap().unwrap();
    drop(table);
    assert_clean(&segment, 0);
}

/// A thread waits for a round, and then for its end. Another opens the round, runs its tiles and ends
/// it meanwhile, with the same table.
pub fn a_waiting_thread_leaves_the_table_to_others() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let (x, mut tiles) = ground(&table, 8);
    let name = tiles.handle();
    let (woken, seen) = mpsc::channel();
    thread::scope(|scope| {
        let (table, woken) = (&table, woken);
        let waiting = scope.spawn(move || {
            let mut tiles = table.open_untyped(name).unwrap();
            let member = enter(&mut tiles, table, 0);
            woken.send(1).unwrap();
            member.leave(table).unwrap();
            let outcome = tiles.wait_finished(table, 1, DEADLINE);
            woken.send(2).unwrap();
            outcome
        });
        thread::sleep(NAP);
        assert_is_unlocked(table);
        let start = Instant::now();
        let mut round = tiles.begin(table).unwrap();
        assert_eq!(seen.recv_timeout(DEADLINE), Ok(1));
        thread::sleep(NAP);
        assert_is_unlocked(table);
        let mut member = enter(&mut tiles, table, 0);
        assert_eq!(work(&mut member, table), 8);
        let y = table.from_elem(3, 1u64).unwrap();
        table.free(y).unwrap();
        assert!(!waiting.is_finished(), "the round is not over");
        member.leave(table).unwrap();
        assert!(round.try_finish(table).unwrap());
        assert_eq!(seen.recv_timeout(DEADLINE), Ok(2));
        assert!(start.elapsed() < DEADLINE / 4, "it waited for the lock");
        waiting.join().unwrap().unwrap();
        // The end of the round is visible to the thread that has waited.
        assert_eq!(table.read(x).unwrap().sum(), 8);
    });
    tiles.free(&table).unwrap();
    drop(table);
    assert_clean(&segment, 0);
}

/// Asserts that calls do not wait for the lock of a thread that sleeps: it would have the lock for
/// 20 ms at a time.
fn assert_is_unlocked(table: &SharedTable) {
    let mut times: Vec<Duration> = (0..41)
        .map(|_| {
            thread::sleep(Duration::from_millis(2));
            let start = Instant::now();
            table.seat().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[20] < Duration::from_millis(5), "{times:?}");
}

/// Returns how often this thread has gone to sleep, and its processor time.
fn usage() -> (i64, Duration) {
    // SAFETY: all bit patterns are values of the type.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a place to write to.
    let outcome = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    assert_eq!(outcome, 0);
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    (usage.ru_nvcsw, time(usage.ru_utime) + time(usage.ru_stime))
}

/// A call without a timeout does not sleep, and one with a timeout sleeps instead of spinning. Both
/// return in time, with the same errors as those of a handle table.
pub fn waits_sleep_but_not_without_a_timeout() {
    const CALLS: u32 = 500;
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let (_x, mut tiles) = ground(&table, 4);
    let is_not_opened = |tiles: &mut OwnedPartition, after, timeout| {
        let refused = tiles.enter_next(&table, after, timeout);
        matches!(refused, Err(RoundError::NotOpened { after: a, waited }) if a == after && waited == timeout)
    };
    let is_too_late = |tiles: &mut OwnedPartition, timeout| {
        let refused = tiles.wait_finished(&table, 1, timeout);
        matches!(refused, Err(RoundError::Deadline { round: 1, tiles: 4, waited, .. }) if waited == timeout)
    };
    let round = tiles.begin(&table).unwrap();
    let (slept, start) = (usage().0, Instant::now());
    for _ in 0..CALLS {
        assert!(is_not_opened(&mut tiles, 1, NOW));
        assert!(is_too_late(&mut tiles, NOW));
    }
    let slept = usage().0 - slept;
    assert!(slept < i64::from(CALLS) / 10, "slept {slept} times");
    assert!(start.elapsed() < DEADLINE / 4);

    let (before, start) = (usage().1, Instant::now());
    let timeout = Duration::from_millis(400);
    assert!(is_not_opened(&mut tiles, 1, timeout));
    assert!(is_too_late(&mut tiles, timeout));
    let waited = start.elapsed();
    assert!(waited >= 2 * timeout && waited < DEADLINE / 4, "{waited:?}");
    let used = usage().1 - before;
    assert!(
        used < timeout / 2,
        "the waits used the processor for {used:?}"
    );
    round.give_up(&table).unwrap();
    assert!(matches!(
        tiles.wait_finished(&table, 1, NOW),
        Err(RoundError::GivenUp { round: 1 })
    ));
    let mut theirs = table.open_untyped(tiles.handle()).unwrap();
    tiles.free(&table).unwrap();
    assert!(matches!(
        theirs.enter_next(&table, 1, NOW),
        Ok(Entered::Freed)
    ));
}

/// One of two threads leaves a round that its opener has given up, while the other writes its tile.
/// The array stays closed until the other leaves, too. The same with the opener's seat.
pub fn one_thread_leaves_while_another_writes() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let opener = HandleTable::join(&segment).unwrap();
    let x: Vector = table.zeros(4).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    let mut theirs = opener.partition_untyped(group.clone(), &grid).unwrap();
    let mut ours = table.partition_untyped(group, &grid).unwrap();
    for (turn, own_round, by_drop) in [
        (0, false, false),
        (1, false, true),
        (2, true, false),
        (3, true, true),
    ] {
        let (name, after) = match own_round {
            false => (theirs.handle(), turn),
            true => (ours.handle(), turn - 2),
        };
        let round = match own_round {
            false => theirs.begin(&opener).unwrap(),
            true => ours.begin(&table).unwrap(),
        };
        let (claimed, is_claimed) = mpsc::channel();
        let (leave, has_left) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let table = &table;
            // Dropped at the end of this thread's part, also by a panic.
            let leave = leave;
            let writing = scope.spawn(move || {
                let mut tiles = table.open_untyped(name).unwrap();
                let mut member = enter(&mut tiles, table, after);
                let token = member.claim(table).unwrap().unwrap();
                let first = member.parts(table, token).unwrap()[0].first();
                claimed.send(()).unwrap();
                let _ = has_left.recv_timeout(DEADLINE);
                // SAFETY: the tile is claimed, and has one `u64`.
                unsafe { first.cast::<u64>().write(100 + turn) };
                member.done(table, token).unwrap();
                member.leave(table).unwrap();
            });
            let mut tiles = table.open_untyped(name).unwrap();
            let mut member = enter(&mut tiles, table, after);
            is_claimed.recv_timeout(DEADLINE).unwrap();
            let second = member.claim(table).unwrap().unwrap();
            member.done(table, second).unwrap();
            match own_round {
                false => round.give_up(&opener).unwrap(),
                true => round.give_up(table).unwrap(),
            }
            match by_drop {
                false => member.leave(table).unwrap(),
                true => drop(member),
            }
            // Releases what the drop has left.
            table.reap().unwrap();
            let is_closed = |refused: Result<(), LeaseError>| {
                assert!(
                    matches!(refused, Err(LeaseError::Busy { .. })),
                    "{turn}: {refused:?}"
                )
            };
            is_closed(opener.write(x).map(drop));
            is_closed(table.write(x).map(drop));
            let refused = theirs.begin(&opener).unwrap_err();
            assert!(
                matches!(refused, RoundError::Lease(LeaseError::Busy { .. })),
                "{refused}"
            );
            drop(leave);
            writing.join().unwrap();
        });
        let mut free = opener.write(x).unwrap();
        assert!(free.iter().any(|&value| value == 100 + turn));
        free.fill(0);
    }
    ours.free(&table).unwrap();
    theirs.free(&opener).unwrap();
    drop((table, opener));
    assert_clean(&segment, 0);
}

/// Threads panic with a tile, with a round and with a partition. The tile is torn and its array
/// poisoned; no other thread is locked out.
pub fn panics_tear_the_tile_and_lock_nobody_out() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let (x, mut tiles) = ground(&table, 4);
    let name = tiles.handle();
    let mut round = tiles.begin(&table).unwrap();
    let panicked = thread::scope(|scope| {
        let life = || {
            let mut tiles = table.open_untyped(name).unwrap();
            let mut member = enter(&mut tiles, &table, 0);
            let token = member.claim(&table).unwrap().unwrap();
            add(&mut member, &table, token);
            stop();
        };
        scope.spawn(life).join()
    });
    assert!(panicked.is_err());
    let mut member = enter(&mut tiles, &table, 0);
    assert!(matches!(member.claim_at(&table, 0), Ok(Claimed::Torn)));
    assert_eq!(work(&mut member, &table), 3);
    member.leave(&table).unwrap();
    let torn = round.try_finish(&table).unwrap_err();
    assert!(
        matches!(&torn, RoundError::Torn { tiles, .. } if tiles == &[0]),
        "{torn}"
    );
    assert!(matches!(
        tiles.wait_finished(&table, 1, NOW),
        Err(RoundError::Torn { .. })
    ));
    assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    table.recover(x, |mut x| x.fill(0)).unwrap();

    let round = tiles.begin(&table).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _values = (tiles, round);
        stop();
    }));
    assert!(unwound.is_err());
    // The drop has closed the round; the next call releases its arrays.
    assert!(is_busy(&table.write(x)));
    table.reap().unwrap();
    table.write(x).unwrap().fill(1);
    assert!(matches!(
        table.open_untyped(name),
        Err(PartitionError::Freed { .. })
    ));
    table.free(x).unwrap();
    drop(table);
    assert_clean(&segment, 0);
}

/// Ends the thread's work by a panic, without its message.
fn stop() -> ! {
    std::panic::resume_unwind(Box::new(()))
}

/// Threads drop values of others at any moment, while all use the table. Nothing leaks.
pub fn values_are_dropped_by_any_thread() {
    const TURNS: usize = 300;
    #[expect(dead_code, reason = "the values are dropped")]
    enum Dropped {
        Member(OwnedMember),
        Round(OwnedRound),
        Partition(OwnedPartition),
    }
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let (sender, receiver) = mpsc::channel::<Dropped>();
    let torn = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(move || receiver.into_iter().for_each(drop));
        for number in 0..3 {
            let (table, torn, sender) = (&table, &torn, sender.clone());
            scope.spawn(move || {
                let (x, mut tiles) = ground(table, 3);
                let mut last = 0;
                for turn in number..number + TURNS {
                    let start = Instant::now();
                    let mut round = loop {
                        match tiles.begin(table) {
                            Ok(round) => break round,
                            // The values of the turn before are not dropped yet.
                            Err(RoundError::Running { .. } | RoundError::Lease(_)) => {
                                table.reap().unwrap();
                                let _ = table.clear_poison(x);
                                thread::yield_now();
                            }
                            Err(error) => panic!("{error}"),
                        }
                        assert!(start.elapsed() < DEADLINE, "a dropped round is open");
                    };
                    let mut member = enter(&mut tiles, table, last);
                    last = round.number();
                    let token = member.claim(table).unwrap().unwrap();
                    match turn % 4 {
                        0 => sender.send(Dropped::Member(member)).unwrap(),
                        1 => {
                            sender.send(Dropped::Round(round)).unwrap();
                            member.done(table, token).unwrap();
                            member.leave(table).unwrap();
                            continue;
                        }
                        2 => {
                            member.done(table, token).unwrap();
                            sender.send(Dropped::Member(member)).unwrap();
                        }
                        _ => {
                            let next = table.open_untyped(tiles.handle()).unwrap();
                            sender.send(Dropped::Partition(next)).unwrap();
                            member.done(table, token).unwrap();
                            member.leave(table).unwrap();
                        }
                    }
                    let mut second = enter(&mut tiles, table, last - 1);
                    work(&mut second, table);
                    second.leave(table).unwrap();
                    let start = Instant::now();
                    loop {
                        match round.try_finish(table) {
                            Ok(true) => break,
                            Ok(false) => thread::yield_now(),
                            Err(RoundError::Torn { .. }) => {
                                torn.fetch_add(1, Ordering::Relaxed);
                                table.clear_poison(x).unwrap();
                                break;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        assert!(start.elapsed() < DEADLINE, "a dropped tile is held");
                    }
                }
                sender.send(Dropped::Partition(tiles)).unwrap();
                table.free(x).unwrap();
            });
        }
        drop(sender);
    });
    assert_eq!(torn.load(Ordering::Relaxed), 3 * TURNS / 4);
    table.reap().unwrap();
    assert_eq!(table.arrays().count(), 0);
    let found = HandleTable::join(&segment).unwrap().verify().unwrap();
    assert!(found.is_clean() && found.readers == 0, "{found}");
    drop(table);
    assert_clean(&segment, 0);
}

/// One thread checks the segment all the time. Another takes and releases a lease of an array that
/// the check leases, too: a partition.
pub fn checks_release_no_lease_of_another_thread() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let other = HandleTable::join(&segment).unwrap();
    let x: Vector = other.zeros(4).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    let tiles = other.partition_untyped(group, &grid).unwrap();
    let name = tiles.handle();
    let readers = || other.verify().unwrap().readers;
    let [without, with] = {
        let without = readers();
        let _held = table.open_untyped(name).unwrap();
        [without, readers()]
    };
    assert!(without < with, "an open partition is leased");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let found = table.verify().unwrap();
                assert!(found.is_clean(), "{found}");
            }
        });
        let lost = (0..2000).filter(|_| {
            let _held = table.open_untyped(name).unwrap();
            readers() < with
        });
        let lost = lost.count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(lost, 0, "leases");
    });
    tiles.free(&other).unwrap();
    other.free(x).unwrap();
    drop((table, other));
    assert_clean(&segment, 0);
}

/// Values belong to one table: to the handle table that made them, and to the shared table that is
/// made of it. Other tables are refused, also one of the same process and segment.
pub fn values_are_used_with_their_table() {
    let segment = segment();
    let single = HandleTable::join(&segment).unwrap();
    let x: Vector = single.zeros(2).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    let mut tiles = single.partition_untyped(group, &grid).unwrap();
    let mut round = tiles.begin(&single).unwrap();
    let mut member = enter(&mut tiles, &single, 0);
    let token = member.claim(&single).unwrap().unwrap();

    let table = SharedTable::new(single);
    let other = SharedTable::of(&segment).unwrap();
    let refused = member.done(&other, token).unwrap_err();
    assert!(
        refused.to_string().contains("pass the table that made it"),
        "{refused}"
    );
    let is_not_held = |refused| matches!(refused, Err(RoundError::NotHeld { .. }));
    assert!(is_not_held(round.try_finish(&other).map(drop)));
    assert!(is_not_held(tiles.progress(&other).map(drop)));
    assert!(is_not_held(tiles.enter_next(&other, 0, DEADLINE).map(drop)));
    assert!(is_not_held(tiles.wait_finished(&other, 1, DEADLINE)));
    add(&mut member, &table, token);
    assert_eq!(member.range(&table, token).unwrap(), 0..1);
    member.done(&table, token).unwrap();
    let next = member.claim(&table).unwrap().unwrap();
    member.tear(&table, next).unwrap();
    member.leave(&table).unwrap();
    assert!(matches!(
        round.try_finish(&table),
        Err(RoundError::Torn { .. })
    ));
    table.recover(x, |mut x| x.fill(0)).unwrap();

    // The table leaves, and another takes its seat: the values are nobody's.
    let mut member = {
        let _round = tiles.begin(&table).unwrap();
        enter(&mut tiles, &table, 1)
    };
    let _ = member.claim(&table).unwrap();
    drop(table);
    let next = SharedTable::new(HandleTable::join(&segment).unwrap());
    assert!(is_not_held(member.leave(&next)));
    assert!(is_not_held(tiles.begin(&next).map(drop)));
    drop((tiles, other, next));
    assert_clean(&segment, 0);
}

/// Threads run rounds and drop values while the process forks. A child uses the table at once, and
/// its copies of the parent's values are refused and do nothing.
pub fn forks_at_any_moment_of_a_round() {
    let options = ndshm::Segment::options().capacity(32 << 20).seats(8);
    let segment = options.anonymous().unwrap();
    let table = SharedTable::of(&segment).unwrap();
    let (x, mut tiles) = ground(&table, 4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    one_round(table);
                }
            });
        }
        for turn in 0..100u64 {
            let mut round = Some(tiles.begin(&table).unwrap());
            let mut member = Some(enter(&mut tiles, &table, turn));
            let token = member.as_mut().unwrap().claim(&table).unwrap().unwrap();
            let child = Child::fork(|| {
                let (mut member, mut round) = (member.take().unwrap(), round.take().unwrap());
                if turn % 3 == 0 {
                    // Without a seat of the child's own.
                    drop((member, round));
                    return one_round(&table);
                }
                if turn % 3 == 1 {
                    table.after_fork().unwrap();
                }
                let is_forked = |refused| matches!(refused, Err(RoundError::Forked));
                assert!(is_forked(member.done(&table, token)));
                assert!(is_forked(member.parts(&table, token).map(drop)));
                assert!(is_forked(member.leave(&table)));
                assert!(is_forked(round.try_finish(&table).map(drop)));
                assert!(is_forked(round.give_up(&table)));
                assert!(is_forked(tiles.begin(&table).map(drop)));
                assert!(is_forked(tiles.enter_next(&table, 0, DEADLINE).map(drop)));
                assert!(is_forked(tiles.wait_finished(&table, turn + 1, DEADLINE)));
                // By its handle the child takes part in the parent's round.
                let mut own = table.open_untyped(tiles.handle()).unwrap();
                let mut part = enter(&mut own, &table, turn);
                assert!(
                    matches!(part.claim_at(&table, token.tile()), Ok(Claimed::Held { pid }) if pid != std::process::id())
                );
                work(&mut part, &table);
                part.leave(&table).unwrap();
                one_round(&table);
            });
            let status = child.wait_within(DEADLINE).expect("the child hangs");
            assert!(status.success(), "turn {turn}: {status}");
            let (mut member, mut round) = (member.unwrap(), round.unwrap());
            add(&mut member, &table, token);
            member.done(&table, token).unwrap();
            work(&mut member, &table);
            member.leave(&table).unwrap();
            assert!(round.try_finish(&table).unwrap(), "a tile was lost");
            table.reap().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(table.read(x).unwrap().sum(), 400);
    tiles.free(&table).unwrap();
    drop(table);
    assert_clean(&segment, 0);
}

/// Runs a round of a partition that is made for it, and drops what it can.
fn one_round(table: &SharedTable) {
    let (x, mut tiles) = ground(table, 3);
    let mut round = tiles.begin(table).unwrap();
    let mut member = enter(&mut tiles, table, 0);
    assert_eq!(work(&mut member, table), 3);
    drop(member);
    assert!(round.try_finish(table).unwrap());
    tiles.wait_finished(table, 1, NOW).unwrap();
    drop(tiles);
    let z = table.zeros::<u64, _>(2).unwrap();
    table.free(z).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 3);
    table.free(x).unwrap();
}

/// The opener of a round dies with its threads. Threads that wait with a shared table, for the end of
/// the round and for the next one, are told.
pub fn waits_notice_the_death_of_the_opener() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let (x, tiles) = ground(&table, 4);
    let name = tiles.handle();
    for turn in 0..6 {
        // The child opens a round, and then the parent does.
        let last = 2 * turn;
        let (opened, go) = (Pipe::new(), Pipe::new());
        let child = Child::fork(|| {
            let mut tiles = table.open_untyped(name).unwrap();
            let round = tiles.begin(&table).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut tiles = table.open_untyped(name).unwrap();
                    let mut member = enter(&mut tiles, &table, last);
                    let token = (turn % 2 == 0).then(|| member.claim(&table).unwrap());
                    opened.send(token.is_some().into());
                    sleep_for_ever();
                });
                go.receive();
                let _round = round;
                die();
            });
        });
        opened.receive();
        let wait = |after: bool| {
            let table = &table;
            move || {
                let mut tiles = table.open_untyped(name).unwrap();
                match after {
                    true => tiles
                        .wait_finished(table, last + 1, DEADLINE)
                        .map(|()| None),
                    false => tiles.enter_next(table, last + 1, DEADLINE).map(Some),
                }
            }
        };
        thread::scope(|scope| {
            let end = scope.spawn(wait(true));
            let next = scope.spawn(wait(false));
            thread::sleep(NAP);
            assert!(!end.is_finished() && !next.is_finished());
            let start = Instant::now();
            go.send(1);
            let ended = end.join().unwrap();
            assert!(
                matches!(ended, Err(RoundError::GivenUp { .. })),
                "{ended:?}"
            );
            assert!(start.elapsed() < DEADLINE / 4);
            // The other thread may be about to take back what the opener held.
            let found = loop {
                match table.read(x) {
                    Err(LeaseError::Busy { .. }) => thread::yield_now(),
                    found => break found.map(drop),
                }
                assert!(start.elapsed() < DEADLINE);
            };
            assert!(
                matches!(found, Err(LeaseError::Poisoned { .. })),
                "{found:?}"
            );
            table.clear_poison(x).unwrap();
            // The thread that waits for the next round finds it open, or over.
            let mut tiles = table.open_untyped(name).unwrap();
            let mut round = tiles.begin(&table).unwrap();
            let entered = next.join().unwrap();
            match entered {
                Ok(Some(Entered::Member(mut member))) => {
                    assert_eq!(work(&mut member, &table), 4);
                    member.leave(&table).unwrap();
                }
                other => panic!("{other:?}"),
            }
            assert!(round.try_finish(&table).unwrap());
        });
        assert!(child.wait_within(DEADLINE).is_some());
        table.write(x).unwrap().fill(0);
    }
    drop((tiles, table));
    assert_clean(&segment, 0);
}

/// Parts tell the memory of the tile to any thread.
pub fn parts_are_used_by_another_thread() {
    let table = SharedTable::of(&segment()).unwrap();
    let (x, mut tiles) = ground(&table, 2);
    let mut round = tiles.begin(&table).unwrap();
    let member = enter(&mut tiles, &table, 0);
    let member = thread::spawn({
        let table = table.clone();
        move || {
            let mut member = member;
            let token = member.claim(&table).unwrap().unwrap();
            let parts: Vec<TilePart> = member.parts(&table, token).unwrap();
            assert_eq!(parts.len(), 1);
            add(&mut member, &table, token);
            (member, token)
        }
    });
    let (mut member, token) = member.join().unwrap();
    // Another thread gives the tile back than the one that has claimed it.
    member.done(&table, token).unwrap();
    work(&mut member, &table);
    thread::spawn({
        let table = table.clone();
        move || member.leave(&table).unwrap()
    })
    .join()
    .unwrap();
    finish(&mut round, &table);
    assert_eq!(table.read(x).unwrap().to_vec(), [1, 1]);
}
