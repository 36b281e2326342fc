//! Gather: `dst[i, ..] = src[index[i], ..]`.

use ndarray::{ArrayView, ArrayView1, ArrayViewMut, Axis, Dimension, Ix1};

use super::flat::moved_tile;
use super::shape_of;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

/// The element types of an array of indices: `u32` and `u64`.
///
/// ```compile_fail
/// let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
/// let (x, y) = (table.zeros::<f64, _>(9)?, table.zeros::<f64, _>(9)?);
/// let signed = table.zeros::<i64, _>(9)?;
/// ndshm::Pool::threads(&table, 1)?.gather(x, signed, y)?;
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no index: an array of indices holds `u32` or `u64`"
)]
pub trait ArrayIndex: Element + sealed::ArrayIndex {}

impl ArrayIndex for u32 {}
impl ArrayIndex for u64 {}

pub(super) mod sealed {
    pub trait ArrayIndex {
        fn position(self) -> u64;
    }

    impl ArrayIndex for u32 {
        fn position(self) -> u64 {
            self.into()
        }
    }

    impl ArrayIndex for u64 {
        fn position(self) -> u64 {
            self
        }
    }
}

/// The first index of a tile that is out of range: 1 if there is one, its position, its value.
type Found = [u64; 3];

impl Pool<'_> {
    /// Writes `src[index[i], ..]` to `dst[i, ..]` for every `i`.
    ///
    /// `src` and `dst` have the same lengths along all axes but the first; `dst` is as long as
    /// `index`. Their memory orders may differ. C order is fastest, because the elements of a row
    /// are then consecutive.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_array(&array![[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]])?;
    /// let y = table.zeros::<f64, _>((4, 2))?;
    /// let index = table.from_array(&array![2u32, 0, 0, 1])?;
    ///
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.gather(x, index, y)?;
    /// assert_eq!(*table.read(y)?, array![[2.0, 2.5], [0.0, 0.5], [0.0, 0.5], [1.0, 1.5]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::Index`] for the first index that is out of range. Every `dst[i, ..]`
    ///   with an index in range is written all the same; the others keep their values.
    /// - [`PrimitiveError::Aliased`] if `dst` is `src` or `index`.
    /// - [`PrimitiveError::Shapes`] if the shapes do not fit together.
    /// - [`PrimitiveError::Partition`] for arrays without axes.
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn gather<T: Element, D: Dimension + 'static, I: ArrayIndex>(
        &mut self,
        src: Handle<T, D>,
        index: Handle<I, Ix1>,
        dst: Handle<T, D>,
    ) -> Result<(), PrimitiveError> {
        const OPERATION: &str = "gather";
        let written = AnyHandle::from(dst);
        if written == src.into() || written == index.into() {
            return Err(PrimitiveError::Aliased {
                operation: OPERATION,
                handle: written,
            });
        }
        let table = self.table();
        let (from, to) = (shape_of(table, src)?, shape_of(table, dst)?);
        let unfit = |other, expected, rule| PrimitiveError::Shapes {
            operation: OPERATION,
            handle: written,
            found: to.clone(),
            other,
            expected,
            rule,
        };
        if from.get(1..) != to.get(1..) {
            let rule = "all axes but the first must be of equal lengths";
            return Err(unfit(src.into(), from, rule));
        }
        let indices = shape_of(table, index)?;
        if to.first().is_some_and(|length| *length != indices[0]) {
            let rule = "there must be one index for each position along the first axis";
            return Err(unfit(index.into(), indices, rule));
        }
        let width = to.iter().skip(1).product::<usize>().max(1);
        let tile_len = (moved_tile::<T>() / width).max(1);
        let group = (src.whole(), index.read(), dst.write());
        let tiles = table.partition(group, Axis(0), tile_len)?;
        let found = self.map_collect(&tiles, &(), gather)?;
        match found.into_iter().find(|&[is_found, ..]| is_found != 0) {
            None => Ok(()),
            Some([_, position, value]) => Err(PrimitiveError::Index {
                handle: index.into(),
                position: position as usize,
                index: value,
                source_array: src.into(),
                length: from.first().copied().unwrap_or(0),
            }),
        }
    }
}

