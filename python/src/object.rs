//! Objects: pickled into one array of a table, with their large buffers beside the pickle.

use std::ffi::c_int;
use std::sync::Arc;

use ndshm::AnyHandle;
use ndshm::element::Order;
use ndshm::error::LeaseError;
use ndshm::shared::SharedPin;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyAttributeError, PyBufferError, PyImportError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::array::warn_of_sent;
use crate::copy::{Source, copy_all};
use crate::error::{exception, raise};
use crate::found::{Found, name};
use crate::kept;
use crate::layout::{Layout, element, is_object};
use crate::look::look_at_item;
use crate::pickle;
use crate::pin::{Origin, Pin};
use crate::process;
use crate::readonly::Looking;
use crate::segment::Joined;
use crate::table::Table;

/// Copying this many bytes takes long enough to let other threads run.
const SLOW: usize = 1 << 16;

/// An object in a table, by its handle. Any process that receives it gets the object with `get`.
///
/// A `Ref` owns its object as a view owns its array. The object of a `Ref` that was never sent is
/// freed with the last `Ref` and the last buffer of it. One that was sent lives until `free`, the
/// end of a `scope`, or the end of the process that made it.
///
/// >>> import ndshm, pickle
/// >>> ref = ndshm.put({"name": "run", "values": [1, 2, 3]})
/// >>> received = pickle.loads(pickle.dumps(ref))
/// >>> received.get()["values"]
/// [1, 2, 3]
/// >>> ref.free()
#[pyclass(frozen, generic, module = "ndshm")]
pub(crate) struct Ref {
    pub(crate) pin: Py<Pin>,
    /// The process that made the value.
    pid: u32,
}

impl Ref {
    /// Returns the `Ref` of an object that was pinned.
    pub(crate) fn of<'py>(
        py: Python<'py>,
        joined: &Arc<Joined>,
        pin: SharedPin,
        origin: Origin,
    ) -> PyResult<Bound<'py, Ref>> {
        let pin = Pin::of_object(py, joined, pin, origin)?;
        let made = Ref {
            pin: Py::new(py, pin)?,
            pid: process::pid(),
        };
        Bound::new(py, made)
    }

    /// Refuses an object that was freed.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let pin = self.pin.bind(py).get();
        match pin.joined.table()?.pin(pin.handle) {
            Ok(_) => Ok(()),
            // The parent may free its object right after the fork, as multiprocessing does with the
            // arguments of a process. The bytes are kept for the child.
            Err(LeaseError::Stale { .. }) if self.pid != process::pid() && pin.is_kept() => Ok(()),
            Err(error) => Err(raise(error)),
        }
    }
}

/// Returns the exception for an object that is not to be unpickled.
pub(crate) fn refused(handle: AnyHandle) -> PyErr {
    exception(
        "PickleRefused",
        format!(
            "{handle} is a pickled object, and loading it can run any code that a process with \
             access to the table has put there: if you trust all of them, pass allow_pickle=True; \
             or store the data as an array"
        ),
    )
}

