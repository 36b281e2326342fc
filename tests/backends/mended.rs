//! Torn tiles of a call that is over: the partition of the call repairs them.

use std::time::Duration;

use ndarray::{ArrayViewMut1, Axis};
use ndshm::error::{PoolError, RoundError};
use ndshm::partition::Group;
use ndshm::{HandleTable, OnFailure, Partition, Segment, TileContext};

use crate::support::{Child, DEADLINE, KINDS, Kind, PROCESSES, die, start, table};
use crate::with_each_pool;

fn panic_quietly(message: &str) -> ! {
    std::panic::resume_unwind(Box::new(message.to_owned()));
}

fn torn<G: Group>(tiles: &Partition<'_, G>) -> Vec<usize> {
    let torn = tiles.torn().unwrap();
    torn.iter().map(|torn| torn.tile).collect()
}

/// Drops the failed and the lost tile of a call on several arrays. In any process the partition
/// knows the two, reads the others, and repairs all arrays by one call.
pub fn torn_tiles_of_a_skipped_call_belong_to_the_partition() {
    for kind in KINDS {
        Child::fork(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let y = table.zeros::<u32, _>((10, 2)).unwrap();
            let z = table.from_elem(100, 7u32).unwrap();
            let group = (x.write(), y.per_tile(), z.read());
            let tiles = table.partition(group, Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, 2);
            pool.set_deadline(Some(DEADLINE));
            for is_process in [false, true] {
                if is_process && !PROCESSES.contains(&kind) {
                    continue;
                }
                let started = pool.start(&tiles, &is_process, |(mut x, mut y, _), dies, tile| {
                    x[0] = 1;
                    match (tile.index(), dies) {
                        (5, _) => panic_quietly("no"),
                        (8, true) => die(),
                        _ => {}
                    }
                    x.fill(1);
                    y.fill(1);
                });
                let mut running = started.unwrap().on_failure(OnFailure::Skip);
                let mut seen = 0;
                while seen < 10 {
                    seen += running.wait_any(10).unwrap().len();
                }
                let expected: &[usize] = if is_process { &[5, 8] } else { &[5] };
                match running.finish() {
                    Err(PoolError::Round(RoundError::Torn { tiles, .. })) => {
                        assert_eq!(tiles, expected, "{kind:?}");
                    }
                    other => panic!("{kind:?}: {other:?}"),
                }
                assert!(table.read(x).is_err() && table.read(y).is_err());
                assert!(table.read(z).is_ok());
                assert_eq!(torn(&tiles), expected, "{kind:?}");
                let rest = tiles.read_rest().unwrap();
                let sum: u32 = rest.iter().map(|tile| tile.unwrap().views().0.sum()).sum();
                assert_eq!(sum, 10 * (10 - expected.len() as u32), "{kind:?}");
                drop(rest);
                let repaired = tiles.recover(|_, (mut x, mut y, z)| {
                    x.assign(&z);
                    y.fill(7);
                });
                assert_eq!(repaired.unwrap(), expected.len(), "{kind:?}");
                assert_eq!(table.read(y).unwrap()[[5, 0]], 7);
                assert_eq!(table.read(x).unwrap()[50], 7);
            }
            pool.for_each(&tiles, &(), |(mut x, ..), (), _| x.fill(2))
                .unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 200, "{kind:?}");
        })
        .join();
    }
}

/// Repairs the failed and the lost tile while the call runs: all arrays are whole after it.
pub fn tiles_that_are_repaired_in_a_call_leave_no_poison() {
    for kind in PROCESSES {
        Child::fork(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let y = table.zeros::<u32, _>((10, 2)).unwrap();
            let tiles = table
                .partition((x.write(), y.per_tile()), Axis(0), 10)
                .unwrap();
            let mut pool = start(kind, &table, 2);
            pool.set_deadline(Some(DEADLINE));
            let started = pool.start(&tiles, &(), |(mut x, mut y), (), tile| {
                x[0] = 1;
                match tile.index() {
                    5 => panic_quietly("no"),
                    8 => die(),
                    _ => {}
                }
                x.fill(1);
                y.fill(1);
            });
            let mut running = started.unwrap().on_failure(OnFailure::Skip);
            let mut seen = 0;
            while seen < 10 {
                let arrived = running.wait_any(10).unwrap();
                seen += arrived.len();
                for failed in arrived.failed {
                    drop(failed.repair(|(mut x, mut y)| (x.fill(1), y.fill(1)).0));
                }
                for lost in arrived.lost {
                    drop(lost.repair(|(mut x, mut y)| (x.fill(1), y.fill(1)).0));
                }
            }
            assert!(table.info(x).unwrap().poisoned && table.info(y).unwrap().poisoned);
            running.finish().unwrap();
            assert_eq!(torn(&tiles), [], "{kind:?}");
            let sums = (table.read(x).unwrap().sum(), table.read(y).unwrap().sum());
            assert_eq!(sums, (100, 20), "{kind:?}");
        })
        .join();
    }
}