fn gather<T: Element, D: Dimension, I: ArrayIndex>(
    (src, index, mut dst): (
        ArrayView<'_, T, D>,
        ArrayView1<'_, I>,
        ArrayViewMut<'_, T, D>,
    ),
    _: &(),
    tile: &TileContext,
) -> Found {
    let length = src.shape().first().copied().unwrap_or(0);
    let width = src.shape().iter().skip(1).product::<usize>();
    let all = match (src.as_slice(), dst.as_slice_mut(), index.as_slice()) {
        (Some(src), Some(dst), Some(index)) => match width {
            // There is nothing to gather, but the indices are still checked.
            0 => false,
            1 => elements(src, index, dst),
            2 => rows::<T, I, 2>(src, index, dst),
            3 => rows::<T, I, 3>(src, index, dst),
            4 => rows::<T, I, 4>(src, index, dst),
            6 => rows::<T, I, 6>(src, index, dst),
            8 => rows::<T, I, 8>(src, index, dst),
            _ => wide_rows(src, index, dst, width),
        },
        _ => columns(src, index, dst),
    };
    if all {
        return [0; 3];
    }
    let bad = index
        .iter()
        .position(|index| index.position() >= length as u64);
    match bad {
        None => [0; 3],
        Some(at) => [1, (tile.range().start + at) as u64, index[at].position()],
    }
}

/// Returns the position of an index. `usize` has 64 bits on every supported target.
fn place(index: impl ArrayIndex) -> usize {
    index.position() as usize
}

/// Gathers elements. Returns `true` if all indices were in range. Leaves elements with other
/// indices unchanged.
fn elements<E: Copy, I: ArrayIndex>(src: &[E], index: &[I], dst: &mut [E]) -> bool {
    let mut all = true;
    for (dst, &index) in dst.iter_mut().zip(index) {
        match src.get(place(index)) {
            Some(&element) => *dst = element,
            None => all = false,
        }
    }
    all
}

/// Gathers rows of a constant width, so no row needs a call of memcpy.
fn rows<T: Copy, I: ArrayIndex, const WIDTH: usize>(src: &[T], index: &[I], dst: &mut [T]) -> bool {
    let ((src, _), (dst, _)) = (src.as_chunks::<WIDTH>(), dst.as_chunks_mut::<WIDTH>());
    elements(src, index, dst)
}

fn wide_rows<T: Copy, I: ArrayIndex>(src: &[T], index: &[I], dst: &mut [T], width: usize) -> bool {
    let mut all = true;
    for (dst, &index) in dst.chunks_exact_mut(width).zip(index) {
        let row = place(index)
            .checked_mul(width)
            .and_then(|start| src.get(start..)?.get(..width));
        match row {
            Some(row) => dst.copy_from_slice(row),
            None => all = false,
        }
    }
    all
}

/// Gathers by columns. In Fortran order their elements are consecutive.
fn columns<T: Element, D: Dimension, I: ArrayIndex>(
    src: ArrayView<'_, T, D>,
    index: ArrayView1<'_, I>,
    mut dst: ArrayViewMut<'_, T, D>,
) -> bool {
    let mut all = true;
    let lanes = dst.lanes_mut(Axis(0)).into_iter();
    for (mut dst, src) in lanes.zip(src.lanes(Axis(0))) {
        if let (Some(src), Some(dst), Some(index)) =
            (src.as_slice(), dst.as_slice_mut(), index.as_slice())
        {
            all &= elements(src, index, dst);
            continue;
        }
        for (dst, &index) in dst.iter_mut().zip(&index) {
            match src.get(place(index)) {
                Some(&element) => *dst = element,
                None => all = false,
            }
        }
    }
    all
}
