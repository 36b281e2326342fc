//! Arrays that pass from a producer through a queue to a consumer. Either may die at any
//! instruction: each array has one owner, and is freed once.
#![cfg(all(loom, not(shuttle)))]

use std::mem::ManuallyDrop;

use loom::thread;
use loom_tests::{assert_all_free, beside, check, check_deaths, check_deaths_in_case, tables};
use ndarray::Ix1;
use ndshm::queue::OwnedArray;
use ndshm::{AnyHandle, Handle, HandleTable, Queue, QueueHandle, Segment, model};

type Jobs = OwnedArray<u64, Ix1>;
type Vector = Handle<u64, Ix1>;

/// The number of arrays of one number that fit beside a queue or after it.
const SLOTS: usize = 2;
/// The most operations of a participant that pushes an array and pops it.
const DEATHS: u64 = 40;
/// After this many operations a consumer is TAKING a job whose array is QUEUED.
const WITH_THE_JOB: u64 = 5;

/// Creates a segment with room for a queue of one cell, and three arrays.
fn segment(seats: u32) -> Segment {
    loom_tests::segment(512, seats, 4)
}

fn open(table: &HandleTable, name: QueueHandle<Jobs>) -> Queue<'_, Jobs> {
    table.open_queue(name).expect("the queue is live")
}

fn array(table: &HandleTable, value: u64) -> Vector {
    table.from_elem(1, value).expect("there is room")
}

/// Pushes an array of the table's participant. Returns `true` if the queue took it.
fn push(table: &HandleTable, queue: &Queue<'_, Jobs>, array: Vector) -> bool {
    match queue.push_owned(table.owned(array)) {
        Ok(()) => true,
        Err(refused) => {
            refused.into_job().into_handle();
            false
        }
    }
}

/// Pops an array and reads it. The array is freed.
fn pop(table: &HandleTable, queue: &Queue<'_, Jobs>) -> Option<u64> {
    let array = queue.pop_owned().unwrap()?;
    let value = table.read(array.handle()).expect("the array is live")[0];
    Some(value)
}

/// Runs `act` as the participant of `seat` and kills it before its operation number `steps`.
fn dies<R>(
    table: HandleTable,
    seat: usize,
    steps: u64,
    act: impl FnOnce(&HandleTable) -> R,
) -> Option<R> {
    let segment = table.segment().clone();
    let table = ManuallyDrop::new(table);
    model::mortal(&segment, seat, steps, || act(&table))
}

/// I4, I6: an array arrives whole although its producer leaves at once. It belongs to the consumer.
#[test]
fn an_array_is_handed_over_whole() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue::<Jobs>(1).unwrap();
        let name = queue.handle();
        let producer = thread::spawn(move || {
            let x = array(&second, 7);
            assert!(push(&second, &open(&second, name), x));
            drop(second);
        });
        let early = pop(&first, &queue);
        producer.join().unwrap();
        let late = pop(&first, &queue);
        assert_eq!(early.or(late), Some(7));
        assert!(early.is_none() || late.is_none(), "popped twice");
        drop(queue);
        assert_all_free(&first, SLOTS);
    });
}

/// I1, I4, I7: a producer dies between any two steps of a push while the survivor pops: the array
/// is popped once, or freed with its producer.
#[test]
fn death_while_pushing_an_array() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = survivor.queue::<Jobs>(1).unwrap();
        let name = queue.handle();
        let x = array(&second, 7);
        let producer = thread::spawn(move || {
            dies(second, 1, steps, |table| push(table, &open(table, name), x)).is_none()
        });
        let early = pop(&survivor, &queue);
        let died = producer.join().unwrap();
        survivor.reap().unwrap();
        let late = pop(&survivor, &queue);
        assert!(early.is_none() || late.is_none(), "popped twice");
        assert!(died || early.or(late) == Some(7), "the array is lost");
        drop(queue);
        if !died {
            // The producer lives, and nobody has given up its seat.
            return false;
        }
        assert_all_free(&survivor, SLOTS);
        true
    });
}

