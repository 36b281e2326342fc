//! Partitions on all grids: each element is in exactly one tile, in each process that opens the
//! partition.

use std::time::Duration;

use ndarray::{Array3, Axis, IxDyn, ShapeBuilder, s};
use ndshm::error::{LeaseError, PartitionError, RoundError};
use ndshm::partition::{AccessMode, Claimed};
use ndshm::{Grid, HandleTable, Segment};
use proptest::prelude::*;

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

const SHAPE: [usize; 3] = [7, 5, 9];

/// Returns a strategy for cuts along one axis.
fn cut(axis: usize) -> impl Strategy<Value = Grid> {
    let len = SHAPE[axis];
    let axis = Axis(axis);
    prop_oneof![
        (1..len + 3).prop_map(move |tile| Grid::blocks([(axis, tile)])),
        (1..len + 3).prop_map(move |tiles| Grid::cyclic(axis, tiles)),
        proptest::collection::vec(0..=len, 0..4).prop_map(move |mut bounds| {
            bounds.extend([0, len]);
            bounds.sort_unstable();
            Grid::bounds(axis, bounds)
        }),
        proptest::collection::vec(0.01f64..10.0, len)
            .prop_flat_map(move |weights| (Just(weights), 1..len + 2))
            .prop_map(move |(weights, tiles)| Grid::weights(axis, &weights, tiles)),
    ]
}

fn grid() -> impl Strategy<Value = Grid> {
    proptest::sample::subsequence(vec![0, 1, 2], 1..=3)
        .prop_shuffle()
        .prop_flat_map(|axes| axes.into_iter().map(cut).collect::<Vec<_>>())
        .prop_map(|cuts| {
            cuts.into_iter()
                .reduce(Grid::and)
                .expect("at least one cut")
        })
}

proptest! {
    #[test]
    fn every_element_is_in_one_tile(grid in grid(), fortran: bool) {
        use ndarray::ShapeBuilder;
        let table = table();
        let x = table.zeros::<u32, _>(SHAPE.set_f(fortran)).unwrap();
        let y = table.zeros::<u32, _>(SHAPE).unwrap();
        let own = table.partition_by((x.write(), y.write()), &grid).unwrap();
        // Open the partition as another process does.
        let tiles = table.open_partition(own.handle()).unwrap();
        prop_assert_eq!(tiles.tiles(), own.tiles());
        let round = tiles.begin().unwrap();
        let mut seen = Array3::<u32>::zeros(SHAPE);
        {
            let mut part = tiles.enter().unwrap().unwrap();
            while let Some(mut tile) = part.claim().unwrap() {
                let sides: Vec<_> = tile.sides().collect();
                prop_assert_eq!(&sides, &own.sides(tile.index()).collect::<Vec<_>>());
                prop_assert_eq!(tile.range(), own.range(tile.index()));
                let mark = tile.index() as u32 + 1;
                let (mut x, mut y) = tile.views();
                prop_assert_eq!(x.shape(), y.shape());
                x += mark;
                y += mark;
                // Mark the same part of a private array.
                let mut part = seen.view_mut();
                for side in &sides {
                    part.slice_axis_inplace(Axis(side.axis), side.slice());
                }
                part += mark;
            }
        }
        round.finish(Duration::from_secs(20)).unwrap();
        prop_assert!(seen.iter().all(|&mark| mark > 0));
        prop_assert!(*table.read(x).unwrap() == *seen);
        prop_assert!(*table.read(y).unwrap() == *seen);
    }
}

#[test]
fn blocks_are_numbered_along_the_last_axis_first() {
    let table = table();
    let x = table.zeros::<u8, _>((10, 7)).unwrap();
    let grid = Grid::blocks([(Axis(0), 4), (Axis(1), 3)]);
    let tiles = table.partition_by(x.write(), &grid).unwrap();
    assert_eq!(tiles.tiles(), 9);
    let ranges: Vec<_> = tiles.sides(5).map(|side| side.range).collect();
    assert_eq!(ranges, [4..8, 6..7]);
    assert_eq!(
        tiles.sides(9).next().unwrap().range,
        10..10,
        "there is no such tile"
    );
}

#[test]
fn cyclic_tiles_have_every_third_column() {
    let table = table();
    let x = table.zeros::<u64, _>((4, 10)).unwrap();
    let tiles = table
        .partition_by(x.write(), &Grid::cyclic(Axis(1), 3))
        .unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        let mark = tile.index() as u64;
        tile.views().fill(mark);
    }
    drop(part);
    round.finish(Duration::from_secs(20)).unwrap();
    let x = table.read(x).unwrap();
    let expected: Vec<u64> = (0..10).map(|column| column % 3).collect();
    assert!(x.rows().into_iter().all(|row| row.to_vec() == expected));
}

