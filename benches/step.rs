//! Cost of a step of a pool: the round trip of an empty kernel, and many small tiles.

#![expect(
    clippy::disallowed_types,
    reason = "the word of the bare round trip is not the crate's"
)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::busy::Busy;
use common::process::Process;
use common::{Bench, each, median, timed};
use ndarray::{ArrayViewMut1, Axis};
use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
use ndshm::segment::HugePages;
use ndshm::{HandleTable, Pool, Segment, UnitContext};
use rayon::prelude::*;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::thread::futex;

fn main() {
    ndshm::become_worker();
    let bench = Bench::from_args();
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    for (name, waiting) in [
        ("step/bare/spin", Waiting::Spins),
        ("step/bare/spin-then-futex", Waiting::SpinsThenSleeps),
        ("step/bare/futex", Waiting::Sleeps),
    ] {
        let mut bare = Bare::start(waiting);
        bench.compare_calls(vec![each(name, || bare.round_trip())]);
    }
    round_trips(&bench, &table);
    spinning(&bench, &table);
    in_a_run(&bench, &table);
    foreign_calls(&bench, &table);
    under_competition(&bench, &table);
    many_tiles(&bench, &table);
    bandwidth(&bench, &table, "step/update=10000000/workers=2");
    let huge = Segment::options().huge_pages(HugePages::Collapse);
    let huge = HandleTable::join(&huge.anonymous().expect("a segment")).expect("a seat");
    bandwidth(&bench, &huge, "step/update=10000000/workers=2/huge");
}

/// Measures an empty kernel with a tile per worker: calls in a row, and calls after a millisecond
/// of other work, in which the workers fall asleep. The competitors are a bare round trip that
/// waits in the same way, and rayon.
fn round_trips(bench: &Bench, table: &HandleTable) {
    for workers in [1, 2, 8] {
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
                        // The threads fell asleep while this process waited for the question.
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
        for kind in ["empty", "spawned"] {
            let name = format!("step/{kind}/workers={workers}");
            let mut pool = match kind {
                "empty" => Pool::fork(table, workers),
                _ => Pool::spawn(table, workers),
            }
            .expect("workers");
            let mut bare = Bare::start(Waiting::SpinsThenSleeps);
            let mut call = || pool.for_each(&tiles, &(), |_, _, _| {}).expect("a step");
            bench.compare_calls(vec![
                each(&name, &mut call),
                each(format!("{name}/bare"), || bare.round_trip()),
                timed(format!("{name}/rayon"), |times| asked(&mut rayon, times)),
            ]);
            bench.compare_calls(vec![
                timed(format!("{name}/paused"), |times| {
                    (0..times).map(|_| paused(&mut call)).sum()
                }),
                timed(format!("{name}/paused/bare"), |times| {
                    (0..times).map(|_| paused(|| bare.round_trip())).sum()
                }),
                timed(format!("{name}/paused/rayon"), |times| {
                    (0..times).map(|_| asked(&mut rayon, PAUSED)).sum()
                }),
            ]);
        }
        let name = format!("step/kept/workers={workers}");
        if bench.wants(&name) {
            let mut pool = Pool::fork(table, workers).expect("workers");
            let mut bare = Bare::start(Waiting::SpinsThenSleeps);
            let mut steps = pool.steps(&tiles);
            bench.compare_calls(vec![
                each(&name, || steps.for_each(&(), |_, _, _| {}).expect("a step")),
                each(format!("{name}/bare"), || bare.round_trip()),
            ]);
        }
    }
}

/// Measures a call after a pause by a pool that spins for longer than the pause, with a processor for
/// its worker and for the parent. Against one with the spin of all pools.
fn spinning(bench: &Bench, table: &HandleTable) {
    let name = "step/spin/workers=1/paused";
    if !bench.wants(name) {
        return;
    }
    let x = table.zeros::<f64, _>(1).expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let builder = Pool::builder().workers(1);
    let spinning = builder.clone().spin(Duration::from_millis(5)).fork(table);
    let calls = [
        (name, spinning),
        ("step/spin/none/paused", builder.fork(table)),
    ];
    let subjects = calls.map(|(name, pool)| {
        let (mut pool, tiles) = (pool.expect("a worker"), &tiles);
        timed(name, move |times| {
            let mut call = || pool.for_each(tiles, &(), |_, _, _| {}).expect("a step");
            (0..times).map(|_| paused(&mut call)).sum()
        })
    });
    bench.compare_calls(subjects.into());
}

