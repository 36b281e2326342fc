//! Scopes: at their end, the arrays that were made in them and sent are freed.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use ndshm::AnyHandle;
use pyo3::prelude::*;

use crate::process;
use crate::segment::Joined;

/// What a scope has to free.
pub(crate) struct Scope {
    /// The segment.
    id: u64,
    /// The process that has entered it. In a forked child the arrays are the parent's.
    pid: u32,
    /// `None` after its end.
    sent: Mutex<Option<Vec<AnyHandle>>>,
}

thread_local! {
    /// The scopes that this thread has entered, the outermost first.
    static ENTERED: RefCell<Vec<Arc<Scope>>> = const { RefCell::new(Vec::new()) };
}

impl Scope {
    /// Returns the innermost scope of a segment that this thread is in.
    pub(crate) fn current(id: u64) -> Option<Arc<Scope>> {
        ENTERED.with_borrow_mut(|entered| {
            if entered.is_empty() {
                return None;
            }
            // Another thread may have ended some.
            entered.retain(|scope| scope.is_open());
            entered.iter().rev().find(|scope| scope.id == id).cloned()
        })
    }

    fn is_open(&self) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.is_some()
    }

    /// Adds an array that was sent. After the end of the scope the array stays, as if it had been
    /// made outside.
    pub(crate) fn add(&self, handle: AnyHandle) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = &mut *sent {
            sent.push(handle);
        }
    }

    /// Leaves an array to its users, which are to have it after the scope.
    pub(crate) fn remove(&self, handle: AnyHandle) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = &mut *sent {
            sent.retain(|other| *other != handle);
        }
    }

    /// Ends the scope. Returns what is to be freed.
    fn end(&self) -> Vec<AnyHandle> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match self.pid == process::pid() {
            true => sent.take().unwrap_or_default(),
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
    fn __enter__(&self) -> PyResult<()> {
        if !self.scope.is_open() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "a scope is entered once: make another with scope()",
            ));
        }
        ENTERED.with_borrow_mut(|entered| entered.push(Arc::clone(&self.scope)));
        Ok(())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) {
        let sent = self.scope.end();
        ENTERED.with_borrow_mut(|entered| entered.retain(|scope| !Arc::ptr_eq(scope, &self.scope)));
        // A table that was left has freed them.
        if let Ok(table) = self.joined.table() {
            py.detach(|| {
                for handle in sent {
                    // It may have been freed before.
                    let _ = table.free(handle);
                }
            });
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ScopeManager>()
}
