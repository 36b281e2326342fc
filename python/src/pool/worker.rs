//! A worker's side of a pool.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ndshm::error::{PartitionError, PoolError};
use ndshm::partition::{Claimed, Entered, OwnedMember, OwnedPartition, TileToken, UntypedGroup};
use ndshm::pool::foreign::{ForeignHandle, ForeignWorker};
use ndshm::{PartitionHandle, SharedTable};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySlice, PyTuple};

use super::slot::Slot;
use super::{EACH, Run, STATIC};
use crate::error::raise;
use crate::found::name;
use crate::table::Table;

/// The time after which a wait looks for signals of this process.
const SLICE: Duration = Duration::from_millis(100);

/// The number of partitions that stay open.
const PARTITIONS: usize = 8;

/// A worker of a pool, in its process.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct PoolWorker {
    state: Slot<State>,
}

struct State {
    worker: ForeignWorker<SharedTable>,
    table: SharedTable,
    /// While a worker has the table, the process does not leave it.
    _in_use: Arc<SharedTable>,
    /// The partitions of the last calls, the latest last.
    partitions: Vec<(u64, OwnedPartition)>,
    work: Option<Work>,
}

/// The worker's part in a round.
struct Work {
    member: OwnedMember,
    /// Tiles of the worker's own range that it has not tried.
    own: Range<usize>,
    flags: u64,
}

/// Returns a row for a slice. Tiles begin and end below the limit.
fn as_index(row: usize) -> isize {
    isize::try_from(row).unwrap_or(isize::MAX)
}

