//! Tables, and the functions on the default table.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use ndshm::error::SegmentError;
use ndshm::inspect::ArrayInfo;
use ndshm::segment::HugePages;
use ndshm::{Segment, SegmentOptions};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::array::{Contents, create};
use crate::error::{self, raise};
use crate::fork::Changing;
use crate::found::Found;
use crate::scope::ScopeManager;
use crate::segment::{Joined, lock};
use crate::{pickle, process, readonly, shape};

/// The capacity of a table, in multiples of the machine's memory. It is address space: it limits
/// how many tables a process can have, and sizes that change much over time use more of it than of
/// memory.
const TIMES_MEMORY: u64 = 16;

/// The seats of a table. A process needs one; pools of processes come and go.
const SEATS: u32 = 1024;

/// The mode of a table that is only looked at.
const READ_ONLY: &str = "ro";

/// The base of `ndshm.Table`: a segment, and this process's part in it.
#[pyclass(frozen, subclass, module = "ndshm._ndshm")]
pub(crate) struct Table {
    pub(crate) joined: Arc<Joined>,
    /// Objects may be loaded and stored through this object.
    pub(crate) allow_pickle: bool,
    /// Nothing may be changed through this object.
    pub(crate) is_readonly: bool,
}

impl Table {
    fn of(joined: Arc<Joined>, allow_pickle: bool, is_readonly: bool) -> Table {
        if !allow_pickle {
            joined.refuses_pickles.store(true, Ordering::Relaxed);
        }
        Table {
            joined,
            allow_pickle,
            is_readonly,
        }
    }

    /// Refuses a change if the table may only be looked at.
    pub(crate) fn check_writeable(&self) -> PyResult<()> {
        match self.is_readonly {
            true => Err(readonly::refuse_table(self)),
            false => Ok(()),
        }
    }

    /// Returns a table object of a segment that this process has joined.
    pub(crate) fn object<'py>(
        py: Python<'py>,
        joined: &Arc<Joined>,
        is_readonly: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = PyDict::new(py);
        arguments.set_item("_address", pickle::address(py, joined)?)?;
        let refuses = joined.refuses_pickles.load(Ordering::Relaxed);
        arguments.set_item("allow_pickle", !refuses)?;
        if is_readonly {
            arguments.set_item("mode", READ_ONLY)?;
        }
        class(py)?.call((), Some(&arguments))
    }
}

/// Returns the class `ndshm.Table`.
fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: Found<PyAny> = Found::new();
    CLASS.import(py, "ndshm._table", "Table")
}

/// The default table, after its first use. A closed one is replaced at the next use.
static DEFAULT: Mutex<Option<Py<Table>>> = Mutex::new(None);

