//! Cost of access to an array: attaching, leases, tiles, joining, opening by name.

mod common;

use std::hint::black_box;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use common::{Bench, each, timed};
use ndarray::Axis;
use ndshm::{HandleTable, Segment};
use shared_memory::ShmemConf;

fn main() {
    let bench = Bench::from_args();
    let segment = Segment::anonymous().expect("a segment");
    let table = HandleTable::join(&segment).expect("a seat");
    leases(&bench, &table);
    tiles(&bench, &table);
    bench.compare(vec![each("join+leave", || {
        drop(HandleTable::join(&segment).expect("a seat"));
    })]);
    names(&bench);
}

fn leases(bench: &Bench, table: &HandleTable) {
    let x = table
        .zeros::<f64, _>((1000, 3))
        .expect("memory for the bench");
    let mutex = Mutex::new(0.0);
    let lock = RwLock::new(0.0);
    bench.compare(vec![
        each("attach/view", || {
            let attached = table.attach(x).expect("it lives");
            // SAFETY: nothing writes the array in this bench while a view of it is alive.
            let view = unsafe { attached.view_unsynchronized() };
            black_box(view.as_ptr())
        }),
        each("attach/view/mutex", || *mutex.lock().expect("no panic")),
    ]);
    bench.compare(vec![
        each("lease/read", || {
            let lease = table.read(x).expect("nobody writes");
            black_box(lease.view().as_ptr())
        }),
        each("lease/read/rwlock", || *lock.read().expect("no panic")),
        each("lease/read/mutex", || *mutex.lock().expect("no panic")),
    ]);
    bench.compare(vec![
        each("lease/write", || {
            let mut lease = table.write(x).expect("nobody else has it");
            black_box(lease.view_mut().as_mut_ptr())
        }),
        each("lease/write/rwlock", || {
            *lock.write().expect("no panic") += 1.0
        }),
        each("lease/write/mutex", || {
            *mutex.lock().expect("no panic") += 1.0
        }),
    ]);
    table.free(x).expect("nobody else frees it");
}

/// Measures the claim of a tile with its view and its release, and separately a whole round.
fn tiles(bench: &Bench, table: &HandleTable) {
    const TILES: u64 = 10_000;
    const LEN: usize = TILES as usize * 8;
    let x = table.zeros::<f64, _>(LEN).expect("memory for the bench");
    let many = table.partition(x.write(), Axis(0), 8).expect("an axis");
    let one = table.partition(x.write(), Axis(0), LEN).expect("an axis");
    let mutex = Mutex::new(0.0);
    let patience = Duration::from_secs(10);
    bench.compare(vec![
        timed("tile/claim", |times| {
            let mut took = Duration::ZERO;
            let mut left = times;
            while left > 0 {
                let round = many.begin().expect("nobody else has it");
                let mut part = many.enter().expect("it lives").expect("the round runs");
                let batch = left.min(TILES);
                let start = Instant::now();
                for _ in 0..batch {
                    let mut tile = part.claim().expect("valid").expect("tiles are left");
                    black_box(tile.views().as_mut_ptr());
                }
                took += start.elapsed();
                left -= batch;
                while part.claim().expect("valid").is_some() {}
                drop(part);
                round.finish(patience).expect("all tiles are done");
            }
            took
        }),
        each("tile/claim/mutex", || {
            *mutex.lock().expect("no panic") += 1.0
        }),
    ]);
    bench.compare(vec![each("tile/round of one", || {
        let round = one.begin().expect("nobody else has it");
        let mut part = one.enter().expect("it lives").expect("the round runs");
        while part.claim().expect("valid").is_some() {}
        drop(part);
        round.finish(patience).expect("all tiles are done");
    })]);
}

/// Measures opening a segment that another participant has created, and leaving it.
fn names(bench: &Bench) {
    let name = format!("ndshm-bench-{}", std::process::id());
    let ours = HandleTable::open_or_create(&name).expect("a named segment");
    let theirs = ShmemConf::new()
        .size(1 << 20)
        .create()
        .expect("room in /dev/shm");
    let link = theirs.get_os_id().to_owned();
    bench.compare(vec![
        each("open+join+leave", || {
            drop(HandleTable::open(&name).expect("it is there"));
        }),
        each("open+join+leave/shared_memory", || {
            drop(ShmemConf::new().os_id(&link).open().expect("it is there"));
        }),
    ]);
    drop(ours);
}