#[test]
fn invalid_grids_are_refused() {
    let table = table();
    let x = table.zeros::<u8, _>((10, 7)).unwrap();
    let y = table.zeros::<u8, _>((10, 8)).unwrap();
    let both = Grid::blocks([(Axis(0), 4), (Axis(1), 3)]);
    assert!(matches!(
        table.partition_by((x.write(), y.read()), &both),
        Err(PartitionError::Lengths {
            axis: 1,
            found: 8,
            expected: 7,
            ..
        })
    ));
    // A group member that is passed whole may have any shape.
    let tiles = table.partition_by((x.write(), y.whole()), &both).unwrap();
    assert_eq!(tiles.tiles(), 9);
    assert!(matches!(
        table.partition_by(x.write(), &Grid::cyclic(Axis(2), 3)),
        Err(PartitionError::NoSuchAxis {
            axis: 2,
            axes: 2,
            ..
        })
    ));
    assert!(matches!(
        table.partition_by(x.write(), &Grid::bounds(Axis(0), [0, 5])),
        Err(PartitionError::Bounds {
            axis_len: 10,
            last: Some(5),
            ..
        })
    ));
    let enormous = Grid::cyclic(Axis(0), 1 << 40).and(Grid::cyclic(Axis(1), 1 << 40));
    assert!(matches!(
        table.partition_by(x.write(), &enormous),
        Err(PartitionError::TooManyTiles { .. })
    ));
}

#[test]
fn arrays_without_elements_have_empty_tiles() {
    let table = table();
    for shape in [[0, 4], [6, 0], [0, 0]] {
        let x = table.zeros::<f32, _>(shape).unwrap();
        for grid in [
            Grid::blocks([(Axis(0), 2)]),
            Grid::blocks([(Axis(1), 3), (Axis(0), 1)]),
            Grid::cyclic(Axis(0), 3),
        ] {
            let tiles = table.partition_by(x.write(), &grid).unwrap();
            let round = tiles.begin().unwrap();
            if let Some(mut part) = tiles.enter().unwrap() {
                while let Some(mut tile) = part.claim().unwrap() {
                    assert!(tile.views().is_empty());
                }
            }
            round.finish(Duration::from_secs(20)).unwrap();
        }
    }
}

/// So many tiles that several are claimed at a time. They are still handed out one by one.
mod units {
    use super::*;
    use ndshm::error::RoundError;
    use ndshm::{Partition, Write};

    const TILES: usize = 5000;

