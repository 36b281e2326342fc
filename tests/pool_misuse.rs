//! Pools in unusual situations: children, other tables, empty work, arrays that are freed.

mod support;

use std::time::Duration;

use ndarray::{ArrayViewMut1, ArrayViewMutD, Axis, IxDyn, ShapeBuilder};
use ndshm::error::PoolError;
use ndshm::{HandleTable, Pool, TileContext};
use support::{Child, Flag, die, eventually, is_alive, table};

fn main() {
    support::run_tests![
        an_empty_array_runs_no_kernel,
        tiles_may_lie_along_any_axis_in_any_order,
        partitions_of_other_tables_of_the_segment_are_accepted,
        partitions_of_another_segment_are_an_error,
        a_pool_that_crossed_a_fork_belongs_to_the_parent,
        two_pools_on_one_table_take_turns,
        a_freed_array_is_an_error_and_the_pool_goes_on,
        a_worker_killed_in_a_reduction_leaves_no_results,
        a_deadline_ends_a_call_with_a_stopped_worker,
        a_panic_may_have_any_payload,
        a_child_may_start_a_pool,
    ];
}

fn add_one(mut x: ArrayViewMut1<u64>, _: &(), _: &TileContext) {
    x += 1;
}

fn an_empty_array_runs_no_kernel() {
    let table = table();
    let x = table.zeros::<u64, _>(0).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 5).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    for _ in 0..20 {
        pool.for_each(&tiles, &(), add_one).unwrap();
    }
    let sum = |x: ArrayViewMut1<u64>, (): &(), _: &TileContext| x.sum();
    let total = pool.map_reduce(&tiles, &(), sum, 7, |sum, part: u64| sum + part);
    assert_eq!(total.unwrap(), 7);
}

fn tiles_may_lie_along_any_axis_in_any_order() {
    let table = table();
    let mut pool = Pool::fork(&table, 3).unwrap();
    for fortran in [false, true] {
        let x = table
            .from_elem(IxDyn(&[4, 6, 10]).set_f(fortran), 0u64)
            .unwrap();
        for axis in 0..3 {
            let tiles = table.partition(x.write(), Axis(axis), 3).unwrap();
            pool.for_each(&tiles, &axis, |mut x: ArrayViewMutD<u64>, &axis, tile| {
                assert_eq!(x.len_of(Axis(axis)), tile.range().len());
                for (mut row, at) in x.axis_iter_mut(Axis(axis)).zip(tile.range()) {
                    row += 10u64.pow(axis as u32) * at as u64;
                }
            })
            .unwrap();
        }
        let x = table.read(x).unwrap();
        assert!(
            x.indexed_iter()
                .all(|(index, &x)| { x as usize == index[0] + 10 * index[1] + 100 * index[2] })
        );
    }
}

fn partitions_of_other_tables_of_the_segment_are_accepted() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let x = other.zeros::<u64, _>(100).unwrap();
    let tiles = other.partition(x.write(), Axis(0), 9).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 100);
    drop(pool);
    let mut pool = Pool::fork(&other, 2).unwrap();
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 200);
}

fn partitions_of_another_segment_are_an_error() {
    let (here, there) = (table(), table());
    let (x, y) = (
        here.zeros::<u64, _>(100).unwrap(),
        there.zeros::<u64, _>(100).unwrap(),
    );
    let mut pool = Pool::fork(&here, 2).unwrap();
    let foreign = there.partition(y.write(), Axis(0), 9).unwrap();
    let error = pool.for_each(&foreign, &(), add_one).unwrap_err();
    assert!(
        error.to_string().contains("belongs to another segment"),
        "{error}"
    );
    assert_eq!(there.read(y).unwrap().sum(), 0);
    let tiles = here.partition(x.write(), Axis(0), 9).unwrap();
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(here.read(x).unwrap().sum(), 100);
}

fn a_pool_that_crossed_a_fork_belongs_to_the_parent() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 9).unwrap();
    let mut pool = Some(Pool::fork(&table, 2).unwrap());
    let pids = pool.as_ref().unwrap().pids();
    Child::fork(|| {
        // Neither a child's end nor dropping the pool in a child ends the parent's workers.
        drop(pool.take());
    })
    .join();
    let mut pool = pool.unwrap();
    assert!(pids.iter().flatten().all(|&pid| is_alive(pid)));
    pool.for_each(&tiles, &(), add_one).unwrap();
    Child::fork(|| {
        let mut pool = std::mem::ManuallyDrop::new(&mut pool);
        let refused = pool.for_each(&tiles, &(), add_one).unwrap_err();
        assert!(matches!(refused, PoolError::Forked), "{refused}");
        assert!(refused.to_string().contains("start a pool in this process"));
    })
    .join();
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 200);
    assert_eq!(pool.pids(), pids);
}

fn two_pools_on_one_table_take_turns() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let y = table.zeros::<u64, _>(100).unwrap();
    let (to_x, to_y) = (
        table.partition(x.write(), Axis(0), 9).unwrap(),
        table.partition(y.write(), Axis(0), 3).unwrap(),
    );
    let mut one = Pool::fork(&table, 2).unwrap();
    let mut two = Pool::fork(&table, 3).unwrap();
    for _ in 0..50 {
        one.for_each(&to_x, &(), add_one).unwrap();
        two.for_each(&to_y, &(), add_one).unwrap();
        two.for_each(&to_x, &(), add_one).unwrap();
    }
    drop(one);
    two.for_each(&to_y, &(), add_one).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 10_000);
    assert_eq!(table.read(y).unwrap().sum(), 5_100);
}

