//! Blocks: the place of a tile in the whole array.

use core::array;
use core::ops::Range;

use ndarray::{ArrayRef, Dim, Dimension};

use super::Partition;
use super::cover::TileOf;
use super::edge::Edge;
use super::error::BlockError;
use super::halo::Halo;

/// The place of a tile in the whole array: a range of indices along each of `D` axes.
///
/// [`Tile::block`](super::Tile::block), [`TileContext::block`](crate::TileContext::block) and
/// [`Partition::block`](super::Partition::block) return it. [`around`](Block::around) finds the
/// elements around the tile, in an array that the kernel reads [whole](crate::WholeArray).
///
/// ```
/// use ndarray::Axis;
/// use ndshm::{Grid, HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>((10, 7))?;
/// let grid = Grid::blocks([(Axis(0), 4), (Axis(1), 3)]);
/// let tiles = table.partition_by(x.write(), &grid)?;
/// let block = tiles.block::<2>(5)?;
/// assert_eq!(*block.ranges(), [4..8, 6..7]);
/// assert_eq!((block.start(), block.shape()), ([4, 6], [4, 1]));
/// assert_eq!(block.array_shape(), [10, 7]);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Block<const D: usize> {
    ranges: [Range<usize>; D],
    array_shape: [usize; D],
}

impl<const D: usize> Block<D> {
    /// Returns the block that covers a whole array of this shape.
    ///
    /// [`around`](Block::around) has an example.
    pub fn of_array(shape: [usize; D]) -> Block<D> {
        Block {
            ranges: shape.map(|len| 0..len),
            array_shape: shape,
        }
    }

    /// Returns the block of a tile. If `shape` is given, the block covers all of the axes that the
    /// plan does not cut; otherwise the plan must cut all axes.
    pub(super) fn of(tile: TileOf<'_>, shape: Option<[usize; D]>) -> Result<Self, BlockError> {
        let mut block = Block::of_array(shape.unwrap_or([0; D]));
        let mut is_cut = [false; D];
        for (side, (axis, axis_len)) in tile.sides().zip(tile.plan.axes()) {
            if axis >= D {
                return Err(BlockError::NoSuchAxis { axis, axes: D });
            }
            if side.step != 1 {
                return Err(BlockError::Cyclic { axis });
            }
            is_cut[axis] = true;
            block.ranges[axis] = side.range;
            block.array_shape[axis] = axis_len;
        }
        match (shape, is_cut.iter().position(|&cut| !cut)) {
            (None, Some(axis)) => Err(BlockError::NotCut { axis, axes: D }),
            (Some(shape), _) => block.check_shape(shape).map(|()| block),
            (None, None) => Ok(block),
        }
    }

    /// Returns the range of indices along each axis.
    ///
    /// [`Block`] has an example.
    pub fn ranges(&self) -> &[Range<usize>; D] {
        &self.ranges
    }

    /// Returns the first index along each axis.
    ///
    /// [`Block`] has an example.
    pub fn start(&self) -> [usize; D] {
        array::from_fn(|axis| self.ranges[axis].start)
    }

    /// Returns the number of indices along each axis.
    ///
    /// [`Block`] has an example.
    pub fn shape(&self) -> [usize; D] {
        array::from_fn(|axis| self.ranges[axis].len())
    }

    /// Returns the shape of the whole array.
    ///
    /// [`Block`] has an example.
    pub fn array_shape(&self) -> [usize; D] {
        self.array_shape
    }

