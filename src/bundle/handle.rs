//! A bundle's name for other processes.

use core::fmt;
use core::str::FromStr;

use crate::handle::{AnyHandle, ParseHandleError};

/// A bundle's name for other processes: 8 bytes, `Copy`, any bits are one.
///
/// That it names a bundle is checked when it is [opened](crate::HandleTable::open_bundle).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct BundleHandle {
    control: AnyHandle,
}

impl BundleHandle {
    pub(super) const fn of(control: AnyHandle) -> Self {
        BundleHandle { control }
    }

    /// The handle of these bits. Whether they name a bundle is found out when it is opened.
    pub const fn from_bits(bits: u64) -> Self {
        Self::of(AnyHandle::from_bits(bits))
    }

    /// The bits, to take the handle elsewhere.
    pub const fn to_bits(self) -> u64 {
        self.control.to_bits()
    }
}

impl From<BundleHandle> for AnyHandle {
    fn from(handle: BundleHandle) -> AnyHandle {
        handle.control
    }
}

impl From<AnyHandle> for BundleHandle {
    fn from(handle: AnyHandle) -> BundleHandle {
        BundleHandle::of(handle)
    }
}

impl fmt::Display for BundleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.control.fmt(f)
    }
}

impl fmt::Debug for BundleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleHandle({self})")
    }
}

impl FromStr for BundleHandle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, ParseHandleError> {
        text.parse().map(BundleHandle::of)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for BundleHandle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.control.serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for BundleHandle {
    fn deserialize<S: serde::Deserializer<'de>>(deserializer: S) -> Result<Self, S::Error> {
        AnyHandle::deserialize(deserializer).map(BundleHandle::of)
    }
}
