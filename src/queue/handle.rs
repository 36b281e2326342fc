//! A queue's name for other processes.

use core::marker::PhantomData;

use crate::handle::{AnyHandle, handle_traits};

/// A queue's name for other processes: 8 bytes, `Copy`, any bits are one.
///
/// It can be sent, kept in an array, or be a part of a kernel's parameter; that it names a queue of
/// jobs of `T` is checked when it is [opened](crate::HandleTable::open_queue).
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

    /// The handle of these bits. Whether they name a queue is found out when it is opened.
    pub const fn from_bits(bits: u64) -> Self {
        Self::of(AnyHandle::from_bits(bits))
    }

    /// The bits, to take the handle elsewhere.
    pub const fn to_bits(self) -> u64 {
        self.control.to_bits()
    }
}

// Written out, because a derive would demand the same of `T`, which a handle does not hold.
impl<T> Clone for QueueHandle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for QueueHandle<T> {}

impl<T> PartialEq for QueueHandle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.control == other.control
    }
}

impl<T> Eq for QueueHandle<T> {}

handle_traits!(QueueHandle<T>, "QueueHandle", T);

// SAFETY: `repr(transparent)` over an `AnyHandle`, beside which there is only a `PhantomData` of
// size 0 and alignment 1; of an `AnyHandle` zeros are a value.
unsafe impl<T> bytemuck::Zeroable for QueueHandle<T> {}
// SAFETY: laid out as the `AnyHandle` it wraps, which is `Pod`: no padding, no pointer (the function
// pointer is a type argument and not stored), no interior mutability, and any bits are a value.
// `Copy`, and `'static` by the bound.
unsafe impl<T: 'static> bytemuck::Pod for QueueHandle<T> {}
