//! Sums of one value per tile in a fixed order, on two levels: arithmetic without MPI.
//!
//! The tiles of a block are added in their order, then the blocks. A block has [`BLOCK`] tiles,
//! wherever the nodes' borders lie: the node with a block's first tile owns it, and gets the values
//! of those tiles that other nodes have. So the order does not depend on the number of nodes, and
//! every node combines one value per block.
//!
//! ```
//! use ndshm_mpi::{Layout, blocks};
//!
//! // 600 tiles on two nodes are three blocks. The second block lies on both nodes.
//! let layout = Layout::new(600, 1, 2)?;
//! assert_eq!(blocks::owned(&layout, 0), 0..2);
//! assert_eq!(blocks::head(&layout, 1), Some((0, 300..512)));
//! assert_eq!(blocks::tails(&layout, 0), [(1, 300..512)]);
//! # Ok::<(), ndshm_mpi::Error>(())
//! ```

use std::ops::Range;

use crate::layout::{Layout, common};

/// Tiles of a block.
pub const BLOCK: usize = 256;

/// Returns the number of blocks.
pub fn blocks(layout: &Layout) -> usize {
    layout.tiles().div_ceil(BLOCK)
}

/// Returns the blocks that a node owns: those whose first tile it has.
pub fn owned(layout: &Layout, node: usize) -> Range<usize> {
    let tiles = layout.tiles_of(node);
    tiles.start.div_ceil(BLOCK)..tiles.end.div_ceil(BLOCK)
}

/// Returns the tiles of a node that lie in a block of an earlier node, and that node.
pub fn head(layout: &Layout, node: usize) -> Option<(usize, Range<usize>)> {
    let tiles = layout.tiles_of(node);
    let first = tiles.start / BLOCK * BLOCK;
    let head = tiles.start..(first + BLOCK).min(tiles.end);
    (first < tiles.start).then(|| (layout.node_of_tile(first), head))
}

/// Returns the later nodes with tiles in the last block that a node owns, and these tiles.
pub fn tails(layout: &Layout, node: usize) -> Vec<(usize, Range<usize>)> {
    let (blocks, tiles) = (owned(layout, node), layout.tiles_of(node));
    if blocks.is_empty() {
        return Vec::new();
    }
    let missing = tiles.end..(blocks.end * BLOCK).min(layout.tiles());
    let mut tails = Vec::new();
    let mut other = node + 1;
    while other < layout.nodes() && layout.tiles_of(other).start < missing.end {
        tails.push((other, common(&layout.tiles_of(other), &missing)));
        other += 1;
    }
    tails
}

/// Folds the values of consecutive tiles into one value per block. The first tile begins a block.
pub fn fold<const W: usize>(
    values: &[[f64; W]],
    add: impl Fn([f64; W], [f64; W]) -> [f64; W],
) -> Vec<[f64; W]> {
    let of_block = |block: &[[f64; W]]| block.iter().copied().reduce(&add);
    values.chunks(BLOCK).filter_map(of_block).collect()
}

/// Returns, for each tile, the sum of all tiles before it, and the sum of all: the blocks before it
/// and then the tiles of its block, in the order of [`fold`].
pub fn starts(values: &[f64]) -> Vec<f64> {
    let mut starts = Vec::with_capacity(values.len() + 1);
    let mut before = 0.0;
    for block in values.chunks(BLOCK) {
        let mut within = 0.0;
        for value in block {
            starts.push(before + within);
            within += value;
        }
        before += within;
    }
    starts.push(before);
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_goes_to_the_owner_of_its_block_once() {
        for (tiles, nodes) in [
            (1, 1),
            (1000, 1),
            (1000, 3),
            (1000, 7),
            (700, 300),
            (256, 2),
            (9, 9),
        ] {
            let layout = Layout::new(tiles, 1, nodes).unwrap();
            let mut owner = vec![None; tiles];
            for node in 0..nodes {
                let own = owned(&layout, node);
                let here = layout.tiles_of(node);
                let tails = tails(&layout, node);
                let mut have =
                    common(&(own.start * BLOCK..own.end * BLOCK), &here).collect::<Vec<_>>();
                for (other, range) in tails {
                    assert_eq!(head(&layout, other), Some((node, range.clone())));
                    have.extend(range);
                }
                assert!(have.is_sorted());
                for tile in have {
                    assert_eq!(owner[tile].replace(node), None);
                    assert!(own.contains(&(tile / BLOCK)));
                }
            }
            assert!(owner.iter().all(Option::is_some), "{tiles} on {nodes}");
        }
    }

    #[test]
    fn prefix_sums_end_with_the_folded_sum() {
        let values: Vec<f64> = (0..1000).map(|i| 1.0 / (i + 1) as f64).collect();
        let starts = starts(&values);
        let pairs: Vec<[f64; 1]> = values.iter().map(|&x| [x]).collect();
        let total = fold(&pairs, |a, b| [a[0] + b[0]]);
        let total = total.iter().skip(1).fold(total[0][0], |sum, x| sum + x[0]);
        assert_eq!(starts[1000], total);
        assert_eq!(starts[0], 0.0);
        assert!(starts.is_sorted());
    }
}
