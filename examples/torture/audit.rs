//! The audit: checks that ended victims leave nothing, and that there is as much room as before.

use std::fmt;
use std::time::Duration;

use ndshm::error::{AllocError, JoinError, LeaseError};
use ndshm::inspect::{ArrayInfo, ReapReport};
use ndshm::{HandleTable, PartitionHandle};

use super::board::{Count, Me};
use super::names;
use super::pattern::{Pattern, place};
use super::victim::Array;
use super::world::{Kept, Tiles, World, tile_slice, write_tiles};

/// Lengths of arrays for which the room is counted, the largest first.
const SIZES: [usize; 6] = [13_000, 8_192, 4_000, 500, 60, 8];

/// Bytes by which the segment's file may grow: pages of its tables that the first count did not
/// touch.
const SLACK: u64 = 512 << 10;

/// Checks the room against its count before the run.
pub struct Auditor {
    room: [usize; SIZES.len()],
    bytes: u64,
}

impl Auditor {
    /// Divides the whole segment into extents, and counts the room.
    pub fn new(table: &HandleTable) -> ndshm::Result<Auditor> {
        // First spans of 64 arrays for each length, then the rest.
        let spans = [(8, 4), (16, 4), (60, 4), (500, 8), (2000, 4), (4000, 4)];
        let rest = [13_000, 8_192, 2_000, 500, 60, 8];
        let mut all: Vec<Array> = Vec::new();
        for (len, spans) in spans {
            for _ in 0..64 * spans {
                all.push(table.uninit(len)?);
            }
        }
        for (number, len) in rest.into_iter().enumerate() {
            // The largest length must not take everything.
            let most = if number == 0 { 3 * 64 } else { usize::MAX };
            for _ in 0..most {
                match table.uninit(len) {
                    Ok(handle) => all.push(handle),
                    Err(AllocError::Full { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for handle in all {
            // Touch the words that the run will touch.
            drop(table.read(handle)?);
            table.free(handle)?;
        }
        Ok(Auditor {
            room: room(table)?,
            bytes: bytes(table)?,
        })
    }

    /// Checks that everything is as before the run, and reports differences on the board. Requires
    /// that no victim is alive.
    pub fn audit(&self, world: &World, table: &HandleTable, kept: &Kept<'_>) {
        let problems = Problems(world);
        if let Err(error) = self.try_audit(world, table, kept, &problems) {
            problems.note(format!("an error: {error}"));
        }
    }

    fn try_audit(
        &self,
        world: &World,
        table: &HandleTable,
        kept: &Kept<'_>,
        problems: &Problems<'_>,
    ) -> ndshm::Result<()> {
        let first = table.reap()?;
        world.board.count(Count::Reaps);
        world.board.add(Count::Reaped, first.seats);
        let second = table.reap()?;
        if second != ReapReport::default() {
            problems.note(format!("a second reap finds {second:?}"));
        }
        names::unpublish_all(world, table, |what| problems.note(what))?;
        free_detached(world, table, problems)?;
        let mut me = Me::new(world.board, world.seed, 0);
        heal_all(world, table, &mut me, problems)?;
        run_all(world, table, problems)?;
        empty_queues(world, kept, problems)?;
        let found = table.verify()?;
        let live = world.owned().count() + kept.controls();
        let numbers = [
            ("damages", found.damage.len(), 0),
            ("seats taken", found.seats, 1),
            ("live arrays", found.live, live),
            ("reserved slots", found.reserved, 0),
            ("retired slots", found.retired, 0),
            ("poisoned arrays", found.poisoned, 0),
            ("writers", found.writers, 0),
            ("readers", found.readers, kept.controls()),
            ("words in transit", found.in_transit, 0),
        ];
        for (what, is, should) in numbers {
            if is != should {
                problems.note(format!("{is} {what} instead of {should}: {found}"));
            }
        }
        // Publish the names that existed when the room was counted first.
        names::publish_lasting(world, table)?;
        let room = room(table)?;
        if room != self.room {
            problems.note(format!(
                "room for {room:?} arrays of {SIZES:?} elements, {:?} before; {}",
                self.room,
                table.verify()?
            ));
        }
        let bytes = bytes(table)?;
        if bytes > self.bytes + SLACK {
            problems.note(format!("{bytes} bytes of memory, {} before", self.bytes));
        }
        count_seats(table, problems);
        Ok(())
    }
}

struct Problems<'w>(&'w World);

impl Problems<'_> {
    fn note(&self, what: impl fmt::Display) {
        self.0.board.find(&format!("audit: {what}"));
    }
}

/// Frees the arrays without owner, and checks that all others are lasting ones.
fn free_detached(world: &World, table: &HandleTable, problems: &Problems<'_>) -> ndshm::Result<()> {
    let all: Vec<ArrayInfo> = table.arrays().collect();
    let owned = world.owned().count();
    let mut lasting = 0;
    for info in all {
        if info.writer.is_some() || !info.readers.is_empty() {
            problems.note(format!("leased by the dead: {info:?}"));
        }
        if world.lasts(info.handle) {
            lasting += 1;
            if info.owner != Some(std::process::id()) {
                problems.note(format!("should be the supervisor's: {info:?}"));
            }
            continue;
        }
        if info.owner.is_some() {
            problems.note(format!("owned by the dead: {info:?}"));
        }
        let handle: Array = info.handle.downcast(table)?;
        match table.read(handle) {
            Ok(x) => {
                if let Err(torn) = Pattern::read(handle.to_bits(), x.view()) {
                    problems.note(format!("left behind: {info:?}: {torn}"));
                }
            }
            Err(LeaseError::Poisoned { .. }) => {}
            Err(error) => problems.note(format!("left behind: {info:?}: {error}")),
        }
        table.free(handle)?;
        if table.read(handle).is_ok() {
            problems.note(format!("{handle} is freed, but can be read"));
        }
    }
    if lasting != owned {
        problems.note(format!("{lasting} of {owned} lasting arrays are left"));
    }
    Ok(())
}

/// Checks that each lasting array is whole, poisoned, or being healed. Overwrites arrays that are
/// not whole, and all fields.
fn heal_all(
    world: &World,
    table: &HandleTable,
    me: &mut Me,
    problems: &Problems<'_>,
) -> ndshm::Result<()> {
    for array in &world.lasting {
        let whole = match table.read(array.handle) {
            Ok(x) => Pattern::read(array.bits(), x.view()).map_err(|torn| torn.to_string()),
            Err(LeaseError::Poisoned { .. }) => Err(String::new()),
            Err(error) => return Err(error.into()),
        };
        if let Err(text) = whole {
            if !text.is_empty() && !world.board.is_healing(array.index) {
                problems.note(format!("lasting array {}: {text}", array.index));
            }
            table.clear_poison(array.handle)?;
            let pattern = Pattern::new(array.bits(), me.author(), 0);
            pattern.write(table.write(array.handle)?.view_mut());
        }
        world.board.end_healing(array.index);
    }
    for field in &world.fields {
        let partition = table.open_partition(field.partitions[0])?;
        let (handle, index) = (field.array.handle, field.array.index);
        let mut torn = None;
        match table.read(handle) {
            Ok(x) => {
                for tile in 0..partition.tiles() {
                    let slices = tile_slice(&partition, tile);
                    let at = place(field.array.bits(), Some(tile));
                    if let Err(found) = Pattern::read(at, x.slice(slices)) {
                        torn = Some(format!("tile {tile} of array {index}: {found}"));
                    }
                }
            }
            Err(LeaseError::Poisoned { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(text) = torn
            && !world.board.is_healing(index)
        {
            problems.note(text);
        }
        table.clear_poison(handle)?;
        let mut x = table.write(handle)?;
        write_tiles(x.view_mut(), &partition, field.array.bits(), me.author());
        world.board.end_healing(index);
    }
    if let Err(LeaseError::Poisoned { .. }) = table.write(world.exchange).map(drop) {
        table.clear_poison(world.exchange)?;
    }
    table.write(world.exchange)?.fill(0);
    Ok(())
}

/// Checks that every partition still runs, each tile once, despite rounds that dead processes
/// opened.
fn run_all(world: &World, table: &HandleTable, problems: &Problems<'_>) -> ndshm::Result<()> {
    let handles = world.fields.iter().flat_map(|field| &field.partitions);
    for &handle in handles {
        let handle: PartitionHandle<Tiles> = handle;
        let partition = table.open_partition(handle)?;
        let round = partition.begin()?;
        let mut claimed = 0;
        if let Some(mut part) = partition.enter()? {
            while part.claim()?.is_some() {
                claimed += 1;
            }
        }
        if claimed != partition.tiles() {
            problems.note(format!(
                "{claimed} of {} tiles could be claimed in {handle:?}",
                partition.tiles()
            ));
        }
        round.finish(Duration::from_secs(1))?;
    }
    Ok(())
}

/// Empties the queues, and counts the lost jobs.
fn empty_queues(world: &World, kept: &Kept<'_>, problems: &Problems<'_>) -> ndshm::Result<()> {
    let board = world.board;
    while let Some(job) = kept.jobs.pop()? {
        board.popped(job);
        board.count(Count::Pops);
    }
    while kept.mail.pop()?.is_some() {}
    let known = board.get(Count::JobsLost);
    let lost = board.jobs_lost() as u64;
    board.add(Count::JobsLost, (lost - known) as usize);
    let kills = board.get(Count::Kills) + board.get(Count::GrandKills);
    if lost > kills {
        problems.note(format!("{lost} jobs are lost, after {kills} kills"));
    }
    // Now all cells must be free.
    for queue in [&kept.jobs, &kept.mail] {
        let mut pushed = 0;
        while queue.push(0).is_ok() {
            pushed += 1;
        }
        while queue.pop()?.is_some() {}
        if pushed != queue.capacity() {
            problems.note(format!("{pushed} of the cells of {queue:?} are free"));
        }
    }
    Ok(())
}

/// Counts the arrays of each length for which there is room.
fn room(table: &HandleTable) -> ndshm::Result<[usize; SIZES.len()]> {
    let mut room = [0; SIZES.len()];
    for (count, len) in room.iter_mut().zip(SIZES) {
        let mut all: Vec<Array> = Vec::new();
        loop {
            match table.uninit(len) {
                Ok(handle) => all.push(handle),
                Err(AllocError::Full { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        *count = all.len();
        for handle in all {
            table.free(handle)?;
        }
    }
    Ok(room)
}

/// Returns the bytes of the segment's file after a trim.
fn bytes(table: &HandleTable) -> ndshm::Result<u64> {
    table.trim()?;
    let fd = table.segment().fd().expect("a segment with a file");
    let stat = rustix::fs::fstat(fd).expect("the size of an open file");
    Ok(stat.st_blocks as u64 * 512)
}

/// Checks that only the supervisor's own seat is taken.
fn count_seats(table: &HandleTable, problems: &Problems<'_>) {
    let mut tables = Vec::new();
    let seats = table.segment().max_seats() as usize;
    let end = loop {
        match HandleTable::join(table.segment()) {
            Ok(table) if tables.len() < seats => tables.push(table),
            Ok(_) => break None,
            Err(error) => break Some(error),
        }
    };
    if tables.len() != seats - 1 || !matches!(end, Some(JoinError::SeatsFull { .. })) {
        problems.note(format!(
            "{} of {seats} seats could be taken, then {end:?}",
            tables.len()
        ));
    }
}
