//! Arrays that belong to a queue, in one process: refusals, and deaths at chosen steps.

use ndarray::Ix1;

use super::*;
use crate::HandleTable;
use crate::bundle::BundleError;
use crate::table::error::LeaseError;

type Jobs = OwnedArray<u64, Ix1>;

const DEAD: SeatId = SeatId::from_index(5);

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

fn other(table: &HandleTable) -> HandleTable {
    HandleTable::join(table.segment()).unwrap()
}

fn array(table: &HandleTable, value: u64) -> Owned<'_, u64, Ix1> {
    table.owned(table.from_elem(3, value).unwrap())
}

#[test]
fn arrays_come_out_in_order_and_belong_to_the_consumer() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let producer = other(&table);
    let theirs = producer.open_queue(queue.handle()).unwrap();
    for lap in 0..3 {
        theirs.push_owned(array(&producer, lap)).unwrap();
        theirs
            .push_owned_timeout(array(&producer, 7), Duration::ZERO)
            .unwrap();
        let first = queue.pop_owned().unwrap().unwrap();
        assert_eq!(table.read(first.handle()).unwrap()[2], lap);
        assert_eq!(
            table.info(first.handle()).unwrap().owner,
            Some(std::process::id())
        );
        let second = queue.pop_owned_timeout(Duration::ZERO).unwrap().unwrap();
        assert_eq!(table.read(second.handle()).unwrap()[0], 7);
        assert!(queue.pop_owned().unwrap().is_none());
    }
    theirs.push_owned(array(&producer, 9)).unwrap();
    drop(theirs);
    drop(producer);
    let left = queue.pop_owned().unwrap().unwrap();
    assert_eq!(
        table.read(left.handle()).unwrap().sum(),
        27,
        "its producer has left"
    );
    drop(left);
    assert_eq!(table.arrays().count(), 0);
}

#[test]
fn a_refused_array_comes_back_and_stays_its_producers() {
    let table = table();
    let queue = table.queue::<Jobs>(1).unwrap();
    queue.push_owned(array(&table, 1)).unwrap();
    let refused = queue.push_owned(array(&table, 2)).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let refused = queue.push_owned_timeout(refused.into_job(), Duration::from_millis(5));
    let refused = refused.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    queue.close();
    let refused = queue.push_owned(refused.into_job()).unwrap_err();
    assert!(refused.is_closed(), "{refused}");
    let back = refused.into_job();
    assert_eq!(table.read(back.handle()).unwrap().sum(), 6);
    drop(back);
    assert!(queue.pop_owned().unwrap().is_some(), "closing leaves it in");
    assert!(queue.is_drained() && queue.pop_owned_timeout(Duration::MAX).unwrap().is_none());
    assert_eq!(table.arrays().count(), 0);
}

#[test]
fn only_its_owner_pushes_an_array_and_adopt_is_the_remedy() {
    let table = table();
    let queue = table.queue::<Jobs>(4).unwrap();
    let stranger = other(&table);
    let theirs = stranger.from_elem(3, 4).unwrap();
    let refused = queue.push_owned(table.owned(theirs)).unwrap_err();
    let text = refused.to_string();
    let pid = std::process::id();
    assert!(
        text.contains(&format!(
            "a participant of process {pid} owns it; let it call detach"
        )),
        "{text}"
    );
    let array = refused.into_job();
    stranger.detach(array.handle()).unwrap();
    let refused = queue.push_owned(array).unwrap_err();
    assert!(
        refused.to_string().contains("no participant owns it"),
        "{refused}"
    );
    let array = refused.into_job();
    table.adopt(array.handle()).unwrap();
    queue.push_owned(array).unwrap();
    assert!(queue.pop_owned().unwrap().is_some());
    let gone = array_that_was_freed(&table);
    let refused = QueueError::from(queue.push_owned(gone).unwrap_err());
    assert!(matches!(
        refused,
        QueueError::Lease(LeaseError::Stale { .. })
    ));
}

fn array_that_was_freed(table: &HandleTable) -> Owned<'_, u64, Ix1> {
    let gone = array(table, 1);
    table.free(gone.handle()).unwrap();
    gone
}

