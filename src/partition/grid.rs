//! The cutting of arrays into tiles: along which axes, and where.

use ndarray::Axis;

use super::plan::{Cut, MAX_CUTS, Pieces, Plan};
use super::too_many;
use crate::partition::error::PartitionError;

/// A division of arrays into the tiles of a partition, for
/// [`HandleTable::partition_by`](crate::HandleTable::partition_by).
///
/// ```
/// use ndarray::Axis;
/// use ndshm::Grid;
///
/// // Blocks of 64 x 64, smaller at the far edges; tiles are numbered along the last axis first.
/// Grid::blocks([(Axis(0), 64), (Axis(1), 64)]);
/// // Three stretches of rows of different lengths.
/// Grid::bounds(Axis(0), [0, 10, 50, 400]);
/// // Stretches of rows that cost about the same.
/// Grid::weights(Axis(0), &[1.0, 1.0, 5.0, 1.0], 2);
/// // Columns 0, 8, 16, .. are tile 0, columns 1, 9, 17, .. tile 1.
/// Grid::cyclic(Axis(1), 8);
/// ```
///
/// [`HandleTable::partition_by`](crate::HandleTable::partition_by): crate::HandleTable::partition_by
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    wishes: Vec<GridRequest>,
    problem: Option<&'static str>,
}

/// One axis as the user requested it. Its length is not known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum GridRequest {
    Blocks {
        axis: usize,
        len: usize,
    },
    Bounds {
        axis: usize,
        bounds: Vec<usize>,
    },
    Weights {
        axis: usize,
        /// The number of weights.
        weights: usize,
        tiles: usize,
        /// Computed from the weights. Empty if there are too many tiles.
        bounds: Vec<usize>,
    },
    Cyclic {
        axis: usize,
        tiles: usize,
    },
}

impl Grid {
    fn of(wish: GridRequest) -> Grid {
        Grid {
            wishes: vec![wish],
            problem: None,
        }
    }