#[pymethods]
impl Ref {
    /// Return the object. Its arrays are read-only, and are not copied.
    ///
    /// Loading runs code that the object names, as `pickle.loads` does. `allow_pickle=False` refuses
    /// it.
    ///
    /// >>> import ndshm, numpy as np
    /// >>> x = ndshm.put({"x": np.arange(5)}).get()["x"]
    /// >>> int(x.sum()), x.flags.writeable
    /// (10, False)
    #[pyo3(signature = (*, allow_pickle = true))]
    fn get<'py>(&self, py: Python<'py>, allow_pickle: bool) -> PyResult<Bound<'py, PyAny>> {
        let pin = self.pin.bind(py);
        if !allow_pickle {
            return Err(refused(pin.get().handle));
        }
        self.check(py)?;
        load(pin)
    }

    /// Free the object: its handle is stale from now on, in every process.
    ///
    /// Arrays that `get` has returned, here and elsewhere, keep their bytes until they are dropped.
    fn free(&self, py: Python<'_>) -> PyResult<()> {
        let pin = self.pin.bind(py).get();
        pin.check_writeable()?;
        let (table, handle) = (pin.joined.table()?, pin.handle);
        py.detach(|| table.free(handle)).map_err(raise)
    }

    /// Let the object outlive this process: it stays until some process frees it.
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        let pin = self.pin.bind(py).get();
        pin.check_writeable()?;
        pin.detach()
    }

    /// Return the state of the object: its owner, names and pins. Its `dtype` is None.
    ///
    /// >>> import ndshm
    /// >>> ref = ndshm.put([1, 2, 3])
    /// >>> ref.info().handle == ref.handle, ref.info().dtype
    /// (True, None)
    fn info<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: Found<PyAny> = Found::new();
        let class = CLASS.import(slf.py(), "ndshm._look", "ArrayInfo")?;
        class.call((), Some(&look_at_item(slf)?))
    }

    /// Return the text of the object's handle, which other programs print and parse.
    #[getter]
    fn handle(&self, py: Python<'_>) -> String {
        self.pin.bind(py).get().handle.to_string()
    }

    /// Return the table that the object is in.
    #[getter]
    fn table<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pin = self.pin.bind(py).get();
        Table::object(py, &pin.joined, pin.is_readonly)
    }

    /// Return whether this process frees the object when it ends.
    #[getter]
    fn is_owned(&self, py: Python<'_>) -> bool {
        self.pin.bind(py).get().is_owned()
    }

    /// Return the bytes of the object in the table.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> usize {
        self.pin.bind(py).get().len
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        static ATTACH: Found<PyAny> = Found::new();
        let attach = ATTACH.import(py, "ndshm", "_attach_object")?;
        let state = pickle::handle(self.pin.bind(py).get())?;
        (attach, (PyBytes::new(py, &state),)).into_pyobject(py)
    }

    /// Copies refer to the same object, and do not count as sent.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> bool {
        let pin = self.pin.bind(py).get();
        other.cast::<Ref>().is_ok_and(|other| {
            let other = other.get().pin.bind(py).get();
            pin.handle == other.handle && pin.joined.id() == other.joined.id()
        })
    }

    fn __hash__(&self, py: Python<'_>) -> u64 {
        self.pin.bind(py).get().handle.to_bits()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let pin = self.pin.bind(py).get();
        format!("<ndshm.Ref {} of {} bytes>", pin.handle, pin.len)
    }
}

/// Returns the `Ref` of a pickle. Unpickling calls it.
#[pyfunction]
#[pyo3(name = "_attach_object", signature = (state, /))]
fn attach<'py>(py: Python<'py>, state: &[u8]) -> PyResult<Bound<'py, Ref>> {
    let (joined, handle, origin) = pickle::open_handle(py, state)?;
    let pin = joined.table()?.pin(handle).map_err(raise)?;
    if !is_object(pin.dtype()) {
        return Err(exception(
            "TypeMismatch",
            format!(
                "{handle} is an array of {}, not an object: use the array itself",
                pin.dtype()
            ),
        ));
    }
    Ref::of(py, &joined, pin, origin)
}

/// A part of an object, which other libraries read. It keeps the object's bytes in place.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct Buffer {
    _pin: Py<Pin>,
    /// The address of the first byte.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

