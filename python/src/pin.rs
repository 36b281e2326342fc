//! The base of every array: it keeps the bytes in place, and knows the process that frees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ndshm::AnyHandle;
use ndshm::element::{Order, ScalarType};
use ndshm::shared::SharedPin;
use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::prelude::*;

use crate::error::{self, raise};
use crate::fork::{doubts, give_back};
use crate::kept;
use crate::process;
use crate::readonly;
use crate::scope::Scope;
use crate::segment::Joined;
use crate::shape::Axes;

/// Freeing an array of this size may give back many pages, so other threads run meanwhile.
const LARGE: usize = 1 << 20;

/// This process made the array, or adopted it.
const OWNED: u8 = 1;
/// Its handle was sent.
const SENT: u8 = 2;
/// It is handed over when it is sent.
const GIVEN: u8 = 4;
/// It was handed over: its pickle still lets the first receiver adopt it.
const HANDED: u8 = 8;

/// An array of a table that this process has in view.
///
/// It exports no buffer: so numpy refuses to make a view of it writeable that is not.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct Pin {
    pub(crate) joined: Arc<Joined>,
    /// The place of the pin in `joined`.
    place: usize,
    pub(crate) handle: AnyHandle,
    /// The address of the first byte.
    pub(crate) first: usize,
    pub(crate) len: usize,
    /// No array object shares it: a program may rename the fields of an array's type in place.
    pub(crate) descr: Py<PyArrayDescr>,
    pub(crate) shape: Axes,
    pub(crate) order: Order,
    /// The process that made the value. In a forked child another process owns the array.
    pid: u32,
    state: AtomicU8,
    /// It was found through a read-only table.
    pub(crate) is_readonly: bool,
    /// [`doubts`] when the value was made.
    doubts: u64,
    /// The scope that the array was made in.
    scope: Option<Arc<Scope>>,
}

/// The relation of a new view to its array.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This process has just made the array.
    Made,
    /// It came from elsewhere.
    Received,
    /// It came from elsewhere, and is to be owned by the first process that receives it: see
    /// [`Pin::adopt`].
    Given,
    /// It came from a process that has found it through a read-only table.
    LookedAt,
}

impl Pin {
    /// Pins an array.
    pub(crate) fn new(
        py: Python<'_>,
        joined: &Arc<Joined>,
        handle: AnyHandle,
        origin: Origin,
    ) -> PyResult<Pin> {
        let pin = joined.table()?.pin(handle).map_err(raise)?;
        Pin::of_array(py, joined, pin, origin)
    }

    /// Keeps the pin of an array.
    pub(crate) fn of_array(
        py: Python<'_>,
        joined: &Arc<Joined>,
        pin: SharedPin,
        origin: Origin,
    ) -> PyResult<Pin> {
        let descr = crate::dtype::to_numpy(py, pin.dtype())?;
        Pin::of(py, joined, pin, descr, origin)
    }

    /// Keeps the pin of an object, as one of bytes.
    pub(crate) fn of_object(
        py: Python<'_>,
        joined: &Arc<Joined>,
        pin: SharedPin,
        origin: Origin,
    ) -> PyResult<Pin> {
        let descr = crate::dtype::scalar_descr(py, ScalarType::U8)?;
        let mut pin = Pin::of(py, joined, pin, descr, origin)?;
        if origin == Origin::Given {
            pin.adopt()?;
        }
        Ok(pin)
    }

    fn of(
        py: Python<'_>,
        joined: &Arc<Joined>,
        pin: SharedPin,
        descr: Bound<'_, PyArrayDescr>,
        origin: Origin,
    ) -> PyResult<Pin> {
        let handle = pin.handle();
        let mut shape = Axes::none();
        for &length in pin.shape() {
            shape.push(length as isize)?;
        }
        let order = pin.order();
        let (first, len) = (pin.as_ptr().as_ptr() as usize, pin.len());
        let scope = match origin {
            Origin::Made => Scope::current(py, joined.id())?,
            _ => None,
        };
        let place = joined.insert_pin(pin).ok_or_else(error::closed)?;
        let is_owned = origin == Origin::Made;
        Ok(Pin {
            joined: Arc::clone(joined),
            place,
            handle,
            first,
            len,
            descr: descr.unbind(),
            shape,
            order,
            pid: if is_owned { process::pid() } else { 0 },
            state: AtomicU8::new(if is_owned { OWNED } else { 0 }),
            is_readonly: origin == Origin::LookedAt || !is_owned && readonly::is_looking(),
            doubts: doubts(),
            scope,
        })
    }

    /// Returns the strides of the array in bytes.
    pub(crate) fn strides(&self, py: Python<'_>) -> Axes {
        self.shape
            .strides(self.descr.bind(py).itemsize(), self.order)
    }

    fn has(&self, bit: u8) -> bool {
        self.state.load(Ordering::Relaxed) & bit != 0
    }

