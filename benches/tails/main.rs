//! Distribution of the times of single calls: median, 99 %, 99.9 % and the worst of 10^6, alone and
//! beside a busy process on each processor.

mod clock;
#[path = "../common/mod.rs"]
mod common;
mod counts;
mod peers;
mod print;
mod record;

use std::hint::black_box;
use std::time::Duration;

use common::Bench;
use common::busy::Busy;
use ndarray::Axis;
use ndshm::{HandleTable, Pool, Segment};
use record::{Limits, Record, Tail};
use rustix::process::Pid;

const BYTES: usize = 8 << 10;
const WORKERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    ndshm::become_worker();
    let bench = Bench::parse();
    let limits = match bench.is_quick() {
        true => Limits {
            calls: 10_000,
            patience: Duration::from_millis(500),
        },
        false => Limits {
            calls: 1_000_000,
            patience: Duration::from_secs(20),
        },
    };
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    print::head(&bench);
    for (name, measure) in FIGURES {
        for busy in [false, true] {
            let name = format!("tails/{name}{}", if busy { "/busy" } else { "" });
            if bench.wants(&name) {
                let competition = busy.then(Busy::on_each_processor);
                let tail = measure(&table, limits);
                drop(competition);
                print::tail(&bench, &name, &tail);
            }
        }
    }
}

/// Measures a figure.
type Measure = fn(&HandleTable, Limits) -> Tail;

const FIGURES: [(&str, Measure); 13] = [
    ("nothing", |_, limits| alone(limits, || ())),
    ("alloc+free", alloc),
    ("alloc+free/malloc", |_, limits| {
        peers::malloc(limits, BYTES)
    }),
    ("lease/read", read),
    ("lease/write", write),
    ("lease/mutex", |_, limits| peers::mutex(limits)),
    ("tile", tile),
    ("push", push),
    ("push/crossbeam ArrayQueue", |_, limits| peers::push(limits)),
    ("wait_any", wait_any),
    ("wait_any/channel", |_, limits| peers::channel(limits)),
    ("step", step),
    ("step/rayon join", |_, limits| peers::join(limits)),
];

/// Records calls that need nothing between them.
fn alone<R>(limits: Limits, mut call: impl FnMut() -> R) -> Tail {
    let mut record = Record::new(limits, Vec::new());
    while record.goes_on() {
        record.call(&mut call);
    }
    record.finish()
}

fn alloc(table: &HandleTable, limits: Limits) -> Tail {
    alone(limits, || {
        let handle = table.uninit::<u8, _>(BYTES).expect("memory for the bench");
        table.free(handle).expect("nobody else frees it");
    })
}

fn read(table: &HandleTable, limits: Limits) -> Tail {
    let x = table.zeros::<f64, _>(1000).expect("memory for the bench");
    let tail = alone(limits, || {
        let lease = table.read(x).expect("nobody writes");
        black_box(lease.view().as_ptr())
    });
    table.free(x).expect("nobody else frees it");
    tail
}

fn write(table: &HandleTable, limits: Limits) -> Tail {
    let x = table.zeros::<f64, _>(1000).expect("memory for the bench");
    let tail = alone(limits, || {
        let mut lease = table.write(x).expect("nobody else has it");
        black_box(lease.view_mut().as_mut_ptr())
    });
    table.free(x).expect("nobody else frees it");
    tail
}

/// Measures the claim of a tile with its view and its release. The rounds begin and end between the
/// calls.
fn tile(table: &HandleTable, limits: Limits) -> Tail {
    const TILES: usize = 10_000;
    let x = table
        .zeros::<f64, _>(TILES * 8)
        .expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 8).expect("an axis");
    let mut record = Record::new(limits, Vec::new());
    while record.goes_on() {
        let round = tiles.begin().expect("nobody else has it");
        let mut part = tiles.enter().expect("it lives").expect("the round runs");
        for _ in 0..TILES {
            if !record.goes_on() {
                break;
            }
            record.call(|| {
                let mut tile = part.claim().expect("valid").expect("tiles are left");
                black_box(tile.views().as_mut_ptr())
            });
        }
        while part.claim().expect("valid").is_some() {}
        drop(part);
        round.finish(PATIENCE).expect("all tiles are done");
    }
    drop(tiles);
    table.free(x).expect("nobody else frees it");
    record.finish()
}

/// Measures a push. The pop is between the calls.
fn push(table: &HandleTable, limits: Limits) -> Tail {
    let queue = table.queue::<[u64; 2]>(256).expect("memory for the bench");
    let mut record = Record::new(limits, Vec::new());
    while record.goes_on() {
        let pushed = record.call(|| queue.push(black_box([1, 2])));
        pushed.expect("it has room");
        black_box(queue.pop().expect("it lives").expect("a job"));
    }
    record.finish()
}

/// Measures the wait for one of 16 tiles with an empty kernel. Each tile that it returns is sent back
/// between the calls.
fn wait_any(table: &HandleTable, limits: Limits) -> Tail {
    const TILES: usize = 16;
    let x = table.zeros::<f64, _>(TILES).expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let mut pool = Pool::fork(table, WORKERS).expect("workers");
    let mut record = Record::new(limits, workers(&pool));
    let mut running = pool
        .start(&tiles, &(), |_, (), _| {})
        .expect("a call of the pool");
    while record.goes_on() {
        let arrived = record.call(|| running.wait_any(1));
        for ready in arrived.expect("tiles").ready {
            ready.rerun();
        }
    }
    running.finish().expect("a call of the pool");
    record.finish()
}

/// Measures a call of a pool with an empty kernel and a tile for each worker.
fn step(table: &HandleTable, limits: Limits) -> Tail {
    let x = table.zeros::<f64, _>(WORKERS).expect("memory");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let mut pool = Pool::fork(table, WORKERS).expect("workers");
    let mut record = Record::new(limits, workers(&pool));
    while record.goes_on() {
        let done = record.call(|| pool.for_each(&tiles, &(), |_, _, _| {}));
        done.expect("a step");
    }
    record.finish()
}

fn workers(pool: &Pool<'_>) -> Vec<Pid> {
    let pids = pool.pids().into_iter().flatten();
    pids.filter_map(|pid| Pid::from_raw(pid as i32)).collect()
}
