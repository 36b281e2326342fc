//! Names of arrays and objects, as the items of a mapping.

use std::sync::Arc;

use ndshm::AnyHandle;
use ndshm::error::{LeaseError, NameError};
use numpy::PyUntypedArray;
use numpy::npyffi::NPY_ARRAY_WRITEABLE;
use pyo3::prelude::*;

use crate::array::{self, fields, find_pin, pin_of};
use crate::error::{exception, raise};
use crate::layout::is_object;
use crate::object::{Ref, load, refused};
use crate::pickle::is_whole;
use crate::pin::{Origin, Pin};
use crate::readonly::Looking;
use crate::segment::Joined;
use crate::table::Table;

/// Returns the exception for a name that was looked up.
pub(crate) fn not_found(error: NameError) -> PyErr {
    match error {
        // No item has such a name.
        NameError::Length { .. } => exception("NameNotFound", error.to_string()),
        error => raise(error),
    }
}

/// Returns the array or the `Ref` of a handle, or `None` if it is stale.
fn item<'py>(
    py: Python<'py>,
    joined: &Arc<Joined>,
    handle: AnyHandle,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let pin = match joined.table()?.pin(handle) {
        Err(LeaseError::Stale { .. }) => return Ok(None),
        outcome => outcome.map_err(raise)?,
    };
    let found = match is_object(pin.dtype()) {
        true => Ref::of(py, joined, pin, Origin::Received)?.into_any(),
        false => {
            let pin = Pin::of_array(py, joined, pin, Origin::Received)?;
            array::of_pin(py, pin, true)?
        }
    };
    Ok(Some(found))
}

/// Returns the array or the `Ref` of a name.
#[pyfunction]
fn find_named<'py>(table: &Bound<'py, Table>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let joined = &table.get().joined;
    let _looking = Looking::begin(table.get().is_readonly);
    loop {
        let handle = joined.table()?.find_any(name).map_err(not_found)?;
        // One that was freed since it was found has no name any more, or the name has another.
        if let Some(found) = item(table.py(), joined, handle)? {
            return Ok(found);
        }
    }
}

/// Loads the object that a name has led to. It may have been freed since: another program may have
/// given the name to another value. Its bytes are pinned.
#[pyfunction]
fn load_named<'py>(
    table: &Bound<'py, Table>,
    found: &Bound<'py, Ref>,
) -> PyResult<Bound<'py, PyAny>> {
    let pin = found.get().pin.bind(table.py());
    match table.get().allow_pickle {
        true => load(pin),
        false => Err(refused(pin.get().handle)),
    }
}

/// Returns whether something has the name.
#[pyfunction]
fn has_name(table: &Bound<'_, Table>, name: &str) -> PyResult<bool> {
    match table.get().joined.table()?.find_any(name) {
        Ok(_) => Ok(true),
        Err(NameError::NotFound { .. } | NameError::Length { .. }) => Ok(false),
        Err(error) => Err(raise(error)),
    }
}

/// Returns all names that begin with `prefix`, sorted.
#[pyfunction]
fn names(table: &Bound<'_, Table>, prefix: &str) -> PyResult<Vec<String>> {
    let shared = table.get().joined.table()?;
    let names = table.py().detach(|| shared.names(prefix)).map_err(raise)?;
    Ok(names.into_iter().map(|info| info.name).collect())
}

/// Returns the pin of an array or a `Ref`.
pub(crate) fn pin_of_item<'py>(item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Pin>> {
    match item.cast::<Ref>() {
        Ok(object) => Ok(object.get().pin.bind(item.py()).clone()),
        Err(_) => pin_of(item),
    }
}

/// Gives a name to an array or a `Ref` that this process owns. Frees the earlier item of the name
/// if `replace` is set; otherwise returns `False` if there is one.
///
/// The item outlives this process from now on.
#[pyfunction]
fn give_name(
    table: &Bound<'_, Table>,
    name: &str,
    item: &Bound<'_, PyAny>,
    replace: bool,
) -> PyResult<bool> {
    table.get().check_writeable()?;
    let pin = pin_of_item(item)?;
    let (pin, handle) = (pin.get(), pin.get().handle);
    let shared = table.get().joined.table()?;
    let state = pin.state();
    // First: at no moment the name has an item that goes with this process.
    pin.detach()?;
    let given = table.py().detach(|| match replace {
        true => {
            let before = shared.replace(name, handle)?;
            if let Some(before) = before.filter(|before| *before != handle) {
                // Others may have freed it; or it is a queue, which then lives without the name.
                let _ = shared.free(before);
            }
            Ok(true)
        }
        false => match shared.publish(name, handle) {
            Err(NameError::Taken { .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        },
    });
    if !matches!(given, Ok(true)) {
        pin.take_back(state);
    }
    given.map_err(raise)
}

/// Removes a name. Returns the array or the `Ref` that had it, which is not freed yet.
#[pyfunction]
fn take_name<'py>(table: &Bound<'py, Table>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    table.get().check_writeable()?;
    let joined = &table.get().joined;
    loop {
        let handle = joined.table()?.unpublish(name).map_err(not_found)?;
        // One that was freed before had no name.
        if let Some(found) = item(table.py(), joined, handle)? {
            return Ok(found);
        }
    }
}

/// Removes a name, and frees its item.
#[pyfunction]
fn remove_name(table: &Bound<'_, Table>, name: &str) -> PyResult<()> {
    table.get().check_writeable()?;
    let shared = table.get().joined.table()?;
    let removed = table.py().detach(|| {
        let handle = shared.unpublish(name)?;
        // Others may have freed it; or it is a queue, which then lives without the name.
        let _ = shared.free(handle);
        Ok(())
    });
    removed.map_err(not_found)
}

/// Returns whether an array may have a name without a copy: it is an array of the table as a whole,
/// which this process owns and may write.
#[pyfunction]
fn is_nameable(table: &Bound<'_, Table>, array: &Bound<'_, PyUntypedArray>) -> PyResult<bool> {
    let Some(pin) = find_pin(array) else {
        return Ok(false);
    };
    let pin = pin.get();
    let is_ours = pin.joined.id() == table.get().joined.id()
        && pin.is_owned()
        && fields(array).fields.flags & NPY_ARRAY_WRITEABLE != 0;
    Ok(is_ours && is_whole(array, pin)?)
}

/// Returns whether the array has this name already.
#[pyfunction]
fn is_named(
    table: &Bound<'_, Table>,
    name: &str,
    array: &Bound<'_, PyUntypedArray>,
) -> PyResult<bool> {
    let Some(pin) = find_pin(array) else {
        return Ok(false);
    };
    let (pin, joined) = (pin.get(), &table.get().joined);
    if pin.joined.id() != joined.id() || !is_whole(array, pin)? {
        return Ok(false);
    }
    let found = joined.table()?.find_any(name);
    Ok(found.is_ok_and(|found| found == pin.handle))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(find_named, module)?)?;
    module.add_function(wrap_pyfunction!(has_name, module)?)?;
    module.add_function(wrap_pyfunction!(load_named, module)?)?;
    module.add_function(wrap_pyfunction!(names, module)?)?;
    module.add_function(wrap_pyfunction!(give_name, module)?)?;
    module.add_function(wrap_pyfunction!(take_name, module)?)?;
    module.add_function(wrap_pyfunction!(remove_name, module)?)?;
    module.add_function(wrap_pyfunction!(is_nameable, module)?)?;
    module.add_function(wrap_pyfunction!(is_named, module)?)
}
