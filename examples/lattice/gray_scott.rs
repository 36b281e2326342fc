//! The Gray-Scott model: two substances that diffuse and react on a torus.
//!
//! `U + 2 V -> 3 V` and `V -> P`; U is fed, and everything is washed out:
//!
//! ```text
//! du/dt = Du lap(u) - u v^2 + F (1 - u)
//! dv/dt = Dv lap(v) + u v^2 - (F + k) v
//! ```
//!
//! J. E. Pearson, "Complex patterns in a simple system", Science 261, 1993. The grid is Pearson's:
//! cells of 2.5 / 256, diffusion 2e-5 and 1e-5, explicit Euler steps of 1 with the Laplacian of the
//! four neighbours, patches of 20 by 20 cells of (1/2, 1/4) in a sea of (1, 0), with noise of 1 %.
//! Pearson starts with one patch; many patches fill the torus sooner.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use ndshm::bytemuck::{Pod, Zeroable};

/// Diffusion of U and of V in squared cells per step.
const DIFFUSION: [f32; 2] = {
    let cells_per_length = 256.0 / 2.5;
    let scale = cells_per_length * cells_per_length;
    [(2e-5 * scale) as f32, (1e-5 * scale) as f32]
};

/// Feed rate F of U, and rate k at which V decays in addition to F.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Rates {
    pub feed: f32,
    pub kill: f32,
}

/// Contents of a cell and its neighbours: itself, above, below, left, right.
type Cross = [f32; 5];

/// Returns the cell one step later. Every computation of a step calls this, so all agree to the
/// last bit.
#[inline(always)]
fn react(rates: Rates, u: Cross, v: Cross) -> (f32, f32) {
    let laplacian =
        |[own, above, below, left, right]: Cross| (above + below) + (left + right) - 4.0 * own;
    let ([u0, ..], [v0, ..]) = (u, v);
    let reaction = u0 * v0 * v0;
    let du = DIFFUSION[0] * laplacian(u) - reaction + rates.feed * (1.0 - u0);
    let dv = DIFFUSION[1] * laplacian(v) + reaction - (rates.feed + rates.kill) * v0;
    (u0 + du, v0 + dv)
}

/// Contents of the whole torus.
#[derive(Clone, Copy)]
pub struct Torus<'a> {
    pub u: ArrayView2<'a, f32>,
    pub v: ArrayView2<'a, f32>,
}

/// Takes one step of the cells of a tile, which `next_u` and `next_v` cover. `u` and `v` hold the
/// cells before the step, with one more on each side.
pub fn advance(
    rates: Rates,
    u: ArrayView2<'_, f32>,
    v: ArrayView2<'_, f32>,
    mut next_u: ArrayViewMut2<'_, f32>,
    mut next_v: ArrayViewMut2<'_, f32>,
) {
    let outputs = next_u.rows_mut().into_iter().zip(next_v.rows_mut());
    for (row, (mut next_u, mut next_v)) in outputs.enumerate() {
        let (u, v) = (crosses(u, row), crosses(v, row));
        // Slices of one length: many cells are computed at once.
        let next_u = next_u
            .as_slice_mut()
            .expect("a row of a tile is contiguous");
        let next_v = next_v
            .as_slice_mut()
            .expect("a row of a tile is contiguous");
        for (at, (next_u, next_v)) in next_u.iter_mut().zip(next_v).enumerate() {
            (*next_u, *next_v) = react(rates, u.map(|u| u[at]), v.map(|v| v[at]));
        }
    }
}

/// Returns the inputs of a row's cells as five slices. `cells` has one more cell on each side.
fn crosses(cells: ArrayView2<'_, f32>, row: usize) -> [&[f32]; 5] {
    let [above, own, below] = [row, row + 1, row + 2].map(|row| {
        let row = cells.index_axis_move(Axis(0), row);
        row.to_slice().expect("a row of a tile is contiguous")
    });
    let last = own.len() - 1;
    [
        &own[1..last],
        &above[1..last],
        &below[1..last],
        &own[..last - 1],
        &own[2..],
    ]
}

/// Takes one step of the whole torus in the simplest way, as a reference for [`advance`].
pub fn advance_plainly(rates: Rates, u: &Array2<f32>, v: &Array2<f32>) -> [Array2<f32>; 2] {
    let (height, width) = u.dim();
    let around = |x: &Array2<f32>, row: usize, column: usize| {
        [
            x[[row, column]],
            x[[(row + height - 1) % height, column]],
            x[[(row + 1) % height, column]],
            x[[row, (column + width - 1) % width]],
            x[[row, (column + 1) % width]],
        ]
    };
    let mut next = [u.clone(), v.clone()];
    for row in 0..height {
        for column in 0..width {
            let cell = react(rates, around(u, row, column), around(v, row, column));
            (next[0][[row, column]], next[1][[row, column]]) = cell;
        }
    }
    next
}

