//! Arrays of numpy on the bytes of a table.

use std::ffi::c_int;
use std::sync::Arc;

use ndshm::AnyHandle;
use ndshm::element::{DType, Order, ScalarType};
use numpy::npyffi::{NPY_ARRAY_WRITEABLE, PY_ARRAY_API, PyArrayObject};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray};
use pyo3::exceptions::PyValueError;
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

/// Returns a view of an array that exists.
pub(crate) fn view<'py>(
    py: Python<'py>,
    joined: &Arc<Joined>,
    handle: AnyHandle,
    origin: Origin,
    is_writeable: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let pin = Pin::new(py, joined, handle, Origin::Received)?;
    let pin = adopted(pin, origin)?;
    of_pin(py, pin, is_writeable)
}

/// Makes this process the owner of an array that was given to it.
fn adopted(mut pin: Pin, origin: Origin) -> PyResult<Pin> {
    if origin == Origin::Given {
        pin.adopt()?;
    }
    Ok(pin)
}

/// Returns the whole array of a pin.
pub(crate) fn of_pin(py: Python<'_>, pin: Pin, is_writeable: bool) -> PyResult<Bound<'_, PyAny>> {
    let pin = Bound::new(py, pin)?;
    let inner = pin.get();
    let descr = dtype::of_its_own(inner.descr.bind(py))?;
    let (mut shape, mut strides, first) = (inner.shape, inner.strides(py), inner.first);
    let array = Parts {
        descr,
        shape: &mut shape,
        strides: &mut strides,
        first,
        is_writeable: is_writeable && !inner.is_readonly,
    };
    // SAFETY: the pin keeps the bytes from `first` on in place; type, shape and strides are those
    // of the array that they hold.
    unsafe { array.on(class(py)?, pin.into_any()) }
}

/// A part of an array, with a type, shape and strides of its own.
pub(crate) struct Part<'py> {
    pub(crate) descr: Bound<'py, PyArrayDescr>,
    pub(crate) shape: Axes,
    pub(crate) strides: Axes,
    /// Bytes from the array's first byte to the part's first element.
    pub(crate) offset: usize,
}

/// Returns a view of a part of an array.
pub(crate) fn part_view<'py>(
    py: Python<'py>,
    joined: &Arc<Joined>,
    handle: AnyHandle,
    origin: Origin,
    is_writeable: bool,
    mut part: Part<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let pin = Pin::new(py, joined, handle, Origin::Received)?;
    let (first, len) = (pin.first, pin.len);
    if !is_within(&part, len) || part.descr.has_object() {
        return Err(PyValueError::new_err(format!(
            "the pickle describes a part of {handle} that is not within its {len} bytes: it is \
             damaged"
        )));
    }
    let pin = Bound::new(py, adopted(pin, origin)?)?;
    let array = Parts {
        descr: part.descr,
        shape: &mut part.shape,
        strides: &mut part.strides,
        first: first + part.offset,
        is_writeable: is_writeable && !pin.get().is_readonly,
    };
    // SAFETY: the pin keeps the bytes in place. The elements of the part are within them, and hold
    // no pointers, so that any bytes are values of their type.
    unsafe { array.on(class(py)?, pin.into_any()) }
}

/// Returns `true` if all elements of the part are within `len` bytes.
fn is_within(part: &Part<'_>, len: usize) -> bool {
    end_of(part).is_some_and(|end| end <= len as i128)
}

/// Returns the end of the part's elements. Returns `None` if they are not after the array's start.
fn end_of(part: &Part<'_>) -> Option<i128> {
    let itemsize = part.descr.itemsize() as i128;
    if itemsize == 0 {
        return None;
    }
    let (mut low, mut high) = (part.offset as i128, part.offset as i128);
    let mut is_empty = false;
    for (&length, &stride) in part.shape.as_slice().iter().zip(part.strides.as_slice()) {
        if length < 0 {
            return None;
        }
        is_empty |= length == 0;
        let span = (length as i128 - 1).checked_mul(stride as i128)?;
        low = low.checked_add(span.min(0))?;
        high = high.checked_add(span.max(0))?;
    }
    if is_empty {
        return Some(part.offset as i128);
    }
    let end = high.checked_add(itemsize)?;
    (low >= 0).then_some(end)
}

/// The fields of a new array object.
pub(crate) struct Parts<'py, 'a> {
    pub(crate) descr: Bound<'py, PyArrayDescr>,
    pub(crate) shape: &'a mut Axes,
    pub(crate) strides: &'a mut Axes,
    /// The address of the first element.
    pub(crate) first: usize,
    pub(crate) is_writeable: bool,
}

impl<'py> Parts<'py, '_> {
    /// Builds the array object, of numpy's class or a subclass.
    ///
    /// # Safety
    /// - `class` is numpy's class of arrays or a subclass.
    /// - The elements lie in memory that stays mapped as long as `base` lives, and any bytes are
    ///   values of their type.
    pub(crate) unsafe fn on(
        self,
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

/// Returns the pin that an array keeps its bytes by, through all views in between. Returns `None`
/// if its bytes are not in a table.
pub(crate) fn find_pin<'py>(array: &Bound<'py, PyAny>) -> Option<Bound<'py, Pin>> {
    let mut object = array.clone();
    loop {
        let array = object.cast::<PyUntypedArray>().ok()?;
        let base = fields(array).fields.base;
        // SAFETY: the base of an array is null or an object, which the array keeps.
        let base = unsafe { Bound::from_borrowed_ptr_or_opt(object.py(), base) }?;
        match base.cast_into::<Pin>() {
            Ok(pin) => return Some(pin),
            Err(other) => object = other.into_inner(),
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
