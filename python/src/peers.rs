//! The processes of a table: owners of arrays, living processes, and a wait for their end.

use std::time::Instant;

use ndshm::{Gone, Peer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{self, raise};
use crate::lease;
use crate::names::{not_found, pin_of_item};
use crate::table::Table;

/// A participant as Python keeps it: the seat, the pid, and how often the seat was taken.
type Fields = (u32, u32, u64);

fn fields(peer: Peer) -> Fields {
    let [low, epoch]: [u64; 2] = ndshm::bytemuck::cast(peer);
    (low as u32, (low >> 32) as u32, epoch)
}

fn peer((seat, pid, epoch): Fields) -> Peer {
    ndshm::bytemuck::cast([u64::from(pid) << 32 | u64::from(seat), epoch])
}

/// Returns this process, as others see it.
#[pyfunction]
fn own_peer(table: &Bound<'_, Table>) -> PyResult<Fields> {
    let shared = table.get().joined.table()?;
    shared.peer().map(fields).map_err(raise)
}

/// Returns the living processes.
#[pyfunction]
fn peers(table: &Bound<'_, Table>) -> PyResult<Vec<Fields>> {
    let shared = table.get().joined.table()?;
    let found = table.py().detach(|| shared.peers()).map_err(raise)?;
    Ok(found.into_iter().map(fields).collect())
}

/// Returns the process that owns an array or a `Ref`, or `None` if no process does.
#[pyfunction]
fn owner_of_item(table: &Bound<'_, Table>, item: &Bound<'_, PyAny>) -> PyResult<Option<Fields>> {
    let pin = pin_of_item(item)?;
    let handle = pin.get().handle;
    if pin.get().joined.id() != table.get().joined.id() {
        return Err(PyValueError::new_err(format!(
            "{handle} is of another table: ask that, as by x.table.owner(x)"
        )));
    }
    let shared = table.get().joined.table()?;
    let owner = shared.owner(handle).map_err(raise)?;
    Ok(owner.map(fields))
}

/// Returns the process that owns the value of a name, or `None` if no process does.
#[pyfunction]
fn owner_of_name(table: &Bound<'_, Table>, name: &str) -> PyResult<Option<Fields>> {
    let shared = table.get().joined.table()?;
    let handle = shared.find_any(name).map_err(not_found)?;
    let owner = shared.owner(handle).map_err(raise)?;
    Ok(owner.map(fields))
}

/// Returns whether a process of the table lives.
#[pyfunction]
fn is_alive(table: &Bound<'_, Table>, process: Fields) -> PyResult<bool> {
    let shared = table.get().joined.table()?;
    shared.is_alive(peer(process)).map_err(raise)
}

/// The end of a process or of a name.
#[derive(IntoPyObject)]
enum Ended {
    Process(Fields),
    Name(String),
}

/// Waits until one of the processes or names ends, without the interpreter. Returns `None` after the
/// timeout.
#[pyfunction]
fn watch(
    table: &Bound<'_, Table>,
    processes: Vec<Fields>,
    names: Vec<String>,
    timeout: Option<f64>,
) -> PyResult<Option<Ended>> {
    let (py, joined) = (table.py(), &table.get().joined);
    let timeout = lease::timeout(timeout)?;
    let mut watch = joined.table()?.watch();
    for process in processes {
        watch.peer(peer(process));
    }
    for name in names {
        watch.name(&name).map_err(not_found)?;
    }
    let start = Instant::now();
    loop {
        let left = match timeout {
            Some(timeout) => timeout.saturating_sub(start.elapsed()),
            None => lease::SLICE,
        };
        let slice = left.min(lease::SLICE);
        if joined.is_leaving() {
            // That may fail. A thread that waits does not keep it from happening.
            py.detach(|| std::thread::sleep(slice));
        }
        // Taken anew for each slice: while a thread has it, the process does not leave.
        let shared = joined.table_to_give_back().ok_or_else(error::closed)?;
        let gone = py.detach(|| watch.wait(slice)).map_err(raise)?;
        drop(shared);
        match gone {
            Some(Gone::Peer(peer)) => return Ok(Some(Ended::Process(fields(peer)))),
            Some(Gone::Name { name, .. }) => return Ok(Some(Ended::Name(name))),
            // Of kinds that are not watched here.
            Some(_) => {}
            None if timeout.is_some() && left <= slice => return Ok(None),
            None => {}
        }
        py.check_signals()?;
        if watch.is_empty() {
            return Ok(None);
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(own_peer, module)?)?;
    module.add_function(wrap_pyfunction!(peers, module)?)?;
    module.add_function(wrap_pyfunction!(owner_of_item, module)?)?;
    module.add_function(wrap_pyfunction!(owner_of_name, module)?)?;
    module.add_function(wrap_pyfunction!(is_alive, module)?)?;
    module.add_function(wrap_pyfunction!(watch, module)?)
}
