//! Tables that are only looked at: a program can read the arrays that it finds through one, and not
//! change them.
//!
//! This is a matter of the objects of Python. The process is a participant as others are: it takes a
//! seat, and pins arrays.

use std::cell::Cell;

use ndshm::AnyHandle;
use pyo3::PyErr;

use crate::error::exception;
use crate::segment::Joined;
use crate::table::Table;

thread_local! {
    /// `true` while this thread finds or loads something through a read-only table.
    static IS_LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// Makes the arrays and objects that this thread finds read-only, until it is dropped: also those
/// whose handles are in an object that is loaded meanwhile, and tables in it.
pub(crate) struct Looking {
    before: bool,
}

impl Looking {
    /// Begins to look, if `is_readonly`. Otherwise ends that, for code that runs while an object is
    /// loaded and finds something through a table of its own.
    pub(crate) fn begin(is_readonly: bool) -> Looking {
        let before = IS_LOOKING.replace(is_readonly);
        Looking { before }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        IS_LOOKING.set(self.before);
    }
}

/// Returns `true` while the arrays that this thread finds are read-only.
pub(crate) fn is_looking() -> bool {
    IS_LOOKING.get()
}

/// Returns the exception for a change through a read-only table.
pub(crate) fn refuse_table(table: &Table) -> PyErr {
    let name = table.joined.segment().name().unwrap_or_default();
    exception(
        "ReadOnly",
        format!(
            "the table {name:?} was opened with mode=\"ro\", and can only be looked at: open it with \
             ndshm.open({name:?}, \"r\") to change it"
        ),
    )
}

/// Returns the exception for a change of an array or object that was found through a read-only
/// table.
pub(crate) fn refuse_item(joined: &Joined, handle: AnyHandle) -> PyErr {
    let remedy = match joined.segment().name() {
        Some(name) => format!("find it through ndshm.open({name:?}, \"r\")"),
        None => "receive it otherwise than by an object of that table".to_owned(),
    };
    exception(
        "ReadOnly",
        format!(
            "{handle} was found through a table that was opened with mode=\"ro\", and can only be \
             read: {remedy} to change it"
        ),
    )
}
