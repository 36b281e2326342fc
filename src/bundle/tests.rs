//! Bundles as a program sees them, in one process. `loom-tests` and `tests/` have the races and
//! deaths.

use ndarray::{Ix1, Ix2, arr1};

use crate::bundle::error::BundleError;
use crate::sync::Ordering;
use crate::table::error::LeaseError;
use crate::{HandleTable, Segment};

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

/// Panics unless all bundles and parts are freed.
#[track_caller]
fn assert_empty(table: &HandleTable) {
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    let left = (found.live, found.in_transit, found.retired);
    assert_eq!(left, (0, 0, 0), "{found}");
}

#[test]
fn parts_are_arrays_that_go_with_the_bundle() {
    let table = table();
    let bundle = table.bundle().unwrap();
    let x = table.from_array(&arr1(&[1.0, 2.0])).unwrap();
    bundle.insert("x", x).unwrap();
    bundle
        .insert("y", table.zeros::<f32, _>((2, 3)).unwrap())
        .unwrap();
    assert_eq!(bundle.get::<f64, Ix1>("x").unwrap(), x);
    table.write(x).unwrap()[0] = 5.0;
    let names: Vec<_> = bundle
        .parts()
        .unwrap()
        .into_iter()
        .map(|part| part.name)
        .collect();
    assert_eq!(names, ["x", "y"]);
    assert_eq!(table.info(x).unwrap().owner, None, "the bundle owns it");
    assert!(table.verify().unwrap().is_clean());

    let guard = table.read(x).unwrap();
    table.free(bundle.handle()).unwrap();
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    assert_eq!(guard.sum(), 7.0, "a reader keeps the bytes");
    assert!(bundle.get::<f64, Ix1>("x").is_err());
    drop((guard, bundle));
    assert_empty(&table);
}

#[test]
fn a_refused_part_stays_unchanged() {
    let segment = Segment::in_process().unwrap();
    let (table, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let (bundle, second) = (table.bundle().unwrap(), table.bundle().unwrap());
    let theirs = other.zeros::<u8, _>(3).unwrap();
    let nobodys = table.zeros::<u8, _>(3).unwrap();
    table.detach(nobodys).unwrap();
    let x = table.zeros::<u8, _>(3).unwrap();
    bundle.insert("x", x).unwrap();
    for refused in [
        theirs.into(),
        nobodys.into(),
        x.into(),
        second.handle().into(),
    ] {
        let refused: crate::AnyHandle = refused;
        let error = second.insert("it", refused).unwrap_err();
        assert!(matches!(error, BundleError::NotOwned { .. }), "{error}");
    }
    let y = table.zeros::<u8, _>(3).unwrap();
    let error = bundle.insert("x", y).unwrap_err();
    assert!(
        matches!(error, BundleError::Taken { handle, .. } if handle == x.into()),
        "{error}"
    );
    second.insert("y", y).unwrap();
    assert!(matches!(
        table.open_bundle(crate::BundleHandle::from_bits(x.to_bits())),
        Err(BundleError::Lease(LeaseError::WrongKind(_)))
    ));
    assert!(matches!(
        bundle.get::<f64, Ix2>("x"),
        Err(BundleError::Lease(LeaseError::WrongKind(_)))
    ));
    assert!(matches!(
        bundle.get_any("z"),
        Err(BundleError::NotFound { .. })
    ));
}

#[test]
fn a_frozen_bundle_stays_as_it_is() {
    let table = table();
    let bundle = table.bundle().unwrap();
    let x = table.zeros::<u8, _>(3).unwrap();
    bundle.insert("x", x).unwrap();
    bundle.freeze().unwrap();
    assert!(table.open_bundle(bundle.handle()).unwrap().is_frozen());
    let y = table.zeros::<u8, _>(3).unwrap();
    assert!(matches!(
        bundle.insert("y", y),
        Err(BundleError::Frozen { .. })
    ));
    assert!(matches!(
        bundle.remove("x"),
        Err(BundleError::Frozen { .. })
    ));
    table.write(x).unwrap().fill(1);
    table.free(y).unwrap();
    table.free(bundle.handle()).unwrap();
    drop(bundle);
    assert_empty(&table);
}

#[test]
fn a_bundle_goes_with_its_owner_or_stays_whole_without() {
    let segment = Segment::in_process().unwrap();
    let survivor = HandleTable::join(&segment).unwrap();
    let leaver = HandleTable::join(&segment).unwrap();
    let filled = || {
        let bundle = leaver.bundle().unwrap();
        // Slots on either side of the bundle's own.
        for name in ["a", "b", "c"] {
            let part = leaver.zeros::<u8, _>(3).unwrap();
            bundle.insert(name, part).unwrap();
        }
        bundle.handle()
    };
    let (own, kept) = (filled(), filled());
    leaver.detach(kept).unwrap();
    leaver.publish("kept", kept).unwrap();
    leaver.publish("own", own).unwrap();
    drop(leaver);
    assert!(survivor.open_bundle(own).is_err());
    assert!(survivor.find_any("own").is_err());
    let bundle = survivor.find_bundle("kept").unwrap();
    assert_eq!(bundle.parts().unwrap().len(), 3);
    bundle.remove("b").unwrap();
    assert_eq!(bundle.parts().unwrap().len(), 2);
    assert_eq!(survivor.arrays().count(), 2);
    survivor.free(kept).unwrap();
    drop(bundle);
    assert_empty(&survivor);
}

#[test]
fn a_part_that_was_adopted_goes_with_its_bundle_all_the_same() {
    let segment = Segment::in_process().unwrap();
    let join = || HandleTable::join(&segment).unwrap();
    let (survivor, maker, adopter) = (join(), join(), join());
    let bundle_of = |value: f64| {
        let bundle = maker.bundle().unwrap();
        let part = maker.from_array(&arr1(&[value])).unwrap();
        bundle.insert("it", part).unwrap();
        adopter.adopt(part).unwrap();
        (bundle.handle(), part)
    };
    let (freed, left) = (bundle_of(1.0), bundle_of(2.0));
    maker.free(freed.0).unwrap();
    assert!(survivor.read(freed.1).is_err());
    drop(adopter);
    assert_eq!(survivor.read(left.1).unwrap()[0], 2.0);
    drop(maker);
    assert!(survivor.read(left.1).is_err());
    assert_empty(&survivor);
}

#[test]
fn a_bundle_whose_record_was_freed_can_be_used_again() {
    let segment = Segment::in_process().unwrap();
    let join = || HandleTable::join(&segment).unwrap();
    let (survivor, maker) = (join(), join());
    for frozen in [false, true] {
        let bundle = maker.bundle().unwrap();
        let part = maker.from_array(&arr1(&[1.0])).unwrap();
        bundle.insert("a", part).unwrap();
        if frozen {
            bundle.freeze().unwrap();
        }
        let word = bundle.place().load(Ordering::Relaxed);
        let (slot, generation) = word.record().unwrap();
        maker
            .core
            .free_slot(maker.core.handle_of(slot, generation))
            .unwrap();

        assert!(matches!(
            bundle.get_any("a"),
            Err(BundleError::NotFound { .. })
        ));
        assert_eq!(bundle.is_frozen(), frozen);
        let another = maker.from_array(&arr1(&[2.0])).unwrap();
        let inserted = bundle.insert("a", another);
        assert_eq!(matches!(inserted, Err(BundleError::Frozen { .. })), frozen);
        assert_eq!(bundle.parts().unwrap().len(), usize::from(!frozen));
        assert!(maker.verify().unwrap().is_clean());
    }
    drop(maker);
    assert_empty(&survivor);
}
