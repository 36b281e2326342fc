//! The counted calls. Each prepares its table, and is then repeated.

use std::hint::black_box;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2};
use ndshm::partition::{AccessMode, Entered, UntypedGroup};
use ndshm::untyped::Mode;
use ndshm::{Grid, Handle, HandleTable, Partition, Pool, Segment, SharedTable, Write};

use crate::tracer::mark;

/// Maximum number of repetitions of a call in a single-stepped process.
pub const REPEATS: usize = 32;

/// The timeout of a lease that need not wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// A call's name, and the function that repeats it.
pub type Call = (&'static str, fn());

/// The cost of an empty repetition, which is subtracted from each count.
pub const NOTHING: Call = ("nothing", || repeat(|| ()));

/// All counted calls. A timed figure of the same call has the same name.
pub const CALLS: &[Call] = &[
    ("churn/64B", || churn(64)),
    ("churn/8KiB", || churn(8 << 10)),
    ("attach/view", view),
    ("lease/read", read),
    ("lease/write", write),
    ("lease/read_timeout", read_timeout),
    ("lease/write_timeout", write_timeout),
    ("lock/lock+unlock", lock),
    ("lock/lock_timeout+unlock", lock_timeout),
    ("pin/pin+unpin", pin),
    ("shared/read", shared_read),
    ("shared/lock+unlock", shared_lock),
    ("shared/lock_while+unlock", shared_lock_while),
    ("shared/pin+unpin", shared_pin),
    ("tile/claim", claim),
    ("tile/claim by token", claim_by_token),
    ("unit/claim by a worker", unit),
    ("partition/open", open_partition),
    ("round/begin+give_up", begin),
    ("round/enter+leave", enter),
    ("round/go on+follow", go_on),
    ("find/one found before", find),
    ("publish+unpublish", publish),
    ("queue/push+pop", queue),
    ("queue/push+pop_with_ack+ack", queue_with_ack),
];

fn repeat<R>(mut call: impl FnMut() -> R) {
    for _ in 0..REPEATS {
        mark();
        black_box(call());
    }
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat")
}

fn array(table: &HandleTable) -> Handle<f64, Ix2> {
    table.zeros((1000, 3)).expect("memory for the bench")
}

fn churn(bytes: usize) {
    let table = table();
    repeat(|| {
        let handle = table.uninit::<u8, _>(bytes).expect("memory for the bench");
        table.free(handle).expect("nobody else frees it");
    });
}

fn view() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let attached = table.attach(x).expect("it lives");
        // SAFETY: nothing writes the array while a view of it is alive.
        let view = unsafe { attached.view_unsynchronized() };
        black_box(view.as_ptr())
    });
}

fn read() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let lease = table.read(x).expect("nobody writes");
        black_box(lease.view().as_ptr())
    });
}

fn write() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let mut lease = table.write(x).expect("nobody else has it");
        black_box(lease.view_mut().as_mut_ptr())
    });
}

fn read_timeout() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let lease = table.read_timeout(x, PATIENCE).expect("nobody writes");
        black_box(lease.view().as_ptr())
    });
}

fn write_timeout() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let mut lease = table.write_timeout(x, PATIENCE).expect("nobody has it");
        black_box(lease.view_mut().as_mut_ptr())
    });
}

fn lock() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let mut locked = table.lock(x, Mode::Write).expect("nobody else has it");
        table.unlock(&mut locked, false).expect("it is held");
    });
}

fn lock_timeout() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let locked = table.lock_timeout(x, Mode::Write, PATIENCE);
        let mut locked = locked.expect("nobody has it");
        table.unlock(&mut locked, false).expect("it is held");
    });
}

fn pin() {
    let table = table();
    let x = array(&table);
    repeat(|| table.pin(x).expect("it lives").as_ptr());
}

fn shared_table() -> (SharedTable, Handle<f64, Ix2>) {
    let table = table();
    let x = array(&table);
    (SharedTable::new(table), x)
}

fn shared_read() {
    let (table, x) = shared_table();
    repeat(|| {
        let lease = table.read(x).expect("nobody writes");
        black_box(lease.view().as_ptr())
    });
}

fn shared_lock() {
    let (table, x) = shared_table();
    repeat(|| {
        let mut locked = table.lock(x, Mode::Write).expect("nobody else has it");
        table.unlock(&mut locked, false).expect("it is held");
    });
}

/// Repeats a lease that can be interrupted, and need not wait. `lock_timeout` is such a lease.
fn shared_lock_while() {
    let (table, x) = shared_table();
    repeat(|| {
        let locked = table.lock_while(x, Mode::Write, PATIENCE, || true);
        let mut locked = locked.expect("nobody has it");
        table.unlock(&mut locked, false).expect("it is held");
    });
}

