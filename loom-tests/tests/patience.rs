//! Leases that wait. loom's futex has no timeouts, so a lost wake-up is a deadlock.
#![cfg(all(loom, not(shuttle)))]

use core::time::Duration;

use loom::thread;
use loom_tests::{
    beside, beside_death, check, check_deaths, check_deaths_in_case, dies, is_busy, segment, tables,
};
use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::untyped::Mode;
use ndshm::{Handle, HandleTable, SharedTable, model};

type Vector = Handle<u64, Ix1>;

const PATIENCE: Duration = Duration::MAX;

/// Joins a segment of one array as `N` participants, the first of which creates the array.
fn one_array<const N: usize>() -> ([HandleTable; N], Vector) {
    let seats = N.next_power_of_two() as u32;
    let tables: [HandleTable; N] = tables(&segment(64, seats, 2));
    let x = tables[0].from_elem(1, 0).unwrap();
    (tables, x)
}

/// Waits for a read lease. Returns the element.
fn read(table: &HandleTable, x: Vector) -> Result<u64, LeaseError> {
    table.read_timeout(x, PATIENCE).map(|x| x[0])
}

/// Waits for a write lease, and adds one to the element.
fn add(table: &HandleTable, x: Vector) -> Result<(), LeaseError> {
    table.write_timeout(x, PATIENCE).map(|mut x| x[0] += 1)
}

/// Runs `act` in a thread of its own.
fn apart<T: 'static>(
    table: HandleTable,
    act: impl FnOnce(&HandleTable) -> T + 'static,
) -> thread::JoinHandle<(T, HandleTable)> {
    thread::spawn(move || (act(&table), table))
}

/// I6, I7: a reader that sleeps until a writer has gone, or is about to, is woken, and sees what was
/// written.
#[test]
fn a_reader_waits_for_a_writer() {
    check(4, || {
        let ([first, second], x) = one_array();
        let mut lease = first.write(x).unwrap();
        let reader = apart(second, move |table| read(table, x));
        lease[0] = 1;
        drop(lease);
        let (seen, _second) = reader.join().unwrap();
        assert_eq!(seen.unwrap(), 1);
    });
}

/// I5, I6, I7: so is a writer that waits for a reader. Nothing but the lease orders its accesses.
#[test]
fn a_writer_waits_for_a_reader() {
    check(4, || {
        let ([first, second], x) = one_array();
        let lease = first.read(x).unwrap();
        let writer = apart(second, move |table| add(table, x));
        assert_eq!(lease[0], 0);
        drop(lease);
        let (added, _second) = writer.join().unwrap();
        added.unwrap();
        assert_eq!(first.read(x).unwrap()[0], 1);
    });
}

/// I5, I6, I7: the last of two readers wakes the writer, whichever it is.
#[test]
fn a_writer_waits_for_the_last_of_two_readers() {
    check(2, || {
        let ([first, second, third], x) = one_array();
        let lease = first.read(x).unwrap();
        // It may come before the writer, or be refused by it.
        let reader = apart(second, move |table| {
            let seen = table.read(x).map(|x| x[0]);
            assert!(matches!(seen, Ok(0 | 1)) || is_busy(&seen), "{seen:?}");
        });
        let writer = apart(third, move |table| add(table, x));
        drop(lease);
        let ((), _second) = reader.join().unwrap();
        let (added, _third) = writer.join().unwrap();
        added.unwrap();
        assert_eq!(first.read(x).unwrap()[0], 1);
    });
}

/// I5, I6, I7: a reader and a writer wait for the same writer. The first of them that wakes takes
/// the array, and wakes the other when it has done.
#[test]
fn a_reader_and_a_writer_wait_for_a_writer() {
    check(1, || {
        let ([first, second, third], x) = one_array();
        let mut lease = first.write(x).unwrap();
        let reader = apart(second, move |table| read(table, x));
        let writer = apart(third, move |table| add(table, x));
        lease[0] = 1;
        drop(lease);
        let (seen, _second) = reader.join().unwrap();
        let (added, _third) = writer.join().unwrap();
        assert!(matches!(seen, Ok(1 | 2)), "{seen:?}");
        added.unwrap();
        assert_eq!(first.read(x).unwrap()[0], 2);
    });
}