    fn with_tiles(test: impl Fn(&HandleTable, &Partition<'_, Write<u32, ndarray::Ix1>>)) {
        let table = table();
        let x = table.zeros::<u32, _>(TILES).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        assert_eq!(tiles.tiles(), TILES);
        test(&table, &tiles);
    }

    fn sum(table: &HandleTable, tiles: &Partition<'_, Write<u32, ndarray::Ix1>>) -> u32 {
        table.read(tiles.group().handle()).unwrap().sum()
    }

    #[test]
    fn two_participants_share_them() {
        with_tiles(|table, tiles| {
            let other = HandleTable::join(table.segment()).unwrap();
            let others = other.open_partition(tiles.handle()).unwrap();
            for round in 1..4 {
                let running = tiles.begin().unwrap();
                let mut parts = [
                    tiles.enter_at(0, 2).unwrap().unwrap(),
                    others.enter_at(1, 2).unwrap().unwrap(),
                ];
                let mut claimed = [0, 0];
                loop {
                    let before = claimed;
                    for (part, claimed) in parts.iter_mut().zip(&mut claimed) {
                        if let Some(mut tile) = part.claim().unwrap() {
                            let mut x = tile.views();
                            x += 1;
                            *claimed += 1;
                        }
                    }
                    if claimed == before {
                        break;
                    }
                }
                assert_eq!(claimed.iter().sum::<usize>(), TILES);
                assert_eq!(tiles.progress().unwrap().done, TILES);
                drop(parts);
                running.finish(Duration::from_secs(20)).unwrap();
                assert_eq!(sum(table, tiles), round * TILES as u32);
            }
        });
    }

    #[test]
    fn a_participant_that_leaves_early_leaves_the_rest_to_others() {
        with_tiles(|table, tiles| {
            let running = tiles.begin().unwrap();
            let mut claimed = 0;
            // Each participant takes at most one tile, and leaves in the middle of its claimed
            // unit.
            for turn in 0.. {
                let mut part = tiles.enter().unwrap().unwrap();
                let Some(mut tile) = part.claim().unwrap() else {
                    break;
                };
                let mut x = tile.views();
                x += 1;
                claimed += 1;
                drop(tile);
                if turn % 7 == 0 {
                    let progress = tiles.progress().unwrap();
                    assert_eq!((progress.done, progress.torn), (claimed, 0));
                }
            }
            assert_eq!(claimed, TILES);
            running.finish(Duration::from_secs(20)).unwrap();
            assert_eq!(sum(table, tiles), TILES as u32);
        });
    }

    #[test]
    fn a_torn_tile_is_named_exactly() {
        with_tiles(|table, tiles| {
            let running = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            while let Some(mut tile) = part.claim().unwrap() {
                tile.views().fill(1);
                if [0, 17, 18, 4999].contains(&tile.index()) {
                    tile.tear();
                }
            }
            drop(part);
            match running.finish(Duration::from_secs(20)).unwrap_err() {
                RoundError::Torn { tiles, rows, .. } => {
                    assert_eq!(tiles, [0, 17, 18, 4999]);
                    assert_eq!(rows[2], 18..19);
                }
                other => panic!("{other}"),
            }
            let x = tiles.group().handle();
            assert!(table.read(x).is_err(), "poisoned");
            table.clear_poison(x).unwrap();
            // The next round has all tiles again.
            let running = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            let mut claimed = 0;
            while let Some(mut tile) = part.claim().unwrap() {
                tile.views().fill(3);
                claimed += 1;
            }
            assert_eq!(claimed, TILES);
            drop(part);
            running.finish(Duration::from_secs(20)).unwrap();
            assert_eq!(sum(table, tiles), 3 * TILES as u32);
        });
    }

    #[test]
    fn a_participant_that_leaves_a_torn_tile_tears_its_unit() {
        with_tiles(|_, tiles| {
            let running = tiles.begin().unwrap();
            {
                let mut part = tiles.enter().unwrap().unwrap();
                drop(part.claim().unwrap().unwrap());
                part.claim().unwrap().unwrap().tear();
            }
            let mut part = tiles.enter().unwrap().unwrap();
            while let Some(tile) = part.claim().unwrap() {
                assert!(tile.index() > 1);
            }
            drop(part);
            match running.finish(Duration::from_secs(20)).unwrap_err() {
                RoundError::Torn { tiles, .. } => assert_eq!(tiles[0], 1),
                other => panic!("{other}"),
            }
        });
    }
}

#[test]
fn progress_is_seen_from_outside() {
    let segment = Segment::in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u8, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    let name = tiles.handle();
    let elsewhere = move || {
        let other = HandleTable::join(&segment).unwrap();
        let tiles = other.open_partition(name).unwrap();
        tiles.progress().unwrap()
    };
    assert_eq!((elsewhere().round, elsewhere().running), (0, false));
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    drop(part.claim().unwrap().unwrap());
    let tile = part.claim().unwrap().unwrap();
    let seen = elsewhere();
    assert_eq!((seen.round, seen.running), (1, true));
    assert_eq!((seen.done, seen.held, seen.torn, seen.tiles), (1, 1, 0, 3));
    tile.tear();
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().slice_mut(s![..]).fill(1);
    }
    drop(part);
    assert!(round.finish(Duration::from_secs(20)).is_err());
    let seen = elsewhere();
    assert_eq!((seen.running, seen.done, seen.torn), (false, 2, 1));
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Gives each tile one row of arrays of several shapes and orders, beside its own part.
#[test]
fn each_tile_has_a_row_of_its_own() {
    let table = table();
    let x = table
        .from_shape_fn((7, 4), |(i, j)| 10 * i as u64 + j as u64)
        .unwrap();
    let grid = Grid::blocks([(Axis(0), 2), (Axis(1), 2)]);
    let sums = table.zeros::<u64, _>(8).unwrap();
    let ranges = table.zeros::<u64, _>((8, 2).f()).unwrap();
    let seen = table.from_elem(IxDyn(&[8, 1, 2]), false).unwrap();
    let group = (
        x.read(),
        sums.per_tile(),
        ranges.per_tile(),
        seen.per_tile(),
    );
    let own = table.partition_by(group, &grid).unwrap();
    let tiles = table.open_partition(own.handle()).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        let range = tile.range();
        let (x, mut sum, mut ends, mut seen) = tile.views();
        assert_eq!((sum.ndim(), ends.len(), seen.shape()), (0, 2, &[1, 2][..]));
        sum.fill(x.sum());
        ends[0] = range.start as u64;
        ends[1] = range.end as u64;
        seen.fill(true);
    }
    assert!(matches!(table.read(sums), Err(LeaseError::Busy { .. })));
    drop(part);
    round.finish(PATIENCE).unwrap();
    let sum = table.read(x).unwrap().sum();
    assert_eq!(table.read(sums).unwrap().sum(), sum);
    let ranges = table.read(ranges).unwrap();
    assert_eq!(ranges.row(5).to_vec(), [4, 6]);
    assert_eq!(ranges.row(6).to_vec(), [6, 7]);
    assert!(table.read(seen).unwrap().iter().all(|&seen| seen));

