//! The positions of tiles, and plans with inconsistent words.

use super::*;
use crate::partition::grid::Grid;
use ndarray::Axis;

fn stored(plan: &Plan) -> (Vec<Atom>, Vec<Atom>) {
    let atoms = |count| (0..count).map(|_| Atom::zero()).collect::<Vec<_>>();
    let (cuts, bounds) = (atoms(MAX_CUTS * CUT_WORDS), atoms(plan.bound_words()));
    plan.store(&cuts, &bounds);
    (cuts, bounds)
}

fn side(axis: usize, range: Range<usize>, step: usize) -> TileSide {
    TileSide { axis, range, step }
}

fn visited(plan: &Plan, tile: usize) -> Vec<TileSide> {
    let mut sides = Vec::new();
    plan.for_each_side(tile, |side| sides.push(side));
    sides
}

#[test]
fn sides_of_tiles_are_as_they_were_asked_for() {
    let one = Grid::cyclic(Axis(2), 3).plan(&[8]).unwrap();
    let expected = [side(2, 1..8, 3)];
    assert_eq!(one.sides(1).collect::<Vec<_>>(), expected);
    assert_eq!(visited(&one, 1), expected);
    assert_eq!((one.first_axis(), one.rows(1)), (2, 1..8));

    // Tiles are numbered along the last axis first.
    let grid = Grid::blocks([(Axis(3), 4)]).and(Grid::bounds(Axis(1), [0, 2, 2, 5]));
    let two = grid.plan(&[10, 5]).unwrap();
    assert_eq!((two.tiles(), two.first_axis()), (Some(9), 3));
    for (tile, first, second) in [(0, 0..4, 0..2), (4, 4..8, 2..2), (8, 8..10, 2..5)] {
        let expected = [side(3, first.clone(), 1), side(1, second, 1)];
        assert_eq!(two.sides(tile).collect::<Vec<_>>(), expected);
        assert_eq!(visited(&two, tile), expected);
        assert_eq!(two.rows(tile), first);
    }
    // A tile beyond the last one is empty.
    let beyond = [side(3, 10..10, 1), side(1, 0..2, 1)];
    assert_eq!(two.sides(9).collect::<Vec<_>>(), beyond);
    assert!(two.sides(9 * 9).next().unwrap().range.is_empty());
}

/// Along every axis but the first, a number beyond the last piece means the last piece.
#[test]
fn tiles_of_an_axis_without_pieces_are_empty() {
    let grid = Grid::blocks([(Axis(0), 4), (Axis(1), 4)]);
    let plan = grid.plan(&[8, 0]).unwrap();
    assert_eq!(plan.tiles(), Some(0));
    let sides: Vec<TileSide> = plan.sides(1).collect();
    assert_eq!(sides, [side(0, 4..8, 1), side(1, 0..0, 1)]);
    let none = grid.plan(&[0, 8]).unwrap();
    assert_eq!(none.sides(5).next(), Some(side(0, 0..0, 1)));
}

#[test]
fn stretches_are_one_cut_that_is_not_cyclic() {
    let rows = Grid::blocks([(Axis(1), 3)]).plan(&[10]).unwrap();
    assert!(rows.is_stretches_of(1, 10));
    assert!(!rows.is_stretches_of(0, 10) && !rows.is_stretches_of(1, 11));
    let bounds = Grid::bounds(Axis(0), [0, 10]).plan(&[10]).unwrap();
    assert!(bounds.is_stretches_of(0, 10));
    let cyclic = Grid::cyclic(Axis(0), 3).plan(&[10]).unwrap();
    assert!(!cyclic.is_stretches_of(0, 10));
    let two = Grid::blocks([(Axis(0), 3), (Axis(1), 3)]);
    assert!(!two.plan(&[10, 10]).unwrap().is_stretches_of(0, 10));
}

#[test]
fn four_cuts_fit_and_a_fifth_does_not() {
    let axes = |count| Grid::blocks((0..count).map(|axis| (Axis(axis), 1)));
    let plan = axes(4).plan(&[2; 4]).unwrap();
    let (cuts, bounds) = stored(&plan);
    assert_eq!(Plan::load(4, &cuts, &bounds), Some(plan));
    for count in [0, 5] {
        assert_eq!(Plan::load(count, &cuts, &bounds), None);
        assert!(axes(count).plan(&vec![2; count]).is_err());
    }
}

