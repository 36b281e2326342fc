//! Looks at a whole segment: its arrays, participants, size classes, and damage.

#[cfg(not(loom))]
mod census;
#[cfg(not(loom))]
mod classes;
#[cfg(not(loom))]
mod observer;
mod verify;

#[cfg(not(loom))]
pub use census::Census;
#[cfg(not(loom))]
pub use classes::ClassInfo;
#[cfg(not(loom))]
pub use observer::{Observer, SeatInfo};
pub use verify::{Damage, Verification};