#[test]
fn an_array_in_a_queue_is_taken_by_nobody_else() {
    let table = table();
    let queue = table.queue::<Jobs>(4).unwrap();
    let x = array(&table, 4);
    let handle = x.handle();
    queue.push_owned(x).unwrap();
    for refused in [
        table.adopt(handle),
        table.detach(handle),
        other(&table).adopt(handle),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, LeaseError::Queued { .. }), "{error}");
        assert!(error.to_string().contains("belongs to a queue"), "{error}");
    }
    let twice = queue.push_owned(table.owned(handle)).unwrap_err();
    assert!(matches!(
        QueueError::from(twice),
        QueueError::NotOwned { owner: 0, .. }
    ));
    // The refused call dropped a second `Owned` of the array, and so freed it.
    assert!(queue.pop_owned().unwrap().is_none());
    let bundle = table.bundle().unwrap();
    queue.push_owned(array(&table, 4)).unwrap();
    let queued = table.arrays().next().unwrap();
    assert_eq!(queued.owner, None);
    let error = bundle.insert("x", queued.handle).unwrap_err();
    assert!(
        matches!(error, BundleError::NotOwned { owner: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_freed_array_is_passed_over() {
    let table = table();
    let queue = table.queue::<Jobs>(4).unwrap();
    let (x, y) = (array(&table, 1), array(&table, 2));
    let freed = x.handle();
    queue.push_owned(x).unwrap();
    queue.push_owned(y).unwrap();
    table.free(freed).unwrap();
    let popped = queue.pop_owned().unwrap().unwrap();
    assert_eq!(table.read(popped.handle()).unwrap()[0], 2);
}

#[test]
fn arrays_go_with_their_queue_and_with_its_owner() {
    let table = table();
    for by_leaving in [false, true] {
        let owner = other(&table);
        let queue = owner.queue::<Jobs>(4).unwrap();
        let theirs = table.open_queue(queue.handle()).unwrap();
        for value in 0..3 {
            theirs.push_owned(array(&table, value)).unwrap();
        }
        assert_eq!(table.arrays().count(), 3);
        if by_leaving {
            core::mem::forget(queue);
            drop(owner);
        } else {
            drop(queue);
        }
        assert_eq!(table.arrays().count(), 0);
        assert!(theirs.pop_owned().unwrap().is_none());
        assert!(theirs.push_owned(array(&table, 1)).unwrap_err().is_closed());
        drop(theirs);
        assert!(table.verify().unwrap().is_clean());
    }
}

#[test]
fn a_consumer_that_owned_the_array_when_it_died_puts_no_job_back() {
    let table = table();
    let queue = table.queue::<Jobs>(1).unwrap();
    queue.push_owned(array(&table, 1)).unwrap();
    let recover = || {
        queue.cells.recover_arrays(table.segment(), DEAD);
        queue.cells.recover(DEAD).jobs
    };
    let _taken = queue.cells.take(DEAD).unwrap();
    assert_eq!(recover(), 1, "it is still in the queue");
    let ticket = queue.cells.take(DEAD).unwrap();
    let bits = queue.cells.array(ticket.position);
    let memory = table.segment().memory();
    let (slot, generation) = array_of(memory, table.segment().key(), bits).unwrap();
    slot.change(|word| word.dequeue(generation, DEAD)).unwrap();
    assert_eq!(recover(), 0, "it is freed with the dead consumer");
    assert_eq!(queue.cells.array(0), 0);
    assert!(queue.is_empty());
    queue.push_owned(array(&table, 2)).unwrap();
}

/// What a producer has done of a push: its cell is WRITING, and its array QUEUED.
struct Begun<'t> {
    ticket: Ticket,
    array: (Slot<'t>, u32),
}

/// Begins a push by `seat`, up to the step in which its array becomes QUEUED.
fn begin_push<'t>(queue: &Queue<'t, Jobs>, table: &'t HandleTable, seat: SeatId) -> Begun<'t> {
    let handle: Handle<u64, Ix1> = table.from_elem(3, 1).unwrap();
    let (memory, key) = (table.segment().memory(), table.segment().key());
    let (slot, generation) = array_of(memory, key, handle.to_bits()).unwrap();
    let maker = SeatId::from_index(table.seat().unwrap());
    slot.change(|word| word.adopt(generation, maker, seat))
        .unwrap();
    let ticket = queue.claim(seat).unwrap();
    queue.cells.set_array(ticket.position, handle.to_bits());
    slot.change(|word| word.enqueue(generation, seat)).unwrap();
    Begun {
        ticket,
        array: (slot, generation),
    }
}

/// Pushes like a producer that dies between FULL and moving the tail.
fn fill_without_the_tail<'t>(
    queue: &Queue<'t, Jobs>,
    table: &'t HandleTable,
    seat: SeatId,
) -> Slot<'t> {
    let Begun { ticket, array } = begin_push(queue, table, seat);
    let full = ticket.word.publish(seat).unwrap();
    queue.cells.settle(ticket.position, ticket.word, full);
    array.0
}

/// Returns the state of a cell, and the handle in it.
fn cell(queue: &Queue<'_, Jobs>, index: u64) -> (CellState, u64) {
    (queue.cells.word(index).state(), queue.cells.array(index))
}

fn recover(queue: &Queue<'_, Jobs>, table: &HandleTable) {
    queue.cells.recover_arrays(table.segment(), DEAD);
    queue.cells.recover(DEAD);
}

#[test]
fn a_push_that_meets_the_close_gets_its_array_back() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let me = queue.lease.enter().unwrap();
    let Begun { ticket, array } = begin_push(&queue, &table, me);
    queue.close();
    assert!(!queue.cells.publish_array(ticket, me, array));
    assert!(array.0.word().is_owned_by(me));
    assert_eq!(cell(&queue, 0), (CellState::Empty, 0));
    assert!(queue.is_drained());
}

