//! The places of an element's numbers in a file and in the segment.
//!
//! A structure in a file may have gaps and inner structures. In a segment its numbers follow each
//! other field by field without gaps, so they are moved there piece by piece.

/// Words of equal size in each element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Words {
    /// Bytes from the element's start.
    pub(super) offset: usize,
    /// Bytes of a word: 2, 4 or 8.
    pub(super) size: usize,
    pub(super) count: usize,
}

impl Words {
    /// Swaps the bytes of these words in each element of `size` bytes. `bytes` is a whole number of
    /// elements.
    pub(super) fn swap(self, bytes: &mut [u8], size: usize) {
        let Words {
            offset,
            size: word,
            count,
        } = self;
        let end = offset + word * count;
        if offset == 0 && end == size {
            return swap_all(bytes, word);
        }
        for element in bytes.chunks_exact_mut(size) {
            swap_all(&mut element[offset..end], word);
        }
    }
}

fn swap_all(bytes: &mut [u8], word: usize) {
    fn swap<const N: usize>(bytes: &mut [u8]) {
        let (words, _) = bytes.as_chunks_mut::<N>();
        words.iter_mut().for_each(|word| word.reverse());
    }
    match word {
        2 => swap::<2>(bytes),
        4 => swap::<4>(bytes),
        _ => swap::<8>(bytes),
    }
}

/// The numbers of one field, with their place in an element of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Bytes from the element's start to the first number: in the file (`from`) and in the segment
    /// (`to`).
    pub(super) from: usize,
    pub(super) to: usize,
    /// Bytes of a number.
    pub(super) size: usize,
    /// Lengths and strides in bytes of the axes along which the numbers repeat, outermost first.
    pub(super) axes: Vec<(usize, usize)>,
}

impl Piece {
    /// Returns the number of numbers, or `None` if it overflows.
    pub(super) fn count(&self) -> Option<usize> {
        self.axes
            .iter()
            .try_fold(1usize, |count, (length, _)| count.checked_mul(*length))
    }

    /// Merges numbers that are contiguous along the innermost axes into one piece.
    fn joined(mut self) -> Piece {
        while let Some(&(length, stride)) = self.axes.last()
            && stride == self.size
        {
            self.size *= length;
            self.axes.pop();
        }
        self
    }
}

/// The moves of an element from a file layout into the layout of the segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moves(Vec<Piece>);

impl Moves {
    /// Returns the moves, or `None` if the layout in the file is that of the segment.
    pub(super) fn new(pieces: Vec<Piece>, file_size: usize, size: usize) -> Option<Moves> {
        // Skip fields without numbers, whatever their other axes.
        let pieces = pieces.into_iter().filter(|piece| piece.count() != Some(0));
        let pieces: Vec<Piece> = pieces.map(Piece::joined).collect();
        let in_place = |piece: &Piece| piece.from == piece.to && piece.axes.is_empty();
        let same = file_size == size && pieces.iter().all(in_place);
        (!same).then_some(Moves(pieces))
    }

    /// Moves the numbers of one element of a file into one of the segment.
    pub(super) fn apply(&self, from: &[u8], to: &mut [u8]) {
        for piece in &self.0 {
            let mut at = piece.to;
            copy(from, piece.from, piece.size, &piece.axes, to, &mut at);
        }
    }
}

/// Copies numbers that repeat along `axes`, starting at `place`, to consecutive places from `at`
/// on.
fn copy(
    from: &[u8],
    place: usize,
    size: usize,
    axes: &[(usize, usize)],
    to: &mut [u8],
    at: &mut usize,
) {
    match axes.split_first() {
        None => {
            to[*at..*at + size].copy_from_slice(&from[place..place + size]);
            *at += size;
        }
        Some((&(length, stride), inner)) => {
            for step in 0..length {
                copy(from, place + step * stride, size, inner, to, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_swapped_where_they_are() {
        let mut bytes: Vec<u8> = (0..12).collect();
        let words = Words {
            offset: 1,
            size: 2,
            count: 2,
        };
        words.swap(&mut bytes, 6);
        assert_eq!(bytes, [0, 2, 1, 4, 3, 5, 6, 8, 7, 10, 9, 11]);
        for word in [2, 4, 8] {
            let mut bytes: Vec<u8> = (0..16).collect();
            let words = Words {
                offset: 0,
                size: word,
                count: 1,
            };
            words.swap(&mut bytes, word);
            let expected: Vec<u8> = (0..16)
                .map(|at| (at / word * word + (word - 1 - at % word)) as u8)
                .collect();
            assert_eq!(bytes, expected);
        }
    }

    fn piece(from: usize, to: usize, size: usize, axes: &[(usize, usize)]) -> Piece {
        Piece {
            from,
            to,
            size,
            axes: axes.to_vec(),
        }
    }

    #[test]
    fn elements_without_gaps_are_not_moved() {
        let whole = vec![piece(0, 0, 4, &[]), piece(4, 4, 2, &[(3, 4), (2, 2)])];
        assert_eq!(Moves::new(whole.clone(), 16, 16), None);
        assert!(Moves::new(whole, 17, 16).is_some());
        assert!(Moves::new(vec![piece(1, 0, 1, &[])], 1, 1).is_some());
        let nothing = piece(8, 4, 2, &[(usize::MAX, 0), (0, 2)]);
        assert_eq!(Moves::new(vec![piece(0, 0, 4, &[]), nothing], 4, 4), None);
    }

    #[test]
    fn numbers_of_inner_structures_are_gathered() {
        // Three structures of a u8 and a u16, and a gap of one byte before them.
        let pieces = vec![piece(1, 0, 1, &[(3, 3)]), piece(2, 3, 2, &[(3, 3)])];
        let moves = Moves::new(pieces, 10, 9).unwrap();
        let from: Vec<u8> = (0..10).collect();
        let mut to = [0; 9];
        moves.apply(&from, &mut to);
        assert_eq!(to, [1, 4, 7, 2, 3, 5, 6, 8, 9]);
    }
}
