//! Operations that stop half-way, one step at a time on the words of a queue.

use crate::handle_table::HandleTable;
use crate::queue::cells::{Event, HEAD, Seen, TAIL};
use crate::queue::*;
use crate::segment::Segment;
use crate::sync::{Ordering, Word};
use crate::word::SeatId;
use crate::word::{CellState, CellWord, EndWord};

const DEAD: SeatId = SeatId::from_index(5);

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

fn end(queue: &Queue<'_, u64>, end: usize) -> EndWord {
    queue.cells.end_word(end).load(Ordering::Relaxed)
}

fn cell(queue: &Queue<'_, u64>, index: u64) -> (CellState, u64) {
    let word = queue.cells.cell(index).load(Ordering::Relaxed);
    (word.state(), word.lap())
}

/// Fills a cell without moving the tail, as a producer that dies in between.
fn fill_without_the_tail(queue: &Queue<'_, u64>, job: u64) {
    let ticket = queue.claim(DEAD).unwrap();
    queue.write(&ticket, &job);
    let full = ticket.word.publish(DEAD).unwrap();
    let cell = queue.cells.cell(ticket.position);
    cell.store(full, Ordering::Relaxed);
}

#[test]
fn recovery_pushes_a_job_that_was_written_completely() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    fill_without_the_tail(&queue, 7);
    assert_eq!(queue.pop().unwrap(), None);
    assert_eq!(queue.cells.recover(DEAD).jobs, 0);
    assert_eq!(end(&queue, TAIL).position(), 1);
    assert_eq!(queue.pop().unwrap(), Some(7));
}

#[test]
fn recovery_helps_no_job_into_a_closed_queue() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    fill_without_the_tail(&queue, 7);
    queue.close();
    assert_eq!(queue.cells.recover(DEAD).jobs, 0);
    assert_eq!(end(&queue, TAIL).position(), 1, "the close came first");
    assert_eq!(queue.pop().unwrap(), Some(1));
    assert!(queue.is_drained(), "no job can follow");
    assert_eq!(queue.pop().unwrap(), None);
}

#[test]
fn recovery_puts_a_job_back_into_a_closed_queue() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    let _taken = queue.cells.take(DEAD).unwrap();
    queue.close();
    assert!(!queue.is_drained(), "a death would put it back");
    assert_eq!(queue.cells.recover(DEAD).jobs, 1);
    assert_eq!(cell(&queue, 0), (CellState::Full, 1));
    assert_eq!(end(&queue, TAIL).position(), 5, "in the next lap");
    assert_eq!(queue.pop().unwrap(), Some(1));
    assert!(queue.is_drained());
}

#[test]
fn recovery_wakes_both_ends() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    for event in [Event::Pushed, Event::Popped] {
        assert!(queue.cells.mark_sleeper(event).is_awaited());
    }
    queue.cells.recover(DEAD);
    assert!(!end(&queue, TAIL).is_awaited() && !end(&queue, HEAD).is_awaited());
}

#[test]
fn closing_wakes_both_ends() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    assert!(queue.cells.mark_sleeper(Event::Pushed).is_awaited());
    assert!(queue.cells.mark_sleeper(Event::Popped).is_awaited());
    assert!(end(&queue, TAIL).is_awaited() && end(&queue, HEAD).is_awaited());
    queue.close();
    assert!(!end(&queue, TAIL).is_awaited() && !end(&queue, HEAD).is_awaited());
}

#[test]
fn a_push_that_comes_after_the_close_is_withdrawn() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let me = queue.lease.enter().unwrap();
    let ticket = queue.claim(me).unwrap();
    queue.close();
    assert!(!queue.cells.publish(ticket, me));
    assert_eq!(cell(&queue, 0), (CellState::Empty, 1));
    assert_eq!(end(&queue, TAIL).position(), 0);
    assert!(queue.is_drained());
}

#[test]
fn faults_reports_held_cells_with_their_holder() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let told = || {
        let mut told = Vec::new();
        queue
            .cells
            .faults(|at, bits, seat| told.push((at, bits, seat)));
        told
    };
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    assert_eq!(told(), []);
    let taken = queue.cells.take(DEAD).unwrap();
    let claimed = queue.claim(DEAD).unwrap();
    let invalid = 7 << 12;
    queue
        .cells
        .cell(3)
        .store(CellWord::from_bits(invalid), Ordering::Relaxed);
    let place = |position| {
        let ticket = cells::Ticket { position, ..taken };
        // A job lies behind its cell's word.
        queue.cells.job_offset(&ticket) - 8
    };
    let expected = [
        (place(0), taken.word.bits(), Some(DEAD)),
        (place(2), claimed.word.bits(), Some(DEAD)),
        (place(3), invalid, None),
    ];
    assert_eq!(told(), expected);
}

#[test]
fn a_full_cell_beyond_the_tail_is_no_job_of_a_closed_queue() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    fill_without_the_tail(&queue, 7);
    queue.close();
    assert!(!queue.is_drained(), "the first one is in it");
    assert_eq!(queue.pop().unwrap(), Some(1));
    assert_eq!(cell(&queue, 1), (CellState::Full, 0));
    assert!(queue.is_drained());
}

