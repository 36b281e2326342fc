//! The parent's side of a pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndshm::SharedTable;
use ndshm::error::RoundError;
use ndshm::partition::{OwnedRound, TileState};
use ndshm::pool::foreign::{Answer, ForeignPool, WorkerAnswer};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::slot::{Slot, Taken};
use super::tiles::Tiles;
use super::{EACH, RUN, Run, STATIC};
use crate::error::raise;
use crate::kept;
use crate::segment::Joined;
use crate::table::Table;

/// The time after which a wait looks for signals of this process.
const SLICE: Duration = Duration::from_millis(40);

/// The parent of worker processes that Python starts.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct PoolParent {
    joined: Arc<Joined>,
    state: Slot<State>,
}

struct State {
    pool: ForeignPool<SharedTable>,
    /// While a pool has the table, the process does not leave it.
    table: Arc<SharedTable>,
    /// A call is open.
    is_open: bool,
    /// The round of the open call, and the tiles that were handed out and not sent back.
    round: Option<OpenRound>,
}

struct OpenRound {
    round: OwnedRound,
    resting: Vec<bool>,
}

/// An answer for Python: worker, pid, its kind, its bytes.
type PyAnswer<'py> = (usize, u32, &'static str, Bound<'py, PyBytes>);

/// The end of a call: its answers, the torn tiles, the tiles that were not run.
type Outcome = (Vec<WorkerAnswer>, Vec<usize>, Vec<usize>);

/// The end of a call for Python: its answers, the torn tiles, the tiles that were not run.
type Ended<'py> = (Bound<'py, PyList>, Vec<usize>, Vec<usize>);

fn to_python<'py>(py: Python<'py>, answer: &WorkerAnswer) -> PyAnswer<'py> {
    let (kind, bytes): (_, &[u8]) = match &answer.outcome {
        Answer::Finished(bytes) => ("finished", bytes),
        Answer::Failed(bytes) => ("failed", bytes),
        Answer::Died => ("died", &[]),
        Answer::Left => ("left", &[]),
        Answer::Running => ("running", &[]),
        _ => ("lost", &[]),
    };
    (answer.worker, answer.pid, kind, PyBytes::new(py, bytes))
}

impl State {
    /// Ends the open call and its round. Returns its answers, and the torn and the missing tiles.
    fn end(&mut self) -> Result<Outcome, ndshm::Error> {
        self.is_open = false;
        let answers = self.pool.end();
        let Some(OpenRound { mut round, resting }) = self.round.take() else {
            return Ok((answers?, Vec::new(), Vec::new()));
        };
        let (mut torn, mut missing) = (Vec::new(), Vec::new());
        match round.try_finish(&*self.table) {
            Ok(true) => {}
            Ok(false) => {
                for tile in 0..resting.len() {
                    match round.tile(tile) {
                        Some(TileState::Torn) => torn.push(tile),
                        Some(TileState::Done) => {}
                        _ => missing.push(tile),
                    }
                }
                round.give_up(&*self.table)?;
            }
            Err(RoundError::Torn { tiles, .. }) => torn = tiles,
            Err(error) => return Err(error.into()),
        }
        Ok((answers?, torn, missing))
    }

    fn begin(&mut self, tiles: &Tiles, run: Run) -> PyResult<()> {
        let mut partition = tiles.partition.take()?;
        let round = partition.begin(&*self.table).map_err(raise)?;
        let run = Run {
            partition: tiles.handle,
            round: round.number(),
            ..run
        };
        if let Err(error) = self.pool.call(RUN, &run.to_bytes()) {
            // The first error is reported.
            let _ = round.give_up(&*self.table);
            return Err(raise(error));
        }
        self.is_open = true;
        self.round = Some(OpenRound {
            round,
            resting: vec![false; tiles.count],
        });
        Ok(())
    }

    /// Waits until the open call is over, or for `timeout`. Looks for signals.
    fn wait(&mut self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
        let start = Instant::now();
        loop {
            let left = timeout.map_or(SLICE, |timeout| timeout.saturating_sub(start.elapsed()));
            let pool = &mut self.pool;
            let over = py.detach(|| pool.wait(left.min(SLICE))).map_err(raise)?;
            if over {
                return Ok(true);
            }
            py.check_signals()?;
            if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
                return Ok(false);
            }
        }
    }
}