fn shared_pin() {
    let (table, x) = shared_table();
    repeat(|| table.pin(x).expect("it lives").as_ptr());
}

/// Repeats a claim. The tiles are few enough that each has its own claim word.
fn claim() {
    let table = table();
    let x = table
        .zeros::<f64, _>(2 * REPEATS * 8)
        .expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 8).expect("an axis");
    let round = tiles.begin().expect("nobody else has it");
    let mut part = tiles.enter().expect("it lives").expect("the round runs");
    repeat(|| {
        let mut tile = part.claim().expect("valid").expect("tiles are left");
        black_box(tile.views().as_mut_ptr())
    });
    drop(part);
    drop(round);
}

/// Repeats the claim of a tile by a value without a lifetime, and its release.
fn claim_by_token() {
    let table = table();
    let x = table
        .zeros::<f64, _>(2 * REPEATS * 8)
        .expect("memory for the bench");
    let table = SharedTable::new(table);
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let mut tiles = table
        .partition_untyped(group, &Grid::blocks([(Axis(0), 8)]))
        .expect("an axis");
    let round = tiles.begin(&table).expect("nobody else has it");
    let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO).expect("valid")
    else {
        panic!("the round runs");
    };
    repeat(|| {
        let token = member
            .claim(&table)
            .expect("valid")
            .expect("tiles are left");
        member.done(&table, token).expect("it is out");
    });
    drop(member);
    drop(round);
}

/// Returns a partition into two tiles.
fn two(table: &HandleTable) -> Partition<'_, Write<f64, Ix1>> {
    let x = table.zeros::<f64, _>(2).expect("memory for the bench");
    table.partition(x.write(), Axis(0), 1).expect("an axis")
}

/// Repeats what a worker does from a unit of 16 tiles to the next.
fn unit() {
    let table = table();
    let x = table
        .zeros::<f64, _>(8 * 32_768)
        .expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 8).expect("an axis");
    let mut pool = Pool::serial(&table).expect("the parent's thread");
    let run = pool.run(&tiles.handle(), |worker, &tiles| {
        let tiles = worker.table().open_partition(tiles)?;
        let mut units = 0;
        worker.for_each_unit(&tiles, |mut x, _| {
            black_box(x.as_mut_ptr());
            if units < REPEATS {
                mark();
            }
            units += 1;
        })
    });
    run.expect("a run");
}

fn open_partition() {
    let table = table();
    let tiles = two(&table);
    let handle = tiles.handle();
    repeat(|| drop(table.open_partition(handle).expect("it lives")));
}

fn begin() {
    let table = table();
    let tiles = two(&table);
    repeat(|| drop(tiles.begin().expect("nobody else has it")));
}

fn enter() {
    let table = table();
    let tiles = two(&table);
    let round = tiles.begin().expect("nobody else has it");
    repeat(|| drop(tiles.enter().expect("it lives")));
    drop(round);
}

/// Repeats the step to the next round of a partition without tiles, all of which are done.
fn go_on() {
    let table = table();
    let x = table.zeros::<f64, _>(0).expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let mut round = Some(tiles.begin().expect("nobody else has it"));
    let mut part = tiles.enter().expect("it lives").expect("the round runs");
    repeat(|| {
        let next = round.take().and_then(|round| round.try_next().ok());
        round = next.map(|next| next.expect("its array lives"));
        assert!(part.follow(), "the round runs");
    });
    drop(part);
}

fn find() {
    let table = table();
    let x = array(&table);
    table.publish("weights", x).expect("nothing has the name");
    repeat(|| {
        table
            .find::<f64, Ix2>(black_box("weights"))
            .expect("it is there")
    });
}

fn publish() {
    let table = table();
    let x = array(&table);
    repeat(|| {
        let name = black_box("weights");
        table.publish(name, x).expect("nothing has the name");
        table.unpublish(name).expect("it is there")
    });
}

fn queue() {
    let table = table();
    let queue = table.queue::<[u64; 2]>(256).expect("memory for the bench");
    repeat(|| {
        queue.push(black_box([1, 2])).expect("it has room");
        queue.pop().expect("it lives").expect("a job")
    });
}

fn queue_with_ack() {
    let table = table();
    let queue = table.queue::<[u64; 2]>(256).expect("memory for the bench");
    repeat(|| {
        queue.push(black_box([1, 2])).expect("it has room");
        let job = queue.pop_with_ack().expect("it lives").expect("a job");
        job.ack().expect("this process popped it");
    });
}
