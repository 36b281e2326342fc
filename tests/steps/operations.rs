//! The operations during which victims are killed: one function each, with the survivor's
//! expectations.

use std::cell::Cell;
use std::time::Duration;

use ndarray::Axis;
use ndarray::Ix1;
use ndshm::{HandleTable, OwnedArray, PartitionHandle, Queue, Write};

use crate::ground::{Ground, Vector, options, work};
use crate::run::Run;
use crate::support::{Child, DEADLINE, Name};
use crate::tracer::mark;

type Tiles = PartitionHandle<Write<u64, Ix1>>;

/// An operation, and the function that performs it once.
pub type Operation = (&'static str, fn(&mut Run));

/// All operations.
pub const OPERATIONS: &[Operation] = &[
    ("join", join),
    ("leave", leave),
    ("the first use after a fork", first_use),
    ("allocate in a new span", allocate),
    ("allocate a recycled extent", allocate_recycled),
    ("allocate 2 MiB", allocate_large),
    ("allocate without publishing", abandon),
    ("free", free),
    ("free under a reader", free_under_a_reader),
    ("free under a writer of one's own", free_under_a_writer),
    ("give back the last lease of a freed array", last_lease),
    ("trim", trim),
    ("attach and info", attach),
    ("read and give back", read),
    ("write and give back", write),
    ("detach and adopt", own),
    ("clear poison", clear_poison),
    ("recover", recover),
    ("make a partition", partition),
    ("a round of one's own", round),
    ("tiles of another's round, the last one too", tiles),
    ("give a round up", give_up),
    ("make a queue", queue),
    ("push", push),
    ("pop", pop),
    ("push an array that the queue owns", push_owned),
    ("pop an array that the queue owned", pop_owned),
    ("free a queue that owns arrays", free_owning_queue),
    ("reap", reap),
    ("verify", verify),
    ("create a name", create_name),
    ("open or create a name", open_or_create_name),
    (
        "open or create a name that a rival wants",
        open_beside_a_rival,
    ),
    ("leave a name that a rival wants", leave_beside_a_rival),
    ("open a name", open_name),
    ("leave a name last", leave_name),
];

/// Performs an operation of a victim that has a seat, on the unchanged ground.
fn simple(run: &mut Run, operation: impl FnOnce(&HandleTable, Vector)) {
    let ask = |table: &HandleTable, _| {
        // The first allocation of a process measures the available memory: only "allocate 2 MiB"
        // tests that part.
        table.zeros::<u8, _>(5000).unwrap();
    };
    prepared(run, ask, |table, array, ()| operation(table, array));
}

/// Works like [`simple`], with a victim that prepares something first.
fn prepared<P>(
    run: &mut Run,
    prepare: impl FnOnce(&HandleTable, Vector) -> P,
    operation: impl FnOnce(&HandleTable, Vector, P),
) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let before = prepare(&table, ground.array);
        mark();
        operation(&table, ground.array, before);
        mark();
    });
    ground.survive(run);
}

/// Runs `life` in a child that ends without releasing anything.
fn dead(life: impl FnOnce()) {
    let child = Child::fork(|| {
        life();
        crate::support::exit_at_once(0);
    });
    child.join();
}

fn join(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        mark();
        let table = ground.join();
        mark();
        drop(table);
    });
    ground.survive(run);
}

fn leave(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        table.zeros::<u8, _>(100).unwrap();
        let detached = table.zeros::<f32, _>(100).unwrap();
        table.detach(detached).unwrap();
        mark();
        drop(table);
        mark();
    });
    ground.survive(run);
}

fn first_use(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        mark();
        ground.table.seat().unwrap();
        mark();
    });
    ground.survive(run);
}

fn allocate(run: &mut Run) {
    simple(run, |table, _| {
        table.from_elem(100, 1.5f32).unwrap();
    });
}

fn allocate_recycled(run: &mut Run) {
    let recycle = |table: &HandleTable, _| {
        let x = table.zeros::<f32, _>(100).unwrap();
        table.free(x).unwrap();
    };
    prepared(run, recycle, |table, _, ()| {
        table.from_elem(100, 1.5f32).unwrap();
    });
}

