//! Cost of touching fresh memory, against a plain memset of a fresh mapping.

mod common;

use std::collections::HashSet;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use common::Bench;
use ndarray::{Axis, Ix1};
use ndshm::segment::HugePages;
use ndshm::{Handle, HandleTable, Pool, Segment};
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

const WORKERS: usize = 2;
/// Size and alignment of huge pages.
const HUGE: usize = 2 << 20;

fn main() {
    let bench = Bench::from_args();
    let (bytes, rounds) = match bench.is_quick() {
        true => (8 << 20, 3),
        false => (128 << 20, 11),
    };
    let small = table_of(HugePages::AsSystem);
    let huge = table_of(HugePages::Collapse);
    let mut pools = [&small, &huge].map(|table| Pool::fork(table, WORKERS).expect("workers"));
    recycled(&bench);
    first_touch(&bench, &small, &mut pools[0], bytes, rounds);
    huge_pages(&bench, &huge, &mut pools[1], bytes, rounds);
}

/// Measures the fill of an array whose predecessor was freed: while another participant read it,
/// or by its only holder. Counts the places that the arrays took.
fn recycled(bench: &Bench) {
    let bytes: usize = if bench.is_quick() { 8 << 20 } else { 80 << 20 };
    let ours = "memory/recycled/freed while read";
    if !bench.wants(ours) {
        return;
    }
    let mut taken = Taken::new();
    let mut places = [HashSet::new(), HashSet::new()];
    let tables = [(); 2].map(|()| table_of(HugePages::AsSystem));
    for (table, places) in tables.iter().zip(&mut places) {
        let other = HandleTable::join(table.segment()).expect("a seat");
        let shared = std::ptr::eq(table, &tables[0]);
        for round in 0..30 {
            let array = table.uninit::<u8, _>(bytes).expect("memory for the bench");
            let filling = timed(|| fill(table, array));
            let reader = other.read(array).expect("nobody writes it");
            places.insert(reader.as_ptr());
            let reader = shared.then_some(reader);
            table.free(array).expect("nobody else frees it");
            drop(reader);
            // The first fill touches new pages in any case.
            match (round, shared) {
                (0, _) => {}
                (_, true) => taken.push(ours, filling),
                (_, false) => taken.push("memory/recycled/freed by its only holder", filling),
            }
        }
    }
    bench.report_samples(taken.figures());
    let [shared, alone] = places.map(|places| places.len() as f64);
    bench.report_ratio("memory/recycled/places", shared, "the place of 30 arrays");
    assert_eq!(alone, 1.0, "the cache has the slot");
}

fn table_of(huge_pages: HugePages) -> HandleTable {
    let segment = Segment::options().huge_pages(huge_pages).anonymous();
    HandleTable::join(&segment.expect("a segment")).expect("a seat")
}

/// Measures small pages, filled directly or faulted in first, against a memset of fresh mappings
/// (memfd and private).
fn first_touch(
    bench: &Bench,
    table: &HandleTable,
    pool: &mut Pool<'_>,
    bytes: usize,
    rounds: usize,
) {
    let mut taken = Taken::new();
    for _ in 0..rounds {
        taken.sample("memory/fill", || on_fresh(table, bytes, |x| fill(table, x)));
        taken.sample("memory/fill/memset of a fresh memfd", || {
            memset(&Plain::shared(bytes))
        });
        taken.sample("memory/fill/memset of fresh private memory", || {
            memset(&Plain::private(bytes))
        });
        taken.sample("memory/prefault", || {
            on_fresh(table, bytes, |x| table.prefault(x).expect("pages"))
        });
        taken.sample("memory/prefault by 2 workers", || {
            in_tiles(table, pool, bytes, false)
        });
        taken.sample("memory/first step of 2 workers", || {
            in_tiles(table, pool, bytes, true)
        });
    }
    taken.report(bench, "memory/fill", &["fill/", "prefault", "first step"]);
}

/// Measures huge pages. Prints on standard error whether the system grants them.
fn huge_pages(
    bench: &Bench,
    table: &HandleTable,
    pool: &mut Pool<'_>,
    bytes: usize,
    rounds: usize,
) {
    let mut taken = Taken::new();
    for _ in 0..rounds {
        taken.sample("memory/huge", || {
            on_fresh(table, bytes, |x| {
                table.prefault(x).expect("pages");
                fill(table, x);
            })
        });
        taken.sample("memory/huge/memset of fresh private memory", || {
            memset(&Plain::private(bytes).advised())
        });
        taken.sample("memory/huge/memset of a fresh memfd", || {
            memset(&Plain::shared(bytes))
        });
        taken.sample("memory/huge/prefault by 2 workers", || {
            in_tiles(table, pool, bytes, false)
        });
    }
    let x = table.uninit::<u8, _>(bytes).expect("memory for the bench");
    table.prefault(x).expect("pages");
    eprintln!("memory/huge: {}", table.segment().huge_pages());
    table.free(x).expect("nobody else frees it");
    taken.report(bench, "memory/huge", &["huge/"]);
}