    /// Returns the elements of the block and of a halo around it: `widths` elements more on both
    /// sides along each axis. `edges` says what lies beyond the edges of the array, by one [`Edge`]
    /// for all axes or by one for each.
    ///
    /// In a kernel, [`TileContext::around`](crate::TileContext::around) is shorter.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use ndshm::partition::{Block, Edge};
    ///
    /// let map = Array2::from_shape_fn((3, 4), |(i, j)| 10 * i + j);
    /// let block = Block::of_array([3, 4]);
    /// // Longitude is periodic, latitude is not.
    /// let halo = block.around(&map, [1, 1], [Edge::Clamped, Edge::Periodic])?;
    /// assert_eq!((halo[[0, -1]], halo[[-1, 0]]), (3, 0));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BlockError::Shape`] if the array does not have the shape of which this is a block.
    /// - [`BlockError::Halo`] if the halo is longer than the array along an axis.
    pub fn around<'a, T>(
        &self,
        array: &'a ArrayRef<T, Dim<[usize; D]>>,
        widths: [usize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Result<Halo<'a, T, D>, BlockError>
    where
        Dim<[usize; D]>: Dimension,
    {
        self.check_shape(shape_of(array))?;
        let edges = edges.into();
        for axis in 0..D {
            let (width, axis_len) = (widths[axis], self.array_shape[axis]);
            if width > edges[axis].limit(axis_len) {
                return Err(BlockError::Halo {
                    axis,
                    axis_len,
                    width,
                    edge: edges[axis],
                });
            }
        }
        Ok(Halo::new(array.view(), self.clone(), widths, edges))
    }

    fn check_shape(&self, found: [usize; D]) -> Result<(), BlockError> {
        match found == self.array_shape {
            true => Ok(()),
            false => Err(BlockError::Shape {
                found: found.into(),
                expected: self.array_shape.into(),
            }),
        }
    }
}

/// Returns the shape of an array as an array of numbers.
pub(super) fn shape_of<T, const D: usize>(array: &ArrayRef<T, Dim<[usize; D]>>) -> [usize; D]
where
    Dim<[usize; D]>: Dimension,
{
    array::from_fn(|axis| array.shape()[axis])
}

impl<G> Partition<'_, G> {
    /// Returns the place of a tile in arrays of `D` axes, all of which are cut; empty if there is no
    /// such tile.
    ///
    /// [`Block`] has an example.
    ///
    /// # Errors
    /// [`BlockError`] if an axis is not cut, or is cut cyclically, or if more than `D` axes are cut.
    pub fn block<const D: usize>(&self, tile: usize) -> Result<Block<D>, BlockError> {
        self.tile_of(tile).block()
    }

    /// Returns a tile's elements in `array`, which has the lengths of the divided arrays along the
    /// axes that are cut, and the elements around them: `widths` on both sides along each axis. In a
    /// kernel, use [`TileContext::around`](crate::TileContext::around).
    ///
    /// ```
    /// use ndarray::{Axis, array};
    /// use ndshm::partition::Edge;
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_shape_fn((6, 2), |(i, j)| (10 * i + j) as u32)?;
    /// let tiles = table.partition(x.read(), Axis(0), 2)?;
    /// let x = table.read(x)?;
    /// let halo = tiles.around(2, &x, [1, 0], Edge::Periodic)?;
    /// assert_eq!(halo.to_array(), array![[30, 31], [40, 41], [50, 51], [0, 1]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`TileContext::around`](crate::TileContext::around).
    pub fn around<'a, T, const D: usize>(
        &self,
        tile: usize,
        array: &'a ArrayRef<T, Dim<[usize; D]>>,
        widths: [usize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Result<Halo<'a, T, D>, BlockError>
    where
        Dim<[usize; D]>: Dimension,
    {
        self.tile_of(tile).around(array, widths, edges)
    }

    /// Returns the index of the tile that lies `offset` tiles from `tile` along each axis of the
    /// array. Returns `None` if there is no such tile: [`Edge::Periodic`] continues at the other end
    /// of an axis, the other edges end there.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::partition::Edge;
    /// use ndshm::{Grid, HandleTable, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((10, 9))?;
    /// // 0 1 2
    /// // 3 4 5
    /// let grid = Grid::blocks([(Axis(0), 5), (Axis(1), 3)]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// assert_eq!(tiles.neighbour(4, [-1, 0], Edge::Clamped), Some(1));
    /// assert_eq!(tiles.neighbour(4, [1, 0], Edge::Clamped), None);
    /// assert_eq!(tiles.neighbour(4, [1, 0], Edge::Periodic), Some(1));
    /// assert_eq!(tiles.neighbour(5, [-1, 1], [Edge::Clamped, Edge::Periodic]), Some(0));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn neighbour<const D: usize>(
        &self,
        tile: usize,
        offset: [isize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Option<usize> {
        self.tile_of(tile).neighbour(offset, edges)
    }

    fn tile_of(&self, tile: usize) -> TileOf<'_> {
        TileOf {
            plan: &self.plan,
            tile,
        }
    }
}

impl TileOf<'_> {
    /// Returns the block of the tile; see [`Block::of`].
    pub(crate) fn block<const D: usize>(self) -> Result<Block<D>, BlockError> {
        Block::of(self, None)
    }

    /// Returns the tile's elements in `array`, and the elements around them.
    pub(crate) fn around<'a, T, const D: usize>(
        self,
        array: &'a ArrayRef<T, Dim<[usize; D]>>,
        widths: [usize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Result<Halo<'a, T, D>, BlockError>
    where
        Dim<[usize; D]>: Dimension,
    {
        Block::of(self, Some(shape_of(array)))?.around(array, widths, edges)
    }

    /// Returns the index of the tile at `offset` tiles from this one along each axis.
    pub(crate) fn neighbour<const D: usize>(
        self,
        offset: [isize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Option<usize> {
        self.plan.neighbour(self.tile, &offset, &edges.into())
    }
}
