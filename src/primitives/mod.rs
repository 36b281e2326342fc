//! Parallel primitives for simulations: gather, prefix sums, reductions and resampling on a pool.
//!
//! They are methods of [`Pool`]. The traits here name the elements that they accept; [`Moments`]
//! and [`SystematicPlan`] need no pool.
//!
//! Each call divides its arrays into tiles of constant sizes, and folds the tiles' results in the
//! order of the tiles. So every result is the same to the last bit for any number and kind of
//! workers. Each call makes the partitions and the working memory that it needs, and frees them
//! even if it fails.

mod elementwise;
pub(crate) mod error;
mod flat;
mod gather;
mod lanes;
mod log;
mod moments;
mod number;
mod reduce;
mod resample;
mod scan;
mod weights;

use bytemuck::Pod;
pub(crate) use error::PrimitiveError;
use ndarray::{ArrayView1, Axis, Dimension, Ix1};

use crate::element::Element;
use crate::handle::Handle;
use crate::handle_table::HandleTable;
use crate::partition::{Group, Partition};
use crate::pool::Pool;
use crate::table::create::Owned;
pub use gather::ArrayIndex;
pub use moments::Moments;
pub use number::{Number, Real};
pub use resample::SystematicPlan;

/// Elements of a tile in all primitives that compute. Results depend on it: another number would
/// round sums differently.
///
/// 4032 elements are about 32 KiB of `f64`, so a tile that is read twice stays in the cache. A
/// multiple of 64 elements makes each tile begin at a cache line, whatever the element.
const TILE: usize = 63 * 64;

impl<'t> Pool<'t> {
    /// Divides arrays into tiles of `TILE` elements.
    fn tiles<G: Group>(&self, group: G) -> Result<Partition<'t, G>, PrimitiveError> {
        Ok(self.table().partition(group, Axis(0), TILE)?)
    }

    /// Creates a working array that all tiles read. Dropping the result frees it.
    fn working<T: Element + Pod>(&self, values: &[T]) -> Result<Owned<'t, T, Ix1>, PrimitiveError> {
        let table = self.table();
        Ok(table.owned(table.from_array(&ArrayView1::from(values))?))
    }
}

/// Returns the shape of an array. Checks its type.
fn shape_of<T: Element, D: Dimension>(
    table: &HandleTable,
    handle: Handle<T, D>,
) -> Result<Vec<usize>, PrimitiveError> {
    Ok(table.attach(handle)?.shape().to_vec())
}

/// Returns the common shape of two arrays, or an error if their shapes differ.
fn same_shape<T: Element, U: Element, D: Dimension>(
    table: &HandleTable,
    operation: &'static str,
    handle: Handle<T, D>,
    other: Handle<U, D>,
) -> Result<Vec<usize>, PrimitiveError> {
    let (found, expected) = (shape_of(table, handle)?, shape_of(table, other)?);
    if found == expected {
        return Ok(found);
    }
    Err(PrimitiveError::Shapes {
        operation,
        handle: handle.into(),
        found,
        other: other.into(),
        expected,
        rule: "the shapes must be equal",
    })
}
