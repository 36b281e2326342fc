//! Operations on segments with names: whatever a death interrupts, the next process can use the
//! name.

use std::os::unix::net::UnixStream;

use ndshm::error::SegmentError;
use ndshm::{HandleTable, Segment};

use crate::ground::{Ground, options, work};
use crate::operations::Operation;
use crate::run::Run;
use crate::support::{DEADLINE, Name};
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("create a name", create_name),
    ("open or create a name", open_or_create_name),
    (
        "open or create a name that a rival wants",
        open_beside_a_rival,
    ),
    ("leave a name that a rival wants", leave_beside_a_rival),
    ("open a name", open_name),
    ("leave a name last", leave_name),
    ("leave a name and keep its memory", leave_with_views),
    (
        "keep memory of a name that a rival wants",
        leave_with_views_beside_a_rival,
    ),
    (
        "keep memory beside a participant",
        leave_with_views_beside_a_participant,
    ),
    ("open a segment by its address", open_peer),
    ("receive a segment", receive),
    ("bind a segment after a fork", bind_after_fork),
    ("create a pinned name", create_pinned),
];

/// Asserts that the next process can use the name, and that the name is gone when it leaves.
fn assert_next_process_works(name: &Name) {
    let segment = options().open_or_create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
    assert!(table.verify().unwrap().is_clean());
    drop((table, segment));
    assert!(!name.exists(), "the name is left behind");
}

fn open_between_marks(open: impl FnOnce() -> Result<Segment, SegmentError>) {
    mark();
    let segment = open().unwrap();
    mark();
    drop(segment);
}

fn create_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| open_between_marks(|| options().create(&name.0)));
    assert_next_process_works(&name);
}

fn open_or_create_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| open_between_marks(|| options().open_or_create(&name.0)));
    assert_next_process_works(&name);
}

/// Opens or creates the name while another process is about to die in the same call.
fn use_the_name(name: &Name) {
    let segment = options().open_or_create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
}

fn open_beside_a_rival(run: &mut Run) {
    let name = Name::new("steps");
    let life = || open_between_marks(|| options().open_or_create(&name.0));
    run.victim_beside(life, || use_the_name(&name));
    assert_next_process_works(&name);
}

fn leave_beside_a_rival(run: &mut Run) {
    let name = Name::new("steps");
    let life = || {
        let segment = options().create(&name.0).unwrap();
        mark();
        drop(segment);
        mark();
    };
    run.victim_beside(life, || use_the_name(&name));
    assert_next_process_works(&name);
}

fn open_name(run: &mut Run) {
    let name = Name::new("steps");
    let segment = options().create(&name.0).unwrap();
    run.victim(|| open_between_marks(|| options().open(&name.0)));
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
    drop((table, segment));
    assert!(!name.exists(), "the name is left behind");
    assert_next_process_works(&name);
}

fn leave_name(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| {
        let segment = options().create(&name.0).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        table.zeros::<u64, _>(5).unwrap();
        mark();
        drop((table, segment));
        mark();
    });
    assert_next_process_works(&name);
}

/// Leaves between the marks, and looks at an array afterwards.
fn leave_and_look(segment: &Segment) {
    let table = HandleTable::join(segment).unwrap();
    let x = table.from_elem(5, 7u64).unwrap();
    let at = table.attach(x).unwrap().as_ptr();
    table.detach(x).unwrap();
    drop(table);
    mark();
    segment.leave().unwrap();
    mark();
    // SAFETY: the segment is mapped as long as `segment` lives, and nobody writes the array.
    assert_eq!(unsafe { at.read() }, 7);
}

fn leave_with_views(run: &mut Run) {
    let name = Name::new("steps");
    run.victim(|| leave_and_look(&options().create(&name.0).unwrap()));
    assert_next_process_works(&name);
}

fn leave_with_views_beside_a_rival(run: &mut Run) {
    let name = Name::new("steps");
    let life = || leave_and_look(&options().create(&name.0).unwrap());
    run.victim_beside(life, || use_the_name(&name));
    assert_next_process_works(&name);
}

fn leave_with_views_beside_a_participant(run: &mut Run) {
    let name = Name::new("steps");
    let segment = options().create(&name.0).unwrap();
    run.victim(|| leave_and_look(&options().open(&name.0).unwrap()));
    let table = HandleTable::join(&segment).unwrap();
    work(&table);
    assert!(table.verify().unwrap().is_clean());
    drop((table, segment));
    assert!(!name.exists(), "the name is left behind");
    assert_next_process_works(&name);
}

fn open_peer(run: &mut Run) {
    let ground = Ground::new();
    let address = ground.table.segment().peer_address().unwrap();
    run.victim(|| open_between_marks(|| options().open_peer(&address)));
    ground.survive(run);
}

fn receive(run: &mut Run) {
    let ground = Ground::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ground.table.segment().send_to(&ours, DEADLINE).unwrap();
    run.victim(|| open_between_marks(|| options().receive_from(&theirs, DEADLINE)));
    ground.survive(run);
}

fn bind_after_fork(run: &mut Run) {
    let ground = Ground::new();
    let segment = ground.table.segment();
    run.victim(|| {
        mark();
        segment.after_fork().unwrap();
        mark();
        work(&HandleTable::join(segment).unwrap());
    });
    ground.survive(run);
}

fn create_pinned(run: &mut Run) {
    let name = Name::new("steps");
    let pinned = || options().pinned(true);
    run.victim(|| open_between_marks(|| pinned().create(&name.0)));
    let segment = pinned().open_or_create(&name.0).unwrap();
    assert!(segment.is_pinned(), "the mark is lost");
    drop(segment);
    assert_next_process_works(&name);
}
