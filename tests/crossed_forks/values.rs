//! The table: one row for each value, with the behaviour of its methods in a child.

use std::time::Duration;

use ndarray::{Axis, Ix1};
use ndshm::{
    BundleError, BundleHandle, Error, Handle, HandleTable, LeaseError, Pool, PoolError, PushError,
    Queue, QueueError, RoundError, Segment, TileContext,
};

use crate::InChild::{DoesNothing, Looks, Private, Refuses, Rejoins};
use crate::{Ground, Row};

type Vector = Handle<u64, Ix1>;

/// All rows.
pub const METHODS: &[Row] = &[
    (
        "Segment",
        "capacity, seats, arrays, name, fd",
        Private,
        segment,
    ),
    (
        "Segment",
        "inheritable_fd, persist, is_persistent",
        Looks,
        segment_words,
    ),
    (
        "HandleTable",
        "seat, zeros, read, write, free, adopt, detach, ..",
        Rejoins,
        table,
    ),
    (
        "HandleTable",
        "info, arrays, names, find_any, census, verify",
        Looks,
        table_looks,
    ),
    ("HandleTable", "owned", Rejoins, table_owned),
    ("arrays()", "next", Looks, iterator),
    ("from_shape_fn", "forks in the middle", Refuses, builder),
    (
        "Queue",
        "push, pop, push_timeout, pop_timeout",
        Rejoins,
        queue_calls,
    ),
    ("Queue", "close", Rejoins, queue_close),
    (
        "Queue",
        "len, is_closed, is_empty, is_drained, Debug",
        Rejoins,
        queue_looks,
    ),
    ("Queue", "capacity, handle", Private, queue_private),
    ("Queue", "drop", DoesNothing, queue_drop),
    ("Queue, alive", "all", Rejoins, queue_alive),
    (
        "Bundle",
        "insert, get, remove, parts, freeze, is_frozen",
        Rejoins,
        bundle,
    ),
    (
        "Partition",
        "handle, group, tiles, range, sides, axis",
        Private,
        partition_private,
    ),
    ("Partition", "progress, begin, enter", Rejoins, partition),
    ("Partition", "drop", DoesNothing, partition_drop),
    ("Round", "finish, try_finish", Refuses, round),
    ("Round", "done", Rejoins, round_done),
    ("Round", "drop, number", DoesNothing, round_drop),
    (
        "Participant",
        "claim, round, drop",
        DoesNothing,
        participant,
    ),
    (
        "Tile",
        "index, range, sides, round, tear, drop",
        DoesNothing,
        tile,
    ),
    ("ReadGuard, WriteGuard", "handle, drop", DoesNothing, guards),
    ("Untyped guards", "drop", DoesNothing, untyped_guards),
    ("Owned", "handle, into_handle, drop", DoesNothing, owned),
    ("Attached", "shape, dim", Private, attached),
    #[cfg(feature = "serde")]
    ("ObjectGuard", "get", Refuses, object),
    #[cfg(feature = "serde")]
    ("ObjectGuard", "handle, drop", DoesNothing, object_drop),
    #[cfg(feature = "arrow")]
    ("lent Arrow array", "drop", DoesNothing, lent),
    (
        "Pool",
        "for_each, run, broadcast, map_collect, start, prefault",
        Refuses,
        pool,
    ),
    (
        "Pool",
        "pids, workers, deaths, seed, stats, set_profiling, drop",
        DoesNothing,
        pool_private,
    ),
    ("RunningCall", "wait_any, finish", Refuses, running),
    ("RunningCall", "done, drop", DoesNothing, running_drop),
    ("ReadyTile", "index, range, rerun, drop", DoesNothing, ready),
    ("WorkerContext", "barrier, for_each", Refuses, worker),
    ("Observer", "arrays, seats, names, verify", Looks, observer),
];

fn is_stale(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Stale { .. })
}

fn segment(ground: &Ground) {
    let segment = ground.table.segment().clone();
    let (capacity, seats, arrays) = (segment.capacity(), segment.seats(), segment.arrays());
    ground.cross(segment, |segment| {
        assert_eq!(segment.capacity(), capacity);
        assert_eq!((segment.seats(), segment.arrays()), (seats, arrays));
        assert!(segment.name().is_none() && segment.fd().is_some());
    });
}

fn segment_words(ground: &Ground) {
    ground.cross(ground.table.segment().clone(), |segment| {
        let again = Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        HandleTable::join(&again).unwrap();
        assert!(!segment.is_persistent());
    });
}

