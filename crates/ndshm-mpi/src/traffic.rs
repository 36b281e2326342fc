//! Which rows go from which node to which: arithmetic without MPI, known to every node.

use std::ops::Range;

use ndshm::primitives::{Real, SystematicPlan};

use crate::error::{Error, Result};
use crate::layout::{Layout, common};

/// Rows that cross from one node to another, in one direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// The other node.
    pub node: usize,
    /// Where the rows belong in the global array that receives them.
    pub rows: Range<usize>,
}

/// An exchange of rows between nodes, seen from one of them.
///
/// Sender and receiver know it without a message: from the same numbers, all nodes compute the same
/// exchange. It does not say which rows the sender takes: see
/// [`Node::exchange`](crate::Node::exchange).
///
/// ```
/// use ndshm_mpi::{Crossing, Layout, Traffic};
///
/// // Two nodes have 4 rows each. The rows of the first have 6 offspring, those of the second 2.
/// let layout = Layout::new(8, 1, 2)?;
/// let borders = [0, 6, 8];
/// let first = Traffic::of_offspring(&layout, &borders, 0);
/// assert_eq!(first.own(), 0..6);
/// assert_eq!(first.sends(), [Crossing { node: 1, rows: 4..6 }]);
/// assert!(first.receives().is_empty());
/// let second = Traffic::of_offspring(&layout, &borders, 1);
/// assert_eq!(second.receives(), [Crossing { node: 0, rows: 4..6 }]);
/// # Ok::<(), ndshm_mpi::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traffic {
    layout: Layout,
    node: usize,
    own: Range<usize>,
    sends: Vec<Crossing>,
    receives: Vec<Crossing>,
}

/// Bytes from which on a row counts as wide: each ancestor crosses once, and without a copy.
pub(crate) const WIDE: usize = 64;

/// Bytes of a message with narrow rows, and of the memory in which its rows are put together.
const NARROW_BYTES: usize = 1 << 20;

/// Limits of a message with wide rows.
const WIDE_ROWS: usize = 1 << 16;
const WIDE_BYTES: usize = 1 << 30;

impl Traffic {
    /// Returns the exchange after a resampling in the order of rows: the offspring of node `k`'s rows
    /// are the rows from `borders[k]` to `borders[k + 1]` of the next array.
    ///
    /// Only nodes whose ranges overlap exchange messages: with weights that do not degenerate, the
    /// neighbours. Takes time in proportion to their number.
    ///
    /// # Panics
    /// If `borders` has other than one entry more than there are nodes.
    pub fn of_offspring(layout: &Layout, borders: &[usize], node: usize) -> Traffic {
        let nodes = layout.nodes();
        assert_eq!(borders.len(), nodes + 1, "one border more than nodes");
        let own = borders[node]..borders[node + 1];
        let here = layout.rows_of(node);
        let crossing =
            |node: usize, rows: Range<usize>| (!rows.is_empty()).then_some(Crossing { node, rows });
        let receivers = match own.is_empty() {
            true => 0..0,
            false => layout.node_of(own.start)..layout.node_of(own.end - 1) + 1,
        };
        let sends = (receivers.filter(|&to| to != node))
            .filter_map(|to| crossing(to, common(&own, &layout.rows_of(to))));
        // Nodes whose offspring end after the first row here, and begin before the last.
        let senders = match here.is_empty() {
            true => 0..0,
            false => {
                borders[1..].partition_point(|&end| end <= here.start)
                    ..borders[..nodes].partition_point(|&start| start < here.end)
            }
        };
        let receives = (senders.filter(|&from| from != node))
            .filter_map(|from| crossing(from, common(&(borders[from]..borders[from + 1]), &here)));
        Traffic {
            layout: *layout,
            node,
            sends: sends.collect(),
            receives: receives.collect(),
            own,
        }
    }

