//! The bytes of an object in a table: one array that holds a pickle and its buffers.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | the version of this layout |
//! | 8 | the length of the pickle |
//! | 8 | the number of buffers |
//! | 8 each | the lengths of the buffers |
//! | | the pickle |
//! | | the buffers, each from a multiple of 64 on |
//!
//! Numbers are little-endian. The element type of the array is opaque, with the text
//! [`PICKLED`]. No dtype of numpy has this text, so an array is never taken for an object.

use std::ops::Range;

use ndshm::element::{DType, OpaqueType};
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

use crate::copy::{Part, Source};
use crate::error::exception;

/// The text of the element type.
const PICKLED: &str = "pickled object";

const VERSION: u64 = 1;

/// The bytes of a number.
const WORD: usize = size_of::<u64>();

/// The numbers before the lengths of the buffers.
const FIXED: usize = 3;

/// Buffers start on multiples of this, as arrays do.
const ALIGN: usize = 64;

/// Returns the element type of objects.
pub(crate) fn element() -> PyResult<DType> {
    let opaque = OpaqueType::new(PICKLED, 1, 1);
    Ok(opaque
        .map_err(|error| exception("TypeMismatch", error.to_string()))?
        .into())
}

/// Returns `true` if this is the element type of objects.
pub(crate) fn is_object(dtype: &DType) -> bool {
    matches!(dtype, DType::Opaque(opaque) if opaque.text() == PICKLED && opaque.size() == 1)
}

/// Where the parts of an object are, in bytes from its start.
pub(crate) struct Layout {
    pub(crate) pickle: Range<usize>,
    pub(crate) buffers: Vec<Range<usize>>,
}

impl Layout {
    /// Returns the layout of a pickle and buffers of these lengths, or `None` if it is larger than
    /// memory can be.
    fn of(pickle: usize, buffers: impl ExactSizeIterator<Item = usize>) -> Option<Layout> {
        let header = buffers.len().checked_add(FIXED)?.checked_mul(WORD)?;
        let pickle = header..header.checked_add(pickle)?;
        let mut end = pickle.end;
        let mut place = |len: usize| {
            let start = end.checked_next_multiple_of(ALIGN)?;
            end = start.checked_add(len)?;
            Some(start..end)
        };
        let buffers = buffers.map(&mut place).collect::<Option<Vec<_>>>()?;
        (end <= isize::MAX as usize).then_some(Layout { pickle, buffers })
    }

    /// Returns the number of bytes of the object.
    pub(crate) fn end(&self) -> usize {
        self.buffers.last().unwrap_or(&self.pickle).end
    }

    /// Returns the layout for the pieces of a pickle, and its buffers.
    pub(crate) fn for_parts(pickle: &[Source], buffers: &[Source]) -> PyResult<Layout> {
        let len = pickle
            .iter()
            .try_fold(0usize, |sum, piece| sum.checked_add(piece.len));
        len.and_then(|len| Layout::of(len, buffers.iter().map(|buffer| buffer.len)))
            .ok_or_else(|| PyOverflowError::new_err("the object has more than 2**63 bytes"))
    }

    /// Writes the header, and zeros between the parts. Returns the places of the parts, with their
    /// sources.
    pub(crate) fn divide<'a>(
        &self,
        bytes: &'a mut [u8],
        pickle: &[Source],
        buffers: &[Source],
    ) -> Vec<Part<'a>> {
        let (header, mut rest) = bytes.split_at_mut(self.pickle.start);
        let lens = self.buffers.iter().map(|buffer| buffer.len() as u64);
        let numbers = [VERSION, self.pickle.len() as u64, self.buffers.len() as u64];
        for (to, number) in header
            .chunks_exact_mut(WORD)
            .zip(numbers.into_iter().chain(lens))
        {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let mut parts = Vec::with_capacity(pickle.len() + buffers.len());
        let mut end = self.pickle.start;
        let ends = self.buffers.iter().map(|buffer| buffer.start);
        let starts = pickle.iter().map(|_| None).chain(ends.map(Some));
        for (start, source) in starts.zip(pickle.iter().chain(buffers)) {
            let gap = start.map_or(0, |start| start - end);
            let (before, after) = rest.split_at_mut(gap);
            before.fill(0);
            let (to, after) = after.split_at_mut(source.len);
            parts.push((to, *source));
            end += gap + source.len;
            rest = after;
        }
        parts
    }

    /// Reads the layout of an object of `len` bytes.
    ///
    /// # Safety
    /// `len` bytes from `first` on are readable, and `first` is a multiple of 8. Other processes
    /// may write them.
    pub(crate) unsafe fn read(first: usize, len: usize) -> PyResult<Layout> {
        let words = len / WORD;
        let word = |place: usize| {
            (place < words).then(|| {
                let word = (first as *const u64).wrapping_add(place);
                // SAFETY: the word is within the bytes, and aligned. A volatile read loads it once,
                // so the checks below are of the value that is used.
                u64::from_le(unsafe { word.read_volatile() })
            })
        };
        let size = |place: usize| usize::try_from(word(place)?).ok();
        let read = || {
            if word(0)? != VERSION {
                return None;
            }
            let (pickle, count) = (size(1)?, size(2)?);
            if count > words {
                return None;
            }
            let lens = (0..count).map(|buffer| size(FIXED + buffer));
            let lens = lens.collect::<Option<Vec<_>>>()?;
            let layout = Layout::of(pickle, lens.into_iter())?;
            (layout.end() == len).then_some(layout)
        };
        read().ok_or_else(|| {
            PyValueError::new_err(format!(
                "the object of {len} bytes is damaged, or was made by another version of ndshm: \
                 use the same version in all processes"
            ))
        })
    }
}
