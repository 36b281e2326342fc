//! Objects that last through the run: the segment, the arrays and partitions that the supervisor
//! owns, the queues, and the locks for healing poisoned arrays.

use std::os::fd::OwnedFd;

use ndarray::{ArrayViewMut2, Axis, Dimension, Ix1, Ix2, Slice, SliceInfo, SliceInfoElem, s};
use ndshm::{
    AnyHandle, Grid, Handle, HandleTable, Partition, PartitionHandle, Queue, QueueHandle, Segment,
    WholeArray, Write,
};
use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};

use super::board::{Board, Me};
use super::names;
use super::pattern::{Pattern, place};

/// Arrays of a round: each tile writes its own block, and reads a whole array.
pub type Tiles = (Write<u64, Ix2>, WholeArray<u64, Ix1>);

/// Number of cells of the array in which handles are passed on.
pub const CELLS: usize = 48;
/// Lengths of the lasting arrays.
const LASTING: [usize; 6] = [8, 100, 513, 3000, 3000, 12_000];

/// An array that the supervisor owns and no process frees.
pub struct Lasting<D> {
    pub handle: Handle<u64, D>,
    /// Index of its word on the board.
    pub index: usize,
    lock: OwnedFd,
}

impl<D: Dimension> Lasting<D> {
    fn new(handle: Handle<u64, D>, index: usize) -> Lasting<D> {
        let lock = memfd_create("torture-lock", MemfdFlags::CLOEXEC).expect("a file to lock");
        Lasting {
            handle,
            index,
            lock,
        }
    }

    pub fn bits(&self) -> u64 {
        self.handle.to_bits()
    }

    /// Runs `heal` under a kernel lock, which is released when its holder dies. Does nothing if
    /// another process holds the lock.
    pub fn alone(&self, heal: impl FnOnce()) {
        if fcntl_lock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            heal();
            fcntl_lock(&self.lock, FlockOperation::Unlock).expect("a lock to give back");
        }
    }
}

/// An array that is written in rounds, and its partitions, all with the same tiles.
pub struct Field {
    pub array: Lasting<Ix2>,
    pub partitions: Vec<PartitionHandle<Tiles>>,
    /// Index of the lasting array that its tiles read.
    pub whole: usize,
}

/// All lasting objects. Forked processes inherit them.
pub struct World {
    pub board: &'static Board,
    pub segment: Segment,
    pub seed: u64,
    pub lasting: Vec<Lasting<Ix1>>,
    pub fields: Vec<Field>,
    pub exchange: Handle<u64, Ix1>,
    pub mail: QueueHandle<u64>,
    pub jobs: QueueHandle<u64>,
}

/// Objects that the supervisor keeps open during the run.
pub struct Kept<'t> {
    pub jobs: Queue<'t, u64>,
    pub mail: Queue<'t, u64>,
    partitions: Vec<Partition<'t, Tiles>>,
}

impl Kept<'_> {
    /// Returns the number of the table's internal arrays that live as long as this.
    pub fn controls(&self) -> usize {
        2 + self.partitions.len()
    }
}

impl World {
    pub fn new<'t>(
        table: &'t HandleTable,
        board: &'static Board,
        seed: u64,
    ) -> ndshm::Result<(World, Kept<'t>)> {
        let mut me = Me::new(board, seed, 0);
        let mut lasting = Vec::new();
        for (index, len) in LASTING.into_iter().enumerate() {
            let array = Lasting::new(table.zeros(len)?, index);
            Pattern::new(array.bits(), me.author(), 0).write(table.write(array.handle)?.view_mut());
            lasting.push(array);
        }
        // Rows and columns, the length of a tile along each, and the number of partitions. The last
        // kind has so many tiles that a claim takes several.
        let kinds = [
            ((4000, 1), (100, 1), 2),
            ((60, 64), (16, 16), 1),
            ((24_000, 1), (8, 1), 1),
        ];
        let (mut fields, mut partitions) = (Vec::new(), Vec::new());
        for (number, (shape, tile, count)) in kinds.into_iter().enumerate() {
            let array = Lasting::new(table.zeros(shape)?, LASTING.len() + number);
            let whole = 1 + number;
            let group = (array.handle.write(), lasting[whole].handle.whole());
            let grid = Grid::blocks([(Axis(0), tile.0), (Axis(1), tile.1)]);
            let mut handles = Vec::new();
            for _ in 0..count {
                let partition = table.partition_by(group, &grid)?;
                handles.push(partition.handle());
                partitions.push(partition);
            }
            let partition = &partitions[partitions.len() - 1];
            let mut x = table.write(array.handle)?;
            write_tiles(x.view_mut(), partition, array.bits(), me.author());
            drop(x);
            fields.push(Field {
                array,
                partitions: handles,
                whole,
            });
        }
        let kept = Kept {
            jobs: table.queue(200)?,
            mail: table.queue(60)?,
            partitions,
        };
        let world = World {
            board,
            segment: table.segment().clone(),
            seed,
            lasting,
            fields,
            exchange: table.zeros(CELLS)?,
            mail: kept.mail.handle(),
            jobs: kept.jobs.handle(),
        };
        names::publish_lasting(&world, table)?;
        Ok((world, kept))
    }

    /// Returns the arrays that the supervisor owns during the run.
    pub fn owned(&self) -> impl Iterator<Item = AnyHandle> + '_ {
        let lasting = self.lasting.iter().map(|array| array.handle.into());
        let fields = self.fields.iter().map(|field| field.array.handle.into());
        lasting.chain(fields).chain([self.exchange.into()])
    }

    pub fn lasts(&self, handle: AnyHandle) -> bool {
        self.owned().any(|lasting| lasting == handle)
    }
}

/// Returns the slice of a tile, for ndarray.
pub fn tile_slice(
    partition: &Partition<'_, Tiles>,
    tile: usize,
) -> SliceInfo<[SliceInfoElem; 2], Ix2, Ix2> {
    let mut slices = [Slice::from(..); 2];
    for side in partition.sides(tile) {
        slices[side.axis] = side.slice();
    }
    s![slices[0], slices[1]]
}

/// Writes a pattern to each tile. The caller leases the whole array.
pub fn write_tiles(
    mut x: ArrayViewMut2<'_, u64>,
    partition: &Partition<'_, Tiles>,
    bits: u64,
    author: u64,
) {
    for tile in 0..partition.tiles() {
        let pattern = Pattern::new(place(bits, Some(tile)), author, 0);
        let slices = tile_slice(partition, tile);
        pattern.write(x.slice_mut(slices));
    }
}
