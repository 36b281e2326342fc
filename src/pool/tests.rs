//! Tests of jobs that no call writes, as another program could write them.

use std::time::Duration;

use super::call_memory::CallMemory;
use super::mailbox::{Arguments, PARAM_WORDS, ParamWords};
use super::spin::of_user;
use super::{OnFailure, Pool, image};
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::segment::Segment;
use crate::sync::Ordering;

/// Opens a job without any check. Returns the failure that worker 0 reports.
fn said_of(pool: &mut Pool<'_>, arguments: Arguments) -> String {
    said_with(pool, arguments, [0; PARAM_WORDS])
}

/// Opens a job with parameters, without any check. Returns the failure that worker 0 reports.
fn said_with(pool: &mut Pool<'_>, arguments: Arguments, params: ParamWords) -> String {
    pool.calls += 1;
    let arguments = Arguments {
        call: pool.calls,
        ..arguments
    };
    let job = pool.mailbox.open_job(&arguments, &params);
    let start = std::time::Instant::now();
    while !pool.mailbox.has_served(0, job) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the worker hangs"
        );
        std::thread::yield_now();
    }
    pool.mailbox.close_job();
    let failures = pool.failures(pool.calls);
    failures
        .into_iter()
        .map(|(_, failed)| failed.message)
        .collect()
}

#[test]
fn workers_find_the_time_to_spin_in_the_mailbox() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let time = Duration::from_millis(3);
    let mut pool = Pool::builder()
        .workers(2)
        .spin(time)
        .threads(&table)
        .unwrap();
    pool.broadcast(&(), |_, ()| ()).unwrap();
    let word = pool.mailbox.crowded().load(Ordering::Relaxed);
    assert_eq!(word, of_user(time));
}

#[test]
fn an_address_outside_code_is_not_called() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let mut pool = Pool::threads(&table, 1).unwrap();
    let data = Box::new(0u64);
    let distance = (&raw const *data as u64).wrapping_sub(image::address_of(0));
    for kernel in [distance, u64::MAX / 2, 1 << 47] {
        let arguments = Arguments {
            task: kernel,
            ..Arguments::default()
        };
        let said = said_of(&mut pool, arguments);
        assert!(said.contains("not mapped"), "{said:?}");
    }
}

#[test]
fn invalid_handles_and_parameters_are_errors() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let mut pool = Pool::threads(&table, 1).unwrap();
    type Vector = crate::Write<u8, ndarray::Ix1>;
    let kernel = super::kernel::on_tiles::<Vector, u64, (), _, _, _>(|_, _, _| ());
    let arguments = Arguments {
        task: pool.place_of(kernel).unwrap(),
        partition: 77,
        params_len: 8,
        ..Arguments::default()
    };
    assert!(said_of(&mut pool, arguments).contains("stale"));
    // Parameters of a wrong length, and parameters without an array.
    let tiles_of = table.zeros::<u8, _>(4).unwrap();
    let tiles = table
        .partition(tiles_of.write(), ndarray::Axis(0), 1)
        .unwrap();
    let arguments = Arguments {
        partition: tiles.handle().to_bits(),
        ..arguments
    };
    for params_len in [0, 3, u64::MAX] {
        let arguments = Arguments {
            params_len,
            ..arguments
        };
        assert!(!said_of(&mut pool, arguments).is_empty(), "{params_len}");
    }
    // The pool still works.
    pool.for_each(&tiles, &1u64, |mut x, _, _| x.fill(1))
        .unwrap();
    assert_eq!(table.read(tiles_of).unwrap().sum(), 4);
}

#[test]
fn calls_obey_the_settings_of_the_builder() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let x = table.zeros::<u8, _>(1).unwrap();
    let tiles = table.partition(x.write(), ndarray::Axis(0), 1).unwrap();
    let builder = Pool::builder()
        .workers(1)
        .seed(5)
        .deadline(Duration::from_millis(20))
        .on_failure(OnFailure::RunAgain);
    let mut pool = builder.threads(&table).unwrap();
    assert_eq!((pool.workers(), pool.seed()), (1, 5));
    assert_eq!(pool.on_failure, OnFailure::RunAgain);
    let ended = pool.for_each(&tiles, &(), |_, (), _| {
        std::thread::sleep(Duration::from_millis(400));
    });
    assert!(
        matches!(ended, Err(PoolError::Deadline { .. })),
        "{ended:?}"
    );
}

#[test]
fn without_a_number_there_is_a_worker_for_each_processor() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let pool = Pool::builder().threads(&table).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(
        pool.workers(),
        processors.min(table.segment().max_seats() as usize - 1)
    );
    drop(pool);
    let few = Segment::options().seats(2).anonymous().unwrap();
    let few = HandleTable::join(&few).unwrap();
    assert_eq!(Pool::builder().threads(&few).unwrap().workers(), 1);
    let none = Pool::builder().workers(0).threads(&table);
    assert!(matches!(none, Err(PoolError::Workers { workers: 0, .. })));
}

#[test]
fn parameters_that_are_no_value_are_errors() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let mut pool = Pool::threads(&table, 1).unwrap();
    let kernel = super::kernel::on_workers::<(u8, bool), (), _, _, _>(|_, _| Ok(()));
    let arguments = Arguments {
        task: pool.place_of(kernel).unwrap(),
        params_len: 2,
        ..Arguments::default()
    };
    let mut params = [0; PARAM_WORDS];
    params[0] = 0x0105;
    assert_eq!(said_with(&mut pool, arguments, params), "");
    params[0] = 0x0205;
    let said = said_with(&mut pool, arguments, params);
    assert!(said.contains("(u8, bool)"), "{said:?}");
}

#[test]
fn results_that_are_no_value_are_errors() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let memory = CallMemory::params(&table, &[0, 1, 2]).unwrap();
    // SAFETY: no worker has the memory.
    let read = |count| unsafe { memory.read_results::<bool, _>(count) };
    assert_eq!(read(2).unwrap(), [false, true]);
    assert!(read(3).unwrap_err().to_string().contains("bool"));
    // Results that are longer than their memory.
    assert!(read(100).is_err());
    // SAFETY: as above.
    let read = |count| unsafe { memory.read_results::<[u64; 2], _>(count) };
    assert!(read(1).is_err());
}
