//! Creating arrays: reserve a slot, back its pages, fill them, publish.

use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Dimension, RawArrayViewMut, ShapeBuilder};

use super::alloc::{Exhausted, Reserved};
use super::builder::Unpublished;
use super::core::Core;
use super::hints::Hints;
use super::slot::Slot;
use crate::descriptor::{Descriptor, MAX_AXES, bytes_of};
use crate::element::Order;
use crate::element::{self, Element, Kind, schema};
use crate::handle::{AnyHandle, Handle};
use crate::layout::Geometry;
use crate::memory::Corrupt;
use crate::segment::{NoMemory, Segment};
use crate::span::WHOLE_COMMIT;
use crate::span::{class_of, class_size};
use crate::sync::Atom;
use crate::table::error::AllocError;
use crate::word::{SeatId, SlotIndex, SlotWord, SpanIndex};

impl Core {
    /// Creates an array of zeros. Takes `shape` as ndarray does: `(3, 4)`, `(3, 4).f()`,
    /// `IxDyn(&[3, 4])`.
    #[track_caller]
    pub(crate) fn zeros<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let array = NewArray::<T, Sh::Dim>::reserve(self, shape)?;
        if !array.reserved.clean {
            array.zero();
        }
        Ok(array.publish())
    }

    /// Creates an array with all elements `elem`.
    #[track_caller]
    pub(crate) fn filled<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        elem: T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let mut array = NewArray::<T, Sh::Dim>::reserve(self, shape)?;
        array.slots().fill(MaybeUninit::new(elem));
        Ok(array.publish())
    }

    /// Creates an array with the element `f(i)` at index `i`.
    #[track_caller]
    pub(crate) fn filled_by_fn<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        mut f: impl FnMut(<Sh::Dim as Dimension>::Pattern) -> T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let mut array = NewArray::<T, Sh::Dim>::reserve(self, shape)?;
        let unpublished = Unpublished::new(self, array.reserved);
        for (index, slot) in array.slots().indexed_iter_mut() {
            slot.write(f(index));
        }
        unpublished.finish()?;
        Ok(array.publish())
    }

    /// Creates a copy of `source`: in Fortran order if `source` lies so in memory, else in C order.
    #[track_caller]
    pub(crate) fn copied<T: Element, D: Dimension>(
        &self,
        source: &impl Deref<Target = ArrayRef<T, D>>,
    ) -> Result<Handle<T, D>, AllocError> {
        let source = source.view();
        let fortran = !source.is_standard_layout() && source.t().is_standard_layout();
        let shape = source.raw_dim().set_f(fortran);
        let mut array = NewArray::<T, D>::reserve(self, shape)?;
        fill(array.slots(), source, fortran);
        Ok(array.publish())
    }

    /// Creates an array of unspecified contents: zeros, or the bytes of an earlier array.
    #[track_caller]
    pub(crate) fn uninit<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let array = NewArray::<T, Sh::Dim>::reserve(self, shape)?;
        if T::CHECKED && !array.reserved.clean {
            array.zero();
        }
        Ok(array.publish())
    }

    /// Creates an array that `fill` writes before anybody knows of it. Elements that `fill` leaves
    /// out are unspecified. If it fails, nothing is allocated. If it panics or forks, see
    /// [`from_shape_fn`](crate::HandleTable::from_shape_fn).
    #[cfg(feature = "serde")]
    pub(crate) fn filled_by<T: Element, Sh: ShapeBuilder, E: From<AllocError>>(
        &self,
        shape: Sh,
        fill: impl FnOnce(ArrayViewMut<'_, T, Sh::Dim>) -> Result<(), E>,
    ) -> Result<Handle<T, Sh::Dim>, E> {
        const { assert!(!T::CHECKED, "what is there may be no values of the type") };
        let array = NewArray::<T, Sh::Dim>::reserve(self, shape)?;
        let unpublished = Unpublished::new(self, array.reserved);
        // SAFETY: as in `NewArray::slots`. The bytes that are there, zeros or those of an earlier
        // array, are values of `T`.
        fill(unsafe { array.view.clone().deref_into_view_mut() })?;
        unpublished.finish()?;
        Ok(array.publish())
    }

    /// Returns a guard that frees the array when it is dropped.
    pub(crate) fn owned<T: Element, D: Dimension>(&self, handle: Handle<T, D>) -> Owned<'_, T, D> {
        // In a fork's child the guard belongs to the child. After an error it belongs to the
        // parent, and dropping it frees nothing.
        let _ = self.enter();
        Owned {
            table: self,
            handle,
            token: self.token(),
        }
    }

    /// Reserves a slot with an extent for `bytes`, backed by pages.
    ///
    /// The caller publishes it, or abandons it on a panic. Inlined with all calls but the search: a
    /// reservation is ten words, and returning them from a call costs more than the
    /// compare-and-swap. For the same reason it has no destructor.
    #[inline(always)]
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, AllocError> {
        let me = self.enter()?;
        let Some(class) = class_of(bytes) else {
            return Err(self.full(bytes, "the address space", "capacity"));
        };
        let recent = self
            .allocator(&mut self.cache.borrow_mut(), me)
            .recent(class, committed_size(class, bytes));
        // Take the result apart instead of returning that of `search` directly: otherwise the
        // compiler copies it as a block, through memory, also on the fast path.
        let Reserved {
            slot,
            word,
            extent,
            clean,
            backed,
        } = match recent {
            Some(reserved) => reserved,
            None => self.search(bytes, class, me)?,
        };
        self.footprint.add(slot.index);
        Ok(Reserved {
            slot,
            word,
            extent,
            clean,
            backed,
        })
    }

    #[cold]
    fn search(&self, bytes: u64, class: u32, me: SeatId) -> Result<Reserved<'_>, AllocError> {
        match self.find_room(bytes, class, me) {
            Err(AllocError::NoMemory(refused)) => {
                self.alloc_under_pressure(bytes, class, me, refused)
            }
            outcome => outcome,
        }
    }

    /// Finds a slot for `bytes` and commits its pages.
    pub(super) fn find_room(
        &self,
        bytes: u64,
        class: u32,
        me: SeatId,
    ) -> Result<Reserved<'_>, AllocError> {
        let (reserved, commit) = self.find_slot(bytes, class, me)?;
        match commit {
            Some(commit) => Ok(self.committed(reserved, &commit, commit.run(&self.segment))?),
            None => Ok(reserved),
        }
    }

    /// Reserves a slot for `bytes` as [`reserve`](Core::reserve) does, but leaves it to the caller
    /// to commit its pages.
    pub(super) fn reserve_uncommitted(
        &self,
        bytes: u64,
    ) -> Result<(Reserved<'_>, Option<Commit>), AllocError> {
        let me = self.enter()?;
        let Some(class) = class_of(bytes) else {
            return Err(self.full(bytes, "the address space", "capacity"));
        };
        let recent = self
            .allocator(&mut self.cache.borrow_mut(), me)
            .recent(class, committed_size(class, bytes));
        let (reserved, commit) = match recent {
            Some(reserved) => (reserved, None),
            None => self.find_slot(bytes, class, me)?,
        };
        self.footprint.add(reserved.slot.index);
        Ok((reserved, commit))
    }

    /// Finds a slot for `bytes`. Returns the pages to commit, if any are missing.
    fn find_slot(
        &self,
        bytes: u64,
        class: u32,
        me: SeatId,
    ) -> Result<(Reserved<'_>, Option<Commit>), AllocError> {
        let mut cache = self.cache.borrow_mut();
        let mut allocator = self.allocator(&mut cache, me);
        let reserved = allocator
            .search(class, || {
                self.reap_seats(me).is_ok_and(|report| {
                    // Removing the names of freed arrays needs records, which cannot be allocated
                    // here.
                    self.tidy_names_later(report.names);
                    report.seats > 0
                })
            })
            .map_err(|exhausted| match exhausted {
                Exhausted::Full { entries: true } => {
                    self.full(bytes, "the table of arrays", "arrays")
                }
                Exhausted::Full { entries: false } => {
                    self.full(bytes, "the address space", "capacity")
                }
                Exhausted::Corrupt { span } => self.damaged_span(span),
                Exhausted::NoMemory(error) => error.into(),
            })?;
        let needed = committed_size(reserved.extent.class, bytes);
        let commit = (reserved.backed < needed).then(|| Commit {
            start: reserved.extent.offset,
            needed,
            end: allocator.commit_end(&reserved.extent, needed),
        });
        Ok((reserved, commit))
    }

    /// Notes the outcome of a commit for a reserved slot. Returns the slot to FREE after an error.
    pub(super) fn committed<'a>(
        &'a self,
        mut reserved: Reserved<'a>,
        commit: &Commit,
        outcome: Result<u64, NoMemory>,
    ) -> Result<Reserved<'a>, NoMemory> {
        match outcome {
            Ok(end) => {
                self.allocator(&mut self.cache.borrow_mut(), self.seat.get())
                    .committed(&reserved.extent, end);
                reserved.backed = commit.needed;
                Ok(reserved)
            }
            Err(error) => {
                self.abandon_unbacked(reserved);
                Err(error)
            }
        }
    }

    /// Calls `describe` to write the descriptor, then makes the array LIVE.
    #[inline(always)]
    pub(crate) fn publish_array(
        &self,
        reserved: Reserved<'_>,
        describe: impl FnOnce(&[Atom]),
    ) -> AnyHandle {
        self.describe(&reserved, describe);
        reserved.slot.publish(reserved.word, self.seat.get());
        self.handle_of(reserved.slot.index, reserved.word.generation())
    }

    /// Publishes a control array; see [`Core::publish_array`].
    pub(crate) fn publish_control(
        &self,
        reserved: Reserved<'_>,
        describe: impl FnOnce(&[Atom]),
    ) -> AnyHandle {
        self.describe(&reserved, describe);
        reserved
            .slot
            .publish_control(reserved.word, self.seat.get());
        self.handle_of(reserved.slot.index, reserved.word.generation())
    }

    /// Publishes a record of names or a bundle; see [`Core::publish_array`].
    pub(crate) fn publish_record(&self, reserved: Reserved<'_>, describe: impl FnOnce(&[Atom])) {
        self.describe(&reserved, describe);
        reserved.slot.publish_record(reserved.word, self.seat.get());
    }

    #[inline(always)]
    fn describe(&self, reserved: &Reserved<'_>, describe: impl FnOnce(&[Atom])) {
        let words = self.segment.memory().descriptor(reserved.slot.index);
        describe(words);
        Descriptor::note_committed(words, reserved.backed);
    }

    /// Returns a reserved slot to FREE.
    #[cold]
    pub(super) fn abandon(&self, reserved: Reserved<'_>) {
        let free = (reserved.slot).abandon(reserved.word, self.seat.get(), false);
        self.push_free_hint(reserved.slot.index, free);
    }

    /// Abandons a reserved slot with an extent outside the data region. Returns the error.
    #[inline(always)]
    pub(crate) fn abandon_damaged(&self, reserved: Reserved<'_>) -> AllocError {
        self.abandon_damaged_slot(reserved.slot.index, reserved.word, reserved.extent.class)
    }

    /// Does the work of [`Core::abandon_damaged`]. Takes numbers: a call that took the reservation
    /// would write it to memory for every array.
    #[cold]
    fn abandon_damaged_slot(&self, index: SlotIndex, reserved: SlotWord, class: u32) -> AllocError {
        let memory = self.segment.memory();
        if let Some(slot) = Slot::of(memory, index) {
            let _ = slot.abandon(reserved, self.seat.get(), false);
            Hints::of(memory).set(class, index);
        }
        let (span, _) = Geometry::place_of(index);
        self.damaged_span(span)
    }

    #[cold]
    fn damaged_span(&self, span: SpanIndex) -> AllocError {
        AllocError::Corrupt(Corrupt {
            offset: self.segment.memory().layout().spans + span.get() as u64 * 8,
            what: "an invalid entry in the table of spans",
        })
    }

    #[cold]
    fn full(&self, bytes: u64, what: &'static str, remedy: &'static str) -> AllocError {
        AllocError::Full {
            bytes,
            what,
            capacity: self.segment.capacity(),
            arrays: self.segment.max_arrays(),
            remedy,
        }
    }
}

