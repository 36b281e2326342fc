//! Segments, tables, iterators, builders, bundles and observers.

use ndarray::Ix1;
use ndshm::element::Order;
use ndshm::error::{AllocError, BundleError};
use ndshm::{BundleHandle, Element, HandleTable, Segment};

use crate::InChild::{Looks, Private, Refuses, Rejoins};
use crate::{Ground, Row, Vector, is_stale};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("Segment", "capacity, seats, arrays, name, fd", Private, segment),
    ("Segment", "inheritable_fd, persist, is_persistent, send_to", Looks, segment_words),
    ("Segment", "id, is_pinned, peer_address", Private, segment_identity),
    ("Segment", "after_fork, leave", Rejoins, segment_bound),
    ("HandleTable", "seat, zeros, read, write, free, adopt, detach, ..", Rejoins, table),
    ("HandleTable", "info, arrays, names, find_any, census, verify", Looks, table_looks),
    ("HandleTable", "owned", Rejoins, table_owned),
    ("arrays()", "next", Looks, iterator),
    ("from_shape_fn", "forks in the middle", Refuses, builder),
    ("ArrayBuilder", "publish, suspend", Refuses, array_builder),
    ("SuspendedBuilder", "bytes", Private, suspended),
    ("SuspendedBuilder", "resume", Refuses, resumed),
    ("Bundle", "insert, get, remove, parts, freeze, is_frozen", Rejoins, bundle),
    ("Observer", "arrays, seats, names, verify", Looks, observer),
];

fn segment(ground: &Ground) {
    let segment = ground.table.segment().clone();
    let (capacity, seats, arrays) = (
        segment.capacity(),
        segment.max_seats(),
        segment.max_arrays(),
    );
    ground.cross(segment, |segment| {
        assert_eq!(segment.capacity(), capacity);
        assert_eq!((segment.max_seats(), segment.max_arrays()), (seats, arrays));
        assert!(segment.name().is_none() && segment.fd().is_some());
    });
}

fn segment_words(ground: &Ground) {
    ground.cross(ground.table.segment().clone(), |segment| {
        let again = Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        HandleTable::join(&again).unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        segment.send_to(&ours, crate::support::DEADLINE).unwrap();
        let again = Segment::receive_from(&theirs, crate::support::DEADLINE).unwrap();
        HandleTable::join(&again).unwrap();
        assert!(!segment.is_persistent());
    });
}

fn segment_identity(ground: &Ground) {
    let segment = ground.table.segment().clone();
    let address = segment.peer_address().unwrap();
    ground.cross(segment, |segment| {
        assert_eq!(segment.id(), address.id());
        let own = segment.peer_address().unwrap();
        assert_eq!((own.pid(), own.fd()), (std::process::id(), address.fd()));
        assert_eq!(Segment::open_peer(&own).unwrap().id(), segment.id());
        assert!(!segment.is_pinned());
    });
}

fn segment_bound(ground: &Ground) {
    ground.cross(ground.table.segment().clone(), |segment| {
        segment.after_fork().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        assert!(segment.leave().is_err());
        drop(table);
        segment.leave().unwrap();
        assert!(HandleTable::join(&segment).is_err());
    });
}

fn table(ground: &Ground) {
    let table = HandleTable::join(ground.table.segment()).unwrap();
    let theirs = table.seat().unwrap();
    let x: Vector = table.zeros(7).unwrap();
    ground.cross(table, |table| {
        assert!(is_stale(&table.read(x).unwrap_err()));
        assert!(is_stale(&table.write(x).unwrap_err()));
        assert!(is_stale(&table.adopt(x).unwrap_err()));
        assert!(is_stale(&table.detach(x).unwrap_err()));
        assert!(table.free(x).is_err());
        let y: Vector = table.from_elem(9, 3).unwrap();
        table.publish("y", y).unwrap();
        assert_eq!(table.read(y).unwrap().sum(), 27);
        assert_eq!(table.info(y).unwrap().owner, Some(std::process::id()));
        table.free(y).unwrap();
        table.trim().unwrap();
        let _ = (table.seat().unwrap(), theirs);
    });
}

fn table_looks(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.table.publish("x", x).unwrap();
    ground.cross(&ground.table, |table| {
        assert!(table.arrays().any(|info| info.handle == x.into()));
        assert_eq!(table.find_any("x").unwrap(), x.into());
        assert_eq!(table.names("").unwrap().len(), 1);
        assert!(table.info(x).is_ok() && table.verify().unwrap().is_clean());
    });
}