    /// Cuts tiles of `len` indices along each given axis, up to 4 axes. The last tiles may be
    /// shorter.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>((100, 60))?;
    /// let grid = Grid::blocks([(Axis(0), 50), (Axis(1), 20)]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// assert_eq!(tiles.tiles(), 2 * 3);
    /// let sides: Vec<_> = tiles.sides(4).map(|side| side.range).collect();
    /// assert_eq!(sides, [50..100, 20..40]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn blocks(axes: impl IntoIterator<Item = (Axis, usize)>) -> Grid {
        let wish = |(axis, len): (Axis, usize)| GridRequest::Blocks {
            axis: axis.index(),
            len,
        };
        Grid {
            wishes: axes.into_iter().map(wish).collect(),
            problem: None,
        }
    }

    /// Cuts one tile between each two neighbouring bounds along `axis`. They begin with 0, end with
    /// the axis' length, and do not decrease. Equal neighbours make an empty tile.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>((100, 60))?;
    /// let grid = Grid::bounds(Axis(0), [0, 10, 90, 100]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// assert_eq!(tiles.range(1), 10..90);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bounds(axis: Axis, bounds: impl IntoIterator<Item = usize>) -> Grid {
        Grid::of(GridRequest::Bounds {
            axis: axis.index(),
            bounds: bounds.into_iter().collect(),
        })
    }

    /// Cuts `tiles` stretches of about the same weight along `axis`. Index `i` weighs `weights[i]`.
    /// Bound `k` is the first index at which the weights before it make up `k / tiles` of all.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>((100, 60))?;
    /// let costs: Vec<f64> = (0..100).map(|row| if row < 10 { 9.0 } else { 1.0 }).collect();
    /// let grid = Grid::weights(Axis(0), &costs, 2);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// assert_eq!(tiles.range(0), 0..10);                   // as expensive as the other 90
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn weights(axis: Axis, weights: &[f64], tiles: usize) -> Grid {
        let problem = weights_problem(weights);
        let bounds = match problem {
            None if too_many::is_possible(tiles) => bounds_by_weight(weights, tiles),
            _ => Vec::new(),
        };
        Grid {
            problem,
            ..Grid::of(GridRequest::Weights {
                axis: axis.index(),
                weights: weights.len(),
                tiles,
                bounds,
            })
        }
    }

    /// Cuts `tiles` tiles along `axis`. Tile `i` has the indices `i`, `i + tiles`, `i + 2 tiles`,
    /// .. This balances work that grows along the axis.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>((100, 60))?;
    /// let tiles = table.partition_by(x.write(), &Grid::cyclic(Axis(0), 4))?;
    /// let side = tiles.sides(1).next().expect("one axis is cut");
    /// assert_eq!((side.range.start, side.step), (1, 4));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn cyclic(axis: Axis, tiles: usize) -> Grid {
        Grid::of(GridRequest::Cyclic {
            axis: axis.index(),
            tiles,
        })
    }

    /// Cuts along the axes of `other` as well.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((100, 60))?;
    /// let grid = Grid::bounds(Axis(0), [0, 10, 100]).and(Grid::cyclic(Axis(1), 3));
    /// assert_eq!(table.partition_by(x.write(), &grid)?.tiles(), 2 * 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn and(mut self, other: Grid) -> Grid {
        self.wishes.extend(other.wishes);
        self.problem = self.problem.or(other.problem);
        self
    }

    /// Returns the axes, in order.
    pub(crate) fn axes(&self) -> impl Iterator<Item = usize> {
        self.wishes.iter().map(|wish| match *wish {
            GridRequest::Blocks { axis, .. }
            | GridRequest::Bounds { axis, .. }
            | GridRequest::Weights { axis, .. }
            | GridRequest::Cyclic { axis, .. } => axis,
        })
    }

    /// Returns the plan for axes of these lengths, in the order of [`axes`](Grid::axes).
    pub(crate) fn plan(&self, lengths: &[usize]) -> Result<Plan, PartitionError> {
        let bad = |problem: &'static str| PartitionError::Grid { problem };
        if let Some(problem) = self.problem {
            return Err(bad(problem));
        }
        if self.wishes.is_empty() || self.wishes.len() > MAX_CUTS {
            return Err(bad("a grid cuts along 1 to 4 axes"));
        }
        too_many::refuse(&self.wishes, lengths)?;
        let mut cuts: Vec<Cut> = Vec::new();
        for (wish, &axis_len) in self.wishes.iter().zip(lengths) {
            let (axis, pieces) = match wish {
                GridRequest::Blocks { len: 0, .. } => return Err(PartitionError::EmptyTile),
                GridRequest::Blocks { axis, len } => (*axis, Pieces::Blocks(*len)),
                GridRequest::Cyclic { tiles: 0, .. } | GridRequest::Weights { tiles: 0, .. } => {
                    return Err(bad("no tiles were asked for"));
                }
                GridRequest::Weights { axis, weights, .. } if *weights != axis_len => {
                    return Err(PartitionError::Weights {
                        axis: *axis,
                        axis_len,
                        weights: *weights,
                    });
                }
                GridRequest::Weights { axis, bounds, .. } => {
                    (*axis, Pieces::Bounds(bounds.clone().into()))
                }
                GridRequest::Cyclic { axis, tiles } => (*axis, Pieces::Cyclic(*tiles)),
                GridRequest::Bounds { axis, bounds } => {
                    let ends = bounds.first() == Some(&0) && bounds.last() == Some(&axis_len);
                    if !ends || bounds.len() < 2 {
                        return Err(PartitionError::Bounds {
                            axis: *axis,
                            axis_len,
                            first: bounds.first().copied(),
                            last: bounds.last().copied(),
                        });
                    }
                    if !bounds.is_sorted() {
                        return Err(bad("bounds decrease"));
                    }
                    (*axis, Pieces::Bounds(bounds.clone().into()))
                }
            };
            if cuts.iter().any(|cut| cut.axis == axis) {
                return Err(bad("an axis is cut twice"));
            }
            cuts.push(Cut {
                axis,
                axis_len,
                pieces,
            });
        }
        Ok(Plan::of(cuts))
    }
}

