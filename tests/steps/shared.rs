//! Operations of a table that the threads of a process share.

use std::time::Duration;

use ndarray::Axis;
use ndshm::element::Order;
use ndshm::partition::{AccessMode, Entered, OwnedMember, OwnedPartition, UntypedGroup};
use ndshm::untyped::Mode;
use ndshm::{Element, Grid, PartitionHandle, SharedTable};

use crate::ground::{Ground, Vector, options};
use crate::operations::Operation;
use crate::rounds::end_of_a_round;
use crate::run::Run;
use crate::support::DEADLINE;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("shared: join and leave", join_and_leave),
    ("shared: the first use after a fork", first_use),
    ("shared: allocate and free", allocate),
    ("shared: build and publish", build),
    ("shared: build and drop", build_in_vain),
    ("shared: free and give pages back", give_back),
    ("shared: build where a longer array was", build_shorter),
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
    ("shared: a round of one's own", own_round),
    (
        "shared: two participants of one seat in another's round",
        two_participants,
    ),
    ("shared: wait for a round and for its end", wait),
    ("shared: send a tile back", again),
    ("shared: leave with a pin", leave_with_a_pin),
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

fn build_shorter(run: &mut Run) {
    let ground = Ground::of(options().capacity(8 << 20).retain(2 << 20));
    run.victim(|| {
        let table = SharedTable::of(ground.table.segment()).unwrap();
        let long = table.zeros::<u8, _>(2 << 20).unwrap();
        table.write(long).unwrap().fill(1);
        table.free(long).unwrap();
        mark();
        let array = table.builder(&u8::dtype(), &[(1 << 20) + 1], Order::C);
        array.unwrap().publish().unwrap();
        mark();
    });
    ground.survive(run);
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

fn enter(tiles: &mut OwnedPartition, table: &SharedTable) -> OwnedMember {
    match tiles.enter_next(table, 0, DEADLINE).unwrap() {
        Entered::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

/// Claims a tile and fills it with ones. Returns `false` if none is left.
fn run_tile(member: &mut OwnedMember, table: &SharedTable) -> bool {
    let Some(token) = member.claim(table).unwrap() else {
        return false;
    };
    let first = member.parts(table, token).unwrap()[0].first();
    // SAFETY: the tile is claimed and writable, and has one `u64`.
    unsafe { first.cast::<u64>().write(1) };
    member.done(table, token).unwrap();
    true
}

fn own_round(run: &mut Run) {
    simple(run, |table, array| {
        let group = UntypedGroup::new([(array.into(), AccessMode::Write)]);
        let grid = Grid::blocks([(Axis(0), 1)]);
        let mut tiles = table.partition_untyped(group, &grid).unwrap();
        let mut round = tiles.begin(table).unwrap();
        let mut member = enter(&mut tiles, table);
        while run_tile(&mut member, table) {}
        member.leave(table).unwrap();
        assert!(round.try_finish(table).unwrap());
        tiles.free(table).unwrap();
    });
}

fn again(run: &mut Run) {
    simple(run, |table, array| {
        let group = UntypedGroup::new([(array.into(), AccessMode::Write)]);
        let grid = Grid::blocks([(Axis(0), 1)]);
        let mut tiles = table.partition_untyped(group, &grid).unwrap();
        let mut round = tiles.begin(table).unwrap();
        let mut member = enter(&mut tiles, table);
        while run_tile(&mut member, table) {}
        member.leave(table).unwrap();
        assert_eq!(round.again(table, [0]).unwrap(), 1);
        let mut member = enter(&mut tiles, table);
        assert!(run_tile(&mut member, table));
        member.leave(table).unwrap();
        assert!(round.try_finish(table).unwrap());
        tiles.free(table).unwrap();
    });
}

fn leave_with_a_pin(run: &mut Run) {
    simple(run, |table, array| {
        let pin = table.pin(array).unwrap();
        // SAFETY: there are no guards and no builders, and this is the only thread.
        unsafe { table.leave([&pin]) }.unwrap();
    });
}

/// Runs `operation` in a victim, with a partition whose round the survivor has opened.
fn in_a_round(run: &mut Run, operation: impl FnOnce(&SharedTable, OwnedPartition)) {
    let ground = Ground::new();
    let group = ground.array.write();
    let tiles = ground.table.partition(group, Axis(0), 1).unwrap();
    let round = tiles.begin().unwrap();
    let name = PartitionHandle::from_bits(tiles.handle().to_bits());
    run.victim(|| {
        let table = SharedTable::of(ground.table.segment()).unwrap();
        let tiles = table.open_untyped(name).unwrap();
        mark();
        operation(&table, tiles);
        mark();
    });
    end_of_a_round(&ground, &tiles, round);
    drop(tiles);
    ground.survive(run);
}

/// Two participants of one seat hold tiles at once. One leaves before the other has run its tile, and
/// the other is dropped.
fn two_participants(run: &mut Run) {
    in_a_round(run, |table, mut tiles| {
        let [mut first, mut second] = [(); 2].map(|()| enter(&mut tiles, table));
        let token = first.claim(table).unwrap().unwrap();
        assert!(run_tile(&mut second, table));
        second.leave(table).unwrap();
        let part = first.parts(table, token).unwrap()[0].first();
        // SAFETY: the tile is claimed and writable, and has one `u64`.
        unsafe { part.cast::<u64>().write(1) };
        first.done(table, token).unwrap();
        drop(first);
        table.reap().unwrap();
    });
}

fn wait(run: &mut Run) {
    in_a_round(run, |table, mut tiles| {
        let mut member = enter(&mut tiles, table);
        assert!(run_tile(&mut member, table));
        member.leave(table).unwrap();
        let nap = Duration::from_micros(10);
        tiles.wait_finished(table, 1, nap).unwrap_err();
    });
}
