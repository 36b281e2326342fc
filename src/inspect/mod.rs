//! Looks at a whole segment: its arrays, participants, memory and damage.
//!
//! [`Observer`] maps a segment read-only and takes no part in it; monitors and tools use it. The
//! other types are reports: of arrays ([`ArrayInfo`], [`NameInfo`], [`BundleInfo`]), of participants ([`SeatInfo`],
//! [`ReapReport`]), of memory ([`ClassInfo`], [`HugePageReport`], [`MemoryLimits`]), of rounds
//! ([`RoundProgress`]) and of damage ([`Verification`]).

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
pub use observer::{BundleInfo, Observer, SeatInfo};
pub use verify::{Damage, Verification};
