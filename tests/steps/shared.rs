//! Operations of a table that the threads of a process share.

use ndshm::element::Order;
use ndshm::untyped::Mode;
use ndshm::{Element, SharedTable};

use crate::ground::{Ground, Vector, options};
use crate::operations::Operation;
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("shared: join and leave", join_and_leave),
    ("shared: the first use after a fork", first_use),
    ("shared: allocate and free", allocate),
    ("shared: build and publish", build),
    ("shared: build and drop", build_in_vain),
    ("shared: free and give pages back", give_back),
    ("shared: trim", trim),
    ("shared: read from two guards", read),
    ("shared: write", write),
    ("shared: lock for writing and unlock", lock),
    ("shared: pin and give back", pin),
    (
        "shared: the first use after a fork with pins",
        first_use_with_pins,
    ),
    ("shared: reap", reap),
];

/// Performs an operation of a victim that has a seat, on the unchanged ground.
fn simple(run: &mut Run, operation: impl FnOnce(&SharedTable, Vector)) {
    on(Ground::new(), run, operation);
}

fn on(ground: Ground, run: &mut Run, operation: impl FnOnce(&SharedTable, Vector)) {
    run.victim(|| {
        let table = SharedTable::of(ground.table.segment()).unwrap();
        // The first allocation of a process measures the available memory.
        table.zeros::<u8, _>(5000).unwrap();
        mark();
        operation(&table, ground.array);
        mark();
    });
    ground.survive(run);
}

fn join_and_leave(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        mark();
        drop(SharedTable::of(ground.table.segment()).unwrap());
        mark();
    });
    ground.survive(run);
}

fn first_use(run: &mut Run) {
    let ground = Ground::new();
    let table = SharedTable::of(ground.table.segment()).unwrap();
    run.victim(|| {
        mark();
        table.after_fork().unwrap();
        mark();
    });
    drop(table);
    ground.survive(run);
}

fn allocate(run: &mut Run) {
    simple(run, |table, _| {
        let x = table.from_elem(100, 1.5f32).unwrap();
        table.free(x).unwrap();
    });
}

fn build(run: &mut Run) {
    simple(run, |table, _| {
        let mut array = table.builder(&u16::dtype(), &[50], Order::C).unwrap();
        array.bytes_mut()[99] = 1;
        array.publish().unwrap();
    });
}

fn build_in_vain(run: &mut Run) {
    simple(run, |table, _| {
        drop(table.builder(&u16::dtype(), &[50], Order::C).unwrap());
    });
}

fn give_back(run: &mut Run) {
    let ground = Ground::of(options().capacity(8 << 20).retain(0));
    on(ground, run, |table, _| {
        let x = table.uninit::<u8, _>(20_000).unwrap();
        let guard = table.read(x).unwrap();
        table.free(x).unwrap();
        drop(guard);
        let x = table.uninit::<u8, _>(20_000).unwrap();
        table.free(x).unwrap();
    });
}

fn trim(run: &mut Run) {
    simple(run, |table, _| {
        let x = table.uninit::<u8, _>(20_000).unwrap();
        table.free(x).unwrap();
        table.trim().unwrap();
    });
}

fn read(run: &mut Run) {
    simple(run, |table, array| {
        let guard = table.read(array).unwrap();
        let second = table.read_untyped(array).unwrap();
        drop(guard);
        assert_eq!(second.bytes()[15], 0);
    });
}

fn write(run: &mut Run) {
    simple(run, |table, array| {
        let mut guard = table.write(array).unwrap();
        guard[0] = 1;
        guard[1] = 1;
    });
}

fn lock(run: &mut Run) {
    simple(run, |table, array| {
        let mut locked = table.lock(array, Mode::Write).unwrap();
        // SAFETY: the array is locked for writing, and has two elements.
        unsafe { locked.bytes().cast::<[u64; 2]>().write([1; 2]) };
        table.unlock(&mut locked, false).unwrap();
    });
}

fn pin(run: &mut Run) {
    simple(run, |table, array| {
        let pin = table.pin(array).unwrap();
        drop(table.pin(array).unwrap());
        table.free(array).unwrap();
        drop(pin);
    });
}

fn first_use_with_pins(run: &mut Run) {
    let ground = Ground::new();
    let table = SharedTable::of(ground.table.segment()).unwrap();
    let pins = [(); 2].map(|()| table.pin(ground.array).unwrap());
    run.victim(|| {
        mark();
        assert!(table.after_fork().unwrap().is_empty());
        mark();
    });
    drop(pins);
    drop(table);
    ground.survive(run);
}

fn reap(run: &mut Run) {
    let ground = Ground::new();
    crate::operations::dead(|| {
        let table = ground.join();
        std::mem::forget(table.read(ground.array).unwrap());
        table.zeros::<u8, _>(10).unwrap();
    });
    on(ground, run, |table, _| {
        table.reap().unwrap();
    });
}
