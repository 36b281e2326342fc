//! Halos: a block of an array with the elements around it.
//!
//! A tile's views end where the tile ends, but a stencil reads beyond. The elements there belong to
//! other tiles, which other workers may write at the same time. So a halo is never a part of an
//! array that the partition writes: it is found in an array that every tile reads
//! [whole](crate::WholeArray), and a partition refuses an array that is read whole and written. A step
//! therefore reads one array and writes another. All of this is safe code on an `ArrayView` that the
//! kernel has anyway: the borrow checker and the group of the partition keep writers away.

use core::array;
use core::fmt;
use core::ops::Index;

use ndarray::{Array, ArrayRef, ArrayView, Axis, CowArray, Dim, Dimension, IndexLonger, Slice};

use super::block::{Block, shape_of};
use super::edge::{Edge, inside};
use super::error::BlockError;

/// A block of an array with the elements around it: [`TileContext::around`],
/// [`Partition::around`](super::Partition::around), [`Block::around`].
///
/// Indices count from the first element of the block. So `[0, 0]` is the first element of the tile,
/// and `[-1, 0]` the one above it, which may be at the other end of the array (see [`Edge`]).
///
/// ```
/// use ndarray::{Axis, Zip};
/// use ndshm::partition::Edge;
/// use ndshm::{Grid, HandleTable, Pool, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let old = table.from_shape_fn((30, 40), |(i, j)| (i + j) as f64)?;
/// let new = table.zeros::<f64, _>((30, 40))?;
/// let grid = Grid::blocks([(Axis(0), 8), (Axis(1), 8)]);
/// let tiles = table.partition_by((old.whole(), new.write()), &grid)?;
/// let mut pool = Pool::threads(&table, 2)?;
/// pool.for_each(&tiles, &(), |(old, mut new), (), tile| {
///     let old = tile.around(&old, [1, 1], Edge::Periodic).unwrap();
///     // A view; at the array's edges, a copy with what lies beyond them.
///     let cells = old.to_cow();
///     Zip::from(&mut new).and(cells.windows((3, 3))).for_each(|new, cells| {
///         *new = (cells[[0, 1]] + cells[[2, 1]] + cells[[1, 0]] + cells[[1, 2]]) / 4.0;
///     });
///     // The same for a single cell.
///     assert_eq!(new[[0, 0]], (old[[-1, 0]] + old[[1, 0]] + old[[0, -1]] + old[[0, 1]]) / 4.0);
/// })?;
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// [`TileContext::around`]: crate::TileContext::around
#[derive(Clone)]
pub struct Halo<'a, T, const D: usize>
where
    Dim<[usize; D]>: Dimension,
{
    array: ArrayView<'a, T, Dim<[usize; D]>>,
    block: Block<D>,
    /// Each is at most [`Edge::limit`].
    widths: [usize; D],
    edges: [Edge; D],
}

impl<'a, T, const D: usize> Halo<'a, T, D>
where
    Dim<[usize; D]>: Dimension,
{
    /// Creates the halo of a block. The caller has checked the array's shape and the widths.
    pub(super) fn new(
        array: ArrayView<'a, T, Dim<[usize; D]>>,
        block: Block<D>,
        widths: [usize; D],
        edges: [Edge; D],
    ) -> Self {
        Halo {
            array,
            block,
            widths,
            edges,
        }
    }

    /// Returns the block, without the halo.
    ///
    /// [`shape`](Halo::shape) has an example.
    pub fn block(&self) -> &Block<D> {
        &self.block
    }

    /// Returns the number of indices along each axis, with the halo on both sides.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::partition::{Block, Edge};
    ///
    /// let x = array![10, 11, 12];
    /// let halo = Block::of_array([3]).around(&x, [1], Edge::Periodic)?;
    /// assert_eq!((halo.block().shape(), halo.shape()), ([3], [5]));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn shape(&self) -> [usize; D] {
        let shape = self.block.shape();
        array::from_fn(|axis| shape[axis].saturating_add(2 * self.widths[axis]))
    }

    /// Returns the element at `index`, which counts from the first element of the block. Returns
    /// `None` beyond the halo. `halo[[i, j]]` panics there.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::partition::{Block, Edge};
    ///
    /// let x = array![10, 11, 12];
    /// let halo = Block::of_array([3]).around(&x, [1], Edge::Periodic)?;
    /// assert_eq!((halo[[-1]], halo[[0]], halo[[3]]), (12, 10, 10));
    /// assert_eq!((halo.get([-2]), halo.get([4])), (None, None));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[inline]
    pub fn get(&self, index: [isize; D]) -> Option<&'a T> {
        let mut at = Dim::<[usize; D]>::zeros(D);
        for (axis, at) in at.slice_mut().iter_mut().enumerate() {
            let (range, len) = (&self.block.ranges()[axis], self.block.array_shape()[axis]);
            *at = self.edges[axis].index(index[axis], range, len, self.widths[axis])?;
        }
        IndexLonger::get(&self.array, at)
    }

    /// Returns the block with its halo as a view of the array. Returns `None` if a part of it lies
    /// beyond an edge of the array.
    ///
    /// ```
    /// use ndarray::{Array1, Axis};
    /// use ndshm::partition::Edge;
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_shape_fn(9, |i| i as u32)?;
    /// let tiles = table.partition(x.read(), Axis(0), 3)?;
    /// let x = table.read(x)?;
    /// let view = |tile| Ok::<_, ndshm::Error>(tiles.block(tile)?.around(&x, [1], Edge::Clamped)?.view());
    /// assert_eq!(view(1)?, Some(Array1::from_iter(2..7).view()));
    /// assert_eq!(view(0)?, None);                  // its halo begins before the array
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn view(&self) -> Option<ArrayView<'a, T, Dim<[usize; D]>>> {
        let shape = self.shape();
        let mut view = self.array;
        for (axis, &len) in shape.iter().enumerate() {
            let (range, axis_len) = (&self.block.ranges()[axis], self.block.array_shape()[axis]);
            let inside = inside(range, axis_len, self.widths[axis]);
            if inside.len() != len {
                return None;
            }
            view.slice_axis_inplace(Axis(axis), Slice::from(inside));
        }
        Some(view)
    }
}

