//! The methods of `ndshm.ndarray` that numpy's class does not have, or has otherwise.

use ndshm::untyped::Mode;
use numpy::PyUntypedArray;
use pyo3::prelude::*;

use crate::array::{class, find_pin, pin_of};
use crate::error::raise;
use crate::lease::{Lease, lease, plain};
use crate::names::pin_of_item;
use crate::pickle;
use crate::table::Table;

/// A base of the class `ndshm.ndarray`, which has the methods but no data. So the class derives
/// from numpy's as well.
#[pyclass(frozen, subclass, module = "ndshm._ndshm")]
pub(crate) struct ArrayMethods;

#[pymethods]
impl ArrayMethods {
    /// Pickles the handle, or the bytes of an array that is in no table.
    fn __reduce_ex__<'py>(
        slf: &Bound<'py, Self>,
        protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !slf.get_type().is(class(py)?) {
            // A subclass that pickles itself.
            let name = crate::found::name!(py, "__reduce__");
            if !slf.get_type().getattr(name)?.is(&class(py)?.getattr(name)?) {
                return slf.call_method0(name);
            }
        }
        if let Some(pin) = find_pin(slf) {
            let array = slf.cast::<PyUntypedArray>()?;
            return Ok(pickle::reduce(array, pin.get())?.into_any());
        }
        let array = slf.call_method1(crate::found::name!(py, "view"), (plain(py)?,))?;
        array.call_method1(crate::found::name!(py, "__reduce_ex__"), (protocol,))
    }

    /// Return the text of the array's handle, which other programs print and parse.
    #[getter]
    fn handle(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(pin_of(slf)?.get().handle.to_string())
    }

    /// Return the table that the array is in.
    #[getter]
    fn table<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let pin = pin_of(slf)?;
        Table::object(slf.py(), &pin.get().joined, pin.get().is_readonly)
    }

    /// Return whether this process frees the array when it ends.
    #[getter]
    fn is_owned(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(pin_of(slf)?.get().is_owned())
    }

    /// Free the array: its handle is stale from now on, in every process.
    ///
    /// Views that exist, here and elsewhere, keep their bytes until they are dropped.
    fn free(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pin = pin_of(slf)?;
        pin.get().check_writeable()?;
        let (table, handle) = (pin.get().joined.table()?, pin.get().handle);
        slf.py().detach(|| table.free(handle)).map_err(raise)
    }

    /// Let the array outlive this process: it stays until some process frees it.
    fn detach(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pin = pin_of(slf)?;
        pin.get().check_writeable()?;
        pin.get().detach()
    }

    /// Lease the array for reading: nobody writes it meanwhile, in any process that leases it.
    #[pyo3(signature = (timeout = Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn read(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Lease> {
        lease(slf, Mode::Read, timeout)
    }

    /// Lease the array for writing: nobody else has a lease of it meanwhile.
    #[pyo3(signature = (timeout = Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn write(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Lease> {
        pin_of(slf)?.get().check_writeable()?;
        lease(slf, Mode::Write, timeout)
    }

    /// Lease the array for writing, also if it is poisoned; the end of the block clears that.
    #[pyo3(signature = (timeout = Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn recover(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Lease> {
        pin_of(slf)?.get().check_writeable()?;
        lease(slf, Mode::Recover, timeout)
    }

    /// Declare the contents of a poisoned array good.
    fn clear_poison(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pin = pin_of(slf)?;
        pin.get().check_writeable()?;
        let table = pin.get().joined.table()?;
        table.clear_poison(pin.get().handle).map_err(raise)
    }
}

/// Marks an array or an object to be handed over when it is pickled: the process that receives it
/// owns it.
#[pyfunction]
fn mark_given(array: &Bound<'_, PyAny>) -> PyResult<()> {
    let pin = pin_of_item(array)?;
    pin.get().check_writeable()?;
    pin.get().give();
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ArrayMethods>()?;
    module.add_function(wrap_pyfunction!(mark_given, module)?)
}
