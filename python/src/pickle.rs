//! The pickle of an array: its handle, and where another process finds the segment.
//!
//! All of it is one string of bytes, because a pickle spends two bytes or more on each object:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | flags, see below |
//! | 8 | the segment's id |
//! | 8 | the handle |
//! | numbers | the pid and the descriptor of the sender, or the length of the name |
//! | | the name |
//! | | a part: its type, its number of axes, the lengths, the strides unless it is contiguous, and the offset |
//!
//! A number has 7 bits a byte, the lowest first; strides are signed, with the sign in the lowest bit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ndshm::AnyHandle;
use ndshm::element::Order;
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::array::{Parts, find_pin};
use crate::dtype;
use crate::error;
use crate::found::Found;
use crate::kept;
use crate::lease::plain;
use crate::pin::{Origin, Pin};
use crate::segment::{self, Joined, Place};
use crate::shape::Axes;
use crate::wrap::finish;

/// The receiver may write.
const WRITEABLE: u8 = 1;
/// The first receiver owns the array.
const GIVEN: u8 = 2;
/// The segment is found by its name.
const NAMED: u8 = 4;
/// A part follows.
const PART: u8 = 8;
/// The part is contiguous, in C order or in Fortran's.
const CONTIGUOUS_C: u8 = 16;
const CONTIGUOUS_F: u8 = 32;
/// The array or object was found through a read-only table.
const LOOKED_AT: u8 = 64;

/// The code of a type that is spelled out.
const SPELLED: u8 = u8::MAX;

/// Returns the function and the arguments by which an array with a pin is pickled.
pub(crate) fn reduce<'py>(
    array: &Bound<'py, PyUntypedArray>,
    pin: &Pin,
) -> PyResult<Bound<'py, PyTuple>> {
    let py = array.py();
    let parts = Parts::of(array)?;
    let mut out = Vec::with_capacity(64);
    let flags = origin_flag(pin) | if parts.is_writeable { WRITEABLE } else { 0 };
    put_place(&mut out, flags, &pin.joined, pin.handle.to_bits())?;
    if !parts.is_whole(pin) {
        put_part(&mut out, &parts, pin)?;
    }
    static ATTACH: Found<PyAny> = Found::new();
    let attach = ATTACH.import(py, "ndshm", "_attach")?;
    let reduced = (attach, (PyBytes::new(py, &out),)).into_pyobject(py)?;
    // Last: an array that cannot be pickled was not sent.
    pin.send()?;
    Ok(reduced)
}

/// Returns the function and the arguments by which an array of the class `ndshm.ndarray` is pickled.
///
/// It is in the table of `copyreg`, where pickle finds a function sooner than a method. There it is
/// not told the protocol: numpy pickles an array that is in no table, and knows it.
#[pyfunction]
#[pyo3(signature = (array, /))]
fn reduce_array<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyTuple>> {
    if let Some(pin) = find_pin(array) {
        return reduce(array, pin.get());
    }
    static AS_ARRAY: Found<PyAny> = Found::new();
    let py = array.py();
    let array = array.call_method1(crate::found::name!(py, "view"), (plain(py)?,))?;
    (AS_ARRAY.import(py, "numpy", "asarray")?, (array,)).into_pyobject(py)
}

/// Returns `true` if the elements of the array are all elements of the pinned array, as it has them.
pub(crate) fn is_whole(array: &Bound<'_, PyUntypedArray>, pin: &Pin) -> PyResult<bool> {
    Ok(Parts::of(array)?.is_whole(pin))
}

/// Returns the bytes that pickle the handle of an object.
pub(crate) fn handle(pin: &Pin) -> PyResult<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    put_place(
        &mut out,
        origin_flag(pin),
        &pin.joined,
        pin.handle.to_bits(),
    )?;
    pin.send()?;
    Ok(out)
}

/// Reads the bytes of [`handle`], and joins the segment.
pub(crate) fn open_handle(
    py: Python<'_>,
    bytes: &[u8],
) -> PyResult<(Arc<Joined>, AnyHandle, Origin)> {
    let (flags, joined, bits) = Reader { bytes }.place(py)?;
    Ok((joined, AnyHandle::from_bits(bits), origin(flags)))
}

