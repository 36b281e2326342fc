//! Pools of worker processes, which are processes of Python's `multiprocessing`.
//!
//! The crate's foreign pool carries the calls, and its owned rounds the tiles. `ndshm._pool` starts
//! the processes and pickles functions. A call that runs tiles is 48 bytes, see [`Run`].

mod parent;
mod slot;
mod tiles;
mod worker;

use pyo3::prelude::*;

use self::parent::PoolParent;
use self::tiles::Tiles;
use self::worker::PoolWorker;

/// The number of a call that runs tiles. Calls with other numbers are Python's.
const RUN: u64 = 1;

/// Each tile is run by the same worker in each call.
const STATIC: u64 = 1;
/// The worker tells the parent of each tile.
const EACH: u64 = 2;

/// A call that runs the tiles of a round.
#[derive(Clone, Copy)]
struct Run {
    /// The kernel and its arguments, by the number under which the workers have loaded them.
    key: u64,
    partition: u64,
    round: u64,
    seed: u64,
    /// The number of the call, for random streams.
    call: u64,
    flags: u64,
}

impl Run {
    const WORDS: usize = 6;

    fn to_bytes(self) -> [u8; 8 * Run::WORDS] {
        let words = [
            self.key,
            self.partition,
            self.round,
            self.seed,
            self.call,
            self.flags,
        ];
        let mut bytes = [0; 8 * Run::WORDS];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Option<Run> {
        let (chunks, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let words: [u64; Run::WORDS] = chunks
            .iter()
            .map(|chunk| u64::from_le_bytes(*chunk))
            .collect::<Vec<_>>()
            .try_into()
            .ok()?;
        let [key, partition, round, seed, call, flags] = words;
        Some(Run {
            key,
            partition,
            round,
            seed,
            call,
            flags,
        })
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PoolParent>()?;
    module.add_class::<PoolWorker>()?;
    module.add_class::<Tiles>()
}
