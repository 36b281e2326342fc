//! A producer that remembers that the queue is full, and all that ends its memory.

use ndarray::Ix1;

use crate::handle_table::HandleTable;
use crate::queue::cells::HEAD;
use crate::queue::*;
use crate::segment::Segment;
use crate::sync::{Ordering, Word};
use crate::word::CellWord;

const DEAD: SeatId = SeatId::from_index(5);

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

/// Creates a full queue of two cells. Its producer has noticed that it is full.
fn full(table: &HandleTable) -> Queue<'_, u64> {
    let queue = table.queue(2).unwrap();
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    assert_eq!(queue.full.get(), None);
    refuses(&queue);
    queue
}

#[track_caller]
fn refuses(queue: &Queue<'_, u64>) {
    assert!(queue.push(9).unwrap_err().is_full());
    assert!(queue.full.get().is_some(), "it is remembered");
}

/// Asserts that one push is possible, and no more.
#[track_caller]
fn takes_one(queue: &Queue<'_, u64>) {
    queue.push(3).expect("a cell is free");
    refuses(queue);
}

#[test]
fn a_producer_that_knows_the_queue_to_be_full_looks_at_one_cell() {
    let table = table();
    let queue = full(&table);
    // Not the cell at the tail, which a push tries before all else.
    let cell = queue.cells.cell(1);
    let job = cell.load(Ordering::Relaxed);
    // No call does this alone: it shows that the other cells decide nothing.
    cell.store(CellWord::from_bits(0), Ordering::Relaxed);
    refuses(&queue);
    cell.store(job, Ordering::Relaxed);
    refuses(&queue);
    assert_eq!(queue.pop().unwrap(), Some(1));
    takes_one(&queue);
}

#[test]
fn a_pop_and_an_acknowledgement_end_it() {
    let table = table();
    let queue = full(&table);
    for job in [1, 2] {
        assert_eq!(queue.pop().unwrap(), Some(job));
        takes_one(&queue);
    }
    let job = queue.pop_with_ack().unwrap().unwrap();
    refuses(&queue);
    job.ack().unwrap();
    takes_one(&queue);
    // A job that comes back keeps its cell.
    drop(queue.pop_with_ack().unwrap());
    refuses(&queue);
}

#[test]
fn a_pop_that_leaves_the_head_where_it_is_ends_it() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    // The producer of the oldest cell has stopped.
    let _claimed = queue.claim(DEAD).unwrap();
    queue.push(2).unwrap();
    refuses(&queue);
    for job in [2, 3] {
        assert_eq!(queue.pop().unwrap(), Some(job));
        assert_eq!(queue.cells.end(HEAD).position(), 0);
        takes_one(&queue);
    }
    queue.cells.recover(DEAD);
    takes_one(&queue);
}

#[test]
fn a_consumer_that_another_has_overtaken_ends_it() {
    let table = table();
    let queue = full(&table);
    let me = queue.lease.enter().unwrap();
    let slow = queue.cells.take(me).unwrap();
    assert_eq!(queue.pop().unwrap(), Some(2));
    takes_one(&queue);
    queue.cells.release(slow, me);
    takes_one(&queue);
}

#[test]
fn the_undo_of_a_consumer_that_died_after_it_emptied_its_cell_ends_it() {
    let table = table();
    let queue = full(&table);
    let ticket = queue.cells.take(DEAD).unwrap();
    let empty = ticket.word.release(DEAD).unwrap();
    let cell = queue.cells.cell(ticket.position);
    cell.publish_owned(ticket.word, empty);
    let before = queue.cells.room();
    queue.cells.recover(DEAD);
    assert_ne!(queue.cells.room(), before);
    takes_one(&queue);
}

#[test]
fn a_closed_queue_says_so_also_if_it_was_full() {
    let table = table();
    let queue = full(&table);
    queue.close();
    assert!(queue.push(3).unwrap_err().is_closed());
}

#[test]
fn arrays_end_it_too() {
    let table = table();
    let queue = table.queue::<OwnedArray<u64, Ix1>>(1).unwrap();
    let array = || table.owned(table.from_elem(1, 7).unwrap());
    let refuses = || {
        assert!(queue.push_owned(array()).unwrap_err().is_full());
        assert!(queue.full.get().is_some());
    };
    queue.push_owned(array()).unwrap();
    refuses();
    drop(queue.pop_owned().unwrap());
    queue.push_owned(array()).unwrap();
    refuses();
    let job = queue.pop_owned_with_ack().unwrap().unwrap();
    refuses();
    drop(job.ack().unwrap());
    queue.push_owned(array()).unwrap();
    refuses();
    // An array that was freed by its handle costs its consumer a look, and frees the cell.
    let handle = queue.pop_owned().unwrap().unwrap().into_handle();
    queue.push_owned(table.owned(handle)).unwrap();
    refuses();
    table.free(handle).unwrap();
    assert!(queue.pop_owned().unwrap().is_none());
    queue.push_owned(array()).unwrap();
}
