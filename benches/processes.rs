//! Cost of allocating and freeing in several processes at once.

mod common;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::process::{Process, now};
use common::{Bench, each, median, timed};
use ndarray::Ix1;
use ndshm::{Handle, HandleTable, Segment};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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
///
/// The same processes take turns with segments of their own, where they share nothing. The quotient
/// of the two is the cost of sharing, also on a machine whose processors disturb each other.
fn at_once(bench: &Bench, which: &str, size_of: impl Fn(usize) -> usize) {
    let name = |processes: usize| format!("processes/{which} class/processes={processes}");
    let counts = [1, 2, 4];
    if !counts.iter().any(|&count| bench.wants(&name(count))) {
        return;
    }
    let anonymous = || Segment::anonymous().expect("a segment");
    let segment = anonymous();
    let (window, rounds) = match bench.is_quick() {
        true => (Duration::from_millis(5), 5),
        false => (Duration::from_millis(40), 31),
    };
    // The question is the start time, and in the lowest bit whether to use the own segment. The
    // answer is the number of pairs done in the window.
    let mut processes: Vec<Process> = (0..4)
        .map(|at| {
            let bytes = size_of(at);
            Process::fork(|| {
                stay_on_processor(at);
                let join = |segment| HandleTable::join(segment).expect("a seat");
                let tables = [join(&segment), join(&anonymous())];
                move |question| {
                    let table = &tables[(question & 1) as usize];
                    let start = Duration::from_nanos(question);
                    while now() < start {
                        std::hint::spin_loop();
                    }
                    let mut pairs = 0;
                    while now() < start + window {
                        for _ in 0..256 {
                            pair(table, bytes);
                        }
                        pairs += 256;
                    }
                    pairs
                }
            })
        })
        .collect();
    let mut figures: Vec<_> = counts.map(|count| (name(count), Vec::new())).into();
    let apart = [2, 4].map(|count| (format!("{}/own segments", name(count)), Vec::new()));
    figures.extend(apart);
    for round in 0..=rounds {
        let subjects = counts
            .map(|count| (count, 0))
            .into_iter()
            .chain([(2, 1), (4, 1)]);
        for ((count, own), (_, samples)) in subjects.zip(&mut figures) {
            let start = (now() + Duration::from_millis(2)).as_nanos() as u64;
            let taking_part = &mut processes[..count];
            taking_part
                .iter_mut()
                .for_each(|process| process.ask(start & !1 | own));
            let pairs: u64 = taking_part.iter_mut().map(Process::answer).sum();
            // The first round warms up.
            if round > 0 {
                samples.push(window.as_secs_f64() * 1e9 / pairs as f64);
            }
        }
    }
    let sharing = [(1, 3), (2, 4)].map(|(together, apart)| {
        let pairs = figures[together].1.iter().zip(&figures[apart].1);
        (
            name(counts[together]),
            median(pairs.map(|(with, without)| with / without).collect()),
        )
    });
    bench.report_samples(figures);
    for (name, ratio) in sharing {
        bench.report_ratio(&name, ratio, "the time in own segments");
    }
}

/// Keeps the calling process on one of its processors, number `at` modulo their number. Otherwise
/// the scheduler may leave two of the processes on one processor for a whole window, because they
/// woke there, while the other processor is idle: the speed-up is then 1.0.
fn stay_on_processor(at: usize) {
    let allowed = sched_getaffinity(None).expect("Linux");
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let mut one = CpuSet::new();
    one.set(processors[at % processors.len()]);
    sched_setaffinity(None, &one).expect("an allowed processor");
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
