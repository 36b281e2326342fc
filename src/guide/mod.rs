//! Chapters of the user guide, for subjects that span several items.

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("pools.md")]
pub mod pools {}

#[doc = include_str!("environments.md")]
pub mod environments {}

#[doc = include_str!("names_and_objects.md")]
pub mod names_and_objects {}

#[doc = include_str!("queues_and_loaders.md")]
pub mod queues_and_loaders {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("ending.md")]
pub mod ending {}

#[doc = include_str!("measuring.md")]
pub mod measuring {}

#[doc = include_str!("model_check.md")]
pub mod model_check {}

#[doc = include_str!("trust.md")]
pub mod trust {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("passing.md")]
pub mod passing {}

#[doc = include_str!("structs.md")]
pub mod structs {}

#[doc = include_str!("files.md")]
pub mod files {}

#[doc = include_str!("past_one_machine.md")]
pub mod past_one_machine {}
