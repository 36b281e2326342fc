//! Jobs that are bound to their consumer.

use std::mem::forget;
use std::time::{Duration, Instant};

use ndarray::Ix1;
use proptest::prelude::*;

use crate::handle_table::HandleTable;
use crate::queue::cells::{HEAD, TAIL};
use crate::queue::*;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::word::{CellState, CellWord, SeatId};

const DEAD: SeatId = SeatId::from_index(5);

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

fn ends(queue: &Queue<'_, u64>) -> (u64, u64) {
    let end = |end| queue.cells.end(end).position();
    (end(HEAD), end(TAIL))
}

fn cell(queue: &Queue<'_, u64>, index: u64) -> CellWord {
    queue.cells.cell(index).load(Ordering::Relaxed)
}

/// Pops a job, and its number of deliveries.
fn next(queue: &Queue<'_, u64>) -> Option<(u64, u32)> {
    let job = queue.pop_with_ack().unwrap()?;
    let found = (*job, job.deliveries());
    job.ack().unwrap();
    Some(found)
}

/// Binds the next job to a participant that dies.
fn bind_to_the_dead(queue: &Queue<'_, u64>) {
    let ticket = queue.cells.take(DEAD).unwrap();
    queue.cells.bind(&ticket, DEAD);
}

#[test]
fn a_bound_job_keeps_its_cell_until_it_is_acknowledged() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    let [one, two] = [(); 2].map(|()| queue.pop_with_ack().unwrap().unwrap());
    assert_eq!((*one, *two, queue.len()), (1, 2, 0));
    assert!(queue.push(3).unwrap_err().is_full());
    assert!(queue.is_empty() && queue.pop().unwrap().is_none());
    two.ack().unwrap();
    queue.push(3).unwrap();
    assert!(queue.push(4).unwrap_err().is_full());
    assert!(format!("{one:?}").contains("deliveries: 1"), "{one:?}");
    one.ack().unwrap();
    queue.push(4).unwrap();
    assert_eq!(
        [queue.pop().unwrap(), queue.pop().unwrap()],
        [Some(3), Some(4)]
    );
}

#[test]
fn a_job_that_comes_back_is_the_last_one_and_counts_its_deliveries() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    for job in [1, 2, 3] {
        queue.push(job).unwrap();
    }
    for deliveries in 1..50 {
        let job = queue.pop_with_ack().unwrap().unwrap();
        assert_eq!((*job, job.deliveries()), (1, deliveries));
        match deliveries % 2 {
            0 => drop(job),
            _ => job.give_back().unwrap(),
        }
        for job in [2, 3] {
            assert_eq!(next(&queue), Some((job, 1)));
            queue.push(job).unwrap();
        }
    }
    assert_eq!(next(&queue), Some((1, 50)));
    // The next job in that cell begins anew.
    queue.push(4).unwrap();
    queue.push(5).unwrap();
    assert_eq!(
        [(); 4].map(|()| next(&queue)),
        [2, 3, 4, 5].map(|job| Some((job, 1)))
    );
    assert_eq!(next(&queue), None);
}

#[test]
fn deliveries_stop_at_the_documented_limit() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    queue.push(1).unwrap();
    let deliveries = (0..40_000).map(|_| queue.pop_with_ack().unwrap().unwrap().deliveries());
    assert_eq!(deliveries.max(), Some(32767));
    assert_eq!(next(&queue), Some((1, 32767)));
}

#[test]
fn a_panic_gives_the_job_back() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    queue.push(1).unwrap();
    let work = || {
        let _job = queue.pop_with_ack().unwrap().unwrap();
        std::panic::resume_unwind(Box::new(()));
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    assert_eq!(next(&queue), Some((1, 2)));
}

/// A consumer that holds a job for many laps does not make the searches of others longer.
#[test]
fn the_head_passes_a_bound_job() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(0).unwrap();
    let held = queue.pop_with_ack().unwrap().unwrap();
    for job in 1..100 {
        queue.push(job).unwrap();
        assert_eq!(queue.pop().unwrap(), Some(job));
        assert_eq!(queue.pop().unwrap(), None);
        let (head, tail) = ends(&queue);
        assert_eq!(head, tail, "the bound job holds the head back");
    }
    assert!(cell(&queue, 0).lap() > 10);
    queue.push(100).unwrap();
    drop(held);
    assert_eq!([next(&queue), next(&queue)], [Some((100, 1)), Some((0, 2))]);
}

#[test]
fn recovery_brings_bound_jobs_back_with_their_deliveries() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    for deliveries in 1..5 {
        bind_to_the_dead(&queue);
        assert_eq!(queue.cells.recover(SeatId::from_index(6)).jobs, 0);
        assert_eq!(queue.cells.recover(DEAD).jobs, 1);
        assert_eq!(queue.cells.recover(DEAD).jobs, 0);
        // A consumer that dies in `pop` did not get it.
        let _taken = queue.cells.take(DEAD).unwrap();
        assert_eq!(queue.cells.recover(DEAD).jobs, 1);
        let job = queue.pop_with_ack().unwrap().unwrap();
        assert_eq!((*job, job.deliveries()), (1, deliveries + 1));
        // Forgotten: bound to this participant.
        forget(job);
        assert!(queue.pop().unwrap().is_none());
        let me = queue.lease.enter().unwrap();
        queue.cells.recover(me);
        // Undo the count of this look.
        let at = (0..4).find(|&at| cell(&queue, at).is_full()).unwrap();
        let lap = cell(&queue, at).lap();
        let count = crate::word::DeliveryWord::new(lap, u64::from(deliveries));
        queue.cells.deliveries(at).store(count, Ordering::Relaxed);
    }
    assert_eq!(next(&queue), Some((1, 5)));
}

