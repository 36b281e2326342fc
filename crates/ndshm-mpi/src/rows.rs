//! Global arrays, of which each node holds its tiles.

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;
use ndarray::{Dimension, IntoDimension};
use ndshm::partition::PerTile;
use ndshm::primitives::SystematicPlan;
use ndshm::{AnyHandle, Element, Handle, Read, WholeArray, Write};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::node::Node;

/// A global array of which this node holds some rows, in its segment: the result of
/// [`Node::rows`].
///
/// A value of it is a name, as a [`Handle`] is: it is `Copy`, and the array stays until
/// [`Node::free`].
///
/// ```
/// # ndshm_mpi::doctest(|job| {
/// let node = ndshm_mpi::Node::from_comm(&job.world())?;
/// let x = node.rows::<f64, _>((10_000, 3))?;
/// let largest = node.rows_per_tile::<f64, _, _>(&x, 1)?;
/// assert_eq!((x.layout().rows(), x.width()), (10_000, 3));
/// // This node's rows, as ndshm sees them.
/// assert_eq!(node.table().read(x.handle())?.dim(), (x.range().len(), 3));
/// // A tile writes its rows, sees all rows of the node, or writes one row of an array per tile.
/// let fill = node.partition(&x, x.write())?;
/// node.for_each(&fill, |mut rows, tile| rows.fill(tile.index() as f64))?;
/// let find = node.partition(&x, (x.read(), x.whole(), largest.per_tile()))?;
/// node.for_each(&find, |(rows, all, mut largest), _| {
///     assert!(rows.len() <= all.len());
///     largest[0] = rows.fold(0.0, |a: f64, &b| a.max(b));
/// })?;
/// let largest_of_tiles = node.gather_everywhere(&largest)?;
/// assert_eq!(largest_of_tiles.into_raw_vec_and_offset().0, [0.0, 1.0, 2.0]);
/// drop((fill, find));
/// node.free(largest)?;
/// # Ok(()) });
/// ```
pub struct Rows<T, D> {
    handle: Handle<T, D>,
    layout: Layout,
    node: usize,
    /// Elements of a row.
    width: usize,
    /// The address of the table of the `Node` that made it, which is never dropped.
    of: usize,
    /// The number of the array in its job, the same on all nodes.
    pub(crate) id: u64,
}

impl<T, D> Rows<T, D> {
    /// Returns the handle of this node's rows.
    pub fn handle(&self) -> Handle<T, D> {
        self.handle
    }

    /// Returns the division of the rows among tiles and nodes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the rows that this node holds.
    pub fn range(&self) -> Range<usize> {
        self.layout.rows_of(self.node)
    }

    /// Returns the elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Selects the array for a partition whose tiles read their rows.
    pub fn read(&self) -> Read<T, D> {
        self.handle.read()
    }

    /// Selects the array for a partition whose tiles write their rows.
    pub fn write(&self) -> Write<T, D> {
        self.handle.write()
    }

    /// Selects the array for a partition whose tiles read all rows *of this node*.
    pub fn whole(&self) -> WholeArray<T, D> {
        self.handle.whole()
    }

    /// Selects an array of [`Node::rows_per_tile`] for a partition whose tiles write one row each.
    pub fn per_tile(&self) -> PerTile<T, D> {
        self.handle.per_tile()
    }
}

impl<T, D> Clone for Rows<T, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, D> Copy for Rows<T, D> {}

impl<T, D> fmt::Debug for Rows<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("handle", &self.handle)
            .field("layout", &self.layout)
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

impl<T, D> fmt::Display for Rows<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array {}", self.id)
    }
}

impl Node {
    /// Makes a global array of zeros in tiles of [`SystematicPlan::TILE`] rows, for which
    /// [`resample_systematic`](Node::resample_systematic) moves least. Collective.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>((100_000, 3))?;
    /// assert_eq!(node.read(&x)?.dim(), (x.range().len(), 3));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// - [`Error::TooFewTiles`] if there are more nodes than tiles.
    /// - [`Error::Argument`] if the array has no axes or no rows.
    /// - [`Error::Ndshm`] if there is no memory.
    /// - [`Error::NotCalled`] and [`Error::Unequal`] if a rank does not make the call.
    pub fn rows<T: Element + Pod, Sh: IntoDimension>(&self, shape: Sh) -> Result<Rows<T, Sh::Dim>> {
        self.rows_in_tiles(shape, SystematicPlan::TILE)
    }

