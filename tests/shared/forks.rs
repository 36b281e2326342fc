//! Forks at any moment, and deaths.
//!
//! Some of these processes have threads when they fork. Their children call what is usable in such
//! a child: the C library makes `malloc` so, and the crate takes no lock of another process.

#![expect(
    clippy::disallowed_types,
    reason = "the flags of the test are no words of the segment"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ndshm::element::Order;
use ndshm::error::LeaseError;
use ndshm::untyped::Mode;
use ndshm::{Element, HandleTable, Segment, SharedTable};

use crate::support::{Child, DEADLINE, Pipe, sleep_for_ever};
use crate::threads::{Vector, assert_clean, is_busy, seats, segment};

/// Makes, leases, names and frees arrays, and hands them to `seen`.
fn work(table: &SharedTable, number: u64) {
    let x = table.from_elem(20 + number as usize % 7, number).unwrap();
    table.write(x).unwrap()[0] += 1;
    let guard = table.read(x).unwrap();
    let second = table.read(x).unwrap();
    assert_eq!((guard[0], second[1]), (number + 1, number));
    drop(guard);
    let mut locked = table.lock(x, Mode::Read).unwrap();
    drop(second);
    assert!(is_busy(&table.write(x)));
    table.unlock(&mut locked, false).unwrap();
    let pin = table.pin(x).unwrap();
    let name = format!("work/{number}");
    table.publish(&name, x).unwrap();
    assert_eq!(table.find_any(&name).unwrap(), x.into());
    table.free(x).unwrap();
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    // SAFETY: the array is freed, so nobody can write it any more.
    let bytes = unsafe { pin.bytes() };
    assert_eq!(bytes[8..16], number.to_ne_bytes());
}

