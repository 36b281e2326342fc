//! Queues in one process: order, full and empty, types, closing, damage, and a random program.

mod bound;
mod full;
mod steps;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::handle_table::HandleTable;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::word::SeatId;

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

#[test]
fn first_in_first_out_over_many_laps() {
    let table = table();
    let queue = table.queue::<u64>(3).unwrap();
    assert_eq!(queue.capacity(), 4);
    for lap in 0..1000 {
        for job in 0..4 {
            queue.push(lap * 4 + job).unwrap();
        }
        let refused = queue.push(77).unwrap_err();
        assert!(refused.is_full() && refused.to_string().contains("all 4 cells"));
        assert_eq!((refused.into_job(), queue.len()), (77, 4));
        assert!(queue.is_full());
        for job in 0..4 {
            assert_eq!(queue.pop().unwrap(), Some(lap * 4 + job));
            assert!(!queue.is_full());
        }
        assert_eq!(queue.pop().unwrap(), None);
        assert_eq!((queue.is_empty(), queue.len()), (true, 0));
    }
}

#[test]
fn a_queue_of_one() {
    let table = table();
    let queue = table.queue::<[u8; 3]>(1).unwrap();
    for job in 0..100 {
        queue.push([job; 3]).unwrap();
        assert!(queue.push([0; 3]).unwrap_err().is_full());
        assert_eq!(queue.pop().unwrap(), Some([job; 3]));
    }
}

#[test]
fn jobs_of_any_size_and_alignment() {
    #[derive(Clone, Copy, PartialEq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);

    fn check<T: Pod + PartialEq + fmt::Debug>(table: &HandleTable, capacity: usize, job: T) {
        let queue = table.queue::<T>(capacity).unwrap();
        for _ in 0..3 {
            for _ in 0..capacity {
                queue.push(job).unwrap();
            }
            assert!(queue.push(job).unwrap_err().is_full());
            for _ in 0..capacity {
                assert_eq!(queue.pop().unwrap(), Some(job));
            }
        }
    }
    let table = table();
    check(&table, 8, 7u8);
    check(&table, 8, [9u16; 32]);
    check(&table, 8, u128::MAX - 3);
    check(&table, 8, Line([5; 8]));
    // Too many for a cache line each.
    check(&table, 1 << 15, 7u8);
    check(&table, 1 << 14, Line([6; 8]));
}

#[test]
fn the_type_of_a_job_is_checked() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let bits = queue.handle().to_bits();
    assert_eq!(QueueHandle::<u64>::from_bits(bits), queue.handle());
    assert_ne!(QueueHandle::<u64>::from_bits(bits ^ 1), queue.handle());
    assert_eq!(bytemuck::bytes_of(&queue.handle()), bits.to_ne_bytes());
    table
        .open_queue(QueueHandle::<u64>::from_bits(bits))
        .unwrap();
    // The same size, but another name.
    let error = table.open_queue(QueueHandle::<f64>::from_bits(bits));
    let error = error.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("names a queue of another job type, not a queue of f64 (8 bytes;")
    );
    let array = table.zeros::<u64, _>(100).unwrap();
    let error = table.open_queue(QueueHandle::<u64>::from_bits(array.to_bits()));
    assert!(matches!(
        error,
        Err(QueueError::Lease(LeaseError::WrongKind(_)))
    ));
    // A queue is not an array either.
    let error = table.read(crate::Handle::<u64, ndarray::Ix1>::from_bits(bits));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("names a queue, not an array of u64"),
        "{error}"
    );
    drop(queue);
    let error = table.open_queue(QueueHandle::<u64>::from_bits(bits));
    assert!(matches!(
        error,
        Err(QueueError::Lease(LeaseError::Stale { .. }))
    ));
}

#[test]
fn impossible_capacities_are_refused() {
    let table = table();
    for capacity in [0, MAX_CAPACITY + 1, usize::MAX] {
        let error = table.queue::<u8>(capacity).unwrap_err();
        assert!(matches!(error, QueueError::Capacity { capacity: found, .. } if found == capacity));
    }
    type Large = [[u64; 1024]; 512];
    let error = table.queue::<Large>(MAX_CAPACITY).unwrap_err();
    assert!(matches!(error, QueueError::Alloc(_)), "{error}");
}

#[test]
fn a_dropped_queue_is_closed_and_its_cells_are_free_with_the_last_lease() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let theirs = other.open_queue(queue.handle()).unwrap();
    queue.push(1).unwrap();
    drop(queue);
    assert!(theirs.is_closed() && !theirs.is_drained());
    assert!(theirs.push(2).unwrap_err().is_closed());
    assert_eq!(theirs.pop_timeout(Duration::ZERO).unwrap(), Some(1));
    assert!(theirs.is_drained());
    drop(theirs);
    assert_eq!(other.arrays().count(), 0);
}