    assert!(AccessMode::PerTile.writes() && !AccessMode::Whole.writes());
    let rows = table.zeros::<u8, _>(7).unwrap();
    let refused = table.partition_by((x.write(), rows.per_tile()), &grid);
    assert!(matches!(
        refused,
        Err(PartitionError::Rows {
            rows: 7,
            tiles: 8,
            ..
        })
    ));
    let none = table.zeros::<u8, _>(IxDyn(&[])).unwrap();
    let refused = table.partition_by((x.write(), none.per_tile()), &grid);
    assert!(matches!(
        refused,
        Err(PartitionError::Rows {
            rows: 0,
            tiles: 8,
            ..
        })
    ));
    let refused = table.partition((sums.read(), sums.per_tile()), Axis(0), 1);
    assert!(matches!(refused, Err(PartitionError::Overlap { .. })));
}

/// Claims given tiles, of a partition that is claimed one by one and of one that is claimed in
/// units, and asks for tiles that cannot be had.
#[test]
fn given_tiles_are_claimed_or_refused() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    for len in [6, 5000] {
        let x = table.zeros::<u32, _>(len).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let unit = tiles.claimed_with(4).len();
        assert_eq!(unit, if len == 6 { 1 } else { 3 });
        assert_eq!(tiles.claimed_with(4), if len == 6 { 4..5 } else { 3..6 });
        assert!(tiles.claimed_with(len).is_empty());
        let theirs = other.open_partition(tiles.handle()).unwrap();
        let round = tiles.begin().unwrap();
        let mut mine = tiles.enter().unwrap().unwrap();
        let mut others = theirs.enter().unwrap().unwrap();

        // Each goes to and fro among the units. A tile is held by the one that has its neighbour.
        let run =
            |part: &mut ndshm::RoundMember<'_, '_, _>, index| match part.claim_at(index).unwrap() {
                Claimed::Tile(mut tile) => {
                    assert_eq!(tile.index(), index);
                    let mut views: ndarray::ArrayViewMut1<'_, u32> = tile.views();
                    views[0] += 1;
                    "run"
                }
                Claimed::Held { pid } => {
                    assert_eq!(pid, std::process::id());
                    "held"
                }
                Claimed::Done => "done",
                Claimed::Torn => "torn",
                other => panic!("{other:?}"),
            };
        assert_eq!(run(&mut mine, 4), "run");
        assert_eq!(run(&mut mine, 4), "done");
        assert_eq!(run(&mut others, 4), if len == 6 { "done" } else { "held" });
        assert_eq!(run(&mut others, 0), "run");
        assert_eq!(run(&mut mine, 3), "run");
        // Lets the unit of 3..6 go, with 5 left.
        assert_eq!(run(&mut mine, 2), if len == 6 { "run" } else { "held" });
        assert_eq!(run(&mut others, 4), "done");
        assert_eq!(run(&mut others, 5), "run");
        // A tile that is torn, and one that is forgotten.
        let Claimed::Tile(tile) = others.claim_at(1).unwrap() else {
            panic!("it is open");
        };
        tile.tear();
        assert_eq!(run(&mut others, 1), "torn");
        let refused = mine.claim_at(len).unwrap_err();
        assert!(
            matches!(refused, RoundError::NoSuchTile { .. }),
            "{refused}"
        );
        drop(others);
        let mut last = 0;
        while let Some(mut tile) = mine.claim().unwrap() {
            tile.views()[0] += 1;
            last = tile.index();
        }
        assert!(last == len - 1 || len == 6);
        drop(mine);
        match round.finish(PATIENCE) {
            Err(RoundError::Torn { tiles, .. }) => {
                // With it the tiles of its unit that were left.
                assert_eq!(tiles, if len == 6 { vec![1] } else { vec![1, 2] });
            }
            other => panic!("{other:?}"),
        }
        table.clear_poison(x).unwrap();
        let x = table.read(x).unwrap();
        let twice: Vec<_> = x
            .iter()
            .enumerate()
            .filter(|(_, times)| **times > 1)
            .collect();
        assert_eq!(twice, [], "{len}");
        assert!(x.sum() as usize >= len - 2);
    }
}

/// A participant that stays in a round of an opener that gave it up is told that the next one runs.
#[test]
fn a_given_tile_of_a_round_that_is_over() {
    let table = table();
    let x = table.zeros::<u32, _>(2).unwrap();
    let tiles = table.partition(x.read(), Axis(0), 1).unwrap();
    let round = tiles.begin().unwrap();
    let mut late = tiles.enter().unwrap().unwrap();
    drop(round);
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while part.claim().unwrap().is_some() {}
    assert!(matches!(late.claim_at(0), Ok(Claimed::Over)));
    drop((late, part));
    round.finish(PATIENCE).unwrap();
}
