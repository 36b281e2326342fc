//! Segments that are looked at, against those that are looked at.

use std::time::{Duration, Instant};

use super::*;
use crate::HandleTable;
use crate::segment::Segment;
use crate::segment::tests::no_forks;
use crate::word::{BucketWord, SlotIndex, SpanWord};

const PREFIX: &str = "ndshm-unit-observe";

/// A name of this run and test; removed on drop.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!("{PREFIX}-{}-{test}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(path(&self.0));
    }
}

fn small() -> SegmentOptions {
    Segment::options()
        .capacity(8 << 20)
        .seats(2)
        .arrays(64)
        .open_timeout(Duration::from_millis(30))
}

fn observed(segment: &Segment) -> Observed {
    by_descriptor(segment.inheritable_fd().unwrap(), &small()).unwrap()
}

fn words<T: crate::sync::Word>(words: &[crate::sync::Atom<T>]) -> Vec<T> {
    words
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect()
}

#[test]
fn all_tables_are_seen_where_they_are() {
    let segment = small().anonymous().unwrap();
    let memory = segment.memory();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(100, 7u16).unwrap();
    table.publish("a name", x).unwrap();
    // A value of its own at the end of each table.
    let last = SlotIndex::new(256 * 64 - 1);
    memory.readers(last)[0].store(11, Ordering::Relaxed);
    memory.pins(last)[0].store(16, Ordering::Relaxed);
    memory.descriptor(last)[15].store(12, Ordering::Relaxed);
    memory.schema(Layout::SCHEMAS - 1)[255].store(13, Ordering::Relaxed);
    let bucket = memory.names().last().unwrap();
    bucket.store(BucketWord::of(SlotIndex::new(14), 0), Ordering::Relaxed);
    memory.hints().last().unwrap().store(15, Ordering::Relaxed);

    let observed = observed(&segment);
    let seen = observed.memory();
    assert_eq!(seen.layout(), memory.layout());
    assert_eq!(seen.slots().len(), 256 * 64, "as far as they are in use");
    assert_eq!(words(seen.header()), words(memory.header()));
    assert_eq!(words(seen.spans()), words(memory.spans()));
    assert_eq!(words(seen.slots()), words(&memory.slots()[..256 * 64]));
    assert_eq!(words(seen.seat_card(0)), words(memory.seat_card(0)));
    for slot in [SlotIndex::new(0), SlotIndex::new(1), last] {
        assert_eq!(words(seen.readers(slot)), words(memory.readers(slot)));
        assert_eq!(words(seen.pins(slot)), words(memory.pins(slot)));
        assert_eq!(words(seen.descriptor(slot)), words(memory.descriptor(slot)));
    }
    for schema in [0, Layout::SCHEMAS - 1] {
        assert_eq!(words(seen.schema(schema)), words(memory.schema(schema)));
    }
    assert_eq!(words(seen.names()), words(memory.names()));
    assert_eq!(words(seen.name_counts()), words(memory.name_counts()));
    assert_eq!(words(seen.hints()), words(memory.hints()));
    assert!(seen.data(0, 1).is_none(), "contents are mapped apart");
    let start = NonNull::from(&seen.header()[0]).addr().get();
    let end = seen.data(0, 0).unwrap().addr().get();
    assert!(((end - start) as u64) < memory.layout().data, "no hole");
    assert_eq!(observed.key(), segment.key());
}

#[test]
fn the_tables_grow_with_the_spans() {
    let segment = small().anonymous().unwrap();
    let early = observed(&segment);
    let append = |span: usize| {
        segment.memory().spans()[span].store(SpanWord::new(0, 64), Ordering::Relaxed);
    };
    let slots = |observed: &Observed| observed.memory().slots().len();
    assert_eq!(slots(&early), 256 * 64);
    let former = early.memory();
    append(255);
    assert!(std::ptr::eq(early.memory(), former), "they are all there");
    append(256);
    assert_eq!(slots(&early), 512 * 64);
    let grown = early.memory();
    assert!(std::ptr::eq(early.memory(), grown), "mapped once");
    assert_eq!(early.reach().unwrap().slots().len(), 512 * 64);
    // One that comes later maps as many at once, and so keeps its first mapping.
    let late = observed(&segment);
    assert_eq!(late.tables.memory().slots().len(), 512 * 64);
    append(512);
    let later = observed(&segment);
    assert_eq!(later.tables.memory().slots().len(), 1024 * 64);
    assert_eq!((slots(&early), slots(&late)), (1024 * 64, 1024 * 64));
    assert_eq!(former.slots().len(), 256 * 64, "the former one stays");
}