fn table(ground: &Ground) {
    let table = HandleTable::join(ground.table.segment()).unwrap();
    let theirs = table.seat().unwrap();
    let x: Vector = table.zeros(7).unwrap();
    ground.cross(table, |table| {
        assert!(is_stale(&table.read(x).unwrap_err()));
        assert!(is_stale(&table.write(x).unwrap_err()));
        assert!(is_stale(&table.adopt(x).unwrap_err()));
        assert!(is_stale(&table.detach(x).unwrap_err()));
        assert!(table.free(x).is_err());
        let y: Vector = table.from_elem(9, 3).unwrap();
        table.publish("y", y).unwrap();
        assert_eq!(table.read(y).unwrap().sum(), 27);
        assert_eq!(table.info(y).unwrap().owner, Some(std::process::id()));
        table.free(y).unwrap();
        table.trim().unwrap();
        let _ = (table.seat().unwrap(), theirs);
    });
}

fn table_looks(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.table.publish("x", x).unwrap();
    ground.cross(&ground.table, |table| {
        assert!(table.arrays().any(|info| info.handle == x.into()));
        assert_eq!(table.find_any("x").unwrap(), x.into());
        assert_eq!(table.names("").unwrap().len(), 1);
        assert!(table.info(x).is_ok() && table.verify().unwrap().is_clean());
    });
}

fn table_owned(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.cross(&ground.table, |table| drop(table.owned(x)));
    assert!(
        is_stale(&ground.table.read(x).unwrap_err()),
        "the child's guard frees it"
    );
}

fn iterator(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.table.zeros::<u64, _>(9).unwrap();
    let mut arrays = ground.table.arrays();
    assert_eq!(arrays.next().unwrap().handle, x.into());
    ground.cross(arrays, |arrays| assert!(arrays.count() > 1));
}

fn builder(ground: &Ground) {
    let mut child = None;
    let made = ground.table.from_shape_fn(3, |i| {
        if i == 1 {
            // SAFETY: this test binary has one thread.
            child = Some(unsafe { libc::fork() });
        }
        i as u64
    });
    if child == Some(0) {
        crate::support::exit_at_once(i32::from(!matches!(made, Err(ndshm::AllocError::Forked))));
    }
    let mut status = 0;
    // SAFETY: `status` is a place to write to; the pid is of an own child, which ends by itself.
    unsafe { libc::waitpid(child.unwrap(), &raw mut status, 0) };
    assert_eq!((status, made.is_ok()), (0, true));
}

fn queue_calls(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    ground.cross(queue, |queue| {
        let failed = |refused: &PushError<u64>| match refused {
            PushError::Failed {
                job: 1,
                error: QueueError::Lease(error),
            } => is_stale(error),
            _ => false,
        };
        let now = Duration::ZERO;
        assert!(queue.push(1).is_err_and(|refused| failed(&refused)));
        assert!(
            queue
                .push_timeout(1, now)
                .is_err_and(|refused| failed(&refused))
        );
        for popped in [queue.pop(), queue.pop_timeout(now)] {
            assert!(matches!(popped, Err(QueueError::Lease(error)) if is_stale(&error)));
        }
    });
}

fn queue_close(ground: &Ground) {
    ground.cross(ground.table.queue::<u64>(8).unwrap(), |queue| queue.close());
}

fn queue_looks(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    queue.push(1).unwrap();
    ground.cross(queue, |queue: Queue<'_, u64>| {
        assert!(queue.is_closed() && queue.is_drained() && queue.is_empty());
        assert_eq!(queue.len(), 0);
        assert!(format!("{queue:?}").contains("closed: true"));
    });
}

fn queue_private(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    let name = queue.handle();
    ground.cross(queue, |queue| {
        assert_eq!((queue.capacity(), queue.handle()), (8, name));
    });
}

fn queue_drop(ground: &Ground) {
    let mut queue = Some(ground.table.queue::<u64>(8).unwrap());
    ground.cross_kept(&mut queue, |queue| drop(queue.take()));
    let queue = queue.unwrap();
    queue.push(1).unwrap();
    assert_eq!(queue.pop().unwrap(), Some(1));
}

/// Calls each method on a queue that the parent keeps, the usual case: all work in the child.
fn queue_alive(ground: &Ground) {
    let mut queue = ground.table.queue::<u64>(8).unwrap();
    queue.push(1).unwrap();
    ground.cross_kept(&mut queue, |queue| {
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
        assert!(!queue.is_closed() && !queue.is_drained());
        assert_eq!(queue.pop().unwrap(), Some(1));
        queue.push(2).unwrap();
        queue.close();
    });
    assert!(queue.is_closed() && !queue.is_drained());
    assert_eq!(queue.pop().unwrap(), Some(2));
}

