//! The jobs of queues: plain data, or arrays that belong to the queue.

use core::fmt;
use core::marker::PhantomData;

use bytemuck::Pod;
use ndarray::Dimension;

use super::shape::JobType;
use crate::element::{Element, assert_layout};
use crate::handle::Handle;
use crate::word::fnv1a;

/// A type of job: any plain data ([`bytemuck::Pod`]), or [`OwnedArray`].
///
/// ```compile_fail,E0277
/// # use ndshm::{HandleTable, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// let queue = table.queue::<String>(16)?;                 // put the text into an array, push its handle
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a job of a queue",
    label = "not plain data",
    note = "jobs are plain data: numbers, handles, arrays of these, and structs with \
            `#[derive(Pod)]`; for a `bool` use `u8`, for a tuple an array or a struct",
    note = "a queue of `ndshm::queue::OwnedArray<T, D>` passes arrays of any length"
)]
pub trait Job: sealed::Job {}

#[diagnostic::do_not_recommend]
impl<T: sealed::Job> Job for T {}

/// The job type of a queue that owns the arrays in it: `table.queue::<OwnedArray<f64, Ix2>>(8)`.
///
/// [`push_owned`](super::Queue::push_owned) transfers an array to the queue, and
/// [`pop_owned`](super::Queue::pop_owned) transfers it to its consumer. This type has no values.
pub struct OwnedArray<T, D> {
    never: core::convert::Infallible,
    array: PhantomData<fn() -> (T, D)>,
}

impl<T, D> fmt::Debug for OwnedArray<T, D> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = self.array;
        match self.never {}
    }
}

pub(super) mod sealed {
    pub trait Job {
        /// The job as its consumer holds it.
        type Held: Copy;
        /// Fails to compile for a type that does not fit into a cell.
        const CHECK: ();
        const OWNS_ARRAYS: bool;
        const SIZE: usize;
        const ALIGN: usize;
    }
}

#[diagnostic::do_not_recommend]
impl<T: Pod> sealed::Job for T {
    type Held = T;
    const CHECK: () = assert_layout::<T>();
    const OWNS_ARRAYS: bool = false;
    const SIZE: usize = size_of::<T>();
    const ALIGN: usize = align_of::<T>();
}

impl<T: Element, D: Dimension> sealed::Job for OwnedArray<T, D> {
    type Held = Handle<T, D>;
    const CHECK: () = ();
    const OWNS_ARRAYS: bool = true;
    // A handle.
    const SIZE: usize = 8;
    const ALIGN: usize = 8;
}

/// Returns the description of the job type in the queue's words.
pub(super) fn job_type<T: Job>() -> JobType {
    JobType {
        name: fnv1a(core::any::type_name::<T>()),
        size: T::SIZE as u64,
        align: T::ALIGN as u64,
    }
}