impl State {
    /// Opens a partition, or finds it open. Returns `None` if it was freed.
    fn partition(&mut self, handle: u64) -> Result<Option<&mut OwnedPartition>, PartitionError> {
        let at = self.partitions.iter().position(|(bits, _)| *bits == handle);
        let opened = match at {
            Some(at) => self.partitions.remove(at),
            None => {
                let name = PartitionHandle::<UntypedGroup>::from_bits(handle);
                match self.table.open_untyped(name) {
                    Ok(partition) => (handle, partition),
                    Err(PartitionError::Freed { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        if self.partitions.len() == PARTITIONS {
            drop(self.partitions.remove(0));
        }
        self.partitions.push(opened);
        Ok(self.partitions.last_mut().map(|(_, partition)| partition))
    }

    fn enter(&mut self, run: Run) -> Result<bool, ndshm::Error> {
        self.work = None;
        let (worker, places) = (self.worker.worker(), self.worker.places());
        let table = self.table.clone();
        let Some(partition) = self.partition(run.partition)? else {
            return Ok(false);
        };
        let tiles = partition.tiles();
        let after = run.round.saturating_sub(1);
        let Entered::Member(member) = partition.enter_next(&table, after, Duration::ZERO)? else {
            return Ok(false);
        };
        if member.round() != run.round {
            member.leave(&table)?;
            return Ok(false);
        }
        let bound = |worker: usize| (tiles as u128 * worker as u128 / places as u128) as usize;
        self.work = Some(Work {
            member,
            own: bound(worker)..bound(worker + 1),
            flags: run.flags,
        });
        Ok(true)
    }

    /// Releases the tile that is out, and claims the next. Leaves the round if there is none.
    fn step(&mut self) -> Result<Option<usize>, ndshm::Error> {
        let Some(work) = &mut self.work else {
            return Ok(None);
        };
        let table = &self.table;
        if let Some(token) = work.member.out() {
            work.member.done(table, token)?;
            if work.flags & EACH != 0 {
                self.worker.notify()?;
            }
            self.worker.count_tiles(1, 0);
        }
        if self.worker.is_wanted() {
            for tile in work.own.by_ref() {
                if let Claimed::Tile(token) = work.member.claim_at(table, tile)? {
                    return Ok(Some(token.tile()));
                }
            }
            if work.flags & STATIC == 0
                && let Some(token) = work.member.claim(table)?
            {
                return Ok(Some(token.tile()));
            }
        }
        self.leave()?;
        Ok(None)
    }

    fn leave(&mut self) -> Result<(), ndshm::Error> {
        if let Some(work) = self.work.take() {
            work.member.leave(&self.table)?;
        }
        Ok(())
    }
}

#[pymethods]
impl PoolWorker {
    /// Take a place in a pool. Return None if the pool has ended.
    #[staticmethod]
    fn attach(
        py: Python<'_>,
        table: &Bound<'_, Table>,
        handle: u64,
        worker: usize,
        timeout: f64,
    ) -> PyResult<Option<PoolWorker>> {
        let in_use = table.get().joined.table()?;
        let table = SharedTable::clone(&in_use);
        let handle = ForeignHandle::from_bits(handle);
        let timeout = Duration::from_secs_f64(timeout.clamp(0.0, 1e6));
        let attach = || ForeignWorker::attach(table.clone(), handle, Some(worker), timeout);
        let worker = match py.detach(attach) {
            Err(PoolError::Gone) => return Ok(None),
            outcome => outcome.map_err(raise)?,
        };
        Ok(Some(PoolWorker {
            state: Slot::new(State {
                worker,
                table,
                _in_use: in_use,
                partitions: Vec::new(),
                work: None,
            }),
        }))
    }

    /// Wait for a call. Return its number and its bytes, or None if the pool has ended.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<(u64, Bound<'py, PyBytes>)>> {
        let mut state = self.state.take()?;
        loop {
            let worker = &mut state.worker;
            match py.detach(|| worker.next(SLICE)) {
                Ok(Some(call)) => {
                    let bytes = PyBytes::new(py, &call.bytes);
                    return Ok(Some((call.number, bytes)));
                }
                Ok(None) => py.check_signals()?,
                Err(PoolError::Gone) => return Ok(None),
                Err(error) => return Err(raise(error)),
            }
        }
    }

    /// Enter the round of a call. Return the key of the kernel, the seed and the number of the call;
    /// or None if there is nothing to do.
    fn enter(&self, bytes: &[u8]) -> PyResult<Option<(u64, u64, u64)>> {
        let Some(run) = Run::of_bytes(bytes) else {
            return Err(PyValueError::new_err("the call runs no tiles"));
        };
        let entered = self.state.take()?.enter(run).map_err(raise)?;
        Ok(entered.then_some((run.key, run.seed, run.call)))
    }

    /// Release the tile that is out as finished, and claim the next. Return None if no tile is left:
    /// then the round is left.
    fn step(&self) -> PyResult<Option<usize>> {
        self.state.take()?.step().map_err(raise)
    }

    /// Run the tiles of the round that was entered until none is left: call `function` with `length`
    /// rows of each array, or with a view of all of it, and with `args`. Stop in a process that the
    /// function has forked, which puts something into `forked`.
    ///
    /// The tile in which the function has raised an exception is out.
    fn run(
        &self,
        function: &Bound<'_, PyAny>,
        arrays: &Bound<'_, PyList>,
        length: usize,
        args: &Bound<'_, PyTuple>,
        forked: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        let py = function.py();
        while let Some(tile) = self.step()? {
            let start = tile.saturating_mul(length);
            let rows = PySlice::new(
                py,
                as_index(start),
                as_index(start.saturating_add(length)),
                1,
            );
            let parts = arrays.iter().map(|array| {
                let (array, is_whole): (Bound<'_, PyAny>, bool) = array.extract()?;
                match is_whole {
                    true => array.call_method0(name!(py, "view")),
                    false => array.get_item(&rows),
                }
            });
            let given = args.iter().map(Ok);
            let all = parts.chain(given).collect::<PyResult<Vec<_>>>()?;
            function.call1(PyTuple::new(py, all)?)?;
            if !forked.is_empty() {
                break;
            }
            // The function may be one of numpy, without a line of Python between two tiles.
            py.check_signals()?;
        }
        Ok(())
    }

    /// Leave the round. The tile that is out is torn, and is returned.
    fn leave(&self) -> PyResult<Option<usize>> {
        let mut state = self.state.take()?;
        let out = state.work.as_ref().and_then(|work| work.member.out());
        state.leave().map_err(raise)?;
        Ok(out.map(TileToken::tile))
    }

    /// Answer the call.
    fn finish(&self, bytes: &[u8]) -> PyResult<()> {
        self.state.take()?.worker.finish(bytes).map_err(raise)
    }

    /// Answer the call with a failure.
    fn fail(&self, bytes: &[u8]) -> PyResult<()> {
        self.state.take()?.worker.fail(bytes).map_err(raise)
    }

    /// Leave the pool.
    fn close(&self) {
        drop(self.state.remove());
    }
}
