//! A fork's child and its segment, without a fork: the token of another process stands for
//! the parent's.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::super::tests::{Name, no_forks, small};
use super::*;
use crate::HandleTable;
use crate::segment::Segment;
use crate::segment::os::{file, lock};

/// Makes the segment look as if this process had inherited it.
fn inherit(segment: &Segment) {
    let token = process_token() ^ 1;
    segment.inner.token.store(token, Ordering::Relaxed);
}

/// Opens the same file again, with a description that is no member.
fn beside(segment: &Segment) -> OwnedFd {
    file::reopen(segment.fd().unwrap()).unwrap()
}

#[test]
fn an_inherited_segment_is_bound_to_this_process() {
    let _quiet = no_forks();
    let name = Name::new("rebound");
    for segment in [small().anonymous(), small().create(&name.0)] {
        let segment = segment.unwrap();
        let beside = beside(&segment);
        assert!(segment.try_lock_seat(0, None).unwrap());
        inherit(&segment);
        segment.unlock_seat(0);
        let locked = || lock::is_locked(beside.as_fd(), 0).unwrap();
        assert!(
            locked(),
            "the parent's lock is given back by the parent alone"
        );
        segment.rebind().unwrap();
        assert_eq!(segment.token(), process_token());
        assert!(!locked(), "the parent's description is still open here");
        assert!(segment.try_lock_seat(0, None).unwrap());
        assert!(locked());
        let held = lock::has_members(beside.as_fd());
        assert_eq!(
            held.unwrap(),
            segment.name().is_some(),
            "the membership lock"
        );
        segment.unlock_seat(0);
        assert!(!locked());
        // A lock binds first.
        inherit(&segment);
        assert!(segment.try_lock_seat(1, None).unwrap());
        assert_eq!(segment.token(), process_token());
    }
    assert!(!name.exists());
}

#[test]
fn an_inherited_in_process_segment_is_not_shared() {
    let segment = small().in_process().unwrap();
    assert!(segment.rebind().is_ok() && segment.inner.checked_fd().is_none());
    inherit(&segment);
    for _ in 0..2 {
        let refused = segment.rebind();
        assert!(matches!(refused, Err(SegmentError::NotShared)));
        assert_ne!(segment.token(), process_token());
    }
}

#[test]
fn a_segment_is_bound_once() {
    let _quiet = no_forks();
    let segment = small().anonymous().unwrap();
    inherit(&segment);
    segment.rebind().unwrap();
    assert!(segment.try_lock_seat(0, None).unwrap());
    // For a thread that looked before another one had bound the segment.
    segment.inner.rebind_in_turn(process_token()).unwrap();
    assert!(!segment.try_lock_seat(0, None).unwrap());
}

#[test]
fn one_thread_binds_and_the_others_wait() {
    let _quiet = no_forks();
    let segment = small().anonymous().unwrap();
    inherit(&segment);
    let turn = &segment.inner.rebinding;
    turn.store(process_token(), Ordering::Relaxed);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| segment.rebind());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        assert_ne!(segment.token(), process_token());
        turn.store(0, Ordering::Relaxed);
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(segment.token(), process_token());
    assert_eq!(turn.load(Ordering::Relaxed), 0);
    // The turn of a thread of the parent: there is no such thread here.
    inherit(&segment);
    turn.store(process_token() ^ 1, Ordering::Relaxed);
    segment.rebind().unwrap();
    assert_eq!(segment.token(), process_token());
    assert_eq!(turn.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_kept_is_an_option() {
    let segment = small().retain(12_345).in_process().unwrap();
    let RetainLimits { own, shared } = segment.retain_limits();
    assert_eq!((own, shared), (12_345, 12_345));
    let segment = small().in_process().unwrap();
    let limits = 1..=commit::total_memory() / 4;
    assert!(limits.contains(&segment.retain_limits().shared));
}

#[test]
fn each_segment_has_a_key_of_its_own() {
    let (first, second) = (small().anonymous(), small().anonymous());
    assert_ne!(first.unwrap().key(), second.unwrap().key());
    let (first, second) = (small().in_process(), small().in_process());
    assert_ne!(first.unwrap().key(), second.unwrap().key());
}

#[test]
fn only_a_creator_makes_a_name_persistent() {
    let _quiet = no_forks();
    let name = Name::new("opened-persistent");
    let segment = small().create(&name.0).unwrap();
    let opened = small().persistent(true).open(&name.0).unwrap();
    assert!(!segment.is_persistent() && !opened.is_persistent());
    drop(small().persistent(true).open_or_create(&name.0).unwrap());
    assert!(segment.is_persistent());
    segment.persist(false);
}

/// Punches these bytes. Returns how many of them the file had.
fn taken(file: &OwnedFd, at: u64, len: u64) -> u64 {
    let blocks = || rustix::fs::fstat(file).unwrap().st_blocks as u64 * 512;
    let before = blocks();
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, at, len).unwrap();
    before - blocks()
}

