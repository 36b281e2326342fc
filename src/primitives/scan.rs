//! Prefix sums: the sums of all tiles first, then each tile starting from the sum of the tiles
//! before it.
//!
//! The two passes of a blocked scan: G. E. Blelloch, "Prefix sums and their applications",
//! CMU-CS-90-190, 1990, section 1.

use ndarray::{ArrayView1, Ix1};

use super::flat::{FlatRead, FlatWrite};
use super::{Number, TILE, same_shape};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

impl Pool<'_> {
    /// Writes `src[0] + … + src[i]` to `dst[i]`. `dst` may be `src`.
    ///
    /// Sums of integers are exact or an error. Sums of floats are computed in `f64`, in an order
    /// that depends only on the length: the array in tiles of 4032, and a tile in 8 lanes, where
    /// element `i` belongs to lane `i % 8`. Each lane is summed from its first element on; the sum
    /// of a tile is `((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))`; and tiles are added one
    /// after the other. `dst[i]` has the bits of [`sum`](Pool::sum) for an array of the elements up
    /// to `i`, so the last one is the sum of all. Sums of non-negative numbers never decrease, which
    /// makes them searchable.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let counts = table.from_array(&array![3u32, 0, 1, 4])?;
    /// let ends = table.zeros(4)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    ///
    /// pool.prefix_sum(counts, ends)?;
    /// assert_eq!(*table.read(ends)?, array![3, 3, 4, 8]);
    /// pool.prefix_sum_exclusive(counts, counts)?;
    /// assert_eq!(*table.read(counts)?, array![0, 3, 3, 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::Overflow`] if a sum of integers does not fit their type; `dst` is
    ///   unchanged.
    /// - [`PrimitiveError::Shapes`] if the shapes differ.
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn prefix_sum<T: Number>(
        &mut self,
        src: Handle<T, Ix1>,
        dst: Handle<T, Ix1>,
    ) -> Result<(), PrimitiveError> {
        self.scan("prefix_sum", src, dst, true)
    }

    /// Writes `src[0] + … + src[i - 1]` to `dst[i]`, and 0 to `dst[0]`: the result of
    /// [`prefix_sum`](Pool::prefix_sum), shifted by one place. `dst` may be `src`.
    ///
    /// [`prefix_sum`](Pool::prefix_sum) has an example.
    ///
    /// # Errors
    /// Same as [`prefix_sum`](Pool::prefix_sum). The sum of all elements must fit as well, although
    /// it is not written.
    pub fn prefix_sum_exclusive<T: Number>(
        &mut self,
        src: Handle<T, Ix1>,
        dst: Handle<T, Ix1>,
    ) -> Result<(), PrimitiveError> {
        self.scan("prefix_sum_exclusive", src, dst, false)
    }

    fn scan<T: Number>(
        &mut self,
        operation: &'static str,
        src: Handle<T, Ix1>,
        dst: Handle<T, Ix1>,
        inclusive: bool,
    ) -> Result<(), PrimitiveError> {
        same_shape(self.table(), operation, dst, src)?;
        let (starts, overflow) = self.starts_of_tiles(src)?;
        if let Some(tile) = overflow {
            return Err(PrimitiveError::Overflow {
                operation,
                handle: src.into(),
                position: self.first_overflow(src, tile, starts[tile])?,
                dtype: T::NAME,
            });
        }
        let starts = self.working(&starts)?;
        let starts = starts.handle().whole();
        let inclusive = u32::from(inclusive);
        if src == dst {
            let tiles = self.tiles((starts, FlatWrite::new(dst)))?;
            return Ok(self.for_each(&tiles, &inclusive, run_in_place)?);
        }
        let tiles = self.tiles((starts, FlatRead::new(src), FlatWrite::new(dst)))?;
        Ok(self.for_each(&tiles, &inclusive, run)?)
    }

    /// Returns the sum of the tiles before each tile, followed by the sum of all. Also returns the
    /// first tile with a sum that does not fit the type of the elements.
    fn starts_of_tiles<T: Number>(
        &mut self,
        src: Handle<T, Ix1>,
    ) -> Result<(Vec<T::Wide>, Option<usize>), PrimitiveError> {
        let tiles = self.tiles(FlatRead::new(src))?;
        let parts = self.map_collect(&tiles, &(), sums_of_tile::<T>)?;
        let mut starts = Vec::with_capacity(parts.len() + 1);
        let mut overflow = None;
        let mut start = T::ZERO;
        for (tile, [sum, least, greatest]) in parts.into_iter().enumerate() {
            starts.push(start);
            let fits = [least, greatest].map(|sum| T::fits(T::add(start, sum)));
            if fits != [true; 2] && overflow.is_none() {
                overflow = Some(tile);
            }
            start = T::add(start, sum);
        }
        starts.push(start);
        Ok((starts, overflow))
    }

    /// Returns the first position of a tile at which the sum no longer fits.
    fn first_overflow<T: Number>(
        &self,
        src: Handle<T, Ix1>,
        tile: usize,
        start: T::Wide,
    ) -> Result<Option<usize>, PrimitiveError> {
        let src = self.table().read(src)?;
        let mut sum = start;
        let after = src.iter().enumerate().skip(tile * TILE);
        let position = after.into_iter().find_map(|(at, &x)| {
            sum = T::add(sum, T::sum_of(&[x]));
            (!T::fits(sum)).then_some(at)
        });
        Ok(position)
    }
}

fn sums_of_tile<T: Number>(tile: &[T], _: &(), _: &TileContext) -> [T::Wide; 3] {
    let [least, greatest] = T::extremes(tile);
    [T::sum_of(tile), least, greatest]
}

fn run<T: Number>(
    (starts, src, dst): (ArrayView1<'_, T::Wide>, &[T], &mut [T]),
    &inclusive: &u32,
    tile: &TileContext,
) {
    if let Some(&start) = starts.get(tile.index()) {
        T::run_to(src, start, inclusive != 0, dst);
    }
}

fn run_in_place<T: Number>(
    (starts, dst): (ArrayView1<'_, T::Wide>, &mut [T]),
    &inclusive: &u32,
    tile: &TileContext,
) {
    if let Some(&start) = starts.get(tile.index()) {
        T::run(dst, start, inclusive != 0);
    }
}