/// Measures the steps of a loop in the workers: a barrier, and an empty body on a tile for each.
fn in_a_run(bench: &Bench, table: &HandleTable) {
    const WORKERS: usize = 2;
    let name = format!("step/run/workers={WORKERS}");
    if !bench.wants(&name) {
        return;
    }
    let x = table
        .zeros::<f64, _>(WORKERS)
        .expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let [mut first, mut kept, mut second] =
        [(); 3].map(|()| Pool::fork(table, WORKERS).expect("workers"));
    bench.compare(vec![
        timed(format!("{name}/kept"), |times| {
            let start = Instant::now();
            let run = kept.run(&(tiles.handle(), times), |worker, &(tiles, times)| {
                let tiles = worker.table().open_partition(tiles)?;
                worker.steps(&tiles, |steps| {
                    (0..times).try_for_each(|_| steps.for_each(|_, _| ()))
                })
            });
            run.expect("a run");
            start.elapsed()
        }),
        timed(&name, |times| {
            let start = Instant::now();
            let run = first.run(&(tiles.handle(), times), |worker, &(tiles, times)| {
                let tiles = worker.table().open_partition(tiles)?;
                (0..times).try_for_each(|_| worker.for_each(&tiles, |_, _| ()))
            });
            run.expect("a run");
            start.elapsed()
        }),
        timed(format!("{name}/barrier"), |times| {
            let start = Instant::now();
            let run = second.run(&times, |worker, &times| {
                (0..times).try_for_each(|_| Ok(worker.barrier()?))
            });
            run.expect("a run");
            start.elapsed()
        }),
    ]);
}

/// Measures an empty call of a foreign pool beside an empty kernel of a pool.
fn foreign_calls(bench: &Bench, table: &HandleTable) {
    for workers in [1, 2] {
        let name = format!("step/foreign/workers={workers}");
        if !bench.wants(&name) {
            continue;
        }
        let mut pool = Pool::fork(table, workers).expect("workers");
        let mut foreign = ForeignPool::new(table, workers).expect("a pool");
        let handle = foreign.handle();
        let second = Duration::from_secs(1);
        let serve = || {
            let mut worker = ForeignWorker::attach(table, handle, None, second).expect("a place");
            while let Ok(call) = worker.next(second) {
                if call.is_some() {
                    worker.finish(&[]).expect("an answer");
                }
            }
            |_| 0
        };
        let processes: Vec<_> = (0..workers).map(|_| Process::fork(serve)).collect();
        assert!(
            foreign
                .wait_for_workers(workers, 10 * second)
                .expect("the parent")
        );
        let mut call = || {
            foreign.call(0, &[]).expect("a call");
            while !foreign.wait(second).expect("the parent") {}
            foreign.end().expect("answers")
        };
        let mut broadcast = || pool.broadcast(&(), |_, ()| 0u8).expect("a call");
        bench.compare_calls(vec![
            each(&name, &mut call),
            each(format!("{name}/pool"), &mut broadcast),
        ]);
        bench.compare_calls(vec![timed(format!("{name}/paused"), |times| {
            (0..times).map(|_| paused(&mut call)).sum()
        })]);
        drop((foreign, processes));
    }
}

/// The question that requests a single call after a pause.
const PAUSED: u64 = 0;

/// Returns the time of a call after a millisecond of other work.
fn paused<R>(call: impl FnOnce() -> R) -> Duration {
    let pause = Instant::now();
    while pause.elapsed() < Duration::from_millis(1) {
        std::hint::spin_loop();
    }
    let start = Instant::now();
    black_box(call());
    start.elapsed()
}

