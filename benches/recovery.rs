//! Cost of deaths, forks and late joins with many arrays and leases.

mod common;

use std::time::{Duration, Instant};

use common::process::{Process, now};
use common::{Bench, Subject, timed};
use ndarray::Ix1;
use ndshm::{Handle, HandleTable, Segment};

type Vector = Handle<f64, Ix1>;

fn main() {
    let bench = Bench::from_args();
    let scale = if bench.is_quick() { 100 } else { 1 };
    // Run the benches that fork first, while this process is small.
    reap(&bench, 100_000 / scale);
    fork(&bench, 100_000 / scale);
    open(&bench, 1_000_000 / scale);
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat")
}

fn arrays(table: &HandleTable, count: usize) -> Vec<Vector> {
    let make = |_| table.zeros(8).expect("memory for the bench");
    (0..count).map(make).collect()
}

/// Measures `reap()` of a killed process with `count` read leases of another's arrays, `count`
/// arrays of its own, or both.
fn reap(bench: &Bench, count: usize) {
    const SAMPLES: usize = 15;
    let kinds = [
        ("leases", true, false),
        ("arrays", false, true),
        ("both", true, true),
    ];
    for (what, leases, owned) in kinds {
        let name = format!("reap/{what}={count}");
        if !bench.wants(&name) {
            continue;
        }
        let samples = if bench.is_quick() { 3 } else { SAMPLES };
        let took = (0..samples).map(|_| {
            let table = table();
            let others = arrays(&table, if leases { count } else { 0 });
            let mut victim = Process::fork(|| {
                let held: Vec<_> = others
                    .iter()
                    .map(|&x| table.read(x).expect("ours"))
                    .collect();
                let own = arrays(&table, if owned { count } else { 0 });
                move |_| (held.len() + own.len()) as u64
            });
            victim.ask(0);
            victim.answer();
            victim.kill();
            let start = Instant::now();
            let report = table.reap().expect("a seat");
            let took = start.elapsed();
            let expected = (usize::from(leases) * count, usize::from(owned) * count);
            assert_eq!((report.leases, report.arrays_freed), expected);
            took.as_secs_f64() * 1e9
        });
        bench.report_samples(vec![(name, took.collect())]);
    }
}

/// Measures from a fork until the child has taken a seat and read an array of its parent.
fn fork(bench: &Bench, count: usize) {
    let (few, many) = (table(), table());
    let (first, _) = (arrays(&few, 1)[0], arrays(&few, 9));
    let last = *arrays(&many, count).last().expect("there are some");
    bench.compare(vec![
        reading(format!("fork/live={count}"), &many, last),
        reading("fork/live=10".into(), &few, first),
        forked("fork/bare".into(), || (), || ()),
    ]);
}

/// Creates a subject whose child reads an array of its parent.
fn reading(name: String, table: &HandleTable, x: Vector) -> Subject<'_> {
    // The child exits without leaving its seat. Reap it here, or the next child would do so.
    let reap = || assert_eq!(table.reap().expect("a seat").seats, 1);
    forked(name, move || reads(table, x), reap)
}

fn reads(table: &HandleTable, x: Vector) {
    assert_eq!(table.read(x).expect("nobody writes").len(), 8);
}

/// Measures from a fork until the child has run `first`. Runs `after` once the child has ended.
fn forked<'a>(name: String, first: impl Fn() + 'a, after: impl Fn() + 'a) -> Subject<'a> {
    timed(name, move |times| {
        let one = |_| {
            let start = now();
            let mut child = Process::fork(|| {
                first();
                let then = now();
                move |_| then.as_nanos() as u64
            });
            child.ask(0);
            let took = Duration::from_nanos(child.answer()) - start;
            drop(child);
            after();
            took
        };
        (0..times).map(one).sum()
    })
}

/// Measures opening a segment by name, with a seat and one array read, and leaving it, by the
/// number of arrays in it.
fn open(bench: &Bench, count: usize) {
    let name = |what: &str| format!("ndshm-bench-{}-{what}", std::process::id());
    let (full, small) = (name("full"), name("small"));
    let [in_full, in_small] =
        [&full, &small].map(|name| HandleTable::open_or_create(name).expect("a named segment"));
    let in_full = *arrays(&in_full, count).last().expect("there are some");
    let in_small = arrays(&in_small, 10)[0];
    bench.compare(vec![
        opening(format!("open/arrays={count}"), &full, in_full),
        opening("open/arrays=10".into(), &small, in_small),
    ]);
    bench.compare(vec![
        leaving(format!("leave/arrays={count}"), &full, in_full),
        leaving("leave/arrays=10".into(), &small, in_small),
    ]);
}

fn opened(name: &str, x: Vector) -> HandleTable {
    let table = HandleTable::open(name).expect("it is there");
    reads(&table, x);
    table
}

fn opening(name: String, segment: &str, x: Vector) -> Subject<'_> {
    timed(name, move |times| {
        let once = |_| {
            let start = Instant::now();
            let table = opened(segment, x);
            let took = start.elapsed();
            drop(table);
            took
        };
        (0..times).map(once).sum()
    })
}

fn leaving(name: String, segment: &str, x: Vector) -> Subject<'_> {
    timed(name, move |times| {
        let once = |_| {
            let table = opened(segment, x);
            let start = Instant::now();
            drop(table);
            start.elapsed()
        };
        (0..times).map(once).sum()
    })
}
