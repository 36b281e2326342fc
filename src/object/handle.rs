//! An object's name for other processes.

use crate::handle::{AnyHandle, handle_traits};

/// Names one object, in every process that has its segment: 8 bytes, `Copy`, any bits are one.
///
/// The text form is that of other handles. As an [`AnyHandle`] it can be freed, detached and
/// adopted like an array's.
///
/// ```
/// use ndshm::{HandleTable, ObjectHandle, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let handle = table.put_object("what any process may read")?;
/// let same: ObjectHandle = handle.to_string().parse()?;
/// assert_eq!(table.open_object(same)?.get::<&str>()?, "what any process may read");
/// table.free(handle)?;
/// assert!(table.open_object(same).is_err());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct ObjectHandle {
    any: AnyHandle,
}

impl ObjectHandle {
    /// The handle of these bits. Whether they name an object is found out when it is opened.
    pub const fn from_bits(bits: u64) -> Self {
        ObjectHandle {
            any: AnyHandle::from_bits(bits),
        }
    }

    /// The bits, to take the handle elsewhere.
    pub const fn to_bits(self) -> u64 {
        self.any.to_bits()
    }
}

/// Whether it names an object is found out when it is opened.
impl From<AnyHandle> for ObjectHandle {
    fn from(any: AnyHandle) -> Self {
        ObjectHandle { any }
    }
}

impl From<ObjectHandle> for AnyHandle {
    fn from(handle: ObjectHandle) -> Self {
        handle.any
    }
}

handle_traits!(ObjectHandle, "ObjectHandle");
