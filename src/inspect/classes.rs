//! The division of a segment's memory among the size classes: for tools that show it.

use crate::descriptor::Descriptor;
use crate::memory::Memory;
use crate::span::WHOLE_COMMIT;
use crate::span::{Extent, Spans, class_size};
use crate::table::locate::TableView;
use crate::table::slot::Slot;
use crate::word::Lifecycle;

/// The slots of one size class, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClassInfo {
    /// Bytes of one slot's extent: the largest array that fits in.
    pub extent: u64,
    /// Slots of the class so far. The class gets more when it needs them.
    pub slots: usize,
    /// Slots with a live array, one of a partition or a queue included.
    pub live: usize,
    /// Slots without an owner.
    pub free: usize,
    /// Free slots with pages that were used and may be kept for the next array. The pages of the
    /// other free slots were never used or have been given back.
    pub kept: usize,
    /// Bytes that the live arrays requested.
    pub asked: u64,
    /// Bytes that were set aside for them. A slot of up to 64 KiB is set aside whole, a larger slot
    /// as far as its array reaches.
    pub taken: u64,
}

impl ClassInfo {
    fn empty(class: u32) -> ClassInfo {
        ClassInfo {
            extent: class_size(class),
            slots: 0,
            live: 0,
            free: 0,
            kept: 0,
            asked: 0,
            taken: 0,
        }
    }

    fn count(&mut self, memory: &Memory, slot: Slot<'_>, extent: &Extent) {
        self.slots += 1;
        let word = slot.word();
        match word.lifecycle() {
            Lifecycle::Free => {
                self.free += 1;
                self.kept += usize::from(!word.is_clean());
            }
            Lifecycle::Live => {
                self.live += 1;
                let words = memory.descriptor(slot.index);
                let asked = Descriptor::load(words).and_then(|it| it.bytes_in(memory));
                // A damaged descriptor may give more than an extent has.
                self.asked += asked.unwrap_or(0).min(extent.size());
                self.taken += match extent.size() {
                    ..=WHOLE_COMMIT => extent.size(),
                    size => Descriptor::committed(words).min(size),
                };
            }
            _ => {}
        }
    }
}

impl TableView<'_> {
    /// Returns the classes that have slots, the smallest extents first.
    pub(crate) fn classes(self) -> Vec<ClassInfo> {
        let mut classes: Vec<ClassInfo> = Vec::new();
        for span in Spans::of(self.memory).iter() {
            let class = span.class as usize;
            for missing in classes.len()..=class {
                classes.push(ClassInfo::empty(missing as u32));
            }
            for (slot, extent) in Slot::in_span(self.memory, span) {
                classes[class].count(self.memory, slot, &extent);
            }
        }
        classes.retain(|class| class.slots > 0);
        classes
    }
}

#[cfg(test)]
mod tests {
    use crate::{HandleTable, Segment};

    #[test]
    fn slots_are_counted_with_their_bytes() {
        let segment = Segment::options().capacity(1 << 30).in_process().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let small = table.zeros::<u8, _>(65).unwrap();
        let _other = table.zeros::<u8, _>(100).unwrap();
        let _large = table.zeros::<f64, _>((100, 300)).unwrap();
        let classes = table.core.tables().classes();
        assert_eq!(classes.len(), 2);
        assert_eq!((classes[0].extent, classes[0].slots), (128, 64));
        assert_eq!(
            (classes[0].live, classes[0].free, classes[0].kept),
            (2, 62, 0)
        );
        assert_eq!((classes[0].asked, classes[0].taken), (165, 256));
        assert_eq!((classes[1].extent, classes[1].live), (256 << 10, 1));
        assert_eq!(classes[1].asked, 240_000);
        assert!(
            (240_000..256 << 10).contains(&classes[1].taken),
            "{classes:?}"
        );
        table.free(small).unwrap();
        let class = table.core.tables().classes()[0];
        assert_eq!((class.live, class.free, class.kept), (1, 63, 1));
        assert_eq!((class.asked, class.taken), (100, 128));
    }
}