/// Returns the flag from which the receiver gets the [`origin`].
fn origin_flag(pin: &Pin) -> u8 {
    // An array that was looked at is not owned, and so not given.
    match (pin.is_readonly, pin.is_given()) {
        (true, _) => LOOKED_AT,
        (_, true) => GIVEN,
        _ => 0,
    }
}

fn origin(flags: u8) -> Origin {
    match flags & (GIVEN | LOOKED_AT) {
        0 => Origin::Received,
        GIVEN => Origin::Given,
        _ => Origin::LookedAt,
    }
}

/// Appends the flags, the segment's id, the bits and the place of the segment.
fn put_place(out: &mut Vec<u8>, flags: u8, joined: &Joined, bits: u64) -> PyResult<()> {
    if joined.has_left() {
        return Err(error::closed());
    }
    let name = joined.segment().name();
    out.push(flags | if name.is_some() { NAMED } else { 0 });
    out.extend_from_slice(&joined.id().to_le_bytes());
    out.extend_from_slice(&bits.to_le_bytes());
    match name {
        Some(name) => {
            put_number(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        None => {
            let (pid, fd) = joined.address()?;
            put_number(out, u64::from(pid));
            put_number(out, u64::from(fd));
        }
    }
    Ok(())
}

/// Returns the bytes by which another process opens the segment. The caller
/// [keeps](Joined::keep) it if they are sent.
pub(crate) fn address<'py>(py: Python<'py>, joined: &Arc<Joined>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(64);
    put_place(&mut out, 0, joined, 0)?;
    Ok(PyBytes::new(py, &out))
}

/// Opens the segment of an [`address`].
pub(crate) fn open_address(py: Python<'_>, bytes: &[u8]) -> PyResult<Arc<Joined>> {
    Reader { bytes }.place(py).map(|(_, joined, _)| joined)
}

fn put_part(out: &mut Vec<u8>, parts: &Parts<'_>, pin: &Pin) -> PyResult<()> {
    let Parts {
        descr,
        shape,
        strides,
        ..
    } = parts;
    let is_in = |order| shape.strides(descr.itemsize(), order) == *strides;
    let contiguous = if is_in(Order::C) {
        CONTIGUOUS_C
    } else if is_in(Order::F) {
        CONTIGUOUS_F
    } else {
        0
    };
    out[0] |= PART | contiguous;
    match dtype::scalar(descr).and_then(dtype::scalar_code) {
        Some(code) => out.push(code),
        None => {
            let (text, _) = dtype::text(descr)?;
            out.push(SPELLED);
            put_number(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
    put_number(out, shape.as_slice().len() as u64);
    for &length in shape.as_slice() {
        put_number(out, length as u64);
    }
    if contiguous == 0 {
        for &stride in strides.as_slice() {
            put_number(out, (stride << 1 ^ stride >> (isize::BITS - 1)) as u64);
        }
    }
    // An empty part may begin behind the end of an empty array.
    let offset = match shape.as_slice().contains(&0) {
        true => 0,
        false => parts.first.wrapping_sub(pin.first),
    };
    put_number(out, offset as u64);
    Ok(())
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The rest of a pickle's bytes.
struct Reader<'a> {
    bytes: &'a [u8],
}

fn damaged() -> PyErr {
    PyValueError::new_err(
        "the pickle of an array is damaged, or was made by another version of ndshm: use the same \
         version in all processes",
    )
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> PyResult<u8> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> PyResult<u64> {
        let (word, rest) = self.bytes.split_first_chunk().ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*word))
    }

    fn number(&mut self) -> PyResult<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn size(&mut self) -> PyResult<usize> {
        Ok(self.number()? as usize)
    }

    fn text(&mut self) -> PyResult<&'a str> {
        let len = self.size()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| damaged())
    }

    /// Reads the bytes of [`put_place`], and joins the segment.
    fn place(&mut self, py: Python<'_>) -> PyResult<(u8, Arc<Joined>, u64)> {
        let flags = self.byte()?;
        let (id, bits) = (self.word()?, self.word()?);
        let place = match flags & NAMED {
            0 => Place::Peer {
                pid: self.number()? as u32,
                fd: self.number()? as u32,
            },
            _ => Place::Name(self.text()?),
        };
        let joined = match segment::known(id) {
            Some(joined) => joined,
            None => {
                kept::make_room(py);
                let joined = segment::open(py, id, &place)?;
                joined.keep();
                joined
            }
        };
        Ok((flags, joined, bits))
    }

    /// Reads the bytes of [`put_part`], for a part of the array of a pin.
    fn part<'py>(&mut self, py: Python<'py>, flags: u8, pin: &Pin) -> PyResult<Parts<'py>> {
        let descr: Bound<'py, PyArrayDescr> = match self.byte()? {
            SPELLED => {
                let text = self.text()?;
                dtype::parse_text(py, text)?
            }
            code => dtype::scalar_descr(py, dtype::scalar_of_code(code).ok_or_else(damaged)?)?,
        };
        let (mut shape, mut strides) = (Axes::none(), Axes::none());
        let count = self.size()?;
        if count > crate::shape::MAX_AXES {
            return Err(damaged());
        }
        for _ in 0..count {
            let length = isize::try_from(self.number()?).map_err(|_| damaged())?;
            shape.push(length)?;
        }
        match flags & (CONTIGUOUS_C | CONTIGUOUS_F) {
            0 => {
                for _ in 0..count {
                    let stride = self.number()?;
                    strides.push((stride >> 1) as isize ^ -((stride & 1) as isize))?;
                }
            }
            CONTIGUOUS_C => strides = shape.strides(descr.itemsize(), Order::C),
            _ => strides = shape.strides(descr.itemsize(), Order::F),
        }
        let part = Parts {
            descr,
            shape,
            strides,
            first: pin.first.wrapping_add(self.size()?),
            is_writeable: flags & WRITEABLE != 0,
        };
        match part.is_within(pin) {
            true => Ok(part),
            false => Err(PyValueError::new_err(format!(
                "the pickle describes a part of {} that is not within its {} bytes: it is damaged",
                pin.handle, pin.len
            ))),
        }
    }
}

