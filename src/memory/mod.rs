//! The memory of a segment as the protocol has it: tables of words, and places of bytes.
//!
//! Protocol code sees slices of [`Atom`](crate::sync::Atom)s. Production has them in a mapping that a
//! segment makes; under the model checker they are the checker's own words, and the bytes of arrays are
//! watched for races. Only the constructors differ.

mod corrupt;
#[cfg(loom)]
mod model;
#[cfg(loom)]
mod races;
#[cfg(not(loom))]
mod tables;

pub use corrupt::Corrupt;
#[cfg(loom)]
pub(crate) use model::Memory;
#[cfg(loom)]
pub use races::Access;
#[cfg(loom)]
pub(crate) use races::put_down_to;
#[cfg(not(loom))]
pub(crate) use tables::{Access, Memory};
