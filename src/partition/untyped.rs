//! Groups of arrays with types known only at run time, and their tiles as memory.

use core::fmt;
use core::ptr::NonNull;

use ndarray::{Dimension, IxDyn, RawArrayViewMut, ShapeBuilder};

use super::access::{AccessMode, Group, sealed};
use super::cover::{TileOf, UnitOf};
use super::extents::{Part, stretches};
use super::plan::Plan;
use crate::element::Order;
use crate::handle::AnyHandle;
use crate::memory::{Memory, TileAccesses};
use crate::table::core::Core;
use crate::table::error::LeaseError;

/// Arrays to divide, of types that are known only at run time, and how tiles access each.
///
/// A tile's views are [`TilePart`]s: address, shape and strides. The group opens any partition,
/// whatever group it was created with.
///
/// ```
/// use ndshm::partition::{AccessMode, UntypedGroup};
/// use ndshm::{HandleTable, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<u16, _>((6, 5))?;
/// let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
/// let tiles = table.partition(group, Axis(0), 2)?;
///
/// let round = tiles.begin()?;
/// if let Some(mut part) = tiles.enter()? {
///     while let Some(mut tile) = part.claim()? {
///         for part in tile.views() {
///             assert_eq!((part.shape(), part.strides()), (&[2, 5][..], &[10, 2][..]));
///             assert!(part.is_writable() && part.handle() == x.into());
///             // SAFETY: the tile is claimed, its first element is a `u16`, and `part` is writable.
///             unsafe { part.first().cast::<u16>().write(1) };
///         }
///     }
/// }
/// round.finish(std::time::Duration::from_secs(1))?;
/// assert_eq!(table.read(x)?.sum(), 3);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UntypedGroup {
    members: Vec<(AnyHandle, AccessMode)>,
}

impl UntypedGroup {
    /// Creates a group of these arrays, at most 8.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn new(members: impl IntoIterator<Item = (AnyHandle, AccessMode)>) -> UntypedGroup {
        UntypedGroup {
            members: members.into_iter().collect(),
        }
    }

    /// Returns the arrays and their accesses.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::partition::{AccessMode, UntypedGroup};
    ///
    /// let (x, y) = (table.zeros::<f64, _>(10)?, table.zeros::<u8, _>(10)?);
    /// let group = UntypedGroup::new([(x.into(), AccessMode::Read), (y.into(), AccessMode::Write)]);
    /// let written = group.members().iter().filter(|(_, mode)| mode.writes());
    /// assert_eq!(written.count(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn members(&self) -> &[(AnyHandle, AccessMode)] {
        &self.members
    }
}

/// A tile's part of one array, as memory.
#[derive(Clone)]
pub struct TilePart {
    first: NonNull<u8>,
    shape: Vec<usize>,
    /// In bytes.
    strides: Vec<usize>,
    handle: AnyHandle,
    mode: AccessMode,
}

impl TilePart {
    /// Returns the address of the part's first element. If the part has no elements, nothing is
    /// there.
    ///
    /// Accesses through it are unsafe. The caller ensures that meanwhile
    /// - the tile is claimed: neither released nor torn, and its participant is in the round,
    /// - the table lives, and this is the process that claimed the tile,
    /// - the part is only read, unless it [is writable](TilePart::is_writable),
    /// - the accesses stay within shape and strides, and fit the array's
    ///   [`DType`](crate::element::DType), which [`info`](crate::HandleTable::info) tells, and
    /// - no two threads access a byte at once, unless both read it.
    ///
    /// The elements were not checked: the bytes of a `bool` may be any.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn first(&self) -> NonNull<u8> {
        self.first
    }

    /// Returns the length of each axis.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the distance of neighbouring elements along each axis, in bytes.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Returns `true` if the tile writes this part.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn is_writable(&self) -> bool {
        self.mode.writes()
    }

    /// Returns the array.
    ///
    /// [`UntypedGroup`] has an example.
    pub fn handle(&self) -> AnyHandle {
        self.handle
    }
}

impl fmt::Debug for TilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TilePart")
            .field("handle", &self.handle)
            .field("shape", &self.shape)
            .field("strides", &self.strides)
            .finish_non_exhaustive()
    }
}

/// The place of an array. A type of its own, so that `Send` is claimed for it alone.
#[derive(Clone, Copy)]
struct Address(NonNull<u8>);

// SAFETY: safe code only passes the pointer on; every access through it is an unsafe operation.
unsafe impl Send for Address {}

/// One array of an untyped group, located for a participant of a round.
pub struct RawBytes {
    first: Address,
    shape: Vec<usize>,
    /// In bytes.
    strides: Vec<usize>,
    item: usize,
    bytes: u64,
    /// Offset of the array in the data region, in bytes.
    offset: u64,
    handle: AnyHandle,
    mode: AccessMode,
}

