//! Calls that succeed: tiles, results, parameters, random numbers, counts.

use std::collections::HashSet;
use std::time::Duration;

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::{HandleTable, OnFailure, Pool, Segment, TileContext, Write};

use crate::support::{Flag, KINDS, Kind, Pipe, start};
use crate::{support, with_each_pool};

pub fn every_tile_runs_once_in_each_call() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        for _ in 0..50 {
            pool.for_each(tiles, &2u32, |mut x, &by, _| x += by)
                .unwrap();
        }
        let x = table.read(x).unwrap();
        assert!(x.iter().all(|&x| x == 100), "{kind:?}: {x}");
        // Workers see arrays that are created after the pool.
        let late = table.zeros::<u32, _>(7).unwrap();
        let late_tiles = table.partition(late.write(), Axis(0), 2).unwrap();
        pool.for_each(&late_tiles, &(), |mut x, (), _| x.fill(1))
            .unwrap();
        assert_eq!(table.read(late).unwrap().sum(), 7);
    });
}

pub fn results_are_in_the_order_of_the_tiles() {
    with_each_pool(&KINDS, 3, |kind, _, _, tiles, pool| {
        let got = pool
            .map_collect(tiles, &10u64, |x, &ten, tile| {
                [tile.index() as u64 * ten, x.len() as u64]
            })
            .unwrap();
        let expected: Vec<_> = (0..10).map(|tile| [tile * 10, 10]).collect();
        assert_eq!(got, expected, "{kind:?}");
    });
}

fn noise(mut x: ArrayViewMut1<u32>, (): &(), tile: &TileContext) {
    use rand_core::Rng;
    let mut rng = tile.rng();
    x.mapv_inplace(|_| rng.next_u32());
}

pub fn random_numbers_are_the_same_for_all_pools() {
    let pipe = Pipe::new();
    for workers in [1, 2, 5] {
        with_each_pool(&KINDS, workers, |_, table, x, tiles, pool| {
            pool.set_seed(7);
            pool.for_each(tiles, &(), noise).unwrap();
            pool.for_each(tiles, &(), noise).unwrap();
            let x = table.read(x).unwrap();
            let digest = x.iter().fold(0u64, |digest, &x| {
                digest.rotate_left(7) ^ u64::from(x).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            pipe.send(digest);
        });
    }
    let digests: HashSet<u64> = (0..9).map(|_| pipe.receive()).collect();
    assert_eq!(digests.len(), 1);
}

/// Runs two rounds of one call on two partitions, then compares the random numbers with those of a
/// second pool.
pub fn two_partitions_of_a_call_draw_different_numbers() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let y = table.zeros::<u32, _>(100).unwrap();
        let other = table.partition(y.write(), Axis(0), 10).unwrap();
        let draw = |pool: &mut Pool<'_>| {
            pool.run(
                &[tiles.handle().to_bits(), other.handle().to_bits()],
                |worker, bits| {
                    for &bits in bits {
                        let tiles = ndshm::PartitionHandle::<Write<u32, Ix1>>::from_bits(bits);
                        let tiles = worker.table().open_partition(tiles)?;
                        worker.for_each(&tiles, |x, tile| noise(x, &(), tile))?;
                    }
                    Ok(())
                },
            )
            .unwrap();
            (
                table.read(x).unwrap().to_owned(),
                table.read(y).unwrap().to_owned(),
            )
        };
        let (first, second) = draw(pool);
        assert_ne!(first, second, "{kind:?}");
        let mut fresh = Pool::threads(table, 3).unwrap();
        assert_ne!(fresh.seed(), pool.seed(), "{kind:?}");
        fresh.set_seed(pool.seed());
        assert_eq!(draw(&mut fresh), (first, second), "{kind:?}");
    });
}

/// Compares the random numbers of repeated runs, also those after a worker's death, with the public
/// generator.
pub fn each_run_of_a_tile_draws_its_own_numbers() {
    use ndshm::pool::TileRng;
    use ndshm::rand_core::Rng;

    with_each_pool(&KINDS, 2, |kind, table, _, _, pool| {
        const TILES: usize = 6;
        let x = table.zeros::<u64, _>(TILES).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        pool.set_seed(5);
        pool.set_on_failure(OnFailure::RunAgain);
        let flag = Flag::new();
        // With worker processes, a worker dies in a later run of a tile.
        let die = kind != Kind::Threads;
        let params = [flag.number, u64::from(die)];
        let mut running = pool
            .start(&tiles, &params, |mut x, &[flag, die], tile| {
                let drawn = tile.rng().next_u64();
                if die == 1 && tile.index() == 2 && tile.run() == 2 && !Flag::is_raised(flag) {
                    Flag::raise(flag);
                    std::process::abort();
                }
                x[0] = drawn;
            })
            .unwrap();
        let mut runs = [0u64; TILES];
        while runs.iter().any(|&run| run < 4) {
            for mut ready in running.wait_any(1).unwrap().ready {
                let tile = ready.index();
                let expected = TileRng::at_step(5, 1, 0, runs[tile], tile).next_u64();
                assert_eq!(
                    ready.views()[0],
                    expected,
                    "{kind:?}: run {} of {tile}",
                    runs[tile]
                );
                runs[tile] += 1;
                if runs[tile] < 4 {
                    ready.rerun();
                }
            }
        }
        running.finish().unwrap();
        assert_eq!(pool.deaths(), u64::from(die), "{kind:?}");
        // The next call of the same pool begins with first runs.
        pool.for_each(&tiles, &(), |mut x, (), tile| x[0] = tile.rng().next_u64())
            .unwrap();
        let drawn = table.read(x).unwrap().to_vec();
        let expected = (0..TILES).map(|tile| TileRng::at(5, 2, tile).next_u64());
        assert!(drawn.into_iter().eq(expected), "{kind:?}");
    });
}

