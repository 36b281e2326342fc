//! First touch: each worker makes the pages of its own tiles.

use super::Pool;
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel;
use super::unit::Grain;
use crate::partition::extents::{Extents, Part};
use crate::partition::{Group, Partition};
use crate::pool::error::PoolError;
use crate::segment::Segment;
use crate::segment::huge_pages::Touched;

impl Pool<'_> {
    /// Makes the pages below a partition's arrays, in all workers at once. Each worker makes those
    /// of the tiles that it claims, and maps them if it is a process. The contents stay.
    ///
    /// Every worker claims its own range of tiles first, in this call and in the following ones.
    /// So on a NUMA machine the pages lie near the worker that will use them, and the first step
    /// over fresh arrays takes no longer than the others. The pages are huge as far as
    /// [`SegmentOptions::huge_pages`](crate::SegmentOptions::huge_pages) and the system allow;
    /// [`Segment::huge_pages`] tells. Arrays that every tile reads [whole](crate::WholeArray) are left
    /// out: use [`HandleTable::prefault`](crate::HandleTable::prefault) for them.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((100_000, 3))?;              // no page is there yet
    /// let tiles = table.partition(x.write(), Axis(0), 4096)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.prefault(&tiles)?;                                    // now all of them are
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each); [`PoolError::System`] if the system has no pages.
    #[doc(alias("warm_up", "MAP_POPULATE", "first_touch"))]
    pub fn prefault<G: Group>(&mut self, tiles: &Partition<'_, G>) -> Result<(), PoolError> {
        let results = CallMemory::results::<Touched, _>(self.table, tiles.tiles())?;
        let kernel = kernel::on_tiles::<Extents<G>, (), Touched, _, _, _>(touch);
        self.run_on(tiles, &[], kernel, Grain::Tile, Some(results.handle()))?;
        // SAFETY: the call has succeeded: its workers have written all results and checked out.
        let tiles = unsafe { results.read_results::<Touched, _>(tiles.tiles()) }?;
        let touched = tiles.into_iter().fold(Touched::default(), Touched::and);
        self.table.segment().note_small_pages(touched);
        match touched.missing {
            0 => Ok(()),
            errno => Err(PoolError::System {
                what: "make the pages of arrays (madvise)",
                error: std::io::Error::from_raw_os_error(errno),
            }),
        }
    }
}

/// Makes the pages of a tile. `prefault` runs it as its kernel.
fn touch((parts, segment): (Vec<Part>, Segment), _: &(), _: &TileContext<'_>) -> Touched {
    let touched = parts
        .into_iter()
        .map(|part| segment.touch(part.bytes, part.array));
    touched.fold(Touched::default(), Touched::and)
}
