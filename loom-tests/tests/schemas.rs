//! Schemas: the segment's table of record layouts, filled by the first participant that needs an
//! entry.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{beside, check, check_deaths, segment, tables};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::error::{AllocError, LayoutError};
use ndshm::{Element, HandleTable, model};

macro_rules! record {
    ($name:ident, $field:ident) => {
        #[derive(Clone, Copy, Default, PartialEq, Debug, Pod, Zeroable)]
        #[bytemuck(crate = "ndshm::bytemuck")]
        #[repr(C)]
        struct $name {
            $field: u8,
        }
        ndshm::record!($name { $field: u8 });
    };
}
record!(A, a);
record!(B, b);

/// Returns the element type of an array as tools see it.
fn dtype_of<T: Element + Default>(table: &HandleTable) -> String {
    match table.from_elem(1, T::default()) {
        Ok(x) => {
            let seen = table.info(x).expect("a live array").dtype.to_string();
            assert_eq!(seen, T::dtype().to_string());
            table.free(x).expect("an array of our own");
            seen
        }
        // Two texts of one hash won a word each, so the entry is lost for both.
        Err(AllocError::Layout(LayoutError::TooMany { .. })) => String::new(),
        Err(error) => panic!("{error}"),
    }
}

/// I1: two participants that enter one layout help each other, and get the same index.
#[test]
fn two_participants_enter_one_layout_once() {
    check(2, || {
        let [first, second] = tables(&segment(128, 2, 2));
        let (seen, others, second) = beside(second, dtype_of::<A>, || dtype_of::<A>(&first));
        assert_eq!(seen, others);
        // Only one entry was taken, so there is room for another layout.
        assert!(!dtype_of::<B>(&second).is_empty());
    });
}

/// I1, I8: two layouts of one hash (in a model all layouts have the same hash) are never mixed:
/// each gets an entry of its own, or none.
#[test]
fn two_layouts_of_one_hash_are_never_mixed() {
    check(3, || {
        let [first, second] = tables(&segment(128, 2, 2));
        let (seen, others, second) = beside(second, dtype_of::<B>, || dtype_of::<A>(&first));
        assert!(seen != others || seen.is_empty());
        // A layout that had an index keeps it.
        assert!(seen.is_empty() || dtype_of::<A>(&second) == seen);
    });
}

/// I1, I7: a participant that dies while it enters a layout does not keep others from entering it.
#[test]
fn death_while_entering_a_layout_blocks_nobody() {
    check_deaths(1, |steps| {
        let segment = segment(128, 2, 2);
        let [first, second] = tables(&segment);
        let mortal = segment.clone();
        let other = thread::spawn(move || {
            model::mortal(&mortal, 1, steps, || {
                let x = second.from_elem(1, A::default());
                (x.is_ok(), second)
            })
        });
        assert!(!dtype_of::<A>(&first).is_empty());
        let died = other.join().unwrap().is_none();
        assert!(!dtype_of::<A>(&first).is_empty());
        died
    });
}
