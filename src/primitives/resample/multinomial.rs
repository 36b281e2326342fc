//! Multinomial resampling from sorted uniform numbers.

use bytemuck::{Pod, Zeroable};
use ndarray::{ArrayView1, Ix1};
use rand_core::Rng;

use super::{by_tiles, cumulate};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext, TileRng};
use crate::primitives::error::PrimitiveError;
use crate::primitives::flat::FlatWrite;
use crate::primitives::lanes::{running, sum_by};
use crate::primitives::weights::{Sums, starts_of};
use crate::primitives::{Real, TILE};

/// Separates these streams from those of kernels, which have a small number in this place.
const PURPOSE: u64 = u64::from_le_bytes(*b"multinom");

/// The key of a call's random numbers.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Draws {
    seed: u64,
    stream: u64,
}

impl Draws {
    /// Returns the generator of a tile: ChaCha with 8 rounds, keyed by `seed` and `stream`, on the
    /// tile's own stream.
    fn of_tile(&self, tile: usize) -> TileRng {
        TileRng::keyed([self.seed, self.stream, PURPOSE, 0], tile as u64)
    }
}

/// Draws an exponentially distributed number of mean 1: minus the logarithm of a uniform number in
/// (0, 1].
#[inline]
fn exponential(rng: &mut TileRng) -> f64 {
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 * (-53f64).exp2();
    -uniform.ln()
}

impl Pool<'_> {
    /// Writes the parent particle of each offspring to `ancestors`, by multinomial resampling. Each
    /// one is drawn by weight, independently of the others; then they are sorted.
    ///
    /// The uniform numbers are sorted by construction: the partial sums of `n + 1` exponentially
    /// distributed spacings, divided by their total, are `n` uniform numbers in order (L. Devroye,
    /// "Non-Uniform Random Variate Generation", Springer 1986, chapter V). Each tile of 4032
    /// ancestors draws its spacings from a stream of its own, which depends on `seed`, `stream` and
    /// the tile. Calls that differ in one of the two numbers draw independent ancestors. Calls with
    /// the same numbers draw the same ancestors with any number of workers. For example, use the
    /// time step as `stream`. [`resample_systematic`](Pool::resample_systematic) has less variance,
    /// and is faster.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let weights = table.from_array(&array![1.0f32, 0.0, 3.0])?;
    /// let ancestors = table.zeros(100_000)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.resample_multinomial(weights, 7, 0, ancestors)?;
    ///
    /// let ancestors = table.read(ancestors)?;
    /// let first = ancestors.iter().filter(|&&ancestor| ancestor == 0).count();
    /// assert!((24_000..26_000).contains(&first));
    /// assert!(!ancestors.iter().any(|&ancestor| ancestor == 1));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::Weight`] if a weight is negative, infinite or NaN.
    /// - [`PrimitiveError::NoWeight`] if all weights are 0, or there are none.
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn resample_multinomial<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        seed: u64,
        stream: u64,
        ancestors: Handle<u64, Ix1>,
    ) -> Result<(), PrimitiveError> {
        self.table().attach(ancestors)?;
        let draws = Draws { seed, stream };
        match self.sums_of_weights(weights)? {
            Sums::Plain(starts) => self.multinomial_of(weights, starts, draws, ancestors),
            Sums::Scaled { copy, starts, .. } => {
                self.multinomial_of(copy.handle(), starts, draws, ancestors)
            }
        }
    }

    /// Resamples `weights`. `starts` are their [sums](Pool::sums_of_weights).
    fn multinomial_of<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        starts: Vec<f64>,
        draws: Draws,
        ancestors: Handle<u64, Ix1>,
    ) -> Result<(), PrimitiveError> {
        let total = starts.last().copied().unwrap_or(0.0);
        let tiles = self.tiles(FlatWrite::new(ancestors))?;
        let spacings = starts_of(&self.map_collect(&tiles, &draws, draw)?);
        // The spacing after the last position comes from the stream after that of the last tile.
        let after = exponential(&mut draws.of_tile(tiles.tiles()));
        let whole = spacings.last().copied().unwrap_or(0.0) + after;
        drop(tiles);

        let (starts, spacings) = (self.working(&starts)?, self.working(&spacings)?);
        let group = (
            weights.whole(),
            starts.handle().whole(),
            spacings.handle().whole(),
            FlatWrite::new(ancestors),
        );
        let tiles = self.tiles(group)?;
        let scale = [total / whole, total.next_down()];
        Ok(self.for_each(&tiles, &scale, multinomial::<T>)?)
    }
}

/// Writes the bits of a spacing to the place of each ancestor. Returns the sum of the spacings.
fn draw(ancestors: &mut [u64], draws: &Draws, tile: &TileContext) -> f64 {
    let mut rng = draws.of_tile(tile.index());
    for place in &mut *ancestors {
        *place = exponential(&mut rng).to_bits();
    }
    sum_by(ancestors, f64::from_bits)
}

fn multinomial<T: Real>(
    (weights, starts, spacings, ancestors): (
        ArrayView1<'_, T>,
        ArrayView1<'_, f64>,
        ArrayView1<'_, f64>,
        &mut [u64],
    ),
    &[scale, below_total]: &[f64; 2],
    tile: &TileContext,
) {
    let (Some(weights), Some(starts)) = (weights.as_slice(), starts.as_slice()) else {
        // Unreachable: one-dimensional arrays are contiguous.
        return;
    };
    let (mut own, mut positions) = ([0.0; TILE], [0.0; TILE]);
    let length = ancestors.len().min(TILE);
    let (own, positions) = (&mut own[..length], &mut positions[..length]);
    for (spacing, bits) in own.iter_mut().zip(&*ancestors) {
        *spacing = f64::from_bits(*bits);
    }
    let start = spacings.get(tile.index()).copied().unwrap_or(0.0);
    running(own, start, positions);
    for position in &mut *positions {
        *position = (*position * scale).min(below_total);
    }
    let below = |cumulative: f64| positions.partition_point(|&position| position < cumulative);
    let descend = |cumulative: &[f64], done: usize, ancestors: &mut [u64], particle: u64| {
        walk(cumulative, &positions[done..], ancestors, particle);
    };
    let sums_of = cumulate(weights, starts);
    by_tiles(starts, ancestors, below, sums_of, descend);
}

/// Writes the first particle with a cumulative weight above each position, or the last particle.
/// The first particle has the number `first`.
fn walk(cumulative: &[f64], positions: &[f64], ancestors: &mut [u64], first: u64) {
    let last = cumulative.len() - 1;
    let mut particle = 0;
    for (ancestor, &position) in ancestors.iter_mut().zip(positions) {
        while particle < last && cumulative[particle] <= position {
            particle += 1;
        }
        *ancestor = first + particle as u64;
    }
}
