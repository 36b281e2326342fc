//! Cost of saving and loading an array of 800 MB, against plain files of the same bytes: in
//! `/dev/shm`, where the bytes are copied without waiting for a disk, or in the directory
//! `NDSHM_BENCH_DIR`.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use common::Bench;
use ndarray::Array1;
use ndshm::{AnyHandle, HandleTable, Segment};

/// Number of samples. Each is a single call that takes most of a second.
const SAMPLES: usize = 9;

/// A file that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let directory = std::env::var_os("NDSHM_BENCH_DIR").unwrap_or("/dev/shm".into());
        let name = format!("ndshm-bench-{}-{name}", std::process::id());
        Scratch(PathBuf::from(directory).join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn main() {
    let bench = Bench::from_args();
    let (numbers, samples) = match bench.is_quick() {
        true => (1_000_000, 2),
        false => (100_000_000, SAMPLES),
    };
    let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
    let own = Array1::from_shape_fn(numbers, |k| k as f64);
    let bytes: Vec<u8> = own.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let x = AnyHandle::from(table.from_array(&own).expect("memory"));
    let [npy, npz, plain] = ["x.npy", "x.npz", "x"].map(Scratch::new);

    measure(
        &bench,
        samples,
        vec![
            ("files/save_npy", &mut || {
                table.save_npy(x, &npy.0).expect("room")
            }),
            ("files/save_npz", &mut || {
                table.save_npz(&npz.0, [("x", x)]).expect("room")
            }),
            ("files/save/fs::write", &mut || {
                fs::write(&plain.0, &bytes).expect("room")
            }),
        ],
    );
    let free = |handle| table.free(handle).expect("it was loaded just now");
    measure(
        &bench,
        samples,
        vec![
            ("files/load_npy", &mut || {
                free(table.load_npy(&npy.0).expect("memory"))
            }),
            ("files/load_npz", &mut || {
                let arrays = table.load_npz(&npz.0).expect("memory");
                arrays.into_iter().for_each(|(_, handle)| free(handle));
            }),
            ("files/load/fs::read", &mut || {
                drop(fs::read(&plain.0).expect("memory"))
            }),
        ],
    );
    measure(
        &bench,
        samples,
        vec![
            ("files/from_array", &mut || {
                free(table.from_array(&own).expect("memory").into())
            }),
            ("files/from_array/clone", &mut || {
                drop(std::hint::black_box(own.clone()))
            }),
        ],
    );
}

/// Samples the subjects in turns, one call each.
fn measure(bench: &Bench, samples: usize, mut subjects: Vec<(&str, &mut dyn FnMut())>) {
    if !subjects.iter().any(|(name, _)| bench.wants(name)) {
        return;
    }
    let mut taken: Vec<(String, Vec<f64>)> = subjects
        .iter()
        .map(|(name, _)| ((*name).to_owned(), Vec::new()))
        .collect();
    for _ in 0..samples {
        for ((_, call), (_, times)) in subjects.iter_mut().zip(&mut taken) {
            let start = Instant::now();
            call();
            times.push(start.elapsed().as_secs_f64() * 1e9);
        }
    }
    bench.report_samples(taken);
}
