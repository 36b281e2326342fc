//! Blocks and halos, compared with a model that maps one index at a time; and neighbours by index.

use std::time::Duration;

use ndarray::{
    Array, Array1, Array2, ArrayView, Axis, Dim, Dimension, IntoDimension, ShapeBuilder,
};
use ndshm::error::BlockError;
use ndshm::partition::{Block, Edge};
use ndshm::{Grid, HandleTable, Pool, Segment};
use proptest::prelude::*;

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

/// Returns the index of the element that is at `index` of an axis of `len` indices.
fn model(edge: Edge, index: isize, len: usize) -> usize {
    let len = len as isize;
    let at = match edge {
        Edge::Clamped => index.clamp(0, len - 1),
        Edge::Periodic => index.rem_euclid(len),
        Edge::Reflected if len == 1 => 0,
        Edge::Reflected => {
            let at = index.rem_euclid(2 * (len - 1));
            at.min(2 * (len - 1) - at)
        }
    };
    at as usize
}

/// One axis of an array, its cuts, and the halo along it.
#[derive(Clone, Debug)]
struct Along {
    len: usize,
    bounds: Vec<usize>,
    width: usize,
    edge: Edge,
}

fn along() -> impl Strategy<Value = Along> {
    let edge = prop_oneof![
        Just(Edge::Clamped),
        Just(Edge::Periodic),
        Just(Edge::Reflected)
    ];
    (1usize..8, edge).prop_flat_map(|(len, edge)| {
        let limit = match edge {
            Edge::Reflected => len - 1,
            _ => len,
        };
        let bounds = proptest::collection::vec(0..=len, 0..4);
        (bounds, 0..=limit).prop_map(move |(mut bounds, width)| {
            bounds.extend([0, len]);
            bounds.sort_unstable();
            Along {
                len,
                bounds,
                width,
                edge,
            }
        })
    })
}

/// Compares the halos of all tiles of a partition with the model.
fn compare<const D: usize>(axes: [Along; D], fortran: bool) -> Result<(), TestCaseError>
where
    Dim<[usize; D]>: Dimension,
{
    let mut shape = Dim::<[usize; D]>::zeros(D);
    for (len, along) in shape.slice_mut().iter_mut().zip(&axes) {
        *len = along.len;
    }
    let table = table();
    let count = std::cell::Cell::new(0u32);
    let next = |_| {
        count.set(count.get() + 1);
        count.get()
    };
    let numbers = Array::from_shape_fn(shape.set_f(fortran), next);
    let x = table.zeros::<u32, _>(shape.set_f(fortran)).unwrap();
    table.write(x).unwrap().assign(&numbers);
    let grid = axes
        .iter()
        .enumerate()
        .map(|(axis, along)| Grid::bounds(Axis(axis), along.bounds.clone()))
        .reduce(Grid::and)
        .unwrap();
    let tiles = table.partition_by(x.read(), &grid).unwrap();
    let x = table.read(x).unwrap();
    let (widths, edges) = (
        axes.each_ref().map(|along| along.width),
        axes.each_ref().map(|along| along.edge),
    );
    for tile in 0..tiles.tiles() {
        let block = tiles.block::<D>(tile).unwrap();
        for (range, side) in block.ranges().iter().zip(tiles.sides(tile)) {
            prop_assert_eq!(range, &side.range);
        }
        let halo = block.around(&x, widths, edges).unwrap();
        let copy = halo.to_array();
        prop_assert_eq!(copy.shape(), &halo.shape());
        let expect = |index: [isize; D]| {
            let mut at = Dim::<[usize; D]>::zeros(D);
            for axis in 0..D {
                let index = block.start()[axis] as isize + index[axis];
                at.slice_mut()[axis] = model(edges[axis], index, axes[axis].len);
            }
            numbers[at]
        };
        let mut is_inside = true;
        // All indices up to one beyond the halo on each side.
        let (shape, mut beyond) = (block.shape(), Dim::<[usize; D]>::zeros(D));
        for axis in 0..D {
            beyond.slice_mut()[axis] = shape[axis] + 2 * widths[axis] + 2;
        }
        for at in ndarray::indices(beyond) {
            let at = at.into_dimension();
            let mut index = [0; D];
            let mut is_halo = true;
            for axis in 0..D {
                let at = at.slice()[axis];
                index[axis] = at as isize - widths[axis] as isize - 1;
                is_halo &= (1..=shape[axis] + 2 * widths[axis]).contains(&at);
            }
            let found = halo.get(index).copied();
            prop_assert_eq!(found, is_halo.then(|| expect(index)));
            if is_halo {
                let mut place = at;
                place.slice_mut().iter_mut().for_each(|at| *at -= 1);
                prop_assert_eq!(copy[place], expect(index));
                prop_assert_eq!(halo[index], expect(index));
            }
        }
        for axis in 0..D {
            let range = &block.ranges()[axis];
            is_inside &= range.start >= widths[axis] && range.end + widths[axis] <= axes[axis].len;
        }
        let view = halo.view();
        prop_assert_eq!(view.is_some(), is_inside);
        prop_assert_eq!(halo.to_cow().is_view(), is_inside);
        prop_assert!(view.is_none_or(|view| view == copy));
        prop_assert_eq!(&halo.to_cow(), &copy);
    }
    Ok(())
}

