//! Contents of arrays that an observer reads by pointers, mapped piece by piece on demand.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::super::mapping::{Mapping, map_error};
use crate::error::SegmentError;

/// Bytes of the first pieces. They double every [`GROW_AFTER`] pieces: small arrays take little
/// address space, and many arrays take few mappings.
const PIECE: u64 = 2 << 20;
const GROW_AFTER: u32 = 8;

/// A list of pieces that only grows. It has no lock, because a fork could leave a lock held for
/// ever.
#[derive(Default)]
pub(super) struct Contents {
    first: OnceLock<Box<Piece>>,
}

/// A mapped part of the file.
struct Piece {
    offset: u64,
    len: u64,
    /// Its offset in the mapping.
    start: u64,
    mapping: Mapping,
    next: OnceLock<Box<Piece>>,
}

impl Contents {
    /// Returns the address of `len` bytes at `offset` of a file with `total` bytes. The range must
    /// be within the file. The bytes stay mapped for as long as `self` lives.
    pub(super) fn at(
        &self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        total: u64,
    ) -> Result<NonNull<u8>, SegmentError> {
        let (mut place, mut pieces) = (&self.first, 0);
        let mut fresh = None;
        loop {
            while let Some(piece) = place.get() {
                if let Some(address) = piece.address(offset, len) {
                    return Ok(address);
                }
                (place, pieces) = (&piece.next, pieces + 1);
            }
            let piece = match fresh.take() {
                Some(piece) => piece,
                None => Box::new(Piece::around(fd, offset, len, total, pieces)?),
            };
            // If another thread has appended a piece, `set` fails: continue along the list to its
            // new end.
            fresh = place.set(piece).err();
        }
    }
}

impl Piece {
    /// Maps the range and its surroundings, or the range alone if there is no room for more.
    fn around(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        total: u64,
        pieces: u32,
    ) -> Result<Piece, SegmentError> {
        let unit = PIECE << (pieces / GROW_AFTER).min(20);
        let first = offset - offset % unit;
        let end = (offset + len).next_multiple_of(unit).min(total);
        Piece::map(fd, first, end - first).or_else(|_| Piece::map(fd, offset, len))
    }

    fn map(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Piece, SegmentError> {
        let (mapping, [start]) =
            Mapping::of_file_parts(fd, [(offset, len)]).map_err(|errno| map_error(errno, len))?;
        Ok(Piece {
            offset,
            len,
            start,
            mapping,
            next: OnceLock::new(),
        })
    }

    fn address(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let before = offset.checked_sub(self.offset)?;
        let within = before <= self.len && len <= self.len - before;
        // SAFETY: `before` is within the piece, which begins `start` bytes after the mapping's base
        // and is mapped to its end.
        within.then(|| unsafe { self.mapping.base().add((self.start + before) as usize) })
    }
}