#[test]
fn a_push_whose_array_was_taken_before_it_met_the_close_succeeds() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let me = queue.lease.enter().unwrap();
    let Begun { ticket, array } = begin_push(&queue, &table, me);
    let (slot, generation) = array;
    slot.change(|word| word.dequeue(generation, DEAD)).unwrap();
    queue.close();
    assert!(queue.cells.publish_array(ticket, me, array));
    assert!(slot.word().is_owned_by(DEAD));
}

#[test]
fn a_push_that_is_given_up_frees_its_cell_and_wakes_producers() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let me = queue.lease.enter().unwrap();
    let Begun { ticket, .. } = begin_push(&queue, &table, me);
    queue.cells.mark_sleeper(Event::Popped);
    queue.cells.give_up(ticket, me);
    assert_eq!(cell(&queue, 0), (CellState::Empty, 0));
    assert!(!queue.cells.now(Event::Popped).is_awaited());
}

#[test]
fn an_array_that_the_dead_was_pushing_goes_with_it() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let Begun { array, .. } = begin_push(&queue, &table, DEAD);
    queue.cells.recover_arrays(table.segment(), DEAD);
    assert!(array.0.word().is_owned_by(DEAD));
    assert_eq!(cell(&queue, 0), (CellState::Writing, 0));
    recover(&queue, &table);
    assert_eq!(cell(&queue, 0), (CellState::Empty, 0));
}

#[test]
fn an_array_that_the_dead_had_pushed_stays_in_its_queue() {
    let table = table();
    for closed in [false, true] {
        let queue = table.queue::<Jobs>(2).unwrap();
        let Begun { ticket, array } = begin_push(&queue, &table, DEAD);
        assert!(queue.cells.publish_array(ticket, DEAD, array));
        if closed {
            queue.close();
        }
        recover(&queue, &table);
        assert!(array.0.word().is_queued_by(DEAD));
        assert!(queue.pop_owned().unwrap().is_some());
    }
}

#[test]
fn the_death_of_another_changes_no_push_and_no_pop() {
    let table = table();
    let queue = table.queue::<Jobs>(4).unwrap();
    let me = queue.lease.enter().unwrap();
    queue.push_owned(array(&table, 1)).unwrap();
    queue.push_owned(array(&table, 2)).unwrap();
    let taking = queue.cells.take(me).unwrap();
    let taken = queue.cells.take(me).unwrap();
    let bits = queue.cells.array(taken.position);
    let (memory, key) = (table.segment().memory(), table.segment().key());
    let (slot, generation) = array_of(memory, key, bits).unwrap();
    slot.change(|word| word.dequeue(generation, me)).unwrap();
    let pushing = begin_push(&queue, &table, me);
    let cells = || [taking, taken, pushing.ticket].map(|ticket| cell(&queue, ticket.position));
    let before = cells();
    recover(&queue, &table);
    assert_eq!(cells(), before);
    assert!(pushing.array.0.word().is_queued_by(me) && slot.word().is_owned_by(me));
}

#[test]
fn an_array_that_the_dead_pushed_after_the_close_goes_with_it() {
    let table = table();
    for (seat, is_taken_back) in [(DEAD, true), (SeatId::from_index(6), false)] {
        let queue = table.queue::<Jobs>(2).unwrap();
        let slot = fill_without_the_tail(&queue, &table, seat);
        queue.close();
        recover(&queue, &table);
        assert_eq!(slot.word().is_owned_by(seat), is_taken_back);
        let state = cell(&queue, 0).0;
        assert_eq!(state == CellState::Empty, is_taken_back, "{state:?}");
        assert!(queue.pop_owned().unwrap().is_none());
    }
}

#[test]
fn an_array_that_the_dead_had_written_into_an_open_queue_is_pushed() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    let slot = fill_without_the_tail(&queue, &table, DEAD);
    recover(&queue, &table);
    assert!(slot.word().is_queued_by(DEAD));
    let popped = queue.pop_owned().unwrap().unwrap();
    assert_eq!(table.read(popped.handle()).unwrap().sum(), 3);
}

