//! The simulation under the model checker, and what it finds in programs that are wrong.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom`
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::thread;
use model_check::{Rod, divide, two_steps};
use ndarray::Axis;
use ndshm::{HandleTable, Pool, PoolError, Segment, model};

/// Room for two rods of two cells and for the words of two partitions and a pool; seats for the
/// program and its workers.
fn segment(workers: u32) -> Segment {
    let options = Segment::options()
        .capacity(4096)
        .seats(workers + 1)
        .arrays(16)
        .grain(4);
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

/// A worker that is killed before any one of its operations: the program is told, and what is
/// half-written is poisoned.
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
        // A rod that can be read is whole: of one step or of the other.
        if let Ok(rod) = table.read(rod) {
            assert_eq!(rod.sum(), 2.0);
        }
        died
    });
    assert!(deaths > 0);
    report("a_worker_is_killed_in_a_step", executions);
}

/// Demands that the checker refuses `wrong`, and names places in this file for both accesses.
fn must_be_refused(name: &str, wrong: impl Fn() + Send + Sync + 'static) {
    let cause = catch_unwind(AssertUnwindSafe(|| model::explore(2, wrong)));
    let cause = cause.expect_err("the checker refuses it");
    let message = cause.downcast_ref::<String>().expect("a message");
    assert!(message.contains("Causality violation"), "{message}");
    let places = message.matches("tests/model.rs").count();
    assert!(places >= 2, "{places} places of this file in: {message}");
    println!("model {name}: refused: {message}");
}

/// A rod of two cells, and a partition of it into single cells.
fn one_rod() -> (Segment, HandleTable, Rod) {
    let segment = Segment::options()
        .capacity(1024)
        .seats(2)
        .arrays(4)
        .grain(4);
    let segment = segment.in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let rod = table.from_elem(2, 1.0f32).unwrap();
    (segment, table, rod)
}

/// One buffer instead of two: a cell's neighbour is read while another worker writes it.
#[test]
fn a_neighbour_that_is_being_written() {
    must_be_refused("a_neighbour_that_is_being_written", || {
        let (segment, table, rod) = one_rod();
        let second = HandleTable::join(&segment).unwrap();
        let tiles = table.partition(rod.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let work = move |table: HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            while let Some(mut tile) = part.claim().unwrap() {
                let neighbour = 1 - tile.index();
                // An unsafe view shows it, and the model is told so.
                let seen = model::access(&table, rod, neighbour..neighbour + 1, false);
                drop(seen);
                tile.views()[0] *= 0.5;
            }
            drop(part);
            drop(tiles);
            table
        };
        let other = thread::spawn(move || work(second));
        let mut part = tiles.enter().unwrap().unwrap();
        if let Some(mut tile) = part.claim().unwrap() {
            tile.views()[0] *= 0.5;
        }
        drop(part);
        let _second = other.join().unwrap();
        drop(round);
    });
}

/// The result is looked at, by an unsafe view, before the round is over.
#[test]
fn a_round_whose_end_is_skipped() {
    must_be_refused("a_round_whose_end_is_skipped", || {
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
            drop(tiles);
            second
        });
        // `round.finish(..)` is missing here.
        drop(model::access(&table, rod, 0..2, false).unwrap());
        let _second = other.join().unwrap();
        drop(round);
    });
}

/// A kernel that writes the cell after its own.
#[test]
fn a_write_outside_of_the_tile() {
    must_be_refused("a_write_outside_of_the_tile", || {
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
                let beyond = (tile.index() + 1) % 2;
                drop(model::access(&second, rod, beyond..beyond + 1, true).unwrap());
            }
            drop(tiles);
            second
        });
        let mut part = tiles.enter().unwrap().unwrap();
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views()[0] += 1.0;
        }
        drop(part);
        let _second = other.join().unwrap();
        drop(round);
    });
}

/// What is not seen: an access that nobody tells the model of.
#[test]
fn an_access_that_is_not_told_is_not_seen() {
    let executions = model::explore(2, || {
        let (segment, table, rod) = one_rod();
        let second = HandleTable::join(&segment).unwrap();
        let other = thread::spawn(move || {
            second.write(rod).unwrap()[0] = 2.0;
            second
        });
        let view = table.attach(rod).unwrap();
        // SAFETY: the element is alive and initialised; loom runs one thread at a time, so that
        // nobody is writing it at this moment. In a program it would be a race.
        let _ = unsafe { view.as_ptr().read() };
        let _second = other.join().unwrap();
    });
    report("an_access_that_is_not_told_is_not_seen", executions);
}