/// Fails a call while no worker is in it and a tile was just sent back. The tile is run, so the
/// round is over, and its partition can be repaired.
pub fn a_failed_call_runs_the_tiles_that_were_sent_back() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        for dies in [false, true] {
            if dies && kind == Kind::Threads {
                continue;
            }
            table.write(x).unwrap().fill(0);
            let kernel = |mut x: ArrayViewMut1<u32>, &dies: &bool, tile: &TileContext| {
                x += 1;
                match (tile.index(), tile.run(), dies) {
                    (0, 1, true) => die(),
                    (0, 1, false) => panic_quietly("no"),
                    _ => {}
                }
            };
            let mut running = pool.start(tiles, &dies, kernel).unwrap();
            let mut ready: Vec<_> = running.wait_any(10).unwrap().ready.collect();
            let second = ready.remove(1);
            ready.remove(0).rerun();
            // A worker fails at the first tile, and nobody is left in the call.
            std::thread::sleep(Duration::from_millis(30));
            second.rerun();
            drop(ready);
            match running.wait_any(10).map(|arrived| arrived.len()) {
                Err(PoolError::KernelPanicked { tile: 0, .. }) => assert!(!dies),
                Err(PoolError::WorkerDied { tiles, .. }) => assert!(dies && tiles == [0]),
                other => panic!("{kind:?}: {other:?}"),
            }
            running.finish().unwrap();
            assert_eq!(torn(tiles), [0], "{kind:?}, {dies}");
            assert_eq!(tiles.recover(|_, mut x| x.fill(1)).unwrap(), 1);
            assert_eq!(table.read(x).unwrap().sum(), 110, "{kind:?}, {dies}");
        }
    });
}

/// Follows the remedies of the errors: `recover` and `clear_poison` of the partition.
pub fn the_remedies_of_errors_work() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let fails = |_: ArrayViewMut1<u32>, &dies: &bool, tile: &TileContext| match tile.index() {
            5 if dies => die(),
            5 => panic_quietly("no"),
            _ => {}
        };
        let repair = |error: PoolError, by_hand: bool| {
            let said = error.to_string();
            let remedy = "poisoned until recover or clear_poison of the partition";
            assert!(said.contains(remedy), "{kind:?}: {said}");
            let repaired = match by_hand {
                true => tiles.recover(|_, mut x| x.fill(0)),
                false => tiles.clear_poison(),
            };
            assert_eq!(repaired.unwrap(), 1, "{kind:?}: {said}");
            assert!(table.read(x).is_ok(), "{kind:?}: {said}");
        };
        for by_hand in [false, true] {
            for policy in [OnFailure::Fail, OnFailure::Skip] {
                pool.set_on_failure(policy);
                for dies in [false, true] {
                    if dies && kind == Kind::Threads {
                        continue;
                    }
                    repair(pool.for_each(tiles, &dies, fails).unwrap_err(), by_hand);
                    let running = pool.start(tiles, &dies, fails).unwrap();
                    repair(running.finish().unwrap_err(), by_hand);
                }
                let mut running = pool.start(tiles, &(), |_, (), _| ()).unwrap();
                let mut ready = running.wait_any(10).unwrap().ready;
                std::mem::forget(ready.next().expect("ten are ready"));
                repair(running.finish().unwrap_err(), by_hand);
            }
        }
    });
}

/// Lets a failed tile rest, and then has torn tiles run again: the one that rests stays torn.
pub fn a_later_policy_leaves_resting_tiles_alone() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let kernel = |mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext| {
            x += 1;
            if tile.index() == 9 && x[0] == 1 {
                std::thread::sleep(Duration::from_millis(50));
                panic_quietly("runs again");
            }
            if tile.index() == 3 {
                panic_quietly("rests");
            }
        };
        let started = pool.start(tiles, &(), kernel).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut rests = false;
        let mut done = 0;
        while !rests {
            let arrived = running.wait_any(10).unwrap();
            done += arrived.ready.count();
            for failed in arrived.failed {
                match failed.index() {
                    3 => rests = true,
                    _ => failed.rerun(),
                }
            }
        }
        let mut running = running.on_failure(OnFailure::RunAgain);
        while done < 9 {
            done += running.wait_any(1).unwrap().len();
        }
        match running.finish() {
            Err(PoolError::Round(RoundError::Torn { tiles, .. })) => {
                assert_eq!(tiles, [3], "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        assert_eq!(tiles.clear_poison().unwrap(), 1);
        assert_eq!(table.read(x).unwrap().sum(), 110, "{kind:?}");
    });
}

/// Kills idle workers in a call after one of them has died at a tile. The dead are replaced up to
/// the same limit as in other calls, although their successors have the seat that tore the tile.
pub fn idle_deaths_are_counted_after_a_lost_tile() {
    Child::fork(|| {
        let segment = Segment::options().seats(2).anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x = table.zeros::<u32, _>(10).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = start(Kind::Fork, &table, 1);
        pool.set_deadline(Some(DEADLINE));
        let started = pool.start(&tiles, &(), |_, (), tile| {
            if tile.index() == 9 {
                die();
            }
        });
        let mut running = started.unwrap().on_failure(OnFailure::Skip);
        let mut seen = 0;
        while seen < 10 {
            seen += running.wait_any(10).unwrap().len();
        }
        let mut kills = 0;
        while let Some(pid) = running.pids()[0] {
            assert!(kills < 20, "it is replaced for ever");
            kills += 1;
            // Only a worker that has a seat can be taken for its predecessor.
            while table.peers().unwrap().len() < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // SAFETY: no precondition; the pid is of a worker that was not waited for.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            while running.pids()[0] == Some(pid) {
                std::thread::sleep(Duration::from_millis(11));
                assert!(running.wait_any(1).unwrap().is_empty());
            }
        }
        assert_eq!(kills, 9);
        drop(running);
        assert!(table.read(x).is_err());
    })
    .join();
}
