//! The messages of one resampling on any number of nodes, as ndshm-mpi plans them: no MPI.

use std::ops::Range;

use ndshm::primitives::SystematicPlan;
use ndshm_mpi::{Layout, Result, Traffic};

/// A message from one leader to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub bytes: usize,
}

/// The messages of all nodes in one call of `resample_systematic`.
pub struct Counted {
    /// Messages in which leaders compare their calls, of one comparison.
    pub agreement: Vec<Message>,
    /// Comparisons in the call.
    pub agreements: usize,
    /// Bytes that each node has after the gathering of sums, or of weights.
    pub gathered: usize,
    /// Messages with rows, and with their places.
    pub exchange: Vec<Message>,
}

/// Bytes of a message in which a leader tells its call.
const CALL: usize = 128;

/// Bytes of the place of a row.
const PLACE: usize = size_of::<u32>();

/// Counts the messages of a resampling of rows of `row_bytes` bytes. `weights` returns the weights
/// of a range of the plan's tiles.
pub fn resampling(
    plan: &SystematicPlan,
    layout: &Layout,
    row_bytes: usize,
    weights: &dyn Fn(Range<usize>) -> Vec<f64>,
) -> Result<Counted> {
    let nodes = layout.nodes();
    let by_tile = layout.tile() == SystematicPlan::TILE;
    let mut borders = Vec::with_capacity(nodes + 1);
    for node in 0..nodes {
        let row = layout.rows_of(node).start;
        let tile = row / SystematicPlan::TILE;
        let begins_tile = row.is_multiple_of(SystematicPlan::TILE);
        let needed = if begins_tile {
            vec![]
        } else {
            weights(tile..tile + 1)
        };
        borders.push(Traffic::border(plan, row, tile, &needed)?);
    }
    borders.push(plan.offspring());
    let mut exchange = Vec::new();
    for node in 0..nodes {
        let traffic = Traffic::of_offspring(layout, &borders, node);
        for crossing in traffic.sends() {
            let mut before = None;
            for rows in Traffic::messages(crossing.rows.clone(), row_bytes) {
                let mut add = |bytes| {
                    let (from, to) = (node, crossing.node);
                    exchange.push(Message { from, to, bytes });
                };
                if !Traffic::crosses_once(row_bytes) {
                    add(rows.len() * row_bytes);
                    continue;
                }
                let tiles = plan.tiles_of(rows.clone());
                let mut ancestors = vec![0; rows.len()];
                let weights = weights(tiles.clone());
                plan.expand(rows.clone(), tiles.start, &weights, &mut ancestors)?;
                let once = Traffic::crossing_rows(before, &ancestors).len();
                before = ancestors.last().copied();
                add(once * PLACE);
                add(once * row_bytes);
            }
        }
    }
    Ok(Counted {
        agreement: agreement(nodes),
        agreements: if by_tile { 3 } else { 2 },
        gathered: match by_tile {
            true => layout.tiles() * size_of::<f64>(),
            false => layout.rows() * size_of::<f64>(),
        },
        exchange,
    })
}

/// Returns the messages of a binomial tree, from the leaves up and down again.
fn agreement(nodes: usize) -> Vec<Message> {
    let to_parent = |node: usize| Message {
        from: node,
        to: node & (node - 1),
        bytes: CALL,
    };
    let both = |up: Message| {
        let down = Message {
            from: up.to,
            to: up.from,
            ..up
        };
        [up, down]
    };
    (1..nodes).map(to_parent).flat_map(both).collect()
}
