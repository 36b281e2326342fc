//! Copies into a segment: from any layout, with several threads if they are large. The process may
//! fork afterwards as before.

mod support;

use ndarray::{Array1, Array2, Array3, Axis, s};
use ndshm::Pool;
use ndshm::element::Order;
use support::table;

/// Returns an array that is large enough for several threads: 48 MB of distinct numbers.
fn large() -> Array3<u32> {
    Array3::from_shape_fn((150, 200, 400), |(i, j, k)| {
        ((i * 200 + j) * 400 + k) as u32
    })
}

fn large_arrays_of_any_layout_are_copied_whole() {
    let table = table();
    let source = large();
    let mut reversed = source.view();
    reversed.invert_axis(Axis(0));
    reversed.invert_axis(Axis(2));
    let mut middle = source.view();
    middle.swap_axes(0, 1);
    for (what, view) in [
        ("C order", source.view()),
        ("Fortran order", source.t()),
        ("reversed", reversed),
        ("axes swapped", middle),
        ("parts of it", source.slice(s![1..;2, .., 1..399])),
        ("one row", source.slice(s![3..4, .., ..])),
        ("one column", source.slice(s![.., .., 7..8])),
    ] {
        let x = table.from_array(&view).unwrap();
        let fortran = !view.is_standard_layout() && view.t().is_standard_layout();
        let order = if fortran { Order::F } else { Order::C };
        assert_eq!(table.info(x).unwrap().order, order, "{what}");
        assert!(table.read(x).unwrap().to_owned() == view, "{what}");
        table.free(x).unwrap();
    }
    // Only one axis is long: the last, then the first.
    let line = Array1::from_iter(0..10_000_000u32);
    for shape in [(1, line.len()), (line.len(), 1)] {
        let view = line.view().into_shape_with_order(shape).unwrap();
        let x = table.from_array(&view).unwrap();
        assert!(table.read(x).unwrap().to_owned() == view);
        table.free(x).unwrap();
    }
}

fn a_copy_ends_its_threads_before_it_returns() {
    let source = Array2::<f64>::ones((3000, 1000));
    for _ in 0..50 {
        let table = table();
        let x = table.from_array(&source).unwrap();
        // A process with threads cannot fork.
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        assert_eq!(threads, 1);
        table.free(x).unwrap();
    }
    let table = table();
    let x = table.from_array(&source).unwrap();
    let pool = Pool::fork(&table, 1).unwrap();
    drop(pool);
    assert_eq!(table.read(x).unwrap().sum(), 3e6);
}

fn main() {
    support::run_tests![
        large_arrays_of_any_layout_are_copied_whole,
        a_copy_ends_its_threads_before_it_returns,
    ];
}
