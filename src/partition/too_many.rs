//! Grids of more tiles than a partition can count, and their remedies.

use super::grid::GridRequest;
use crate::partition::error::PartitionError;
use crate::word::DoneCount;

/// Returns `true` if a partition can count this many tiles.
pub(super) fn is_possible(tiles: usize) -> bool {
    tiles as u64 <= DoneCount::MAX_TILES
}

/// Returns an error with a fitting remedy if the grid has too many tiles.
pub(super) fn refuse(wishes: &[GridRequest], lengths: &[usize]) -> Result<(), PartitionError> {
    let axes = || wishes.iter().zip(lengths);
    let mut pieces: Vec<usize> = axes()
        .map(|(wish, &axis_len)| pieces(wish, axis_len))
        .collect();
    let product = |pieces: &[usize]| {
        let mut pieces = pieces.iter();
        pieces.try_fold(1usize, |tiles, &pieces| tiles.checked_mul(pieces))
    };
    // `Grid::weights` computes no bounds for too many tiles. Refuse them even if another axis has
    // no index.
    let are_cut = |wish: &GridRequest| match wish {
        GridRequest::Weights { tiles, .. } => is_possible(*tiles),
        _ => true,
    };
    if product(&pieces).is_some_and(is_possible) && wishes.iter().all(are_cut) {
        return Ok(());
    }
    // Count an axis without an index as one with a tile: then the other axes get a remedy.
    pieces
        .iter_mut()
        .for_each(|pieces| *pieces = (*pieces).max(1));
    let tiles = product(&pieces);
    let remedies: Vec<String> = axes()
        .zip(possible(&pieces))
        .zip(&pieces)
        .filter(|((_, possible), pieces)| possible < *pieces)
        .map(|(((wish, &axis_len), possible), _)| remedy(wish, axis_len, possible))
        .collect();
    Err(PartitionError::TooManyTiles {
        tiles,
        limit: DoneCount::MAX_TILES,
        remedy: remedies.join(" and "),
    })
}

fn pieces(wish: &GridRequest, axis_len: usize) -> usize {
    match wish {
        // Refused by `Grid::plan`.
        GridRequest::Blocks { len: 0, .. } => 0,
        GridRequest::Blocks { len, .. } => axis_len.div_ceil(*len),
        GridRequest::Bounds { bounds, .. } => bounds.len().saturating_sub(1),
        GridRequest::Weights { tiles, .. } | GridRequest::Cyclic { tiles, .. } => *tiles,
    }
}

/// Returns the possible pieces along each axis, with a product within the limit. Axes with few
/// pieces keep them; the others share the rest evenly.
fn possible(pieces: &[usize]) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..pieces.len()).collect();
    axes.sort_by_key(|&axis| pieces[axis]);
    let mut left = DoneCount::MAX_TILES as usize;
    let mut possible = vec![1; pieces.len()];
    for (before, &axis) in axes.iter().enumerate() {
        let share = root(left, (axes.len() - before) as u32);
        possible[axis] = pieces[axis].min(share);
        left /= possible[axis];
    }
    possible
}

/// Returns the `degree`th root of `value`, rounded down.
fn root(value: usize, degree: u32) -> usize {
    let fits = |root: usize| root.checked_pow(degree).is_some_and(|power| power <= value);
    let mut root = (value as f64).powf(1.0 / f64::from(degree)) as usize + 1;
    // The estimate is at most a rounding error away.
    while root > 1 && !fits(root) {
        root -= 1;
    }
    root
}