impl PoolParent {
    fn closed_state(&self) -> PyResult<Taken<'_, State>> {
        let state = self.state.take()?;
        match state.is_open {
            false => Ok(state),
            true => Err(PyRuntimeError::new_err(
                "a call of the pool is running: finish() it first",
            )),
        }
    }
}

/// Returns the duration of a number of seconds, which may be None.
fn seconds(timeout: Option<f64>) -> Option<Duration> {
    let longest = 1e9;
    timeout.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, longest)))
}

#[pymethods]
impl PoolParent {
    #[new]
    fn new(table: &Bound<'_, Table>, workers: usize) -> PyResult<PoolParent> {
        table.get().check_writeable()?;
        let joined = Arc::clone(&table.get().joined);
        let table = joined.table()?;
        kept::made(&joined);
        let pool = ForeignPool::new(SharedTable::clone(&table), workers).map_err(raise)?;
        Ok(PoolParent {
            joined,
            state: Slot::new(State {
                pool,
                table,
                is_open: false,
                round: None,
            }),
        })
    }

    /// Return the number by which workers attach.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.state.take()?.pool.handle().to_bits())
    }

    /// Return whether a call is open.
    #[getter]
    fn is_open(&self) -> PyResult<bool> {
        Ok(self.state.take()?.is_open)
    }

    /// Wait until that many workers are attached.
    fn wait_for_workers(&self, py: Python<'_>, count: usize, timeout: f64) -> PyResult<bool> {
        let mut state = self.state.take()?;
        let timeout = seconds(Some(timeout)).unwrap_or_default();
        let pool = &mut state.pool;
        py.detach(|| pool.wait_for_workers(count, timeout))
            .map_err(raise)
    }

    /// Call all workers, wait, and return their answers.
    fn call<'py>(&self, py: Python<'py>, number: u64, bytes: &[u8]) -> PyResult<Ended<'py>> {
        let mut state = self.closed_state()?;
        state.pool.call(number, bytes).map_err(raise)?;
        state.is_open = true;
        state.wait(py, None)?;
        ended(py, state.end())
    }

    /// Run all tiles, and wait. Return None if all is well and no worker has left a result.
    fn run<'py>(
        &self,
        py: Python<'py>,
        tiles: &Bound<'py, Tiles>,
        key: u64,
        seed: u64,
        call: u64,
        is_static: bool,
    ) -> PyResult<Option<Ended<'py>>> {
        let mut state = self.closed_state()?;
        state.begin(tiles.get(), run(key, seed, call, is_static, false))?;
        state.wait(py, None)?;
        let outcome = state.end();
        if let Ok((answers, torn, missing)) = &outcome {
            let is_plain = |answer: &WorkerAnswer| match &answer.outcome {
                Answer::Finished(bytes) => bytes.is_empty(),
                _ => false,
            };
            if torn.is_empty() && missing.is_empty() && answers.iter().all(is_plain) {
                return Ok(None);
            }
        }
        ended(py, outcome).map(Some)
    }

    /// Begin to run all tiles.
    fn begin(
        &self,
        tiles: &Bound<'_, Tiles>,
        key: u64,
        seed: u64,
        call: u64,
        is_static: bool,
        each: bool,
    ) -> PyResult<()> {
        let mut state = self.closed_state()?;
        state.begin(tiles.get(), run(key, seed, call, is_static, each))
    }

    /// Wait until the open call is over.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.state.take()?.wait(py, seconds(timeout))
    }

    /// Return the number of tiles of the open call that were run.
    fn done(&self) -> PyResult<usize> {
        let state = self.state.take()?;
        let round = state.round.as_ref();
        Ok(round.map_or(0, |OpenRound { round, resting }| {
            let done = |&tile: &usize| round.tile(tile) == Some(TileState::Done);
            (0..resting.len()).filter(done).count()
        }))
    }

    /// Wait until that many tiles are ready, or all that the workers have, or for `timeout`. Hand out
    /// the ready tiles, each once. Return None if a worker has failed or died.
    #[pyo3(signature = (count, timeout = None))]
    fn wait_any(
        &self,
        py: Python<'_>,
        count: usize,
        timeout: Option<f64>,
    ) -> PyResult<Option<Vec<usize>>> {
        let (start, timeout) = (Instant::now(), seconds(timeout));
        let mut state = self.state.take()?;
        let State { pool, round, .. } = &mut *state;
        let Some(OpenRound { round, resting }) = round else {
            return Ok(Some(Vec::new()));
        };
        let wanted = count.min(resting.iter().filter(|rests| !**rests).count());
        let look = || {
            let (mut ready, mut has_torn) = (0, false);
            for (tile, rests) in resting.iter().enumerate() {
                match round.tile(tile) {
                    Some(TileState::Done) if !rests => ready += 1,
                    Some(TileState::Torn) | None => has_torn = true,
                    _ => {}
                }
            }
            (ready, has_torn)
        };
        let deaths = pool.deaths();
        let is_ready = loop {
            let left = timeout.map_or(SLICE, |timeout| timeout.saturating_sub(start.elapsed()));
            let is_over = py
                .detach(|| {
                    pool.wait_until(left.min(SLICE), || {
                        let (ready, has_torn) = look();
                        ready >= wanted || has_torn
                    })
                })
                .map_err(raise)?;
            let (ready, has_torn) = look();
            if has_torn || pool.deaths() != deaths {
                break false;
            }
            if ready >= wanted {
                break true;
            }
            // All workers have answered, and left tiles undone.
            if is_over {
                break false;
            }
            py.check_signals()?;
            if left.is_zero() {
                break true;
            }
        };
        if !is_ready {
            return Ok(None);
        }
        let mut ready = Vec::new();
        for (tile, rests) in resting.iter_mut().enumerate() {
            if !*rests && round.tile(tile) == Some(TileState::Done) {
                *rests = true;
                ready.push(tile);
            }
        }
        Ok(Some(ready))
    }

    /// Send tiles back that were handed out.
    fn again(&self, tiles: Vec<usize>) -> PyResult<()> {
        let mut state = self.state.take()?;
        let State {
            pool, round, table, ..
        } = &mut *state;
        let Some(OpenRound { round, resting }) = round else {
            return Err(PyRuntimeError::new_err("the call is over: start another"));
        };
        if let Some(tile) = tiles.iter().find(|tile| resting.get(**tile) != Some(&true)) {
            return Err(PyValueError::new_err(format!(
                "tile {tile} was not handed out by wait_any, or was sent back before"
            )));
        }
        for &tile in &tiles {
            resting[tile] = false;
        }
        round.again(&**table, tiles).map_err(raise)?;
        pool.announce().map_err(raise)
    }

    /// Cancel the open call, and wait until the workers have left it. Return False after `timeout`.
    fn cancel(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let mut state = self.state.take()?;
        let (start, timeout) = (Instant::now(), seconds(Some(timeout)).unwrap_or_default());
        let pool = &mut state.pool;
        pool.cancel().map_err(raise)?;
        py.detach(|| {
            loop {
                let left = timeout.saturating_sub(start.elapsed());
                if pool.wait(left.min(SLICE))? {
                    return Ok(true);
                }
                if left.is_zero() {
                    return Ok(false);
                }
            }
        })
        .map_err(|error: ndshm::error::PoolError| raise(error))
    }

    /// End the open call.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Ended<'py>> {
        ended(py, self.state.take()?.end())
    }

    /// Tell the workers to end.
    fn close(&self) {
        drop(self.state.remove());
    }

    fn __repr__(&self) -> String {
        format!("<parent of a pool in table {:016x}>", self.joined.id())
    }
}

fn run(key: u64, seed: u64, call: u64, is_static: bool, each: bool) -> Run {
    let flag = |is_on, flag| if is_on { flag } else { 0 };
    Run {
        key,
        partition: 0,
        round: 0,
        seed,
        call,
        flags: flag(is_static, STATIC) | flag(each, EACH),
    }
}

fn ended<'py>(py: Python<'py>, outcome: Result<Outcome, ndshm::Error>) -> PyResult<Ended<'py>> {
    let (answers, torn, missing) = outcome.map_err(raise)?;
    let answers = answers.iter().map(|answer| to_python(py, answer));
    Ok((PyList::new(py, answers.collect::<Vec<_>>())?, torn, missing))
}