fn allocate_large(run: &mut Run) {
    let ground = Ground::of(options().capacity(8 << 20));
    run.victim(|| {
        let table = ground.join();
        mark();
        table.zeros::<u8, _>(2 << 20).unwrap();
        mark();
    });
    ground.survive(run);
}

fn abandon(run: &mut Run) {
    simple(run, |table, _| {
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.from_shape_fn(3, |_| -> u8 { std::panic::resume_unwind(Box::new(())) })
        }));
        assert!(made.is_err());
    });
}

fn free(run: &mut Run) {
    simple(run, |table, array| table.free(array).unwrap());
}

fn free_under_a_reader(run: &mut Run) {
    let ground = Ground::new();
    let guard = ground.table.read(ground.array).unwrap();
    run.victim(|| {
        let table = ground.join();
        mark();
        table.free(ground.array).unwrap();
        mark();
    });
    assert_eq!(guard.sum(), 0);
    drop(guard);
    ground.survive(run);
}

fn free_under_a_writer(run: &mut Run) {
    simple(run, |table, array| {
        let mut guard = table.write(array).unwrap();
        guard[0] = 1;
        table.free(array).unwrap();
        guard[1] = 1;
    });
}

fn last_lease(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let guard = table.read(ground.array).unwrap();
        table.free(ground.array).unwrap();
        mark();
        drop(guard);
        mark();
    });
    ground.survive(run);
}

fn trim(run: &mut Run) {
    let fill = |table: &HandleTable, _| {
        let x = table.from_elem(30_000, 1u8).unwrap();
        let y = table.from_elem(10, 1u8).unwrap();
        table.free(x).unwrap();
        table.free(y).unwrap();
    };
    prepared(run, fill, |table, _, ()| {
        table.trim().unwrap();
    });
}

fn attach(run: &mut Run) {
    simple(run, |table, array| {
        table.attach(array).unwrap();
        table.info(array).unwrap();
    });
}

fn read(run: &mut Run) {
    simple(run, |table, array| {
        assert_eq!(table.read(array).unwrap()[1], 0);
    });
}

fn write(run: &mut Run) {
    simple(run, |table, array| {
        let mut guard = table.write(array).unwrap();
        guard[0] = 1;
        guard[1] = 1;
    });
}

fn own(run: &mut Run) {
    simple(run, |table, array| {
        table.adopt(array).unwrap();
        table.detach(array).unwrap();
    });
}

/// Returns a ground with an array that a dead participant left half-written. It was reaped.
fn poisoned() -> Ground {
    let ground = Ground::new();
    dead(|| {
        let table = ground.join();
        let mut guard = table.write(ground.array).unwrap();
        guard[0] = 1;
        std::mem::forget(guard);
        std::mem::forget(table);
    });
    assert_eq!(ground.table.reap().unwrap().poisoned.len(), 1);
    ground
}

fn clear_poison(run: &mut Run) {
    let ground = poisoned();
    run.victim(|| {
        let table = ground.join();
        mark();
        table.clear_poison(ground.array).unwrap();
        mark();
    });
    // The array is usable again, whether the victim or the survivor cleared the poison.
    let _ = ground.table.clear_poison(ground.array);
    ground.table.write(ground.array).unwrap().fill(0);
    ground.survive(run);
}

fn recover(run: &mut Run) {
    let ground = poisoned();
    run.victim(|| {
        let table = ground.join();
        mark();
        table
            .recover(ground.array, |mut view| view.fill(2))
            .unwrap();
        mark();
    });
    // The survivor finds it usable, held by the dead, or still poisoned.
    ground.survive(run);
}

fn partition(run: &mut Run) {
    simple(run, |table, array| {
        drop(table.partition(array.write(), Axis(0), 1).unwrap());
    });
}

fn round(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        mark();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views().fill(1);
        }
        drop(part);
        round.finish(DEADLINE).unwrap();
        mark();
    });
    ground.survive(run);
}