#[test]
fn an_array_stays_the_queues_until_it_is_acknowledged() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    queue.push_owned(array(&table, 7)).unwrap();
    let job = queue.pop_owned_with_ack().unwrap().unwrap();
    assert_eq!(table.read(job.handle()).unwrap().sum(), 21);
    let refused = table.adopt(job.handle()).unwrap_err();
    assert!(matches!(refused, LeaseError::Queued { .. }), "{refused}");
    assert!(queue.pop_owned_with_ack().unwrap().is_none());
    job.give_back().unwrap();
    let job = queue
        .pop_owned_with_ack_timeout(Duration::MAX)
        .unwrap()
        .unwrap();
    assert_eq!(job.deliveries(), 2);
    let ours = job.ack().unwrap();
    assert_eq!(
        table.info(ours.handle()).unwrap().owner,
        Some(std::process::id())
    );
    drop(ours);
    assert_eq!(table.arrays().count(), 0);
    queue.push_owned(array(&table, 8)).unwrap();
    queue.push_owned(array(&table, 9)).unwrap();
}

#[test]
fn a_bound_array_that_was_freed_is_reported() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    queue.push_owned(array(&table, 7)).unwrap();
    queue.push_owned(array(&table, 8)).unwrap();
    let job = queue.pop_owned_with_ack().unwrap().unwrap();
    table.free(job.handle()).unwrap();
    assert!(matches!(
        job.ack(),
        Err(QueueError::Lease(LeaseError::Stale { .. }))
    ));
    let job = queue.pop_owned_with_ack().unwrap().unwrap();
    table.free(job.handle()).unwrap();
    drop(job);
    assert!(
        queue.pop_owned_with_ack().unwrap().is_none(),
        "it is skipped"
    );
    queue.push_owned(array(&table, 9)).unwrap();
    queue.push_owned(array(&table, 9)).unwrap();
}

/// The late producer of a closed queue takes its array back while the job is bound.
#[test]
fn a_bound_array_that_left_the_queue_is_reported() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    queue.push_owned(array(&table, 7)).unwrap();
    let me = queue.lease.enter().unwrap();
    let job = queue.pop_owned_with_ack().unwrap().unwrap();
    let (slot, generation) = table.core.tables().live(job.handle().into()).unwrap();
    assert!(take_back((slot, generation), me));
    let handle = job.handle();
    let error = job.ack().unwrap_err();
    assert!(matches!(error, QueueError::NotQueued { owner, .. } if owner == std::process::id()));
    table.free(handle).unwrap();
    assert!(queue.pop_owned().unwrap().is_none());
}

#[test]
fn an_array_that_comes_back_into_a_freed_queue_is_freed() {
    let table = table();
    let consumer = other(&table);
    let queue = table.queue::<Jobs>(2).unwrap();
    queue.push_owned(array(&table, 7)).unwrap();
    let theirs = consumer.open_queue(queue.handle()).unwrap();
    let job = theirs.pop_owned_with_ack().unwrap().unwrap();
    drop(queue);
    assert_eq!(table.read(job.handle()).unwrap().sum(), 21);
    drop(job);
    drop(theirs);
    assert_eq!(table.arrays().count(), 0, "the array has leaked");
}

#[test]
fn the_death_of_the_consumer_of_a_bound_array() {
    let table = table();
    let queue = table.queue::<Jobs>(2).unwrap();
    for acknowledged in [false, true] {
        queue.push_owned(array(&table, 7)).unwrap();
        let ticket = queue.cells.take(DEAD).unwrap();
        let bits = queue.cells.array(ticket.position);
        queue.cells.bind(&ticket, DEAD);
        let (memory, key) = (table.segment().memory(), table.segment().key());
        if acknowledged {
            let (slot, generation) = array_of(memory, key, bits).unwrap();
            slot.change(|word| word.dequeue(generation, DEAD)).unwrap();
        }
        queue.cells.recover_arrays(table.segment(), DEAD);
        let jobs = queue.cells.recover(DEAD).jobs;
        assert_eq!(jobs, usize::from(!acknowledged));
        let back = queue.pop_owned_with_ack().unwrap();
        assert_eq!(back.is_some(), !acknowledged);
        if let Some(back) = back {
            assert_eq!(back.deliveries(), 2);
            drop(back.ack().unwrap());
        }
    }
    queue.push_owned(array(&table, 9)).unwrap();
    queue.push_owned(array(&table, 9)).unwrap();
    assert!(queue.push_owned(array(&table, 9)).is_err());
}