/// Samples by name, in the order of their first sample.
struct Taken(Vec<(&'static str, Vec<f64>)>);

impl Taken {
    fn new() -> Taken {
        Taken(Vec::new())
    }

    fn sample(&mut self, name: &'static str, measure: impl FnOnce() -> f64) {
        let sample = measure();
        self.push(name, sample);
    }

    fn push(&mut self, name: &'static str, sample: f64) {
        match self.0.iter_mut().find(|(taken, _)| *taken == name) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((name, vec![sample])),
        }
    }

    fn figures(self) -> Vec<(String, Vec<f64>)> {
        let figures = self.0.into_iter();
        figures
            .map(|(name, samples)| (name.to_owned(), samples))
            .collect()
    }

    /// Reports `ours` against the samples whose names contain one of `others`.
    fn report(self, bench: &Bench, ours: &str, others: &[&str]) {
        let others = |name: &str| others.iter().any(|other| name.contains(other));
        let mut figures = self.figures();
        figures.retain(|(name, _)| name == ours || others(name));
        if bench.wants(ours) {
            bench.report_samples(figures);
        }
    }
}

fn timed(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64() * 1e9
}

/// Returns the nanoseconds of a call with an array that has no pages yet.
fn on_fresh(table: &HandleTable, bytes: usize, call: impl FnOnce(Handle<u8, Ix1>)) -> f64 {
    table.trim().expect("a seat");
    let array = table.uninit::<u8, _>(bytes).expect("memory for the bench");
    let took = timed(|| call(array));
    table.free(array).expect("nobody else frees it");
    took
}

fn fill(table: &HandleTable, array: Handle<u8, Ix1>) {
    let mut array = table.write(array).expect("nobody else has it");
    black_box(array.view_mut()).fill(1);
}

/// Returns the nanoseconds in which two workers fault in an array's pages, by filling if `fills`.
fn in_tiles(table: &HandleTable, pool: &mut Pool<'_>, bytes: usize, fills: bool) -> f64 {
    on_fresh(table, bytes, |array| {
        let tiles = table.partition(array.write(), Axis(0), 1 << 20);
        let tiles = tiles.expect("an axis");
        match fills {
            true => pool.for_each(&tiles, &(), |mut x, (), _| x.fill(1)),
            false => pool.prefault(&tiles),
        }
        .expect("a step");
    })
}

/// A fresh mapping without a segment.
struct Plain {
    start: NonNull<u8>,
    bytes: usize,
    /// Address and length of the whole mapping; `start` is its first aligned address.
    mapped: (*mut std::ffi::c_void, usize),
}

const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl Plain {
    fn shared(bytes: usize) -> Plain {
        let fd = rustix::fs::memfd_create("plain", MemfdFlags::CLOEXEC).expect("a memfd");
        rustix::fs::ftruncate(&fd, (bytes + HUGE) as u64).expect("a hole");
        let at = std::ptr::null_mut();
        // SAFETY: a new mapping, at an address that the kernel picks.
        let start = unsafe { rustix::mm::mmap(at, bytes + HUGE, ACCESS, MapFlags::SHARED, &fd, 0) };
        Plain::at(start.expect("a mapping"), bytes)
    }

    fn private(bytes: usize) -> Plain {
        let at = std::ptr::null_mut();
        // SAFETY: a new mapping, at an address that the kernel picks.
        let start =
            unsafe { rustix::mm::mmap_anonymous(at, bytes + HUGE, ACCESS, MapFlags::PRIVATE) };
        Plain::at(start.expect("a mapping"), bytes)
    }

    fn at(mapped: *mut std::ffi::c_void, bytes: usize) -> Plain {
        let before = mapped.addr().next_multiple_of(HUGE) - mapped.addr();
        let start = NonNull::new(mapped.wrapping_byte_add(before).cast());
        Plain {
            start: start.expect("not at 0"),
            bytes,
            mapped: (mapped, bytes + HUGE),
        }
    }

    fn advised(self) -> Plain {
        let start = self.start.as_ptr().cast();
        // SAFETY: the range is within the mapping; the advice changes no byte.
        let _ = unsafe { rustix::mm::madvise(start, self.bytes, Advice::LinuxHugepage) };
        self
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let (start, bytes) = self.mapped;
        // SAFETY: this is our own mapping, and nothing uses it any more.
        unsafe { rustix::mm::munmap(start, bytes) }.expect("our mapping");
    }
}

fn memset(plain: &Plain) -> f64 {
    timed(|| {
        // SAFETY: `bytes` from `start` are mapped writable, and nothing else accesses them.
        unsafe { plain.start.write_bytes(1, plain.bytes) };
        black_box(plain.start);
    })
}
