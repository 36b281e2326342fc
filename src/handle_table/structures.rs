//! Partitions, queues and bundles.

use ndarray::Axis;

use super::HandleTable;
use crate::bundle::BundleError;
use crate::bundle::{Bundle, BundleHandle};
use crate::partition::PartitionError;
use crate::partition::{Grid, Group, Partition, PartitionHandle};
use crate::queue::QueueError;
use crate::queue::{Job, Queue, QueueHandle};

impl HandleTable {
    /// Divides the arrays of `group` along `axis` into tiles of `tile_len` indices.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((1000, 3))?;
    /// let w = table.from_elem(1000, 1.0)?;
    /// let tiles = table.partition((x.write(), w.read()), Axis(0), 64)?;
    /// assert_eq!(tiles.tiles(), 16);
    /// assert_eq!(tiles.range(15), 960..1000);              // the last one is shorter
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PartitionError`] if the arrays have different lengths, an array lacks the axis, or an
    /// array occurs twice in the group and is written.
    #[doc(alias("par_chunks_mut", "chunks", "split", "array_split", "scatter"))]
    #[inline]
    pub fn partition<G: Group>(
        &self,
        group: G,
        axis: Axis,
        tile_len: usize,
    ) -> Result<Partition<'_, G>, PartitionError> {
        self.core.partition(group, axis, tile_len)
    }

    /// Divides the arrays of `group` into the tiles of a [`Grid`]: along several axes, or unevenly.
    ///
    /// All arrays have the same lengths along the cut axes. Along other axes each tile covers the
    /// whole length. [`WholeArray`](crate::WholeArray) arrays may have any shape.
    ///
    /// ```
    /// use ndshm::{Grid, HandleTable, Segment};
    /// use ndarray::{Axis, s};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let (now, next) = (table.from_elem((100, 80), 1.0)?, table.zeros((100, 80))?);
    /// let blocks = Grid::blocks([(Axis(0), 32), (Axis(1), 32)]);
    /// let tiles = table.partition_by((now.whole(), next.write()), &blocks)?;
    /// assert_eq!(tiles.tiles(), 4 * 3);
    ///
    /// let round = tiles.begin()?;
    /// if let Some(mut part) = tiles.enter()? {
    ///     while let Some(mut tile) = part.claim()? {
    ///         let sides: Vec<_> = tile.sides().collect();
    ///         let (now, mut next) = tile.views();
    ///         // Its own block of the whole, or a row more on each side: nobody writes it now.
    ///         next.assign(&now.slice(s![sides[0].slice(), sides[1].slice()]));
    ///     }
    /// }
    /// round.finish(std::time::Duration::from_secs(1))?;
    /// assert_eq!(table.read(next)?.sum(), 8000.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - See [`partition`](HandleTable::partition).
    /// - [`PartitionError::Grid`], [`PartitionError::Bounds`] and [`PartitionError::Weights`] if
    ///   the grid is invalid, or does not fit these arrays.
    /// - [`PartitionError::TooManyTiles`], which says how many tiles are possible.
    #[inline]
    pub fn partition_by<G: Group>(
        &self,
        group: G,
        grid: &Grid,
    ) -> Result<Partition<'_, G>, PartitionError> {
        self.core.partition_by(group, grid)
    }

    /// Opens a partition that another participant has created.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let handle = tiles.handle();                         // 8 bytes, sent to another process
    ///
    /// let same = table.open_partition(handle)?;            // there
    /// assert_eq!(same.tiles(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PartitionError::Freed`] if the partition, or one of its arrays, was freed. A worker that
    ///   got the handle by a message and opens it late has nothing to do.
    /// - [`PartitionError::Lease`] with [`WrongKind`](crate::error::LeaseError::WrongKind) if the
    ///   handle names something else.
    /// - [`PartitionError::Lease`] if the partition or one of its arrays cannot be opened.
    #[inline]
    pub fn open_partition<G: Group>(
        &self,
        handle: PartitionHandle<G>,
    ) -> Result<Partition<'_, G>, PartitionError> {
        self.core.open_partition(handle)
    }

    /// Creates a queue for at least `capacity` jobs, rounded up to a power of two.
    ///
    /// Dropping the value closes and frees the queue. Participants that have it open may still pop
    /// the remaining jobs. If this participant dies, nobody can open the queue any more; those that
    /// have it open continue. In both cases a queue of [`OwnedArray`](crate::queue::OwnedArray)
    /// frees the arrays in it.
    ///
    /// The compiler refuses types of size 0, and types aligned to more than 64 bytes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<[u32; 2]>(100)?;
    /// jobs.push([3, 4])?;
    /// assert_eq!(jobs.pop()?, Some([3, 4]));
    /// assert_eq!(jobs.pop()?, None);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`QueueError::Capacity`] for 0 or more than 2²⁴ jobs.
    /// - [`QueueError::Alloc`] if the cells could not be allocated.
    #[doc(alias("channel", "SimpleQueue", "multiprocessing"))]
    #[inline]
    pub fn queue<T: Job>(&self, capacity: usize) -> Result<Queue<'_, T>, QueueError> {
        self.core.queue(capacity)
    }

    /// Opens a queue that another participant has created.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(8)?;
    /// let handle = jobs.handle();                          // 8 bytes, sent to another process
    ///
    /// table.open_queue(handle)?.push(7)?;                  // there
    /// assert_eq!(jobs.pop()?, Some(7));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`QueueError::Lease`] with [`WrongKind`](crate::error::LeaseError::WrongKind) if the
    ///   handle names something else, or a queue of another job type. The type is compared by size,
    ///   alignment and [`core::any::type_name`].
    /// - [`QueueError::Lease`] if the queue was freed.
    #[inline]
    pub fn open_queue<T: Job>(&self, handle: QueueHandle<T>) -> Result<Queue<'_, T>, QueueError> {
        self.core.open_queue(handle)
    }

    /// Creates an empty bundle, owned by this participant.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// table.free(model.handle())?;                         // with its parts
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BundleError::Alloc`] if there is no memory or no free slot.
    #[doc(alias("dict", "HashMap", "state_dict"))]
    #[inline]
    pub fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        self.core.bundle()
    }

    /// Opens a bundle that any participant has created.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    ///
    /// let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// let handle = model.handle();                         // 8 bytes, sent to another process
    ///
    /// let model = table.open_bundle(handle)?;              // there
    /// assert_eq!(table.read(model.get::<f32, Ix1>("bias")?)?.len(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::Lease`] with [`WrongKind`](crate::error::LeaseError::WrongKind) if the
    ///   handle names something else.
    /// - [`BundleError::Lease`] if the bundle was freed.
    #[inline]
    pub fn open_bundle(&self, handle: BundleHandle) -> Result<Bundle<'_>, BundleError> {
        self.core.open_bundle(handle)
    }
}