/// Kills a consumer before its step `steps` of `consume`, while the survivor reaps and pops: either of
/// them gets the array, or it is freed with the dead consumer. Returns `true` if the consumer died.
fn death_while_consuming(
    steps: u64,
    consume: fn(&HandleTable, &Queue<'_, Jobs>) -> Option<u64>,
) -> bool {
    let [survivor, second] = tables(&segment(2));
    let queue = survivor.queue::<Jobs>(1).unwrap();
    let name = queue.handle();
    let x = array(&survivor, 7);
    assert!(push(&survivor, &queue, x));
    let consumer =
        thread::spawn(move || dies(second, 1, steps, |table| consume(table, &open(table, name))));
    survivor.reap().unwrap();
    let early = pop(&survivor, &queue);
    let theirs = consumer.join().unwrap();
    let died = theirs.is_none();
    survivor.reap().unwrap();
    let late = pop(&survivor, &queue);
    let times = [early, theirs.flatten(), late]
        .into_iter()
        .flatten()
        .count();
    assert!(times == 1 || died && times == 0, "owned {times} times");
    // A lost cell would refuse this push.
    let y = array(&survivor, 8);
    assert!(push(&survivor, &queue, y));
    drop(queue);
    if !died {
        return false;
    }
    assert_all_free(&survivor, SLOTS);
    true
}

/// I1, I4, I7: a consumer dies between any two steps of a pop.
#[test]
fn death_while_popping_an_array() {
    check_deaths(2, |steps| death_while_consuming(steps, pop));
}

/// I1, I4, I7: a consumer dies between any two steps from the pop to the end of the acknowledgement.
#[test]
fn death_before_an_array_is_acknowledged() {
    check_deaths(1, |steps| {
        death_while_consuming(steps, |table, queue| {
            let array = queue.pop_owned_with_ack().unwrap()?.ack().unwrap();
            Some(table.read(array.handle()).unwrap()[0])
        })
    });
}

/// I1, I4: a queue is freed beside a consumer that gives its job back: the array is freed with the
/// queue.
#[test]
fn a_queue_is_freed_beside_a_give_back() {
    check(1, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue::<Jobs>(1).unwrap();
        let x = array(&first, 7);
        assert!(push(&first, &queue, x));
        let name = queue.handle();
        // Not dropped: the queue is freed by its handle, in the thread that has its table.
        std::mem::forget(queue);
        let queue = open(&second, name);
        let job = queue.pop_owned_with_ack().unwrap().unwrap();
        let freeing = thread::spawn(move || first.free(name).map(|()| first));
        drop(job);
        let _first = freeing.join().unwrap().unwrap();
        assert_eq!(second.arrays().count(), 0, "the array has leaked");
    });
}

/// I1, I7: a producer or a consumer dies at any step, and its reaper dies at any step. The next
/// reaper finishes.
#[test]
fn death_of_a_reaper_of_arrays() {
    for taken in 0..DEATHS {
        check_deaths_in_case(taken, 0, move |steps| {
            let segment = segment(4);
            let [reaper, dead, survivor] = tables(&segment);
            let queue = survivor.queue::<Jobs>(1).unwrap();
            let x = array(&dead, 7);
            // Not dropped: its lease dies with the participant.
            let theirs = ManuallyDrop::new(open(&dead, queue.handle()));
            model::mortal(&segment, 1, taken, || {
                push(&dead, &theirs, x);
                pop(&dead, &theirs);
            });
            let died = dies(reaper, 0, steps, |table| drop(table.reap().unwrap())).is_none();
            survivor.reap().unwrap();
            pop(&survivor, &queue);
            let y = array(&survivor, 8);
            assert!(push(&survivor, &queue, y), "a cell is lost");
            assert_eq!(pop(&survivor, &queue), Some(8));
            drop(queue);
            std::mem::forget(dead);
            if died && taken + 1 < DEATHS {
                assert_all_free(&survivor, SLOTS);
            }
            died
        });
    }
}

/// I4, I5: a queue is freed beside a pop: its array is popped, or freed with the queue.
#[test]
fn a_queue_is_freed_beside_a_pop() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue::<Jobs>(1).unwrap();
        let theirs = queue.handle();
        let x = array(&first, 7);
        assert!(push(&first, &queue, x));
        let consume = move |second: &HandleTable| {
            if let Ok(queue) = second.open_queue(theirs) {
                assert!(matches!(pop(second, &queue), None | Some(7)));
            }
        };
        let ((), (), _second) = beside(second, consume, || drop(queue));
        assert_all_free(&first, SLOTS);
    });
}