pub fn parameters_may_be_long() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let long: [f64; 100] = core::array::from_fn(|at| at as f64);
        pool.for_each(tiles, &long, |mut x, long, _| {
            x.fill(long.iter().sum::<f64>() as u32);
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap()[99], 4950, "{kind:?}");
    });
}

pub fn bools_tuples_and_arrays_cross() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        let y = table.from_elem(4, 7u32).unwrap();
        let params = (
            3u8,
            5u64,
            true,
            [(false, 1u16), (true, 2)],
            'ß',
            (y, [true; 3]),
        );
        let got = pool
            .map_collect(tiles, &params, |mut x, params, tile| {
                let &(a, b, on, pairs, letter, (_, flags)) = params;
                x.fill(u32::from(a) + pairs.iter().map(|pair| u32::from(pair.1)).sum::<u32>());
                let even = tile.index() % 2 == 0;
                (
                    (even && on, b + tile.index() as u64),
                    letter,
                    [flags[0], !even],
                )
            })
            .unwrap();
        let expected: Vec<_> = (0..10u64)
            .map(|tile| ((tile % 2 == 0, 5 + tile), 'ß', [true, tile % 2 == 1]))
            .collect();
        assert_eq!(got, expected, "{kind:?}");
        assert_eq!(table.read(x).unwrap().sum(), 600, "{kind:?}");

        // Parameters that the mailbox has no room for.
        let long = (true, [9u64; 500], [[false; 100]; 3], 1u8);
        let sums = pool.run(&long, |worker, &(on, nines, flags, one)| {
            let none = flags.into_iter().flatten().all(|flag| !flag);
            Ok((
                on && none,
                nines.iter().sum::<u64>() + u64::from(one),
                worker.worker(),
            ))
        });
        let expected = [0, 1, 2].map(|worker| (true, 4501, worker));
        assert_eq!(sums.unwrap(), expected, "{kind:?}");
        let ours = pool.broadcast(&(y, false), |worker, &(y, no)| {
            no || worker.table().read(y).is_ok_and(|y| y.sum() == 28)
        });
        assert_eq!(ours.unwrap(), [true; 3], "{kind:?}");

        let mut running = pool
            .start(tiles, &(true, 2u32), |mut x, &(on, by), _| {
                x += if on { by } else { 0 };
            })
            .unwrap();
        assert!(!running.wait_any(10).unwrap().is_empty());
        running.finish().unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 800, "{kind:?}");
        table.free(y).unwrap();
    });
}

pub fn a_broadcast_runs_once_in_each_worker() {
    with_each_pool(&KINDS, 3, |kind, _, _, _, pool| {
        let pids = pool.pids();
        let ran = pool
            .broadcast(&5u64, |worker, &five| {
                [worker.worker() as u64 * five, u64::from(std::process::id())]
            })
            .unwrap();
        for (worker, [number, pid]) in ran.into_iter().enumerate() {
            assert_eq!(number, worker as u64 * 5, "{kind:?}");
            assert_eq!(Some(pid as u32), pids[worker], "{kind:?}");
        }
    });
}

pub fn workers_may_loop_over_a_partition() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        pool.run(&(tiles.handle().to_bits()), |worker, &tiles| {
            let tiles = ndshm::PartitionHandle::<Write<u32, Ix1>>::from_bits(tiles);
            let tiles = worker.table().open_partition(tiles)?;
            for step in 0..100 {
                worker.for_each(&tiles, |mut x, tile| x += step * tile.index() as u32)?;
            }
            Ok(())
        })
        .unwrap();
        let x = table.read(x).unwrap();
        for (at, &x) in x.iter().enumerate() {
            assert_eq!(x, 4950 * (at as u32 / 10), "{kind:?}");
        }
    });
}

pub fn pools_work_in_a_named_segment() {
    let name = support::Name::new("backends");
    let segment = Segment::create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u32, _>(100).unwrap();
    {
        let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
        for kind in [Kind::Fork, Kind::Spawn] {
            let mut pool = start(kind, &table, 2);
            pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
        }
    }
    assert_eq!(table.read(x).unwrap().sum(), 200);
    assert!(name.exists());
    drop(table);
    drop(segment);
    assert!(!name.exists(), "the last participant removes the name");
}

pub fn stats_count_tiles_calls_and_time() {
    with_each_pool(&KINDS, 2, |kind, _, _, tiles, pool| {
        pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
        pool.set_profiling(true);
        for _ in 0..5 {
            pool.for_each(tiles, &(), |_, (), _| {
                std::thread::sleep(Duration::from_millis(1));
            })
            .unwrap();
        }
        let stats = pool.stats();
        assert_eq!(
            stats.iter().map(|worker| worker.tiles).sum::<u64>(),
            50,
            "{kind:?}"
        );
        let busy: Duration = stats.iter().map(|worker| worker.busy).sum();
        assert!(busy >= Duration::from_millis(50), "{kind:?}: {stats:?}");
        assert!(
            stats
                .iter()
                .all(|worker| worker.calls <= 5 && worker.stolen <= worker.tiles)
        );
        assert!(stats[0].to_string().contains("stolen"), "{}", stats[0]);
    });
}

pub fn more_workers_than_processors_make_progress() {
    with_each_pool(&KINDS, 8, |_, table, x, tiles, pool| {
        for _ in 0..300 {
            pool.for_each(tiles, &(), |mut x, (), _| x += 1).unwrap();
        }
        pool.run(&(), |worker, ()| {
            for _ in 0..100 {
                worker.barrier()?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 30_000);
    });
}
