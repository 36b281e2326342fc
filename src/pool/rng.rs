//! The random streams of tiles and workers.

use core::convert::Infallible;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng, TryRng};

/// The generator of [`TileContext::rng`](super::TileContext::rng) and
/// [`WorkerContext::rng`](super::WorkerContext::rng).
///
/// ChaCha with 8 rounds, a counter-based generator. Its key consists of the pool's
/// [seed](super::Pool::seed), the number of the call, the step within the call, and the run of the
/// tile. The stream is the tile's index.
///
/// ```
/// use ndarray::{Array1, Axis};
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndshm::pool::TileRng;
/// use ndshm::rand_core::Rng;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<u64, _>(4)?;
/// let tiles = table.partition(x.write(), Axis(0), 1)?;
/// let mut pool = Pool::threads(&table, 2)?;
/// pool.for_each(&tiles, &(), |mut x, (), tile| x[0] = tile.rng().next_u64())?;
///
/// // The same numbers, without the pool: its first call, tile by tile.
/// let reference = Array1::from_shape_fn(4, |tile| {
///     TileRng::at(pool.seed(), 1, tile).next_u64()
/// });
/// assert_eq!(*table.read(x)?, reference);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileRng(ChaCha8Rng);

impl TileRng {
    /// Returns the generator of a tile in a call of [`Pool::for_each`](super::Pool::for_each) and
    /// similar calls. `call` is the number of the call, from 1, as in
    /// [`TileContext::call`](super::TileContext::call).
    ///
    /// A round without a pool can have any number in the place of `call`, such as the time step.
    /// Where several machines have parts of one array, let `tile` count the tiles of the whole
    /// array: then the numbers do not depend on the number of machines. A pool's kernel on such a
    /// part uses [`TileContext::rng_after`](super::TileContext::rng_after).
    ///
    /// [`TileRng`] has an example.
    pub fn at(seed: u64, call: u64, tile: usize) -> TileRng {
        TileRng::at_step(seed, call, 0, 0, tile)
    }

    /// Returns the generator of a tile at a [step](super::TileContext::step) of a call of
    /// [`Pool::run`](super::Pool::run), or in a later [run](super::TileContext::run) of the tile in
    /// a call of [`Pool::start`](super::Pool::start). `step` and `run` are 0 where there is only
    /// one.
    ///
    /// ```
    /// use ndshm::pool::TileRng;
    ///
    /// // A call with one round and one run of each tile.
    /// assert_eq!(TileRng::at_step(42, 1, 0, 0, 3), TileRng::at(42, 1, 3));
    /// ```
    pub fn at_step(seed: u64, call: u64, step: u64, run: u64, tile: usize) -> TileRng {
        TileRng::keyed([seed, call, step, run], tile as u64)
    }

    /// Returns the generator of a worker in a call.
    pub(super) fn of_worker(seed: u64, call: u64, worker: usize) -> TileRng {
        // Count from the top: the streams of tiles count from 0.
        TileRng::keyed([seed, call, 0, 0], u64::MAX - worker as u64)
    }

    /// Returns the generator with a key of four words.
    pub(crate) fn keyed(words: [u64; 4], stream: u64) -> TileRng {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = TileRng::from_seed(key);
        rng.set_stream(stream);
        rng
    }

    /// Selects one of the 2^64 streams of the key. Keeps the position within the stream.
    ///
    /// ```
    /// use ndshm::pool::TileRng;
    ///
    /// let mut rng = TileRng::at(42, 1, 0);
    /// rng.set_stream(3);                                   // the stream of tile 3
    /// assert_eq!(rng, TileRng::at(42, 1, 3));
    /// ```
    pub fn set_stream(&mut self, stream: u64) {
        self.0.set_stream(stream);
    }
}

impl TryRng for TileRng {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    #[inline]
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl SeedableRng for TileRng {
    type Seed = [u8; 32];

    fn from_seed(seed: [u8; 32]) -> TileRng {
        TileRng(ChaCha8Rng::from_seed(seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coordinate_gives_other_numbers() {
        let mut all = [
            TileRng::at(0, 0, 0),
            TileRng::at(1, 0, 0),
            TileRng::at(0, 1, 0),
            TileRng::at(0, 0, 1),
            TileRng::at_step(0, 0, 1, 0, 0),
            TileRng::at_step(0, 0, 0, 1, 0),
            TileRng::of_worker(0, 0, 0),
            TileRng::of_worker(0, 0, 1),
        ];
        let drawn: std::collections::HashSet<u64> = all.iter_mut().map(Rng::next_u64).collect();
        assert_eq!(drawn.len(), all.len());
    }
}