/// Returns the default table.
fn default_table(py: Python<'_>) -> PyResult<Bound<'_, Table>> {
    let usable = |table: &Option<Py<Table>>| {
        let table = table.as_ref()?;
        (!table.get().joined.has_left()).then(|| table.clone_ref(py).into_bound(py))
    };
    if let Some(table) = usable(&lock(&DEFAULT)) {
        return Ok(table);
    }
    if process::has_ended() {
        return Err(error::closed());
    }
    // Without the lock, because it runs Python code and lets other threads run.
    let made = class(py)?.call0()?.cast_into::<Table>()?;
    let (table, other) = {
        let mut place = lock(&DEFAULT);
        match usable(&place) {
            // Another thread was faster.
            Some(table) => (table, None),
            None => (made.clone(), place.replace(made.clone().unbind())),
        }
    };
    drop(other);
    // It stays, also if nobody has it in view.
    table.get().joined.keep();
    Ok(table)
}

fn options(
    capacity: Option<u64>,
    retain: Option<u64>,
    seats: Option<u32>,
    huge_pages: bool,
) -> SegmentOptions {
    let capacity = capacity.unwrap_or(TIMES_MEMORY.saturating_mul(process::memory()));
    let options = Segment::options()
        .capacity(capacity)
        .seats(seats.unwrap_or(SEATS))
        .huge_pages(match huge_pages {
            true => HugePages::Advise,
            false => HugePages::AsSystem,
        });
    match retain {
        Some(retain) => options.retain(retain),
        None => options,
    }
}

#[pymethods]
impl Table {
    #[new]
    #[allow(
        clippy::too_many_arguments,
        reason = "they are the keywords of the class"
    )]
    #[pyo3(signature = (name = None, mode = "a", *, capacity = None, retain = None, seats = None, allow_pickle = true, huge_pages = false, _address = None))]
    fn new(
        py: Python<'_>,
        name: Option<&str>,
        mode: &str,
        capacity: Option<u64>,
        retain: Option<u64>,
        seats: Option<u32>,
        allow_pickle: bool,
        huge_pages: bool,
        _address: Option<&[u8]>,
    ) -> PyResult<Table> {
        let is_readonly = mode == READ_ONLY;
        if let Some(address) = _address {
            let joined = pickle::open_address(py, address)?;
            let is_readonly = is_readonly || readonly::is_looking();
            return Ok(Table::of(joined, allow_pickle, is_readonly));
        }
        let options = options(capacity, retain, seats, huge_pages);
        // Until the segment is known, so that a child finds it.
        let _changing = Changing::begin(py);
        let made: Result<Segment, SegmentError> = match (name, mode) {
            (None, READ_ONLY) => {
                return Err(PyValueError::new_err(
                    "a new table without a name is empty, so mode=\"ro\" is not for it: name the \
                     table to be looked at, as by ndshm.open(\"name\", \"ro\")",
                ));
            }
            (None, _) => py.detach(|| options.anonymous()),
            (Some(name), "a") => py.detach(|| options.open_or_create(name)),
            (Some(name), "r" | READ_ONLY) => py.detach(|| options.open(name)),
            (Some(name), "x") => py.detach(|| options.create(name)),
            (Some(_), mode) => {
                return Err(PyValueError::new_err(format!(
                    "the mode {mode:?} is not known: 'a' opens the table or makes it, 'r' opens \
                     it, 'ro' opens it to look at it only, 'x' makes it"
                )));
            }
        };
        let joined = Joined::enter(made.map_err(raise)?, None)?;
        Ok(Table::of(joined, allow_pickle, is_readonly))
    }

    /// Return whether objects may be loaded and stored.
    #[getter]
    fn allow_pickle(&self) -> bool {
        self.allow_pickle
    }

    /// Return whether the table was opened with the mode "ro", to look at it only.
    #[getter]
    fn readonly(&self) -> bool {
        self.is_readonly
    }

    /// Return the name, or None.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.joined.segment().name()
    }

    /// Return the number by which processes recognize the table.
    #[getter]
    fn id(&self) -> u64 {
        self.joined.id()
    }

    /// Return the bytes of address space for the contents of all arrays.
    #[getter]
    fn capacity(&self) -> u64 {
        self.joined.segment().capacity()
    }

    /// Return a text on the huge pages of this process: those that the system grants, or the remedy.
    #[getter]
    fn huge_pages(&self) -> String {
        let found = self.joined.segment().huge_pages();
        let setting = found.setting.as_deref().unwrap_or("not known");
        let remedy = match found.place.starts_with("/sys") {
            _ if found.is_granted() => String::new(),
            _ if found.asked == HugePages::AsSystem => {
                "; make the table with huge_pages=True".into()
            }
            _ if !matches!(setting, "never" | "deny") => String::new(),
            true => format!("; as root: echo advise > {}", found.place),
            false => "; as root: mount -o remount,huge=advise /dev/shm".into(),
        };
        format!(
            "{} of {} bytes in huge pages ({}: {setting}){remedy}",
            found.mapped_huge, found.mapped, found.place
        )
    }

    /// Return whether this process has left the table.
    #[getter]
    fn closed(&self) -> bool {
        self.joined.has_left()
    }

    /// Create an array of zeros.
    #[pyo3(signature = (shape, dtype = None, order = "C"))]
    fn zeros<'py>(
        &self,
        py: Python<'py>,
        shape: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        order: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check_writeable()?;
        let order = shape::order(order)?;
        create(py, &self.joined, shape, dtype, order, Contents::Zeros)
    }

    /// Create an array of unspecified contents.
    #[pyo3(signature = (shape, dtype = None, order = "C"))]
    fn empty<'py>(
        &self,
        py: Python<'py>,
        shape: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        order: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check_writeable()?;
        let order = shape::order(order)?;
        create(py, &self.joined, shape, dtype, order, Contents::Unspecified)
    }

    /// Return a context manager: the end of its block frees the arrays that were made in it and sent.
    fn scope(&self) -> ScopeManager {
        ScopeManager::new(&self.joined)
    }

    /// The handles of all arrays that live in the table, of all processes.
    fn handles(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let table = self.joined.table()?;
        let text = |info: ArrayInfo| info.handle.to_string();
        Ok(py.detach(|| table.arrays().map(text).collect()))
    }

    /// Reclaim the seats, arrays, leases and pins of dead processes. Return their numbers.
    fn reap<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check_writeable()?;
        let table = self.joined.table()?;
        let report = py.detach(|| table.reap()).map_err(raise)?;
        let counts = PyDict::new(py);
        counts.set_item("seats", report.seats)?;
        counts.set_item("arrays", report.arrays_freed)?;
        counts.set_item("leases", report.leases)?;
        counts.set_item("pins", report.pins)?;
        counts.set_item("poisoned", report.poisoned.len())?;
        Ok(counts)
    }

    /// Give the memory of freed arrays back to the system. Return the number of bytes.
    fn trim(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_writeable()?;
        let table = self.joined.table()?;
        py.detach(|| table.trim()).map_err(raise)
    }

    /// Leave the table: frees the arrays of this process. Views keep their contents.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let (bytes, limit) = (self.joined.bytes_in_view(), process::memory() / 4);
        if bytes > limit {
            return Err(PyBufferError::new_err(format!(
                "the table cannot be closed: views of its arrays show {bytes} bytes, which close() \
                 copies, and more than {limit} bytes are not copied; drop the views first, as by \
                 `del x`"
            )));
        }
        self.joined.leave(py, true)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.close(py) {
            // The exception of the block says more, and may be the reason: its frames keep objects.
            Err(_) if !kind.is_none() => Ok(()),
            outcome => outcome,
        }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let other = other.cast::<Table>();
        other.is_ok_and(|other| other.get().joined.id() == self.joined.id())
    }

    fn __hash__(&self) -> u64 {
        self.joined.id()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.joined.keep();
        let open = py.import("ndshm._table")?.getattr("_from_address")?;
        let address: Bound<'py, PyBytes> = pickle::address(py, &self.joined)?;
        let mode = if self.is_readonly { READ_ONLY } else { "r" };
        (open, (address, self.allow_pickle, mode)).into_pyobject(py)
    }
}

/// Return the default table: anonymous, and made at its first use.
#[pyfunction]
#[pyo3(name = "default")]
fn default_object(py: Python<'_>) -> PyResult<Bound<'_, Table>> {
    default_table(py)
}

/// Create an array of zeros in the default table.
#[pyfunction]
#[pyo3(signature = (shape, dtype = None, order = "C"))]
fn zeros<'py>(
    py: Python<'py>,
    shape: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    order: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    default_table(py)?.get().zeros(py, shape, dtype, order)
}

/// Create an array of unspecified contents in the default table.
#[pyfunction]
#[pyo3(signature = (shape, dtype = None, order = "C"))]
fn empty<'py>(
    py: Python<'py>,
    shape: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    order: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    default_table(py)?.get().empty(py, shape, dtype, order)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Table>()?;
    module.add_function(wrap_pyfunction!(default_object, module)?)?;
    module.add_function(wrap_pyfunction!(zeros, module)?)?;
    module.add_function(wrap_pyfunction!(empty, module)?)
}