/// Measures 50,000 steps of 16 small environments on 4 workers, taken as they become ready: alone,
/// and beside 4 processes that never sleep. The two take turns, so the ratio is the cost of the
/// competition. A further figure compares the speed beside them with the processors that they left.
fn under_competition(bench: &Bench, table: &HandleTable) {
    const ENVS: usize = 16;
    const WORKERS: usize = 4;
    const BUSY: usize = 4;
    const STEPS: usize = 50_000;
    let name = format!("step/taken/workers={WORKERS}");
    let beside = format!("{name}/busy={BUSY}");
    if !bench.wants(&name) {
        return;
    }
    // One pool for each: after competition a pool does not yield for a while.
    let [mut crowded, mut alone] = [(); 2].map(|()| {
        let state = table.zeros::<u64, _>(ENVS).expect("memory for the bench");
        let envs = table.partition(state.write(), Axis(0), 1).expect("an axis");
        let mut pool = Pool::fork(table, WORKERS).expect("workers");
        move || {
            let mut running = pool
                .start(&envs, &(), |mut state, (), _| {
                    (0..100).for_each(|turn| state[0] = black_box(state[0] + turn));
                })
                .expect("a call");
            let mut taken = 0;
            while taken < STEPS {
                for ready in running.wait_any(4).expect("tiles").ready {
                    taken += 1;
                    ready.rerun();
                }
            }
            running.finish().expect("a call");
        }
    });
    let processors = std::thread::available_parallelism().expect("Linux").get() as f64;
    let (mut with, mut without, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=if bench.is_quick() { 5 } else { 31 } {
        let start = Instant::now();
        alone();
        let took_alone = start.elapsed().as_secs_f64();
        let busy = Busy::start(BUSY);
        let (start, before) = (Instant::now(), Process::time_of_ended());
        crowded();
        let took = start.elapsed().as_secs_f64();
        drop(busy);
        let used = (Process::time_of_ended() - before).as_secs_f64();
        let left_over = 1.0 - used / (processors * start.elapsed().as_secs_f64());
        // The first round warms up.
        if round > 0 {
            with.push(took * 1e9);
            without.push(took_alone * 1e9);
            left.push(left_over);
        }
    }
    let speeds = with.iter().zip(&without).zip(&left);
    let of_share = median(
        speeds
            .map(|((with, without), left)| without / with / left)
            .collect(),
    );
    bench.report_samples(vec![(beside.clone(), with), (name, without)]);
    bench.report_ratio(&beside, median(left), "the processors' time");
    bench.report_ratio(&beside, of_share, "the speed alone, per processor's time");
}

/// Measures 10^5 tiles of 8 numbers each.
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
    // Each call of this kernel gets 16 tiles, and divides them.
    let update = |mut x: ArrayViewMut1<'_, f64>, &factor: &f64, _: &UnitContext<'_>| {
        for tile in x.as_slice_mut().expect("tiles in a row").chunks_mut(8) {
            tile.iter_mut().for_each(|x| *x *= factor);
        }
    };
    bench.compare(vec![
        each(format!("{name}/units"), || {
            pool.for_each_unit(&tiles, &0.999, update).expect("a step");
        }),
        timed(format!("{name}/units/rayon"), |times| {
            asked(&mut rayon, times)
        }),
    ]);
}

