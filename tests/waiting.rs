//! Leases that wait beside rounds, and recoveries that panic beside other participants.

#![expect(
    clippy::disallowed_types,
    reason = "the threads of a test pass a flag that is no word of the segment"
)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Segment};

const DEADLINE: Duration = Duration::from_secs(60);

type Vector = Handle<u64, Ix1>;

fn tables<const N: usize>() -> [HandleTable; N] {
    let segment = Segment::anonymous().unwrap();
    [(); N].map(|()| HandleTable::join(&segment).unwrap())
}

/// Waits until a writer waits for the readers of the array: it turns new ones away.
fn until_a_writer_waits(table: &HandleTable, x: Vector) {
    let start = Instant::now();
    while table.read(x).is_ok() {
        assert!(start.elapsed() < DEADLINE, "no writer waits");
        std::thread::yield_now();
    }
}

/// A writer that waits until a round has read an array does not keep participants out of the round,
/// nor its opener. The round ends, and the writer gets the array.
#[test]
fn participants_enter_a_round_beside_a_waiting_writer() {
    let [opener, worker, writer, other] = tables();
    let x = opener.from_elem(4, 1_u64).unwrap();
    let y = opener.zeros::<u64, _>(4).unwrap();
    let tiles = opener.partition((y.write(), x.read()), Axis(0), 2).unwrap();
    let same = worker.open_partition(tiles.handle()).unwrap();
    let round = tiles.begin().unwrap();
    std::thread::scope(|threads| {
        let waiting =
            threads.spawn(move || writer.write_timeout(x, DEADLINE).map(|mut x| x[0] = 9));
        until_a_writer_waits(&other, x);
        let entered = [same.enter(), tiles.enter()];
        for part in entered {
            let mut part = part.unwrap().expect("the round runs");
            let mut tile = part.claim().unwrap().expect("a tile is open");
            let (mut y, x) = tile.views();
            y.assign(&x);
        }
        assert!(!waiting.is_finished(), "the round reads the array");
        round.finish(DEADLINE).unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(other.read(y).unwrap().sum(), 4);
    assert_eq!(other.read(x).unwrap()[0], 9);
}

/// Runs `recover`, which calls the closure that it is given and is left by its panic, while another
/// thread clears the poison of `x` until the closure has begun. Afterwards `x` is poisoned.
fn panic_beside_a_clearing(other: &HandleTable, x: Vector, recover: impl FnOnce(&dyn Fn())) {
    let begun = AtomicBool::new(false);
    let both = Barrier::new(2);
    std::thread::scope(|threads| {
        let (begun, both) = (&begun, &both);
        let segment = other.segment();
        threads.spawn(move || {
            let table = HandleTable::join(segment).unwrap();
            let start = Instant::now();
            while !begun.load(Ordering::Relaxed) {
                assert!(start.elapsed() < DEADLINE, "the recovery was refused");
                let _ = table.clear_poison(x);
            }
            both.wait();
            // From here on nobody clears the poison.
            loop {
                match table.read(x).map(drop) {
                    Err(LeaseError::Busy { .. }) => {}
                    Err(LeaseError::Poisoned { .. }) => break,
                    outcome => panic!("{outcome:?}"),
                }
            }
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            recover(&|| {
                begun.store(true, Ordering::Relaxed);
                both.wait();
                resume_unwind(Box::new("in the middle"));
            });
        }));
        panicked.unwrap_err();
    });
    let read = other.read(x).map(drop);
    assert!(matches!(read, Err(LeaseError::Poisoned { .. })), "{read:?}");
}

#[test]
fn a_panic_in_a_recovery_leaves_the_array_poisoned() {
    let [table, other] = tables();
    let x = table.from_elem(4, 1_u64).unwrap();
    for _ in 0..200 {
        panic_beside_a_clearing(&other, x, |panics| {
            table.recover(x, |_| panics()).unwrap();
        });
    }
}

#[test]
fn a_panic_in_a_repair_of_torn_tiles_leaves_the_arrays_poisoned() {
    let [table, other] = tables();
    let x = table.from_elem(4, 1_u64).unwrap();
    let y = table.from_elem(4, 1_u64).unwrap();
    let tiles = table.partition((x.write(), y.write()), Axis(0), 2).unwrap();
    for _ in 0..200 {
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().expect("the round runs");
        while let Some(tile) = part.claim().unwrap() {
            tile.tear();
        }
        drop(part);
        round.finish(DEADLINE).unwrap_err();
        panic_beside_a_clearing(&other, x, |panics| {
            // The first tile is repaired.
            let repair = tiles.recover(|torn, _| {
                if torn.tile == 1 {
                    panics()
                }
            });
            repair.unwrap();
        });
        assert_eq!(tiles.torn().unwrap().len(), 1);
        assert!(other.read(y).is_err());
        assert_eq!(tiles.clear_poison().unwrap(), 1);
    }
}
