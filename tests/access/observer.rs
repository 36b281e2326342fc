//! What an observer sees and copies, and what it cannot do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use ndarray::{Ix1, ShapeBuilder};
use ndshm::error::{BundleError, LeaseError, SegmentError};
use ndshm::{BundleHandle, Handle, HandleTable, Observer};

use crate::support::{Child, DEADLINE, Name};
use crate::{become_stranger, may_be_others, options, support};

pub fn an_observer_sees_seats_arrays_and_leases() {
    let name = Name::new("observed");
    let segment = options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(10, 7u16).unwrap();
    let _y = table.zeros::<f32, _>((2, 3)).unwrap();
    let lent = table.write(x).unwrap();
    let other = Child::fork(|| {
        std::mem::forget(HandleTable::join(&segment).unwrap());
        support::exit_at_once(0);
    });
    let dead = other.pid();
    other.join();

    let observer = Observer::open(&name.0).unwrap();
    assert_eq!(observer.capacity(), 1 << 20);
    let seats = observer.seats().unwrap();
    let told: Vec<_> = seats.iter().map(|seat| (seat.pid, seat.alive)).collect();
    assert_eq!(told, [(std::process::id(), true), (dead, false)]);
    let shapes: Vec<_> = observer.arrays().map(|array| array.shape).collect();
    assert_eq!(shapes, [vec![10], vec![2, 3]]);
    let info = observer.info(x).unwrap();
    assert_eq!(info.writer, Some(std::process::id()));
    assert_eq!(Some(info), table.info(x).ok());
    drop(lent);
    let view = observer.attach(x).unwrap();
    // SAFETY: no process writes the array any more, and the observer lives.
    assert_eq!(unsafe { view.deref_into_view() }.sum(), 70);
    let wrong = Handle::<f64, Ix1>::from_bits(x.to_bits());
    assert!(matches!(
        observer.attach(wrong),
        Err(LeaseError::WrongKind(_))
    ));
    let found = observer.verify();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.seats, found.live), (2, 2));
    table.free(x).unwrap();
    assert!(matches!(observer.attach(x), Err(LeaseError::Stale { .. })));
}

pub fn an_observer_sees_bundles() {
    let name = Name::new("bundles");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let observer = Observer::open(&name.0).unwrap();
    assert_eq!(observer.bundles(), []);
    let bundle = table.bundle().unwrap();
    let (x, y) = (
        table.zeros::<u8, _>(3).unwrap(),
        table.zeros::<f64, _>(2).unwrap(),
    );
    bundle.insert("y", y).unwrap();
    bundle.insert("x/1", x).unwrap();
    let seen = observer.bundle(bundle.handle()).unwrap();
    assert_eq!(seen.handle, bundle.handle());
    assert_eq!((seen.owner, seen.frozen), (Some(std::process::id()), false));
    assert_eq!(seen.parts, bundle.parts().unwrap());
    assert_eq!(observer.bundles(), [seen]);
    table.free(x).unwrap();
    bundle.freeze().unwrap();
    table.detach(bundle.handle()).unwrap();
    let seen = observer.bundle(bundle.handle()).unwrap();
    assert_eq!((seen.owner, seen.frozen), (None, true));
    assert_eq!((seen.parts.len(), &*seen.parts[0].name), (1, "y"));

    let wrong = observer.bundle(BundleHandle::from_bits(y.to_bits()));
    assert!(
        matches!(wrong, Err(BundleError::Lease(LeaseError::WrongKind(_)))),
        "{wrong:?}"
    );
    let handle = bundle.handle();
    drop(bundle);
    table.free(handle).unwrap();
    let stale = observer.bundle(handle);
    assert!(
        matches!(stale, Err(BundleError::Lease(LeaseError::Stale { .. }))),
        "{stale:?}"
    );
    assert_eq!(observer.bundles(), []);
}

pub fn an_observer_copies_bytes() {
    let name = Name::new("copied");
    let segment = options().persistent(true).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u16, _>((2, 3).f()).unwrap();
    table.write(x).unwrap()[(1, 0)] = 0x0201;
    let observer = Observer::open(&name.0).unwrap();
    let mut bytes = [9; 4];
    observer.copy_bytes(x, 1, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 0], "in memory order");
    observer.copy_bytes(x, 12, &mut []).unwrap();
    for (offset, len) in [(12, 1), (9, 4), (u64::MAX, 4), (13, 0)] {
        let error = observer
            .copy_bytes(x, offset, &mut bytes[..len])
            .unwrap_err();
        assert!(
            matches!(error, LeaseError::OutOfRange { bytes: 12, .. }),
            "{error}"
        );
    }
    table.free(x).unwrap();
    let stale = observer.copy_bytes(x, 0, &mut bytes).unwrap_err();
    assert!(matches!(stale, LeaseError::Stale { .. }), "{stale}");
}

