//! A populated segment. Its bytes are changed behind the program's back, used, and restored.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2, IxDyn};
use ndshm::bytemuck::Zeroable;
use ndshm::error::{AllocError, LeaseError};
use ndshm::queue::OwnedArray;
use ndshm::{
    AnyHandle, BundleHandle, Element, Handle, HandleTable, Observer, Partition, PartitionHandle,
    QueueHandle, Read, Segment, SegmentOptions, Write,
};

use super::changes::{Change, Changes, What};
use super::names;
use super::populate::{Point, populate};

const CAPACITY: u64 = 512 << 10;
const PAGE: usize = 4096;
/// The key of the segment: handles are xored with it.
const KEY: u64 = 0x5eed_5eed_5eed_5eed;

type Parts = (Write<f64, Ix2>, Read<u8, Ix1>);
type Tiles = PartitionHandle<Parts>;
type Batch = OwnedArray<u32, Ix1>;

/// The number of calls, by call and outcome.
pub type Tally = BTreeMap<(&'static str, &'static str), u64>;

/// A segment with arrays of all kinds, a partition in a round, and two queues. Two living participants
/// and a dead one hold leases, and jobs that they have not acknowledged.
pub struct World {
    segment: Segment,
    file: File,
    /// The pages that were not empty after the set-up.
    pages: Vec<(u64, Vec<u8>)>,
    /// The places of those pages' words that were not zero.
    used: Vec<u64>,
    /// The size of the tables in bytes.
    tables: u64,
    handles: Vec<AnyHandle>,
    tiles: Tiles,
    queue: QueueHandle<u64>,
    batches: QueueHandle<Batch>,
    bundle: BundleHandle,
    pub tally: Tally,
}

fn options() -> SegmentOptions {
    Segment::options()
        .capacity(CAPACITY)
        .seats(8)
        .open_timeout(Duration::ZERO)
}

impl World {
    /// Creates the segment. `dead` runs a closure in a child that ends without cleaning up.
    pub fn new(dead: impl FnOnce(&dyn Fn())) -> World {
        // The key is the same each time: handles are xored with it, and a case that copies a handle
        // must be reproducible.
        let made = options().anonymous().unwrap();
        let file = File::from(made.inheritable_fd().unwrap());
        file.write_all_at(&KEY.to_le_bytes(), 8).unwrap();
        let segment = Segment::from_fd(made.inheritable_fd().unwrap()).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let other = HandleTable::join(&segment).unwrap();
        let handles = populate(&table);
        let bundle = names::populate(&table, &handles);
        let x = Handle::<f64, Ix2>::from_bits(handles[0].to_bits());
        let w = Handle::<u8, Ix1>::from_bits(handles[1].to_bits());
        let tiles = table.partition((x.write(), w.read()), Axis(0), 6).unwrap();
        let queue = table.queue::<u64>(8).unwrap();
        for job in 0..5 {
            queue.push(job).unwrap();
        }
        let batches = table.queue::<Batch>(4).unwrap();
        for value in 0..3 {
            let batch = table.owned(table.from_elem(16, value).unwrap());
            batches.push_owned(batch).unwrap();
        }
        std::mem::forget(queue.pop_with_ack().unwrap());
        std::mem::forget(batches.pop_owned_with_ack().unwrap());
        let (tiles_name, queue_name) = (tiles.handle(), queue.handle());
        let batches_name = batches.handle();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        let tile = part.claim().unwrap().unwrap();
        let scalar = Handle::<i64, IxDyn>::from_bits(handles[4].to_bits());
        let guard = other.read(scalar).unwrap();
        dead(&|| {
            let table = HandleTable::join(&segment).unwrap();
            table.zeros::<u8, _>(50).unwrap();
            let flags = Handle::<bool, Ix1>::from_bits(handles[3].to_bits());
            std::mem::forget(table.write(flags).unwrap());
            std::mem::forget(table.read(scalar).unwrap());
            let tiles = table.open_partition(tiles_name).unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            std::mem::forget(part.claim().unwrap());
            std::mem::forget(part);
            std::mem::forget(tiles);
            let queue = table.open_queue(queue_name).unwrap();
            std::mem::forget(queue.pop_with_ack().unwrap());
            std::mem::forget(queue);
            let batches = table.open_queue(batches_name).unwrap();
            std::mem::forget(batches.pop_owned_with_ack().unwrap());
            std::mem::forget(batches);
            std::mem::forget(table);
        });
        // These leases stay: their seats are held as long as this process lives.
        std::mem::forget((tile, guard));
        std::mem::forget(part);
        std::mem::forget((round, queue, batches));
        std::mem::forget(tiles);
        std::mem::forget(table);
        std::mem::forget(other);

        let mut world = World {
            tables: file.metadata().unwrap().len() - CAPACITY,
            segment,
            file,
            pages: Vec::new(),
            used: Vec::new(),
            handles,
            tiles: tiles_name,
            queue: queue_name,
            batches: batches_name,
            bundle,
            tally: Tally::new(),
        };
        world.remember();
        world
    }

