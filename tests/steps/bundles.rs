//! Operations on bundles: whatever a death interrupts, a part is in its bundle or freed.

use ndarray::Ix1;
use ndshm::{Bundle, BundleHandle, HandleTable};

use crate::ground::{Ground, Vector};
use crate::operations::Operation;
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("make a bundle", make),
    ("insert", insert),
    ("take out", remove),
    ("free a bundle", free),
];

/// Returns the values of the parts.
fn values(ground: &Ground, bundle: &Bundle<'_>) -> Vec<u64> {
    let names = bundle.parts().unwrap().into_iter().map(|part| part.name);
    let value = |name: String| {
        let part: Vector = bundle.get::<u64, Ix1>(&name).unwrap();
        ground.table.read(part).unwrap()[0]
    };
    names.map(value).collect()
}

/// Kills a victim with a seat, beside a bundle with two parts. `expect` lists the values that the
/// bundle may hold afterwards.
fn with_bundle(
    run: &mut Run,
    operation: impl FnOnce(&HandleTable, BundleHandle),
    expect: &[&[u64]],
) {
    let ground = Ground::new();
    let bundle = ground.table.bundle().unwrap();
    for (name, value) in [("a", 1u64), ("b", 2)] {
        let part = ground.table.from_elem(2, value).unwrap();
        bundle.insert(name, part).unwrap();
    }
    let handle = bundle.handle();
    drop(bundle);
    run.victim(|| {
        let table = ground.join();
        // The first allocation of a process measures the available memory, so do it before the
        // mark.
        table.zeros::<u8, _>(5000).unwrap();
        mark();
        operation(&table, handle);
        mark();
    });
    ground.table.reap().unwrap();
    let mut parts = 0;
    if let Ok(bundle) = ground.table.open_bundle(handle) {
        let found = values(&ground, &bundle);
        assert!(expect.contains(&&found[..]), "{found:?}");
        parts = found.len();
        let last = ground.table.from_elem(2, 9u64).unwrap();
        bundle.insert("last", last).unwrap();
        ground.table.free(handle).unwrap();
    } else {
        assert!(expect.contains(&&[][..]), "the bundle is gone");
    }
    let live = ground.table.verify().unwrap().live;
    assert_eq!(live, 1, "arrays have leaked, beside {parts} parts");
    ground.survive(run);
}

fn make(run: &mut Run) {
    with_bundle(
        run,
        |table, _| {
            let bundle = table.bundle().unwrap();
            bundle
                .insert("a", table.from_elem(2, 1u64).unwrap())
                .unwrap();
        },
        &[&[1, 2]],
    );
}

fn insert(run: &mut Run) {
    with_bundle(
        run,
        |table, handle| {
            let part = table.from_elem(2, 3u64).unwrap();
            table
                .open_bundle(handle)
                .unwrap()
                .insert("c", part)
                .unwrap();
        },
        &[&[1, 2], &[1, 2, 3]],
    );
}

fn remove(run: &mut Run) {
    with_bundle(
        run,
        |table, handle| table.open_bundle(handle).unwrap().remove("a").unwrap(),
        &[&[1, 2], &[2]],
    );
}

fn free(run: &mut Run) {
    with_bundle(
        run,
        |table, handle| table.free(handle).unwrap(),
        &[&[1, 2], &[]],
    );
}
