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
use ndshm::{Handle, HandleTable, Pool, TileContext};

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

/// Makes an array in a worker. Returns its handle as the result of the call.
fn make(_: ArrayViewMut1<'_, f64>, &len: &u64, tile: &TileContext) -> Numbers {
    let make = || -> ndshm::Result<Numbers> {
        let table = HandleTable::global()?;
        let numbers = table.from_shape_fn(len as usize, |i| (i * i) as f64)?;
        // Detach: the array must outlive the worker that made it.
        table.detach(numbers)?;
        Ok(numbers)
    };
    make().unwrap_or_else(|error| panic!("worker {} made no array: {error}", tile.worker()))
}

/// Opens an array in a worker. Returns its sum, or `NaN` on an error such as a stale handle.
fn sum(_: ArrayViewMut1<'_, f64>, numbers: &Numbers, _: &TileContext) -> f64 {
    let sum = || Ok::<_, ndshm::Error>(HandleTable::global()?.read(*numbers)?.sum());
    sum().unwrap_or(f64::NAN)
}

/// Frees an array in a worker that did not make it. Returns 1 if it succeeds, else 0.
fn free(_: ArrayViewMut1<'_, f64>, numbers: &Numbers, _: &TileContext) -> u8 {
    let free = || Ok::<_, ndshm::Error>(HandleTable::global()?.free(*numbers)?);
    u8::from(free().is_ok())
}

fn handles_travel(table: &HandleTable, pool: &mut Pool<'_>) -> ndshm::Result<()> {
    // With one tile, exactly one worker runs the kernel.
    let desk = table.owned(table.zeros::<f64, _>(1)?);
    let one = table.partition(desk.handle().write(), Axis(0), 1)?;

    let made = pool.map_reduce(&one, &5u64, make, None, |_, made| Some(made))?;
    let made: Numbers = made.expect("one tile gives one result");
    println!(
        "a worker made {made}; the parent reads {}",
        table.read(made)?.view()
    );

    table.write(made)?.view_mut()[0] = 70.0;
    let total = pool.map_reduce(&one, &made, sum, 0.0, |_, sum: f64| sum)?;
    println!("the parent wrote 70 into it; a worker's sum is {total}");
    assert_eq!(total, 100.0);

    let freed = pool.map_reduce(&one, &made, free, 0, |_, freed: u8| freed)?;
    assert_eq!(freed, 1);
    match table.read(made) {
        Err(error @ LeaseError::Stale { .. }) => println!("a worker freed it; now: {error}"),
        _ => unreachable!("a freed handle opens nothing"),
    }
    println!();
    Ok(())
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

    let desk = table.owned(table.zeros::<f64, _>(WORKERS)?);
    let each = table.partition(desk.handle().write(), Axis(0), 1)?;
    let opened = pool.map_reduce(&each, &a, sum, 0, |opened, sum: f64| {
        opened + usize::from(!sum.is_nan())
    })?;
    println!("workers that could open a: {opened} of {WORKERS}");
    assert_eq!(opened, 0);
    table.free(b)?;
    table.free(c)?;
    Ok(())
}