/// Pages to commit for a reserved slot.
pub(crate) struct Commit {
    /// Offset of the extent in the data region.
    start: u64,
    /// Bytes that the array needs.
    needed: u64,
    /// Where to end, so that neighbouring extents need no commit of their own.
    end: u64,
}

impl Commit {
    /// Commits the pages. Returns the offset up to which they are committed.
    pub(crate) fn run(&self, segment: &Segment) -> Result<u64, NoMemory> {
        let outcome = segment.commit(self.start, self.end - self.start);
        let least = self.start + self.needed;
        match outcome {
            Ok(()) => Ok(self.end),
            // There may be room for this extent alone.
            Err(_) if self.end > least => segment.commit(self.start, self.needed).map(|()| least),
            Err(error) => Err(error),
        }
    }
}

/// Returns the bytes of an extent of `class` that are committed for an array of `bytes`.
#[inline]
pub(super) fn committed_size(class: u32, bytes: u64) -> u64 {
    match class_size(class) {
        whole if whole <= WHOLE_COMMIT => whole,
        _ => bytes,
    }
}

#[cold]
fn too_large<T: Element>(shape: &[usize]) -> AllocError {
    AllocError::TooLarge {
        shape: shape.to_vec(),
        element: T::dtype().to_string(),
        size: size_of::<T>(),
    }
}

