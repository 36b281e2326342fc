//! Arrays that are divided into tiles.

use std::sync::Arc;

use ndshm::element::{DType, Order, ScalarType};
use ndshm::partition::{AccessMode, OwnedPartition, UntypedGroup};
use ndshm::{AnyHandle, Grid};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::slot::Slot;
use crate::array::pin_of;
use crate::error::raise;
use crate::process;
use crate::segment::Joined;
use crate::table::Table;

/// The arrays of a call, divided along their first axis. The parent of a pool keeps it from call to
/// call.
#[pyclass(frozen, module = "ndshm._ndshm")]
pub(crate) struct Tiles {
    joined: Arc<Joined>,
    pub(super) partition: Slot<OwnedPartition>,
    pub(super) handle: u64,
    pub(super) count: usize,
    /// An array without bytes that has the rows, if no array of the call can be cut.
    rows: Option<AnyHandle>,
    /// The process that made the value. In a forked child all of it is the parent's.
    pid: u32,
}

#[pymethods]
impl Tiles {
    /// `arrays` has for each array whether its rows are written, or cut, or whether every tile reads
    /// all of it: `"w"`, `"r"` or `"a"`.
    #[new]
    fn new(
        table: &Bound<'_, Table>,
        arrays: Vec<(Bound<'_, PyAny>, String)>,
        rows: usize,
        tile: usize,
    ) -> PyResult<Tiles> {
        let joined = Arc::clone(&table.get().joined);
        let table = joined.table()?;
        let mut members = Vec::with_capacity(arrays.len() + 1);
        for (place, (array, mode)) in arrays.iter().enumerate() {
            let pin = pin_of(array)?;
            let stored = pin.get().shape.as_slice().first();
            let is_cut = stored.is_some_and(|&stored| stored as usize == rows);
            let mode = match (mode.as_str(), is_cut) {
                ("w", true) => AccessMode::Write,
                ("w", false) => {
                    return Err(PyValueError::new_err(format!(
                        "array {place} of the call is a view with {rows} rows of an array with {} \
                         rows: a view that is written has as many rows as its array; pass the \
                         array itself, or ndshm.readonly(view) if the function only reads it",
                        stored.copied().unwrap_or(0)
                    )));
                }
                ("r", true) => AccessMode::Read,
                // A lease of all of it. Python cuts the rows of the view.
                _ => AccessMode::Whole,
            };
            if pin.get().joined.id() != joined.id() {
                return Err(PyValueError::new_err(
                    "an array is in another table than the pool: make the pool with the table of \
                     the arrays, as by ndshm.Pool(2, x.table)",
                ));
            }
            members.push((pin.get().handle, mode));
        }
        let has_rows = |mode: &AccessMode| matches!(mode, AccessMode::Write | AccessMode::Read);
        let mut made = None;
        if !members.iter().any(|(_, mode)| has_rows(mode)) {
            let element = DType::Scalar(ScalarType::U8);
            let handle = table.zeros_untyped(&element, &[rows, 0], Order::C);
            let handle = handle.map_err(raise)?;
            members.push((handle, AccessMode::Read));
            made = Some(handle);
        }
        let grid = Grid::blocks([(ndarray::Axis(0), tile)]);
        let partition = table
            .partition_untyped(UntypedGroup::new(members), &grid)
            .map_err(|error| {
                // Nobody else has the handle.
                let _ = made.map(|handle| table.free(handle));
                raise(error)
            })?;
        Ok(Tiles {
            joined,
            handle: partition.handle().to_bits(),
            count: partition.tiles(),
            partition: Slot::new(partition),
            rows: made,
            pid: process::pid(),
        })
    }

    /// The number of tiles.
    fn __len__(&self) -> usize {
        self.count
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.pid != process::pid() {
            return;
        }
        // Without a table the process has left, which frees both.
        let Some(table) = self.joined.table_to_give_back() else {
            return;
        };
        if let Some(partition) = self.partition.remove() {
            let _ = partition.free(&*table);
        }
        if let Some(rows) = self.rows {
            let _ = table.free(rows);
        }
    }
}
