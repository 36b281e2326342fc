//! Operations on segments with names: whatever a death interrupts, the next process can use the
//! name.

use ndshm::error::SegmentError;
use ndshm::{HandleTable, Segment};

use crate::ground::{options, work};
use crate::operations::Operation;
use crate::run::Run;
use crate::support::Name;
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