/// Returns the array of a pickle.
fn attach<'py>(py: Python<'py>, state: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader { bytes: state };
    let (flags, joined, bits) = reader.place(py)?;
    let origin = origin(flags);
    let mut pin = Pin::new(py, &joined, AnyHandle::from_bits(bits), origin)?;
    let parts = match flags & PART {
        0 => Parts::whole(py, &pin, flags & WRITEABLE != 0)?,
        _ => reader.part(py, flags, &pin)?,
    };
    // Last: a damaged pickle adopts nothing.
    if origin == Origin::Given {
        pin.adopt()?;
    }
    // SAFETY: the parts are those of the whole array, or were checked to be within it.
    unsafe { parts.on_pin(py, pin) }
}

/// The constructor of the class `ndshm._attach`, which unpickling calls. Its objects are arrays.
unsafe extern "C" fn new_array(
    _class: *mut ffi::PyTypeObject,
    arguments: *mut ffi::PyObject,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls it, so the thread is attached.
    let py = unsafe { Python::assume_attached() };
    let made = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the interpreter passes the tuple of the arguments.
        let arguments = unsafe { Bound::from_borrowed_ptr(py, arguments) };
        let (state,) = arguments.extract::<(Bound<'_, PyBytes>,)>()?;
        attach(py, state.as_bytes())
    }));
    finish(py, made)
}

/// Makes the class `ndshm._attach`.
///
/// A pickle names it faster than a function, because a class keeps its name as an object of Python.
/// A class of PyO3 constructs its own objects alone.
fn attach_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_tp_new,
            pfunc: new_array as *mut std::ffi::c_void,
        },
        ffi::PyType_Slot {
            slot: 0,
            pfunc: std::ptr::null_mut(),
        },
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"ndshm._attach".as_ptr(),
        basicsize: 0,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is complete. The interpreter copies all of it but the name, which
    // is static. The constructor has the type of one.
    let class = unsafe { ffi::PyType_FromSpec(&mut spec) };
    // SAFETY: the call returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, class) }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("_attach", attach_class(module.py())?)?;
    module.add_function(wrap_pyfunction!(reduce_array, module)?)
}