/// I5, I6, I7: two writers wait for a reader: one announces itself, and the other waits for it.
#[test]
fn two_writers_wait_for_a_reader() {
    check(0, || {
        let ([first, second, third], x) = one_array();
        let lease = first.read(x).unwrap();
        let writers = [second, third].map(|table| apart(table, move |table| add(table, x)));
        // Both wait before the reader goes, which takes no preemption then.
        thread::yield_now();
        drop(lease);
        let tables = writers.map(|writer| {
            let (added, table) = writer.join().unwrap();
            added.unwrap();
            table
        });
        assert_eq!(tables[0].read(x).unwrap()[0], 2);
    });
}

/// I7, fairness: a participant that is refused by a waiting writer is not admitted before it, as
/// long as the readers are there for which the writer waits.
#[test]
fn a_waiting_writer_turns_new_readers_away() {
    check(1, || {
        let ([first, second, third], x) = one_array();
        let lease = first.read(x).unwrap();
        let writer = apart(third, move |table| add(table, x));
        let seen = [(); 2].map(|()| second.read(x).map(|x| x[0]));
        let refused = seen.each_ref().map(is_busy);
        assert!(!refused[0] || refused[1], "a reader overtakes the writer");
        drop(lease);
        let (added, _third) = writer.join().unwrap();
        added.unwrap();
        assert_eq!(second.read(x).unwrap()[0], 1);
    });
}

/// I7, fairness: a participant that is refused by a waiting writer, and waits, gets the array after
/// it.
#[test]
fn a_waiting_reader_comes_after_the_writer_that_turned_it_away() {
    check(1, || {
        let ([first, second, third], x) = one_array();
        let lease = first.read(x).unwrap();
        let writer = apart(third, move |table| add(table, x));
        let refused = is_busy(&second.read(x).map(|x| x[0]));
        let reader = apart(second, move |table| read(table, x));
        drop(lease);
        let (added, _third) = writer.join().unwrap();
        added.unwrap();
        let (seen, _second) = reader.join().unwrap();
        let seen = seen.unwrap();
        assert!(
            !refused || seen == 1,
            "a waiting reader overtakes the writer"
        );
    });
}

/// I7: a participant that reads already and asks again is admitted, although a writer waits for it.
#[test]
fn a_reader_that_reads_already_is_admitted() {
    check(3, || {
        let ([first, second], x) = one_array();
        let outer = first.read(x).unwrap();
        let writer = apart(second, move |table| add(table, x));
        let inner = first.read_timeout(x, PATIENCE).unwrap();
        drop(outer);
        assert_eq!(inner[0], 0);
        drop(inner);
        let (added, _second) = writer.join().unwrap();
        added.unwrap();
    });
}

/// I4, I7: those that wait for an array that is freed are told so, and the slot is FREE afterwards.
#[test]
fn a_free_wakes_those_who_wait() {
    check(3, || {
        let ([first, second], x) = one_array();
        let lease = first.read(x).unwrap();
        let writer = apart(second, move |table| add(table, x));
        first.free(x).unwrap();
        // The writer may wait for this, and find that the array is freed: no time passes here.
        drop(lease);
        let (added, _second) = writer.join().unwrap();
        assert!(matches!(added, Err(LeaseError::Stale { .. })), "{added:?}");
        loom_tests::assert_all_free(&first, 1);
    });
}

/// I4, I7: a reader that waits for a writer is told at once that the array is freed.
#[test]
fn a_free_wakes_a_reader() {
    check(3, || {
        let ([first, second], x) = one_array();
        let lease = first.write(x).unwrap();
        let reader = apart(second, move |table| read(table, x));
        first.free(x).unwrap();
        let (seen, _second) = reader.join().unwrap();
        assert!(matches!(seen, Err(LeaseError::Stale { .. })), "{seen:?}");
        drop(lease);
    });
}

