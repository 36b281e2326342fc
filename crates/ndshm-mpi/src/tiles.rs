//! Rounds: all ranks of all nodes work on the tiles of global arrays.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use ndarray::Axis;
use ndshm::partition::Group;
use ndshm::pool::TileRng;
use ndshm::{Partition, PartitionHandle};

use crate::call::Call;
use crate::error::Result;
use crate::layout::Layout;
use crate::node::Node;
use crate::rows::Rows;

/// The tiles of global arrays: the result of [`Node::partition`].
///
/// Ranks may drop it at any time: its partition lasts until all of them are in a later call.
pub struct Tiles<'n, G: Group + 'static> {
    node: &'n Node,
    partition: Rc<Partition<'static, G>>,
    layout: Layout,
    /// Tiles of the nodes before this one.
    before: usize,
    /// The last round in which this rank was.
    last: Cell<u64>,
    id: u64,
}

impl<G: Group + 'static> Drop for Tiles<'_, G> {
    fn drop(&mut self) {
        // The leader's value frees the partition, in whose last round a rank may still be.
        self.node.keep(Rc::clone(&self.partition));
    }
}

impl<G: Group> fmt::Display for Tiles<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.id)
    }
}

impl<G: Group> fmt::Debug for Tiles<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiles")
            .field("id", &self.id)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// The tile that a kernel of [`Node::for_each`] works on.
#[derive(Clone, Debug)]
pub struct TileContext {
    index: usize,
    rows: Range<usize>,
}

impl TileContext {
    /// Returns the number of the tile among the tiles of all nodes.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the rows of the tile in the global array.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Returns the random numbers of this tile in a step: the same on any number of nodes and ranks.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// use ndshm::pool::TileRng;
    /// use ndshm::rand_core::Rng;
    ///
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<u64, _>(10_000)?;
    /// let tiles = node.partition(&x, x.write())?;
    /// node.for_each(&tiles, |mut x, tile| x[0] = tile.rng(7, 1).next_u64())?;
    /// // Without ndshm-mpi: seed, step, tile.
    /// let first = x.range().start / x.layout().tile();
    /// assert_eq!(node.read(&x)?[0], TileRng::at(7, 1, first).next_u64());
    /// # Ok(()) });
    /// ```
    pub fn rng(&self, seed: u64, step: u64) -> TileRng {
        TileRng::at(seed, step, self.index)
    }
}

impl Node {
    /// Divides the arrays of `group` into the tiles of `x`. Collective.
    ///
    /// A group is one access or a tuple of up to 8, as for
    /// [`HandleTable::partition`](ndshm::HandleTable::partition): arrays of the same length as `x`
    /// by `read` and `write`, an array of [`rows_per_tile`](Node::rows_per_tile) by `per_tile`.
    ///
    /// # Errors
    /// - [`Error::Ndshm`](crate::Error::Ndshm) if the arrays do not fit together.
    /// - [`Error::Argument`](crate::Error::Argument) if another `Node` made `x`.
    /// - Same as [`barrier`](Node::barrier).
    pub fn partition<T, D, G: Group + 'static>(
        &self,
        x: &Rows<T, D>,
        group: G,
    ) -> Result<Tiles<'_, G>> {
        self.has(x)?;
        let layout = x.layout();
        let name = std::any::type_name::<G>();
        let call = Call::new(format_args!("partition by {x} of {name}"));
        let made = Cell::new(None);
        let [bits] = self.lead(call, |_| {
            let tiles = self.table.partition(group, Axis(0), layout.tile())?;
            let bits = tiles.handle().to_bits();
            made.set(Some(tiles));
            Ok([bits])
        })?;
        let partition = match made.into_inner() {
            Some(made) => made,
            None => self
                .table
                .open_partition(PartitionHandle::from_bits(bits))?,
        };
        // The leader's value frees the partition, and may be dropped as soon as this returns.
        self.lead_here(Call::new(format_args!("partition, opened")), || Ok([]))
            .map(|[]| ())?;
        self.made.set(self.made.get() + 1);
        Ok(Tiles {
            node: self,
            partition: Rc::new(partition),
            layout,
            before: layout.tiles_of(self.index).start,
            last: Cell::new(0),
            id: self.made.get(),
        })
    }

    /// Runs `kernel` on each tile, by all ranks of the tile's node. Collective.
    ///
    /// A tile goes to the rank that claims it: a rank that lost its processor delays nobody. The
    /// kernel is an ordinary closure, because each rank runs its own; it may capture anything. It
    /// must not make collective calls, which are refused there. Nodes do not wait for each other
    /// here.
    ///
    /// # Errors
    /// - [`Error::NotCalled`](crate::Error::NotCalled) and
    ///   [`Error::Unequal`](crate::Error::Unequal) if a rank of this node does not make the call.
    /// - [`Error::Ndshm`](crate::Error::Ndshm) if an array is leased, for example by a guard of
    ///   [`Node::read`] that a rank still has.
    /// - [`Error::Argument`](crate::Error::Argument) if another `Node` made `tiles`.
    pub fn for_each<G: Group>(
        &self,
        tiles: &Tiles<'_, G>,
        mut kernel: impl FnMut(G::Views<'_>, &TileContext),
    ) -> Result<()> {
        self.made_by(tiles.node.address(), tiles)?;
        let call = Call::new(format_args!("for_each on {tiles}"));
        self.in_step(call, || {
            let arrived = self.arrive(call);
            self.fail_here(arrived)?;
            let number = self.round(&tiles.partition, tiles.last.get(), |tile| {
                let index = tiles.before + tile.index();
                let rows = tiles.layout.rows_of_tile(index);
                kernel(tile.views(), &TileContext { index, rows });
            })?;
            tiles.last.set(number);
            Ok(())
        })
    }
}
