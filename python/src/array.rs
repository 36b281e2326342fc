//! Arrays of numpy on the bytes of a table.

use std::ffi::c_int;
use std::sync::Arc;

use ndshm::element::{DType, Order, ScalarType};
use numpy::npyffi::{NPY_ARRAY_WRITEABLE, PY_ARRAY_API, PyArrayObject};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::dtype;
use crate::error::{exception, raise};
use crate::found::Found;
use crate::kept;
use crate::pin::{Origin, Pin};
use crate::segment::Joined;
use crate::shape::Axes;

/// Filling or committing this many bytes takes long enough to let other threads run.
const SLOW: usize = 1 << 16;

/// Returns the class `ndshm.ndarray`.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: Found<PyAny> = Found::new();
    CLASS.import(py, "ndshm._array", "ndarray")
}

/// The contents of a new array.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Zeros,
    Unspecified,
}

/// Creates an array in a table.
pub(crate) fn create<'py>(
    py: Python<'py>,
    joined: &Arc<Joined>,
    shape: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    order: Order,
    contents: Contents,
) -> PyResult<Bound<'py, PyAny>> {
    let mut shape = Axes::shape(shape)?;
    let element = match dtype {
        None => DType::Scalar(ScalarType::F64),
        Some(dtype) => {
            let mut descr = dtype::with_size(PyArrayDescr::new(py, dtype)?)?;
            // As numpy: the shape of a subarray is appended to the array's.
            while descr.has_subarray() {
                for length in descr.shape() {
                    shape.push(length as isize)?;
                }
                descr = descr.base();
            }
            dtype::from_numpy(&descr)?
        }
    };
    warn_of_sent(py, joined)?;
    let table = joined.table()?;
    let (lengths, count) = shape.lengths();
    let lengths = &lengths[..count];
    let make = || match contents {
        Contents::Zeros => table.zeros_untyped(&element, lengths, order),
        Contents::Unspecified => table.uninit_untyped(&element, lengths, order),
    };
    let bytes = lengths
        .iter()
        .try_fold(element.size(), |bytes, length| bytes.checked_mul(*length));
    kept::made(joined);
    let made = match bytes {
        Some(bytes) if bytes < SLOW => make(),
        _ => py.detach(make),
    };
    let handle = made.map_err(raise)?;
    let pin = Pin::new(py, joined, handle, Origin::Made).inspect_err(|_| {
        // Nobody else has the handle.
        let _ = table.free(handle);
    })?;
    of_pin(py, pin, true)
}

/// Returns the whole array of a pin.
pub(crate) fn of_pin(py: Python<'_>, pin: Pin, is_writeable: bool) -> PyResult<Bound<'_, PyAny>> {
    let parts = Parts::whole(py, &pin, is_writeable)?;
    // SAFETY: these are the parts of the array that the pin keeps.
    unsafe { parts.on_pin(py, pin) }
}

/// What an array object consists of.
///
/// Those of an object are read at once: Python code that runs later may change it.
pub(crate) struct Parts<'py> {
    pub(crate) descr: Bound<'py, PyArrayDescr>,
    pub(crate) shape: Axes,
    pub(crate) strides: Axes,
    /// The address of the first element.
    pub(crate) first: usize,
    pub(crate) is_writeable: bool,
}

