//! Errors of the crate as exceptions of the package.
//!
//! The classes are declared in `_errors.py`: most derive from a builtin exception as well, which a
//! class made here cannot. The texts of the usual errors are written here, because their remedies
//! are calls in Python.

use ndshm::Error;
use ndshm::error::{AllocError, LeaseError, NameError, PartitionError, PoolError, SegmentError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Returns the exception for an error of the crate.
pub(crate) fn raise(error: impl Into<Error>) -> PyErr {
    let error = error.into();
    if let Some(lease) = error.lease() {
        return raise_lease(lease);
    }
    match &error {
        Error::Alloc(error) => raise_alloc(error),
        Error::Name(NameError::Alloc(error))
        | Error::Partition(PartitionError::Alloc(error))
        | Error::Pool(PoolError::Alloc(error)) => raise_alloc(error),
        Error::Name(NameError::Taken { .. }) => exception("NameTaken", error.to_string()),
        Error::Name(NameError::Length { .. }) => exception("InvalidName", error.to_string()),
        Error::Name(NameError::NotFound { .. }) => exception("NameNotFound", error.to_string()),
        Error::Segment(segment) => raise_segment(segment),
        _ => exception("NdshmError", error.to_string()),
    }
}

fn raise_lease(error: &LeaseError) -> PyErr {
    match error {
        LeaseError::Stale { handle } => exception(
            "Stale",
            format!(
                "{handle} is stale: its array was freed, by free(), at the end of a scope(), or \
                 because the process that made it has ended; a worker returns ndshm.give(x) to hand \
                 an array over, and x.detach() lets an array outlive its process"
            ),
        ),
        LeaseError::Busy { handle, name, pid } => {
            let own = *pid == crate::process::pid();
            let rest = match own {
                true => {
                    "this process: leave the `with` block that has the lease first, or pass \
                     timeout= to wait for another thread"
                }
                false => "another process: try again later, or pass timeout= to wait",
            };
            let text = format!(
                "{handle}{} is leased by process {pid}, {rest}",
                called(name)
            );
            exception_with("Busy", text, |raised| raised.setattr("pid", *pid))
        }
        LeaseError::TimedOut {
            handle,
            name,
            pid,
            waited,
        } => {
            let rest = match *pid == crate::process::pid() {
                true => {
                    "this process: leave the `with` block that has the lease, in this thread or in \
                     another, or pass a longer timeout="
                }
                false => "another process: let it end its lease, or pass a longer timeout=",
            };
            let text = format!(
                "{handle}{} could not be leased within {waited:.1?}: it is leased by process {pid}, \
                 {rest}",
                called(name)
            );
            exception_with("Busy", text, |raised| raised.setattr("pid", *pid))
        }
        LeaseError::Poisoned {
            handle,
            name,
            pid,
            unix_time,
            what,
            ..
        } => {
            let text = format!(
                "{handle}{} is poisoned: process {pid} died or raised an exception while it wrote \
                 {what}, and the contents may be half-written; repair them in `with x.recover() as \
                 a`, or call x.clear_poison() if they are good, or x.free()",
                called(name)
            );
            exception_with("Poisoned", text, |raised| {
                raised.setattr("pid", *pid)?;
                raised.setattr("time", *unix_time)?;
                raised.setattr("what", what.to_string())
            })
        }
        LeaseError::WrongKind(_) => exception("TypeMismatch", error.to_string()),
        _ => exception("NdshmError", error.to_string()),
    }
}

fn raise_alloc(error: &AllocError) -> PyErr {
    match error {
        AllocError::NoMemory(_) => exception("Full", error.to_string()),
        AllocError::Full {
            bytes,
            capacity,
            arrays,
            ..
        } => exception(
            "Full",
            format!(
                "no room for an array of {bytes} bytes: the table has a capacity of {capacity} \
                 bytes and {arrays} arrays; free arrays, or make the table with a larger capacity, \
                 as by ndshm.Table(capacity={})",
                capacity.saturating_mul(4)
            ),
        ),
        AllocError::TooLarge { .. } => exception("Full", error.to_string()),
        AllocError::TooManyAxes { .. } | AllocError::Layout(_) => {
            exception("TypeMismatch", error.to_string())
        }
        _ => exception("NdshmError", error.to_string()),
    }
}

fn raise_segment(error: &SegmentError) -> PyErr {
    let text = error.to_string();
    match error {
        SegmentError::Exists { .. } => exception("NameTaken", text),
        SegmentError::NotFound { .. } => exception("NameNotFound", text),
        SegmentError::NoMemory(_) => exception("Full", text),
        SegmentError::Left | SegmentError::Closed { .. } => exception("Closed", text),
        SegmentError::NoPeer { .. }
        | SegmentError::PeerDenied { .. }
        | SegmentError::OtherSegment { .. } => unreachable(&text),
        _ => exception("NdshmError", text),
    }
}

/// Returns the exception for a table that this process cannot open.
pub(crate) fn unreachable(reason: &str) -> PyErr {
    exception(
        "Unreachable",
        format!(
            "the table of this array cannot be opened in this process: {reason}; keep the sender \
             alive until the array has arrived, or make the array in a named table, as by \
             ndshm.open('name').array(x), or send a copy with ndshm.portable(x)"
        ),
    )
}

/// Returns the exception for a table that was closed, or left because the interpreter ends.
pub(crate) fn closed() -> PyErr {
    exception(
        "Closed",
        "this process has left the table: it was closed, or the interpreter is ending; views can \
         still be read, and what is written to them is not shared any more"
            .to_owned(),
    )
}

/// Returns the exception for a table that cannot be left, because it is used.
pub(crate) fn in_use() -> PyErr {
    PyRuntimeError::new_err(
        "another thread is using the table, or a pool with it is open: close the pool, and call \
         close() again when the thread has done so",
    )
}

fn called(name: &Option<String>) -> String {
    match name {
        Some(name) => format!(" ({name:?})"),
        None => String::new(),
    }
}

/// Returns an exception of a class of `_errors.py`.
pub(crate) fn exception(class: &str, text: String) -> PyErr {
    exception_with(class, text, |_| Ok(()))
}

fn exception_with(
    class: &str,
    text: String,
    set: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>,
) -> PyErr {
    let made = Python::try_attach(|py| {
        let raised = || {
            let raised = py
                .import("ndshm._errors")?
                .getattr(class)?
                .call1((&text,))?;
            set(&raised)?;
            Ok(raised)
        };
        raised().map_or_else(|error| error, PyErr::from_value)
    });
    // While the interpreter ends, the package may be gone.
    made.unwrap_or_else(|| PyRuntimeError::new_err(text))
}
