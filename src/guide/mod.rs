//! Chapters of the user guide, for subjects that span several items.

#[doc = include_str!("model_check.md")]
pub mod model_check {}

#[doc = include_str!("trust.md")]
pub mod trust {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[cfg(not(loom))]
#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("passing.md")]
pub mod passing {}

#[cfg(not(loom))]
#[doc = include_str!("structs.md")]
pub mod structs {}

#[doc = include_str!("files.md")]
pub mod files {}