proptest! {
    #[test]
    fn one_axis_is_as_the_model(axes in [along()], fortran: bool) {
        compare(axes, fortran)?;
    }

    #[test]
    fn two_axes_are_as_the_model(axes in [along(), along()], fortran: bool) {
        compare(axes, fortran)?;
    }

    #[test]
    fn neighbours_are_as_the_model(
        first in along(),
        second in along(),
        offset in [-9isize..9, -9isize..9, -2isize..3],
        swapped: bool,
    ) {
        let table = table();
        let x = table.zeros::<u8, _>((first.len, second.len)).unwrap();
        let (rows, columns) = (
            Grid::bounds(Axis(0), first.bounds.clone()),
            Grid::bounds(Axis(1), second.bounds.clone()),
        );
        let grid = match swapped {
            true => columns.and(rows),
            false => rows.and(columns),
        };
        let tiles = table.partition_by(x.read(), &grid).unwrap();
        let (height, width) = (first.bounds.len() - 1, second.bounds.len() - 1);
        let number = |row: usize, column: usize| match swapped {
            true => column * height + row,
            false => row * width + column,
        };
        let edges = [first.edge, second.edge, Edge::Periodic];
        let place = |from: usize, offset: isize, pieces: usize, edge| {
            let to = from as isize + offset;
            match edge {
                Edge::Periodic => Some(to.rem_euclid(pieces as isize) as usize),
                _ => usize::try_from(to).ok().filter(|&to| to < pieces),
            }
        };
        for row in 0..height {
            for column in 0..width {
                let expected = place(row, offset[0], height, edges[0])
                    .zip(place(column, offset[1], width, edges[1]))
                    .map(|(row, column)| number(row, column));
                let tile = number(row, column);
                let of_two = tiles.neighbour(tile, [offset[0], offset[1]], [edges[0], edges[1]]);
                prop_assert_eq!(of_two, expected);
                // The third axis is one piece.
                prop_assert_eq!(tiles.neighbour(tile, offset, edges), expected);
                let ends = [edges[0], edges[1], Edge::Clamped];
                let expected = expected.filter(|_| offset[2] == 0);
                prop_assert_eq!(tiles.neighbour(tile, offset, ends), expected);
            }
        }
        prop_assert_eq!(tiles.neighbour(height * width, [0, 0], Edge::Periodic), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn three_axes_are_as_the_model(axes in [along(), along(), along()], fortran: bool) {
        compare(axes, fortran)?;
    }
}

/// A step of a stencil on a torus in a pool: each tile is copied or viewed with its halo.
#[test]
fn kernels_see_the_elements_around_their_tiles() {
    let table = table();
    let old = table.from_shape_fn((20, 13), |(i, j)| (i * 100 + j) as i64);
    let old = old.unwrap();
    let new = table.zeros::<i64, _>((20, 13)).unwrap();
    let grid = Grid::blocks([(Axis(0), 6), (Axis(1), 4)]);
    let tiles = table
        .partition_by((old.whole(), new.write()), &grid)
        .unwrap();
    let mut pool = Pool::threads(&table, 2).unwrap();
    pool.for_each(&tiles, &(), |(old, mut new), (), tile| {
        let halo = tile.around(&old, [1, 2], Edge::Periodic).unwrap();
        let cells = halo.to_cow();
        assert_eq!(halo.block(), &tile.block::<2>().unwrap());
        for ((i, j), new) in new.indexed_iter_mut() {
            let (row, column) = (i as isize, j as isize);
            assert_eq!(cells[[i + 1, j + 2]], halo[[row, column]]);
            *new = halo[[row - 1, column]] + halo[[row + 1, column]] + halo[[row, column - 2]];
        }
    })
    .unwrap();
    let old = table.read(old).unwrap();
    let expected = Array2::from_shape_fn((20, 13), |(i, j)| {
        old[[(i + 19) % 20, j]] + old[[(i + 1) % 20, j]] + old[[i, (j + 11) % 13]]
    });
    assert_eq!(*table.read(new).unwrap(), expected);
}

/// Tiles that cover all of an axis have a halo at its ends.
#[test]
fn an_axis_that_is_not_cut_is_whole() {
    let table = table();
    let x = table
        .from_shape_fn((6, 4), |(i, j)| (i * 10 + j) as u32)
        .unwrap();
    let y = table.zeros::<u32, _>((6, 3)).unwrap();
    let rows = table.partition((x.whole(), y.write()), Axis(0), 2).unwrap();
    let error = rows.block::<2>(0).unwrap_err();
    assert!(matches!(error, BlockError::NotCut { axis: 1, axes: 2 }));
    let round = rows.begin().unwrap();
    let mut pool = rows.enter().unwrap().unwrap();
    while let Some(mut tile) = pool.claim().unwrap() {
        assert_eq!(tile.block::<1>().unwrap().shape(), [2]);
        let _ = tile.views();
    }
    drop(pool);
    round.finish(Duration::from_secs(20)).unwrap();
    let mut pool = Pool::threads(&table, 1).unwrap();
    pool.for_each(&rows, &(), |(x, mut y), (), tile| {
        let halo = tile.around(&x, [0, 1], Edge::Periodic).unwrap();
        assert_eq!(halo.block().ranges()[1], 0..4);
        y.fill(halo[[0, -1]]);
    })
    .unwrap();
    let found = table.read(y).unwrap().column(0).to_vec();
    assert_eq!(found, [3, 3, 23, 23, 43, 43]);
}

#[test]
fn blocks_and_halos_that_cannot_be_are_refused_with_a_remedy() {
    let table = table();
    let x = table.zeros::<u8, _>((6, 4)).unwrap();
    let both = table
        .partition_by(x.write(), &Grid::blocks([(Axis(0), 2), (Axis(1), 2)]))
        .unwrap();
    let few = both.block::<1>(0).unwrap_err();
    assert!(matches!(few, BlockError::NoSuchAxis { axis: 1, axes: 1 }));
    let cyclic = table
        .partition_by(x.write(), &Grid::cyclic(Axis(0), 2))
        .unwrap();
    let error = cyclic.block::<1>(0).unwrap_err();
    assert!(matches!(error, BlockError::Cyclic { axis: 0 }));

    let block = both.block::<2>(3).unwrap();
    let array = |rows, columns| Array2::<u8>::zeros((rows, columns));
    let error = block
        .around(&array(6, 5), [1, 1], Edge::Clamped)
        .unwrap_err();
    assert!(matches!(error, BlockError::Shape { .. }), "{error}");
    let array = array(6, 4);
    for (widths, edge, fits) in [
        ([6, 4], Edge::Clamped, true),
        ([7, 4], Edge::Clamped, false),
        ([6, 4], Edge::Periodic, true),
        ([6, 5], Edge::Periodic, false),
        ([5, 3], Edge::Reflected, true),
        ([5, 4], Edge::Reflected, false),
        ([usize::MAX, 0], Edge::Periodic, false),
    ] {
        let halo = block.around(&array, widths, edge);
        assert_eq!(halo.is_ok(), fits, "{widths:?} {edge:?}");
        if let Ok(halo) = halo {
            assert!(halo.to_array().iter().all(|&x| x == 0));
            for index in [isize::MIN, isize::MAX] {
                assert_eq!(halo.get([index, 0]), None);
            }
        }
    }
    let text = block
        .around(&array, [5, 4], Edge::Reflected)
        .unwrap_err()
        .to_string();
    assert!(text.contains("at most 3"), "{text}");

    let halo = block.around(&array, [1, 1], Edge::Clamped).unwrap();
    let mut small = Array2::zeros((4, 3));
    let error = halo.copy_into(&mut small).unwrap_err();
    assert!(matches!(error, BlockError::Shape { .. }), "{error}");
}

#[test]
fn arrays_without_elements_and_missing_tiles_have_empty_halos() {
    let none = Array2::<u8>::zeros((0, 3));
    let halo = Block::of_array([0, 3]).around(&none, [0, 1], Edge::Periodic);
    let halo = halo.unwrap();
    assert_eq!(halo.to_array().shape(), [0, 5]);
    assert_eq!(halo.get([0, 0]), None);
    assert!(
        Block::of_array([0, 3])
            .around(&none, [1, 0], Edge::Clamped)
            .is_err()
    );

    let table = table();
    let x = table.from_shape_fn(5, |i| i as u8).unwrap();
    let tiles = table.partition(x.read(), Axis(0), 2).unwrap();
    let beyond = tiles.block::<1>(3).unwrap();
    assert_eq!((beyond.start(), beyond.shape()), ([5], [0]));
    let x = table.read(x).unwrap();
    let halo = beyond.around(&x, [2], Edge::Periodic).unwrap();
    assert_eq!(halo.to_array(), Array1::from_vec(vec![3, 4, 0, 1]));
}

/// The lengths of broadcast views are not bounded by memory: no sum of them overflows.
#[test]
fn halos_of_the_longest_views_do_not_overflow() {
    let one = Array1::<u8>::zeros(1);
    let len = isize::MAX as usize;
    let longest: ArrayView<'_, u8, _> = one.broadcast(len).unwrap();
    for edge in [Edge::Clamped, Edge::Periodic, Edge::Reflected] {
        let width = len - 1;
        let halo = Block::of_array([len])
            .around(&longest, [width], edge)
            .unwrap();
        assert_eq!(halo.get([isize::MAX]), Some(&0));
        assert_eq!(halo.get([-(width as isize)]), Some(&0));
        assert_eq!(halo.get([isize::MIN]), None);
        assert!(halo.view().is_none());
    }
}