#[test]
fn a_death_while_it_gives_back_is_finished_by_the_reaper() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    bind_to_the_dead(&queue);
    queue.cells.unbind(0, DEAD);
    assert_eq!(cell(&queue, 0).state(), CellState::Taking);
    assert!(queue.is_empty());
    assert_eq!(queue.cells.recover(DEAD).jobs, 1);
    assert_eq!(next(&queue), Some((1, 2)));
}

#[test]
fn a_forgotten_delivery_comes_back_when_its_participant_leaves() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let theirs = other.open_queue(queue.handle()).unwrap();
    forget(theirs.pop_with_ack().unwrap().unwrap());
    drop(theirs);
    // It opens the queue again meanwhile.
    drop(other.open_queue(queue.handle()).unwrap());
    assert!(queue.pop().unwrap().is_none());
    drop(other);
    assert_eq!(next(&queue), Some((1, 2)));
    drop(queue);
    assert_eq!(table.arrays().count(), 0);
}

#[test]
fn a_closed_queue_is_not_over_while_a_job_is_bound() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    let job = queue.pop_with_ack().unwrap().unwrap();
    queue.close();
    assert!(!queue.is_drained());
    let brief = Duration::from_millis(30);
    let start = Instant::now();
    assert!(queue.pop_with_ack_timeout(brief).unwrap().is_none());
    assert!(start.elapsed() >= brief, "it may come back");
    job.give_back().unwrap();
    assert!(!queue.is_drained());
    let job = queue.pop_with_ack_timeout(Duration::MAX).unwrap().unwrap();
    assert_eq!((*job, job.deliveries()), (1, 2));
    job.ack().unwrap();
    assert!(queue.is_drained());
    assert!(queue.pop_with_ack_timeout(Duration::MAX).unwrap().is_none());
}

#[test]
fn a_wait_notices_the_death_of_a_holder() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    queue.push(7).unwrap();
    let dead = HandleTable::join(table.segment()).unwrap();
    let theirs = dead.open_queue(queue.handle()).unwrap();
    forget(theirs.pop_with_ack().unwrap().unwrap());
    forget(theirs);
    queue.close();
    table.segment().model_kill(dead.seat().unwrap());
    forget(dead);
    let long = Duration::from_secs(100);
    let start = Instant::now();
    let job = queue.pop_with_ack_timeout(long).unwrap().unwrap();
    assert_eq!((*job, job.deliveries()), (7, 2));
    assert!(start.elapsed() < long);
}

#[test]
fn bound_cells_are_told_with_their_holder() {
    let table = table();
    let queue = table.queue::<u64>(1).unwrap();
    queue.push(1).unwrap();
    bind_to_the_dead(&queue);
    let mut told = Vec::new();
    queue.cells.faults(|_, bits, seat| told.push((bits, seat)));
    use crate::sync::Word;
    assert_eq!(told, [(cell(&queue, 0).bits(), Some(DEAD))]);
}

/// A cell's word in any state, with a likely lap and holder.
fn cell_word() -> impl Strategy<Value = u64> {
    let last = CellWord::LAST_LAP;
    let lap = prop_oneof![
        0..4u64,
        last - 3..=last,
        CellWord::CLAIM_LIMIT - 2..last,
        0..=last
    ];
    let seat = prop_oneof![0..4u64, 0..1u64 << SeatId::BITS];
    (lap, 0..8u64, seat)
        .prop_map(|(lap, state, seat)| lap << (SeatId::BITS + 3) | state << SeatId::BITS | seat)
}

/// Runs `steps` with a queue, and damages a cell between any two of them, also while jobs are bound.
fn use_damaged<'q, 't, T: Job>(
    queue: &'q Queue<'t, T>,
    steps: &[(u8, u64, u64)],
    push: impl Fn(),
    pop: impl Fn() -> Option<Delivery<'q, 't, T>>,
    ack: impl Fn(Delivery<'q, 't, T>),
) {
    use crate::sync::Word;
    let mut held = Vec::new();
    for &(step, word, count) in steps {
        match step {
            0 | 1 => push(),
            2 | 3 => held.extend(pop()),
            4 => held.pop().into_iter().for_each(&ack),
            5 => drop(held.pop()),
            6 => drop((queue.is_empty(), queue.len(), queue.is_drained())),
            7 => drop(queue.cells.recover(DEAD)),
            8 => drop(queue.cells.recover(SeatId::from_field(word % 4))),
            9 => queue.cells.deliveries(word).store(
                crate::word::DeliveryWord::from_bits(count),
                Ordering::Relaxed,
            ),
            10 => queue.cells.close(),
            _ => queue
                .cells
                .cell(count)
                .store(CellWord::from_bits(word), Ordering::Relaxed),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Calls end, whatever becomes of the cells of bound jobs.
    #[test]
    fn damaged_cells_do_no_harm(
        steps in prop::collection::vec((0u8..16, cell_word(), any::<u64>()), 0..60),
    ) {
        let table = table();
        let queue = table.queue::<u64>(4).unwrap();
        use_damaged(
            &queue,
            &steps,
            || drop(queue.push(1)),
            || queue.pop_with_ack().unwrap(),
            |job| job.ack().unwrap(),
        );
        let arrays = table.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
        use_damaged(
            &arrays,
            &steps,
            || drop(arrays.push_owned(table.owned(table.from_elem(1, 1).unwrap()))),
            || arrays.pop_owned_with_ack().unwrap(),
            |job| drop(job.ack()),
        );
        prop_assert!(table.reap().is_ok());
    }
}