impl RawBytes {
    /// Locates an array of which the caller has a lease.
    fn locate(
        table: &Core,
        (handle, mode): (AnyHandle, AccessMode),
        plan: &Plan,
    ) -> Result<RawBytes, LeaseError> {
        let corrupt = |what| table.tables().corrupt(handle, what);
        let (slot, _) = handle.unpack(table.segment().key());
        let found = table.tables().measure_untyped(slot, handle)?;
        let memory = table.segment().memory();
        let first = memory
            .data(found.extent.offset, found.extent.size())
            .ok_or_else(|| corrupt("the extent is not in the data region"))?;
        let shape = found.descriptor.shape();
        let shape: Vec<usize> = shape.iter().map(|&len| len as usize).collect();
        let fits = |(axis, len): (usize, usize)| shape.get(axis) == Some(&len);
        let is_whole = match mode {
            AccessMode::Read | AccessMode::Write => plan.axes().all(fits),
            AccessMode::Whole => true,
            AccessMode::PerTile => shape.first().copied() == plan.tiles(),
        };
        if !is_whole {
            return Err(corrupt(
                "the array does not have the length that its partition divides",
            ));
        }
        let item = found.dtype.size();
        let mut strides = vec![0; shape.len()];
        let mut next = item;
        // The products do not overflow, unless the array has no elements: the shape's size is
        // representable.
        let mut put = |axis: usize| {
            strides[axis] = next;
            next = next.saturating_mul(shape[axis]);
        };
        match found.descriptor.order {
            Order::C => (0..shape.len()).rev().for_each(&mut put),
            Order::F => (0..shape.len()).for_each(&mut put),
        }
        Ok(RawBytes {
            first: Address(first),
            shape,
            strides,
            item,
            bytes: found.bytes,
            offset: found.extent.offset,
            handle,
            mode,
        })
    }

    /// Returns the part of the array that the tile covers.
    fn part(&self, tile: TileOf<'_>) -> TilePart {
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        let mut offset = 0usize;
        match self.mode {
            AccessMode::Whole => {}
            AccessMode::PerTile => {
                offset = tile.tile.saturating_mul(strides.remove(0));
                shape.remove(0);
            }
            AccessMode::Read | AccessMode::Write => tile.plan.for_each_side(tile.tile, |side| {
                let stride = &mut strides[side.axis];
                offset = offset.saturating_add(side.range.start.saturating_mul(*stride));
                *stride = stride.saturating_mul(side.step);
                shape[side.axis] = side.range.len().div_ceil(side.step);
            }),
        }
        let array = self.first.0;
        // A part without elements may begin beyond the array.
        let first = match shape.contains(&0) {
            true => array,
            // Within the array's extent, so the address is not null.
            false => NonNull::new(array.as_ptr().wrapping_add(offset)).unwrap_or(array),
        };
        TilePart {
            first,
            shape,
            strides,
            handle: self.handle,
            mode: self.mode,
        }
    }

    /// Returns the bytes of a part as an array with one more axis, for the bytes of an element.
    fn view(&self, part: &TilePart) -> RawArrayViewMut<u8, IxDyn> {
        let axes = |lengths: &[usize], last| IxDyn(&[lengths, &[last]].concat());
        let (shape, strides) = (axes(&part.shape, self.item), axes(&part.strides, 1));
        let first = part.first.as_ptr();
        if shape.slice().contains(&0) {
            // SAFETY: bytes need no alignment, and there are none.
            return unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        }
        // SAFETY: the bytes are bytes of the array: `locate` has compared its shape with the plan,
        // and the strides follow from the shape. No byte is named twice.
        unsafe { RawArrayViewMut::from_shape_ptr(shape.strides(strides), first) }
    }
}

impl Group for UntypedGroup {
    type Views<'a> = Vec<TilePart>;
    type UnitViews<'a> = Vec<Vec<TilePart>>;
    type ReadViews<'a> = Vec<TilePart>;

    unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
        parts(raw, tile)
    }

    /// Returns the parts of each tile.
    unsafe fn unit_views<'a>(raw: &Self::Raw, unit: UnitOf<'_>) -> Self::UnitViews<'a> {
        unit.tiles().map(|tile| parts(raw, tile)).collect()
    }

    unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a> {
        let read_only = |part| TilePart {
            mode: AccessMode::Read,
            ..part
        };
        parts(raw, tile).into_iter().map(read_only).collect()
    }
}

/// Returns a tile's part of each array.
pub(super) fn parts(raw: &[RawBytes], tile: TileOf<'_>) -> Vec<TilePart> {
    raw.iter().map(|array| array.part(tile)).collect()
}

impl sealed::Group for UntypedGroup {
    type Raw = Vec<RawBytes>;

    const LEN: usize = usize::MAX;

    fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
        self.members.clone()
    }

    fn from_members(members: &[(AnyHandle, AccessMode)]) -> Option<Self> {
        Some(UntypedGroup::new(members.iter().copied()))
    }

    fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
        let shape = |&(handle, _): &(AnyHandle, _)| Ok(table.info(handle)?.shape);
        self.members.iter().map(shape).collect()
    }

    fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
        let locate = |&member: &_| RawBytes::locate(table, member, plan);
        self.members.iter().map(locate).collect()
    }

    fn check(_raw: &Self::Raw, _tile: TileOf<'_>) -> Result<(), LeaseError> {
        Ok(())
    }

    #[track_caller]
    fn track(
        raw: &Self::Raw,
        memory: &Memory,
        (tile, writes): (TileOf<'_>, bool),
        to: &mut TileAccesses,
    ) {
        for array in raw {
            to.add(memory, array.offset, writes && array.mode.writes(), || {
                let first = array.first.0.as_ptr().cast_const();
                (array.view(&array.part(tile)), first)
            });
        }
    }

    fn extents(raw: &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
        for array in raw.iter().filter(|array| array.mode != AccessMode::Whole) {
            let part = array.part(tile);
            let from = part.first.as_ptr() as u64 - array.first.0.as_ptr() as u64;
            let axes = part.shape.iter().zip(&part.strides);
            let axes = axes.map(|(&len, &stride)| (len as u64, stride as u64));
            let all = array.offset..array.offset + array.bytes;
            for bytes in stretches(array.offset + from, array.item as u64, axes.collect()) {
                let array = all.clone();
                to.push(Part { bytes, array });
            }
        }
    }
}
