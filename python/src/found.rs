//! Objects of Python that are looked up once.
//!
//! PyO3 has a cell for that, but a thread fills it while it is detached from the interpreter in
//! between: if another thread forks at that moment, the child's copy of the cell is being filled
//! for ever, and the next access hangs. Here the lookup runs outside of the cell. Two threads may
//! do it at once; the first object stays.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A place for an object that is looked up at its first use.
pub(crate) struct Found<T>(OnceLock<Py<T>>);

impl<T> Found<T> {
    pub(crate) const fn new() -> Found<T> {
        Found(OnceLock::new())
    }

    /// Returns the object. The first call looks it up and keeps it.
    fn get_or<'py>(
        &self,
        py: Python<'py>,
        look_up: impl FnOnce() -> PyResult<Py<T>>,
    ) -> PyResult<&Bound<'py, T>> {
        if let Some(found) = self.0.get() {
            return Ok(found.bind(py));
        }
        let new = look_up()?;
        // The thread stays attached while it stores the pointer, and only an attached thread forks.
        Ok(self.0.get_or_init(|| new).bind(py))
    }
}

impl Found<PyAny> {
    /// Returns an attribute of a module.
    pub(crate) fn import<'py>(
        &self,
        py: Python<'py>,
        module: &str,
        name: &str,
    ) -> PyResult<&Bound<'py, PyAny>> {
        self.get_or(py, || Ok(py.import(module)?.getattr(name)?.unbind()))
    }
}

impl Found<PyString> {
    /// Returns a string for the name of an attribute.
    pub(crate) fn name<'py>(&self, py: Python<'py>, text: &str) -> PyResult<&Bound<'py, PyString>> {
        self.get_or(py, || Ok(PyString::intern(py, text).unbind()))
    }
}

/// Returns the name of an attribute as an object that is made once.
macro_rules! name {
    ($py:expr, $text:literal) => {{
        static NAME: $crate::found::Found<pyo3::types::PyString> = $crate::found::Found::new();
        NAME.name($py, $text)?
    }};
}

pub(crate) use name;
