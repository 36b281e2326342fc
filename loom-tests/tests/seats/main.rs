//! Seats: joining, leaving, and reaping a participant that died at any instruction.
#![cfg(all(loom, not(shuttle)))]

mod arrays;
mod joining;
mod owners;
mod reaping;
mod rounds;

use loom_tests::{assert_all_free, join};
use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable};

type Vector = Handle<u64, Ix1>;

/// Reaps, and asserts that seat 1 and its memory can be taken again.
fn assert_gone(survivor: &HandleTable, free: usize) {
    survivor.reap().unwrap();
    let found = survivor.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.seats, found.in_transit, found.readers), (1, 0, 0));
    let again = join(survivor.segment());
    assert_eq!(again.seat().unwrap(), 1, "its seat can be taken");
    assert_all_free(&again, free);
}

/// Reads an array of two equal numbers, one of which a dead writer may have changed. Returns `true`
/// if they are equal.
fn look(table: &HandleTable, x: Vector) -> Result<bool, LeaseError> {
    table.read(x).map(|x| x[0] == x[1])
}

/// Reads the array, which must be whole unless it is poisoned. Returns `true` if it is poisoned.
fn is_poisoned(table: &HandleTable, x: Vector) -> bool {
    match look(table, x) {
        Ok(whole) => assert!(whole, "half-written, but not poisoned"),
        Err(LeaseError::Poisoned { .. }) => return true,
        Err(error) => panic!("{error}"),
    }
    false
}
