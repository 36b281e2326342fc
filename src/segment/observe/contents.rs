//! Contents of arrays that an observer reads by pointers, mapped piece by piece on demand.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::super::os::mapping::{Mapping, map_error};
use crate::segment::error::SegmentError;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    const MIB: u64 = 1 << 20;

    /// Creates a file in which each MiB begins and ends with its number.
    fn file(mib: u8) -> OwnedFd {
        let fd = rustix::fs::memfd_create("contents", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, u64::from(mib) * MIB).unwrap();
        for number in 0..mib {
            let at = u64::from(number) * MIB;
            for at in [at, at + MIB - 1] {
                assert_eq!(rustix::io::pwrite(&fd, &[number], at), Ok(1));
            }
        }
        fd
    }

    fn byte(address: NonNull<u8>) -> u8 {
        // SAFETY: the callers pass an address that a piece has just given out; nobody writes there.
        unsafe { address.read_volatile() }
    }

    /// Offset and length of each piece.
    fn pieces(contents: &Contents) -> Vec<(u64, u64)> {
        let mut place = &contents.first;
        let mut pieces = Vec::new();
        while let Some(piece) = place.get() {
            pieces.push((piece.offset, piece.len));
            place = &piece.next;
        }
        pieces
    }

    #[test]
    fn a_piece_serves_all_that_is_in_it() {
        let fd = file(9);
        let contents = Contents::default();
        let at = |offset, len| contents.at(fd.as_fd(), offset, len, 9 * MIB).unwrap();
        let first = at(5 * MIB, 100);
        assert_eq!(
            (byte(first), pieces(&contents)),
            (5, vec![(4 * MIB, 2 * MIB)])
        );
        assert_eq!(byte(at(4 * MIB, 2 * MIB)), 4);
        assert_eq!(byte(at(6 * MIB - 1, 1)), 5);
        assert_eq!(at(5 * MIB, MIB), first);
        assert_eq!(pieces(&contents).len(), 1);
        // A range beyond either end, if only by a byte, gets a piece of its own.
        assert_eq!(byte(at(5 * MIB, MIB + 1)), 5);
        assert_eq!(pieces(&contents)[1], (4 * MIB, 4 * MIB));
        assert_eq!(byte(at(4 * MIB - 1, 2)), 3);
        assert_eq!(pieces(&contents)[2], (2 * MIB, 4 * MIB));
        assert_eq!(byte(at(9 * MIB - 1, 1)), 8);
        assert_eq!(pieces(&contents)[3], (8 * MIB, MIB), "the file ends there");
        assert_eq!(pieces(&contents).len(), 4);
    }

    #[test]
    fn pieces_grow_with_their_number() {
        let fd = file(80);
        let contents = Contents::default();
        for number in 0..17 {
            let offset = 78 * MIB - number * 2 * MIB;
            let piece = Piece::around(fd.as_fd(), offset, 1, 80 * MIB, number as u32).unwrap();
            let unit = [2, 4, 8][number as usize / 8] * MIB;
            assert_eq!((piece.offset, piece.len), (offset - offset % unit, unit));
            let address = piece.address(offset, 1).unwrap();
            assert_eq!(u64::from(byte(address)), offset / MIB);
        }
        // Every second MiB is asked for: the ninth piece is larger, and so holds its surroundings.
        for number in 0..10 {
            let offset = 3 * MIB + number * 4 * MIB;
            contents.at(fd.as_fd(), offset, 1, 80 * MIB).unwrap();
        }
        let lens: Vec<u64> = pieces(&contents)
            .iter()
            .map(|&(_, len)| len / MIB)
            .collect();
        assert_eq!(lens, [2, 2, 2, 2, 2, 2, 2, 2, 4, 4]);
    }

    #[test]
    fn a_range_beyond_what_can_be_mapped_is_refused() {
        let fd = file(1);
        let contents = Contents::default();
        let refused = contents.at(fd.as_fd(), 0, 1 << 60, u64::MAX);
        assert!(matches!(
            refused,
            Err(SegmentError::AddressSpace { bytes, .. }) if bytes == 1 << 60
        ));
        assert_eq!(pieces(&contents), []);
    }
}