/// Copies `source`, several parts at once if it is large.
pub(crate) fn fill<T: Element, D: Dimension>(
    mut slots: ArrayViewMut<'_, MaybeUninit<T>, D>,
    source: ArrayView<'_, T, D>,
    fortran: bool,
) {
    let copy = |slots: &mut ArrayViewMut<'_, MaybeUninit<T>, D>, source: &ArrayView<'_, T, D>| {
        slots.zip_mut_with(source, |slot, &element| *slot = MaybeUninit::new(element));
    };
    let pieces = source.len() * size_of::<T>() / crate::parallel::PIECE;
    // Cut the axis of the longest stride, which keeps neighbouring elements together.
    let long = |&axis: &usize| source.shape()[axis] > 1;
    let outer = match fortran {
        true => (0..source.ndim()).rfind(long),
        false => (0..source.ndim()).find(long),
    };
    let (2.., Some(axis)) = (pieces, outer.map(ndarray::Axis)) else {
        return copy(&mut slots, &source);
    };
    let length = source.len_of(axis).div_ceil(pieces);
    let parts = slots
        .axis_chunks_iter_mut(axis, length)
        .zip(source.axis_chunks_iter(axis, length))
        .collect();
    let Ok(()) = crate::parallel::for_each(parts, usize::MAX, |(mut slots, source)| {
        copy(&mut slots, &source);
        Ok::<(), core::convert::Infallible>(())
    });
}

