//! Arrays under construction: reserved, filled, and published or abandoned.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::alloc::Reserved;
use super::core::Core;
use super::create::Commit;
use super::slot::Slot;
use super::untyped::ArrayKind;
use crate::descriptor::{Descriptor, MAX_AXES, bytes_of};
use crate::element::{DType, Order, schema};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::segment::{NoMemory, Segment};
use crate::span::Extent;
use crate::sync::Atom;
use crate::table::error::AllocError;
use crate::word::{SlotIndex, SlotWord};

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

/// An array that is being filled. Nobody else knows of it before it is published.
///
/// Made by [`HandleTable::builder`](crate::HandleTable::builder). The elements are unspecified at
/// first: zeros, or the bytes of an earlier array. [`publish`](ArrayBuilder::publish) makes the
/// array known by its handle. Dropping the builder allocates nothing, also in a panic. If the
/// process dies, the memory is taken back with the participant's seat.
///
/// The builder belongs to the thread that has the table, but its bytes may be divided among
/// threads, which write them without the table:
///
/// ```
/// use ndshm::{HandleTable, Segment};
/// use ndshm::element::{DType, Order, ScalarType};
/// use ndarray::{Ix1, array};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let mut x = table.builder(&DType::from(ScalarType::U8), &[4], Order::C)?;
/// std::thread::scope(|scope| {
///     for (part, value) in x.bytes_mut().chunks_mut(2).zip(1..) {
///         scope.spawn(move || part.fill(value));
///     }
/// });
/// let x = x.publish()?.downcast::<u8, Ix1>(&table)?;
/// assert_eq!(table.read(x)?.view(), array![1, 1, 2, 2]);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "nothing is allocated unless the array is published"]
pub struct ArrayBuilder<'t> {
    // A pointer, because a reference in a function's argument must stay valid until the function
    // returns, and `publish` lends the array to others before that.
    bytes: NonNull<[u8]>,
    borrow: PhantomData<&'t mut [u8]>,
    kind: ArrayKind,
    descriptor: Descriptor,
    // Before the slot: the access ends first.
    access: Access,
    slot: Unpublished<'t>,
}

impl Core {
    /// Reserves an array that nobody else knows of. The caller fills and publishes it.
    /// Its contents are unspecified before. If it is dropped instead, nothing is allocated.
    pub(crate) fn builder(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<ArrayBuilder<'_>, AllocError> {
        let reserve = |bytes| Ok((self.reserve(bytes)?, None));
        self.builder_by(dtype, shape, order, reserve)
            .map(|(array, _)| array)
    }

    /// Reserves an array as [`builder`](Core::builder) does, but leaves it to the caller to commit
    /// its pages, and to report that to [`builder_committed`](Core::builder_committed).
    pub(crate) fn builder_uncommitted(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<(SuspendedBuilder, Option<Commit>), AllocError> {
        let reserve = |bytes| self.reserve_uncommitted(bytes);
        let (array, commit) = self.builder_by(dtype, shape, order, reserve)?;
        Ok((array.suspend(), commit))
    }

    /// Continues with an array after the caller has committed its pages. If that failed, nothing is
    /// allocated.
    pub(crate) fn builder_committed(
        &self,
        suspended: SuspendedBuilder,
        commit: &Commit,
        outcome: Result<u64, NoMemory>,
    ) -> Result<SuspendedBuilder, AllocError> {
        let mut array = self.resume_builder(suspended)?;
        match self.committed(array.slot.reserved, commit, outcome) {
            Ok(reserved) => {
                array.slot.reserved = reserved;
                Ok(array.suspend())
            }
            Err(error) => {
                let (slot, _) = array.into_parts();
                core::mem::forget(slot);
                Err(error.into())
            }
        }
    }

    fn builder_by<'t>(
        &'t self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
        reserve: impl FnOnce(u64) -> Result<(Reserved<'t>, Option<Commit>), AllocError>,
    ) -> Result<(ArrayBuilder<'t>, Option<Commit>), AllocError> {
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
            DType::Opaque(opaque) => schema::intern(self.segment.memory(), &opaque.to_text())?,
        };
        let (reserved, commit) = reserve(bytes)?;
        let extent = reserved.extent;
        let first = self
            .segment
            .memory()
            .data(extent.offset, extent.size())
            .ok_or_else(|| self.abandon_damaged(reserved))?;
        let descriptor = Descriptor::untyped(dtype, schema, order, shape);
        let array = ArrayBuilder {
            bytes: NonNull::slice_from_raw_parts(first, bytes as usize),
            borrow: PhantomData,
            kind: ArrayKind {
                dtype: dtype.clone(),
                shape: shape.to_vec(),
                order: descriptor.order,
            },
            descriptor,
            access: self.segment.memory().track(extent.offset, bytes, true),
            slot: Unpublished::new(self, reserved),
        };
        Ok((array, commit))
    }

