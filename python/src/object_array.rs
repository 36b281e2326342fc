//! Arrays inside of objects: views of a buffer, made without a detour through Python.

use ndshm::element::Order;
use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::array::Parts;
use crate::dtype::{scalar, scalar_code, scalar_descr, scalar_of_code};
use crate::lease::plain;
use crate::object::Buffer;
use crate::shape::Axes;

/// Returns a read-only array on a buffer of an object, in C order. Unpickling calls it.
///
/// The type is a dtype, or the [`scalar_code`] of a number. The other arguments are the shape. A
/// pickle spends least on these.
#[pyfunction]
#[pyo3(name = "_c_array", signature = (buffer, dtype, /, *shape))]
fn c_array<'py>(
    buffer: &Bound<'py, Buffer>,
    dtype: &Bound<'py, PyAny>,
    shape: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    on_buffer(buffer, dtype, shape, Order::C)
}

/// Returns a read-only array on a buffer of an object, in Fortran's order. Unpickling calls it.
#[pyfunction]
#[pyo3(name = "_f_array", signature = (buffer, dtype, /, *shape))]
fn f_array<'py>(
    buffer: &Bound<'py, Buffer>,
    dtype: &Bound<'py, PyAny>,
    shape: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    on_buffer(buffer, dtype, shape, Order::F)
}

fn on_buffer<'py>(
    buffer: &Bound<'py, Buffer>,
    dtype: &Bound<'py, PyAny>,
    shape: &Bound<'py, PyTuple>,
    order: Order,
) -> PyResult<Bound<'py, PyAny>> {
    let py = buffer.py();
    let (first, len) = (buffer.get().first, buffer.get().len);
    let descr = match dtype.cast::<PyArrayDescr>() {
        Ok(descr) => descr.clone(),
        Err(_) => {
            let scalar = scalar_of_code(dtype.extract()?);
            let scalar = scalar.ok_or_else(|| damaged(dtype, shape, len))?;
            scalar_descr(py, scalar)?
        }
    };
    let axes = Axes::shape(shape)?;
    let (lengths, count) = axes.lengths();
    let bytes = lengths[..count]
        .iter()
        .try_fold(descr.itemsize(), |bytes, length| bytes.checked_mul(*length));
    if bytes != Some(len) || descr.has_object() || descr.has_subarray() {
        return Err(damaged(dtype, shape, len));
    }
    let array = Parts {
        shape: axes,
        strides: axes.strides(descr.itemsize(), order),
        descr,
        first,
        is_writeable: false,
    };
    // SAFETY: the buffer keeps its bytes in place, which are those of all elements. They hold no
    // pointers, so any bytes are values of their type.
    unsafe { array.on(plain(py)?.cast()?, buffer.clone().into_any()) }
}

#[cold]
fn damaged(dtype: &Bound<'_, PyAny>, shape: &Bound<'_, PyTuple>, len: usize) -> PyErr {
    PyValueError::new_err(format!(
        "the object describes an array of {dtype:?} with the shape {shape:?} in {len} bytes: it is \
         damaged, or was made by another version of ndshm"
    ))
}

/// Returns the argument by which a pickle names a dtype: the code of a number in this machine's byte
/// order, or the dtype itself.
#[pyfunction]
fn short_dtype<'py>(dtype: &Bound<'py, PyArrayDescr>) -> PyResult<Bound<'py, PyAny>> {
    match scalar(dtype).and_then(scalar_code) {
        Some(code) => Ok(code.into_pyobject(dtype.py())?.into_any()),
        None => Ok(dtype.clone().into_any()),
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(c_array, module)?)?;
    module.add_function(wrap_pyfunction!(f_array, module)?)?;
    module.add_function(wrap_pyfunction!(short_dtype, module)?)
}