#[test]
fn waiting_ends_with_its_timeout_or_with_the_close() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    let brief = Duration::from_millis(30);
    let start = Instant::now();
    assert_eq!(queue.pop_timeout(brief).unwrap(), None);
    assert!(start.elapsed() >= brief);
    queue.push_timeout(1, brief).unwrap();
    let start = Instant::now();
    assert!(queue.push_timeout(2, brief).unwrap_err().is_full());
    assert!(start.elapsed() >= brief);
    queue.close();
    let long = Duration::from_secs(1000);
    assert!(queue.push_timeout(2, long).unwrap_err().is_closed());
    assert_eq!(queue.pop_timeout(long).unwrap(), Some(1));
    assert_eq!(queue.pop_timeout(long).unwrap(), None);
}

#[test]
fn sleepers_are_woken() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    let name = queue.handle();
    let long = Duration::from_secs(100);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let segment = table.segment().clone();
            scope.spawn(move || {
                let table = HandleTable::join(&segment).unwrap();
                let queue = table.open_queue(name).unwrap();
                let mut sum = 0;
                while let Some(job) = queue.pop_timeout(long).unwrap() {
                    sum += job;
                }
                assert!(queue.is_drained());
                sum
            });
        }
        let start = Instant::now();
        for job in 0..2000 {
            if job % 400 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            queue.push_timeout(job, long).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        queue.close();
        assert!(start.elapsed() < long);
    });
    assert_eq!(queue.pop().unwrap(), None);
}

#[test]
fn a_closed_queue_is_waited_for_while_a_consumer_has_its_last_job() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    let _taken = queue.cells.take(SeatId::from_index(5)).unwrap();
    queue.close();
    let brief = Duration::from_millis(30);
    let start = Instant::now();
    assert_eq!(queue.pop_timeout(brief).unwrap(), None);
    assert!(start.elapsed() >= brief, "its death would put the job back");
}

#[test]
fn a_wait_for_the_last_job_is_for_the_end_that_moves_with_it() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    let me = queue.lease.enter().unwrap();
    let taken = queue.cells.take(me).unwrap();
    let long = Duration::from_secs(100);
    let start = Instant::now();
    let asleep = |event| {
        while !queue.cells.now(event).is_awaited() {
            assert!(start.elapsed() < long, "nobody sleeps: {event:?}");
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let (segment, name) = (table.segment().clone(), queue.handle());
        let consumer = scope.spawn(move || {
            let table = HandleTable::join(&segment).unwrap();
            table.open_queue(name).unwrap().pop_timeout(long).unwrap()
        });
        asleep(cells::Event::Pushed);
        queue.close();
        asleep(cells::Event::Popped);
        queue.cells.release(taken, me);
        assert_eq!(consumer.join().unwrap(), None);
    });
    assert!(start.elapsed() < long);
}

#[test]
fn a_wait_takes_back_what_the_dead_held() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    queue.push(7).unwrap();
    let dead = HandleTable::join(table.segment()).unwrap();
    std::mem::forget(dead.open_queue(queue.handle()).unwrap());
    let seat = dead.seat().unwrap();
    let _taken = queue.cells.take(SeatId::from_index(seat)).unwrap();
    table.segment().model_kill(seat);
    std::mem::forget(dead);
    let long = Duration::from_secs(100);
    let start = Instant::now();
    assert_eq!(queue.pop_timeout(long).unwrap(), Some(7));
    assert!(start.elapsed() < long);
}

/// Returns the head words of a queue, to damage them.
fn words<'t>(table: &'t HandleTable, queue: &Queue<'_, u64>) -> &'t [crate::sync::Atom] {
    let memory = table.segment().memory();
    let index = table
        .core
        .slot(AnyHandle::from(queue.handle()))
        .unwrap()
        .0
        .index;
    let extent = Spans::of(memory).extent(index).unwrap();
    memory.control(extent.offset, 48 + 8 * 4).unwrap()
}

#[test]
fn used_up_positions_are_refused() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    // The ends at a position of the last lap but one.
    let last = (1u64 << 49) - 0x1_0000 - 1;
    for end in [16, 32] {
        words(&table, &queue)[end].store((last * 4) << 2, Ordering::Relaxed);
    }
    let error = QueueError::from(queue.push(1).unwrap_err());
    assert!(matches!(error, QueueError::UsedUp { .. }), "{error}");
    assert_eq!(queue.pop().unwrap(), None);
}

