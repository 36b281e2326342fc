//! The memory of a segment as the protocol has it: tables of words, and places of bytes.
//!
//! Protocol code sees slices of [`Atom`](crate::sync::Atom)s. Production has them in a mapping that a
//! segment makes; under the model checker they are the checker's own words, and the bytes of arrays are
//! watched for races. Only the constructors differ.

mod corrupt;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod tables;

pub use corrupt::Corrupt;
#[cfg(loom)]
pub use model::{Access, Memory, TileAccesses, ViewAccesses, put_down_to};
#[cfg(not(loom))]
pub use tables::{Access, Memory, TileAccesses, ViewAccesses};
