//! Guards of arrays and objects.

use ndarray::Axis;
use ndshm::element::Order;
use ndshm::error::LeaseError;
use ndshm::untyped::Mode;
use ndshm::{Element, HandleTable, Pool, Segment};

use crate::InChild::{DoesNothing, Private, Refuses};
use crate::{Ground, Row, Vector};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("ReadGuard, WriteGuard", "handle, drop", DoesNothing, guards),
    ("Untyped guards", "drop", DoesNothing, untyped_guards),
    ("Locked", "handle, is_held, unlock", DoesNothing, locked),
    ("Owned", "handle, into_handle, drop", DoesNothing, owned),
    ("Attached", "shape, dim", Private, attached),
    ("Pinned", "handle, len, dtype, shape, order, drop", DoesNothing, pinned),
    ("RawPin", "unpin", Refuses, raw_pin),
    #[cfg(feature = "serde")]
    ("ObjectGuard", "get", Refuses, object),
    #[cfg(feature = "serde")]
    ("ObjectGuard", "handle, drop", DoesNothing, object_drop),
    #[cfg(feature = "arrow")]
    ("lent Arrow array", "drop", DoesNothing, lent),
];

fn guards(ground: &Ground) {
    let (x, y): (Vector, Vector) = (
        ground.table.zeros(3).unwrap(),
        ground.table.zeros(3).unwrap(),
    );
    let mut guards = Some((
        ground.table.read(x).unwrap(),
        ground.table.write(y).unwrap(),
    ));
    ground.cross_kept(&mut guards, |guards| {
        let (read, write) = guards.take().unwrap();
        assert_eq!((read.handle(), write.handle()), (x.into(), y.into()));
    });
    let held = |handle: Vector| ground.table.write(handle).is_err();
    assert!(held(x) && held(y), "the child released a lease");
}

fn untyped_guards(ground: &Ground) {
    let (x, y): (Vector, Vector) = (
        ground.table.zeros(3).unwrap(),
        ground.table.zeros(3).unwrap(),
    );
    let table = &ground.table;
    let mut guards = Some((
        table.read_untyped(x).unwrap(),
        table.write_untyped(y).unwrap(),
    ));
    ground.cross_kept(&mut guards, |guards| drop(guards.take()));
    let held = |handle: Vector| table.write(handle).is_err();
    assert!(held(x) && held(y), "the child released a lease");
}

fn locked(ground: &Ground) {
    let (x, y): (Vector, Vector) = (
        ground.table.zeros(3).unwrap(),
        ground.table.zeros(3).unwrap(),
    );
    let table = &ground.table;
    let mut locked = Some([
        table.lock(x, Mode::Read).unwrap(),
        table.lock(y, Mode::Write).unwrap(),
    ]);
    ground.cross_kept(&mut locked, |locked| {
        let [mut read, mut write] = locked.take().unwrap();
        assert_eq!((read.handle(), write.is_held()), (x.into(), true));
        // Before the child has a seat, and with it.
        for _ in 0..2 {
            for locked in [&mut read, &mut write] {
                let refused = table.unlock(locked, true);
                let told = matches!(&refused, Err(error @ LeaseError::NotHeld { .. })
                    if error.to_string().contains("parent"));
                assert!(told, "{refused:?}");
            }
            table.seat().unwrap();
        }
    });
    let held = |handle: Vector| table.write(handle).is_err();
    assert!(held(x) && held(y), "the child released a lease");
    for mut locked in locked.unwrap() {
        table.unlock(&mut locked, false).unwrap();
    }
    assert!(!held(x) && !held(y));
}

fn owned(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    for keep in [true, false] {
        let mut owned = Some(ground.table.owned(x));
        ground.cross_kept(&mut owned, |owned| {
            let owned = owned.take().unwrap();
            assert_eq!(owned.handle(), x);
            if keep {
                owned.into_handle();
            }
        });
        assert_eq!(owned.unwrap().into_handle(), x);
        assert!(ground.table.read(x).is_ok());
    }
}

