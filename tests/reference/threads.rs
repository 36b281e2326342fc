//! Several seats on threads at once: each lease must show the complete data of the last writer.

use std::sync::{Barrier, Mutex};
use std::time::Duration;

use ndarray::{Axis, Ix1};
use ndshm::error::{AllocError, LeaseError};
use ndshm::{Handle, HandleTable, PartitionHandle, Segment, Write};

use crate::props::{Numbers, Watchdog};

const THREADS: usize = 4;

fn segment() -> Segment {
    Segment::options()
        .capacity(2 << 20)
        .seats(8)
        .arrays(4096)
        .anonymous()
        .unwrap()
}

/// Allocates until the segment is full, then frees everything. Returns the number of arrays.
fn room(table: &HandleTable, bytes: usize) -> usize {
    let mut handles = Vec::new();
    loop {
        match table.uninit::<u8, _>(bytes) {
            Ok(handle) => handles.push(handle),
            Err(AllocError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    for &handle in &handles {
        table.free(handle).unwrap();
    }
    handles.len()
}

/// Returns the number that identifies the writer. Asserts that all elements hold it.
fn uniform(numbers: &ndarray::ArrayRef<u64, Ix1>) -> u64 {
    let first = numbers[0];
    assert!(numbers.iter().all(|&number| number == first), "torn");
    first
}

/// Runs one thread: random operations on arrays that all threads share.
fn churn(table: &HandleTable, all: &Mutex<Vec<Handle<u64, Ix1>>>, seed: u64) -> [usize; 3] {
    let mut random = Numbers::from_seed(seed);
    let mut pattern = seed << 32;
    let (mut written, mut refused, mut stale) = (0, 0, 0);
    for _ in 0..4000 {
        let handle = {
            let all = all.lock().unwrap();
            (!all.is_empty()).then(|| all[random.below(all.len())])
        };
        let (Some(handle), action) = (handle, random.below(10)) else {
            let handle = table.from_elem(40, pattern).unwrap();
            all.lock().unwrap().push(handle);
            continue;
        };
        pattern += 1;
        let error = match action {
            0 | 1 => match table.from_elem(1 + random.below(900), pattern) {
                Ok(handle) => {
                    // The array outlives this thread.
                    table.detach(handle).unwrap();
                    all.lock().unwrap().push(handle);
                    continue;
                }
                Err(AllocError::Full { .. }) => continue,
                Err(other) => panic!("{other}"),
            },
            2 | 3 => {
                let mut all = all.lock().unwrap();
                // Other threads may have taken all of them since.
                if all.is_empty() {
                    continue;
                }
                let at = random.below(all.len());
                let handle = all.swap_remove(at);
                drop(all);
                table.free(handle).unwrap();
                table.free(handle).unwrap_err();
                continue;
            }
            4..7 => match table.write(handle) {
                Ok(mut guard) => {
                    let before = uniform(&guard);
                    guard.fill(pattern);
                    assert_eq!(uniform(&guard), pattern);
                    assert_ne!(before, pattern);
                    written += 1;
                    continue;
                }
                Err(error) => error,
            },
            _ => match table.read(handle) {
                Ok(guard) => {
                    let first = uniform(&guard);
                    std::thread::yield_now();
                    assert_eq!(uniform(&guard), first);
                    continue;
                }
                Err(error) => error,
            },
        };
        match error {
            LeaseError::Busy { .. } => refused += 1,
            // Another thread has freed it since it was looked up.
            LeaseError::Stale { .. } => stale += 1,
            other => panic!("{other}"),
        }
    }
    [written, refused, stale]
}

#[test]
fn leases_exclude_each_other_and_nothing_is_lost() {
    let _watchdog = Watchdog::start(Duration::from_secs(100));
    let segment = segment();
    let onlooker = HandleTable::join(&segment).unwrap();
    let before = room(&onlooker, 6000);
    assert!(before > 60);
    let all = Mutex::new(Vec::new());
    let end = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS as u64)
            .map(|seed| {
                let (segment, all, end) = (&segment, &all, &end);
                scope.spawn(move || {
                    let table = HandleTable::join(segment).unwrap();
                    let done = churn(&table, all, seed);
                    // A thread's own arrays are freed with it, so wait until the other threads have
                    // finished.
                    end.wait();
                    done
                })
            })
            .collect();
        for thread in threads {
            let [written, ..] = thread.join().unwrap();
            assert!(written > 100);
        }
    });
    let all = all.into_inner().unwrap();
    let alive: Vec<_> = all
        .into_iter()
        .filter(|&handle| onlooker.read(handle).is_ok())
        .collect();
    assert_eq!(onlooker.arrays().count(), alive.len());
    alive
        .into_iter()
        .for_each(|handle| onlooker.free(handle).unwrap());
    assert_eq!(onlooker.arrays().count(), 0);
    assert_eq!(
        onlooker.reap().unwrap(),
        ndshm::inspect::ReapReport::default()
    );
    assert_eq!(room(&onlooker, 6000), before);
}

#[test]
fn readers_and_writers_of_one_array_never_meet() {
    let _watchdog = Watchdog::start(Duration::from_secs(100));
    let segment = segment();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u64, _>(200).unwrap();
    let start = Barrier::new(THREADS);
    let granted: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let (segment, start) = (&segment, &start);
                scope.spawn(move || {
                    let table = HandleTable::join(segment).unwrap();
                    start.wait();
                    let mut granted = 0;
                    for turn in 0..30_000 {
                        // The two kinds of leases alternate, so they meet each other.
                        if (turn + thread) % 2 == 0 {
                            if let Ok(x) = table.read(x) {
                                uniform(&x);
                                granted += 1;
                            }
                        } else if let Ok(mut x) = table.write(x) {
                            uniform(&x);
                            x.fill(turn << 8 | thread);
                            granted += 1;
                        }
                    }
                    granted
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(granted.iter().sum::<usize>() > 1000);
}

#[test]
fn threads_share_rounds() {
    const ROUNDS: u64 = 200;
    let _watchdog = Watchdog::start(Duration::from_secs(100));
    let segment = segment();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u64, _>((300, 2)).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 7).unwrap();
    let bits = tiles.handle().to_bits();
    let start = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let table = HandleTable::join(&segment).unwrap();
                let handle = PartitionHandle::<Write<u64, ndarray::Ix2>>::from_bits(bits);
                let tiles = table.open_partition(handle).unwrap();
                start.wait();
                let mut last = 0;
                while last < ROUNDS {
                    let Some(mut part) = tiles.enter().unwrap() else {
                        std::thread::yield_now();
                        last = last.max(table.read(x).map_or(0, |x| x[(0, 0)]));
                        continue;
                    };
                    last = part.round();
                    while let Some(mut tile) = part.claim().unwrap() {
                        let round = tile.round();
                        let mut view = tile.views();
                        assert!(view.iter().all(|&x| x == round - 1));
                        view += 1;
                    }
                }
            });
        }
        start.wait();
        for _ in 0..ROUNDS {
            // A reader that checks the end of a round may delay the next one.
            let round = loop {
                match tiles.begin() {
                    Ok(round) => break round,
                    Err(ndshm::error::RoundError::Lease(LeaseError::Busy { .. })) => {
                        std::thread::yield_now();
                    }
                    Err(other) => panic!("{other}"),
                }
            };
            round.finish(Duration::from_secs(60)).unwrap();
        }
    });
    let sum = table.read(x).unwrap().sum();
    assert_eq!(sum, ROUNDS * 600);
}
