//! `__array_wrap__`: numpy passes each result of a computation through it.
//!
//! It is a plain function: numpy finds it in the class, and calls it without making an object for a
//! method.

use std::panic::{AssertUnwindSafe, catch_unwind};

use numpy::npyffi::PY_ARRAY_API;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::array::{class, find_pin};
use crate::error::exception;
use crate::lease::plain;

/// Returns the result of a computation as a plain array, or as a number where numpy asks for one.
///
/// An array that was passed as `out` is returned as it is.
fn wrap<'py>(array: &Bound<'py, PyAny>, as_scalar: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    let is_ours = std::ptr::eq(array.get_type_ptr().cast(), class(py)?.as_ptr());
    if is_ours && find_pin(array).is_some() {
        return Ok(array.clone());
    }
    if as_scalar {
        // SAFETY: the call takes a reference to an array, or to another object, which it returns.
        let number = unsafe { PY_ARRAY_API.PyArray_Return(py, array.clone().into_ptr().cast()) };
        // SAFETY: the call returns a new reference, or null with an exception set.
        let number = unsafe { Bound::from_owned_ptr_or_err(py, number) }?;
        // Numpy 1 wants a number of every array, and gets the array if it has axes.
        if !number.is(array) {
            return Ok(number);
        }
    }
    match is_ours {
        true => array.call_method1(crate::found::name!(py, "view"), (plain(py)?,)),
        false => Ok(array.clone()),
    }
}

/// The function as the interpreter calls it: with the result, the context, and whether a result
/// without axes is to be a number. The last two may be missing.
unsafe extern "C" fn array_wrap(
    _module: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it, so the thread is attached. `Python::attach` would refuse
    // while the interpreter ends, when destructors still compute.
    let py = unsafe { Python::assume_attached() };
    let called = catch_unwind(AssertUnwindSafe(|| {
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err(PyTypeError::new_err("__array_wrap__ takes an array"));
        }
        // SAFETY: the interpreter passes that many objects.
        let arguments = unsafe { std::slice::from_raw_parts(arguments, count) };
        // SAFETY: the interpreter keeps the arguments during the call.
        let array = unsafe { Borrowed::from_ptr(py, arguments[0]) };
        // Numpy 1 does not say whether it wants a number, and means one.
        let as_scalar = arguments.get(2).is_none_or(|flag| {
            // SAFETY: there is one object of the value `True`, and it lives for ever.
            std::ptr::eq(*flag, unsafe { ffi::Py_True() })
        });
        wrap(&array, as_scalar)
    }));
    finish(py, called)
}

/// Returns the outcome of a call to the interpreter: the object, or null with an exception set.
pub(crate) fn finish(
    py: Python<'_>,
    called: std::thread::Result<PyResult<Bound<'_, PyAny>>>,
) -> *mut ffi::PyObject {
    let outcome = called.unwrap_or_else(|_| {
        let text = "ndshm has a fault: a call from Python panicked, see the text before".to_owned();
        Err(exception("NdshmError", text))
    });
    match outcome {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

/// The definition of the function, which the interpreter keeps a pointer to.
struct Definition(std::cell::UnsafeCell<ffi::PyMethodDef>);

// SAFETY: nobody changes it.
unsafe impl Sync for Definition {}

static DEFINITION: Definition = Definition(std::cell::UnsafeCell::new(ffi::PyMethodDef {
    ml_name: c"__array_wrap__".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunctionFast: array_wrap,
    },
    ml_flags: ffi::METH_FASTCALL,
    ml_doc: c"Return the results of computations as plain arrays.".as_ptr(),
}));

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: the definition is static, and describes a function of its kind. The call returns a
    // new reference, or null with an exception set.
    let function = unsafe {
        ffi::PyCFunction_NewEx(
            DEFINITION.0.get(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    // SAFETY: as the call promises.
    let function = unsafe { Bound::from_owned_ptr_or_err(module.py(), function) }?;
    module.add("array_wrap", function)
}