fn pinned(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    let mut pinned = Some(ground.table.pin(x).unwrap());
    ground.cross_kept(&mut pinned, |pinned| {
        let pinned = pinned.take().unwrap();
        assert_eq!((pinned.handle(), pinned.shape()), (x.into(), &[3][..]));
        assert_eq!((pinned.len(), pinned.dtype()), (24, &u64::dtype()));
        // The child has a seat of its own when it drops the guard.
        ground.table.seat().unwrap();
        assert!(ground.table.pins().is_empty());
    });
    assert_eq!(ground.table.pins(), [(x.into(), 1)]);
    let pids = ground.table.info(x).unwrap().pins;
    assert_eq!(pids, [std::process::id()], "the child released the pin");
}

fn raw_pin(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    let mut pin = ground.table.pin_raw(x).unwrap();
    ground.cross_kept(&mut pin, |pin| {
        for _ in 0..2 {
            let refused = ground.table.unpin(pin).unwrap_err();
            assert!(matches!(refused, LeaseError::NotHeld { .. }), "{refused}");
            // A pin of the child's own on the same array is not taken for it.
            drop(ground.table.pin(x).unwrap());
        }
    });
    assert_eq!(ground.table.info(x).unwrap().pins.len(), 1);
    ground.table.unpin(&mut pin).unwrap();
}

fn attached(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    ground.cross(ground.table.attach(x).unwrap(), |attached| {
        assert_eq!((attached.shape(), attached.dim()), (&[3][..], 3));
    });
}

#[cfg(feature = "serde")]
fn object(ground: &Ground) {
    let name = ground.table.put_object("a text").unwrap();
    let guard = ground.table.open_object(name).unwrap();
    ground.cross(guard, |guard| {
        let refused = guard.get::<&str>().unwrap_err();
        assert!(
            matches!(refused, ndshm::error::ObjectError::Forked),
            "{refused}"
        );
        // Apply the remedy from the error's text.
        let again = ground.table.open_object(name).unwrap();
        assert_eq!(again.get::<&str>().unwrap(), "a text");
    });
}

#[cfg(feature = "serde")]
fn object_drop(ground: &Ground) {
    let name = ground.table.put_object("a text").unwrap();
    let mut guard = Some(ground.table.open_object(name).unwrap());
    ground.cross_kept(&mut guard, |guard| {
        let guard = guard.take().unwrap();
        assert!(guard.handle() == name && guard.size() > 0);
    });
    assert_eq!(
        ground.table.info(name).unwrap().readers,
        [std::process::id()]
    );
}

#[cfg(feature = "arrow")]
fn lent(ground: &Ground) {
    let x: ndshm::Handle<f64, ndarray::Ix1> = ground.table.zeros(3).unwrap();
    let mut lent = Some(ground.table.lend_arrow(x).unwrap());
    ground.cross_kept(&mut lent, |lent| drop(lent.take()));
    assert!(
        ground.table.write(x).is_err(),
        "the child released the lease"
    );
}

/// Checks that `Pool::fork` refuses while a value that returns references exists: such a value
/// cannot refuse in a child, so it must not cross.
pub fn fork_refuses_while_references_exist() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let x: Vector = table.zeros(100).unwrap();
    let refuses = || Pool::fork(&table, 1).is_err();
    let read = table.read(x).unwrap();
    assert!(refuses());
    drop(read);
    let write = table.write(x).unwrap();
    assert!(refuses());
    drop(write);
    let read = table.read_untyped(x).unwrap();
    assert!(refuses());
    drop(read);
    let write = table.write_untyped(x).unwrap();
    assert!(refuses());
    drop(write);
    let made = table.builder(&u64::dtype(), &[100], Order::C).unwrap();
    assert!(refuses());
    drop(made);
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let tile = part.claim().unwrap();
    assert!(refuses());
    drop(tile);
    drop((part, round));
    #[cfg(feature = "serde")]
    {
        let name = table.put_object(&7u8).unwrap();
        let object = table.open_object(name).unwrap();
        assert!(refuses());
        drop(object);
    }
    #[cfg(feature = "arrow")]
    {
        let y = table.from_array(&ndarray::Array1::from(vec![1.0])).unwrap();
        let lent = table.lend_arrow(y).unwrap();
        assert!(refuses());
        drop(lent);
    }
    drop(Pool::fork(&table, 1).unwrap());
}