fn bundle(ground: &Ground) {
    let table = &ground.table;
    let bundle = table.bundle().unwrap();
    bundle
        .insert("x", table.from_elem(3, 1u64).unwrap())
        .unwrap();
    let name: BundleHandle = bundle.handle();
    let child = |bundle: ndshm::Bundle<'_>| {
        let stale = |error: BundleError| matches!(error, BundleError::Lease(e) if is_stale(&e));
        // This call comes first, because later calls would find the child's refusal.
        assert!(bundle.is_frozen(), "a freed bundle takes no parts");
        let own: Vector = table.zeros(3).unwrap();
        assert!(stale(bundle.insert("y", own).unwrap_err()));
        assert!(stale(bundle.get::<u64, Ix1>("x").unwrap_err()));
        assert!(stale(bundle.get_any("x").unwrap_err()));
        assert!(stale(bundle.remove("x").unwrap_err()));
        assert!(stale(bundle.parts().unwrap_err()));
        assert!(stale(bundle.freeze().unwrap_err()));
        assert_eq!(bundle.handle(), name);
    };
    let free = |bundle: ndshm::Bundle<'_>| {
        let name = bundle.handle();
        drop(bundle);
        table.free(name).unwrap();
    };
    ground.cross_and_end(bundle, free, child);
}

fn partition_private(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let name = tiles.handle();
    ground.cross(tiles, |tiles| {
        assert!(tiles.handle().to_bits() == name.to_bits());
        assert_eq!(
            (tiles.tiles(), tiles.axis(), tiles.range(3)),
            (10, Axis(0), 30..40)
        );
        assert_eq!(tiles.sides(3).count(), 1);
        assert_eq!(tiles.group().handle(), x);
    });
}

fn partition(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    ground.cross(tiles, |tiles| {
        assert!(is_stale(&tiles.progress().unwrap_err()));
        let stale = |error: RoundError| matches!(error, RoundError::Lease(e) if is_stale(&e));
        assert!(tiles.begin().is_err_and(stale));
        assert!(tiles.enter().is_err_and(stale));
        assert!(tiles.enter_at(0, 1).is_err_and(stale));
    });
}

fn partition_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let mut tiles = Some(ground.table.partition(x.write(), Axis(0), 10).unwrap());
    ground.cross_kept(&mut tiles, |tiles| drop(tiles.take()));
    assert_eq!(tiles.unwrap().progress().unwrap().tiles, 10);
}

fn round(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    for patient in [true, false] {
        let round = tiles.begin().unwrap();
        ground.cross(round, |round| {
            let ended = match patient {
                true => round.finish(Duration::ZERO),
                false => round.try_finish().unwrap(),
            };
            assert!(matches!(ended, Err(RoundError::Forked)));
        });
    }
    assert!(ground.table.write(x).is_ok());
}

fn round_done(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    drop(part.claim().unwrap());
    drop(part);
    ground.cross_kept(&mut round, |round| assert_eq!(round.done(), 1));
    ground.cross(round, |round| assert_eq!(round.done(), 1));
}

fn round_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut round = Some(tiles.begin().unwrap());
    ground.cross_kept(&mut round, |round| {
        assert_eq!(round.as_ref().unwrap().number(), 1);
        drop(round.take());
    });
    assert!(
        tiles.progress().unwrap().running,
        "the child ended the round"
    );
    assert!(ground.table.write(x).is_err());
}

fn participant(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap();
    ground.cross_kept(&mut part, |crossed| {
        let part = crossed.as_mut().unwrap();
        assert_eq!(part.round(), 1);
        assert!(part.claim().unwrap().is_none());
        drop(crossed.take());
    });
    assert_eq!(tiles.progress().unwrap().held, 0);
    let mut part = part.unwrap();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(crate::support::DEADLINE).unwrap();
}

fn tile(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let mut tile = part.claim().unwrap();
    for tear in [true, false] {
        ground.cross_kept(&mut tile, |tile| {
            let tile = tile.take().unwrap();
            assert_eq!((tile.index(), tile.range(), tile.round()), (0, 0..10, 1));
            assert_eq!(tile.sides().count(), 1);
            if tear {
                tile.tear();
            }
        });
        assert_eq!(tiles.progress().unwrap().held, 1);
    }
    drop(tile);
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(crate::support::DEADLINE).unwrap();
}