    /// Continues with an array that this table has reserved.
    pub(crate) fn resume_builder(
        &self,
        suspended: SuspendedBuilder,
    ) -> Result<ArrayBuilder<'_>, AllocError> {
        let SuspendedBuilder {
            segment,
            token,
            slot: index,
            word,
            extent,
            clean,
            backed,
            address: Address(bytes),
            kind,
            descriptor,
            access,
        } = suspended;
        if !self.is_process(token) {
            return Err(AllocError::Forked);
        }
        // The word is RESERVED by the seat that made it, in one generation. As long as the slot has
        // this word and the seat is ours, the reservation is ours: a seat that is given up leaves
        // none behind, and the next one of the slot has another generation.
        let slot = Slot::of(self.segment.memory(), index)
            .filter(|slot| self.is_of(token) && slot.word() == word)
            .filter(|_| segment.is(&self.segment) && word.is_reserved_by(self.own_seat()))
            .ok_or(AllocError::OtherTable)?;
        let reserved = Reserved {
            slot,
            word,
            extent,
            clean,
            backed,
        };
        Ok(ArrayBuilder {
            bytes,
            borrow: PhantomData,
            kind,
            descriptor,
            access,
            slot: Unpublished::new(self, reserved),
        })
    }
}

impl<'t> ArrayBuilder<'t> {
    /// Returns the bytes of the elements, in memory order.
    ///
    /// Several threads may write parts of them, by `split_at_mut` or `chunks_mut`.
    ///
    /// [`ArrayBuilder`] has an example.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the bytes are in the extent, which is mapped while the table lives (`builder`).
        // Bytes of a mapping are initialised. The slot is RESERVED by this participant until the
        // builder is consumed or dropped, so nobody else accesses them, and `self` is borrowed for
        // as long as the result lives.
        unsafe { self.bytes.as_mut() }
    }

    /// Fills the array with zeros. Leaves pages alone that were never used: they hold zeros.
    pub(super) fn zero(&mut self) {
        if !self.slot.reserved.clean {
            self.bytes_mut().fill(0);
        }
    }

    /// Makes the array live, and returns its handle. The participant owns it.
    ///
    /// A bool that is neither 0 nor 1 is found by the typed lease that would read it.
    ///
    /// [`ArrayBuilder`] has an example.
    ///
    /// # Errors
    /// [`AllocError::Forked`] in a child that was forked meanwhile: the array belongs to the parent.
    pub fn publish(self) -> Result<AnyHandle, AllocError> {
        let (slot, descriptor) = self.into_parts();
        let Unpublished { core, reserved, .. } = slot;
        slot.finish()?;
        Ok(core.publish_array(reserved, |words: &[Atom]| descriptor.store(words)))
    }

    /// Ends the access to the bytes.
    fn into_parts(self) -> (Unpublished<'t>, Descriptor) {
        (self.slot, self.descriptor)
    }

    /// Separates the array from the borrow of the table: for garbage-collected languages, and for
    /// programs that keep the table behind a lock. [`HandleTable::resume`] continues.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.builder(&DType::from(ScalarType::U16), &[3], Order::C)?.suspend();
    /// let first = x.bytes().cast::<u16>();
    /// // SAFETY: the table lives, and nobody else writes these two bytes.
    /// unsafe { first.write(7) };
    /// let x = table.resume(x)?.publish()?;
    /// assert_eq!(table.read_untyped(x)?.bytes()[..2], [7, 0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// [`HandleTable::resume`]: crate::HandleTable::resume
    pub fn suspend(self) -> SuspendedBuilder {
        let Unpublished {
            core,
            reserved,
            token,
        } = self.slot;
        core::mem::forget(self.slot);
        SuspendedBuilder {
            segment: core.segment().clone(),
            token,
            slot: reserved.slot.index,
            word: reserved.word,
            extent: reserved.extent,
            clean: reserved.clean,
            backed: reserved.backed,
            address: Address(self.bytes),
            kind: self.kind,
            descriptor: self.descriptor,
            access: self.access,
        }
    }
}

