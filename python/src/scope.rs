//! Scopes: at their end, the arrays that were made in them and sent are freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ndshm::AnyHandle;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::found::{Found, name};
use crate::process;
use crate::segment::{Joined, lock};

/// The arrays that a scope has to free.
pub(crate) struct Scope {
    /// The segment.
    id: u64,
    /// The process that has entered it. In a forked child the arrays are the parent's.
    pid: u32,
    /// `None` after its end.
    sent: Mutex<Option<Vec<AnyHandle>>>,
}

/// The context variable with the scopes that are entered, a tuple with the outermost first. So the
/// tasks of an event loop have each their own.
static ENTERED: Found<PyAny> = Found::new();

fn variable(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    ENTERED.import(py, "ndshm._scope", "entered")
}

/// `true` once the process has entered a scope.
static IS_USED: AtomicBool = AtomicBool::new(false);

fn entered(py: Python<'_>) -> PyResult<Option<Bound<'_, PyTuple>>> {
    if !IS_USED.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let value = variable(py)?.call_method1(name!(py, "get"), (py.None(),))?;
    Ok(value.cast_into::<PyTuple>().ok())
}

/// Removes the ended scopes from the context, and appends `last`.
fn set_entered(py: Python<'_>, last: Option<Bound<'_, ScopeManager>>) -> PyResult<()> {
    let mut scopes = Vec::new();
    for scope in entered(py)?.iter().flatten() {
        let scope = scope.cast_into::<ScopeManager>()?;
        if scope.get().scope.is_open() {
            scopes.push(scope);
        }
    }
    scopes.extend(last);
    IS_USED.store(true, Ordering::Relaxed);
    variable(py)?.call_method1(name!(py, "set"), (PyTuple::new(py, scopes)?,))?;
    Ok(())
}

impl Scope {
    /// Returns the innermost scope of a segment that this context is in.
    pub(crate) fn current(py: Python<'_>, id: u64) -> PyResult<Option<Arc<Scope>>> {
        let Some(entered) = entered(py)? else {
            return Ok(None);
        };
        for scope in entered.iter().rev() {
            let scope = &scope.cast::<ScopeManager>()?.get().scope;
            // Another thread may have ended it.
            if scope.id == id && scope.is_open() {
                return Ok(Some(Arc::clone(scope)));
            }
        }
        Ok(None)
    }

    fn is_open(&self) -> bool {
        let sent = lock(&self.sent);
        sent.is_some()
    }

    /// Adds an array that was sent. After the end of the scope the array stays, as if it had been
    /// made outside.
    pub(crate) fn add(&self, handle: AnyHandle) {
        let mut sent = lock(&self.sent);
        if let Some(sent) = &mut *sent {
            sent.push(handle);
        }
    }

    /// Removes an array that was handed over or detached.
    pub(crate) fn remove(&self, handle: AnyHandle) {
        let mut sent = lock(&self.sent);
        if let Some(sent) = &mut *sent {
            sent.retain(|other| *other != handle);
        }
    }

    /// Ends the scope. Returns the arrays to free.
    fn end(&self) -> Vec<AnyHandle> {
        let mut sent = lock(&self.sent);
        let ended = sent.take().unwrap_or_default();
        match self.pid == process::pid() {
            true => ended,
            false => Vec::new(),
        }
    }
}

/// The context manager of `Table.scope()`.
#[pyclass(frozen, module = "ndshm._ndshm", name = "Scope")]
pub(crate) struct ScopeManager {
    joined: Arc<Joined>,
    scope: Arc<Scope>,
}

impl ScopeManager {
    pub(crate) fn new(joined: &Arc<Joined>) -> ScopeManager {
        ScopeManager {
            joined: Arc::clone(joined),
            scope: Arc::new(Scope {
                id: joined.id(),
                pid: process::pid(),
                sent: Mutex::new(Some(Vec::new())),
            }),
        }
    }
}

#[pymethods]
impl ScopeManager {
    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !slf.get().scope.is_open() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "a scope is entered once: make another with scope()",
            ));
        }
        set_entered(slf.py(), Some(slf.clone()))
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let sent = self.scope.end();
        // A table that was left has freed them.
        if let Some(table) = self.joined.table_to_give_back() {
            py.detach(|| {
                for handle in sent {
                    // It may have been freed before.
                    let _ = table.free(handle);
                }
            });
        }
        set_entered(py, None)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ScopeManager>()
}
