//! Element types of numpy as those of ndshm, and back.
//!
//! Numbers and bools are scalars. A structure of numbers without gaps is a record, which programs
//! in Rust find as such. All others are opaque: numpy's own text describes them, in
//! `_dtype.py`.

use ndshm::element::{DType, OpaqueType, RecordLayout, ScalarType};
use numpy::npyffi::{NPY_TYPES, PY_ARRAY_API, PyArray_Descr};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::exception;
use crate::found::Found;

/// The scalars, with the number of the type in numpy. Of several numbers the first is used for
/// arrays that arrive.
const SCALARS: [(NPY_TYPES, ScalarType); 15] = [
    (NPY_TYPES::NPY_DOUBLE, ScalarType::F64),
    (NPY_TYPES::NPY_FLOAT, ScalarType::F32),
    (NPY_TYPES::NPY_UBYTE, ScalarType::U8),
    (NPY_TYPES::NPY_LONG, ScalarType::I64),
    (NPY_TYPES::NPY_INT, ScalarType::I32),
    (NPY_TYPES::NPY_BOOL, ScalarType::Bool),
    (NPY_TYPES::NPY_BYTE, ScalarType::I8),
    (NPY_TYPES::NPY_SHORT, ScalarType::I16),
    (NPY_TYPES::NPY_USHORT, ScalarType::U16),
    (NPY_TYPES::NPY_UINT, ScalarType::U32),
    (NPY_TYPES::NPY_ULONG, ScalarType::U64),
    (NPY_TYPES::NPY_LONGLONG, ScalarType::I64),
    (NPY_TYPES::NPY_ULONGLONG, ScalarType::U64),
    (NPY_TYPES::NPY_CFLOAT, ScalarType::Complex32),
    (NPY_TYPES::NPY_CDOUBLE, ScalarType::Complex64),
];

/// Returns the scalar of a numpy type. Returns `None` for other types and byte orders.
pub(crate) fn scalar(descr: &Bound<'_, PyArrayDescr>) -> Option<ScalarType> {
    let number = descr.num();
    let (_, scalar) = SCALARS.iter().find(|(known, _)| *known as i32 == number)?;
    matches!(descr.byteorder(), b'=' | b'|').then_some(*scalar)
}

/// Returns the place of a scalar in the list, as a short name of it.
pub(crate) fn scalar_code(scalar: ScalarType) -> Option<u8> {
    let place = SCALARS.iter().position(|(_, known)| *known == scalar)?;
    u8::try_from(place).ok()
}

/// Returns the scalar of a [`scalar_code`].
pub(crate) fn scalar_of_code(code: u8) -> Option<ScalarType> {
    SCALARS.get(usize::from(code)).map(|(_, scalar)| *scalar)
}

/// Fills the cells in which the numpy crate keeps the functions and the version of numpy. Done when
/// the module is imported: a fork in the middle of it would leave a child without them, see
/// [`Found`].
pub(crate) fn fill_cells(py: Python<'_>) -> PyResult<()> {
    let descr = scalar_descr(py, ScalarType::F64)?;
    let array = numpy::PyArray1::<f64>::zeros(py, 1, false);
    let _ = (
        descr.itemsize(),
        descr.has_object(),
        array.as_any().cast::<PyUntypedArray>()?.ndim(),
    );
    Ok(())
}

/// Returns numpy's type of a scalar. Numpy has none for the 128-bit integers.
pub(crate) fn scalar_descr(
    py: Python<'_>,
    scalar: ScalarType,
) -> PyResult<Bound<'_, PyArrayDescr>> {
    let found = SCALARS.iter().find(|(_, known)| *known == scalar);
    let Some((number, _)) = found else {
        return Err(exception(
            "TypeMismatch",
            format!("numpy has no {scalar}: store the array as two 64-bit integers an element"),
        ));
    };
    // SAFETY: the number is one of numpy's own types. The call returns a new reference or null.
    let descr = unsafe { PY_ARRAY_API.PyArray_DescrFromType(py, *number as i32) };
    owned_descr(py, descr)
}

/// Returns the type, as an object of its own if it has fields: a program may change their names in
/// place.
pub(crate) fn of_its_own<'py>(
    descr: &Bound<'py, PyArrayDescr>,
) -> PyResult<Bound<'py, PyArrayDescr>> {
    if !descr.has_fields() {
        return Ok(descr.clone());
    }
    let py = descr.py();
    // SAFETY: it is a descriptor. The call returns a new one or null.
    let copy = unsafe { PY_ARRAY_API.PyArray_DescrNew(py, descr.as_dtype_ptr()) };
    owned_descr(py, copy)
}

