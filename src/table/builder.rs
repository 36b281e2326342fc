//! Arrays under construction: reserved, filled, and published or abandoned.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::slice;

use super::alloc::Reserved;
use super::core::Core;
use crate::descriptor::{Descriptor, MAX_AXES, bytes_of};
use crate::element::{DType, Order, schema};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::sync::Atom;
use crate::table::error::AllocError;

/// A reserved slot while code that may fail, panic or fork fills its array. Dropping it abandons
/// the slot.
pub(super) struct Unpublished<'t> {
    core: &'t Core,
    reserved: Reserved<'t>,
    /// The process that reserved it.
    token: u64,
}

impl<'t> Unpublished<'t> {
    pub(super) fn new(core: &'t Core, reserved: Reserved<'t>) -> Self {
        Unpublished {
            core,
            reserved,
            token: core.token(),
        }
    }

    /// Ends the guard: the caller publishes the array now.
    ///
    /// # Errors
    /// [`AllocError::Forked`] in a child that was forked meanwhile: the array belongs to the parent.
    pub(super) fn finish(self) -> Result<(), AllocError> {
        let is_ours = self.core.is_of(self.token);
        core::mem::forget(self);
        match is_ours {
            true => Ok(()),
            false => Err(AllocError::Forked),
        }
    }
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        // In a forked child it belongs to the parent.
        if self.core.is_of(self.token) {
            self.core.abandon(self.reserved);
        }
    }
}

/// An array with a type known at run time, while it is being filled. If it is dropped, nothing is
/// allocated.
pub(crate) struct ArrayBuilder<'t> {
    slot: Unpublished<'t>,
    descriptor: Descriptor,
    first: NonNull<u8>,
    len: usize,
    _access: Access,
}

impl Core {
    /// Reserves an array that nobody else knows of. The caller fills and publishes it.
    /// Its contents are unspecified before. If it is dropped instead, nothing is allocated.
    pub(crate) fn reserve_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<ArrayBuilder<'_>, AllocError> {
        if shape.len() > MAX_AXES {
            return Err(AllocError::TooManyAxes { axes: shape.len() });
        }
        let axes = shape.iter().map(|&axis| axis as u64);
        let bytes = bytes_of(dtype.size(), axes).ok_or_else(|| AllocError::TooLarge {
            shape: shape.to_vec(),
            element: dtype.to_string(),
            size: dtype.size(),
        })?;
        let schema = match dtype {
            DType::Scalar(_) => 0,
            DType::Record(layout) => schema::intern(self.segment.memory(), &layout.to_text())?,
        };
        let reserved = self.reserve(bytes)?;
        let extent = reserved.extent;
        let first = self
            .segment
            .memory()
            .data(extent.offset, extent.size())
            .ok_or_else(|| self.abandon_damaged(reserved))?;
        Ok(ArrayBuilder {
            slot: Unpublished::new(self, reserved),
            descriptor: Descriptor::untyped(dtype, schema, order, shape),
            first,
            len: bytes as usize,
            _access: self.segment.memory().track(extent.offset, bytes, true),
        })
    }
}

impl<'t> ArrayBuilder<'t> {
    /// Ends the access to the bytes.
    fn into_parts(self) -> (Unpublished<'t>, Descriptor) {
        (self.slot, self.descriptor)
    }

    /// Returns the bytes of the elements, in memory order.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes from `first` are in the extent, which is mapped (`reserve_untyped`).
        // Bytes of a mapping are initialised. The slot is RESERVED by this participant, so nobody
        // else accesses them, and `self` is borrowed for as long.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }

    /// Fills the array with zeros. Leaves pages alone that were never used: they hold zeros.
    pub(super) fn zero(&mut self) {
        if !self.slot.reserved.clean {
            self.bytes_mut().fill(0);
        }
    }

    /// Makes the array LIVE.
    pub(crate) fn publish(self) -> AnyHandle {
        let (slot, descriptor) = self.into_parts();
        // No code of a user runs between the reservation and here, so nothing has forked.
        let slot = ManuallyDrop::new(slot);
        let describe = |words: &[Atom]| descriptor.store(words);
        slot.core.publish_array(slot.reserved, describe)
    }
}
