//! What a step of a pool costs: the round trip of an empty kernel, and many small tiles.

#![expect(
    clippy::disallowed_types,
    reason = "the word of the bare round trip is not the crate's"
)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::process::Process;
use common::{Bench, each, timed};
use ndarray::Axis;
use ndshm::{HandleTable, Pool, Segment};
use rayon::prelude::*;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::thread::futex;

fn main() {
    let bench = Bench::from_args();
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    ping_pong(&bench);
    round_trips(&bench, &table);
    many_tiles(&bench, &table);
}

/// An empty kernel with a tile for each worker: call upon call, and with a millisecond of other
/// work between the calls, in which the workers fall asleep.
fn round_trips(bench: &Bench, table: &HandleTable) {
    for workers in [1, 2, 8] {
        let name = format!("step/empty/workers={workers}");
        let mut rayon = Process::fork(|| {
            let pool = threads(workers);
            let call = move || {
                pool.install(|| {
                    let tiles = (0..workers).into_par_iter();
                    tiles.for_each(|tile| {
                        black_box(tile);
                    });
                });
            };
            move |question| {
                match question {
                    PAUSED => paused(&call),
                    times => {
                        // The question came through a pipe, and meanwhile the threads fell asleep.
                        (0..16).for_each(|_| call());
                        let start = Instant::now();
                        (0..times).for_each(|_| call());
                        start.elapsed()
                    }
                }
                .as_nanos() as u64
            }
        });
        let x = table
            .zeros::<f64, _>(workers)
            .expect("memory for the bench");
        let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
        let mut pool = Pool::fork(table, workers).expect("workers");
        let mut call = || pool.for_each(&tiles, &(), |_, _, _| {}).expect("a step");
        bench.compare_calls(vec![
            each(&name, &mut call),
            timed(format!("{name}/rayon"), |times| asked(&mut rayon, times)),
        ]);
        bench.compare_calls(vec![
            timed(format!("{name}/paused"), |times| {
                (0..times).map(|_| paused(&mut call)).sum()
            }),
            timed(format!("{name}/paused/rayon"), |times| {
                (0..times).map(|_| asked(&mut rayon, PAUSED)).sum()
            }),
        ]);
    }
}

/// What asks for a single call after a pause.
const PAUSED: u64 = 0;

/// The time of a call after a millisecond of other work.
fn paused(call: impl FnOnce()) -> Duration {
    let pause = Instant::now();
    while pause.elapsed() < Duration::from_millis(1) {
        std::hint::spin_loop();
    }
    let start = Instant::now();
    call();
    start.elapsed()
}

/// 10^5 tiles of 8 numbers each.
fn many_tiles(bench: &Bench, table: &HandleTable) {
    const TILES: usize = 100_000;
    const WORKERS: usize = 2;
    let name = "step/tiles=100000/workers=2";
    let mut rayon = Process::fork(|| {
        let pool = threads(WORKERS);
        let mut x = vec![1.0f64; TILES * 8];
        move |times| {
            let start = Instant::now();
            for _ in 0..times {
                pool.install(|| {
                    let tiles = x.par_chunks_mut(8);
                    tiles.for_each(|tile| tile.iter_mut().for_each(|x| *x *= 0.999));
                });
            }
            start.elapsed().as_nanos() as u64
        }
    });
    let x = table
        .from_elem(TILES * 8, 1.0f64)
        .expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 8).expect("an axis");
    let mut pool = Pool::fork(table, WORKERS).expect("workers");
    bench.compare(vec![
        each(name, || {
            let step = pool.for_each(&tiles, &0.999, |mut x, &factor: &f64, _| x *= factor);
            step.expect("a step");
        }),
        timed(format!("{name}/rayon"), |times| asked(&mut rayon, times)),
    ]);
}

fn threads(count: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
    pool.expect("threads")
}

fn asked(process: &mut Process, times: u64) -> Duration {
    process.ask(times);
    Duration::from_nanos(process.answer())
}

/// Two processes that answer each other through one shared word and nothing else: what a round
/// trip costs at least, with both spinning and with both asleep.
fn ping_pong(bench: &Bench) {
    const IDLE: u32 = 0;
    const PING: u32 = 1;
    const PONG: u32 = 2;
    const END: u32 = 3;
    let word = shared_word();
    for (name, sleeps) in [("step/bare/spin", false), ("step/bare/futex", true)] {
        let mut other = Process::fork(|| {
            move |_| {
                let mut answered = IDLE;
                loop {
                    match change_of(word, answered, sleeps) {
                        END => return 0,
                        _ => set(word, PONG, sleeps),
                    }
                    answered = PONG;
                }
            }
        });
        set(word, IDLE, sleeps);
        other.ask(0);
        bench.compare_calls(vec![each(name, || {
            set(word, PING, sleeps);
            change_of(word, PING, sleeps)
        })]);
        set(word, END, sleeps);
        other.answer();
    }
}

/// A word in memory that forked processes share; it stays mapped.
fn shared_word() -> &'static AtomicU32 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping, at an address that the kernel picks.
    let page = unsafe { mmap_anonymous(anywhere, 4096, access, MapFlags::SHARED) };
    // SAFETY: a page of zeros is a valid word, and is never unmapped.
    unsafe { &*page.expect("a page").cast() }
}

fn set(word: &AtomicU32, value: u32, wake: bool) {
    word.store(value, Ordering::Release);
    if wake {
        futex::wake(word, futex::Flags::empty(), 1).expect("a wake");
    }
}

/// Waits until the word is no longer `seen`.
fn change_of(word: &AtomicU32, seen: u32, sleeps: bool) -> u32 {
    loop {
        let now = word.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        if sleeps {
            // Every outcome means: look again.
            let _ = futex::wait(word, futex::Flags::empty(), seen, None);
        } else {
            std::hint::spin_loop();
        }
    }
}
