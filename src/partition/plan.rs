//! The division of arrays into tiles, and its words in the segment.

use core::ops::Range;

use ndarray::Slice;

use super::edge::Edge;
use crate::sync::{Atom, Ordering};

/// Axes along which a partition can cut.
pub(crate) const MAX_CUTS: usize = 4;
/// Words of a cut in a partition's head: axis and kind, length of the axis, pieces, block length.
pub(crate) const CUT_WORDS: usize = 4;

/// The cut along one axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) axis: usize,
    pub(super) axis_len: usize,
    pub(super) pieces: Pieces,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pieces {
    /// Pieces of this length, which is not 0.
    Blocks(usize),
    /// This number of pieces, which is not 0.
    Cyclic(usize),
    /// One piece between each two neighbouring bounds. The bounds do not decrease, from 0 to the
    /// axis' length.
    Bounds(Box<[usize]>),
}

impl Cut {
    fn pieces(&self) -> usize {
        match &self.pieces {
            Pieces::Blocks(len) => self.axis_len.div_ceil(*len),
            Pieces::Cyclic(tiles) => *tiles,
            Pieces::Bounds(bounds) => bounds.len() - 1,
        }
    }

    #[inline]
    fn side(&self, piece: usize) -> TileSide {
        let len = self.axis_len;
        let (range, step) = match &self.pieces {
            Pieces::Blocks(block) => {
                let start = piece.saturating_mul(*block).min(len);
                (start..start.saturating_add(*block).min(len), 1)
            }
            Pieces::Cyclic(tiles) => (piece.min(len)..len, *tiles),
            Pieces::Bounds(bounds) => match bounds.get(piece..piece.saturating_add(2)) {
                Some(&[start, end]) => (start..end, 1),
                _ => (len..len, 1),
            },
        };
        TileSide {
            axis: self.axis,
            range,
            step,
        }
    }
}

/// The indices that a tile covers along one cut axis.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TileSide {
    /// The axis.
    pub axis: usize,
    /// From the first index to beyond the last one.
    pub range: Range<usize>,
    /// The distance between neighbouring indices: 1, except for [cyclic](crate::Grid::cyclic)
    /// tiles.
    pub step: usize,
}

impl TileSide {
    /// Returns the slice of the axis.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let x = table.read(x)?;
    /// let side = tiles.sides(3).next().expect("one axis is cut");
    /// let tile = x.slice_axis(Axis(side.axis), side.slice());
    /// assert_eq!((tile.len(), tile[0]), (10, 30.0));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn slice(&self) -> Slice {
        let (start, end) = (self.range.start as isize, self.range.end as isize);
        Slice::new(start, Some(end), self.step as isize)
    }
}

/// The division of a partition. It is fixed for the partition's life.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    cuts: Box<[Cut]>,
}

impl Plan {
    /// Creates a plan of at least one cut. No two cuts are along the same axis.
    pub(super) fn of(cuts: Vec<Cut>) -> Plan {
        Plan { cuts: cuts.into() }
    }

    /// Returns the number of pieces along each cut axis.
    #[cfg(test)]
    pub(super) fn pieces(&self) -> impl Iterator<Item = usize> {
        self.cuts.iter().map(Cut::pieces)
    }

    /// Returns the product of the pieces along each axis, or `None` if it overflows.
    pub(crate) fn tiles(&self) -> Option<usize> {
        self.cuts
            .iter()
            .try_fold(1usize, |tiles, cut| tiles.checked_mul(cut.pieces()))
    }

