//! Looks at a whole segment: its arrays, participants, size classes, and damage.

mod census;
mod classes;
mod error;
#[cfg(not(loom))]
mod observer;
mod verify;

pub use census::Census;
pub use classes::ClassInfo;
pub use error::CopyError;
#[cfg(not(loom))]
pub use observer::{Observer, SeatInfo};
pub use verify::{Damage, Verification};
