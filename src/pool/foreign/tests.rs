//! Words of a foreign pool that another program has falsified.

use core::time::Duration;

use super::words::{At, Words};
use super::{ForeignPool, ForeignWorker};
use crate::handle_table::HandleTable;
use crate::pool::foreign::Answer;
use crate::segment::Segment;
use crate::sync::Ordering;

const MOMENT: Duration = Duration::from_millis(1);

/// Returns the next number of a linear congruential generator.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *seed >> 11 ^ *seed << 40
}

/// Replaces one of `one_in` words.
fn falsify(segment: &Segment, at: &At, seed: &mut u64, one_in: u64) {
    let words = At::words(at.workers);
    for word in segment.memory().control(at.offset(), words).unwrap() {
        if next(seed).is_multiple_of(one_in) {
            let value = next(seed);
            // Small and large numbers are more likely to mean something.
            let value = match value % 4 {
                0 => value % 5,
                1 => !(value % 5),
                2 => word.load(Ordering::Relaxed) ^ 1 << (value % 64),
                _ => value,
            };
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[test]
fn any_words_give_values_or_errors() {
    let segment = Segment::anonymous().unwrap();
    let (table, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let mut seed = 1;
    for one_in in [1, 3, 20].repeat(100) {
        let mut pool = ForeignPool::new(&table, 2).unwrap();
        let handle = pool.handle();
        let at = At::find_in(&segment, handle).unwrap();
        let mut worker = ForeignWorker::attach(&other, handle, None, MOMENT).unwrap();
        let called = pool.call(1, &[7; 1000]).is_ok();
        assert!(called);
        falsify(&segment, &at, &mut seed, one_in);
        let _ = worker.next(MOMENT);
        let _ = worker.finish(&[8; 1000]);
        falsify(&segment, &at, &mut seed, one_in);
        let _ = pool.wait(MOMENT);
        let _ = pool.stats();
        let _ = pool.end();
        let _ = pool.pids();
        let _ = pool.call(2, b"short");
        let _ = worker.next(MOMENT);
        falsify(&segment, &at, &mut seed, one_in);
        let _ = worker.fail(b"short");
        let _ = pool.wait(MOMENT);
        let _ = ForeignWorker::attach(&other, handle, None, MOMENT);
        if next(&mut seed).is_multiple_of(2) {
            drop(pool);
            drop(worker);
        } else {
            drop(worker);
            drop(pool);
        }
    }
    assert!(table.verify().unwrap().is_clean());
}

#[test]
fn an_answer_with_another_length_or_memory_is_lost() {
    let segment = Segment::anonymous().unwrap();
    let (table, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let mut pool = ForeignPool::new(&table, 1).unwrap();
    let at = At::find_in(&segment, pool.handle()).unwrap();
    let mut worker = ForeignWorker::attach(&other, pool.handle(), None, MOMENT).unwrap();
    let array = table.zeros::<u64, _>(1000).unwrap();
    for memory in [0, u64::MAX, array.to_bits(), pool.handle().to_bits()] {
        pool.call(1, b"").unwrap();
        worker.next(MOMENT).unwrap().unwrap();
        worker.finish(&[8; 1000]).unwrap();
        let words = Words::of(&segment, &at).unwrap();
        words.answer(0).store(memory, Ordering::Relaxed);
        assert!(pool.wait(MOMENT).unwrap());
        assert_eq!(pool.end().unwrap()[0].outcome, Answer::Lost);
    }
    // A length beyond the memory.
    pool.call(1, b"").unwrap();
    worker.next(MOMENT).unwrap().unwrap();
    worker.finish(&[8; 1000]).unwrap();
    let words = Words::of(&segment, &at).unwrap();
    words.mailbox.report(0).put(5, 1, u64::MAX, &[]);
    assert!(pool.wait(MOMENT).unwrap());
    assert_eq!(pool.end().unwrap()[0].outcome, Answer::Lost);
}