fn guards(ground: &Ground) {
    let (x, y): (Vector, Vector) = (
        ground.table.zeros(3).unwrap(),
        ground.table.zeros(3).unwrap(),
    );
    let mut guards = Some((
        ground.table.read(x).unwrap(),
        ground.table.write(y).unwrap(),
    ));
    ground.cross_kept(&mut guards, |guards| {
        let (read, write) = guards.take().unwrap();
        assert_eq!((read.handle(), write.handle()), (x.into(), y.into()));
    });
    let held = |handle: Vector| ground.table.write(handle).is_err();
    assert!(held(x) && held(y), "the child released a lease");
}

fn untyped_guards(ground: &Ground) {
    let (x, y): (Vector, Vector) = (
        ground.table.zeros(3).unwrap(),
        ground.table.zeros(3).unwrap(),
    );
    let table = &ground.table;
    let mut guards = Some((
        table.read_untyped(x).unwrap(),
        table.write_untyped(y).unwrap(),
    ));
    ground.cross_kept(&mut guards, |guards| drop(guards.take()));
    let held = |handle: Vector| table.write(handle).is_err();
    assert!(held(x) && held(y), "the child released a lease");
}

fn owned(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    for keep in [true, false] {
        let mut owned = Some(ground.table.owned(x));
        ground.cross_kept(&mut owned, |owned| {
            let owned = owned.take().unwrap();
            assert_eq!(owned.handle(), x);
            if keep {
                owned.into_handle();
            }
        });
        assert_eq!(owned.unwrap().into_handle(), x);
        assert!(ground.table.read(x).is_ok());
    }
}

fn attached(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    ground.cross(ground.table.attach(x).unwrap(), |attached| {
        assert_eq!((attached.shape(), attached.dim()), (&[3][..], 3));
    });
}

#[cfg(feature = "serde")]
fn object(ground: &Ground) {
    let name = ground.table.put_object("a text").unwrap();
    let guard = ground.table.open_object(name).unwrap();
    ground.cross(guard, |guard| {
        let refused = guard.get::<&str>().unwrap_err();
        assert!(matches!(refused, ndshm::ObjectError::Forked), "{refused}");
        // Apply the remedy from the error's text.
        let again = ground.table.open_object(name).unwrap();
        assert_eq!(again.get::<&str>().unwrap(), "a text");
    });
}

#[cfg(feature = "serde")]
fn object_drop(ground: &Ground) {
    let name = ground.table.put_object("a text").unwrap();
    let mut guard = Some(ground.table.open_object(name).unwrap());
    ground.cross_kept(&mut guard, |guard| {
        let guard = guard.take().unwrap();
        assert!(guard.handle() == name && guard.size() > 0);
    });
    assert_eq!(
        ground.table.info(name).unwrap().readers,
        [std::process::id()]
    );
}

#[cfg(feature = "arrow")]
fn lent(ground: &Ground) {
    let x: Handle<f64, Ix1> = ground.table.zeros(3).unwrap();
    let mut lent = Some(ground.table.lend_arrow(x).unwrap());
    ground.cross_kept(&mut lent, |lent| drop(lent.take()));
    assert!(
        ground.table.write(x).is_err(),
        "the child released the lease"
    );
}

fn add_one(mut x: ndarray::ArrayViewMut1<'_, u64>, (): &(), _: &TileContext<'_>) {
    x += 1;
}

