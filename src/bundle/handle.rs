//! A bundle's name for other processes.

use crate::handle::{AnyHandle, handle_traits};

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

handle_traits!(BundleHandle, "BundleHandle");