/// An array under construction.
struct NewArray<'t, T, D> {
    view: RawArrayViewMut<T, D>,
    table: &'t Core,
    reserved: Reserved<'t>,
    /// Index of the record's layout; 0 for scalars.
    schema: u16,
    bytes: u64,
}

impl<'t, T: Element, D: Dimension> NewArray<'t, T, D> {
    #[inline(always)]
    #[track_caller]
    fn reserve<Sh: ShapeBuilder<Dim = D>>(table: &'t Core, shape: Sh) -> Result<Self, AllocError> {
        const { element::assert_layout::<T>() };
        let shape = shape.into_shape_with_order();
        let dim = shape.raw_dim().clone();
        if dim.ndim() > MAX_AXES {
            return Err(AllocError::TooManyAxes { axes: dim.ndim() });
        }
        let schema = match T::KIND {
            Kind::Scalar(_) => 0,
            Kind::Record(layout) => table.schema_of::<T>(layout)?,
        };
        let axes = dim.slice().iter().map(|&axis| axis as u64);
        let Some(bytes) = bytes_of(size_of::<T>(), axes) else {
            return Err(too_large::<T>(dim.slice()));
        };
        let reserved = table.reserve(bytes)?;
        let extent = reserved.extent;
        let place = table.segment.memory().data(extent.offset, extent.size());
        let Some(ptr) = place.map(NonNull::cast::<T>) else {
            return Err(table.abandon_damaged(reserved));
        };
        // Tell the model checker once that the contents are written from here on.
        let _ = table.segment.memory().track(extent.offset, bytes, true);
        // SAFETY: `ptr` is non-null and aligned (extents start on multiples of 64, and
        // `assert_layout` bounds the alignment). `bytes` is at most `isize::MAX` and fits into the
        // extent, whose class was chosen for it.
        let view = unsafe { RawArrayViewMut::from_shape_ptr(shape, ptr.as_ptr()) };
        Ok(NewArray {
            view,
            table,
            reserved,
            schema,
            bytes,
        })
    }

