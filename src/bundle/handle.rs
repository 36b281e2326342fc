//! The name of a bundle for other processes.

use crate::handle::{AnyHandle, opened_handle_traits};

/// Names a bundle for other processes: 8 bytes, `Copy`; any bits are a handle.
///
/// [Opening](crate::HandleTable::open_bundle) it checks that it names a bundle.
///
/// ```
/// use ndshm::{BundleHandle, HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let model = table.bundle()?;
/// let bits = model.handle().to_bits();                 // sent by any means
/// let same = table.open_bundle(BundleHandle::from_bits(bits))?;
/// assert_eq!(same.handle(), model.handle());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct BundleHandle {
    control: AnyHandle,
}

impl BundleHandle {
    pub(super) const fn of(control: AnyHandle) -> Self {
        BundleHandle { control }
    }

    /// Returns the handle of these bits. Opening it checks that they name a bundle.
    ///
    /// [`BundleHandle`] has an example.
    pub const fn from_bits(bits: u64) -> Self {
        Self::of(AnyHandle::from_bits(bits))
    }

    /// Returns the bits of the handle, to send them.
    ///
    /// [`BundleHandle`] has an example.
    pub const fn to_bits(self) -> u64 {
        self.control.to_bits()
    }
}

opened_handle_traits!(BundleHandle, "BundleHandle");
