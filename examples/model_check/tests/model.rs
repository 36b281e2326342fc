//! The simulation under the model checker, and the errors that it finds in wrong programs.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom`
#![cfg(loom)]

use std::time::Duration;

use loom::thread;
use model_check::{Rod, divide, two_steps};
use ndarray::Axis;
use ndshm::error::PoolError;
use ndshm::{Error, HandleTable, Pool, Segment, WorkerContext, model};

/// Builds a segment with room for two rods of two cells and the words of two partitions and a
/// pool, and with seats for the program and its workers.
fn segment(workers: u32) -> Segment {
    let options = Segment::options()
        .capacity(1024)
        .seats(workers + 1)
        .arrays(16);
    options.in_process().unwrap()
}

fn report(name: &str, executions: u64) {
    println!("model {name}: {executions} executions");
}

#[test]
fn two_steps_on_a_worker() {
    let executions = model::explore(1, || {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let rod = table.from_elem(2, 1.0f32).unwrap();
        let other = table.from_elem(2, 0.0f32).unwrap();
        let there = divide(&table, other, rod, 1).unwrap();
        let back = divide(&table, rod, other, 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        two_steps(&mut pool, &there, &back, 0.25).unwrap();
        assert_eq!(table.read(rod).unwrap().sum(), 2.0);
    });
    report("two_steps_on_a_worker", executions);
}

/// Kills a worker before each of its operations in turn: the program gets an error, and
/// half-written arrays are poisoned.
#[test]
fn a_worker_is_killed_in_a_step() {
    let (executions, deaths) = model::explore_deaths(0, |steps| {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let rod = table.from_elem(2, 1.0f32).unwrap();
        let other = table.from_elem(2, 0.0f32).unwrap();
        let there = divide(&table, other, rod, 1).unwrap();
        let back = divide(&table, rod, other, 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let died = match two_steps(&mut pool, &there, &back, 0.25) {
            Ok(()) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        };
        // A rod that can be read is whole: it holds the state of one step or of the other.
        if let Ok(rod) = table.read(rod) {
            assert_eq!(rod.sum(), 2.0);
        }
        died
    });
    assert!(deaths > 0);
    report("a_worker_is_killed_in_a_step", executions);
}

/// Requires that the checker refuses `wrong` because of a race between two lines of this file: one
/// contains `first`, the other `second`.
fn must_race(
    name: &str,
    bound: usize,
    [first, second]: [&str; 2],
    wrong: impl Fn() + Send + Sync + 'static,
) {
    let report = model::refused(bound, wrong);
    println!("model {name}: refused: {report}");
    let source: Vec<&str> = include_str!("model.rs").lines().collect();
    let places: Vec<&str> = report
        .lines()
        .filter_map(|line| line.split_once("tests/model.rs:")?.1.split(':').next())
        .map(|line| source[line.parse::<usize>().expect("a line's number") - 1])
        .collect();
    let found = matches!(places[..], [a, b] if a.contains(first) && b.contains(second)
        || a.contains(second) && b.contains(first));
    assert!(found, "no race of {first:?} and {second:?}: {report}");
}

/// Creates a segment, a table and a rod of two cells.
fn one_rod() -> (Segment, HandleTable, Rod) {
    let segment = segment(2);
    let table = HandleTable::join(&segment).unwrap();
    let rod = table.from_elem(2, 1.0f32).unwrap();
    (segment, table, rod)
}

/// Averages a worker's cell with the other worker's, through views without a lease: it reads the
/// other's cell, and changes its own after both were read.
fn even_out(worker: &WorkerContext<'_>, rod: Rod, waits: bool) -> Result<(), Error> {
    let (table, me) = (worker.table(), worker.worker());
    // SAFETY: no worker writes before the barrier.
    let beside = unsafe {
        table
            .attach(rod)?
            .slice_unsynchronized(Axis(0), 1 - me..2 - me)[0]
    };
    if waits {
        worker.barrier()?;
    }
    let mut place = table.attach(rod)?;
    // SAFETY: the cell is this worker's own, and after the barrier the other one has read it.
    let mut own = unsafe { place.slice_mut_unsynchronized(Axis(0), me..me + 1) };
    own[0] = 0.5 * (own[0] + beside);
    Ok(())
}

#[test]
fn a_barrier() {
    let executions = model::explore(1, || {
        let (_segment, table, rod) = one_rod();
        let mut pool = Pool::threads(&table, 2).unwrap();
        pool.run(&rod, |worker, &rod| even_out(worker, rod, true))
            .unwrap();
        assert_eq!(table.read(rod).unwrap().to_vec(), [1.0, 1.0]);
    });
    report("a_barrier", executions);
}

#[test]
fn a_forgotten_barrier() {
    let places = [".slice_unsynchronized", ".slice_mut_unsynchronized"];
    must_race("a_forgotten_barrier", 1, places, || {
        let (_segment, table, rod) = one_rod();
        let mut pool = Pool::threads(&table, 2).unwrap();
        let _ = pool.run(&rod, |worker, &rod| even_out(worker, rod, false));
    });
}

/// Reads the result, through a view without a lease, while a worker is still writing it. The
/// reported place of a kernel's access is its call.
#[test]
fn a_call_whose_end_is_skipped() {
    let places = ["pool.start", "unsafe { place.view_unsynchronized() }"];
    must_race("a_call_whose_end_is_skipped", 1, places, || {
        let (_segment, table, rod) = one_rod();
        let tiles = table.partition(rod.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let call = pool.start(&tiles, &(), |mut rod, (), _| rod += 1.0);
        let place = table.attach(rod).unwrap();
        // SAFETY: this is unsound; `call.finish()` must be called first.
        let _heat = unsafe { place.view_unsynchronized() }.sum();
        call.unwrap().finish().unwrap();
    });
}

/// Reads tiles of others without waiting for the round's end, after finding no tile left: the
/// others may still be writing.
#[test]
fn a_round_whose_end_is_skipped() {
    let places = [
        "let Some(mut ours)",
        "unsafe { place.view_unsynchronized() }",
    ];
    must_race("a_round_whose_end_is_skipped", 1, places, || {
        let (segment, table, rod) = one_rod();
        let second = HandleTable::join(&segment).unwrap();
        let tiles = table.partition(rod.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name).unwrap();
            if let Some(mut part) = tiles.enter().unwrap() {
                while let Some(mut tile) = part.claim().unwrap() {
                    tile.views()[0] += 1.0;
                }
            }
            let place = second.attach(rod).unwrap();
            // SAFETY: this is unsound; the round must end first.
            let _heat = unsafe { place.view_unsynchronized() }.sum();
        });
        if let Some(mut part) = tiles.enter().unwrap() {
            while let Some(mut ours) = part.claim().unwrap() {
                ours.views()[0] += 1.0;
            }
        }
        round.finish(Duration::from_secs(1)).unwrap();
        other.join().unwrap();
    });
}

/// Writes the cell beside the participant's own tile.
#[test]
fn a_write_outside_of_the_tile() {
    let places = [
        "let Some(mut ours)",
        "slice_mut_unsynchronized(Axis(0), beside)",
    ];
    must_race("a_write_outside_of_the_tile", 1, places, || {
        let (segment, table, rod) = one_rod();
        let second = HandleTable::join(&segment).unwrap();
        let tiles = table.partition(rod.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name).unwrap();
            if let Some(mut part) = tiles.enter().unwrap()
                && let Some(tile) = part.claim().unwrap()
            {
                let beside = 1 - tile.index()..2 - tile.index();
                let mut place = second.attach(rod).unwrap();
                // SAFETY: this is unsound; the cell is not in this tile.
                unsafe { place.slice_mut_unsynchronized(Axis(0), beside) }.fill(0.0);
            }
        });
        if let Some(mut part) = tiles.enter().unwrap() {
            while let Some(mut ours) = part.claim().unwrap() {
                ours.views()[0] += 1.0;
            }
        }
        drop(round);
        other.join().unwrap();
    });
}

/// Shows the limit of the checker: it does not see an access through a pointer.
#[test]
fn an_access_that_is_not_told_is_not_seen() {
    let executions = model::explore(2, || {
        let (segment, table, rod) = one_rod();
        let second = HandleTable::join(&segment).unwrap();
        let other = thread::spawn(move || {
            second.write(rod).unwrap()[0] = 2.0;
            second
        });
        let place = table.attach(rod).unwrap();
        // SAFETY: the element is alive and initialised. loom runs one thread at a time, so no
        // thread writes it at this moment. In a program it would be a race.
        let _ = unsafe { place.as_ptr().read() };
        let _second = other.join().unwrap();
    });
    report("an_access_that_is_not_told_is_not_seen", executions);
}
