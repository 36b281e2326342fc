//! Handles of objects.

use crate::handle::{AnyHandle, opened_handle_traits};

/// Names one object, in every process that has its segment: 8 bytes, `Copy`, any bits are valid.
///
/// The text form is that of other handles. Converted to an [`AnyHandle`], it can be freed, detached
/// and adopted like the handle of an array.
///
/// ```
/// use ndshm::{HandleTable, Segment};
/// use ndshm::object::ObjectHandle;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let handle = table.put_object("what any process may read")?;
/// let same: ObjectHandle = handle.to_string().parse()?;
/// assert_eq!(table.open_object(same)?.get::<&str>()?, "what any process may read");
/// table.free(handle)?;
/// assert!(table.open_object(same).is_err());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct ObjectHandle {
    any: AnyHandle,
}

impl ObjectHandle {
    /// Creates the handle of these bits. Opening it checks whether they name an object.
    pub const fn from_bits(bits: u64) -> Self {
        ObjectHandle {
            any: AnyHandle::from_bits(bits),
        }
    }

    /// Returns the bits, for sending the handle to another process.
    pub const fn to_bits(self) -> u64 {
        self.any.to_bits()
    }
}

opened_handle_traits!(ObjectHandle, "ObjectHandle");