impl<'a, T: Clone, const D: usize> Halo<'a, T, D>
where
    Dim<[usize; D]>: Dimension,
{
    /// Returns the [view](Halo::view) of the block with its halo, or a [copy](Halo::to_array) if
    /// there is no such view. A kernel then needs no case for the array's edges.
    ///
    /// [`Halo`] has an example.
    pub fn to_cow(&self) -> CowArray<'a, T, Dim<[usize; D]>> {
        match self.view() {
            Some(view) => view.into(),
            None => self.to_array().into(),
        }
    }

    /// Copies the block with its halo into a new array.
    ///
    /// [`copy_into`](Halo::copy_into) copies into an array that is there already.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::partition::{Block, Edge};
    ///
    /// let x = array![1.0, 2.0, 3.0];
    /// let halo = Block::of_array([3]).around(&x, [1], Edge::Clamped)?;
    /// assert_eq!(halo.to_array(), array![1.0, 1.0, 2.0, 3.0, 3.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn to_array(&self) -> Array<T, Dim<[usize; D]>> {
        let mut shape = Dim::<[usize; D]>::zeros(D);
        shape.slice_mut().copy_from_slice(&self.shape());
        let Some(first) = self.array.first() else {
            // An array without elements allows no halo along an axis of length 0, so the copy has
            // no elements either, and the function is not called.
            return Array::from_shape_fn(shape, |_| unreachable!());
        };
        let mut copy = Array::from_elem(shape, first.clone());
        self.assign_to(&mut copy);
        copy
    }

    /// Copies the block with its halo into `to`: the part within the array by slices, and what lies
    /// beyond an edge by slices as well.
    ///
    /// ```
    /// use ndarray::{Array1, array};
    /// use ndshm::partition::{Block, Edge};
    ///
    /// let x = array![1.0, 2.0, 3.0];
    /// let mut copy = Array1::zeros(5);
    /// Block::of_array([3]).around(&x, [1], Edge::Reflected)?.copy_into(&mut copy)?;
    /// assert_eq!(copy, array![2.0, 1.0, 2.0, 3.0, 2.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BlockError::Shape`] if `to` does not have the [shape](Halo::shape) of the block with its
    /// halo.
    pub fn copy_into(&self, to: &mut ArrayRef<T, Dim<[usize; D]>>) -> Result<(), BlockError> {
        if shape_of(to) != self.shape() {
            return Err(BlockError::Shape {
                found: to.shape().into(),
                expected: self.shape().into(),
            });
        }
        // Such a block may have an axis of length 0, in which no stretch begins.
        if !to.is_empty() {
            self.assign_to(to);
        }
        Ok(())
    }

    /// Copies into `to`, which has the right shape.
    fn assign_to(&self, to: &mut ArrayRef<T, Dim<[usize; D]>>) {
        let stretches: [_; D] = array::from_fn(|axis| {
            let (range, len) = (&self.block.ranges()[axis], self.block.array_shape()[axis]);
            self.edges[axis].stretches(range, len, self.widths[axis])
        });
        // Each digit of `choice` selects one of the three stretches of an axis.
        for choice in 0..3usize.pow(D as u32) {
            let (mut part, mut from, mut rest) = (to.view_mut(), self.array, choice);
            for (axis, stretches) in stretches.iter().enumerate() {
                let stretch = &stretches[rest % 3];
                rest /= 3;
                part.slice_axis_inplace(Axis(axis), Slice::from(stretch.to.clone()));
                from.slice_axis_inplace(Axis(axis), stretch.from);
            }
            if !part.is_empty() {
                part.assign(&from);
            }
        }
    }
}

impl<T, const D: usize> Index<[isize; D]> for Halo<'_, T, D>
where
    Dim<[usize; D]>: Dimension,
{
    type Output = T;

    /// Returns the element at `index`, which counts from the first element of the block.
    ///
    /// # Panics
    /// If the index is beyond the halo.
    #[inline]
    #[track_caller]
    fn index(&self, index: [isize; D]) -> &T {
        match self.get(index) {
            Some(element) => element,
            None => panic!(
                "index {index:?} is beyond the halo of {:?} around a block of shape {:?}",
                self.widths,
                self.block.shape()
            ),
        }
    }
}

impl<T, const D: usize> fmt::Debug for Halo<'_, T, D>
where
    Dim<[usize; D]>: Dimension,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halo")
            .field("block", &self.block)
            .field("widths", &self.widths)
            .field("edges", &self.edges)
            .finish_non_exhaustive()
    }
}