    /// Returns the cut axes and their lengths.
    pub(crate) fn axes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.cuts.iter().map(|cut| (cut.axis, cut.axis_len))
    }

    /// Returns `true` if the plan cuts only `axis`, of length `axis_len`, into stretches.
    pub(crate) fn is_stretches_of(&self, axis: usize, axis_len: usize) -> bool {
        match &*self.cuts {
            [cut] => {
                (cut.axis, cut.axis_len) == (axis, axis_len)
                    && !matches!(cut.pieces, Pieces::Cyclic(_))
            }
            _ => false,
        }
    }

    /// Returns the axis that is cut first.
    pub(crate) fn first_axis(&self) -> usize {
        self.cuts.first().map_or(0, |cut| cut.axis)
    }

    /// Returns the indices that `tile` covers along the first cut axis.
    pub(crate) fn rows(&self, tile: usize) -> Range<usize> {
        match &*self.cuts {
            [cut] => cut.side(tile).range,
            _ => self.sides(tile).next().map_or(0..0, |side| side.range),
        }
    }

    /// Returns the side of `tile` along each cut axis. Tiles are numbered along the last axis
    /// first.
    pub(crate) fn sides(&self, tile: usize) -> impl Iterator<Item = TileSide> {
        let mut below: usize = self.cuts.iter().map(Cut::pieces).product();
        let mut rest = tile;
        self.cuts.iter().enumerate().map(move |(at, cut)| {
            let pieces = cut.pieces().max(1);
            below /= pieces;
            let piece = rest / below.max(1);
            rest %= below.max(1);
            // A tile beyond the last one is empty: it begins at the end of the first axis.
            cut.side(if at == 0 {
                piece
            } else {
                piece.min(pieces - 1)
            })
        })
    }

    /// Visits the [`sides`](Plan::sides) of a tile, for its views. Divides only if several axes are
    /// cut.
    #[inline]
    pub(crate) fn for_each_side(&self, tile: usize, mut visit: impl FnMut(TileSide)) {
        match &*self.cuts {
            [cut] => visit(cut.side(tile)),
            _ => self.sides(tile).for_each(visit),
        }
    }

    /// Visits the sides of the block that the tiles from `first` to `last` form; see
    /// [`block_end`](Plan::block_end).
    #[inline]
    pub(crate) fn for_each_side_of(
        &self,
        (first, last): (usize, usize),
        mut visit: impl FnMut(TileSide),
    ) {
        let joined = |side: TileSide, last: TileSide| TileSide {
            range: side.range.start..last.range.end,
            ..side
        };
        match &*self.cuts {
            [cut] => visit(joined(cut.side(first), cut.side(last))),
            _ => self
                .sides(first)
                .zip(self.sides(last))
                .for_each(|(side, last)| visit(joined(side, last))),
        }
    }

    /// Returns the end of the tiles from `tile` on that form one block of the arrays with it. They
    /// differ only along the last axis, and lie side by side there. If all tiles from there on do, the
    /// end lies beyond the last one.
    #[inline]
    pub(crate) fn block_end(&self, tile: usize) -> usize {
        match &*self.cuts {
            [.., cut] if matches!(cut.pieces, Pieces::Cyclic(_)) => tile + 1,
            // No division, which would cost as much as a claim.
            [_] => usize::MAX,
            [.., cut] => {
                let pieces = cut.pieces().max(1);
                (tile / pieces + 1) * pieces
            }
            [] => tile + 1,
        }
    }

    /// Returns the tile at `offset` tiles from `tile` along each axis. Without an entry in `offset`
    /// an axis has the offset 0.
    pub(crate) fn neighbour(&self, tile: usize, offset: &[isize], edges: &[Edge]) -> Option<usize> {
        let mut below = self.tiles().filter(|&tiles| tile < tiles)?;
        let moved = |axis: usize, piece: usize, pieces: usize| {
            let to = piece as i128 + offset.get(axis).map_or(0, |&offset| offset as i128);
            let to = match edges.get(axis) {
                Some(Edge::Periodic) => to.rem_euclid(pieces as i128),
                _ => to,
            };
            usize::try_from(to).ok().filter(|&to| to < pieces)
        };
        let (mut rest, mut found) = (tile, 0);
        // There is a tile, so no cut is without pieces.
        for cut in &self.cuts {
            below /= cut.pieces();
            found += below * moved(cut.axis, rest / below, cut.pieces())?;
            rest %= below;
        }
        // An axis that is not cut is one piece.
        let is_cut = |axis| self.cuts.iter().any(|cut| cut.axis == axis);
        for axis in (0..offset.len()).filter(|&axis| !is_cut(axis)) {
            moved(axis, 0, 1)?;
        }
        Some(found)
    }

    // ---- in the partition's words -----------------------------------------------------------

    /// Returns the number of words for the bounds, which lie behind the tiles' claims.
    pub(crate) fn bound_words(&self) -> usize {
        let words = |cut: &Cut| match &cut.pieces {
            Pieces::Bounds(bounds) => bounds.len(),
            _ => 0,
        };
        self.cuts.iter().map(words).sum()
    }

    /// Writes the cuts and bounds of a new partition. Relaxed: published with the slot.
    pub(crate) fn store(&self, cuts: &[Atom], bounds: &[Atom]) {
        let mut bounds = bounds.iter();
        for (cut, words) in self.cuts.iter().zip(cuts.chunks_exact(CUT_WORDS)) {
            let (kind, length) = match &cut.pieces {
                Pieces::Blocks(len) => (0, *len),
                Pieces::Cyclic(_) => (1, 0),
                Pieces::Bounds(_) => (2, 0),
            };
            let values = [cut.axis << 8 | kind, cut.axis_len, cut.pieces(), length];
            for (word, value) in words.iter().zip(values) {
                word.store(value as u64, Ordering::Relaxed);
            }
            if let Pieces::Bounds(all) = &cut.pieces {
                // `all` comes first: `zip` advances its first side before it finds the second one
                // at its end.
                for (&bound, word) in all.iter().zip(&mut bounds) {
                    word.store(bound as u64, Ordering::Relaxed);
                }
            }
        }
    }

    /// Reads `count` cuts. Returns `None` if their words are inconsistent.
    pub(crate) fn load(count: usize, cuts: &[Atom], bounds: &[Atom]) -> Option<Plan> {
        if count == 0 || count > MAX_CUTS {
            return None;
        }
        let get = |word: &Atom| usize::try_from(word.load(Ordering::Relaxed)).ok();
        let mut rest = bounds;
        let mut found = Vec::with_capacity(count);
        for words in cuts.chunks_exact(CUT_WORDS).take(count) {
            let (kind, axis_len, pieces) = (get(&words[0])?, get(&words[1])?, get(&words[2])?);
            let cut = Cut {
                axis: kind >> 8,
                axis_len,
                pieces: match kind & 0xff {
                    0 => Pieces::Blocks(get(&words[3]).filter(|&len| len > 0)?),
                    1 => Pieces::Cyclic(Some(pieces).filter(|&tiles| tiles > 0)?),
                    2 => {
                        let (own, others) = rest.split_at_checked(pieces.checked_add(1)?)?;
                        rest = others;
                        let all: Box<[usize]> = own.iter().map(get).collect::<Option<_>>()?;
                        let ends = all.first() == Some(&0) && all.last() == Some(&axis_len);
                        (ends && all.is_sorted()).then_some(Pieces::Bounds(all))?
                    }
                    _ => return None,
                },
            };
            let twice = found.iter().any(|other: &Cut| other.axis == cut.axis);
            if twice || cut.pieces() != pieces {
                return None;
            }
            found.push(cut);
        }
        (found.len() == count).then(|| Plan { cuts: found.into() })
    }
}

#[cfg(test)]
mod tests;
