//! The crate's internal arrays: a pool's mailbox, the results and parameters of its calls, the
//! records of names. No handle that a program makes up leads to them.
#![expect(
    clippy::disallowed_types,
    reason = "messages between a test's threads are outside the segment"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, NameError};
use ndshm::{AnyHandle, Bundle, Handle, HandleTable, Observer, Pool, QueueHandle, TileContext};
use support::{Child, DEADLINE, Flag, table};

/// Parameters that do not fit beside the arguments of a call.
type Long = [u64; 40];

/// Returns handles of the segment of `known`: one for each slot that a small test uses, without
/// `users`.
fn forged(known: AnyHandle, users: &[AnyHandle]) -> Vec<AnyHandle> {
    let bits = known.to_bits();
    (0..1024)
        .flat_map(|slot| (0..64).map(move |generation| slot ^ generation << 32))
        .map(|change| AnyHandle::from_bits(bits ^ change))
        .filter(|handle| !users.contains(handle))
        .collect()
}

/// Tries all calls that expose bytes, with a handle that no program was given.
fn assert_no_bytes(table: &HandleTable, observer: &Observer, handle: AnyHandle) {
    let typed = Handle::<u8, Ix1>::from_bits(handle.to_bits());
    let words = Handle::<u64, Ix1>::from_bits(handle.to_bits());
    table.read_untyped(handle).map(drop).unwrap_err();
    table.write_untyped(handle).map(drop).unwrap_err();
    table.read(typed).map(drop).unwrap_err();
    table.write(typed).map(drop).unwrap_err();
    table.read(words).map(drop).unwrap_err();
    table.write(words).map(drop).unwrap_err();
    table.attach(typed).map(drop).unwrap_err();
    table.recover(words, |_| ()).unwrap_err();
    table.info(handle).unwrap_err();
    table.prefault(handle).unwrap_err();
    table
        .partition(words.write(), Axis(0), 1)
        .map(drop)
        .unwrap_err();
    #[cfg(feature = "arrow")]
    table.lend_arrow(typed).map(drop).unwrap_err();
    #[cfg(feature = "serde")]
    table.open_object(handle).map(drop).unwrap_err();
    observer.attach(typed).map(drop).unwrap_err();
    observer.info(handle).unwrap_err();
    observer.copy_bytes(handle, 0, &mut [0]).unwrap_err();
}

/// Tries all calls that change a handle's array. Returns `true` if they report it as internal.
fn assert_no_change(table: &HandleTable, bundle: &Bundle<'_>, handle: AnyHandle) -> bool {
    bundle.insert("forged", handle).unwrap_err();
    let freed = table.free(handle).unwrap_err();
    let internal = matches!(freed, LeaseError::Internal { .. });
    for changed in [
        table.adopt(handle),
        table.detach(handle),
        table.clear_poison(handle),
    ] {
        let is_told = matches!(changed, Err(LeaseError::Internal { .. }));
        assert_eq!(is_told, internal, "{changed:?}");
    }
    for named in [
        table.publish("forged", handle),
        table.replace("forged", handle).map(drop),
    ] {
        let is_told = matches!(named, Err(NameError::Lease(LeaseError::Internal { .. })));
        assert_eq!(is_told, internal, "{named:?}");
    }
    internal
}

/// Set when the observing thread has seen the call.
static SEEN: AtomicBool = AtomicBool::new(false);
/// Set when a tile of that call has its result.
static RUNNING: AtomicBool = AtomicBool::new(false);

