//! Chapters of the user guide, for subjects that span several items.

#[cfg(not(loom))]
#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[cfg(not(loom))]
#[doc = include_str!("pools.md")]
pub mod pools {}

#[cfg(not(loom))]
#[doc = include_str!("environments.md")]
pub mod environments {}

#[cfg(not(loom))]
#[doc = include_str!("names_and_objects.md")]
pub mod names_and_objects {}

#[cfg(not(loom))]
#[doc = include_str!("queues_and_loaders.md")]
pub mod queues_and_loaders {}

#[cfg(not(loom))]
#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[cfg(not(loom))]
#[doc = include_str!("ending.md")]
pub mod ending {}

#[cfg(not(loom))]
#[doc = include_str!("measuring.md")]
pub mod measuring {}

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