/// Measures an update of 10^7 numbers in place by 2 workers, against rayon's threads and against
/// two threads that copy as many bytes, which is the limit of the memory. Uses huge pages if the
/// table's segment requests them and the system grants them.
fn bandwidth(bench: &Bench, table: &HandleTable, name: &str) {
    if !bench.wants(name) {
        return;
    }
    const LEN: usize = 10_000_000;
    const WORKERS: usize = 2;
    const TILE: usize = 1 << 16;
    let on_threads = |copies: bool| {
        Process::fork(move || {
            let pool = threads(WORKERS);
            let mut x = vec![1.0f64; LEN];
            let mut to = vec![0.0f64; if copies { LEN } else { 0 }];
            move |times| {
                let start = Instant::now();
                for _ in 0..times {
                    pool.install(|| match copies {
                        true => to
                            .par_chunks_mut(TILE)
                            .zip(x.par_chunks(TILE))
                            .for_each(|(to, from)| to.copy_from_slice(from)),
                        false => x
                            .par_chunks_mut(TILE)
                            .for_each(|tile| tile.iter_mut().for_each(|x| *x *= 0.999)),
                    });
                }
                black_box(&to);
                start.elapsed().as_nanos() as u64
            }
        })
    };
    let (mut rayon, mut copy) = (on_threads(false), on_threads(true));
    let x = table.from_elem(LEN, 1.0f64).expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), TILE).expect("an axis");
    let mut pool = Pool::fork(table, WORKERS).expect("workers");
    pool.prefault(&tiles).expect("pages");
    bench.compare(vec![
        each(name, || {
            let step = pool.for_each(&tiles, &0.999, |mut x, &factor: &f64, _| x *= factor);
            step.expect("a step");
        }),
        timed(format!("{name}/rayon"), |times| asked(&mut rayon, times)),
        timed(format!("{name}/copy"), |times| asked(&mut copy, times)),
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

/// Ways in which two processes wait for each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Spins,
    /// Spins as long as a pool does, then sleeps. Is woken only if asleep.
    SpinsThenSleeps,
    Sleeps,
}

/// Two processes that answer each other through one shared word only: the lower bound of a round
/// trip.
struct Bare {
    word: &'static AtomicU32,
    waiting: Waiting,
    other: Process,
}

const IDLE: u32 = 0;
const PING: u32 = 1;
const PONG: u32 = 2;
const END: u32 = 3;
/// Set while a process sleeps on the word.
const ASLEEP: u32 = 1 << 31;

impl Bare {
    fn start(waiting: Waiting) -> Bare {
        let word = shared_word();
        let mut other = Process::fork(|| {
            move |_| {
                let mut answered = IDLE;
                loop {
                    match waiting.change_of(word, answered) {
                        END => return 0,
                        _ => waiting.set(word, PONG),
                    }
                    answered = PONG;
                }
            }
        });
        other.ask(0);
        Bare {
            word,
            waiting,
            other,
        }
    }

    fn round_trip(&mut self) -> u32 {
        self.waiting.set(self.word, PING);
        self.waiting.change_of(self.word, PING)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.waiting.set(self.word, END);
        self.other.answer();
    }
}

/// Maps a word that forked processes share. It stays mapped.
fn shared_word() -> &'static AtomicU32 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping, at an address that the kernel picks.
    let page = unsafe { mmap_anonymous(anywhere, 4096, access, MapFlags::SHARED) };
    // SAFETY: a page of zeros is a valid word, and the page is never unmapped.
    unsafe { &*page.expect("a page").cast() }
}

impl Waiting {
    fn set(self, word: &AtomicU32, value: u32) {
        let before = word.swap(value, Ordering::AcqRel);
        if before & ASLEEP != 0 {
            futex::wake(word, futex::Flags::empty(), 1).expect("a wake");
        }
    }

    /// Waits until the word is no longer `seen`.
    fn change_of(self, word: &AtomicU32, seen: u32) -> u32 {
        let changed = || Some(word.load(Ordering::Acquire)).filter(|now| now & !ASLEEP != seen);
        for turn in 0.. {
            if let Some(now) = changed() {
                return now;
            }
            match self {
                Waiting::Spins => std::hint::spin_loop(),
                Waiting::SpinsThenSleeps if turn < 100 => std::hint::spin_loop(),
                Waiting::SpinsThenSleeps if turn < 300 => std::thread::yield_now(),
                Waiting::Sleeps | Waiting::SpinsThenSleeps => {
                    let asleep = seen | ASLEEP;
                    let _ =
                        word.compare_exchange(seen, asleep, Ordering::AcqRel, Ordering::Acquire);
                    // After every outcome the loop checks the word again.
                    let _ = futex::wait(word, futex::Flags::empty(), asleep, None);
                }
            }
        }
        unreachable!("it turns for ever")
    }
}