fn pool(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    ground.cross_kept(&mut pool, |pool| {
        let forked = |error: PoolError| matches!(error, PoolError::Forked);
        assert!(pool.for_each(&tiles, &(), add_one).is_err_and(forked));
        assert!(pool.run(&(), |_, _| Ok(0u64)).is_err_and(forked));
        assert!(pool.broadcast(&(), |_, _| 0u64).is_err_and(forked));
        assert!(
            pool.map_collect(&tiles, &(), |_, _, _| 0u64)
                .is_err_and(forked)
        );
        assert!(pool.start(&tiles, &(), add_one).is_err_and(forked));
        assert!(pool.prefault(&tiles).is_err_and(forked));
    });
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn pool_private(ground: &Ground) {
    let mut pool = Some(Pool::fork(&ground.table, 1).unwrap());
    let pids = pool.as_ref().unwrap().pids();
    ground.cross_kept(&mut pool, |crossed| {
        let pool = crossed.as_mut().unwrap();
        assert_eq!(
            (pool.pids(), pool.workers(), pool.deaths()),
            (pids.clone(), 1, 0)
        );
        pool.set_profiling(true);
        assert!(pool.stats().is_empty(), "the workers are the parent's");
        drop(crossed.take());
    });
    let mut pool = pool.unwrap();
    assert_eq!(pool.broadcast(&(), |_, _| 7u64).unwrap(), [7]);
    assert_eq!(pool.pids(), pids);
}

fn running(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = Some(pool.start(&tiles, &(), add_one).unwrap());
    ground.cross_kept(&mut running, |crossed| {
        let forked = |error: PoolError| matches!(error, PoolError::Forked);
        assert!(crossed.as_mut().unwrap().wait_any(1).is_err_and(forked));
        assert!(crossed.take().unwrap().finish().is_err_and(forked));
    });
    running.unwrap().finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn running_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = Some(pool.start(&tiles, &(), add_one).unwrap());
    ground.cross_kept(&mut running, |running| {
        assert!(running.as_ref().unwrap().done() <= 10);
        drop(running.take());
    });
    let mut running = running.unwrap();
    // The child has closed no job: tiles that are sent off again are run.
    for ready in running.wait_any(10).unwrap() {
        ready.rerun();
    }
    running.finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 200);
}

fn ready(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = pool.start(&tiles, &(), add_one).unwrap();
    let mut ready = running.wait_any(10).unwrap();
    ground.cross_kept(&mut ready, |ready| {
        let first = ready.swap_remove(0);
        assert_eq!((first.index(), first.range()), (0, 0..10));
        first.rerun();
        ready.clear();
    });
    assert_eq!(
        tiles.progress().unwrap().held,
        10,
        "the child sent a tile off"
    );
    drop(ready);
    running.finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn worker(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 2).unwrap();
    let refused = pool
        .broadcast(&[tiles.handle().to_bits()], |worker, &[bits]: &[u64; 1]| {
            // SAFETY: a forked worker has one thread.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let forked = |error: Error| error.to_string().contains("forked by a worker");
                let table = worker.table();
                let name = ndshm::PartitionHandle::<ndshm::Write<u64, Ix1>>::from_bits(bits);
                let tiles = table.open_partition(name).unwrap();
                let refused = worker.barrier().is_err_and(|error| forked(error.into()))
                    && worker.for_each(&tiles, |_, _| ()).is_err_and(forked);
                crate::support::exit_at_once(i32::from(!refused));
            }
            let mut status = 0;
            // SAFETY: `status` is a place to write to; the pid is of an own child, which ends.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            // The workers' own barrier still works.
            worker.barrier().unwrap();
            u64::from(status == 0)
        })
        .unwrap();
    assert_eq!(refused, [1, 1]);
}

fn observer(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    let fd = ground.table.segment().inheritable_fd().unwrap();
    ground.cross(ndshm::Observer::from_fd(fd).unwrap(), |observer| {
        assert!(observer.arrays().any(|info| info.handle == x.into()));
        assert!(observer.verify().is_clean());
        assert!(!observer.seats().unwrap().is_empty());
        assert!(observer.names("").unwrap().is_empty());
    });
}

/// Checks that `Pool::fork` refuses while a value that returns references exists: such a value
/// cannot refuse in a child, so it must not cross.
pub fn a_pool_refuses_to_fork_with_references() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let x: Vector = table.zeros(100).unwrap();
    let refuses = || Pool::fork(&table, 1).is_err();
    let read = table.read(x).unwrap();
    assert!(refuses());
    drop(read);
    let write = table.write(x).unwrap();
    assert!(refuses());
    drop(write);
    let read = table.read_untyped(x).unwrap();
    assert!(refuses());
    drop(read);
    let write = table.write_untyped(x).unwrap();
    assert!(refuses());
    drop(write);
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let tile = part.claim().unwrap();
    assert!(refuses());
    drop(tile);
    drop((part, round));
    #[cfg(feature = "serde")]
    {
        let name = table.put_object(&7u8).unwrap();
        let object = table.open_object(name).unwrap();
        assert!(refuses());
        drop(object);
    }
    #[cfg(feature = "arrow")]
    {
        let y = table.from_array(&ndarray::Array1::from(vec![1.0])).unwrap();
        let lent = table.lend_arrow(y).unwrap();
        assert!(refuses());
        drop(lent);
    }
    drop(Pool::fork(&table, 1).unwrap());
}
