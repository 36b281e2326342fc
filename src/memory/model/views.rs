//! The accesses by views without a lease, and the bytes that a view covers.

use core::cell::RefCell;
use core::ops::Range;

use ndarray::{Dimension, IntoDimension, RawArrayViewMut};

use super::{Access, Memory};

/// Returns the bytes of the elements of `part` as runs without gaps, counted from `base`.
///
/// No stride of `part` is negative, and it begins at or behind `base`.
pub fn runs<T, D: Dimension>(part: &RawArrayViewMut<T, D>, base: *const T) -> Vec<Range<u64>> {
    let start = part.as_ptr() as u64 - base as u64;
    let size = size_of::<T>() as u64;
    let strides = part.strides();
    let mut elements: Vec<u64> = ndarray::indices(part.raw_dim())
        .into_iter()
        .map(|index| {
            let index = index.into_dimension();
            let steps = index.slice().iter().zip(strides);
            let at: isize = steps.map(|(&index, &stride)| index as isize * stride).sum();
            start + at as u64 * size
        })
        .collect();
    elements.sort_unstable();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for element in elements {
        match runs.last_mut() {
            Some(run) if run.end == element => run.end += size,
            _ => runs.push(element..element + size),
        }
    }
    runs
}

/// The accesses to an array by views without a lease.
pub struct ViewAccesses<'t> {
    memory: &'t Memory,
    /// The offset of the array's extent.
    offset: u64,
    reads: RefCell<Vec<Access>>,
    writes: RefCell<Vec<Access>>,
}

impl<'t> ViewAccesses<'t> {
    pub(crate) fn new(memory: &'t Memory, offset: u64) -> Self {
        ViewAccesses {
            memory,
            offset,
            reads: RefCell::default(),
            writes: RefCell::default(),
        }
    }

    /// Records the view `part` of the array at `base`, which is lent beside other shared views.
    /// Mutable views have ended.
    #[track_caller]
    pub(crate) fn read<T, D: Dimension>(&self, part: &RawArrayViewMut<T, D>, base: *const T) {
        let bytes = runs(part, base);
        self.writes.borrow_mut().clear();
        for run in bytes {
            let access = self.track(run, false);
            self.reads.borrow_mut().push(access);
        }
    }

    /// Records the view `part` of the array at `base`, which is lent mutably. All other views have
    /// ended.
    #[track_caller]
    pub(crate) fn write<T, D: Dimension>(&mut self, part: &RawArrayViewMut<T, D>, base: *const T) {
        let bytes = runs(part, base);
        self.reads.get_mut().clear();
        self.writes.get_mut().clear();
        for run in bytes {
            let access = self.track(run, true);
            self.writes.get_mut().push(access);
        }
    }

    #[track_caller]
    fn track(&self, bytes: Range<u64>, write: bool) -> Access {
        self.memory
            .track(self.offset + bytes.start, bytes.end - bytes.start, write)
    }
}

/// The accesses to the arrays of a tile. They last until they are ended or dropped.
pub struct TileAccesses(Vec<Access>);

impl TileAccesses {
    pub(crate) fn new() -> Self {
        TileAccesses(Vec::new())
    }

    /// Records an access to the elements of a view. `view` returns it, and the first element of the
    /// array, whose extent begins at `offset`.
    #[track_caller]
    pub(crate) fn add<T, D: Dimension>(
        &mut self,
        memory: &Memory,
        offset: u64,
        write: bool,
        view: impl FnOnce() -> (RawArrayViewMut<T, D>, *const T),
    ) {
        let (part, base) = view();
        for Range { start, end } in runs(&part, base) {
            self.0
                .push(memory.track(offset + start, end - start, write));
        }
    }

    /// Ends the accesses.
    pub(crate) fn end(&mut self) {
        self.0.clear();
    }
}
