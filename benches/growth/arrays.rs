//! By live arrays: allocating and freeing, and a lease of any of them.

use std::hint::black_box;
use std::sync::Mutex;

use ndarray::Ix1;
use ndshm::Handle;

use crate::common::{Bench, Random, each};
use crate::curve::Curve;

/// Numbers in an array.
const LEN: usize = 8;

pub fn curve(bench: &Bench) {
    let title = "Arrays: time by the number of live arrays";
    let Some(mut curve) = Curve::new(bench, "arrays", title, "live arrays") else {
        return;
    };
    let table = crate::table();
    let mut arrays: Vec<Handle<f64, Ix1>> = Vec::new();
    // Live allocations of the same size, each with a lock of its own.
    let mut boxes: Vec<Box<Mutex<[f64; LEN]>>> = Vec::new();
    for count in crate::steps(bench, 10, 4_000_000) {
        for _ in arrays.len()..count {
            arrays.push(table.uninit(LEN).expect("memory for the bench"));
            boxes.push(Box::new(Mutex::new([0.0; LEN])));
        }
        let mut random = [1, 1].map(Random::new);
        let [ours, theirs] = &mut random;
        curve.measure(
            count,
            vec![
                each("alloc+free", || {
                    let array = table.uninit::<f64, _>(LEN).expect("memory for the bench");
                    table.free(array).expect("nobody else frees it");
                }),
                each("alloc+free/malloc+free", || {
                    black_box(Box::new([0u64; LEN]));
                }),
                each("read lease of any", || {
                    let array = arrays[ours.below(count)];
                    let lease = table.read(array).expect("nobody writes");
                    black_box(lease.as_ptr())
                }),
                each("read lease of any/any of as many mutexes", || {
                    let lock = boxes[theirs.below(count)].lock();
                    black_box(lock.expect("no panic").as_ptr())
                }),
            ],
        );
    }
    curve.finish();
}
