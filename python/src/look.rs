//! Looking at a table: its arrays, its memory, its processes, and damage.
//!
//! An observer reads the words of the segment, by a mapping of its own that lasts for one call. Its
//! results describe one moment.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;

use ndshm::error::LeaseError;
use ndshm::inspect::{ArrayInfo, SeatInfo};
use ndshm::{AnyHandle, Error, Observer, SharedTable};
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustix::fs::{Mode, OFlags};

use crate::dtype;
use crate::error::{self, raise};
use crate::layout::is_object;
use crate::names::{not_found, pin_of_item};
use crate::segment::Joined;
use crate::table::Table;

/// Maps the segment for a look at it.
fn observe(joined: &Joined) -> PyResult<Observer> {
    let fd = joined.segment().fd().ok_or_else(error::closed)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    // A description of its own: else the locks of this process would look like free ones.
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let fd = fd.map_err(|errno| {
        PyOSError::new_err((
            errno.raw_os_error(),
            format!("the table cannot be opened for a look at it: {errno}; mount /proc"),
            path,
        ))
    })?;
    Observer::from_fd(fd).map_err(raise)
}

/// The arrays of a table as an observer has seen them, their names, and the live processes.
struct Seen {
    arrays: Vec<ArrayInfo>,
    names: HashMap<u64, Vec<String>>,
    alive: HashSet<u32>,
}

impl Seen {
    /// Looks at the array of a handle, or at all arrays.
    fn of(
        observer: &Observer,
        table: &SharedTable,
        handle: Option<AnyHandle>,
    ) -> Result<Seen, Error> {
        let arrays = match handle {
            Some(handle) => vec![observer.info(handle)?],
            None => observer.arrays().collect(),
        };
        let mut names = HashMap::<_, Vec<String>>::new();
        // A participant has the pages of the names mapped already: that takes half the time.
        for name in table.names("")? {
            names
                .entry(name.handle.to_bits())
                .or_default()
                .push(name.name);
        }
        let seats = observer.seats()?.into_iter();
        let alive = seats.filter(|seat| seat.alive).map(|seat| seat.pid);
        Ok(Seen {
            arrays,
            names,
            alive: alive.collect(),
        })
    }

    /// Returns the fields of `ndshm.ArrayInfo`.
    fn fields<'py>(&self, py: Python<'py>, info: &ArrayInfo) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        let dtype = match is_object(&info.dtype) {
            true => None,
            false => match dtype::to_numpy(py, &info.dtype) {
                // One array with a type of another numpy does not hide the others.
                Err(error) if error.is_instance_of::<PyException>(py) => None,
                outcome => Some(outcome?),
            },
        };
        let names = self.names.get(&info.handle.to_bits());
        fields.set_item("handle", info.handle.to_string())?;
        fields.set_item(
            "names",
            PyTuple::new(py, names.map_or(&[][..], Vec::as_slice))?,
        )?;
        fields.set_item("dtype", dtype)?;
        fields.set_item("shape", PyTuple::new(py, &info.shape)?)?;
        fields.set_item("order", format!("{:?}", info.order))?;
        fields.set_item("nbytes", info.bytes)?;
        fields.set_item("owner", info.owner)?;
        let is_alive = info.owner.map(|pid| self.alive.contains(&pid));
        fields.set_item("owner_alive", is_alive)?;
        fields.set_item("writer", info.writer)?;
        fields.set_item("readers", PyTuple::new(py, &info.readers)?)?;
        fields.set_item("pins", PyTuple::new(py, &info.pins)?)?;
        fields.set_item("poisoned", info.poisoned)?;
        Ok(fields)
    }
}

/// Looks at one array of a table, or at all.
fn look(py: Python<'_>, joined: &Joined, handle: Option<AnyHandle>) -> PyResult<Seen> {
    // The process does not leave meanwhile.
    let table = joined.table()?;
    let observer = observe(joined)?;
    py.detach(|| Seen::of(&observer, &table, handle))
        .map_err(raise)
}

/// Returns the fields of an array or a `Ref`.
#[pyfunction]
pub(crate) fn look_at_item<'py>(item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = item.py();
    let pin = pin_of_item(item)?;
    let pin = pin.get();
    let seen = look(py, &pin.joined, Some(pin.handle))?;
    let fields = seen.fields(py, &seen.arrays[0])?;
    fields.set_item("sent", pin.is_owned().then(|| pin.is_sent()))?;
    Ok(fields)
}

