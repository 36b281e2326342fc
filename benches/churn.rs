//! Cost of allocating and freeing in one process: by size, by number of live arrays, by contents.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

use common::{Bench, Subject, each};
use mimalloc::MiMalloc;
use ndshm::{HandleTable, Segment};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sharded_slab::Slab;
use shared_memory::ShmemConf;
use tikv_jemallocator::Jemalloc;

const SIZES: [(&str, usize); 5] = [
    ("64B", 64),
    ("8KiB", 8 << 10),
    ("1MiB", 1 << 20),
    ("100MiB", 100 << 20),
    ("1GiB", 1 << 30),
];

/// Size of the other live arrays, in bytes.
const LIVE_BYTES: usize = 64;

fn main() {
    let bench = Bench::from_args();
    by_live_arrays(&bench);
    system_prices(&bench);
    contents(&bench);
}

fn own_pair(table: &HandleTable, bytes: usize) {
    let handle = table.uninit::<u8, _>(bytes).expect("memory for the bench");
    table.free(handle).expect("nobody else frees it");
}

/// Measures alloc and free by the number of other live arrays.
fn by_live_arrays(bench: &Bench) {
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    let slab = Slab::new();
    let mut live = 0;
    for count in [10, 1_000, 1_000_000] {
        let name = |size: &str| format!("churn/{size}/live={count}");
        if !SIZES.iter().any(|(size, _)| bench.wants(&name(size))) {
            continue;
        }
        let count = if bench.is_quick() {
            count.min(10_000)
        } else {
            count
        };
        for _ in live..count {
            // These arrays live until the process ends.
            table
                .zeros::<u8, _>(LIVE_BYTES)
                .expect("memory for the bench");
            let small = Layout::new::<[u64; LIVE_BYTES / 8]>();
            let _ = obtain(&System, small);
            let _ = obtain(&MiMalloc, small);
            let _ = obtain(&Jemalloc, small);
            let _ = slab.insert(0u64);
        }
        live = count;
        for (size, bytes) in SIZES {
            let name = name(size);
            bench.compare(vec![
                each(&name, || own_pair(&table, bytes)),
                allocator(format!("{name}/malloc"), &System, bytes),
                allocator(format!("{name}/mimalloc"), &MiMalloc, bytes),
                allocator(format!("{name}/jemalloc"), &Jemalloc, bytes),
            ]);
        }
        // The slab also has generations, but is private to a process, and its values have one size.
        bench.compare(vec![
            each(name("index"), || own_pair(&table, 64)),
            each(name("index") + "/slab", || {
                let key = slab.insert(black_box(0)).expect("room in the slab");
                assert!(slab.remove(key));
            }),
        ]);
    }
}

/// Allocates memory of `layout`. The caller frees it or leaks it.
fn obtain(allocator: &impl GlobalAlloc, layout: Layout) -> *mut u8 {
    assert!(layout.size() > 0);
    // SAFETY: the layout is not empty.
    let ptr = unsafe { allocator.alloc(layout) };
    assert!(!ptr.is_null(), "no memory for the bench");
    black_box(ptr)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 16).expect("a small power of two")
}

fn allocator<'a>(name: String, allocator: &'a impl GlobalAlloc, bytes: usize) -> Subject<'a> {
    let layout = layout(bytes);
    each(name, move || {
        let ptr = obtain(allocator, layout);
        // SAFETY: the memory comes from this allocator, for this layout.
        unsafe { allocator.dealloc(ptr, layout) };
    })
}

/// Measures system calls that give each array its own mapping.
fn system_prices(bench: &Bench) {
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    for (size, bytes) in SIZES {
        bench.compare(vec![
            each(format!("churn/{size}/system"), || own_pair(&table, bytes)),
            each(format!("churn/{size}/system/memfd"), || mapping_pair(bytes)),
            each(format!("churn/{size}/system/shm"), || {
                let made = ShmemConf::new().size(bytes).create();
                drop(made.expect("room in /dev/shm"));
            }),
        ]);
    }
}

fn mapping_pair(bytes: usize) {
    let file = memfd_create(c"ndshm-bench", MemfdFlags::CLOEXEC).expect("a memfd");
    ftruncate(&file, bytes as u64).expect("a sparse file");
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping, at an address that the kernel picks.
    let mapped = unsafe { mmap(anywhere, bytes, access, MapFlags::SHARED, &file, 0) };
    let mapped = black_box(mapped.expect("address space"));
    // SAFETY: this is the mapping made above; nothing refers to it.
    unsafe { munmap(mapped, bytes) }.expect("it is mapped");
}

/// Measures arrays with contents: zeroed, or written completely.
fn contents(bench: &Bench) {
    const BYTES: usize = 100 << 20;
    let names = ["zeroed/100MiB", "written/100MiB"];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    let mut warm = vec![1u8; BYTES];
    let mut fill = |byte: u8| black_box(warm.as_mut_slice()).fill(byte);
    let [zeroed, written] = names;
    let dirty = table.from_elem(BYTES, 1u8).expect("memory for the bench");
    table.free(dirty).expect("nobody else frees it");
    bench.compare(vec![
        each(zeroed, || {
            let handle = table.zeros::<u8, _>(BYTES).expect("memory for the bench");
            table.free(handle).expect("nobody else frees it");
        }),
        each(format!("{zeroed}/memset"), || fill(0)),
        each(format!("{zeroed}/calloc+touch"), || {
            let mut array = vec![0u8; BYTES];
            for page in black_box(array.as_mut_slice()).chunks_mut(4096) {
                page[0] = 0;
                black_box(page);
            }
        }),
    ]);
    bench.compare(vec![
        each(written, || {
            let handle = table.uninit::<u8, _>(BYTES).expect("memory for the bench");
            table.write(handle).expect("it is ours").fill(1);
            table.free(handle).expect("nobody else frees it");
        }),
        each(format!("{written}/memset"), || fill(1)),
        each(format!("{written}/malloc"), || {
            let mut array = Vec::<u8>::with_capacity(BYTES);
            array.resize(black_box(BYTES), 1);
            black_box(array);
        }),
    ]);
}