    /// Returns the first offspring of the rows from `row` on: a border for
    /// [`of_offspring`](Traffic::of_offspring), if `row` is a node's first.
    ///
    /// `weights` are those from tile `first_tile` of the plan on. Only the tile with `row` is used, and
    /// none at all if `row` begins a tile.
    ///
    /// ```
    /// use ndshm::primitives::SystematicPlan;
    /// use ndshm_mpi::Traffic;
    ///
    /// let weights = [1.0, 3.0, 2.0, 2.0];
    /// let plan = SystematicPlan::new(&SystematicPlan::sums(&weights), 0.5, 8)?;
    /// assert_eq!(Traffic::border(&plan, 2, 0, &weights)?, 4);
    /// # Ok::<(), ndshm_mpi::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Ndshm`] if `weights` lacks weights of the tile with `row`.
    pub fn border<W: Real>(
        plan: &SystematicPlan,
        row: usize,
        first_tile: usize,
        weights: &[W],
    ) -> Result<usize> {
        let tile = row / SystematicPlan::TILE;
        let offspring = plan.of_tiles(tile..tile + 1);
        if row.is_multiple_of(SystematicPlan::TILE) {
            return Ok(offspring.start);
        }
        // Ancestors do not decrease.
        let (mut low, mut high) = (offspring.start, offspring.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut ancestor = [0];
            plan.expand(middle..middle + 1, first_tile, weights, &mut ancestor)?;
            match (ancestor[0] as usize) < row {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// Returns any other exchange, as one node sees it: for local resampling with an exchange of
    /// fixed shares, islands, butterflies. `sends` are the rows of other nodes that this node fills,
    /// and `receives` the rows of this node that others fill.
    ///
    /// # Errors
    /// [`Error::Argument`] if a range is empty or not of the node that holds it, if a node is this
    /// one, or if received ranges, or those sent to one node, overlap or are not in order.
    pub fn new(
        layout: &Layout,
        node: usize,
        sends: Vec<Crossing>,
        receives: Vec<Crossing>,
    ) -> Result<Traffic> {
        let problem = |problem: String| Error::Argument {
            call: "Traffic::new".into(),
            problem,
        };
        let is_in = |rows: &Range<usize>, holder: usize| {
            let has = layout.rows_of(holder);
            !rows.is_empty() && rows.start >= has.start && rows.end <= has.end
        };
        // Messages to one node arrive in the order in which they are sent.
        let mut sent = std::collections::HashMap::new();
        for crossing in &sends {
            let Crossing { node: to, rows } = crossing;
            let next = sent.insert(to, rows.end).unwrap_or(0);
            if *to >= layout.nodes() || *to == node || !is_in(rows, *to) || rows.start < next {
                return Err(problem(format!(
                    "node {node} sends rows {rows:?} to node {to}: pass rows that the other node has \
                     in its layout, in increasing order"
                )));
            }
        }
        let mut next = 0;
        for Crossing { node: from, rows } in &receives {
            if *from >= layout.nodes() || *from == node || !is_in(rows, node) || rows.start < next {
                return Err(problem(format!(
                    "node {node} receives rows {rows:?} from node {from}: rows that it has in its \
                     layout ({:?}), in increasing order, from another node",
                    layout.rows_of(node)
                )));
            }
            next = rows.end;
        }
        Ok(Traffic {
            layout: *layout,
            node,
            own: 0..0,
            sends,
            receives,
        })
    }

    /// Returns the division of the rows that receive.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the node from which this is seen.
    pub fn node(&self) -> usize {
        self.node
    }

    /// Returns the offspring of the rows that this node has, wherever they belong; empty if the
    /// exchange is no resampling.
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Returns the rows that this node sends, by receiver.
    pub fn sends(&self) -> &[Crossing] {
        &self.sends
    }

    /// Returns the rows that this node receives, by sender.
    pub fn receives(&self) -> &[Crossing] {
        &self.receives
    }

    /// Returns `true` if rows of `row_bytes` bytes cross once per ancestor, with a message of their
    /// places beside each message of rows; narrow rows cross as often as they have
    /// offspring.
    pub fn crosses_once(row_bytes: usize) -> bool {
        row_bytes >= WIDE
    }

    /// Divides a crossing into messages of rows of `row_bytes` bytes. Sender and receiver divide it in
    /// the same way.
    pub fn messages(rows: Range<usize>, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let step = match row_bytes {
            0 => WIDE_ROWS,
            1..WIDE => NARROW_BYTES / row_bytes,
            _ => (WIDE_BYTES / row_bytes).clamp(1, WIDE_ROWS),
        };
        let end = rows.end;
        rows.step_by(step)
            .map(move |start| start..(start + step).min(end))
    }

    /// Returns, of the rows of a message that has wide rows, those that cross: the first offspring of
    /// each ancestor. The others repeat the row before them. Offsets count from the first row of the
    /// message.
    ///
    /// `before` is the ancestor of the last row of the message before, in the same crossing. So a row
    /// crosses once, even if its offspring fill many messages.
    pub fn crossing_rows(before: Option<u64>, ancestors: &[u64]) -> Vec<u32> {
        let mut before = before;
        let is_new = |&(_, &ancestor): &(usize, &u64)| before.replace(ancestor) != Some(ancestor);
        let new = ancestors.iter().enumerate().filter(is_new);
        new.map(|(offset, _)| offset as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes with the given numbers of offspring.
    fn all(layout: &Layout, offspring: &[usize]) -> Vec<Traffic> {
        let mut borders = vec![0];
        for count in offspring {
            borders.push(borders.last().unwrap() + count);
        }
        (0..layout.nodes())
            .map(|node| Traffic::of_offspring(layout, &borders, node))
            .collect()
    }

    #[test]
    fn every_row_comes_from_one_node_and_both_sides_agree() {
        for offspring in [
            vec![25, 25, 25, 25],
            vec![100, 0, 0, 0],
            vec![0, 0, 0, 100],
            vec![0, 50, 0, 50],
            vec![24, 27, 24, 25],
        ] {
            let layout = Layout::new(100, 5, 4).unwrap();
            let nodes = all(&layout, &offspring);
            let mut filled = vec![0; 100];
            for (node, traffic) in nodes.iter().enumerate() {
                for row in common(&traffic.own(), &layout.rows_of(node)) {
                    filled[row] += 1;
                }
                for receive in traffic.receives() {
                    receive.rows.clone().for_each(|row| filled[row] += 1);
                    let sent = Crossing {
                        node,
                        rows: receive.rows.clone(),
                    };
                    assert!(nodes[receive.node].sends().contains(&sent));
                }
                let count = |crossings: &[Crossing]| crossings.len();
                let made = Traffic::new(
                    &layout,
                    node,
                    traffic.sends().to_vec(),
                    traffic.receives().to_vec(),
                );
                assert_eq!(count(made.unwrap().sends()), count(traffic.sends()));
            }
            assert_eq!(filled, vec![1; 100], "{offspring:?}");
            let sends: usize = nodes.iter().map(|node| node.sends().len()).sum();
            let receives: usize = nodes.iter().map(|node| node.receives().len()).sum();
            assert_eq!(sends, receives);
        }
    }

    #[test]
    fn messages_have_bounded_size_and_all_rows() {
        for (rows, bytes, expected) in [
            (10, 8, 1),
            (1 << 20, 8, 8),
            (1 << 20, 64, 16),
            (5, 1 << 30, 5),
            (3, 3 << 30, 3),
            (7, 0, 1),
            (0, 8, 0),
        ] {
            let pieces: Vec<_> = Traffic::messages(100..100 + rows, bytes).collect();
            assert_eq!(pieces.len(), expected, "{rows} rows of {bytes} bytes");
            assert_eq!(pieces.iter().map(Range::len).sum::<usize>(), rows);
        }
    }

    #[test]
    fn an_ancestor_crosses_once() {
        let ancestors = [3, 3, 3, 4, 4, 4, 4, 4, 4, 9];
        assert_eq!(Traffic::crossing_rows(None, &ancestors), [0, 3, 9]);
        assert_eq!(Traffic::crossing_rows(Some(2), &ancestors), [0, 3, 9]);
        assert_eq!(Traffic::crossing_rows(Some(3), &ancestors), [3, 9]);
        assert!(Traffic::crossing_rows(Some(3), &[3, 3]).is_empty());
    }

    #[test]
    fn impossible_exchanges_are_refused() {
        let layout = Layout::new(20, 5, 2).unwrap();
        let crossing = |node, rows| vec![Crossing { node, rows }];
        let new = |sends, receives| {
            Traffic::new(&layout, 0, sends, receives)
                .unwrap_err()
                .to_string()
        };
        assert!(new(crossing(1, 5..8), vec![]).contains("node 0 sends rows 5..8 to node 1"));
        assert!(new(crossing(0, 5..8), vec![]).contains("other node"));
        let twice = [crossing(1, 15..16), crossing(1, 10..12)].concat();
        assert!(new(twice, vec![]).contains("in increasing order"));
        assert!(new(vec![], crossing(1, 15..16)).contains("node 0 receives rows 15..16"));
        assert!(new(vec![], crossing(2, 1..2)).contains("from node 2"));
    }

    #[test]
    fn borders_lie_where_the_ancestors_change() -> Result<()> {
        let weights: Vec<f64> = (0..10_000).map(|i| ((i * 7919) % 13) as f64).collect();
        let plan = SystematicPlan::new(&SystematicPlan::sums(&weights), 0.3, 9000)?;
        let mut ancestors = vec![0; 9000];
        plan.expand(0..9000, 0, &weights, &mut ancestors)?;
        for row in [0, 1, 5, 4031, 4032, 4033, 9999] {
            let expected = ancestors.partition_point(|&ancestor| (ancestor as usize) < row);
            assert_eq!(
                Traffic::border(&plan, row, 0, &weights)?,
                expected,
                "row {row}"
            );
        }
        Ok(())
    }
}
