//! Looks at a whole segment: its arrays, participants, size classes, and damage.

mod census;
mod classes;
#[cfg(not(loom))]
mod observer;
mod verify;

pub use crate::message::Bytes;
pub use crate::names::NameInfo;
pub use crate::partition::RoundProgress;
pub use crate::seat::{ReapReport, TornTile};
pub use crate::segment::huge_pages::HugePageReport;
pub use crate::segment::limits::{CgroupLimit, MemoryLimits};
pub use crate::table::info::ArrayInfo;
pub use census::Census;
pub use classes::ClassInfo;
#[cfg(not(loom))]
pub use observer::{Observer, SeatInfo};
pub use verify::{Damage, Verification};