/// Checks that a copy never holds bytes of the next array in a freed array's slot.
pub fn a_copy_never_mixes_two_arrays() {
    const LEN: usize = 4 << 20;
    let segment = options().capacity(64 << 20).anonymous().unwrap();
    let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
    let other = Child::fork(|| {
        let table = HandleTable::join(&segment).unwrap();
        let make = |value: u8| {
            // The array is complete before any other participant knows its handle, and is never
            // written again.
            table.from_elem(LEN, value).unwrap()
        };
        let mut old = make(0);
        for round in 1u64.. {
            let new = make(round as u8);
            table.free(old).unwrap();
            old = new;
        }
    });
    let (mut whole, mut stale) = (0, 0);
    let mut copy = vec![0; LEN];
    let start = std::time::Instant::now();
    while whole < 20 || stale < 20 {
        assert!(start.elapsed() < DEADLINE, "{whole} copies, {stale} stale");
        for info in observer.arrays().collect::<Vec<_>>() {
            match observer.copy_bytes(info.handle, 0, &mut copy) {
                Ok(()) => {
                    // Compare both halves, then their halves, down to a byte.
                    let mut half = LEN;
                    while half > 1 {
                        half /= 2;
                        assert!(copy[..half] == copy[half..2 * half], "a copy of two arrays");
                    }
                    whole += 1;
                }
                Err(LeaseError::Stale { .. }) => stale += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    other.kill();
}

pub fn an_observer_cannot_write() {
    let segment = options().anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(10, 7u16).unwrap();
    let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
    let writer = Child::fork(|| {
        let view = observer.attach(x).unwrap();
        // SAFETY: the test shows that the processor refuses this write.
        unsafe { view.as_ptr().cast_mut().write_volatile(1) };
    });
    let status = writer.wait_within(DEADLINE).unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    assert_eq!(table.read(x).unwrap()[0], 7);
}

pub fn an_observer_needs_no_right_to_write() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("readable");
    let segment = options().mode(0o644).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(10, 7u16).unwrap();
    let stranger = Child::fork(|| {
        assert!(become_stranger());
        let error = options().owner(0).open(&name.0).unwrap_err();
        assert!(error.to_string().contains("ermission denied"), "{error}");
        let observer = options().owner(0).observe(&name.0).unwrap();
        assert_eq!(observer.info(x).unwrap().shape, [10]);
        assert!(observer.seats().unwrap()[0].alive);
    });
    stranger.join();
    fs::set_permissions(name.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let stranger = Child::fork(|| {
        assert!(become_stranger());
        let error = options().owner(0).observe(&name.0).unwrap_err();
        assert!(error.to_string().contains("ermission denied"), "{error}");
    });
    stranger.join();
}

pub fn an_observer_keeps_nothing_alive() {
    let name = Name::new("kept");
    let segment = options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    table.from_elem(10, 7u16).unwrap();
    let observer = Observer::open(&name.0).unwrap();
    drop((table, segment));
    assert!(!name.exists(), "an observer is no member");
    assert_eq!(
        observer.arrays().count(),
        0,
        "its arrays were freed with their owner"
    );
    assert!(observer.verify().is_clean());
}

pub fn observing_no_segment_is_an_error() {
    let name = Name::new("nothing");
    assert!(matches!(
        Observer::open(&name.0),
        Err(SegmentError::NotFound { .. })
    ));
    fs::write(name.path(), "").unwrap();
    fs::set_permissions(name.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let error = options().observe(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::NotInitialized { size: 0, .. }),
        "{error}"
    );
    fs::write(name.path(), [7; 64]).unwrap();
    let error = options().observe(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::NotOurs { size: 64, .. }),
        "{error}"
    );
    let fd = fs::File::open("/dev/null").unwrap().into();
    assert!(matches!(
        Observer::from_fd(fd),
        Err(SegmentError::NotOurs { .. })
    ));
}
