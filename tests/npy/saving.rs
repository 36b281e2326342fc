//! Saving: the contents of a file, its replacement, and refusals.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ndarray::{Array1, Array2, IxDyn, ShapeBuilder};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::element::Order;
use ndshm::error::{LeaseError, NpyError};
use ndshm::{AnyHandle, HandleTable, Segment};
use proptest::prelude::*;

use crate::expected::{Mixed, Point, Value};
use crate::{Directory, table};

/// Asserts that an array is the same after saving and loading.
fn same(table: &HandleTable, handle: AnyHandle, path: &Path) {
    table.save_npy(handle, path).unwrap();
    let loaded = table.load_npy(path).unwrap();
    same_arrays(table, handle, loaded);
    table.free(loaded).unwrap();
}

fn same_arrays(table: &HandleTable, left: AnyHandle, right: AnyHandle) {
    let (left, right) = (
        table.read_untyped(left).unwrap(),
        table.read_untyped(right).unwrap(),
    );
    assert_eq!(left.dtype(), right.dtype());
    assert_eq!((left.shape(), left.order()), (right.shape(), right.order()));
    assert!(left.bytes() == right.bytes());
}

type Maker = fn(&HandleTable, &[usize], Order) -> AnyHandle;

fn of_type<T: Value>(table: &HandleTable, shape: &[usize], order: Order) -> AnyHandle {
    let shape = IxDyn(shape).set_f(order == Order::F);
    let mut index = 0;
    let next = |_| {
        index += 1;
        T::of(index)
    };
    table.from_shape_fn(shape, next).unwrap().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_saved_is_loaded(
        shape in prop::collection::vec(0usize..4, 0..=8),
        fortran: bool,
    ) {
        let table = table();
        let directory = Directory::new(&format!("saved-{:?}", std::thread::current().id()));
        let order = if fortran { Order::F } else { Order::C };
        let makers: [Maker; 15] = [
            of_type::<u8>, of_type::<i8>, of_type::<u16>, of_type::<i16>, of_type::<u32>,
            of_type::<i32>, of_type::<u64>, of_type::<i64>, of_type::<f32>, of_type::<f64>,
            of_type::<ndshm::Complex<f32>>, of_type::<ndshm::Complex<f64>>, of_type::<bool>,
            of_type::<Point>, of_type::<Mixed>,
        ];
        let made = makers.map(|make| make(&table, &shape, order));
        for handle in made {
            same(&table, handle, &directory.file("x.npy"));
        }
        let names: Vec<String> = (0..made.len()).map(|at| format!("array/{at}.npy")).collect();
        let path = directory.file("all.npz");
        table.save_npz(&path, names.iter().zip(made)).unwrap();
        let loaded = table.load_npz(&path).unwrap();
        prop_assert_eq!(loaded.len(), made.len());
        for ((name, loaded), (expected, handle)) in loaded.iter().zip(names.iter().zip(made)) {
            prop_assert_eq!(name, expected);
            same_arrays(&table, handle, *loaded);
        }
    }
}

#[test]
fn large_arrays_are_moved_in_pieces() {
    let table = table();
    let directory = Directory::new("large");
    let numbers = table
        .from_array(&Array1::from_iter(
            (0..6_000_000u32).map(|k| k.wrapping_mul(77)),
        ))
        .unwrap();
    let points = table
        .from_array(&Array1::from_shape_fn(1_000_000, Point::of))
        .unwrap();
    for handle in [AnyHandle::from(numbers), points.into()] {
        same(&table, handle, &directory.file("x.npy"));
    }
    let path = directory.file("both.npz");
    table
        .save_npz(
            &path,
            [("numbers", numbers.into()), ("points", points.into())],
        )
        .unwrap();
    let loaded = table.load_npz(&path).unwrap();
    same_arrays(&table, loaded[0].1, numbers.into());
    same_arrays(&table, loaded[1].1, points.into());
}

#[test]
fn types_unknown_to_numpy_are_refused_on_saving() {
    #[derive(Clone, Copy, Pod, Zeroable)]
    #[repr(C)]
    struct Wide {
        low: u64,
        high: [u64; 1],
        sum: i128,
    }
    ndshm::record!(Wide {
        low: u64,
        high: [u64; 1],
        sum: i128
    });
    let table = table();
    let directory = Directory::new("wide");
    let path = directory.file("x.npy");
    let wide = table.zeros::<u128, _>(3).unwrap();
    let error = table.save_npy(wide, &path).unwrap_err().to_string();
    let expected = format!("{wide} has elements of u128, for which numpy has no type");
    assert!(error.starts_with(&expected), "{error}");
    let record = table.zeros::<Wide, _>(3).unwrap();
    let error = table.save_npy(record, &path).unwrap_err().to_string();
    assert!(error.contains("i128 in field \"sum\""), "{error}");
    let error = table.save_npz(&path, [("x", record.into())]).unwrap_err();
    assert!(matches!(error, NpyError::NotInNumpy { .. }), "{error}");
    assert!(directory.names().is_empty());
}

