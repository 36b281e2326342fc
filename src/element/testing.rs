//! A segment's memory on the heap, for tests of its tables.

use std::alloc::{Layout as Block, alloc_zeroed, dealloc};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::layout::{Geometry, Layout};
use crate::memory::Memory;

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
        // SAFETY: the size of `block` is not 0.
        let base = NonNull::new(unsafe { alloc_zeroed(block) }).unwrap();
        // SAFETY: `base` points to `total` bytes, aligned to a page, which live until `drop` and
        // are reached only through `memory`.
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
        // SAFETY: allocated in `new` with this same block, and `memory` is no longer used.
        unsafe { dealloc(self.base.as_ptr(), self.block) };
    }
}
