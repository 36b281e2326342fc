//! Cost of allocating and freeing in several processes at once.

mod common;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::process::{Process, now};
use common::{Bench, each, timed};
use ndarray::Ix1;
use ndshm::{Handle, HandleTable, Segment};

/// Similar sizes, each of its own size class.
const CLASSES: [usize; 4] = [8 << 10, 10 << 10, 12 << 10, 14 << 10];

fn main() {
    let bench = Bench::from_args();
    at_once(&bench, "same", |_| CLASSES[0]);
    at_once(&bench, "own", |at| CLASSES[at]);
    freed_by_another(&bench);
}

fn pair(table: &HandleTable, bytes: usize) {
    let handle = table.uninit::<u8, _>(bytes).expect("memory for the bench");
    table.free(handle).expect("nobody else frees it");
}

/// Measures processes that allocate at once in one segment, each with its own seat: the time per
/// pair of all of them together. `size_of` returns the size that a process allocates.
fn at_once(bench: &Bench, which: &str, size_of: impl Fn(usize) -> usize) {
    let name = |processes: usize| format!("processes/{which} class/processes={processes}");
    let counts = [1, 2, 4];
    if !counts.iter().any(|&count| bench.wants(&name(count))) {
        return;
    }
    let segment = Segment::anonymous().expect("a segment");
    let (window, rounds) = match bench.is_quick() {
        true => (Duration::from_millis(5), 5),
        false => (Duration::from_millis(40), 31),
    };
    // The question is the start time; the answer is the number of pairs done in the window.
    let mut processes: Vec<Process> = (0..4)
        .map(|at| {
            let bytes = size_of(at);
            Process::fork(|| {
                let table = HandleTable::join(&segment).expect("a seat");
                move |start| {
                    let start = Duration::from_nanos(start);
                    while now() < start {
                        std::hint::spin_loop();
                    }
                    let mut pairs = 0;
                    while now() < start + window {
                        for _ in 0..256 {
                            pair(&table, bytes);
                        }
                        pairs += 256;
                    }
                    pairs
                }
            })
        })
        .collect();
    let mut figures: Vec<_> = counts.map(|count| (name(count), Vec::new())).into();
    for round in 0..=rounds {
        for (count, (_, samples)) in counts.into_iter().zip(&mut figures) {
            let start = (now() + Duration::from_millis(2)).as_nanos() as u64;
            let taking_part = &mut processes[..count];
            taking_part
                .iter_mut()
                .for_each(|process| process.ask(start));
            let pairs: u64 = taking_part.iter_mut().map(Process::answer).sum();
            // The first round warms up.
            if round > 0 {
                samples.push(window.as_secs_f64() * 1e9 / pairs as f64);
            }
        }
    }
    bench.report_samples(figures);
}

/// Measures arrays that one process allocates and another one frees; handles go through a queue.
/// Compares with the same within one process, and with the queue alone.
fn freed_by_another(bench: &Bench) {
    const NAME: &str = "processes/freed by another";
    const DEPTH: usize = 256;
    if !bench.wants(NAME) {
        return;
    }
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    let jobs = table.queue::<u64>(DEPTH).expect("memory for the bench");
    let name = jobs.handle();
    let patience = Duration::from_secs(60);
    let free = |table: &HandleTable, bits: u64| {
        let handle = Handle::<u8, Ix1>::from_bits(bits);
        table.free(handle).expect("nobody else frees it");
    };
    let alloc = || {
        let handle = table.uninit::<u8, _>(CLASSES[0]);
        handle.expect("memory for the bench").to_bits()
    };
    // The question: the number of jobs to pop, and in the lowest bit whether to free their arrays.
    let mut other = Process::fork(|| {
        let table = HandleTable::join(table.segment()).expect("a seat");
        move |question| {
            let jobs = table.open_queue::<u64>(name).expect("it lives");
            for _ in 0..question >> 1 {
                let bits = jobs.pop_timeout(patience).expect("a job comes");
                let bits = bits.expect("the queue stays open");
                match question & 1 {
                    1 => free(&table, bits),
                    _ => _ = black_box(bits),
                }
            }
            0
        }
    });
    let asked = |other: &mut Process, times: u64, frees: bool| {
        other.ask(times << 1 | u64::from(frees));
        let start = Instant::now();
        for _ in 0..times {
            let bits = if frees { alloc() } else { 1 };
            jobs.push_timeout(bits, patience)
                .expect("the other one pops");
        }
        other.answer();
        start.elapsed()
    };
    let other = std::cell::RefCell::new(&mut other);
    let mut kept = VecDeque::with_capacity(DEPTH);
    bench.compare(vec![
        timed(NAME, |times| asked(&mut other.borrow_mut(), times, true)),
        timed(format!("{NAME}/the queue alone"), |times| {
            asked(&mut other.borrow_mut(), times, false)
        }),
        each(format!("{NAME}/by the same"), || {
            kept.push_back(alloc());
            if kept.len() == DEPTH {
                free(&table, kept.pop_front().expect("there are some"));
            }
        }),
    ]);
}