    fn remember(&mut self) {
        let len = self.file.metadata().unwrap().len();
        let mut page = vec![0; PAGE];
        let mut offset = 0;
        while let Some(data) = seek_data(&self.file, offset) {
            offset = data + PAGE as u64;
            if offset > len {
                break;
            }
            self.file.read_exact_at(&mut page, data).unwrap();
            let words = page.chunks_exact(8).zip(data / 8..);
            let before = self.used.len();
            self.used
                .extend(words.filter(|(word, _)| *word != [0; 8]).map(|(_, at)| at));
            if self.used.len() > before {
                self.pages.push((data, page.clone()));
            }
        }
    }

    /// Restores all bytes to the state after the set-up.
    fn restore(&self) {
        let len = self.file.metadata().unwrap().len();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: empties a file; the segment's mapping of it then reads as zeros.
        let done = unsafe { libc::fallocate(self.file.as_raw_fd(), mode, 0, len as i64) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        for (offset, page) in &self.pages {
            self.file.write_all_at(page, *offset).unwrap();
        }
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 8 * at).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, at: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), 8 * at).unwrap();
    }

    /// Returns the place of a word that is not zero; in three of four cases, one of the tables.
    fn used(&self, index: u64) -> u64 {
        let tables = self.used.partition_point(|&at| at < self.tables / 8);
        let among = if index & 3 == 0 {
            self.used.len()
        } else {
            tables
        };
        self.used[(index >> 2) as usize % among]
    }

    fn apply(&self, change: &Change) {
        let at = match change.near {
            Some(by) => self.used(change.place).saturating_add_signed(by.into()),
            None => change.place % (self.tables / 8),
        };
        let old = self.get(at);
        match change.what {
            What::Swap(with) => {
                let with = self.used(with);
                self.set(at, self.get(with));
                self.set(with, old);
            }
            What::ZeroLine => (at / 8 * 8..at / 8 * 8 + 8).for_each(|at| self.set(at, 0)),
            what => self.set(at, what.of(old, |from| self.get(self.used(from)))),
        }
    }

    /// Runs one case: applies the changes, then makes calls. `Err` describes a fault.
    pub fn run(&mut self, changes: &Changes) -> Result<(), String> {
        self.restore();
        changes.list.iter().for_each(|change| self.apply(change));
        let segment = match changes.open_anew {
            false => Ok(self.segment.clone()),
            true => Segment::from_fd(self.segment.inheritable_fd().unwrap()),
        };
        let segment = match segment {
            Ok(segment) => segment,
            Err(error) => {
                self.count("open", "refused");
                return says(error);
            }
        };
        match HandleTable::join(&segment) {
            Ok(table) => {
                self.use_all(&table, changes.style)?;
                if let Some(change) = changes.names {
                    self.names(&table, change)?;
                }
            }
            Err(error) => {
                self.count("join", "refused");
                says(error)?;
            }
        }
        if changes.open_anew {
            self.observe()?;
        }
        Ok(())
    }

    fn count(&mut self, call: &'static str, outcome: &'static str) {
        *self.tally.entry((call, outcome)).or_default() += 1;
    }

    fn leased<T>(
        &mut self,
        call: &'static str,
        result: Result<T, LeaseError>,
    ) -> Result<Option<T>, String> {
        let error = match result {
            Ok(value) => {
                self.count(call, "done");
                return Ok(Some(value));
            }
            Err(error) => error,
        };
        self.count(
            call,
            match &error {
                LeaseError::Stale { .. } => "stale",
                LeaseError::Busy { .. } => "busy",
                LeaseError::Poisoned { .. } => "poisoned",
                LeaseError::WrongKind(_) => "another type",
                LeaseError::InvalidElement { .. } => "invalid element",
                LeaseError::Corrupt { .. } => "corrupt",
                _ => "another error",
            },
        );
        says(error)?;
        Ok(None)
    }

    /// Opens an array in each way as an array of `T`.
    fn open<T: Element>(&mut self, table: &HandleTable, handle: AnyHandle) -> Result<(), String> {
        let handle = Handle::<T, IxDyn>::from_bits(handle.to_bits());
        let attached = table.attach(handle);
        self.leased("attach", attached)?;
        let read = table.read(handle);
        if let Some(read) = self.leased("read", read)? {
            std::hint::black_box(read.iter().last());
        }
        let written = table.write(handle);
        if let Some(mut written) = self.leased("write", written)?
            && let Some(&first) = written.first()
        {
            written.fill(first);
        }
        let bytes = table.read_untyped(handle);
        if let Some(bytes) = self.leased("read_untyped", bytes)? {
            std::hint::black_box((bytes.bytes().last(), bytes.dtype().to_string()));
        }
        let bytes = table.write_untyped(handle);
        if let Some(mut bytes) = self.leased("write_untyped", bytes)?
            && let Some(&first) = bytes.bytes().first()
        {
            bytes.bytes_mut().fill(first);
        }
        let recovered = table.recover(handle, |view| view.len());
        self.leased("recover", recovered)?;
        Ok(())
    }

    fn use_all(&mut self, table: &HandleTable, style: u8) -> Result<(), String> {
        let found = table.verify().map_err(|error| error.to_string())?;
        let state = if found.is_clean() { "clean" } else { "damaged" };
        self.count("verify", state);
        std::hint::black_box(found.to_string());
        let listed: Vec<AnyHandle> = table.arrays().map(|info| info.handle).collect();
        let handles = self.handles.clone();
        for handle in listed.into_iter().chain(handles.iter().copied()) {
            let info = table.info(handle);
            self.leased("info", info)?;
            match style & 3 {
                0 => self.open::<f64>(table, handle)?,
                1 => self.open::<bool>(table, handle)?,
                2 => self.open::<Point>(table, handle)?,
                _ => self.open::<u8>(table, handle)?,
            }
        }
        if style & 4 != 0 {
            self.partitions(table);
            self.queues(table);
            self.batches(table);
        }
        if style & 8 != 0 {
            let reaped = table.reap();
            self.count("reap", if reaped.is_ok() { "done" } else { "refused" });
            self.allocate(table)?;
        }
        if style & 16 != 0 {
            for handle in handles {
                let freed = table.free(handle).is_ok();
                self.count("free", if freed { "done" } else { "refused" });
            }
            let _ = table.trim();
            std::hint::black_box(table.verify().map(|found| found.to_string()).ok());
        }
        Ok(())
    }

    fn names(&mut self, table: &HandleTable, change: bool) -> Result<(), String> {
        for (call, outcome) in names::use_all(table, self.bundle, change) {
            self.count(call, if outcome.is_ok() { "done" } else { "refused" });
            outcome.or_else(says)?;
        }
        Ok(())
    }

    fn partitions(&mut self, table: &HandleTable) {
        let Ok(tiles) = table.open_partition(self.tiles) else {
            return self.count("partition", "refused");
        };
        self.count("partition", "opened");
        take_part(&tiles);
        if let Ok(round) = tiles.begin() {
            take_part(&tiles);
            let _ = round.finish(Duration::ZERO);
            self.count("round", "begun");
        }
    }

    fn queues(&mut self, table: &HandleTable) {
        let Ok(queue) = table.open_queue(self.queue) else {
            return self.count("queue", "refused");
        };
        self.count("queue", "opened");
        for job in 0..10 {
            let _ = queue.push(job);
        }
        for turn in 0..20 {
            match turn % 4 {
                0 => drop(queue.pop()),
                1 => drop(queue.pop_with_ack()),
                2 => drop(queue.pop_with_ack().map(|job| job.map(|job| job.ack()))),
                _ => drop(queue.pop_with_ack().map(std::mem::forget)),
            }
        }
        std::hint::black_box((queue.len(), queue.is_drained()));
    }

    fn batches(&mut self, table: &HandleTable) {
        let Ok(queue) = table.open_queue(self.batches) else {
            return self.count("batches", "refused");
        };
        self.count("batches", "opened");
        for value in 0..3 {
            if let Ok(batch) = table.from_elem(16, value) {
                let _ = queue.push_owned(table.owned(batch));
            }
        }
        for turn in 0..8 {
            let Ok(Some(batch)) = queue.pop_owned_with_ack() else {
                break;
            };
            let outcome = match turn % 3 {
                0 => batch.give_back().is_ok(),
                1 => batch.ack().is_ok(),
                _ => {
                    std::mem::forget(batch);
                    true
                }
            };
            self.count("batches", if outcome { "done" } else { "refused" });
        }
    }

    fn allocate(&mut self, table: &HandleTable) -> Result<(), String> {
        let mut made: Vec<AnyHandle> = Vec::new();
        for bytes in [1, 64, 500, 4096, 20_000, 1 << 20] {
            match table.zeros::<u8, _>(bytes) {
                Ok(handle) => {
                    self.count("allocate", "done");
                    made.push(handle.into());
                }
                Err(error) => {
                    self.count(
                        "allocate",
                        match error {
                            AllocError::Full { .. } => "full",
                            AllocError::Corrupt { .. } => "corrupt",
                            _ => "another error",
                        },
                    );
                    says(error)?;
                }
            }
        }
        let point = table.from_elem(3, Point::zeroed());
        made.extend(point.ok().map(AnyHandle::from));
        for handle in made {
            let _ = table.free(handle);
        }
        Ok(())
    }

    fn observe(&mut self) -> Result<(), String> {
        match Observer::from_fd(self.segment.inheritable_fd().unwrap()) {
            Ok(observer) => {
                std::hint::black_box(observer.verify().to_string());
                let arrays: Vec<_> = observer.arrays().map(|it| it.handle).collect();
                std::hint::black_box(observer.classes());
                let mut bytes = [0; 64];
                for handle in arrays.into_iter().chain(self.handles.clone()) {
                    let copied = observer.copy_bytes(handle, 0, &mut bytes).is_ok();
                    self.count("copy_bytes", if copied { "done" } else { "refused" });
                }
                std::hint::black_box(observer.seats().map(|seats| seats.len()).ok());
                names::observe(&observer);
                self.count("observe", "done");
                Ok(())
            }
            Err(error) => {
                self.count("observe", "refused");
                says(error)
            }
        }
    }

    /// Opens the segment's bytes as a named file that is truncated to `len`, which must be refused.
    pub fn open_truncated(&mut self, name: &str, len: u64) -> Result<(), String> {
        use std::os::unix::fs::OpenOptionsExt;
        self.restore();
        let path = format!("/dev/shm/{name}");
        let mut open = File::options();
        open.write(true).create(true).truncate(true).mode(0o600);
        let copy = open.open(&path).map_err(|error| error.to_string())?;
        for (offset, page) in self.pages.iter().filter(|(offset, _)| *offset < len) {
            copy.write_all_at(page, *offset).unwrap();
        }
        let total = self.file.metadata().unwrap().len();
        copy.set_len(len % total).unwrap();
        let opened = options().open(name);
        let observed = options().observe(name);
        std::fs::remove_file(&path).unwrap();
        self.count("open truncated", "refused");
        match (opened, observed) {
            (Err(first), Err(second)) => says(first).and(says(second)),
            _ => Err(format!("a file of {} bytes was opened", len % total)),
        }
    }
}

/// Takes part in the round of a partition, if possible.
fn take_part(tiles: &Partition<'_, Parts>) {
    if let Ok(Some(mut part)) = tiles.enter() {
        while let Ok(Some(mut tile)) = part.claim() {
            let (mut x, w) = tile.views();
            x.fill(w.len() as f64);
        }
    }
}

/// Checks that an error has a text.
fn says(error: impl std::fmt::Display) -> Result<(), String> {
    match error.to_string() {
        text if text.len() > 10 => Ok(()),
        text => Err(format!("an error without a useful text: {text:?}")),
    }
}

/// Returns the offset of the next page of the file, from `offset` on, that is allocated.
fn seek_data(file: &File, offset: u64) -> Option<u64> {
    // SAFETY: moves the position of a descriptor; nothing uses that position.
    let at = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, libc::SEEK_DATA) };
    u64::try_from(at).ok()
}
