//! The name of a queue for other processes.

use core::marker::PhantomData;

use crate::handle::{AnyHandle, opened_handle_traits};

/// Names a queue for other processes: 8 bytes, `Copy`; any bits are a handle.
///
/// It can be sent, stored in an array, or be part of a kernel's parameter.
/// [Opening](crate::HandleTable::open_queue) it checks that it names a queue of jobs of `T`.
///
/// ```
/// use ndshm::{HandleTable, QueueHandle, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let jobs = table.queue::<u64>(4)?;
/// let bits = jobs.handle().to_bits();                  // sent by any means
/// let same = table.open_queue(QueueHandle::<u64>::from_bits(bits))?;
/// same.push(7)?;
/// assert_eq!(jobs.pop()?, Some(7));
/// # Ok::<(), ndshm::Error>(())
/// ```
#[repr(transparent)]
pub struct QueueHandle<T> {
    pub(super) control: AnyHandle,
    // A function pointer: a handle owns no `T`.
    job: PhantomData<fn() -> T>,
}

impl<T> QueueHandle<T> {
    pub(super) const fn of(control: AnyHandle) -> Self {
        QueueHandle {
            control,
            job: PhantomData,
        }
    }

    /// Returns the handle of these bits. Opening it checks that they name a queue.
    ///
    /// [`QueueHandle`] has an example.
    pub const fn from_bits(bits: u64) -> Self {
        Self::of(AnyHandle::from_bits(bits))
    }

    /// Returns the bits of the handle, to send them.
    ///
    /// [`QueueHandle`] has an example.
    pub const fn to_bits(self) -> u64 {
        self.control.to_bits()
    }
}

opened_handle_traits!(QueueHandle<T>, "QueueHandle", T);

// SAFETY: `repr(transparent)` over an `AnyHandle`, with only a `PhantomData` of size 0 and
// alignment 1 beside it. Zeros are a value of an `AnyHandle`.
unsafe impl<T> bytemuck::Zeroable for QueueHandle<T> {}
// SAFETY: has the layout of the `AnyHandle` it wraps, which is `Pod`: no padding, no pointer (the
// function pointer is a type argument and not stored), no interior mutability, and any bits are a
// value. It is `Copy`, and `'static` by the bound.
unsafe impl<T: 'static> bytemuck::Pod for QueueHandle<T> {}