/// Returns the reason why stretches cannot be cut by these weights, or `None` if they can.
fn weights_problem(weights: &[f64]) -> Option<&'static str> {
    let any = |is: fn(f64) -> bool| weights.iter().any(|&weight| is(weight));
    match weights {
        [] => None,
        _ if any(|weight| weight.is_nan() || weight < 0.0) => {
            Some("a weight is negative or not a number")
        }
        _ if any(f64::is_infinite) => Some("a weight is infinite"),
        _ if any(|weight| weight > 0.0) => None,
        _ => Some("all weights are 0: one of them at least must be positive"),
    }
}

/// Returns the bounds of `tiles` stretches of about the same weight. The weights are finite and not
/// all zero, or there are none.
fn bounds_by_weight(weights: &[f64], tiles: usize) -> Vec<usize> {
    let sum = |scale: f64| weights.iter().map(|weight| weight * scale).sum::<f64>();
    // The sum of large weights may overflow. After this division, that of fewer than 2^64 weights
    // cannot. The division is exact, except for weights that are negligible beside such a sum.
    let scale = match sum(1.0).is_finite() {
        true => 1.0,
        false => 2f64.powi(-64),
    };
    let total = sum(scale);
    let mut bounds = vec![0];
    let mut before = 0.0;
    for (index, weight) in weights.iter().enumerate() {
        before += weight * scale;
        let at = (before / total * tiles as f64 * (1.0 + 1e-12)) as usize;
        while bounds.len() <= at.min(tiles.saturating_sub(1)) {
            bounds.push(index + 1);
        }
    }
    bounds.resize(tiles.max(1), weights.len());
    bounds.push(weights.len());
    bounds
}

#[cfg(test)]
mod tests {
    use super::super::plan::CUT_WORDS;
    use super::*;
    use crate::sync::{Atom, Ordering};
    use proptest::prelude::*;

    fn covered(plan: &Plan) -> Vec<Vec<usize>> {
        let mut counts: Vec<Vec<usize>> = plan.axes().map(|(_, len)| vec![0; len]).collect();
        let mut tiles_of: Vec<usize> = vec![0; counts.len()];
        for tile in 0..plan.tiles().unwrap() {
            for (at, side) in plan.sides(tile).enumerate() {
                tiles_of[at] += 1;
                for index in side.range.step_by(side.step) {
                    counts[at][index] += 1;
                }
            }
        }
        counts
    }

    fn any_wish() -> impl Strategy<Value = GridRequest> {
        prop_oneof![
            (1usize..9).prop_map(|len| GridRequest::Blocks { axis: 0, len }),
            (1usize..9).prop_map(|tiles| GridRequest::Cyclic { axis: 0, tiles }),
            proptest::collection::vec(0usize..20, 0..6).prop_map(|mut bounds| {
                bounds.sort_unstable();
                bounds.insert(0, 0);
                bounds.push(20);
                GridRequest::Bounds { axis: 0, bounds }
            }),
        ]
    }

