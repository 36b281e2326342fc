//! Cost of storing and opening an object, against a plain copy of as many bytes.
//!
//! `--elements=N` sets the numbers of each of the 20 tensors, `--rounds=N` how often each is stored.

mod common;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{Bench, each};
use ndarray::{Array1, Ix1};
use ndshm::object::{ObjectHandle, Tensor};
use ndshm::{Handle, HandleTable, Segment};

type Arrays<'a> = HashMap<String, Tensor<'a, f64, Ix1>>;

fn main() {
    let bench = Bench::from_args();
    // By default a segment returns this much memory to the system, and nothing would be recycled.
    let segment = Segment::options().retain(8 << 30).anonymous();
    let table = HandleTable::join(&segment.expect("a segment")).expect("a seat");
    let usual = if bench.is_quick() {
        100_000
    } else {
        10_000_000
    };
    let len = bench.number("--elements").unwrap_or(usual) as usize;
    let arrays: Arrays<'_> = (0..20)
        .map(|at| {
            (
                format!("array {at}"),
                Array1::from_elem(len, f64::from(at)).into(),
            )
        })
        .collect();
    store(&bench, &table, &arrays);
    open(&bench, &table, &arrays);
}

/// Measures storing, in turns with copies by one and by two threads into the same segment.
///
/// Fresh memory was never used, or was returned to the system: page faults take most of the time.
/// Recycled memory was freed by the previous call.
fn store(bench: &Bench, table: &HandleTable, arrays: &Arrays<'_>) {
    let usual = if bench.is_quick() { 3 } else { 5 };
    let rounds = bench.number("--rounds").unwrap_or(usual);
    let bytes: usize = arrays
        .values()
        .map(|array| array.len() * size_of::<f64>())
        .sum();
    for memory in ["fresh", "recycled"] {
        let name = format!("put/{memory}");
        if !bench.wants(&name) {
            continue;
        }
        let mut samples = [const { Vec::new() }; 3];
        let prepare = || match memory {
            "fresh" => {
                table.trim().expect("a seat");
            }
            _ => {
                let warm = table.uninit::<u8, _>(bytes).expect("memory for the bench");
                table.write(warm).expect("nobody else has it").fill(1);
                table.free(warm).expect("nobody else frees it");
            }
        };
        for _ in 0..rounds {
            prepare();
            samples[0].push(nanoseconds(|| {
                let handle = table.put_object(arrays).expect("memory for the bench");
                move || table.free(handle).expect("nobody else frees it")
            }));
            for (threads, samples) in [1, 2].into_iter().zip(&mut samples[1..]) {
                prepare();
                samples.push(nanoseconds(|| {
                    let copy = plain_copy(table, arrays, bytes, threads);
                    move || table.free(copy).expect("nobody else frees it")
                }));
            }
        }
        let [put, one, two] = samples;
        bench.report_samples(vec![
            (name.clone(), put),
            (format!("{name}/copy by one thread"), one),
            (format!("{name}/copy by two threads"), two),
        ]);
    }
}

/// Returns the nanoseconds of a call. Calls the returned closure afterwards, untimed, to undo it.
fn nanoseconds<U: FnOnce()>(call: impl FnOnce() -> U) -> f64 {
    let start = Instant::now();
    let undo = call();
    let took: Duration = start.elapsed();
    undo();
    took.as_secs_f64() * 1e9
}

/// Copies all arrays one after another into one array of bytes.
fn plain_copy(
    table: &HandleTable,
    arrays: &Arrays<'_>,
    bytes: usize,
    threads: usize,
) -> Handle<u8, Ix1> {
    let handle = table.uninit::<u8, _>(bytes).expect("memory for the bench");
    let mut copy = table.write(handle).expect("nobody else has it");
    let mut rest = copy.view_mut();
    let mut rest = rest.as_slice_mut().expect("one axis");
    let mut pairs = Vec::new();
    for array in arrays.values() {
        let from: &[u8] = bytemuck::cast_slice(array.as_slice().expect("one axis"));
        let (to, behind) = rest.split_at_mut(from.len());
        rest = behind;
        let share = from.len().div_ceil(threads).next_multiple_of(4096);
        pairs.push(to.chunks_mut(share).zip(from.chunks(share)).collect());
    }
    for pairs in pairs {
        let pairs: Vec<(&mut [u8], &[u8])> = pairs;
        std::thread::scope(|scope| {
            let mut pairs = pairs.into_iter();
            let own = pairs.next();
            for (to, from) in pairs {
                scope.spawn(|| to.copy_from_slice(from));
            }
            if let Some((to, from)) = own {
                to.copy_from_slice(from);
            }
        });
    }
    handle
}

/// Measures opening an object and getting all its views: large arrays, and a small object.
fn open(bench: &Bench, table: &HandleTable, arrays: &Arrays<'_>) {
    let read = |handle: ObjectHandle| {
        let object = table.open_object(handle).expect("it lives");
        let read: HashMap<&str, Tensor<'_, f64, Ix1>> =
            object.get().expect("the type that was put");
        assert_eq!(read.len(), arrays.len());
        black_box(read.values().map(|array| array.as_ptr().addr()).max())
    };
    if bench.wants("open+get/20 tensors") {
        let handle = table.put_object(arrays).expect("memory for the bench");
        bench.compare(vec![each("open+get/20 tensors", || read(handle))]);
        table.free(handle).expect("nobody else frees it");
    }
    let text = table
        .put_object("a small value")
        .expect("memory for the bench");
    bench.compare(vec![each("open+get/text", || {
        let object = table.open_object(text).expect("it lives");
        object.get::<&str>().expect("a text").len()
    })]);
    bench.compare(vec![each("put+free/text", || {
        let handle = table
            .put_object("a small value")
            .expect("memory for the bench");
        table.free(handle).expect("nobody else frees it");
    })]);
}