#[test]
fn a_queue_is_open_until_it_is_closed() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();
    assert!(!queue.is_closed() && !queue.is_drained() && !queue.is_empty());
    let text = format!("{queue:?}");
    assert!(
        text.contains("capacity: 4, len: 1, closed: false"),
        "{text}"
    );
    queue.close();
    assert!(queue.is_closed() && !queue.is_drained());
}

#[test]
fn a_position_stays_a_position_in_any_lap() {
    let table = table();
    let queue = table.queue::<u8>(1 << 14).unwrap();
    let cells = &queue.cells;
    assert_eq!(cells.in_lap(3 << 14 | 5, 7), 7 << 14 | 5);
    let last = EndWord::LAST_POSITION;
    assert_eq!(cells.in_lap(5, (1 << 49) - 1), last >> 14 << 14 | 5);
}

#[test]
fn sleepers_at_either_end_are_woken_by_its_change() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let cells = queue.cells;
    // Only a lost wake-up waits so long.
    let long = std::time::Duration::from_secs(120);
    let start = std::time::Instant::now();
    let steps: [(Event, &dyn Fn()); 4] = [
        (Event::Pushed, &|| queue.push(1).unwrap()),
        (Event::Popped, &|| assert_eq!(queue.pop().unwrap(), Some(1))),
        (Event::Pushed, &|| queue.close()),
        (Event::Popped, &|| assert_eq!(cells.recover(DEAD).jobs, 0)),
    ];
    for (event, step) in steps {
        let marked = cells.mark_sleeper(event);
        std::thread::scope(|scope| {
            scope.spawn(|| cells.sleep(event, marked, long));
            step();
        });
        assert!(!cells.now(event).is_awaited());
    }
    assert!(start.elapsed() < long);
}

#[test]
fn a_search_tells_other_words_from_those_it_has_seen() {
    let seen = |words: &[u64]| {
        let mut seen = Seen::default();
        words
            .iter()
            .for_each(|&word| seen.add(CellWord::from_bits(word)));
        seen
    };
    assert_eq!(seen(&[3, 5]), seen(&[3, 5]));
    // Each step of each cell, and words with a sum of more than 64 bits.
    assert_ne!(seen(&[3, 5]), seen(&[4, 5]));
    assert_ne!(seen(&[3, 5]), seen(&[3, 6]));
    let last = u64::MAX;
    assert_ne!(seen(&[last, last]), seen(&[last, last - 1]));
}

#[test]
fn the_head_follows_pops_up_to_a_cell_that_may_hold_a_job() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let head = || end(&queue, HEAD).position();
    for popped in 1..10 {
        queue.push(popped).unwrap();
        assert_eq!(queue.pop().unwrap(), Some(popped));
        assert_eq!(head(), popped);
    }
    let _claimed = queue.claim(DEAD).unwrap();
    queue.push(10).unwrap();
    assert_eq!(queue.pop().unwrap(), Some(10));
    assert!(queue.is_empty());
    assert_eq!(head(), 9, "a producer is at work there");
    queue.cells.recover(DEAD);
    assert_eq!(head(), 9);
    assert!(queue.is_empty());
    assert_eq!(head(), 11);
}

#[test]
fn a_search_moves_free_cells_that_lie_below_the_tail_beyond_it() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    for tail in 4..=16 {
        let end_at = |position: u64| EndWord::from_bits(0).advance_to(position);
        queue
            .cells
            .end_word(HEAD)
            .store(end_at(4), Ordering::Relaxed);
        queue
            .cells
            .end_word(TAIL)
            .store(end_at(tail), Ordering::Relaxed);
        let free = CellWord::from_bits(0).pass_over(1).unwrap();
        for index in 0..4 {
            queue.cells.cell(index).store(free, Ordering::Relaxed);
        }
        assert!(queue.is_empty());
        assert_eq!(end(&queue, HEAD).position(), tail);
        for index in 0..4 {
            let (state, lap) = cell(&queue, index);
            // The first lap in which its position is not below the tail.
            let expected = (1..).find(|lap| lap * 4 + index >= tail).unwrap();
            assert_eq!((state, lap), (CellState::Empty, expected), "tail {tail}");
        }
        // They are used in order, the first one at the tail.
        for job in 0..4 {
            queue.push(job).unwrap();
        }
        for job in 0..4 {
            assert_eq!(queue.pop().unwrap(), Some(job), "tail {tail}");
        }
    }
}

#[test]
fn a_job_at_the_tail_is_not_popped_before_the_tail_moves() {
    let table = table();
    let queue = table.queue::<u64>(2).unwrap();
    // The head may be behind at any time.
    let pop_from_0 = || {
        queue
            .cells
            .end_word(HEAD)
            .store(EndWord::default(), Ordering::Relaxed);
        queue.pop().unwrap()
    };
    queue.push(1).unwrap();
    assert_eq!(pop_from_0(), Some(1));
    queue.push(2).unwrap();
    fill_without_the_tail(&queue, 3);
    assert_eq!([pop_from_0(), pop_from_0()], [Some(2), None]);
    queue.cells.recover(DEAD);
    assert_eq!([pop_from_0(), pop_from_0()], [Some(3), None]);
}
