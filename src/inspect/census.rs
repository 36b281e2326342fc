//! Counts of arrays, and the progress of rounds: for tools that show them over time.

use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::partition::RoundProgress;
use crate::partition::control::Control;
use crate::span::Extent;
use crate::sync::{Atom, Ordering};
use crate::table::locate::TableView;
use crate::table::slot::Slot;
use crate::word::Lifecycle;

/// The number of arrays at one moment. The difference of two tells what happened in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Census {
    /// Live arrays, those of partitions, queues and names among them.
    pub live: u64,
    /// Freed arrays that are still leased.
    pub retired: u64,
    /// Arrays that were created since the segment was.
    pub made: u64,
    /// Arrays that were freed, and allocations that were abandoned, since the segment was created.
    pub freed: u64,
}

/// The most words of a partition that are read.
const MOST_WORDS: u64 = 1 << 20;

impl<'m> TableView<'m> {
    /// Counts the arrays.
    pub(crate) fn census(self) -> Census {
        let mut census = Census::default();
        for (slot, _) in Slot::all(self.memory) {
            let word = slot.word();
            // Each earlier generation was an array.
            census.freed += u64::from(word.generation());
            match word.lifecycle() {
                Lifecycle::Live => census.live += 1,
                Lifecycle::Retired => census.retired += 1,
                _ => {}
            }
        }
        census.made = census.freed + census.live + census.retired;
        census
    }

    /// Returns the progress of the partitions' rounds. `copy` copies bytes from a segment offset.
    pub(crate) fn rounds(
        self,
        copy: impl Fn(u64, &mut [u8]) -> bool,
    ) -> Vec<(AnyHandle, RoundProgress)> {
        let progress = |(slot, extent): (Slot<'m>, Extent)| {
            let word = slot.word();
            let descriptor = Descriptor::load(self.memory.descriptor(slot.index))?;
            if !word.is_live(word.generation()) || !descriptor.is_control_of(ControlKind::Partition)
            {
                return None;
            }
            // Copy the words, because nothing keeps them in place.
            let len = descriptor.shape().first()?;
            let len = *Some(len).filter(|&&len| len <= MOST_WORDS.min(extent.size() / 8))?;
            let mut copied = vec![0u64; len as usize];
            let offset = self.memory.layout().data + extent.offset;
            if !copy(offset, bytemuck::cast_slice_mut(&mut copied)) {
                return None;
            }
            let words: Vec<Atom> = copied
                .into_iter()
                .map(|bits| {
                    let word = Atom::zero();
                    word.store(bits, Ordering::Relaxed);
                    word
                })
                .collect();
            let progress = RoundProgress::of(&Control::over(&words)?);
            let handle = AnyHandle::pack(self.key, slot.index, word.generation());
            slot.word()
                .is_live(word.generation())
                .then_some((handle, progress))
        };
        Slot::all(self.memory).filter_map(progress).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Axis;

    use crate::{HandleTable, Observer, Segment};

    #[test]
    fn created_and_freed_arrays_are_counted() {
        let segment = Segment::anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        let before = observer.census();
        assert_eq!(before, super::Census::default());
        for _ in 0..10 {
            let x = table.zeros::<f64, _>(3).unwrap();
            table.free(x).unwrap();
        }
        let _kept = table.zeros::<f64, _>(3).unwrap();
        let after = observer.census();
        assert_eq!((after.live, after.made, after.freed), (1, 11, 10));
    }

    #[test]
    fn a_round_is_followed_tile_by_tile() {
        let segment = Segment::anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        let x = table.zeros::<f64, _>(40).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
        let _other = table.queue::<u64>(4).unwrap();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        drop(part.claim().unwrap().unwrap());
        let held = part.claim().unwrap().unwrap();
        let seen = observer.rounds();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].1, tiles.progress().unwrap());
        assert_eq!((seen[0].1.done, seen[0].1.held, seen[0].1.tiles), (1, 1, 4));
        drop(held);
        while part.claim().unwrap().is_some() {}
        drop(part);
        round.finish(std::time::Duration::ZERO).unwrap();
        assert!(!observer.rounds()[0].1.running);
    }
}