fn table_owned(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.cross(&ground.table, |table| drop(table.owned(x)));
    assert!(
        is_stale(&ground.table.read(x).unwrap_err()),
        "the child's guard frees it"
    );
}

fn iterator(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.table.zeros::<u64, _>(9).unwrap();
    let mut arrays = ground.table.arrays();
    assert_eq!(arrays.next().unwrap().handle, x.into());
    ground.cross(arrays, |arrays| assert!(arrays.count() > 1));
}

fn builder(ground: &Ground) {
    let mut child = None;
    let made = ground.table.from_shape_fn(3, |i| {
        if i == 1 {
            // SAFETY: this test binary has one thread.
            child = Some(unsafe { libc::fork() });
        }
        i as u64
    });
    if child == Some(0) {
        crate::support::exit_at_once(i32::from(!matches!(made, Err(AllocError::Forked))));
    }
    let mut status = 0;
    // SAFETY: `status` is a place to write to; the pid is of an own child, which ends by itself.
    unsafe { libc::waitpid(child.unwrap(), &raw mut status, 0) };
    assert_eq!((status, made.is_ok()), (0, true));
}

fn is_forked<T>(outcome: Result<T, AllocError>) -> bool {
    matches!(outcome, Err(AllocError::Forked))
}

fn array_builder(ground: &Ground) {
    let table = &ground.table;
    let made = || table.builder(&u64::dtype(), &[7], Order::C).unwrap();
    // A child that drops its copy gives up nothing either.
    for publishes in [false, true] {
        ground.cross(made(), |made| {
            assert!(!publishes || is_forked(made.publish()));
        });
        ground.cross_and_end(
            made(),
            |made| drop(made.publish()),
            |made| assert!(is_forked(table.resume(made.suspend()))),
        );
    }
}

fn suspended(ground: &Ground) {
    let made = || ground.table.builder(&u64::dtype(), &[7], Order::C).unwrap();
    let end = |made| drop(ground.table.resume(made));
    ground.cross_and_end(made().suspend(), end, |made| {
        assert_eq!((made.bytes().len(), made.shape()), (56, &[7][..]));
    });
}

fn resumed(ground: &Ground) {
    let table = &ground.table;
    let made = || table.builder(&u64::dtype(), &[7], Order::C).unwrap();
    let end = |made| assert!(table.resume(made).unwrap().publish().is_ok());
    ground.cross_and_end(made().suspend(), end, |made| {
        assert!(is_forked(table.resume(made)), "before the child has a seat");
    });
    ground.cross_and_end(made().suspend(), end, |made| {
        table.seat().unwrap();
        assert!(is_forked(table.resume(made)), "with a seat of its own");
    });
}

fn bundle(ground: &Ground) {
    let table = &ground.table;
    let bundle = table.bundle().unwrap();
    bundle
        .insert("x", table.from_elem(3, 1u64).unwrap())
        .unwrap();
    let name: BundleHandle = bundle.handle();
    let child = |bundle: ndshm::Bundle<'_>| {
        let stale = |error: BundleError| matches!(error, BundleError::Lease(e) if is_stale(&e));
        // This call comes first, because later calls would find the child's refusal.
        assert!(bundle.is_frozen(), "a freed bundle takes no parts");
        let own: Vector = table.zeros(3).unwrap();
        assert!(stale(bundle.insert("y", own).unwrap_err()));
        assert!(stale(bundle.get::<u64, Ix1>("x").unwrap_err()));
        assert!(stale(bundle.get_any("x").unwrap_err()));
        assert!(stale(bundle.remove("x").unwrap_err()));
        assert!(stale(bundle.parts().unwrap_err()));
        assert!(stale(bundle.freeze().unwrap_err()));
        assert_eq!(bundle.handle(), name);
    };
    let free = |bundle: ndshm::Bundle<'_>| {
        let name = bundle.handle();
        drop(bundle);
        table.free(name).unwrap();
    };
    ground.cross_and_end(bundle, free, child);
}

fn observer(ground: &Ground) {
    let x: Vector = ground.table.zeros(3).unwrap();
    let fd = ground.table.segment().inheritable_fd().unwrap();
    ground.cross(ndshm::Observer::from_fd(fd).unwrap(), |observer| {
        assert!(observer.arrays().any(|info| info.handle == x.into()));
        assert!(observer.verify().is_clean());
        assert!(!observer.seats().unwrap().is_empty());
        assert!(observer.names("").unwrap().is_empty());
    });
}
