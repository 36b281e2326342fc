//! Segments that keep all of their pages.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use ndshm::segment::HugePages;
use ndshm::{HandleTable, Observer, Segment};

use crate::support::{Child, Name, Pipe, die};
use crate::{Vector, options};

mod uring;

/// Returns the bytes of the segment's file that have pages.
fn resident(segment: &Segment) -> u64 {
    let file = File::from(segment.inheritable_fd().unwrap());
    file.metadata().unwrap().blocks() * 512
}

/// Opens the segment as a process with other options would.
fn join_by_default(segment: &Segment, retain: u64) -> Segment {
    Segment::options()
        .retain(retain)
        .huge_pages(HugePages::Collapse)
        .from_fd(segment.inheritable_fd().unwrap())
        .unwrap()
}

/// Frees, trims and dies in a segment. Returns the bytes before and after.
fn wear_out(segment: &Segment) -> (u64, u64) {
    let table = HandleTable::join(segment).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let arrays: Vec<Vector> = (0..4)
        .map(|value| {
            let array = table.from_elem(1 << 16, value).unwrap();
            table.detach(array).unwrap();
            array
        })
        .collect();
    let other = Child::fork(|| {
        let segment = join_by_default(segment, 0);
        let table = HandleTable::join(&segment).unwrap();
        // Its own arrays, which others reap.
        let _own: Vector = table.from_elem(1 << 16, 1).unwrap();
        told.send(0);
        asked.receive();
        for array in &arrays {
            table.free(*array).unwrap();
        }
        table.trim().unwrap();
        die();
    });
    told.receive();
    let before = resident(segment);
    asked.send(0);
    assert!(other.wait_within(crate::support::DEADLINE).is_some());
    assert_eq!(table.reap().unwrap().seats, 1);
    table.trim().unwrap();
    (before, resident(segment))
}

pub fn nobody_gives_pages_back() {
    let name = Name::new("pinned");
    for named in [false, true] {
        let make = |pinned| match named {
            true => options().pinned(pinned).create(&name.0).unwrap(),
            false => options().pinned(pinned).anonymous().unwrap(),
        };
        let segment = make(true);
        assert!(segment.is_pinned());
        assert!(join_by_default(&segment, 0).is_pinned());
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        assert!(observer.is_pinned());
        let (before, after) = wear_out(&segment);
        assert!(after >= before, "{before} bytes, then {after}");
        // What was freed is used again.
        let table = HandleTable::join(&segment).unwrap();
        for value in 0..20 {
            let x: Vector = table.zeros(1 << 16).unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 0);
            table.write(x).unwrap().fill(value + 1);
            table.free(x).unwrap();
        }
        assert_eq!(resident(&segment), after);
        assert!(table.verify().unwrap().is_clean());
        drop((table, observer, segment));

        let segment = make(false);
        assert!(!segment.is_pinned());
        // The option is the creator's alone.
        let fd = segment.inheritable_fd().unwrap();
        assert!(
            !Segment::options()
                .pinned(true)
                .from_fd(fd)
                .unwrap()
                .is_pinned()
        );
        let (before, after) = wear_out(&segment);
        assert!(after + (2 << 20) < before, "{before} bytes, then {after}");
    }
    assert!(options().pinned(true).in_process().unwrap().is_pinned());
}

/// Pages that io_uring has registered stand for those of a network card: the kernel pins both in
/// the same way.
pub fn a_device_and_the_processes_see_the_same_pages() {
    for pinned in [false, true] {
        let segment = options().pinned(pinned).anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x: Vector = table.from_elem(1 << 16, 1).unwrap();
        let at = table.attach(x).unwrap().as_mut_ptr();
        let Some(ring) = uring::Ring::register(at.cast(), 8 << 16) else {
            println!("skipped: this system has no io_uring");
            return;
        };
        let other = Child::fork(|| {
            let segment = join_by_default(&segment, 0);
            let table = HandleTable::join(&segment).unwrap();
            table.free(x).unwrap();
            table.trim().unwrap();
        });
        other.join();
        ring.write(0x0202_0202_0202_0202);
        // SAFETY: the address is that of an array of the segment, which is still mapped.
        let seen = unsafe { at.read_volatile() };
        assert_eq!(seen == 0x0202_0202_0202_0202, pinned, "{seen:x}");
    }
}
