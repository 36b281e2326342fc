//! Shared checks of all cases: the error's text is complete, and the segment is usable afterwards.

use std::fmt::Display;

use ndarray::Ix1;
use ndshm::error::{AllocError, NoMemory};
use ndshm::{Handle, HandleTable, Segment};

use crate::support::Child;

pub type Bytes = Handle<u8, Ix1>;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// Asserts that the error's text holds each part: the numbers, the holder, the remedy.
#[track_caller]
pub fn says(error: impl Display, parts: &[&str]) -> String {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing from: {text}");
    }
    text
}

/// Returns the refusal inside an allocation's error. Asserts that the error's text is complete.
#[track_caller]
pub fn no_memory(error: AllocError) -> NoMemory {
    let AllocError::NoMemory(refused) = &error else {
        panic!("unexpected error: {error}");
    };
    says(&error, &["need ", " has ", " free; ", &refused.what]);
    assert!(refused.need > refused.have, "{error}");
    assert!(refused.remedy.len() > 20, "{error}");
    refused.clone()
}

/// Creates arrays of `bytes`, each filled with its number, until an allocation fails.
pub fn fill(table: &HandleTable, bytes: usize) -> (Vec<Bytes>, AllocError) {
    let mut arrays = Vec::new();
    loop {
        match table.from_elem(bytes, arrays.len() as u8) {
            Ok(array) => arrays.push(array),
            Err(error) => return (arrays, error),
        }
    }
}

/// Asserts that the arrays of [`fill`] still hold their numbers.
#[track_caller]
pub fn assert_intact(table: &HandleTable, arrays: &[Bytes]) {
    for (number, &array) in arrays.iter().enumerate() {
        let view = table.read(array).unwrap();
        assert!(view.iter().all(|&byte| byte == number as u8), "{number}");
    }
}

pub fn free_all(table: &HandleTable, arrays: Vec<Bytes>) {
    for array in arrays {
        table.free(array).unwrap();
    }
}

/// Allocates, leases, writes, reads and frees.
#[track_caller]
fn uses(table: &HandleTable) {
    let arrays: Vec<Bytes> = (0..4).map(|_| table.zeros(50).unwrap()).collect();
    for (number, &array) in arrays.iter().enumerate() {
        table.write(array).unwrap().fill(number as u8);
    }
    assert_intact(table, &arrays);
    free_all(table, arrays);
}

/// Asserts that this process and another one can use the segment.
#[track_caller]
pub fn assert_usable(table: &HandleTable) {
    uses(table);
    Child::fork(|| uses(table)).join();
    let name = table.segment().name().map(String::from);
    if let Some(name) = name {
        Child::fork(|| uses(&HandleTable::join(&Segment::open(&name).unwrap()).unwrap())).join();
    }
    uses(table);
}

/// Prints one line for a case, with the measured numbers.
pub fn report(case: &str, seen: impl Display) {
    println!("  {case}: {seen}");
}