/// Returns the type of texts that does not say their size with one character each, as numpy does.
pub(crate) fn with_size(descr: Bound<'_, PyArrayDescr>) -> PyResult<Bound<'_, PyArrayDescr>> {
    let text = match descr.kind() {
        _ if descr.itemsize() > 0 || descr.has_fields() || descr.has_subarray() => {
            return Ok(descr);
        }
        b'S' => "S1",
        b'U' => "U1",
        _ => return Ok(descr),
    };
    PyArrayDescr::new(descr.py(), text)
}

fn owned_descr(py: Python<'_>, descr: *mut PyArray_Descr) -> PyResult<Bound<'_, PyArrayDescr>> {
    // SAFETY: numpy returns a new reference to a descriptor, or null with an exception set.
    let descr = unsafe { Bound::from_owned_ptr_or_err(py, descr.cast()) }?;
    Ok(descr.cast_into::<PyArrayDescr>()?)
}

/// Returns the element type for an array of numpy's type.
pub(crate) fn from_numpy(descr: &Bound<'_, PyArrayDescr>) -> PyResult<DType> {
    if let Some(scalar) = scalar(descr) {
        return Ok(scalar.into());
    }
    if descr.has_object() {
        return Err(exception(
            "TypeMismatch",
            format!(
                "arrays of {descr:?} hold pointers to objects of this process, and cannot be \
                 shared: convert them with astype, or send the objects themselves"
            ),
        ));
    }
    if let Some(layout) = record(descr)? {
        return Ok(DType::Record(layout.into()));
    }
    let (text, align) = text(descr)?;
    let opaque = OpaqueType::new(&text, descr.itemsize(), align);
    Ok(opaque
        .map_err(|error| exception("TypeMismatch", error.to_string()))?
        .into())
}

/// Returns the record that a structure is, if all of it is numbers, without gaps.
fn record(descr: &Bound<'_, PyArrayDescr>) -> PyResult<Option<RecordLayout>> {
    let Some(names) = descr.names() else {
        return Ok(None);
    };
    // A record has no place for titles, which numpy lists as further names.
    if descr.getattr("fields")?.len()? != names.len() {
        return Ok(None);
    }
    let (mut fields, mut end) = (Vec::new(), 0);
    for name in names {
        let (field, offset) = descr.get_field(&name)?;
        let (base, axes) = (field.base(), field.shape());
        let Some(scalar) = scalar(&base) else {
            return Ok(None);
        };
        if offset != end || axes.len() > 1 || scalar == ScalarType::Bool {
            return Ok(None);
        }
        end += field.itemsize();
        fields.push((name, scalar, axes.first().copied().unwrap_or(1), axes.len()));
    }
    // An axis of length 1 would be lost.
    let plain = fields
        .iter()
        .all(|(_, _, count, axes)| *axes == 0 || *count > 1);
    if end != descr.itemsize() || !plain {
        return Ok(None);
    }
    let fields = fields
        .into_iter()
        .map(|(name, scalar, count, _)| (name, scalar, count));
    // The crate refuses these fields: the type is opaque.
    Ok(RecordLayout::from_fields(fields).ok())
}

/// Returns numpy's type of the elements of an array.
pub(crate) fn to_numpy<'py>(py: Python<'py>, dtype: &DType) -> PyResult<Bound<'py, PyArrayDescr>> {
    match dtype {
        DType::Scalar(scalar) => scalar_descr(py, *scalar),
        DType::Opaque(opaque) => from_text(py, opaque.text(), opaque.size()),
        DType::Record(layout) => {
            let mut fields = Vec::new();
            for field in layout.fields() {
                let descr = scalar_descr(py, field.dtype)?;
                fields.push((&*field.name, descr, field.count));
            }
            let made = helper(py, &RECORD, "record")?.call1((fields,))?;
            Ok(made.cast_into::<PyArrayDescr>()?)
        }
    }
}

/// Returns the text of a type that is no scalar, and its alignment.
pub(crate) fn text(descr: &Bound<'_, PyArrayDescr>) -> PyResult<(String, usize)> {
    let described = helper(descr.py(), &TEXT, "text")?.call1((descr,))?;
    Ok((described.extract()?, descr.alignment().max(1)))
}

/// Returns the type of a text, if its elements have this size.
pub(crate) fn from_text<'py>(
    py: Python<'py>,
    text: &str,
    size: usize,
) -> PyResult<Bound<'py, PyArrayDescr>> {
    let descr = parse_text(py, text)?;
    if descr.itemsize() != size {
        return Err(PyTypeError::new_err(format!(
            "{text:?} is no dtype with elements of {size} bytes"
        )));
    }
    Ok(descr)
}

/// Returns the type of a text, if it holds no pointers.
pub(crate) fn parse_text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyArrayDescr>> {
    let made = helper(py, &FROM_TEXT, "from_text")?.call1((text,))?;
    let descr = made.cast_into::<PyArrayDescr>()?;
    match descr.has_object() {
        false => Ok(descr),
        true => Err(PyTypeError::new_err(format!(
            "{text:?} is a dtype of objects"
        ))),
    }
}

static RECORD: Found<PyAny> = Found::new();
static TEXT: Found<PyAny> = Found::new();
static FROM_TEXT: Found<PyAny> = Found::new();

/// Returns a function of `_dtype.py`.
fn helper<'py>(
    py: Python<'py>,
    place: &'static Found<PyAny>,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    place.import(py, "ndshm._dtype", name).cloned()
}
