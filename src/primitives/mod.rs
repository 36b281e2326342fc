//! Parallel primitives of simulations: gather, prefix sums, reductions and resampling on a pool.
//!
//! Each call divides its arrays into tiles whose sizes are constants of this crate, and folds what
//! the tiles give in their order. So every result is the same to the last bit for any number of
//! workers, and for workers of any kind. Each call makes the partitions and the working memory that
//! it needs and gives them back, also when it fails.

mod elementwise;
mod flat;
mod gather;
mod log;
mod number;
mod reduce;
mod resample;
mod scan;
mod weights;

use bytemuck::Pod;
use ndarray::{ArrayView1, Axis, Dimension, Ix1};

use crate::element::Element;
use crate::error::PrimitiveError;
use crate::handle::Handle;
use crate::partition::{Group, Partition};
use crate::pool::Pool;
use crate::table::{HandleTable, Owned};
pub use gather::ArrayIndex;
pub use number::{Number, Real};

/// Elements of a tile in all that computes. Part of the results: another number would round sums
/// differently.
///
/// About 32 KiB of `f64`, so that a tile that is looked at twice is in the cache. Not a power of
/// two: the eight lanes of a tile, which are gone through at once, would begin at the same place of
/// each page, and evict each other from a cache that tells addresses apart by that place (measured:
/// prefix sums took four times as long).
const TILE: usize = 63 * 64;

impl<'t> Pool<'t> {
    /// Tiles of `TILE` elements.
    fn tiles<G: Group>(&self, group: G) -> Result<Partition<'t, G>, PrimitiveError> {
        Ok(self.table().partition(group, Axis(0), TILE)?)
    }

    /// A working array that all tiles read, freed when it is dropped.
    fn working<T: Element + Pod>(&self, values: &[T]) -> Result<Owned<'t, T, Ix1>, PrimitiveError> {
        let table = self.table();
        Ok(table.owned(table.from_array(&ArrayView1::from(values))?))
    }
}

/// The shape of an array, whose type is checked on the way.
fn shape_of<T: Element, D: Dimension>(
    table: &HandleTable,
    handle: Handle<T, D>,
) -> Result<Vec<usize>, PrimitiveError> {
    Ok(table.attach(handle)?.shape().to_vec())
}

/// Refuses two arrays of different shapes.
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