/// Changes one word of a stored plan, and checks that it is refused.
#[track_caller]
fn assert_refused(plan: &Plan, count: usize, change: impl FnOnce(&[Atom], &[Atom])) {
    let (cuts, bounds) = stored(plan);
    assert_eq!(Plan::load(count, &cuts, &bounds).as_ref(), Some(plan));
    change(&cuts, &bounds);
    assert_eq!(Plan::load(count, &cuts, &bounds), None);
}

#[test]
fn words_that_do_not_fit_together_are_no_plan() {
    let set = |word: &Atom, value| word.store(value, Ordering::Relaxed);
    let blocks = Grid::blocks([(Axis(0), 3)]).plan(&[10]).unwrap();
    assert_refused(&blocks, 1, |cuts, _| set(&cuts[3], 0));
    assert_refused(&blocks, 1, |cuts, _| set(&cuts[2], 5));
    assert_refused(&blocks, 1, |cuts, _| set(&cuts[0], 3));
    let cyclic = Grid::cyclic(Axis(0), 3).plan(&[10]).unwrap();
    assert_refused(&cyclic, 1, |cuts, _| set(&cuts[2], 0));
    let bounds = Grid::bounds(Axis(0), [0, 4, 7, 10]).plan(&[10]).unwrap();
    assert_refused(&bounds, 1, |_, bounds| set(&bounds[0], 1));
    assert_refused(&bounds, 1, |_, bounds| set(&bounds[3], 9));
    assert_refused(&bounds, 1, |_, bounds| set(&bounds[1], 8));
    assert_refused(&bounds, 1, |cuts, _| set(&cuts[2], 4));
    // Two cuts along one axis.
    let two = Grid::blocks([(Axis(0), 3), (Axis(1), 3)]);
    let two = two.plan(&[10, 10]).unwrap();
    assert_refused(&two, 2, |cuts, _| set(&cuts[CUT_WORDS], 0));
}

#[test]
fn weights_that_mean_nothing_are_refused_by_their_reason() {
    let refused = |weights: &[f64], tiles| {
        let grid = Grid::weights(Axis(0), weights, tiles);
        grid.plan(&[weights.len()]).unwrap_err().to_string()
    };
    assert!(refused(&[1.0, 2.0], 0).contains("no tiles"));
    assert!(refused(&[2.0, -1.0], 2).contains("negative"));
    assert!(refused(&[f64::NAN], 2).contains("negative or not a number"));
    assert!(refused(&[0.0, 0.0], 2).contains("positive"));
    assert!(refused(&[f64::INFINITY, 1.0], 2).contains("infinite"));
    // Without an index there are no weights: all tiles are empty.
    let none = Grid::weights(Axis(0), &[], 3).plan(&[0]).unwrap();
    assert_eq!(none.tiles(), Some(3));
    assert_eq!(none.rows(2), 0..0);
}

#[test]
fn weights_are_cut_where_the_share_is_reached() {
    let rows = |weights: &[f64], tiles| -> Vec<Range<usize>> {
        let grid = Grid::weights(Axis(0), weights, tiles);
        let plan = grid.plan(&[weights.len()]).unwrap();
        (0..tiles).map(|tile| plan.rows(tile)).collect()
    };
    assert_eq!(rows(&[1.0; 6], 3), [0..2, 2..4, 4..6]);
    assert_eq!(rows(&[1.0, 1.0, 5.0, 1.0], 2), [0..3, 3..4]);
    assert_eq!(rows(&[6.0, 1.0, 1.0], 4), [0..1, 1..1, 1..1, 1..3]);
    // Sums of tenths are slightly off: the bound is at the share all the same.
    assert_eq!(
        rows(&[0.1; 10], 10),
        (0..10).map(|i| i..i + 1).collect::<Vec<_>>()
    );
}

#[test]
fn axes_are_named_in_their_order() {
    let grid = Grid::cyclic(Axis(3), 2)
        .and(Grid::blocks([(Axis(1), 1)]))
        .and(Grid::bounds(Axis(2), [0, 1]));
    assert_eq!(grid.axes().collect::<Vec<_>>(), [3, 1, 2]);
    // A problem of either part is a problem of both together.
    let bad = Grid::weights(Axis(0), &[-1.0], 1);
    let good = Grid::cyclic(Axis(1), 2);
    assert!(good.clone().and(bad.clone()).plan(&[1, 4]).is_err());
    assert!(bad.and(good).plan(&[1, 4]).is_err());
}
