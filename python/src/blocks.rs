//! Arrays of a name, for the blocks of `ndshm.compat.shared_memory`.

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndshm::AnyHandle;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::array::{of_pin, pin_of};
use crate::error::raise;
use crate::pin::{Origin, Pin};
use crate::table::Table;

/// The first bytes of an array as an object with a buffer, which counts its exports.
#[pyclass(frozen, module = "ndshm._ndshm")]
struct BlockBytes {
    pin: Py<Pin>,
    len: usize,
    exports: AtomicUsize,
}

#[pymethods]
impl BlockBytes {
    #[new]
    fn new(array: &Bound<'_, PyAny>, len: usize) -> PyResult<BlockBytes> {
        let pin = pin_of(array)?;
        match len <= pin.get().len {
            true => Ok(BlockBytes {
                pin: pin.unbind(),
                len,
                exports: AtomicUsize::new(0),
            }),
            false => Err(PyValueError::new_err(format!(
                "the array has {} bytes, and not {len}",
                pin.get().len
            ))),
        }
    }

    /// Return the number of buffers that are not released.
    #[getter]
    fn exports(&self) -> usize {
        self.exports.load(Ordering::Relaxed)
    }

    // Python vouches for `view`, a buffer that it lets this method fill.
    unsafe fn __getbuffer__(
        slf: &Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let inner = slf.get();
        let first = inner.pin.get().first as *mut _;
        // SAFETY: the buffer refers to this object, whose pin keeps the bytes in place, and there
        // are at least `len`. They fit an isize, because they are mapped.
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), first, inner.len as isize, 0, flags)
        };
        if failed != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        inner.exports.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    // Nothing of the buffer is to be given back, except its reference, which Python drops.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.exports.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives an array a name, and makes it outlive this process.
#[pyfunction]
fn publish_block(table: &Bound<'_, Table>, name: &str, array: &Bound<'_, PyAny>) -> PyResult<()> {
    let pin = pin_of(array)?;
    let shared = table.get().joined.table()?;
    // Named before it is detached: an array of a process that is killed in between is reaped.
    shared.publish(name, pin.get().handle).map_err(raise)?;
    pin.get().detach()
}

/// Returns the array of a name.
#[pyfunction]
fn find_block<'py>(table: &Bound<'py, Table>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let joined = &table.get().joined;
    let handle = joined.table()?.find_any(name).map_err(raise)?;
    of_pin(
        table.py(),
        Pin::new(table.py(), joined, handle, Origin::Received)?,
        true,
    )
}

/// Frees the array of a name, which frees the name.
///
/// It is one step: a process that removed the name first, and was killed then, would leave an array
/// that nobody finds. Of two processes one succeeds, and an array that has the name since stays.
#[pyfunction]
fn unlink_block(table: &Bound<'_, Table>, name: &str) -> PyResult<()> {
    let shared = table.get().joined.table()?;
    let free = || {
        let handle = shared.find_any(name).map_err(raise)?;
        shared.free(handle).map_err(raise)
    };
    table.py().detach(free)
}

/// Returns the handle of an array as a number.
#[pyfunction]
fn handle_bits(array: &Bound<'_, PyAny>) -> PyResult<u64> {
    Ok(pin_of(array)?.get().handle.to_bits())
}

/// Returns `true` if the array with these [`handle_bits`] lives.
#[pyfunction]
fn is_live(table: &Bound<'_, Table>, bits: u64) -> PyResult<bool> {
    let shared = table.get().joined.table()?;
    Ok(shared.info(AnyHandle::from_bits(bits)).is_ok())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<BlockBytes>()?;
    module.add_function(wrap_pyfunction!(publish_block, module)?)?;
    module.add_function(wrap_pyfunction!(find_block, module)?)?;
    module.add_function(wrap_pyfunction!(unlink_block, module)?)?;
    module.add_function(wrap_pyfunction!(handle_bits, module)?)?;
    module.add_function(wrap_pyfunction!(is_live, module)?)
}