/// I4, I5: a queue is freed beside a push: the array is freed with the queue, or its producer owns
/// it again.
#[test]
fn a_queue_is_freed_beside_a_push() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue::<Jobs>(1).unwrap();
        let theirs = queue.handle();
        let x = array(&second, 7);
        let producer = thread::spawn(move || {
            let pushed = match second.open_queue(theirs) {
                Ok(queue) => push(&second, &queue, x),
                Err(_) => false,
            };
            if !pushed {
                second.free(x).expect("the producer owns it again");
            }
            second
        });
        first.free(AnyHandle::from_bits(theirs.to_bits())).unwrap();
        let _second = producer.join().unwrap();
        // This closes the queue as well.
        drop(queue);
        assert_all_free(&first, SLOTS);
    });
}

/// I1, I4: a queue is freed beside the reap of a consumer that died while taking a job. The reap
/// puts the job back, and its array is freed with the queue.
#[test]
fn a_queue_is_freed_beside_a_reap() {
    check(1, || {
        let segment = segment(3);
        let [dead, first, reaper] = tables(&segment);
        let queue = first.queue::<Jobs>(1).unwrap();
        let x = array(&first, 7);
        assert!(push(&first, &queue, x));
        // Not dropped: its lease dies with the participant.
        let theirs = ManuallyDrop::new(open(&dead, queue.handle()));
        model::mortal(&segment, 0, WITH_THE_JOB, || pop(&dead, &theirs));
        let reaping = thread::spawn(move || (reaper.reap().unwrap().jobs, reaper));
        drop(queue);
        let (jobs, _reaper) = reaping.join().unwrap();
        std::mem::forget(dead);
        assert_eq!(jobs, 1, "the consumer died at another step");
        assert_eq!(first.arrays().count(), 0, "the array has leaked");
    });
}

/// I1, I7: the owner of a queue with an array in it dies between any two steps of freeing the
/// queue, beside a consumer.
#[test]
fn death_while_freeing_a_queue() {
    check_deaths(1, |steps| {
        let [survivor, owner] = tables(&segment(2));
        let queue = owner.queue::<Jobs>(1).unwrap();
        let name = queue.handle();
        let x = array(&owner, 7);
        assert!(push(&owner, &queue, x));
        // Not dropped: its lease dies with its owner.
        std::mem::forget(queue);
        let owner = thread::spawn(move || {
            dies(owner, 1, steps, |table| {
                table.free(AnyHandle::from_bits(name.to_bits())).unwrap();
            })
            .is_none()
        });
        if let Ok(queue) = survivor.open_queue(name) {
            pop(&survivor, &queue);
        }
        let died = owner.join().unwrap();
        survivor.reap().unwrap();
        if died {
            assert_all_free(&survivor, SLOTS);
        }
        died
    });
}

/// I1, I5: the queue is closed beside a push of a producer that dies at any step: the array is
/// popped, or freed with its producer, or freed with the queue.
#[test]
fn death_while_pushing_into_a_queue_that_closes() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = survivor.queue::<Jobs>(1).unwrap();
        let name = queue.handle();
        let x = array(&second, 7);
        let producer = thread::spawn(move || {
            dies(second, 1, steps, |table| push(table, &open(table, name), x))
        });
        queue.close();
        let early = pop(&survivor, &queue);
        let drained = early.is_none() && queue.is_drained();
        let pushed = producer.join().unwrap();
        survivor.reap().unwrap();
        let late = pop(&survivor, &queue);
        assert!(early.is_none() || late.is_none(), "popped twice");
        assert!(!drained || late.is_none(), "an array after the last one");
        if let Some(pushed) = pushed {
            assert_eq!(pushed, early.or(late).is_some());
            return false;
        }
        // An array that the dead producer pushed too late is freed before the queue.
        assert_eq!(survivor.arrays().count(), 0);
        drop(queue);
        assert_all_free(&survivor, SLOTS);
        true
    });
}