#[test]
fn a_queue_is_used_up_two_laps_before_its_last() {
    let table = table();
    for shift in [2, 14] {
        let queue = table.queue::<u64>(1 << shift).unwrap();
        // The last lap of a cell, or of a position.
        let last = ((1u64 << 49) - 0x1_0000).min(((1 << 62) - 1) >> shift);
        for (lap, is_used_up) in [(last - 3, false), (last - 2, true)] {
            for end in [16, 32] {
                words(&table, &queue)[end].store(lap << shift << 2, Ordering::Relaxed);
            }
            match queue.push(1) {
                Ok(()) => assert!(!is_used_up && queue.pop().unwrap() == Some(1)),
                Err(refused) => {
                    let error = QueueError::from(refused);
                    assert!(
                        is_used_up && matches!(error, QueueError::UsedUp { .. }),
                        "{error}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Compares a queue with one on the heap, with deaths in between.
    #[test]
    fn a_random_program_matches_a_model(steps in prop::collection::vec(0u8..12, 0..300)) {
        let table = table();
        let queue = table.queue::<u64>(4).unwrap();
        let me = queue.lease.enter().unwrap();
        let dead = SeatId::from_index(5);
        let mut model = VecDeque::new();
        // The cells and jobs that the dead participant holds.
        let (mut held, mut taken) = (0, Vec::new());
        // The jobs that are bound to this one.
        let mut bound = VecDeque::new();
        for (step, job) in steps.into_iter().zip(1u64..) {
            match step {
                0..=2 => match queue.push(job) {
                    Ok(()) => model.push_back(job),
                    Err(refused) => {
                        prop_assert!(refused.is_full());
                        prop_assert_eq!(model.len() + held + taken.len() + bound.len(), 4);
                    }
                },
                3..=5 => prop_assert_eq!(queue.pop().unwrap(), model.pop_front()),
                6 => if queue.claim(dead).is_ok() {
                    held += 1;
                },
                7 => {
                    let ticket = queue.cells.take(dead);
                    prop_assert_eq!(ticket.map(|ticket| queue.read(&ticket)), model.front().copied());
                    taken.extend(model.pop_front());
                }
                8 => {
                    let job = queue.pop_with_ack().unwrap();
                    prop_assert_eq!(job.as_deref().copied(), model.pop_front());
                    bound.extend(job);
                }
                9 => if let Some(job) = bound.pop_front() {
                    job.ack().unwrap();
                },
                10 => if let Some(job) = bound.pop_back() {
                    model.push_back(*job);
                    drop(job);
                },
                _ => {
                    prop_assert_eq!(queue.cells.recover(dead).jobs, taken.len());
                    prop_assert_eq!(queue.cells.recover(dead).jobs, 0);
                    held = 0;
                    // Recovered jobs have lost their places.
                    let mut all: Vec<u64> = model.drain(..).chain(taken.drain(..)).collect();
                    let mut found: Vec<u64> = std::iter::from_fn(|| queue.pop().unwrap()).collect();
                    all.sort_unstable();
                    found.sort_unstable();
                    prop_assert_eq!(all, found);
                }
            }
            prop_assert_eq!(queue.is_empty(), model.is_empty());
            prop_assert!(queue.len() >= model.len());
        }
        queue.cells.recover(dead);
        prop_assert_eq!(me, queue.lease.enter().unwrap());
    }

    /// Calls end, and stay inside the queue, whatever its words are.
    #[test]
    fn damaged_words_do_no_harm(
        damage in prop::collection::vec((0usize..80, any::<u64>(), 0u32..64), 1..20),
        steps in prop::collection::vec(0u8..8, 0..30),
    ) {
        let table = table();
        let queue = table.queue::<u64>(4).unwrap();
        for job in 0..3 {
            queue.push(job).unwrap();
        }
        for (at, value, shift) in damage {
            words(&table, &queue)[at].store(value >> shift, Ordering::Relaxed);
        }
        for step in steps {
            match step {
                0 | 1 => drop(queue.push(9)),
                2 | 3 => drop(queue.pop()),
                5 => drop(queue.pop_with_ack()),
                6 => drop(queue.pop_with_ack().map(|job| job.map(|job| job.ack()))),
                7 => drop(queue.pop_with_ack().map(std::mem::forget)),
                _ => drop((queue.is_empty(), queue.len(), queue.is_drained())),
            }
        }
        queue.cells.recover(SeatId::from_index(0));
        let _ = table.open_queue(queue.handle()).map(|again| again.pop());
        prop_assert!(table.reap().is_ok());
    }
}