fn tiles(run: &mut Run) {
    let ground = Ground::new();
    let tiles = ground
        .table
        .partition(ground.array.write(), Axis(0), 1)
        .unwrap();
    let round = tiles.begin().unwrap();
    let name: Cell<Tiles> = Cell::new(tiles.handle());
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name.get()).unwrap();
        mark();
        let mut part = tiles.enter().unwrap().unwrap();
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views().fill(1);
        }
        drop(part);
        mark();
    });
    // The survivor runs the tiles that were not begun, and waits for no other participant.
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().fill(1);
    }
    drop(part);
    let torn = round.finish(DEADLINE).is_err();
    drop(tiles);
    match ground.table.read(ground.array) {
        Ok(all) => assert!(!torn && all.iter().all(|&x| x == 1), "{all:?}"),
        Err(error) => assert!(torn, "{error}"),
    }
    if torn {
        ground.table.clear_poison(ground.array).unwrap();
        ground.table.write(ground.array).unwrap().fill(1);
    }
    ground.survive(run);
}

fn give_up(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        mark();
        drop(round);
        mark();
    });
    ground.survive(run);
}

fn queue(run: &mut Run) {
    simple(run, |table, _| drop(table.queue::<u64>(4).unwrap()));
}

fn push(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        queue.push(2).unwrap();
        mark();
    });
    ground.table.reap().unwrap();
    assert_eq!(queue.pop().unwrap(), Some(1));
    let second = queue.pop().unwrap();
    assert!(matches!(second, None | Some(2)), "{second:?}");
    works(&queue);
    drop(queue);
    ground.survive(run);
}

fn pop(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        assert_eq!(queue.pop().unwrap(), Some(1));
        mark();
    });
    ground.table.reap().unwrap();
    let mut left = Vec::new();
    while let Some(job) = queue.pop().unwrap() {
        left.push(job);
    }
    left.sort_unstable();
    assert!(matches!(&left[..], [1, 2] | [2]), "{left:?}");
    works(&queue);
    drop(queue);
    ground.survive(run);
}

type Arrays = OwnedArray<u64, Ix1>;

/// Checks that the array is in the queue once, or was freed with the victim.
fn push_owned(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<Arrays>(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        let array = table.owned(table.from_elem(3, 5).unwrap());
        mark();
        queue.push_owned(array).unwrap();
        mark();
    });
    settle(&ground.table, &queue);
    drop(queue);
    ground.survive(run);
}

/// Checks that the array is in the queue once, or was freed with the victim.
fn pop_owned(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<Arrays>(2).unwrap();
    push_five(&ground.table, &queue);
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        let array = queue.pop_owned().unwrap();
        mark();
        drop(array);
    });
    settle(&ground.table, &queue);
    drop(queue);
    ground.survive(run);
}

/// Checks that the arrays are freed with the queue.
fn free_owning_queue(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let queue = table.queue::<Arrays>(2).unwrap();
        push_five(&table, &queue);
        push_five(&table, &queue);
        mark();
        drop(queue);
        mark();
    });
    ground.table.reap().unwrap();
    let left: Vec<_> = ground.table.arrays().map(|array| array.handle).collect();
    assert_eq!(left, [ground.array.into()], "an array has leaked");
    ground.survive(run);
}

fn push_five(table: &HandleTable, queue: &Queue<'_, Arrays>) {
    let array = table.owned(table.from_elem(3, 5).unwrap());
    queue.push_owned(array).unwrap();
}

/// Asserts that at most one array is left, in the queue, and that all cells are available.
fn settle(table: &HandleTable, queue: &Queue<'_, Arrays>) {
    table.reap().unwrap();
    let arrays = table.arrays().count() - 1;
    let left = queue.pop_owned().unwrap();
    assert_eq!(arrays, usize::from(left.is_some()), "an array has leaked");
    if let Some(left) = left {
        assert_eq!(table.read(left.handle()).unwrap().sum(), 15);
    }
    assert!(queue.pop_owned().unwrap().is_none());
    for _ in 0..2 {
        push_five(table, queue);
    }
    let third = table.owned(table.from_elem(3, 5).unwrap());
    assert!(queue.push_owned(third).unwrap_err().is_full());
    assert!(queue.pop_owned().unwrap().is_some());
}

