//! The table: slots, their allocation and their leases.
//!
//! `README.md` beside this file describes the protocol and argues why it suffices.

pub(crate) mod above;
pub(crate) mod alloc;
pub(crate) mod builder;
mod cache;
pub(crate) mod core;
pub(crate) mod create;
pub(crate) mod error;
mod free;
pub(crate) mod guard;
pub(crate) mod hints;
pub(crate) mod inbox;
pub(crate) mod info;
pub(crate) mod kept_lease;
pub(crate) mod lease;
pub(crate) mod locate;
pub(crate) mod locked;
pub(crate) mod name_cache;
pub(crate) mod pin;
mod pressure;
mod recursive;
#[cfg_attr(loom, path = "roster/model.rs")]
pub(crate) mod roster;
pub(crate) mod slot;
mod sweep;
pub(crate) mod trim;
pub(crate) mod untyped;
pub(crate) mod wait;
pub(crate) mod wait_word;