#[pymethods]
impl Buffer {
    /// Exports the bytes, which nobody may write.
    ///
    /// # Safety
    /// `view` is null or may be written: the interpreter calls it so.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let (first, len) = (slf.get().first, slf.get().len);
        // SAFETY: `view` may be written. The bytes stay mapped as long as the object, to which the
        // call takes a reference.
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), first as *mut _, len as isize, 1, flags)
        };
        match failed {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

/// Stores a pickle, given as pieces, and its buffers. Returns its `Ref`.
#[pyfunction]
fn store<'py>(
    table: &Bound<'py, Table>,
    pickle: Vec<Bound<'py, PyAny>>,
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, Ref>> {
    let py = table.py();
    table.get().check_writeable()?;
    let joined = &table.get().joined;
    warn_of_sent(py, joined)?;
    // They keep the bytes of the objects in place.
    let (pickle, buffers) = (borrow(&pickle)?, borrow(&buffers)?);
    let (pieces, parts) = (sources(&pickle), sources(&buffers));
    let layout = Layout::for_parts(&pieces, &parts)?;
    let (shared, element) = (joined.table()?, element()?);
    kept::made(joined);
    let make = || {
        let mut made = shared.builder(&element, &[layout.end()], Order::C)?;
        let parts = layout.divide(made.bytes_mut(), &pieces, &parts);
        // SAFETY: the views of the sources last until the end of this function.
        unsafe { copy_all(parts) };
        made.publish()
    };
    let made = match layout.end() < SLOW {
        true => make(),
        false => py.detach(make),
    };
    let handle = made.map_err(raise)?;
    let stored = || {
        let pin = shared.pin(handle).map_err(raise)?;
        Ref::of(py, joined, pin, Origin::Made)
    };
    stored().inspect_err(|_| {
        // Nobody else has the handle.
        let _ = shared.free(handle);
    })
}

/// Borrows the bytes of objects.
fn borrow(objects: &[Bound<'_, PyAny>]) -> PyResult<Vec<PyUntypedBuffer>> {
    let borrow = |object| {
        let view = PyUntypedBuffer::get(object)?;
        match view.is_c_contiguous() || view.is_fortran_contiguous() {
            true => Ok(view),
            false => Err(PyBufferError::new_err(
                "a buffer of the object is not contiguous",
            )),
        }
    };
    objects.iter().map(borrow).collect()
}

fn sources(views: &[PyUntypedBuffer]) -> Vec<Source> {
    let source = |view: &PyUntypedBuffer| Source {
        first: view.buf_ptr() as usize,
        len: view.len_bytes(),
    };
    views.iter().map(source).collect()
}

/// Loads an object. Each of its buffers holds a reference to the pin.
pub(crate) fn load<'py>(pin: &Bound<'py, Pin>) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: Found<PyAny> = Found::new();
    let py = pin.py();
    let (first, len) = (pin.get().first, pin.get().len);
    // SAFETY: the pin keeps the bytes in place, and arrays start on multiples of 64.
    let layout = unsafe { Layout::read(first, len) }?;
    let buffer = |range: std::ops::Range<usize>| {
        let buffer = Buffer {
            _pin: pin.clone().unbind(),
            first: first + range.start,
            len: range.len(),
        };
        Bound::new(py, buffer)
    };
    let stream = buffer(layout.pickle)?;
    let buffers = layout.buffers.into_iter().map(buffer);
    let buffers = PyTuple::new(py, buffers.collect::<PyResult<Vec<_>>>()?)?;
    let arguments = PyDict::new(py);
    arguments.set_item(name!(py, "buffers"), buffers)?;
    let loads = LOADS.import(py, "pickle", "loads")?;
    let _looking = Looking::begin(pin.get().is_readonly);
    loads
        .call((stream,), Some(&arguments))
        .inspect_err(|error| {
            if error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyImportError>(py)
            {
                // A note is help, and its failure is no other error.
                let _ = error.value(py).call_method1(
                "add_note",
                (format!(
                    "The object {} was pickled by another program: put the classes and functions \
                     that it names into a module that both programs import.",
                    pin.get().handle
                ),),
            );
            }
        })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Ref>()?;
    module.add_class::<Buffer>()?;
    module.add_function(wrap_pyfunction!(attach, module)?)?;
    module.add_function(wrap_pyfunction!(store, module)?)
}