fn works(queue: &ndshm::Queue<'_, u64>) {
    for lap in 0..3 {
        queue.push(lap).unwrap();
        queue.push(lap + 1).unwrap();
        assert!(queue.push(0).is_err(), "it is full");
        assert_eq!(queue.pop().unwrap(), Some(lap));
        assert_eq!(queue.pop().unwrap(), Some(lap + 1));
    }
}

fn reap(run: &mut Run) {
    let ground = Ground::new();
    let read = ground.table.from_elem(2, 0u64).unwrap();
    let rows = ground.table.from_elem(4, 0u64).unwrap();
    let tiles = ground.table.partition(rows.write(), Axis(0), 2).unwrap();
    let queue = ground.table.queue::<u64>(2).unwrap();
    let round = tiles.begin().unwrap();
    let (tiles_name, queue_name) = (tiles.handle(), queue.handle());
    run.victim(|| {
        // Join first, because joining reaps, too.
        let table = ground.join();
        dead(|| {
            let table = ground.join();
            table.zeros::<u64, _>(5).unwrap();
            std::mem::forget(table.read(read).unwrap());
            let mut guard = table.write(ground.array).unwrap();
            guard[0] = 1;
            std::mem::forget(guard);
            let tiles = table.open_partition(tiles_name).unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            std::mem::forget(part.claim().unwrap());
            let queue = table.open_queue(queue_name).unwrap();
            queue.push(1).unwrap();
            crate::support::exit_at_once(0);
        });
        mark();
        table.reap().unwrap();
        mark();
    });
    ground.table.reap().unwrap();
    let missing = round.finish(Duration::ZERO);
    assert!(missing.is_err(), "a tile is torn, the other was not begun");
    drop(tiles);
    assert_eq!(queue.pop().unwrap(), Some(1));
    drop(queue);
    assert!(ground.table.read(rows).is_err(), "torn, so poisoned");
    assert!(
        ground.table.read(ground.array).is_err(),
        "half-written, so poisoned"
    );
    ground.table.write(read).unwrap().fill(1);
    ground.survive(run);
}

fn verify(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        mark();
        assert!(table.verify().unwrap().is_clean());
        mark();
    });
    drop(queue);
    ground.survive(run);
}

/// Asserts that the next process can use the name, and that the name is gone when it leaves.
fn next(name: &Name) {
    let segment = options().open_or_create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
    assert!(table.verify().unwrap().is_clean());
    drop((table, segment));
    assert!(!name.exists(), "the name is left behind");
}

fn create_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| {
        mark();
        let segment = options().create(&name.0).unwrap();
        mark();
        drop(segment);
    });
    next(&name);
}

fn open_or_create_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| {
        mark();
        let segment = options().open_or_create(&name.0).unwrap();
        mark();
        drop(segment);
    });
    next(&name);
}

/// Opens or creates the name while another process is about to die in the same call.
fn want(name: &Name) {
    let segment = options().open_or_create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
}

fn open_beside_a_rival(run: &mut Run) {
    let name = Name::new("steps");
    let life = || {
        mark();
        let segment = options().open_or_create(&name.0).unwrap();
        mark();
        drop(segment);
    };
    run.victim_beside(life, || want(&name));
    next(&name);
}

fn leave_beside_a_rival(run: &mut Run) {
    let name = Name::new("steps");
    let life = || {
        let segment = options().create(&name.0).unwrap();
        mark();
        drop(segment);
        mark();
    };
    run.victim_beside(life, || want(&name));
    next(&name);
}

fn open_name(run: &mut Run) {
    let name = Name::new("steps");
    let segment = options().create(&name.0).unwrap();
    run.victim(|| {
        mark();
        let segment = options().open(&name.0).unwrap();
        mark();
        drop(segment);
    });
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
    drop((table, segment));
    assert!(!name.exists(), "the name is left behind");
    next(&name);
}

fn leave_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| {
        let segment = options().create(&name.0).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        table.zeros::<u64, _>(5).unwrap();
        mark();
        drop((table, segment));
        mark();
    });
    next(&name);
}