/// Returns the excess of U and V after a step over the model's balance, per cell.
///
/// Reaction and diffusion conserve the sum of both substances: only feeding and washing out change
/// it. A halo that is read at a wrong place shows here.
pub fn surplus(rates: Rates, before: Torus<'_>, after: Torus<'_>) -> f64 {
    let mean = |field: ArrayView2<'_, f32>| {
        field.iter().map(|&x| f64::from(x)).sum::<f64>() / field.len() as f64
    };
    let (u, v) = (mean(before.u), mean(before.v));
    let (feed, kill) = (f64::from(rates.feed), f64::from(rates.kill));
    let expected = u + v + feed * (1.0 - u) - (feed + kill) * v;
    mean(after.u) + mean(after.v) - expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;
    use ndshm::partition::Edge;
    use ndshm::{Grid, HandleTable, Segment};

    const RATES: Rates = Rates {
        feed: 0.034,
        kill: 0.063,
    };

    fn some_state(shape: (usize, usize)) -> [Array2<f32>; 2] {
        let wave = |(row, column): (usize, usize)| ((row * 7 + column * 3) % 13) as f32 / 13.0;
        let u = Array2::from_shape_fn(shape, wave);
        let v = u.mapv(|u| 0.4 * (1.0 - u));
        [u, v]
    }

    #[test]
    fn without_v_nothing_happens() {
        let (u, v) = (Array2::ones((5, 4)), Array2::zeros((5, 4)));
        assert_eq!(advance_plainly(RATES, &u, &v), [u, v]);
    }

    #[test]
    fn one_cell_by_hand() {
        let (mut u, mut v) = (Array2::ones((4, 4)), Array2::zeros((4, 4)));
        (u[[0, 0]], v[[0, 0]]) = (0.5, 0.25);
        let [u, v] = advance_plainly(RATES, &u, &v);
        let [du, dv] = DIFFUSION.map(f64::from);
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        near(u[[0, 0]], 0.5 + du * 2.0 - 0.03125 + 0.034 * 0.5);
        near(v[[0, 0]], 0.25 - dv * 1.0 + 0.03125 - 0.097 * 0.25);
        near(u[[3, 0]], 1.0 - du * 0.5);
        near(v[[0, 3]], dv * 0.25);
        near(v[[1, 1]], 0.0);
    }

    #[test]
    fn any_division_gives_the_plain_cells() {
        let shape = (9, 12);
        let [u, v] = some_state(shape);
        let [plain_u, plain_v] = advance_plainly(RATES, &u, &v);
        for (height, width) in [(9, 12), (1, 12), (4, 5), (3, 1), (9, 11)] {
            let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
            let field = table.zeros::<f32, _>(shape).unwrap();
            let grid = Grid::blocks([(Axis(0), height), (Axis(1), width)]);
            let tiles = table.partition_by(field.read(), &grid).unwrap();
            let (mut next_u, mut next_v) = (Array2::zeros(shape), Array2::zeros(shape));
            for tile in 0..tiles.tiles() {
                let block = tiles.block::<2>(tile).unwrap();
                let around = |field| block.around(field, [1, 1], Edge::Periodic).unwrap();
                let (u, v) = (around(&u).to_array(), around(&v).to_array());
                let [rows, columns] = block.ranges().clone();
                let part = s![rows, columns];
                let (next_u, next_v) = (next_u.slice_mut(part), next_v.slice_mut(part));
                advance(RATES, u.view(), v.view(), next_u, next_v);
            }
            assert_eq!(
                (&next_u, &next_v),
                (&plain_u, &plain_v),
                "{height} by {width}"
            );
        }
    }

    #[test]
    fn the_balance_holds_and_shows_a_wrong_cell() {
        let [u, v] = some_state((16, 16));
        let [next_u, mut next_v] = advance_plainly(RATES, &u, &v);
        let off = |next_v: &Array2<f32>| {
            let before = Torus {
                u: u.view(),
                v: v.view(),
            };
            let after = Torus {
                u: next_u.view(),
                v: next_v.view(),
            };
            surplus(RATES, before, after).abs()
        };
        assert!(off(&next_v) < 1e-7, "{}", off(&next_v));
        next_v[[3, 3]] += 0.01;
        assert!(off(&next_v) > 1e-5, "{}", off(&next_v));
    }
}