fn forged_handles_do_not_reach_the_memory_of_a_call() {
    let table = table();
    let segment = table.segment().clone();
    let x = table.zeros::<u64, _>(64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let known = AnyHandle::from(x);
    let users = [known, tiles.handle().into()];
    let mut pool = Pool::threads(&table, 2).unwrap();
    let onlooker = std::thread::spawn(move || {
        let mine = HandleTable::join(&segment).unwrap();
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        support::eventually("a result", || RUNNING.load(Ordering::Relaxed));
        let listed: Vec<AnyHandle> = mine.arrays().map(|info| info.handle).collect();
        assert_eq!(listed, [known]);
        let observed: Vec<AnyHandle> = observer.arrays().map(|info| info.handle).collect();
        assert_eq!(observed, [known]);
        let bundle = mine.bundle().unwrap();
        let users = [users[0], users[1], bundle.handle().into()];
        let mut internal = 0;
        for handle in forged(known, &users) {
            assert_no_bytes(&mine, &observer, handle);
            internal += usize::from(assert_no_change(&mine, &bundle, handle));
        }
        assert!(mine.verify().unwrap().is_clean());
        SEEN.store(true, Ordering::Relaxed);
        internal
    });
    let kernel = |mut x: ndarray::ArrayViewMut1<u64>, long: &Long, tile: &TileContext<'_>| {
        let start = Instant::now();
        while tile.index() == 9 && !SEEN.load(Ordering::Relaxed) && start.elapsed() < DEADLINE {
            RUNNING.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
        x.fill(1);
        long[tile.index() % 40] + tile.index() as u64
    };
    let long: Long = std::array::from_fn(|at| 1000 * at as u64);
    let results = pool.map_collect(&tiles, &long, kernel).unwrap();
    let expected = (0..64).map(|at| 1000 * (at % 40) + at);
    assert!(results.into_iter().eq(expected));
    // The mailbox, the results, the parameters.
    assert_eq!(onlooker.join().unwrap(), 3);
    assert_eq!(table.arrays().count(), 1);
    drop(pool);
    assert_eq!(table.verify().unwrap().live, 2, "array and partition");
}

fn the_memory_of_a_call_is_freed_with_its_dead_parent() {
    let table = table();
    let flag = Flag::new();
    let number = flag.number;
    let child = Child::fork(|| {
        let x = table.zeros::<u64, _>(4).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 2).unwrap();
        let kernel = |_: ndarray::ArrayViewMut1<u64>, long: &Long, _: &TileContext<'_>| -> u64 {
            Flag::raise(long[0]);
            std::thread::sleep(Duration::from_secs(1000));
            0
        };
        let _ = pool.map_collect(&tiles, &[number; 40], kernel);
    });
    Flag::wait(number);
    // The array, the partition, the mailbox, the results, the parameters.
    assert_eq!(table.verify().unwrap().live, 5);
    child.kill();
    table.reap().unwrap();
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.live, found.retired, found.reserved), (0, 0, 0));
}

fn forged_handles_do_not_reach_the_records_of_names() {
    let table = table();
    let names: Vec<String> = (0..100).map(|at| format!("name/{at}")).collect();
    let arrays: Vec<Handle<u64, Ix1>> =
        (0..100).map(|at| table.from_elem(1, at).unwrap()).collect();
    for (name, array) in names.iter().zip(&arrays) {
        table.publish(name, *array).unwrap();
    }
    let bundle = table.bundle().unwrap();
    let part = table.from_elem(3, 7u8).unwrap();
    bundle.insert("part", part).unwrap();
    let queue = table.queue::<u32>(4).unwrap();
    let mut users: Vec<AnyHandle> = arrays.iter().map(|&array| array.into()).collect();
    let others: [AnyHandle; 3] = [part.into(), bundle.handle().into(), queue.handle().into()];
    users.extend(others);
    let listed = table.names("").unwrap();
    let attacker = HandleTable::join(table.segment()).unwrap();
    let observer = Observer::from_fd(table.segment().inheritable_fd().unwrap()).unwrap();
    let empty = attacker.bundle().unwrap();
    users.push(empty.handle().into());
    let records = table.verify().unwrap().live - users.len();
    let mut internal = 0;
    for handle in forged(arrays[0].into(), &users) {
        assert_no_bytes(&attacker, &observer, handle);
        internal += usize::from(assert_no_change(&attacker, &empty, handle));
    }
    drop(empty);
    drop(attacker);
    assert!(records > 10, "few buckets have names: {records}");
    assert_eq!(internal, records, "each record was tried");
    assert_eq!(table.names("").unwrap(), listed);
    assert_eq!(observer.names("").unwrap(), listed);
    for (name, array) in names.iter().zip(&arrays) {
        assert_eq!(table.find::<u64, Ix1>(name).unwrap(), *array);
    }
    assert_eq!(bundle.get::<u8, Ix1>("part").unwrap(), part);
    table.publish("another", arrays[0]).unwrap();
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
}

fn handles_of_all_kinds_can_be_named_adopted_and_freed() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let x = table.zeros::<u8, _>(8).unwrap();
    let queue = table.queue::<u8>(2).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    let bundle = table.bundle().unwrap();
    let handles = [
        x.into(),
        queue.handle().into(),
        tiles.handle().into(),
        bundle.handle().into(),
    ];
    for (at, handle) in handles.into_iter().enumerate() {
        let name = at.to_string();
        table.publish(&name, handle).unwrap();
        assert_eq!(other.find_any(&name).unwrap(), handle);
        table.detach(handle).unwrap();
        other.adopt(handle).unwrap();
        other.free(handle).unwrap();
        assert!(matches!(
            other.find_any(&name),
            Err(NameError::NotFound { .. })
        ));
        assert!(matches!(other.free(handle), Err(LeaseError::Stale { .. })));
    }
    let stale = table.open_queue(QueueHandle::<u8>::from_bits(handles[1].to_bits()));
    assert!(stale.is_err());
}

fn main() {
    support::run_tests![
        forged_handles_do_not_reach_the_memory_of_a_call,
        the_memory_of_a_call_is_freed_with_its_dead_parent,
        forged_handles_do_not_reach_the_records_of_names,
        handles_of_all_kinds_can_be_named_adopted_and_freed,
    ];
}