    /// Refuses a change of an array that was found through a read-only table.
    pub(crate) fn check_writeable(&self) -> PyResult<()> {
        match self.is_readonly {
            true => Err(readonly::refuse_item(&self.joined, self.handle)),
            false => Ok(()),
        }
    }

    /// Returns `true` if the handle of an array that this process frees was sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.has(SENT) && self.is_owned()
    }

    /// Returns `true` if this process frees the array.
    pub(crate) fn is_owned(&self) -> bool {
        self.has(OWNED) && self.pid == process::pid()
    }

    /// Returns `true` if the array is handed over when it is sent, or was.
    pub(crate) fn is_given(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let is_given = state & HANDED != 0 || state & (OWNED | GIVEN) == OWNED | GIVEN;
        is_given && self.pid == process::pid()
    }

    /// Notes that the array is sent, which can no longer fail. Hands it over if it is given.
    pub(crate) fn send(&self) -> PyResult<()> {
        self.joined.keep();
        if !self.is_owned() {
            return Ok(());
        }
        if self.has(GIVEN) {
            self.let_go(SENT | HANDED)?;
        } else if self.state.fetch_or(SENT, Ordering::Relaxed) & SENT == 0
            && let Some(scope) = &self.scope
        {
            scope.add(self.handle);
        }
        Ok(())
    }

    /// Makes the next [`send`](Pin::send) hand the array over.
    pub(crate) fn give(&self) {
        self.state.fetch_or(GIVEN, Ordering::Relaxed);
    }

    /// Makes the array outlive this process, and the scope that it was made in.
    pub(crate) fn detach(&self) -> PyResult<()> {
        self.let_go(SENT)
    }

    /// Detaches the array from this process and from its scope.
    fn let_go(&self, state: u8) -> PyResult<()> {
        let table = self.joined.table()?;
        table.detach(self.handle).map_err(raise)?;
        self.state.store(state, Ordering::Relaxed);
        if let Some(scope) = &self.scope {
            scope.remove(self.handle);
        }
        Ok(())
    }

    /// Makes this process the owner, if the array has none and may be changed.
    pub(crate) fn adopt(&mut self) -> PyResult<()> {
        if self.is_readonly {
            return Ok(());
        }
        // Another process may have received it before.
        if self.joined.table()?.adopt(self.handle).is_ok() {
            kept::made(&self.joined);
            self.pid = process::pid();
            self.state.store(OWNED, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the state that [`take_back`](Pin::take_back) restores.
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Takes back an array that was just [detached](Pin::detach), with the [state](Pin::state) that
    /// it had before. If another process has adopted it meanwhile, that one frees it.
    pub(crate) fn take_back(&self, state: u8) {
        let table = self.joined.table_to_give_back();
        if table.is_none_or(|table| table.adopt(self.handle).is_err()) {
            return;
        }
        self.state.store(state, Ordering::Relaxed);
        if state & SENT != 0
            && let Some(scope) = &self.scope
        {
            scope.add(self.handle);
        }
    }

    /// Returns `true` if the bytes are still the array's, also in a forked child.
    pub(crate) fn is_kept(&self) -> bool {
        self.joined.is_kept_pin(self.place)
    }
}

/// The pin of an array after its last view, with all that its release needs.
pub(crate) struct Dropped {
    joined: Arc<Joined>,
    place: usize,
    handle: AnyHandle,
    len: usize,
    /// The process that owns the array, or 0.
    pid: u32,
    is_sent: bool,
    doubts: u64,
}

impl Dropped {
    /// Gives the pin back, and frees the array if this process owns it and nobody else knows it.
    pub(crate) fn give_back(&self) {
        let is_owned = self.pid == process::pid();
        // A child may have a view without a pin. This pin stays, for it.
        if self.doubts != doubts() {
            if is_owned {
                self.joined.note_sent(self.handle, self.len as u64);
            }
            return;
        }
        let Some((pin, table)) = self.joined.remove_pin(self.place) else {
            return;
        };
        // Unpinned first: the memory is then free at once.
        drop(pin);
        if !is_owned {
            return;
        }
        if self.is_sent {
            self.joined.note_sent(self.handle, self.len as u64);
            return;
        }
        // The array may be free already.
        let free = || _ = table.free(self.handle);
        let is_large = self.len >= LARGE;
        // An interpreter that is ending has no other threads.
        if !is_large || Python::try_attach(|py| py.detach(free)).is_none() {
            free();
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        give_back(Dropped {
            joined: Arc::clone(&self.joined),
            place: self.place,
            handle: self.handle,
            len: self.len,
            pid: if self.has(OWNED) { self.pid } else { 0 },
            is_sent: self.has(SENT),
            doubts: self.doubts,
        });
    }
}

#[pymethods]
impl Pin {
    fn __repr__(&self) -> String {
        format!("<pin of {} at {:#x}>", self.handle, self.first)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Pin>()
}