fn a_freed_array_is_an_error_and_the_pool_goes_on() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let gone = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 9).unwrap();
    let stale = table
        .partition((x.write(), gone.read()), Axis(0), 9)
        .unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    table.free(gone).unwrap();
    let error = pool.for_each(&stale, &(), |_, (), _| ()).unwrap_err();
    assert!(error.to_string().contains("stale"), "{error}");
    pool.for_each(&tiles, &(), add_one).unwrap();
    // A kernel frees the array while the round runs and both workers take part in it.
    let bits = x.to_bits();
    let other = HandleTable::join(table.segment()).unwrap();
    let flags = [Flag::new(), Flag::new(), Flag::new()];
    let numbers @ [first, second, freed] = flags.each_ref().map(|flag| flag.number);
    let stranger = Child::fork(|| {
        let x = ndshm::AnyHandle::from_bits(bits);
        Flag::wait(first);
        Flag::wait(second);
        other.free(x).unwrap();
        Flag::raise(freed);
    });
    let slow = |mut x: ArrayViewMut1<u64>, flags: &[u64; 3], tile: &TileContext| {
        Flag::raise(flags[tile.worker()]);
        Flag::wait(flags[2]);
        x += 1;
    };
    pool.for_each(&tiles, &numbers, slow).unwrap();
    stranger.join();
    assert!(table.read(x).is_err());
    let error = pool.for_each(&tiles, &numbers, slow).unwrap_err();
    assert!(error.to_string().contains("stale"), "{error}");
}

fn a_worker_killed_in_a_reduction_leaves_no_results() {
    let table = table();
    let x = table.from_elem(100, 1u64).unwrap();
    let tiles = table.partition(x.read(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let count = table.verify().unwrap().live;
    for _ in 0..20 {
        let outcome = pool.map_reduce(
            &tiles,
            &(),
            |x, (), tile| {
                if tile.index() == 4 {
                    die();
                }
                x.sum()
            },
            0,
            |sum, part: u64| sum + part,
        );
        let error = outcome.unwrap_err();
        assert!(
            matches!(&error, PoolError::WorkerDied { tiles, .. } if tiles == &[4]),
            "{error}"
        );
        // The array was only read: nothing is poisoned.
        let sum = |x: ndarray::ArrayView1<u64>, (): &(), _: &TileContext| x.sum();
        let total = pool.map_reduce(&tiles, &(), sum, 0, |sum, part: u64| sum + part);
        assert_eq!(total.unwrap(), 100);
        assert_eq!(table.verify().unwrap().live, count, "all results are freed");
    }
}

fn a_deadline_ends_a_call_with_a_stopped_worker() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    pool.set_deadline(Some(Duration::from_millis(100)));
    let stop = |_: ArrayViewMut1<u64>, (): &(), tile: &TileContext| {
        if tile.index() == 2 {
            // SAFETY: `raise` has no precondition.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
    };
    let error = pool.for_each(&tiles, &(), stop).unwrap_err();
    assert!(
        matches!(error, PoolError::Deadline { tiles: 10, .. }),
        "{error}"
    );
    assert!(table.write(x).is_err(), "the stopped worker holds its tile");
    for pid in pool.pids().into_iter().flatten() {
        // SAFETY: `kill` has no precondition; the pid is of a worker that was not waited for.
        unsafe { libc::kill(pid as i32, libc::SIGCONT) };
    }
    eventually("the worker goes on and leaves", || table.write(x).is_ok());
    pool.set_deadline(None);
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 100);
}

fn a_panic_may_have_any_payload() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let odd = |_: ArrayViewMut1<u64>, (): &(), tile: &TileContext| {
        if tile.index() == 1 {
            std::panic::resume_unwind(Box::new(17u8));
        }
    };
    let error = pool.for_each(&tiles, &(), odd).unwrap_err();
    assert!(
        matches!(error, PoolError::KernelPanicked { tile: 1, .. }),
        "{error}"
    );
    table.clear_poison(x).unwrap();
    // A message that does not fit is cut between characters.
    let long = |_: ArrayViewMut1<u64>, (): &(), tile: &TileContext| {
        if tile.index() == 1 {
            std::panic::resume_unwind(Box::new("ß€😀".repeat(500)));
        }
    };
    match pool.for_each(&tiles, &(), long).unwrap_err() {
        PoolError::KernelPanicked { message, .. } => {
            assert!(
                message.starts_with("ß€😀ß") && message.len() <= 384,
                "{message}"
            );
        }
        other => panic!("{other}"),
    }
}

fn a_child_may_start_a_pool() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    Child::fork(|| {
        let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
        let mut pool = Pool::fork(&table, 2).unwrap();
        pool.for_each(&tiles, &(), add_one).unwrap();
    })
    .join();
    assert_eq!(
        table.reap().unwrap().seats,
        1,
        "the child ended without leaving"
    );
    assert_eq!(table.read(x).unwrap().sum(), 100);
}