/// I7: a reader waits for the end of a round, and for the last participant of a round that was given
/// up.
#[test]
fn a_reader_waits_for_a_round() {
    for given_up in [false, true] {
        check(1, move || {
            let [first, second] = tables(&segment(576, 2, 4));
            let x = first.from_elem(2, 0u64).unwrap();
            let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
            let round = tiles.begin().unwrap();
            let reader = apart(second, move |table| read(table, x));
            let mut part = tiles.enter().unwrap().unwrap();
            part.claim().unwrap().unwrap().views()[0] = 1;
            if given_up {
                drop(round);
                drop(part);
            } else {
                drop(part);
                round.finish(PATIENCE).unwrap();
            }
            let (seen, _second) = reader.join().unwrap();
            assert_eq!(seen.unwrap(), 1);
        });
    }
}

/// I5, I7: a participant enters a round although a writer waits for an array that the round reads, and
/// has that array until it leaves.
#[test]
fn a_participant_enters_a_round_beside_a_waiting_writer() {
    check(2, || {
        let [first, second, third] = tables(&segment(1024, 4, 4));
        let x = first.from_elem(1, 5u64).unwrap();
        let y = first.from_elem(1, 0u64).unwrap();
        let tiles = first.partition((y.write(), x.read()), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        let writer = apart(third, move |table| add(table, x));
        {
            let tiles = second.open_partition(tiles.handle()).unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            let mut tile = part.claim().unwrap().unwrap();
            let (mut y, x) = tile.views();
            y[0] = x[0];
        }
        round.finish(PATIENCE).unwrap();
        assert_eq!(first.read(y).unwrap()[0], 5);
        let (added, _third) = writer.join().unwrap();
        added.unwrap();
        assert_eq!(first.read(x).unwrap()[0], 6);
    });
}

/// I5, I7: a thread of a shared table waits until another thread of the table has ended its lease,
/// which has the same bit.
#[test]
fn a_thread_waits_for_a_lease_of_its_own_seat() {
    check(3, || {
        let ([first, second], x) = one_array();
        let table = SharedTable::new(first);
        let guards = [(); 2].map(|()| table.read(x).unwrap());
        let waiting = table.clone();
        let writer = thread::spawn(move || {
            waiting.write_timeout(x, PATIENCE).unwrap()[0] += 1;
        });
        drop(guards);
        writer.join().unwrap();
        assert_eq!(second.read(x).unwrap()[0], 1);
    });
}

/// I1, I7: a holder dies at any step of a lease. Those that wait get the array after a reap.
#[test]
fn death_of_the_holder() {
    for writes in [false, true] {
        check_deaths(1, move |steps| {
            let ([survivor, mortal, reaper], x) = one_array();
            let other = thread::spawn(move || {
                let died = dies(mortal, steps, move |table| match writes {
                    true => table.write_timeout(x, PATIENCE).map(drop).unwrap(),
                    false => table.read_timeout(x, PATIENCE).map(drop).unwrap(),
                });
                if died {
                    reaper.reap().unwrap();
                    model::time_out();
                }
                (died, reaper)
            });
            let added = add(&survivor, x);
            let (died, _reaper) = other.join().unwrap();
            match added {
                Ok(()) => {}
                Err(LeaseError::Poisoned { .. }) => assert!(died && writes),
                Err(error) => panic!("{error}"),
            }
            let _ = survivor.clear_poison(x);
            survivor.write(x).map(drop).unwrap();
            died
        });
    }
}

/// I1, I7: a participant dies at any step of a wait to write, which ends without a lease. It has not
/// written, so the array is not poisoned, and nothing keeps new readers out.
#[test]
fn death_of_a_waiting_writer_poisons_nothing() {
    check_deaths(2, |steps| {
        let ([survivor, mortal], x) = one_array();
        let lease = survivor.read(x).unwrap();
        let died = dies(mortal, steps, move |table| {
            let refused = table.write_timeout(x, Duration::ZERO).map(drop);
            assert!(matches!(refused, Err(LeaseError::TimedOut { .. })));
        });
        survivor.reap().unwrap();
        assert_eq!(survivor.read(x).unwrap()[0], 0);
        drop(lease);
        survivor.write(x).unwrap()[0] = 1;
        died
    });
}

/// I1, I7: a reaper of a waiting writer dies at any step. The next reaper finds a writer with its mark,
/// the mark alone, or nothing, and poisons nothing.
#[test]
fn death_of_a_reaper_of_a_waiting_writer() {
    // The deaths of the writer at which it has announced itself are among these.
    for last in 10..26 {
        check_deaths_in_case(last, 0, move |steps| {
            let ([survivor, mortal, reaper], x) = one_array();
            let lease = survivor.read(x).unwrap();
            dies(mortal, last, move |table| {
                let _ = table.write_timeout(x, Duration::ZERO).map(drop);
            });
            let segment = reaper.segment().clone();
            let reap = move || {
                reaper.reap().unwrap();
                reaper
            };
            let died = model::mortal(&segment, 2, steps, reap).is_none();
            survivor.reap().unwrap();
            assert_eq!(survivor.read(x).unwrap()[0], 0);
            drop(lease);
            survivor.write(x).unwrap()[0] = 1;
            died
        });
    }
}

/// I1, I5, I7: a participant that waits dies at any step, beside the holder for which it waits.
#[test]
fn death_of_a_waiter() {
    for writes in [false, true] {
        check_deaths(1, move |steps| {
            let ([survivor, mortal], x) = one_array();
            // A writer waits for a reader, and a reader for a writer.
            let mode = if writes { Mode::Read } else { Mode::Write };
            let mut held = survivor.lock(x, mode).unwrap();
            let wait = move |table: &HandleTable| match writes {
                true => add(table, x).unwrap(),
                false => read(table, x).map(drop).unwrap(),
            };
            let release = || survivor.unlock(&mut held, false).unwrap();
            let ((), died) = beside_death(&survivor, mortal, steps, wait, release);
            match survivor.read(x).map(|x| x[0]) {
                Ok(seen) => assert!(seen <= 1),
                Err(LeaseError::Poisoned { .. }) => assert!(died && writes),
                Err(error) => panic!("{error}"),
            }
            let _ = survivor.clear_poison(x);
            survivor.write(x).map(drop).unwrap();
            died
        });
    }
}

/// I1, I7: a participant that waits dies at any step, and another that waits behind it gets the
/// array after a reap.
#[test]
fn death_of_a_waiter_before_another() {
    check_deaths(0, |steps| {
        let ([survivor, mortal, other], x) = one_array();
        let lease = survivor.read(x).unwrap();
        let behind = apart(other, move |table| read(table, x));
        let wait = move |table: &HandleTable| add(table, x).unwrap();
        let act = || {
            // Both wait before the reader goes, which takes no preemption then.
            thread::yield_now();
            drop(lease);
        };
        let ((), died) = beside_death(&survivor, mortal, steps, wait, act);
        if died {
            model::time_out();
        }
        let (seen, _other) = behind.join().unwrap();
        match seen {
            Ok(seen) => assert!(seen <= 1),
            Err(LeaseError::Poisoned { .. }) => assert!(died),
            Err(error) => panic!("{error}"),
        }
        died
    });
}

/// I5: waits that end by their timeout leave no trace, beside a reader that comes and goes.
#[test]
fn a_timeout_leaves_no_trace() {
    check(3, || {
        let ([first, second], x) = one_array();
        let try_add = move |table: &HandleTable| {
            let added = table
                .write_timeout(x, Duration::ZERO)
                .map(|mut x| x[0] += 1);
            assert!(matches!(added, Ok(()) | Err(LeaseError::TimedOut { .. })));
            u64::from(added.is_ok())
        };
        let (seen, added, _second) = beside(second, try_add, || first.read(x).map(|x| x[0]));
        assert!(matches!(seen, Ok(0 | 1)) || is_busy(&seen), "{seen:?}");
        let mut lease = first.write(x).unwrap();
        assert_eq!(lease[0], added);
        lease[0] = 5;
    });
}