fn remedy(wish: &GridRequest, axis_len: usize, pieces: usize) -> String {
    match wish {
        GridRequest::Blocks { axis, .. } => {
            let len = axis_len.div_ceil(pieces);
            format!("a tile length of {len} or more along axis {axis}")
        }
        GridRequest::Bounds { axis, .. } => {
            format!("at most {} bounds along axis {axis}", pieces + 1)
        }
        GridRequest::Weights { axis, .. } | GridRequest::Cyclic { axis, .. } => {
            format!("at most {pieces} tiles along axis {axis}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::Grid;
    use super::*;
    use ndarray::Axis;

    const LIMIT: usize = DoneCount::MAX_TILES as usize;
    const LENGTH: usize = 1 << 30;

    fn refused(grid: &Grid, lengths: &[usize]) -> String {
        match grid.plan(lengths) {
            Err(error @ PartitionError::TooManyTiles { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn blocks(len: usize) -> Grid {
        Grid::blocks([(Axis(0), len)])
    }

    fn cyclic(axis: usize, tiles: usize) -> Grid {
        Grid::cyclic(Axis(axis), tiles)
    }

    /// Returns a grid of `bounds` bounds that fits `LENGTH`.
    fn bounds(bounds: usize) -> Grid {
        let first = core::iter::repeat_n(0, bounds - 1);
        Grid::bounds(Axis(0), first.chain([LENGTH]))
    }

    #[test]
    fn the_remedy_along_one_axis_fits_the_grid_and_is_the_smallest_that_works() {
        let weights = |tiles| Grid::weights(Axis(0), &[1.0, 2.0], tiles);
        let cases = [
            (
                blocks(1),
                LENGTH,
                "1073741824 tiles: at most 16777215 are possible; use a tile length of 65 or more \
                 along axis 0",
                blocks(65),
                blocks(64),
            ),
            (
                cyclic(0, usize::MAX),
                5,
                "18446744073709551615 tiles: at most 16777215 are possible; use at most 16777215 \
                 tiles along axis 0",
                cyclic(0, LIMIT),
                cyclic(0, LIMIT + 1),
            ),
            (
                bounds(LIMIT + 3),
                LENGTH,
                "16777217 tiles: at most 16777215 are possible; use at most 16777216 bounds along \
                 axis 0",
                bounds(LIMIT + 1),
                bounds(LIMIT + 2),
            ),
            (
                weights(usize::MAX),
                2,
                "18446744073709551615 tiles: at most 16777215 are possible; use at most 16777215 \
                 tiles along axis 0",
                weights(LIMIT),
                weights(LIMIT + 1),
            ),
        ];
        for (grid, length, text, followed, still_refused) in cases {
            assert_eq!(refused(&grid, &[length]), text);
            let tiles = followed.plan(&[length]).unwrap().tiles().unwrap();
            assert!(is_possible(tiles), "{text}: {tiles}");
            refused(&still_refused, &[length]);
        }
    }

    #[test]
    fn the_remedy_along_several_axes_names_those_to_change_and_works() {
        let grid = cyclic(0, 1 << 40).and(cyclic(1, 1 << 40));
        assert_eq!(
            refused(&grid, &[10, 10]),
            "more than 18446744073709551615 tiles: at most 16777215 are possible; use at most 4095 \
             tiles along axis 0 and at most 4097 tiles along axis 1"
        );
        let followed = cyclic(0, 4095).and(cyclic(1, 4097));
        assert!(followed.plan(&[10, 10]).is_ok());

        // The axis of few tiles keeps them.
        let grid = cyclic(2, 3).and(blocks(1));
        assert_eq!(
            refused(&grid, &[10, LENGTH]),
            "3221225472 tiles: at most 16777215 are possible; use a tile length of 193 or more \
             along axis 0"
        );
        assert!(cyclic(2, 3).and(blocks(193)).plan(&[10, LENGTH]).is_ok());
        refused(&cyclic(2, 3).and(blocks(192)), &[10, LENGTH]);
    }

    #[test]
    fn an_axis_without_indices_hides_no_weights_that_were_not_cut() {
        let weights = Grid::weights(Axis(1), &[1.0; 3], usize::MAX);
        let text = refused(&blocks(1).and(weights), &[0, 3]);
        assert!(
            text.ends_with("use at most 16777215 tiles along axis 1"),
            "{text}"
        );
        // An array without elements has no tiles, however finely it is cut.
        let none = blocks(1).and(Grid::blocks([(Axis(1), 1)]));
        assert_eq!(none.plan(&[0, LENGTH]).unwrap().tiles(), Some(0));
    }

    #[test]
    fn the_possible_pieces_stay_under_the_limit() {
        let counts = [1, 2, 63, 64, 4095, 4096, 4097, LIMIT, LIMIT + 1, usize::MAX];
        for a in counts {
            for b in counts {
                for c in counts {
                    for d in counts {
                        let wanted = [a, b, c, d];
                        let possible = possible(&wanted);
                        let tiles: u128 = possible.iter().map(|&pieces| pieces as u128).product();
                        assert!(tiles <= LIMIT as u128, "{wanted:?}: {possible:?}");
                        assert!(
                            possible
                                .iter()
                                .zip(wanted)
                                .all(|(&some, all)| 1 <= some && some <= all)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn roots_are_exact() {
        for degree in 1..=4 {
            for value in (1..5000).chain(LIMIT - 100..=LIMIT) {
                let root = root(value, degree);
                assert!(root.pow(degree) <= value && value < (root + 1).pow(degree));
            }
        }
    }
}