/// An array that is being filled, without a borrow of the table that reserved it.
///
/// Made by [`ArrayBuilder::suspend`]. The table [resumes](crate::HandleTable::resume) it, and the
/// [`ArrayBuilder`] is then published or dropped. A value that is dropped without that leaves the
/// memory reserved until its participant leaves the segment or dies. The value keeps the segment
/// mapped.
#[must_use = "the memory stays reserved until the value is resumed, or its participant leaves"]
pub struct SuspendedBuilder {
    // Compared by identity: another mapping of the same segment has other addresses.
    segment: Segment,
    /// The process that reserved the slot.
    token: u64,
    slot: SlotIndex,
    word: SlotWord,
    extent: Extent,
    clean: bool,
    backed: u64,
    address: Address,
    kind: ArrayKind,
    descriptor: Descriptor,
    access: Access,
}

/// The place of the bytes. A type of its own, so that `Send` and `Sync` are claimed for it alone.
#[derive(Clone, Copy)]
pub(super) struct Address(pub(super) NonNull<[u8]>);

// SAFETY: safe code only passes the pointer on; every access through it is an unsafe operation of
// the caller's, or is made by the table's own thread (`ArrayBuilder`).
unsafe impl Send for Address {}
// SAFETY: as for `Send`.
unsafe impl Sync for Address {}

impl SuspendedBuilder {
    /// Returns the address and the length of the elements, in memory order.
    ///
    /// Any number of threads may access the bytes through the pointer, without the table. They
    /// ensure that meanwhile
    /// - the table that reserved the array is not dropped,
    /// - the array is not resumed (or the resumed builder neither used nor dropped),
    /// - the value lives, or the segment stays mapped otherwise,
    /// - the process has not forked (the bytes belong to the process that reserved them), and
    /// - no two threads access a byte at once, unless both read it.
    ///
    /// [`ArrayBuilder::suspend`] has an example.
    pub fn bytes(&self) -> NonNull<[u8]> {
        self.address.0
    }

    /// Returns the process that reserved the array.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Returns `true` if the array was zeros when it was reserved.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Sets the order of the elements.
    pub(crate) fn set_order(&mut self, order: Order) {
        self.kind.order = order;
        self.descriptor.order = order;
    }
}

macro_rules! builder_kind {
    ($builder:ty, $name:literal) => {
        impl $builder {
            /// Returns the type of the elements.
            ///
            /// ```
            /// # use ndshm::{HandleTable, Segment};
            /// # let table = HandleTable::join(&Segment::anonymous()?)?;
            /// use ndshm::element::{DType, Order, ScalarType};
            ///
            /// let array = table.builder(&DType::from(ScalarType::U16), &[3], Order::C)?;
            /// assert_eq!(array.dtype().size(), 2);
            /// assert_eq!(array.suspend().dtype().size(), 2);
            /// # Ok::<(), ndshm::Error>(())
            /// ```
            pub fn dtype(&self) -> &DType {
                &self.kind.dtype
            }

            /// Returns the length of each axis.
            ///
            /// ```
            /// # use ndshm::{HandleTable, Segment};
            /// # let table = HandleTable::join(&Segment::anonymous()?)?;
            /// use ndshm::element::{DType, Order, ScalarType};
            ///
            /// let array = table.builder(&DType::from(ScalarType::U16), &[3], Order::C)?;
            /// assert_eq!(array.shape(), [3]);
            /// assert_eq!(array.suspend().shape(), [3]);
            /// # Ok::<(), ndshm::Error>(())
            /// ```
            pub fn shape(&self) -> &[usize] {
                &self.kind.shape
            }

            /// Returns the order: the first or the last axis is contiguous.
            ///
            /// ```
            /// # use ndshm::{HandleTable, Segment};
            /// # let table = HandleTable::join(&Segment::anonymous()?)?;
            /// use ndshm::element::{DType, Order, ScalarType};
            ///
            /// let array = table.builder(&DType::from(ScalarType::U16), &[2, 3], Order::F)?;
            /// assert_eq!(array.order(), Order::F);
            /// assert_eq!(array.suspend().order(), Order::F);
            /// # Ok::<(), ndshm::Error>(())
            /// ```
            pub fn order(&self) -> Order {
                self.kind.order
            }
        }

        impl core::fmt::Debug for $builder {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct($name)
                    .field("dtype", self.dtype())
                    .field("shape", &self.shape())
                    .field("order", &self.order())
                    .finish_non_exhaustive()
            }
        }
    };
}

builder_kind!(ArrayBuilder<'_>, "ArrayBuilder");
builder_kind!(SuspendedBuilder, "SuspendedBuilder");
