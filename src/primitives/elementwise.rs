//! Fill, copy and swap: operations that move elements and compute nothing.

use ndarray::{ArrayView, ArrayView1, ArrayViewMut, Axis, Dimension, Zip};

use super::flat::{FlatRead, FlatWrite, moved_tile};
use super::same_shape;
use crate::element::Element;
use crate::handle::Handle;
use crate::handle_table::HandleTable;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

impl Pool<'_> {
    /// Sets every element of `dst` to `value`.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let x = table.zeros::<f64, _>((300, 7))?;
    /// pool.fill(x, 0.5)?;
    /// assert_eq!(pool.sum(x)?, 1050.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::Alloc`] if working memory is missing; [`PrimitiveError::Pool`] if the call
    /// fails, see [`for_each`](Pool::for_each).
    pub fn fill<T: Element, D: Dimension + 'static>(
        &mut self,
        dst: Handle<T, D>,
        value: T,
    ) -> Result<(), PrimitiveError> {
        let table = self.table();
        // Pass the value in an array, because parameters must be `Pod` and elements need not be.
        let value = table.owned(table.from_elem(1, value)?);
        let group = (value.handle().whole(), FlatWrite::new(dst));
        let tiles = table.partition(group, Axis(0), moved_tile::<T>())?;
        Ok(self.for_each(&tiles, &(), fill)?)
    }

    /// Copies the elements of `src` to `dst`. The two have the same shape, and may differ in memory
    /// order. Does nothing if both are the same array.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndarray::ShapeBuilder;
    ///
    /// let x = table.from_shape_fn((300, 7), |(i, j)| (7 * i + j) as f64)?;
    /// let columns = table.zeros((300, 7).f())?;            // in Fortran order
    /// pool.copy(x, columns)?;
    /// assert_eq!(*table.read(columns)?, *table.read(x)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::Shapes`] if the shapes differ; [`PrimitiveError::Pool`] if the call fails,
    /// see [`for_each`](Pool::for_each).
    pub fn copy<T: Element, D: Dimension + 'static>(
        &mut self,
        src: Handle<T, D>,
        dst: Handle<T, D>,
    ) -> Result<(), PrimitiveError> {
        let table = self.table();
        let shape = same_shape(table, "copy", dst, src)?;
        if src == dst {
            return Ok(());
        }
        if in_one_order(table, &shape, src, dst)? {
            let group = (FlatRead::new(src), FlatWrite::new(dst));
            let tiles = table.partition(group, Axis(0), moved_tile::<T>())?;
            return Ok(self.for_each(&tiles, &(), copy)?);
        }
        let (axis, tile_len) = along_longest::<T>(&shape);
        let tiles = table.partition((src.read(), dst.write()), axis, tile_len)?;
        Ok(self.for_each(&tiles, &(), copy_across)?)
    }

    /// Exchanges the elements of two arrays of the same shape, in place.
    ///
    /// This moves every element twice. A double buffer does not need it: make one partition for
    /// each direction, and use them alternately.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let mut x = [table.from_elem(1000, 1.0)?, table.zeros(1000)?];
    /// let steps = [
    ///     table.partition((x[0].whole(), x[1].write()), Axis(0), 64)?,
    ///     table.partition((x[1].whole(), x[0].write()), Axis(0), 64)?,
    /// ];
    /// let mut pool = Pool::threads(&table, 2)?;
    /// for step in 0..3 {
    ///     pool.for_each(&steps[step % 2], &(), |(from, mut to), (), tile| {
    ///         for (to, at) in to.iter_mut().zip(tile.range()) {
    ///             *to = from[at] + from[from.len() - 1 - at];
    ///         }
    ///     })?;
    /// }
    /// assert_eq!(table.read(x[1])?[0], 8.0);
    ///
    /// pool.swap(x[0], x[1])?;                  // the elements change places
    /// assert_eq!(table.read(x[0])?[0], 8.0);
    /// x.swap(0, 1);                            // the names change places, in no time
    /// assert_eq!(table.read(x[1])?[0], 8.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::Shapes`] if the shapes differ; [`PrimitiveError::Pool`] if the call fails,
    /// see [`for_each`](Pool::for_each).
    pub fn swap<T: Element, D: Dimension + 'static>(
        &mut self,
        a: Handle<T, D>,
        b: Handle<T, D>,
    ) -> Result<(), PrimitiveError> {
        let table = self.table();
        let shape = same_shape(table, "swap", b, a)?;
        if a == b {
            return Ok(());
        }
        if in_one_order(table, &shape, a, b)? {
            let group = (FlatWrite::new(a), FlatWrite::new(b));
            let tiles = table.partition(group, Axis(0), moved_tile::<T>())?;
            return Ok(self.for_each(&tiles, &(), swap)?);
        }
        let (axis, tile_len) = along_longest::<T>(&shape);
        let tiles = table.partition((a.write(), b.write()), axis, tile_len)?;
        Ok(self.for_each(&tiles, &(), swap_across)?)
    }
}

/// Returns `true` if the elements of two arrays of the same shape lie in the same memory order.
fn in_one_order<T: Element, D: Dimension>(
    table: &HandleTable,
    shape: &[usize],
    a: Handle<T, D>,
    b: Handle<T, D>,
) -> Result<bool, PrimitiveError> {
    let is_a_line = shape.iter().filter(|&&length| length != 1).count() <= 1;
    Ok(is_a_line || table.info(a)?.order == table.info(b)?.order)
}

/// Returns the longest axis of a shape with axes, and the number of its indices in a tile.
fn along_longest<T>(shape: &[usize]) -> (Axis, usize) {
    let longest = (0..shape.len()).max_by_key(|&axis| shape[axis]);
    let axis = longest.unwrap_or(0);
    let elements: usize = shape.iter().product();
    let per_index = elements / shape.get(axis).copied().unwrap_or(1).max(1);
    (Axis(axis), (moved_tile::<T>() / per_index.max(1)).max(1))
}

fn fill<T: Element>((value, dst): (ArrayView1<'_, T>, &mut [T]), _: &(), _: &TileContext) {
    if let Some(&value) = value.first() {
        dst.fill(value);
    }
}

fn copy<T: Element>((src, dst): (&[T], &mut [T]), _: &(), _: &TileContext) {
    dst.copy_from_slice(src);
}

fn copy_across<T: Element, D: Dimension>(
    (src, mut dst): (ArrayView<'_, T, D>, ArrayViewMut<'_, T, D>),
    _: &(),
    _: &TileContext,
) {
    dst.assign(&src);
}

fn swap<T: Element>((a, b): (&mut [T], &mut [T]), _: &(), _: &TileContext) {
    a.swap_with_slice(b);
}

fn swap_across<T: Element, D: Dimension>(
    (a, b): (ArrayViewMut<'_, T, D>, ArrayViewMut<'_, T, D>),
    _: &(),
    _: &TileContext,
) {
    Zip::from(a).and(b).for_each(core::mem::swap);
}