    /// Makes a global array of zeros in tiles of `tile` rows. Collective.
    ///
    /// Wide rows want small tiles: one rank works on a tile, and a tile lies on one node.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// // 1000 fields of 128 x 64 numbers, each a tile of its own.
    /// let fields = node.rows_in_tiles::<f32, _>((1000, 128, 64), 1)?;
    /// assert_eq!((fields.layout().tiles(), fields.width()), (1000, 128 * 64));
    /// node.free(fields)?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`rows`](Node::rows).
    pub fn rows_in_tiles<T: Element + Pod, Sh: IntoDimension>(
        &self,
        shape: Sh,
        tile: usize,
    ) -> Result<Rows<T, Sh::Dim>> {
        let mut shape = shape.into_dimension();
        let name = std::any::type_name::<T>();
        let call = Call::new(format_args!("rows::<{name}> {:?} {tile}", shape.slice()));
        let first = shape.slice().first().copied();
        let rows = first.ok_or_else(|| Error::Argument {
            call: call.text(),
            problem: "an array without axes has no rows: give it at least one axis".into(),
        });
        // There is no memory for an array whose width exceeds the greatest number.
        let width =
            (shape.slice().iter().skip(1)).fold(1usize, |width, &n| width.saturating_mul(n));
        let [bits] = self.lead(call, |_| {
            let layout = rows.and_then(|rows| Layout::new(rows, tile, self.count));
            shape[0] = self.first_alone(layout)?.rows_of(self.index).len();
            let made = self.table.zeros::<T, _>(shape)?;
            Ok([AnyHandle::from(made).to_bits()])
        })?;
        self.made.set(self.made.get() + 1);
        Ok(Rows {
            handle: Handle::from_bits(bits),
            // The leader has checked the same numbers.
            layout: Layout::new(first.unwrap_or(0), tile, self.count)?,
            node: self.index,
            width,
            of: self.address(),
            id: self.made.get(),
        })
    }

    /// Makes a global array with one row of `width` zeros for each tile of `x`, on the node of the
    /// tile. Collective.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>(10_000)?;
    /// let sums = node.rows_per_tile::<f64, _, _>(&x, 1)?;
    /// let tiles = node.partition(&x, (x.read(), sums.per_tile()))?;
    /// node.for_each(&tiles, |(x, mut sum), _| sum[0] = x.sum())?;
    /// // All ranks get the sums of all nodes.
    /// assert_eq!(node.gather_everywhere(&sums)?.len(), x.layout().tiles());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`rows`](Node::rows).
    pub fn rows_per_tile<T: Element + Pod, U, D>(
        &self,
        x: &Rows<U, D>,
        width: usize,
    ) -> Result<Rows<T, ndarray::Ix2>> {
        self.rows_in_tiles((x.layout.tiles(), width), 1)
    }

    /// Frees a global array. Collective.
    ///
    /// # Errors
    /// [`Error::Ndshm`] if it was freed before, and [`Error::Argument`] if another `Node` made it.
    pub fn free<T: Element, D: Dimension>(&self, x: Rows<T, D>) -> Result<()> {
        self.has(&x)?;
        let call = Call::new(format_args!("free of {x}"));
        self.lead_here(call, || Ok(self.table.free(x.handle)?).map(|()| []))
            .map(|[]| ())
    }

    /// Checks that this `Node` made an array: handles of another segment may name anything here.
    pub(crate) fn has<T, D>(&self, x: &Rows<T, D>) -> Result<()> {
        self.made_by(x.of, x)
    }

    /// Checks the [`address`](Node::address) of the `Node` that made a value.
    pub(crate) fn made_by(&self, of: usize, what: &impl fmt::Display) -> Result<()> {
        match of == self.address() {
            true => Ok(()),
            false => Err(Error::Argument {
                call: what.to_string(),
                problem: "made by another Node of this process: use the Node that made it".into(),
            }),
        }
    }

    /// Returns a number that no other `Node` of this process has.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self.table).addr()
    }

    /// Returns an error that all leaders have on the first one, and [`Error::Elsewhere`] on the
    /// others.
    pub(crate) fn first_alone<R, E: Into<Error>>(&self, outcome: Result<R, E>) -> Result<R> {
        outcome.map_err(|error| match (self.index, &self.leaders) {
            (0, _) | (_, None) => error.into(),
            (_, Some(leaders)) => Error::Elsewhere {
                rank: leaders.world_ranks[0],
            },
        })
    }
}