    proptest! {
        /// Along each axis every index is in as many tiles as the other axis has pieces.
        #[test]
        fn every_index_is_covered_evenly(first in any_wish(), second in any_wish()) {
            let grid = Grid {
                wishes: vec![first, match second {
                    GridRequest::Blocks { len, .. } => GridRequest::Blocks { axis: 1, len },
                    GridRequest::Cyclic { tiles, .. } => GridRequest::Cyclic { axis: 1, tiles },
                    GridRequest::Bounds { bounds, .. } | GridRequest::Weights { bounds, .. } => {
                        GridRequest::Bounds { axis: 1, bounds }
                    }
                }],
                problem: None,
            };
            let plan = grid.plan(&[20, 20]).unwrap();
            let pieces: Vec<usize> = plan.pieces().collect();
            let counts = covered(&plan);
            prop_assert!(counts[0].iter().all(|&count| count == pieces[1]));
            prop_assert!(counts[1].iter().all(|&count| count == pieces[0]));

            let cuts: Vec<Atom> = (0..MAX_CUTS * CUT_WORDS).map(|_| Atom::zero()).collect();
            let bounds: Vec<Atom> = (0..plan.bound_words()).map(|_| Atom::zero()).collect();
            plan.store(&cuts, &bounds);
            prop_assert_eq!(Plan::load(2, &cuts, &bounds), Some(plan));
        }

        #[test]
        fn decoding_is_total(words in proptest::collection::vec(any::<u64>(), 16), tile: usize) {
            let cuts: Vec<Atom> = words.iter().map(|&word| {
                let atom = Atom::zero();
                atom.store(word % 1000, Ordering::Relaxed);
                atom
            }).collect();
            for count in [0, 1, 2, 3, 4, 5, usize::MAX] {
                if let Some(plan) = Plan::load(count, &cuts, &cuts) {
                    let _ = (plan.tiles(), plan.rows(tile));
                    prop_assert!(plan.sides(tile).all(|side| side.range.start <= side.range.end));
                }
            }
        }

        /// No tile exceeds its share by more than one index.
        #[test]
        fn weights_are_balanced(weights in proptest::collection::vec(0.0f64..10.0, 1..60), tiles in 1usize..9) {
            prop_assume!(weights.iter().sum::<f64>() > 0.0);
            let plan = Grid::weights(Axis(0), &weights, tiles).plan(&[weights.len()]).unwrap();
            prop_assert_eq!(plan.tiles(), Some(tiles));
            let share = weights.iter().sum::<f64>() / tiles as f64;
            let heaviest = weights.iter().copied().fold(0.0, f64::max);
            for tile in 0..tiles {
                let weight: f64 = weights[plan.rows(tile)].iter().sum();
                prop_assert!(weight <= share + heaviest + 1e-9, "{weight} of {share}");
            }
        }
    }

    #[test]
    fn weights_whose_sum_overflows_are_cut_as_small_ones() {
        for (large, small) in [
            ([1e308; 5], [1.0; 5]),
            (
                [1e308, 0.0, 1e308, 1e308, 5e-324],
                [1.0, 0.0, 1.0, 1.0, 0.0],
            ),
        ] {
            for tiles in 1..7 {
                let plan = |weights: &[f64]| Grid::weights(Axis(0), weights, tiles).plan(&[5]);
                assert_eq!(plan(&large).unwrap(), plan(&small).unwrap());
            }
        }
    }

    #[test]
    fn a_wrong_number_of_weights_is_named_with_the_length_of_the_axis() {
        let text = |weights: &[f64], len| {
            let grid = Grid::weights(Axis(0), weights, 3);
            grid.plan(&[len]).unwrap_err().to_string()
        };
        assert_eq!(
            text(&[1.0; 5], 1),
            "5 weights for 1 index along axis 0: give each index one weight"
        );
        assert_eq!(
            text(&[1.0], 0),
            "1 weight for 0 indices along axis 0: give each index one weight"
        );
    }

    #[test]
    fn what_a_grid_refuses() {
        let refused = |grid: Grid, lengths: &[usize]| grid.plan(lengths).unwrap_err().to_string();
        let rows = Axis(0);
        assert!(refused(Grid::bounds(rows, [0, 5]), &[6]).contains("6"));
        assert!(refused(Grid::bounds(rows, [0, 5, 3, 6]), &[6]).contains("decrease"));
        assert!(refused(Grid::weights(rows, &[1.0, f64::NAN], 2), &[2]).contains("number"));
        assert!(refused(Grid::weights(rows, &[0.0, 0.0], 2), &[2]).contains("positive"));
        assert!(refused(Grid::cyclic(rows, 0), &[6]).contains("no tiles"));
        let twice = Grid::cyclic(rows, 2).and(Grid::blocks([(rows, 3)]));
        assert!(refused(twice, &[6, 6]).contains("twice"));
        assert!(matches!(
            Grid::blocks([(rows, 0)]).plan(&[6]),
            Err(PartitionError::EmptyTile)
        ));
    }
}