#[test]
fn what_is_committed_is_where_it_was_asked_for() {
    let name = Name::new("committed");
    let segment = small().seats(128).create(&name.0).unwrap();
    let file = beside(&segment);
    let layout = *segment.memory().layout();
    let blocks = rustix::fs::fstat(&file).unwrap().st_blocks as u64 * 512;
    let hints = segment.memory().hints().len() as u64 * 8;
    let last = (layout.hints + hints).next_multiple_of(4096);
    // Header, seats and spans, then schemas, names and hints.
    assert_eq!(blocks, layout.slots + last - layout.schemas);
    let mib = 1 << 20;
    segment.commit(3 * mib, mib).unwrap();
    assert_eq!(taken(&file, layout.data, 3 * mib), 0);
    assert_eq!(taken(&file, layout.data + 3 * mib, mib), mib);
    let page = 4096;
    // A page of slots, two of reader bits for 128 seats and two of pins, 16 of descriptors.
    segment.commit_slots(1024, 512).unwrap();
    assert_eq!(taken(&file, layout.slots + 2 * page, page), page);
    assert_eq!(taken(&file, layout.readers + 4 * page, 2 * page), 2 * page);
    assert_eq!(taken(&file, layout.pins + 4 * page, 2 * page), 2 * page);
    let descriptors = layout.descriptors + 32 * page;
    assert_eq!(taken(&file, descriptors, 16 * page), 16 * page);
    let left = rustix::fs::fstat(&file).unwrap().st_blocks as u64 * 512;
    assert_eq!(left, blocks, "more was allocated than was asked for");
}

#[test]
fn only_whole_pages_are_punched() {
    let page = page_size();
    let segment = small().anonymous().unwrap();
    let at = |offset: usize| {
        let at = segment.memory().data(offset as u64, 1).unwrap();
        // SAFETY: a byte of the data region, which this test has to itself.
        unsafe { at.read_volatile() }
    };
    let fill = || {
        let len = 8 * page;
        let start = segment.memory().data(0, len as u64).unwrap();
        // SAFETY: the range is within the data region, and this test's alone.
        unsafe { start.write_bytes(7, len) };
    };
    let punch = |offset: usize, len: usize| segment.punch(offset as u64, len as u64);
    // (the range, whether all of it is zeros, the pages that are)
    let cases = [
        (page..3 * page, true, 1..3),
        (page..3 * page + 1, false, 1..3),
        (page - 1..3 * page, false, 1..3),
        (page + 1..4 * page - 1, false, 2..3),
        (page + 1..3 * page - 1, false, 0..0),
        (page..page, true, 0..0),
        (page + 1..page + 1, true, 0..0),
    ];
    for (range, all, pages) in cases {
        fill();
        assert_eq!(punch(range.start, range.len()), all, "{range:?}");
        for number in 0..8 {
            let byte = if pages.contains(&number) { 0 } else { 7 };
            let ends = (at(number * page), at((number + 1) * page - 1));
            assert_eq!(ends, (byte, byte), "page {number} after {range:?}");
        }
    }
    let capacity = segment.capacity();
    assert!(segment.punch(capacity - 65536, 65536), "the last ones");
    assert!(!segment.punch(capacity - 65536, 65536 + page as u64));
    assert!(!segment.punch(u64::MAX, 2));
}

#[test]
fn descriptors_are_handed_out_as_the_segment_has_them() {
    use std::os::fd::AsRawFd;

    let segment = small().anonymous().unwrap();
    let number = segment.fd().unwrap().as_raw_fd();
    let allocates = segment.inner.checked_fd().map(|fd| fd.as_raw_fd());
    assert_eq!(allocates, Some(number));
    assert!(small().in_process().unwrap().fd().is_none());
}

/// Untouched memory that a memfd has been promised counts, because that of a file on
/// `/dev/shm` is allocated.
#[test]
fn only_a_memfd_promises_memory() {
    let name = Name::new("promises");
    let free = |segment: &Segment| {
        segment.inner.budget.forget();
        segment.commit(0, commit_budget::LARGE).unwrap();
        segment.inner.budget.promised()
    };
    let named = free(&small().create(&name.0).unwrap());
    assert_eq!(named, commit_budget::LARGE);
    let in_process = free(&small().in_process().unwrap());
    assert_eq!(in_process, commit_budget::LARGE);
    // The tables are promised too.
    assert!(free(&small().anonymous().unwrap()) > commit_budget::LARGE);
}

/// Looking at the machine's memory takes as long as a first touch of some hundred pages.
#[test]
fn an_extent_that_keeps_its_pages_stays_promised() {
    let segment = Segment::options().capacity(64 << 20).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let bytes = 4 * commit_budget::LARGE as usize;
    // Freed while it is pinned, it comes back through the hints.
    let free_pinned = |len: usize| {
        let x = table.from_elem(len, 1u8).unwrap();
        let pin = table.pin(x).unwrap();
        table.free(x).unwrap();
        drop(pin);
        segment.inner.budget.promised()
    };
    let part = commit_budget::LARGE;
    let once = free_pinned(bytes - part as usize);
    assert_eq!(free_pinned(bytes - part as usize), once);
    // It is promised no more than it was: the rest is promised anew.
    assert_eq!(free_pinned(bytes), once + part);
    // So is all of it without its pages.
    assert!(table.trim().unwrap() > 0);
    assert_eq!(free_pinned(bytes), once + part + bytes as u64);
    // Also after a reservation that ended without an array.
    assert!(table.trim().unwrap() > 0);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        table.from_shape_fn(bytes - 1, |_| -> u8 { panic!("a mistake") })
    }));
    assert!(failed.is_err());
    let before = segment.inner.budget.promised();
    free_pinned(bytes);
    assert_eq!(segment.inner.budget.promised(), before + bytes as u64);
}
