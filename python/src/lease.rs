//! Leases as context managers.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ndshm::AnyHandle;
use ndshm::error::LeaseError;
use ndshm::untyped::{Locked, Mode};
use numpy::PyUntypedArray;
use numpy::npyffi::NPY_ARRAY_WRITEABLE;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{fields, pin_of};
use crate::error::{self, raise};
use crate::found::Found;
use crate::process;
use crate::segment::{Joined, lock};

/// A wait is interrupted this often, to look for signals.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// The longest time that is a deadline; a longer one is none.
const LONGEST: f64 = 1e9;

/// A lease of an array, which the `with` block takes and gives back.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct Lease {
    /// The plain array for the block.
    view: Py<PyAny>,
    joined: Arc<Joined>,
    handle: AnyHandle,
    mode: Mode,
    /// `None` waits without end.
    timeout: Option<Duration>,
    held: Mutex<Option<Held>>,
}

/// A lease that was taken.
struct Held {
    locked: Locked,
    pid: u32,
}

/// Creates a lease of an array, which is not taken yet.
pub(crate) fn lease(array: &Bound<'_, PyAny>, mode: Mode, timeout: Option<f64>) -> PyResult<Lease> {
    let pin = pin_of(array)?;
    let is_writeable = fields(array.cast::<PyUntypedArray>()?).fields.flags & NPY_ARRAY_WRITEABLE;
    if mode != Mode::Read && is_writeable == 0 {
        return Err(PyValueError::new_err(format!(
            "the array {} is read-only here: lease it with read(), or ask its sender for a \
             writeable one",
            pin.get().handle
        )));
    }
    let timeout = self::timeout(timeout)?;
    let py = array.py();
    let view = array.call_method1(crate::found::name!(py, "view"), (plain(py)?,))?;
    if mode == Mode::Read {
        view.call_method1(crate::found::name!(py, "setflags"), (false,))?;
    }
    Ok(Lease {
        view: view.unbind(),
        joined: Arc::clone(&pin.get().joined),
        handle: pin.get().handle,
        mode,
        timeout,
        held: Mutex::new(None),
    })
}

/// Returns a timeout in seconds as a duration, or `None` if it has no end.
pub(crate) fn timeout(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds >= 0.0 => {
            Ok((seconds <= LONGEST).then(|| Duration::from_secs_f64(seconds)))
        }
        Some(seconds) => Err(PyValueError::new_err(format!(
            "timeout is {seconds}: it is a number of seconds, 0 not to wait, or None to wait \
             without end"
        ))),
    }
}

/// Returns numpy's own class of arrays.
pub(crate) fn plain(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: Found<PyAny> = Found::new();
    CLASS.import(py, "numpy", "ndarray")
}

impl Lease {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        lock(&self.held)
    }

    /// Takes the lease, and waits for it without the interpreter.
    fn take(&self, py: Python<'_>) -> PyResult<Locked> {
        let (mode, handle) = (self.mode, self.handle);
        match self.joined.table()?.lock(handle, mode) {
            Err(LeaseError::Busy { .. }) => {}
            outcome => return outcome.map_err(raise),
        }
        let start = Instant::now();
        loop {
            let left = match self.timeout {
                Some(timeout) => timeout.saturating_sub(start.elapsed()),
                None => Duration::MAX,
            };
            if self.joined.is_leaving() {
                // That may fail. A thread that waits does not keep it from happening.
                py.detach(|| std::thread::sleep(left.min(SLICE)));
                py.check_signals()?;
            }
            // Taken anew: while a thread has it, the process does not leave.
            let table = self.joined.table_to_give_back();
            let table = table.ok_or_else(error::closed)?;
            let mut looked = Instant::now();
            let mut interrupted = None;
            // No lock of the table is held during this call.
            let goes_on = || {
                if looked.elapsed() >= SLICE {
                    looked = Instant::now();
                    interrupted = Python::attach(|py| py.check_signals()).err();
                }
                interrupted.is_none() && !self.joined.is_leaving()
            };
            let outcome = py.detach(|| table.lock_while(handle, mode, left, goes_on));
            drop(table);
            if let Some(error) = interrupted {
                return Err(error);
            }
            let is_over = self
                .timeout
                .is_some_and(|timeout| start.elapsed() >= timeout);
            match outcome {
                Err(LeaseError::TimedOut { .. }) if !is_over => {}
                outcome => return outcome.map_err(raise),
            }
        }
    }

    /// Gives the lease back. Returns `false` if it is not held.
    fn give_back(&self, poison: bool) -> PyResult<bool> {
        let held = self.held().take();
        let Some(mut held) = held else {
            return Ok(false);
        };
        // In a child that was forked inside of the block it is the parent's.
        if held.pid != process::pid() {
            return Ok(true);
        }
        // A table that was left has given it back.
        let Some(table) = self.joined.table_to_give_back() else {
            return Ok(true);
        };
        table.unlock(&mut held.locked, poison).map_err(raise)?;
        Ok(true)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The block was never left, and may have written half of the array.
        let _ = self.give_back(true);
    }
}

#[pymethods]
impl Lease {
    /// Takes the lease. Returns the array.
    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.held().is_some() {
            return Err(PyRuntimeError::new_err(
                "this lease is held already: make another with read() or write()",
            ));
        }
        let locked = self.take(py)?;
        let held = Held {
            locked,
            pid: process::pid(),
        };
        let other = self.held().replace(held);
        if let Some(mut other) = other
            && let Some(table) = self.joined.table_to_give_back()
        {
            // Another thread has entered it meanwhile; both were readers.
            let _ = table.unlock(&mut other.locked, false);
        }
        Ok(self.view.clone_ref(py))
    }

    /// Gives the lease back. An exception poisons the array, if it was leased for writing.
    fn __exit__(
        &self,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.give_back(!kind.is_none())? {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err("this lease is not held")),
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Lease>()
}