    /// Returns the elements, to be written.
    fn slots(&mut self) -> ArrayViewMut<'_, MaybeUninit<T>, D> {
        let view = self.view.clone().cast::<MaybeUninit<T>>();
        // SAFETY: the extent is mapped, aligned and large enough (`reserve`). It is RESERVED by
        // this participant, so nobody else accesses it. `MaybeUninit` accepts any bytes.
        unsafe { view.deref_into_view_mut() }
    }

    fn zero(&self) {
        let first = self.view.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: as in `slots`. The elements of a new array lie without gaps from its first byte,
        // in C and in Fortran order.
        unsafe { first.write_bytes(0, self.bytes as usize) };
    }

    #[inline(always)]
    fn publish(self) -> Handle<T, D> {
        // Use C where the order makes no difference to the strides.
        let order = match self.view.is_standard_layout() {
            true => Order::C,
            false => Order::F,
        };
        let describe = |words: &[Atom]| {
            Descriptor::store_typed::<T>(words, self.schema, order, self.view.shape());
        };
        Handle::from_bits(self.table.publish_array(self.reserved, describe).to_bits())
    }
}

impl Core {
    /// Returns the segment's number for the layout of record `T`.
    fn schema_of<T: Element>(&self, layout: &element::Schema) -> Result<u16, AllocError> {
        let record = core::any::TypeId::of::<T>();
        if let Some(&index) = self.schemas.borrow().get(&record) {
            return Ok(index);
        }
        let index = schema::intern(self.segment.memory(), layout.text())?;
        self.schemas.borrow_mut().insert(record, index);
        Ok(index)
    }
}

/// An array that is freed when this guard is dropped.
///
/// Dropping the copy of a forked child does nothing: the array belongs to the parent.
#[must_use = "the array is freed when the guard is dropped"]
pub struct Owned<'t, T: Element, D: Dimension> {
    table: &'t Core,
    handle: Handle<T, D>,
    token: u64,
}

impl<T: Element, D: Dimension> Owned<'_, T, D> {
    /// Returns the handle, to pass on.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.owned(table.from_elem(3, 1.0)?);
    /// assert_eq!(table.read(x.handle())?.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> Handle<T, D> {
        self.handle
    }

    /// Keeps the array and returns its handle.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.owned(table.from_elem(3, 1.0)?);
    /// // Work that may fail: an early return would free the array.
    /// let x = x.into_handle();
    /// assert_eq!(table.read(x)?.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn into_handle(self) -> Handle<T, D> {
        let handle = self.handle;
        core::mem::forget(self);
        handle
    }
}

impl<T: Element, D: Dimension> core::fmt::Debug for Owned<'_, T, D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Owned").field(&self.handle).finish()
    }
}

impl<T: Element, D: Dimension> Drop for Owned<'_, T, D> {
    fn drop(&mut self) {
        if self.table.is_of(self.token) {
            // An error means that the array was freed before.
            let _ = self.table.free(self.handle);
        }
    }
}
