//! The state on which a victim works, and the checks of its survivor after the death.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::inspect::{ReapReport, Verification};
use ndshm::{Handle, HandleTable, Observer, Segment, SegmentOptions};

use crate::run::Run;
use crate::support::DEADLINE;

pub type Vector = Handle<u64, Ix1>;

/// Returns options of a small segment. Its spans have few slots, so scans take fewer instructions.
pub fn options() -> SegmentOptions {
    Segment::options()
        .capacity(256 << 10)
        .seats(8)
        .open_timeout(Duration::from_millis(20))
}

/// A segment with the survivor's seat, and an array of two equal numbers.
pub struct Ground {
    pub table: HandleTable,
    pub array: Vector,
}

impl Ground {
    pub fn new() -> Ground {
        Ground::of(options())
    }

    pub fn of(options: SegmentOptions) -> Ground {
        let segment = options.anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let array = table.from_elem(2, 0).unwrap();
        Ground { table, array }
    }

    /// Returns a table with a seat for the victim.
    pub fn join(&self) -> HandleTable {
        HandleTable::join(self.table.segment()).unwrap()
    }

    /// Performs the survivor's checks: the remains of the victim do not block it; then it reaps all
    /// of them, and nothing is lost.
    pub fn survive(self, run: &mut Run) {
        let table = &self.table;
        work(table);
        let before = look(table, self.array);
        clean(table);

        table.reap().unwrap();
        let found = clean(table);
        assert_eq!(
            (found.seats, found.reserved, found.in_transit),
            (1, 0, 0),
            "{found}"
        );
        assert_eq!(
            table.reap().unwrap(),
            ReapReport::default(),
            "the second reap finds nothing"
        );
        match look(table, self.array) {
            Looks::Busy | Looks::Waiting | Looks::GivenUp => {
                panic!("no living participant holds it")
            }
            Looks::Poisoned if before == Looks::Waiting => panic!("a waiter has not written"),
            Looks::Poisoned => {
                table.clear_poison(self.array).unwrap();
                table.write(self.array).unwrap().fill(3);
                assert_eq!(table.read(self.array).unwrap().sum(), 6);
            }
            Looks::Whole if before == Looks::Busy => panic!("a dead writer left no poison"),
            Looks::Whole | Looks::Gone => {}
        }
        work(table);

        let left: Vec<_> = table.arrays().map(|array| array.handle).collect();
        for handle in left {
            table.free(handle).unwrap();
        }
        table.trim().unwrap();
        let found = clean(table);
        let nothing = (found.slots, 0, 0, 0);
        let holders = found.readers + found.pins;
        let held = (found.free, holders, found.writers, found.in_transit);
        assert_eq!(held, nothing, "{found}");
        assert_eq!(found.unhinted, 0, "a free slot has no hint: {found}");
        run.memory(blocks(table.segment()));
    }
}

/// Asserts that a table can allocate, read, write and free.
pub fn work(table: &HandleTable) {
    let own = table.from_elem(16, 7u64).unwrap();
    assert_eq!(table.read(own).unwrap().sum(), 7 * 16);
    table.write(own).unwrap().fill(1);
    let tiles = table.partition(own.write(), Axis(0), 8).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().expect("the round is open");
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().fill(2);
    }
    drop(part);
    round.finish(DEADLINE).unwrap();
    drop(tiles);
    assert_eq!(table.read(own).unwrap().sum(), 2 * 16);
    table.free(own).unwrap();
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looks {
    Whole,
    Busy,
    /// A participant waits to write.
    Waiting,
    GivenUp,
    Poisoned,
    Gone,
}

fn look(table: &HandleTable, array: Vector) -> Looks {
    match table.read(array) {
        Ok(read) => {
            assert_eq!(read[0], read[1], "half-written, but not poisoned");
            Looks::Whole
        }
        // A round that its opener has given up but not yet left.
        Err(LeaseError::Busy { pid: 0, .. }) => Looks::GivenUp,
        // A waiting writer has its own reader bit, and so has a participant in a round.
        Err(LeaseError::Busy { pid, .. }) => match table.info(array).unwrap().readers {
            readers if readers.contains(&pid) && !has_partitions(table) => Looks::Waiting,
            _ => Looks::Busy,
        },
        Err(LeaseError::Poisoned { .. }) => Looks::Poisoned,
        Err(LeaseError::Stale { .. }) => Looks::Gone,
        Err(error) => panic!("{error}"),
    }
}

fn has_partitions(table: &HandleTable) -> bool {
    let file = table.segment().inheritable_fd().unwrap();
    !Observer::from_fd(file).unwrap().rounds().is_empty()
}

/// Returns the counts of a segment check. Asserts that there is no damage.
fn clean(table: &HandleTable) -> Verification {
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    found
}

/// Returns the memory of the segment's file, in units of 512 bytes.
fn blocks(segment: &Segment) -> u64 {
    let fd = segment.fd().expect("the segment has a file");
    let file = File::from(fd.try_clone_to_owned().unwrap());
    file.metadata().unwrap().blocks()
}