#[test]
fn bytes_of_the_file_are_read_where_they_are() {
    let segment = small().anonymous().unwrap();
    let observed = observed(&segment);
    let layout = segment.memory().layout();
    let at = segment.memory().data(4999, 3).unwrap();
    // SAFETY: three bytes of the data region, which this test has to itself.
    unsafe { at.copy_from(NonNull::from(b"xyz").cast(), 3) };
    let mut out = [0; 3];
    observed.read(layout.data + 4999, &mut out).unwrap();
    assert_eq!(&out, b"xyz");
    observed.read(layout.data + 4999, &mut []).unwrap();
    let first = observed.contents(4999, 3).unwrap();
    // SAFETY: the address of a byte that is mapped, and not written meanwhile.
    assert_eq!(unsafe { first.read_volatile() }, b'x');
    // A read that the end of the file cuts short.
    let error = observed.read(layout.total - 2, &mut out).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let error = observed.read(layout.total, &mut out).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn members_and_seats_are_known_by_their_locks() {
    let _quiet = no_forks();
    let name = Name::new("members");
    let segment = small().persistent(true).create(&name.0).unwrap();
    let observed = by_name(&name.0, &small()).unwrap();
    assert!(observed.has_members().unwrap());
    let alive = || [0, 1].map(|seat| observed.is_alive(seat).unwrap());
    assert_eq!(alive(), [false, false]);
    assert!(segment.try_lock_seat(1, None).unwrap());
    assert_eq!(alive(), [false, true]);
    drop(segment);
    assert_eq!(alive(), [false, false]);
    assert!(!observed.has_members().unwrap());
}

#[test]
fn descriptors_are_closed_on_exec() {
    let name = Name::new("closed");
    let segment = small().create(&name.0).unwrap();
    for observed in [observed(&segment), by_name(&name.0, &small()).unwrap()] {
        let flags = rustix::io::fcntl_getfd(&observed.fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let access = rustix::fs::fcntl_getfl(&observed.fd).unwrap();
        assert_eq!(access & OFlags::RWMODE, OFlags::RDONLY);
    }
}

#[test]
fn a_name_that_comes_to_life_is_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("waits");
    std::fs::write(path(&name.0), "").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path(&name.0), private).unwrap();
    let start = Instant::now();
    let refused = by_name(&name.0, &small()).err();
    assert!(matches!(
        refused,
        Some(SegmentError::NotInitialized { size: 0, .. })
    ));
    assert!(start.elapsed() >= Duration::from_millis(30));
    let patient = small().open_timeout(Duration::from_secs(20));
    std::thread::scope(|scope| {
        let observer = scope.spawn(|| by_name(&name.0, &patient).map(|observed| observed.key()));
        let segment = small().open_or_create(&name.0).unwrap();
        let key = observer.join().unwrap().unwrap();
        assert_eq!(key, segment.key());
    });
}

#[test]
fn what_is_no_segment_is_refused() {
    let name = Name::new("refused");
    let error = by_name(&name.0, &small()).err();
    assert!(matches!(error, Some(SegmentError::NotFound { .. })));
    std::os::unix::fs::symlink("/dev/zero", path(&name.0)).unwrap();
    let error = by_name(&name.0, &small()).err().unwrap();
    assert!(
        matches!(error, SegmentError::Os { call: "open", .. }),
        "{error}"
    );
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    assert!(by_descriptor(zeros.into(), &small()).is_err());
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let unborn = rustix::fs::memfd_create("unborn", flags).unwrap();
    rustix::fs::ftruncate(&unborn, 4096).unwrap();
    let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&unborn, seals).unwrap();
    let error = by_descriptor(unborn, &small()).err().unwrap();
    assert!(
        matches!(error, SegmentError::NotOurs { size: 4096, .. }),
        "{error}"
    );
}
