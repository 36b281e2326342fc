//! `ndshm bench`: measures the cost of operations on this machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ndshm::{Handle, HandleTable, Segment};
use serde_json::{Value, json};

use crate::output::{Align, Code, Failure, Output, Table, bytes};

const HELP: &str = "\
Runs in an anonymous segment of its own, in one process, beside everything else that the machine \
is doing. The best value is the cost of the operation without interruptions.

JSON: a list of {operation, unit: ns|GB/s, median, best, repetitions}; `best` is the shortest \
time or the highest rate.";

/// Number of measured operations.
const OPERATIONS: u32 = 7;
/// Maximum repetitions of one operation.
const REPETITIONS: usize = 2000;
/// Bytes per copy: more than the caches hold.
const COPY: usize = 64 << 20;

/// Measure the cost of allocations, leases, fresh pages and copies; takes some seconds
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Seconds for all measurements together, at most 60
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("must be from 0.1 to 60 seconds".into()),
        Err(error) => Err(format!("{error}")),
    }
}

/// Measurements of one operation.
struct Measurement {
    operation: String,
    unit: &'static str,
    median: f64,
    best: f64,
    repetitions: usize,
}

/// Runs all measurements and prints them.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let span = Duration::from_secs_f64(args.seconds) / OPERATIONS;
    let all = measure(span)?;
    match out.json() {
        true => out.document(&all.iter().map(document).collect())?,
        false => print(&all, out)?,
    }
    Ok(Code::Done)
}

fn measure(span: Duration) -> Result<Vec<Measurement>, Failure> {
    let segment = Segment::anonymous()?;
    let table = HandleTable::join(&segment)?;
    let array: Handle<f64, _> = table.zeros(1000).map_err(ndshm::Error::from)?;
    let mut all = Vec::new();
    for size in [64usize, 64 << 10] {
        let name = format!("allocate and free {}", bytes(size as u64));
        all.push(times(name, span, 200, || {
            let made = table.zeros::<u8, _>(size).map_err(ndshm::Error::from)?;
            Ok(table.free(made).map_err(ndshm::Error::from)?)
        })?);
    }
    all.push(times("attach", span, 1000, || {
        black_box(table.attach(array)?.as_ptr());
        Ok(())
    })?);
    all.push(times("read lease", span, 1000, || {
        black_box(table.read(array)?.as_ptr());
        Ok(())
    })?);
    all.push(times("write lease", span, 1000, || {
        black_box(table.write(array)?.as_mut_ptr());
        Ok(())
    })?);
    all.push(fresh_pages(span)?);
    all.push(copies(&table, span)?);
    Ok(all)
}

/// Repeats `batch` calls of an operation until the time is up.
fn times(
    operation: impl Into<String>,
    span: Duration,
    batch: u32,
    mut call: impl FnMut() -> Result<(), Failure>,
) -> Result<Measurement, Failure> {
    samples(operation.into(), "ns", span, || {
        let start = Instant::now();
        for _ in 0..batch {
            call()?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(batch))
    })
}

fn samples(
    operation: String,
    unit: &'static str,
    span: Duration,
    mut sample: impl FnMut() -> Result<f64, Failure>,
) -> Result<Measurement, Failure> {
    sample()?;
    let start = Instant::now();
    let mut found = Vec::new();
    while found.is_empty() || found.len() < REPETITIONS && start.elapsed() < span {
        found.push(sample()?);
    }
    found.sort_by(f64::total_cmp);
    let best = match unit {
        "ns" => found[0],
        _ => found[found.len() - 1],
    };
    Ok(Measurement {
        operation,
        unit,
        median: found[found.len() / 2],
        best,
        repetitions: found.len(),
    })
}

/// Measures the first touch of an unused page, which the kernel must zero.
fn fresh_pages(span: Duration) -> Result<Measurement, Failure> {
    const BYTES: usize = 4 << 20;
    let segment = Segment::options().retain(0).anonymous()?;
    let table = HandleTable::join(&segment)?;
    let page = rustix::param::page_size();
    let name = format!("first touch of a page of {}", bytes(page as u64));
    samples(name, "ns", span, || {
        let made = table.zeros::<u8, _>(BYTES).map_err(ndshm::Error::from)?;
        let mut guard = table.write(made)?;
        let start = Instant::now();
        for byte in guard.iter_mut().step_by(page) {
            *byte = 1;
        }
        let took = start.elapsed();
        drop(guard);
        table.free(made).map_err(ndshm::Error::from)?;
        Ok(took.as_secs_f64() * 1e9 / (BYTES / page) as f64)
    })
}

fn copies(table: &HandleTable, span: Duration) -> Result<Measurement, Failure> {
    let from = table.from_elem(COPY, 1u8).map_err(ndshm::Error::from)?;
    let to = table.from_elem(COPY, 2u8).map_err(ndshm::Error::from)?;
    let (from, mut to) = (table.read(from)?, table.write(to)?);
    let name = format!("copy {}", bytes(COPY as u64));
    samples(name, "GB/s", span, || {
        let start = Instant::now();
        to.assign(&from);
        black_box(to.as_ptr());
        Ok(COPY as f64 / start.elapsed().as_secs_f64() / 1e9)
    })
}

fn document(measured: &Measurement) -> Value {
    json!({
        "operation": measured.operation,
        "unit": measured.unit,
        "median": measured.median,
        "best": measured.best,
        "repetitions": measured.repetitions,
    })
}

fn print(all: &[Measurement], out: &Output) -> Result<(), Failure> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("OPERATION", Left),
        ("MEDIAN", Right),
        ("BEST", Right),
        ("UNIT", Left),
        ("REPETITIONS", Right),
    ]);
    for measured in all {
        table.row([
            measured.operation.clone(),
            format!("{:.1}", measured.median),
            format!("{:.1}", measured.best),
            measured.unit.into(),
            measured.repetitions.to_string(),
        ]);
    }
    table.print(out)
}
