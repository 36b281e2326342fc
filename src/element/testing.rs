//! A segment's memory on the heap, for tests of what is stored in its tables.

use std::alloc::{Layout as Block, alloc_zeroed, dealloc};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::layout::{Geometry, Layout};
use crate::segment::Memory;

/// The smallest segment: one span, one seat.
pub(crate) struct HeapMemory {
    base: NonNull<u8>,
    block: Block,
    memory: Memory,
}

impl HeapMemory {
    pub(crate) fn new() -> HeapMemory {
        let layout = Layout::new(Geometry {
            capacity: Geometry::CAPACITY_UNIT,
            seats: 1,
            spans: 1,
            span_slots: Geometry::SPAN_SLOTS,
        });
        let block = Block::from_size_align(layout.total as usize, 4096).unwrap();
        // SAFETY: `block` is not of size 0.
        let base = NonNull::new(unsafe { alloc_zeroed(block) }).unwrap();
        // SAFETY: `total` bytes at `base`, aligned to a page, live until `drop`, and are reached
        // through `memory` alone.
        let memory = unsafe { Memory::new(base, layout) };
        HeapMemory {
            base,
            block,
            memory,
        }
    }
}

impl Deref for HeapMemory {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very block, and `memory` is not used any more.
        unsafe { dealloc(self.base.as_ptr(), self.block) };
    }
}