#[test]
fn a_file_is_replaced_by_a_complete_one_or_not_at_all() {
    let table = table();
    let directory = Directory::new("replaced");
    let (path, link) = (directory.file("x.npy"), directory.file("link.npy"));
    let one = table.from_elem(3, 1u8).unwrap();
    let two = table.from_elem(3, 2u8).unwrap();
    let wide = table.zeros::<i128, _>(3).unwrap();
    let contents = |path: &Path| {
        let handle = table.load_npy(path).unwrap();
        table.read_untyped(handle).unwrap().bytes().to_vec()
    };
    table.save_npy(one, &path).unwrap();
    assert!(table.save_npy(wide, &path).is_err());
    assert_eq!(contents(&path), [1; 3]);

    // The target of a link is replaced, and its permissions are kept.
    symlink("x.npy", &link).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    table.save_npy(two, &link).unwrap();
    assert_eq!(contents(&path), [2; 3]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    // While the array is written, nothing is saved, and the file stays.
    let guard = table.write(one).unwrap();
    let both = [("two", AnyHandle::from(two)), ("one", one.into())];
    for error in [
        table.save_npy(one, &path).unwrap_err(),
        table.save_npz(&path, both).unwrap_err(),
    ] {
        assert!(
            matches!(error, NpyError::Lease(LeaseError::Busy { .. })),
            "{error}"
        );
    }
    drop(guard);
    assert!(table.write(two).is_ok(), "its lease was released");
    assert_eq!(contents(&path), [2; 3]);
    assert_eq!(
        directory.names(),
        ["link.npy", "x.npy"],
        "no partial file is left"
    );
}

/// Checks that a file that cannot be completed leaves the former file, and no partial one.
#[test]
fn a_file_that_does_not_fit_leaves_the_old_one() {
    let table = table();
    let directory = Directory::new("full");
    let path = directory.file("x.npy");
    let small = table.from_elem(3, 1u8).unwrap();
    table.save_npy(small, &path).unwrap();
    // The writer needs its own process, because the limit concerns all files of a process.
    crate::signals::set_signals();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["saving::saves_more_than_may_be_written", "--exact"])
        .env("NDSHM_TEST_SAVE", &path)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(directory.names(), ["x.npy"]);
    let loaded = table.load_npy(&path).unwrap();
    assert_eq!(table.read_untyped(loaded).unwrap().bytes(), [1; 3]);
}

/// Runs the writer of the test above, in a process of its own.
#[test]
fn saves_more_than_may_be_written() {
    let Some(path) = std::env::var_os("NDSHM_TEST_SAVE") else {
        return;
    };
    // SAFETY: a signal that is ignored runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let limit = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
    let large = table.zeros::<u8, _>(30 << 20).unwrap();
    // SAFETY: `limit` is alive during the call.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(outcome, 0);
    for error in [
        table.save_npy(large, &path).unwrap_err(),
        table.save_npz(&path, [("x", large.into())]).unwrap_err(),
    ] {
        assert!(matches!(error, NpyError::Io { .. }), "{error}");
        assert!(error.to_string().contains("x.npy"), "{error}");
    }
}

#[test]
fn empty_long_and_repeated_names_are_refused() {
    let table = table();
    let directory = Directory::new("names");
    let path = directory.file("x.npz");
    let x = AnyHandle::from(table.zeros::<u8, _>(3).unwrap());
    let long = "x".repeat(4097);
    for names in [&["a", "b", "a"][..], &[""], &[&long]] {
        let arrays = names.iter().map(|name| (name, x));
        let error = table.save_npz(&path, arrays).unwrap_err();
        assert!(matches!(error, NpyError::Name { .. }), "{error}");
    }
    assert!(directory.names().is_empty());
    let names = [&long[1..], "größe", "a/b", "../x", "a.npy"];
    table.save_npz(&path, names.map(|name| (name, x))).unwrap();
    let loaded = table.load_npz(&path).unwrap();
    assert!(loaded.iter().map(|(name, _)| name.as_str()).eq(names));
    table.save_npz::<&str>(&path, []).unwrap();
    assert_eq!(table.load_npz(&path).unwrap(), []);
}

#[test]
fn an_array_is_copied_from_one_segment_to_another() {
    let (one, other) = (table(), table());
    let directory = Directory::new("segments");
    let path = directory.file("x.npy");
    let x = one
        .from_array(&Array2::from_shape_fn((5, 7), |(i, j)| {
            Mixed::of(7 * i + j)
        }))
        .unwrap();
    one.save_npy(x, &path).unwrap();
    let y = other.load_npy(&path).unwrap();
    let y = y.downcast::<Mixed, ndarray::Ix2>(&other).unwrap();
    assert!(one.read(x).unwrap().view() == other.read(y).unwrap().view());
}
