//! The contents of an array or a tile: a pattern that names its place and its writer, so any reader
//! can check that it sees one whole pattern of one writer.

use std::fmt;

use ndarray::{ArrayView, ArrayViewMut, Dimension};

use super::numbers::mix;

/// Number of elements that identify the pattern.
const HEAD: usize = 3;

/// The identity of a pattern. It determines all elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// The place of the pattern: the bits of the array's handle, and the tile.
    place: u64,
    /// The writer's pid, and the number of patterns that it has written.
    pub author: u64,
    /// The partition and the round of the write; 0 outside of rounds.
    pub stamp: u64,
}

/// Contents that are not one whole pattern.
pub struct Torn {
    expected: u64,
    found: Pattern,
    /// Index of the first wrong element, and the number of wrong elements.
    first: usize,
    wrong: usize,
    len: usize,
}

/// Returns the place of a tile in an array. `None` denotes the whole array.
pub fn place(bits: u64, tile: Option<usize>) -> u64 {
    match tile {
        None => bits,
        Some(tile) => mix(bits) ^ tile as u64,
    }
}

impl Pattern {
    pub fn new(place: u64, author: u64, stamp: u64) -> Pattern {
        Pattern {
            place,
            author,
            stamp,
        }
    }

    pub fn pid(&self) -> u32 {
        (self.author >> 32) as u32
    }

    #[inline]
    fn element(&self, base: u64, index: usize) -> u64 {
        match index {
            0 => self.place,
            1 => self.author,
            2 => self.stamp,
            _ => (base ^ index as u64).wrapping_mul(0xd6e8_feb8_6659_fd93),
        }
    }

    fn base(&self) -> u64 {
        mix(self.place ^ mix(self.author ^ mix(self.stamp)))
    }

    pub fn write<D: Dimension>(&self, mut to: ArrayViewMut<'_, u64, D>) {
        let base = self.base();
        for (index, element) in to.iter_mut().enumerate() {
            *element = self.element(base, index);
        }
    }

    /// Returns the pattern in `from` if it is whole and belongs to `place`.
    pub fn read<D: Dimension>(place: u64, from: ArrayView<'_, u64, D>) -> Result<Pattern, Torn> {
        let mut head = [0; HEAD];
        for (word, &element) in head.iter_mut().zip(&from) {
            *word = element;
        }
        let found = Pattern::new(head[0], head[1], head[2]);
        let base = found.base();
        let (mut first, mut wrong) = (from.len(), 0);
        for (index, &element) in from.iter().enumerate() {
            if element != found.element(base, index) {
                first = first.min(index);
                wrong += 1;
            }
        }
        match wrong == 0 && found.place == place && found.author != 0 {
            true => Ok(found),
            false => Err(Torn {
                expected: place,
                found,
                first,
                wrong,
                len: from.len(),
            }),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pattern {} of pid {} for place {:016x}, stamp {:x}",
            self.author & 0xffff_ffff,
            self.pid(),
            self.place,
            self.stamp
        )
    }
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Torn {
            expected,
            found,
            first,
            wrong,
            len,
        } = self;
        write!(
            f,
            "not one whole pattern for place {expected:016x}: its head says {found:?}; {wrong} of \
             {len} elements do not fit, the first at {first}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Array2, s};

    fn written(pattern: Pattern) -> Array1<u64> {
        let mut x = Array1::zeros(20);
        pattern.write(x.view_mut());
        x
    }

    #[test]
    fn a_whole_pattern_names_its_writer() {
        let pattern = Pattern::new(7, 5 << 32 | 1, 9);
        let found = Pattern::read(7, written(pattern).view()).ok().unwrap();
        assert!(found == pattern && found.pid() == 5);
        let mut block = Array2::zeros((4, 6));
        pattern.write(block.slice_mut(s![1..3, 2..]));
        let cut = block.slice(s![1..3, 2..]);
        assert!(Pattern::read(7, cut).is_ok_and(|found| found == pattern));
    }

    #[test]
    fn every_wrong_element_is_found() {
        let whole = written(Pattern::new(7, 5 << 32 | 1, 9));
        for index in 0..whole.len() {
            let mut torn = whole.clone();
            torn[index] ^= 1 << index;
            assert!(Pattern::read(7, torn.view()).is_err(), "element {index}");
        }
        assert!(Pattern::read(7, Array1::zeros(8).view()).is_err());
    }

    #[test]
    fn two_patterns_are_none() {
        let first = written(Pattern::new(7, 5 << 32 | 1, 0));
        let second = written(Pattern::new(7, 5 << 32 | 2, 0));
        // The first element, the place, is equal in both.
        for cut in 2..first.len() {
            let mut both = first.clone();
            both.slice_mut(s![cut..]).assign(&second.slice(s![cut..]));
            assert!(Pattern::read(7, both.view()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_pattern_is_for_one_place() {
        let whole = written(Pattern::new(place(1, Some(2)), 5 << 32, 0));
        for other in [place(1, None), place(1, Some(3)), place(2, Some(2))] {
            assert!(Pattern::read(other, whole.view()).is_err());
        }
    }
}
