//! Which node holds which tiles and rows: arithmetic without MPI.

use std::ops::Range;

use crate::error::{Error, Result};

/// The division of a global array's rows into tiles, and of the tiles among nodes.
///
/// Tile `t` of `T` belongs to node `k` of `K` if `T k / K <= t < T (k + 1) / K`, rounded down. A tile
/// is never divided. So neither tiles nor their random numbers and sums depend on the number of
/// nodes.
///
/// ```
/// use ndshm_mpi::Layout;
///
/// let layout = Layout::new(1000, 64, 3)?;
/// assert_eq!(layout.tiles(), 16);
/// assert_eq!(layout.tiles_of(1), 5..10);
/// assert_eq!(layout.rows_of(2), 640..1000);
/// assert_eq!(layout.node_of(639), 1);
/// # Ok::<(), ndshm_mpi::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    rows: usize,
    tile: usize,
    nodes: usize,
}

impl Layout {
    /// Divides `rows` rows in tiles of `tile` rows among `nodes` nodes.
    ///
    /// # Errors
    /// - [`Error::TooFewTiles`] if there are more nodes than tiles.
    /// - [`Error::Argument`] if `rows`, `tile` or `nodes` is 0.
    pub fn new(rows: usize, tile: usize, nodes: usize) -> Result<Layout> {
        if rows == 0 || tile == 0 || nodes == 0 {
            return Err(Error::Argument {
                call: "Layout::new".into(),
                problem: format!(
                    "{rows} rows in tiles of {tile} on {nodes} nodes: an array and a tile have at \
                     least 1 row, and a job at least 1 node"
                ),
            });
        }
        let layout = Layout { rows, tile, nodes };
        let tiles = layout.tiles();
        match tiles < nodes {
            true => Err(Error::TooFewTiles {
                rows,
                tile,
                tiles,
                nodes,
            }),
            false => Ok(layout),
        }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the rows of a tile. The last tile may have fewer.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Returns the number of tiles.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(self.tile)
    }

    /// Returns the tiles of a node. A node beyond the last has none, and so no rows.
    pub fn tiles_of(&self, node: usize) -> Range<usize> {
        self.first_tile(node)..self.first_tile(node.saturating_add(1))
    }

    /// Returns the rows of a node.
    pub fn rows_of(&self, node: usize) -> Range<usize> {
        let tiles = self.tiles_of(node);
        self.first_row(tiles.start)..self.first_row(tiles.end)
    }

    /// Returns the rows of a tile. A tile beyond the last has none.
    pub fn rows_of_tile(&self, tile: usize) -> Range<usize> {
        self.first_row(tile)..self.first_row(tile.saturating_add(1))
    }

    /// Returns the node that holds a row. For a row beyond the last, it is a number that no node
    /// has.
    pub fn node_of(&self, row: usize) -> usize {
        self.node_of_tile(row / self.tile)
    }

    /// Returns the node that holds a tile. For a tile beyond the last, it is a number that no node
    /// has.
    pub fn node_of_tile(&self, tile: usize) -> usize {
        // The last node whose first tile is not beyond: T k / K <= t holds for k < (t + 1) K / T.
        let (tiles, nodes) = (self.tiles() as u128, self.nodes as u128);
        let node = ((tile as u128 + 1) * nodes - 1) / tiles;
        usize::try_from(node).unwrap_or(usize::MAX)
    }

    fn first_tile(&self, node: usize) -> usize {
        let node = node.min(self.nodes) as u128;
        (self.tiles() as u128 * node / self.nodes as u128) as usize
    }

    fn first_row(&self, tile: usize) -> usize {
        tile.saturating_mul(self.tile).min(self.rows)
    }
}

/// Returns the numbers that are in both ranges.
pub fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_belongs_to_the_node_that_the_rule_names() {
        for rows in [1, 7, 64, 65, 1000, 4097] {
            for tile in [1, 3, 64, 5000] {
                for nodes in 1..=9 {
                    let Ok(layout) = Layout::new(rows, tile, nodes) else {
                        assert!(rows.div_ceil(tile) < nodes);
                        continue;
                    };
                    let mut next = 0;
                    for node in 0..nodes {
                        let tiles = layout.tiles_of(node);
                        assert_eq!(tiles.start, next);
                        assert!(!tiles.is_empty());
                        for t in tiles.clone() {
                            assert_eq!(layout.node_of_tile(t), node, "{layout:?}, tile {t}");
                        }
                        next = tiles.end;
                        for row in layout.rows_of(node) {
                            assert_eq!(layout.node_of(row), node);
                        }
                    }
                    assert_eq!(next, layout.tiles());
                    assert_eq!(layout.rows_of(nodes - 1).end, rows);
                }
            }
        }
    }

    #[test]
    fn too_many_nodes_are_refused_with_the_remedy() {
        let error = Layout::new(1000, 500, 3).unwrap_err().to_string();
        assert!(error.contains("run on at most 2 nodes"), "{error}");
        for none in [Layout::new(0, 1, 1), Layout::new(10, 0, 1)] {
            let error = none.unwrap_err().to_string();
            assert!(error.contains("at least 1 row"), "{error}");
        }
    }

    #[test]
    fn numbers_beyond_the_last_are_of_nobody() {
        let layout = Layout::new(10, 4, 2).unwrap();
        for beyond in [2, 3, usize::MAX] {
            assert_eq!(layout.tiles_of(beyond), 3..3);
            assert_eq!(layout.rows_of(beyond), 10..10);
        }
        assert_eq!(layout.rows_of_tile(usize::MAX), 10..10);
        assert!(layout.node_of_tile(3) >= 2 && layout.node_of(usize::MAX) >= 2);
        let tile = usize::MAX / 2 + 1;
        let large = Layout::new(usize::MAX, tile, 2).unwrap();
        assert_eq!(
            [large.rows_of(0).end, large.rows_of(1).end],
            [tile, usize::MAX]
        );
    }
}