/// Returns the fields of the array or the object that has a name.
#[pyfunction]
fn look_at_name<'py>(table: &Bound<'py, Table>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let (py, joined) = (table.py(), &table.get().joined);
    loop {
        let shared = joined.table()?;
        let handle = shared.find_any(name).map_err(not_found)?;
        let observer = observe(joined)?;
        let seen = py.detach(|| Seen::of(&observer, &shared, Some(handle)));
        match seen {
            // It was freed since it was found: it has no name any more, or the name has another.
            Err(error) if matches!(error.lease(), Some(LeaseError::Stale { .. })) => {
                py.check_signals()?;
            }
            seen => {
                let seen = seen.map_err(raise)?;
                return seen.fields(py, &seen.arrays[0]);
            }
        }
    }
}

/// Returns the fields of all arrays and objects of a table.
#[pyfunction]
fn look_at_arrays<'py>(table: &Bound<'py, Table>) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = table.py();
    let seen = look(py, &table.get().joined, None)?;
    let arrays = seen.arrays.iter();
    arrays.map(|info| seen.fields(py, info)).collect()
}

/// Returns the fields of `ndshm.TableStat`.
#[pyfunction]
fn table_stat<'py>(table: &Bound<'py, Table>) -> PyResult<Bound<'py, PyDict>> {
    let (py, joined) = (table.py(), &table.get().joined);
    let shared = joined.table()?;
    let observer = observe(joined)?;
    let segment = joined.segment();
    let file = segment.fd().ok_or_else(error::closed)?;
    let look = || {
        let (mut arrays, mut bytes) = (0u64, 0u64);
        for info in observer.arrays() {
            arrays += 1;
            bytes += info.bytes;
        }
        let classes = observer.classes();
        let retained = classes.iter().map(|it| it.kept as u64 * it.extent).sum();
        let names = shared.names("")?.len();
        let committed = rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks as u64 * 512);
        Ok::<_, Error>(Sums {
            arrays,
            bytes,
            retained,
            names,
            committed,
            seats: observer.seats()?,
        })
    };
    let (sums, census) = py.detach(|| (look(), observer.census()));
    let sums: Sums = sums.map_err(raise)?;
    let pids = |alive| {
        let seats = sums.seats.iter().filter(|seat| seat.alive == alive);
        let pids: Vec<u32> = seats.map(|seat| seat.pid).collect();
        PyTuple::new(py, pids)
    };
    let fields = PyDict::new(py);
    fields.set_item("name", segment.name())?;
    fields.set_item("arrays", sums.arrays)?;
    fields.set_item("bytes", sums.bytes)?;
    fields.set_item("names", sums.names)?;
    fields.set_item("retired", census.retired)?;
    fields.set_item("made", census.made)?;
    fields.set_item("freed", census.freed)?;
    fields.set_item("retained", sums.retained)?;
    fields.set_item("committed", sums.committed)?;
    fields.set_item("capacity", segment.capacity())?;
    fields.set_item("processes", pids(true)?)?;
    fields.set_item("dead", pids(false)?)?;
    fields.set_item("seats", segment.max_seats())?;
    Ok(fields)
}

struct Sums {
    arrays: u64,
    bytes: u64,
    retained: u64,
    names: usize,
    committed: u64,
    seats: Vec<SeatInfo>,
}

/// Checks a table. Returns the fields of `ndshm.Verification`.
#[pyfunction]
fn verify<'py>(table: &Bound<'py, Table>) -> PyResult<Bound<'py, PyDict>> {
    let py = table.py();
    let shared = table.get().joined.table()?;
    let found = py.detach(|| shared.verify()).map_err(raise)?;
    let damage: Vec<String> = found.damage.iter().map(ToString::to_string).collect();
    let fields = PyDict::new(py);
    fields.set_item("damage", PyTuple::new(py, damage)?)?;
    fields.set_item("live", found.live)?;
    fields.set_item("poisoned", found.poisoned)?;
    fields.set_item("writers", found.writers)?;
    fields.set_item("readers", found.readers)?;
    fields.set_item("pins", found.pins)?;
    fields.set_item("retired", found.retired)?;
    fields.set_item("in_transit", found.in_transit)?;
    fields.set_item("slots", found.slots)?;
    fields.set_item("seats", found.seats)?;
    Ok(fields)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(look_at_item, module)?)?;
    module.add_function(wrap_pyfunction!(look_at_name, module)?)?;
    module.add_function(wrap_pyfunction!(look_at_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(table_stat, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)
}