/// Eight threads use the table while the process forks. The children use it too: at once, although
/// a thread of the parent had it locked at the fork.
pub fn eight_threads_and_many_forks() {
    let options = Segment::options().capacity(32 << 20).seats(8).retain(0);
    let segment = options.anonymous().unwrap();
    let table = SharedTable::of(&segment).unwrap();
    let shared: Vector = table.from_elem(4, 0).unwrap();
    let stop = AtomicBool::new(false);
    let turns = AtomicU64::new(0);
    thread::scope(|scope| {
        for first in 0..8u64 {
            let (table, stop, turns, segment) = (&table, &stop, &turns, &segment);
            scope.spawn(move || {
                let mut number = first << 32;
                while !stop.load(Ordering::Relaxed) {
                    work(table, number);
                    work(&SharedTable::of(segment).unwrap(), number);
                    // Large enough for pages of its own, which are given back.
                    let large = table.from_elem(20_000, 1u8).unwrap();
                    table.free(large).unwrap();
                    number += 1;
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..150u64 {
            let before = turns.load(Ordering::Relaxed);
            // A guard that crosses the fork stays the parent's.
            let guard = table.read(shared).unwrap();
            let pinned = table.from_elem(300, round).unwrap();
            let pin = table.pin(pinned).unwrap();
            let (crossed, freed) = (Pipe::new(), Pipe::new());
            let child = Child::fork(|| {
                match round % 2 == 0 {
                    // Arrays of the other threads may be lost: they free them under their pins.
                    true => assert!(!table.after_fork().unwrap().contains(&pinned.into())),
                    false => work(&table, (10 + round) << 32),
                }
                assert!(pin.is_kept());
                crossed.send(1);
                freed.receive();
                for number in 0..5 {
                    work(&table, (100 + round) << 32 | number);
                }
                let own = SharedTable::of(&segment).unwrap();
                work(&own, (1000 + round) << 32);
                drop(guard);
                // The parent has freed the array, given its pin back, and made others.
                // SAFETY: the array is freed, so nobody can write it any more.
                let bytes = unsafe { pin.bytes() };
                assert!(bytes.chunks(8).all(|value| value == round.to_ne_bytes()));
                if round % 3 == 0 {
                    let _kept = table.zeros::<u8, _>(10).unwrap();
                    std::mem::forget(table.read(shared).unwrap());
                    crate::support::die();
                }
            });
            crossed.receive();
            table.free(pinned).unwrap();
            drop(pin);
            freed.send(1);
            let status = child.wait_within(DEADLINE).expect("the child hangs");
            let killed = round % 3 == 0;
            assert_eq!(status.success(), !killed, "round {round}: {status}");
            while turns.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    table.reap().unwrap();
    table.write(shared).unwrap().fill(1);
    assert_eq!(seats(&segment), 1);
    assert_eq!(table.arrays().count(), 1);
    assert!(table.names("").unwrap().is_empty());
    drop(table);
    assert_clean(&segment, 0);
}

pub fn a_child_takes_a_seat_of_its_own() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let x: Vector = table.zeros(3).unwrap();
    let y: Vector = table.zeros(3).unwrap();
    let z: Vector = table.zeros(3).unwrap();
    let mut crossed = Some((
        table.read(x).unwrap(),
        table.write(y).unwrap(),
        table.lock(z, Mode::Write).unwrap(),
        table.builder(&u64::dtype(), &[3], Order::C).unwrap(),
        table.builder(&u64::dtype(), &[3], Order::C).unwrap(),
    ));
    for hooked in [false, true] {
        // The seat of the child before.
        table.reap().unwrap();
        Child::fork(|| {
            if hooked {
                table.after_fork().unwrap();
                assert_eq!(seats(&segment), 2);
                table.after_fork().unwrap();
                assert_eq!(seats(&segment), 2);
            }
            let (read, write, mut locked, published, dropped) = crossed.take().unwrap();
            drop((read, write, dropped));
            let refused = published.publish();
            assert!(
                matches!(refused, Err(ndshm::error::AllocError::Forked)),
                "{refused:?}"
            );
            if !hooked {
                assert_eq!(seats(&segment), 1, "no seat was taken for drops");
            }
            let refused = table.unlock(&mut locked, true);
            assert!(
                matches!(refused, Err(LeaseError::NotHeld { .. })),
                "{refused:?}"
            );
            assert_eq!(table.seat().unwrap(), 1);
            // The parent's leases hold in the child, with the parent's pid.
            let busy = table.write(x).unwrap_err();
            assert!(matches!(busy, LeaseError::Busy { pid, .. } if pid != std::process::id()));
            assert_eq!(table.read(x).unwrap().sum(), 0);
            // What the child makes, goes with it.
            table.zeros::<u8, _>(10).unwrap();
        })
        .join();
    }
    let (read, write, mut locked, published, dropped) = crossed.take().unwrap();
    assert!(is_busy(&table.write(x)) && is_busy(&table.read(y)) && is_busy(&table.read(z)));
    drop((read, write, dropped));
    table.unlock(&mut locked, false).unwrap();
    let made = published.publish().unwrap();
    table.reap().unwrap();
    assert_eq!(table.arrays().count(), 4);
    table.free(made).unwrap();
    drop(table);
    assert_clean(&segment, 0);
}

pub fn a_child_and_its_threads_have_one_table() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    Child::fork(|| {
        let numbers: Vec<usize> = thread::scope(|scope| {
            let join = |of: bool| {
                let (table, segment) = (&table, &segment);
                move || match of {
                    true => SharedTable::of(segment).unwrap().seat().unwrap(),
                    false => table.seat().unwrap(),
                }
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(join(n % 2 == 0))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(numbers, [1; 8]);
        assert_eq!(seats(&segment), 2);
        // A grandchild, too.
        Child::fork(|| {
            assert_eq!(table.seat().unwrap(), 2);
            assert_eq!(SharedTable::of(&segment).unwrap().seat().unwrap(), 2);
            drop(table.clone());
        })
        .join();
    })
    .join();
    assert_eq!(table.seat().unwrap(), 0);
}

pub fn the_default_table_crosses_a_fork() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(SharedTable::global().unwrap());
                }
            });
        }
        // The first forks race with the creation of the segment.
        for _ in 0..50 {
            let child = Child::fork(|| {
                let table = SharedTable::global().unwrap();
                let x = table.from_elem(3, 1u64).unwrap();
                assert_eq!(SharedTable::global().unwrap().read(x).unwrap().sum(), 3);
            });
            child.join();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let table = SharedTable::global().unwrap();
    let x = table.from_elem(3, 1u64).unwrap();
    assert_eq!(
        HandleTable::global().unwrap().read(x).unwrap().sum(),
        3,
        "one segment"
    );
}

pub fn a_killed_process_is_reaped_with_all_its_threads() {
    let segment = segment();
    let table = HandleTable::join(&segment).unwrap();
    for round in 0..20 {
        let pipe = Pipe::new();
        let child = Child::fork(|| {
            let table = SharedTable::of(&segment).unwrap();
            thread::scope(|scope| {
                for number in 0..4u64 {
                    let (table, pipe) = (&table, &pipe);
                    scope.spawn(move || {
                        for turn in 0.. {
                            work(table, number << 32 | turn);
                            if turn == 3 {
                                pipe.send(number);
                            }
                        }
                    });
                }
                sleep_for_ever();
            });
        });
        for _ in 0..4 {
            pipe.receive();
        }
        thread::sleep(Duration::from_micros(100 * round));
        child.kill();
        table.reap().unwrap();
        let found = table.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        let held = (
            found.readers,
            found.writers,
            found.reserved,
            found.in_transit,
        );
        assert_eq!(held, (0, 0, 0, 0), "{found}");
        assert_eq!(table.arrays().count(), 0);
        assert!(table.names("").unwrap().is_empty());
    }
}

/// A child pins what its parent had pinned, and learns what it could not pin.
pub fn pins_cross_a_fork() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let kept = table.from_elem(100, 1u64).unwrap();
    let dropped = table.from_elem(100, 2u64).unwrap();
    let gone = table.from_elem(100, 3u64).unwrap();
    let mut pins = Some((
        table.pin(kept).unwrap(),
        table.pin(kept).unwrap(),
        table.pin(dropped).unwrap(),
        table.pin(gone).unwrap(),
    ));
    // Freed before the fork, the array cannot be pinned any more.
    table.free(gone).unwrap();
    let (crossed, freed) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let (first, second, third, lost) = pins.take().unwrap();
        // Dropped before the child has a seat: it takes none for that.
        drop(third);
        assert_eq!(seats(&segment), 1);
        assert!(!first.is_kept() && !lost.is_kept());
        assert_eq!(table.after_fork().unwrap(), [gone.into()]);
        assert_eq!(table.after_fork().unwrap(), []);
        assert!(first.is_kept() && second.is_kept() && !lost.is_kept());
        assert_eq!(table.pins().unwrap(), [(kept.into(), 2)]);
        drop((first, lost));
        crossed.send(1);
        freed.receive();
        assert!(matches!(table.pin(kept), Err(LeaseError::Stale { .. })));
        // SAFETY: the array is freed, so nobody can write it any more.
        assert!(unsafe { second.bytes() }.iter().sum::<u8>() == 100);
        // A grandchild cannot pin a freed array.
        Child::fork(|| {
            assert_eq!(table.after_fork().unwrap(), [kept.into()]);
            assert!(!second.is_kept());
        })
        .join();
        drop(second);
        assert_eq!(table.pins().unwrap(), []);
        // Values of the child's own use the entries again.
        let own = table.from_elem(3, 1u8).unwrap();
        let pins: Vec<_> = (0..6).map(|_| table.pin(own).unwrap()).collect();
        assert_eq!(table.pins().unwrap(), [(own.into(), 6)]);
        drop(pins);
    });
    crossed.receive();
    table.free(kept).unwrap();
    drop(pins.take());
    for _ in 0..100 {
        table.from_elem(100, 9u64).unwrap();
    }
    freed.send(1);
    child.join();
    drop(table);
    assert_clean(&segment, 0);
}
