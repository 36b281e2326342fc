//! Operations on arrays: allocating, freeing, leases, poison.

use ndshm::element::{OpaqueType, Order};
use ndshm::untyped::Mode;
use ndshm::{Element, HandleTable};

use crate::ground::{Ground, options};
use crate::operations::{Operation, dead, prepared, simple};
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("allocate in a new span", allocate),
    ("allocate a recycled extent", allocate_recycled),
    ("allocate 2 MiB", allocate_large),
    ("allocate where a longer array was", allocate_shorter),
    ("allocate without publishing", abandon),
    ("build and publish", build),
    ("build, suspend, resume and publish", build_in_steps),
    ("build and drop", build_in_vain),
    ("make an opaque array from bytes", opaque),
    ("make an array of unspecified bytes", unspecified),
    ("free", free),
    ("free under a reader", free_under_a_reader),
    ("free under a writer of one's own", free_under_a_writer),
    ("give back the last lease of a freed array", last_lease),
    ("trim", trim),
    ("attach and info", attach),
    ("read and give back", read),
    ("write and give back", write),
    ("pin and give back", pin),
    ("pin a second time", pin_again),
    ("give back the last pin of a freed array", last_pin),
    ("free under a pin", free_under_a_pin),
    ("leave with a pin of a freed array", leave_with_a_pin),
    ("lock for writing and unlock", lock_and_unlock),
    ("unlock with poison", unlock_poisoned),
    ("lock for recovery and unlock", lock_to_recover),
    ("adopt and detach", own),
    ("adopt from the dead, and detach", own_from_the_dead),
    ("clear poison", clear_poison),
    ("recover", recover),
];

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

fn allocate_shorter(run: &mut Run) {
    // So little may be retained that the pages beyond the shorter array go back.
    let ground = Ground::of(options().capacity(8 << 20).retain(2 << 20));
    run.victim(|| {
        let table = ground.join();
        let long = table.from_elem(2 << 20, 1u8).unwrap();
        table.free(long).unwrap();
        mark();
        table.uninit::<u8, _>((1 << 20) + 1).unwrap();
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

fn build(run: &mut Run) {
    simple(run, |table, _| {
        let mut made = table.builder(&f32::dtype(), &[100], Order::C).unwrap();
        made.bytes_mut()[..4].fill(1);
        made.publish().unwrap();
    });
}

fn build_in_steps(run: &mut Run) {
    simple(run, |table, _| {
        let made = table.builder(&f32::dtype(), &[100], Order::C).unwrap();
        let made = made.suspend();
        // SAFETY: the table has just reserved these bytes, and keeps them.
        unsafe { made.bytes().cast::<u8>().write(1) };
        table.resume(made).unwrap().publish().unwrap();
    });
}

fn build_in_vain(run: &mut Run) {
    simple(run, |table, _| {
        let made = table.builder(&f32::dtype(), &[100], Order::C).unwrap();
        drop(table.resume(made.suspend()).unwrap());
    });
}

fn opaque(run: &mut Run) {
    let half = OpaqueType::new("<f2", 2, 2).unwrap().into();
    simple(run, |table, _| {
        table.from_bytes(&half, &[2], Order::C, &[1; 4]).unwrap();
    });
}

fn unspecified(run: &mut Run) {
    simple(run, |table, _| {
        table
            .uninit_untyped(&bool::dtype(), &[100], Order::C)
            .unwrap();
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

fn pin(run: &mut Run) {
    simple(run, |table, array| {
        assert_eq!(table.pin(array).unwrap().len(), 16);
    });
}

fn pin_again(run: &mut Run) {
    let pin = |table: &HandleTable, array| table.pin_raw(array).unwrap();
    prepared(run, pin, |table, array, mut first| {
        let mut second = table.pin_raw(array).unwrap();
        table.unpin(&mut first).unwrap();
        table.unpin(&mut second).unwrap();
    });
}

fn last_pin(run: &mut Run) {
    let free = |table: &HandleTable, array| {
        let pin = table.pin_raw(array).unwrap();
        table.free(array).unwrap();
        pin
    };
    prepared(run, free, |table, _, mut pin| {
        table.unpin(&mut pin).unwrap()
    });
}

fn free_under_a_pin(run: &mut Run) {
    let ground = Ground::new();
    let pinned = ground.table.pin(ground.array).unwrap();
    run.victim(|| {
        let table = ground.join();
        mark();
        table.free(ground.array).unwrap();
        mark();
    });
    ground.table.reap().unwrap();
    // Without the pin, one of these would overwrite the bytes of the freed array.
    let others: Vec<_> = (0..4)
        .map(|_| ground.table.from_elem(2, 1u64).unwrap())
        .collect();
    // SAFETY: nobody writes the array.
    assert!(unsafe { pinned.bytes() }.iter().all(|&byte| byte == 0));
    for other in others {
        ground.table.free(other).unwrap();
    }
    drop(pinned);
    ground.survive(run);
}

fn leave_with_a_pin(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let _pin = table.pin_raw(ground.array).unwrap();
        table.free(ground.array).unwrap();
        mark();
        drop(table);
        mark();
    });
    ground.survive(run);
}

fn lock_and_unlock(run: &mut Run) {
    simple(run, |table, array| {
        let mut locked = table.lock(array, Mode::Write).unwrap();
        // SAFETY: the array is locked for writing, and has two elements.
        unsafe { locked.bytes().cast::<[u64; 2]>().write([1; 2]) };
        table.unlock(&mut locked, false).unwrap();
    });
}

fn unlock_poisoned(run: &mut Run) {
    simple(run, |table, array| {
        let mut locked = table.lock(array, Mode::Write).unwrap();
        // SAFETY: as above.
        unsafe { locked.bytes().cast::<u64>().write(1) };
        table.unlock(&mut locked, true).unwrap();
    });
}

fn lock_to_recover(run: &mut Run) {
    let ground = poisoned();
    run.victim(|| {
        let table = ground.join();
        mark();
        let mut locked = table.lock(ground.array, Mode::Recover).unwrap();
        // SAFETY: as above.
        unsafe { locked.bytes().cast::<[u64; 2]>().write([1; 2]) };
        table.unlock(&mut locked, false).unwrap();
        mark();
    });
    ground.survive(run);
}

fn own(run: &mut Run) {
    let ground = Ground::new();
    ground.table.detach(ground.array).unwrap();
    adopt_and_detach(run, &ground, || ());
    ground.survive(run);
}

fn own_from_the_dead(run: &mut Run) {
    let ground = Ground::new();
    ground.table.detach(ground.array).unwrap();
    // Joining reaps: the victim joins before the owner dies.
    let owner = || {
        let table = std::mem::ManuallyDrop::new(ground.join());
        table.adopt(ground.array).unwrap();
    };
    adopt_and_detach(run, &ground, || dead(owner));
    ground.survive(run);
}

/// Adopts the ground's array, which nobody owns, or a participant that dies in `prepare`.
fn adopt_and_detach(run: &mut Run, ground: &Ground, prepare: impl FnOnce()) {
    run.victim(|| {
        let table = ground.join();
        prepare();
        mark();
        table.adopt(ground.array).unwrap();
        table.detach(ground.array).unwrap();
        mark();
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
