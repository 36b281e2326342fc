//! The classic "RawArray manager", redone without its lock, its list and its copies.
//!
//! That program keeps shared arrays in a list behind one lock, and its handles are indices into the
//! list. Here a handle is 8 bytes that become stale for ever when the array is freed. Workers can
//! open arrays made after the fork, and can make and free arrays themselves.
//!
//! `cargo run --release --example raw_array_manager`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Pool};

const ELEMENTS: usize = 1_000;
const WRITES: u32 = 10_000;
const WORKERS: usize = 8;

type Numbers = Handle<f64, Ix1>;

fn main() -> ndshm::Result<()> {
    // There is one table per process; the workers inherit it.
    let table = HandleTable::global()?;
    let mut pool = Pool::fork(&table, WORKERS)?;

    // The workers can open this array although it is made after the fork.
    let numbers = table.zeros::<f64, _>(ELEMENTS)?;
    println!("array {numbers}: {ELEMENTS} elements, each written {WRITES} times");
    let alone = update_seq(&table, numbers)?;
    check(&table, numbers, f64::from(WRITES))?;
    println!("update_seq, one process:  {alone:>10.2?}");
    let together = update_par(&table, &mut pool, numbers)?;
    check(&table, numbers, f64::from(2 * WRITES))?;
    println!("update_par, {WORKERS} workers:    {together:>10.2?}");
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let speed_up = alone.as_secs_f64() / together.as_secs_f64();
    println!("speed-up {speed_up:.1} on {processors} processors\n");

    handles_travel(&table, &mut pool)?;
    freed_handles_are_stale(&table, &mut pool, numbers)?;
    println!("{} arrays are left", table.arrays().count());
    Ok(())
}

/// Adds 1 to each number repeatedly, with one write to memory each time.
fn update(numbers: &mut ArrayViewMut1<'_, f64>) {
    for number in numbers {
        for _ in 0..WRITES {
            *black_box(&mut *number) += 1.0;
        }
    }
}

fn update_seq(table: &HandleTable, numbers: Numbers) -> ndshm::Result<Duration> {
    let start = Instant::now();
    update(&mut table.write(numbers)?.view_mut());
    Ok(start.elapsed())
}

fn update_par(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    numbers: Numbers,
) -> ndshm::Result<Duration> {
    let start = Instant::now();
    let tiles = table.partition(numbers.write(), Axis(0), ELEMENTS / WORKERS)?;
    pool.for_each(&tiles, &(), |mut part, _, _| update(&mut part))?;
    Ok(start.elapsed())
}

fn check(table: &HandleTable, numbers: Numbers, expected: f64) -> ndshm::Result<()> {
    let numbers = table.read(numbers)?;
    assert!(numbers.iter().all(|&number| number == expected));
    Ok(())
}

fn handles_travel(table: &HandleTable, pool: &mut Pool<'_>) -> ndshm::Result<()> {
    let made = pool.broadcast(&5_u64, |worker, &len| {
        let numbers = worker
            .table()
            .from_shape_fn(len as usize, |i| (i * i) as f64);
        let numbers = numbers.expect("there is memory for a few numbers");
        // Detach: the array must outlive the worker that made it.
        worker.table().detach(numbers).expect("it is the worker's");
        numbers
    })?;
    let made: [Numbers; WORKERS] = made.try_into().expect("each worker made one");
    println!(
        "workers made {} and others; the parent reads {}",
        made[0],
        table.read(made[0])?
    );

    table.write(made[0])?[0] = 70.0;
    let sums = pool.broadcast(&made[0], |worker, &numbers| sum(worker.table(), numbers))?;
    println!("the parent wrote 70 into it; the workers' sums are {sums:?}");
    assert_eq!(sums, [100.0; WORKERS]);

    // Each array is freed by another worker than the one that made it.
    pool.broadcast(&made, |worker, made| {
        let other = made[WORKERS - 1 - worker.worker()];
        worker.table().free(other).expect("it is still there");
    })?;
    for numbers in made {
        assert!(matches!(table.read(numbers), Err(LeaseError::Stale { .. })));
    }
    if let Err(error) = table.read(made[0]) {
        println!("the workers freed them; now: {error}\n");
    }
    Ok(())
}

/// Returns the sum of an array, or `NaN` if it cannot be opened, for example because it was freed.
fn sum(table: &HandleTable, numbers: Numbers) -> f64 {
    table
        .read(numbers)
        .map_or(f64::NAN, |numbers| numbers.sum())
}

fn freed_handles_are_stale(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    a: Numbers,
) -> ndshm::Result<()> {
    // The old program's bug: after a was freed, c got b's number, and writes to one changed both.
    let b = table.from_elem(ELEMENTS, 2.0)?;
    table.free(a)?;
    let c = table.from_elem(ELEMENTS, 3.0)?;
    println!("a = {a} was freed; b = {b}; c = {c}, made after that");
    assert_eq!((table.read(b)?[0], table.read(c)?[0]), (2.0, 3.0));
    assert!(matches!(table.read(a), Err(LeaseError::Stale { .. })));

    let sums = pool.broadcast(&a, |worker, &numbers| sum(worker.table(), numbers))?;
    let opened = sums.iter().filter(|sum| !sum.is_nan()).count();
    println!("workers that could open a: {opened} of {WORKERS}");
    assert_eq!(opened, 0);
    table.free(b)?;
    table.free(c)?;
    Ok(())
}