impl<'py> Parts<'py> {
    /// Reads an array object.
    pub(crate) fn of(array: &Bound<'py, PyUntypedArray>) -> PyResult<Parts<'py>> {
        let (mut shape, mut strides) = (Axes::none(), Axes::none());
        for (&length, &stride) in array.shape().iter().zip(array.strides()) {
            shape.push(length as isize)?;
            strides.push(stride)?;
        }
        let raw = &fields(array).fields;
        Ok(Parts {
            descr: array.dtype(),
            shape,
            strides,
            first: raw.data as usize,
            is_writeable: raw.flags & NPY_ARRAY_WRITEABLE != 0,
        })
    }

    /// Returns the parts of the whole array of a pin.
    pub(crate) fn whole(py: Python<'py>, pin: &Pin, is_writeable: bool) -> PyResult<Parts<'py>> {
        Ok(Parts {
            descr: dtype::of_its_own(pin.descr.bind(py))?,
            shape: pin.shape,
            strides: pin.strides(py),
            first: pin.first,
            is_writeable,
        })
    }

    /// Returns `true` if these are the parts of the whole array of a pin.
    pub(crate) fn is_whole(&self, pin: &Pin) -> bool {
        let own = pin.descr.bind(self.descr.py());
        self.first == pin.first
            && self.shape == pin.shape
            && self.strides == pin.strides(own.py())
            && (self.descr.is(own) || own.has_fields() && self.descr.is_equiv_to(own))
    }

    /// Returns `true` if all elements are within the array of a pin, and any bytes are elements.
    pub(crate) fn is_within(&self, pin: &Pin) -> bool {
        let offset = self.first.wrapping_sub(pin.first);
        !self.descr.has_object() && self.end(offset).is_some_and(|end| end <= pin.len as i128)
    }

    /// Returns the end of the elements, if the first one is at `offset`. Returns `None` if one of
    /// them is before 0.
    fn end(&self, offset: usize) -> Option<i128> {
        let itemsize = self.descr.itemsize() as i128;
        if itemsize == 0 {
            return None;
        }
        let (mut low, mut high) = (offset as i128, offset as i128);
        let mut is_empty = false;
        for (&length, &stride) in self.shape.as_slice().iter().zip(self.strides.as_slice()) {
            if length < 0 {
                return None;
            }
            is_empty |= length == 0;
            let span = (length as i128 - 1).checked_mul(stride as i128)?;
            low = low.checked_add(span.min(0))?;
            high = high.checked_add(span.max(0))?;
        }
        if is_empty {
            return Some(offset as i128);
        }
        let end = high.checked_add(itemsize)?;
        (low >= 0).then_some(end)
    }

    /// Builds the array object, of the class `ndshm.ndarray`.
    ///
    /// # Safety
    /// The elements are [within](Parts::is_within) the array of the pin.
    pub(crate) unsafe fn on_pin(
        mut self,
        py: Python<'py>,
        pin: Pin,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.is_writeable &= !pin.is_readonly;
        let pin = Bound::new(py, pin)?;
        // SAFETY: the pin keeps the bytes in place. The caller vouches for the elements.
        unsafe { self.on(class(py)?, pin.into_any()) }
    }

    /// Builds the array object, of numpy's class or a subclass.
    ///
    /// # Safety
    /// - `class` is numpy's class of arrays or a subclass.
    /// - The elements lie in memory that stays mapped as long as `base` lives, and any bytes are
    ///   values of their type.
    pub(crate) unsafe fn on(
        mut self,
        class: &Bound<'py, PyAny>,
        base: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = base.py();
        let flags = if self.is_writeable {
            NPY_ARRAY_WRITEABLE
        } else {
            0
        };
        let shape = self.shape.as_mut_slice();
        // SAFETY: the class is numpy's, or a subclass. The call takes the reference to the
        // descriptor. Shape and strides are as many as the call is told. The caller vouches for
        // the memory.
        let made = unsafe {
            PY_ARRAY_API.PyArray_NewFromDescr(
                py,
                class.as_ptr().cast(),
                self.descr.into_dtype_ptr(),
                shape.len() as c_int,
                shape.as_mut_ptr(),
                self.strides.as_mut_slice().as_mut_ptr(),
                self.first as *mut _,
                flags,
                std::ptr::null_mut(),
            )
        };
        // SAFETY: the call returns a new reference, or null with an exception set.
        let array = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
        // SAFETY: it is an array. The call takes the reference to the base, also if it fails.
        let failed = unsafe {
            PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), base.into_ptr())
        };
        match failed {
            0 => Ok(array),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

/// An array object as numpy lays it out.
pub(crate) fn fields<'a>(array: &'a Bound<'_, PyUntypedArray>) -> &'a PyArrayObject {
    // SAFETY: the object is an array, and borrowed. Threads that could change its fields need the
    // interpreter, which this thread is attached to.
    unsafe { &*array.as_ptr().cast::<PyArrayObject>() }
}

/// Returns the object that an array keeps because its bytes are there.
fn base_of<'py>(array: &Bound<'py, PyUntypedArray>) -> Option<Bound<'py, PyAny>> {
    let base = fields(array).fields.base;
    // SAFETY: the base of an array is null or an object, which the array keeps.
    unsafe { Bound::from_borrowed_ptr_or_opt(array.py(), base) }
}

/// Returns the pin that an array keeps its bytes by, through all views in between. Returns `None`
/// if its bytes are not in a table.
pub(crate) fn find_pin<'py>(array: &Bound<'py, PyAny>) -> Option<Bound<'py, Pin>> {
    let mut base = base_of(array.cast::<PyUntypedArray>().ok()?)?;
    loop {
        // Nothing derives from the class.
        match base.cast_into_exact::<Pin>() {
            Ok(pin) => return Some(pin),
            Err(other) => base = base_of(other.into_inner().cast::<PyUntypedArray>().ok()?)?,
        }
    }
}

/// Returns the pin of an array that has to have one.
pub(crate) fn pin_of<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Pin>> {
    find_pin(array).ok_or_else(|| {
        exception(
            "NdshmError",
            "this array is in no table, because it is a copy or the result of a computation: put \
             it into one, as by ndshm.array(x)"
                .to_owned(),
        )
    })
}

/// Warns if the arrays that were sent and are in nobody's view here take much memory.
pub(crate) fn warn_of_sent(py: Python<'_>, joined: &Arc<Joined>) -> PyResult<()> {
    static WARN: Found<PyAny> = Found::new();
    let limit = (crate::process::memory() / 2).min(joined.segment().capacity() / 2);
    let Some((count, bytes)) = joined.many_sent(limit) else {
        return Ok(());
    };
    let warn = WARN.import(py, "ndshm._process", "warn_of_sent")?;
    warn.call1((count, bytes, limit))?;
    Ok(())
}
