//! Permissions of named segments and passed descriptors, and the abilities of an observer.

mod support;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ndarray::{Axis, Ix1, ShapeBuilder};
use ndshm::{
    CopyError, Handle, HandleTable, JoinError, LeaseError, Observer, Pool, PoolError, Segment,
    SegmentError, SegmentOptions,
};
use rustix::fs::{MemfdFlags, SealFlags};
use support::{Child, DEADLINE, Flag, Name, Pipe};

/// A user without any rights of its own.
const STRANGER: u32 = 54_321;

fn main() {
    support::run_tests![
        a_name_is_private_whatever_the_mask,
        other_bits_are_set_where_asked_for,
        what_others_may_write_is_refused,
        what_another_owns_is_refused,
        a_link_is_not_followed,
        two_users_share_where_both_say_so,
        an_observer_sees_what_is_there,
        an_observer_copies_bytes,
        a_copy_is_of_one_array,
        an_observer_cannot_write,
        an_observer_needs_no_right_to_write,
        an_observer_keeps_nothing_alive,
        an_observer_needs_little_address_space,
        an_observer_without_address_space_says_so,
        an_unsealed_memfd_is_refused,
        a_memfd_of_huge_pages_is_refused,
        a_passed_file_of_another_user_is_refused,
        read_locks_of_a_reader_are_named,
        a_lock_on_a_dead_workers_seat_ends_the_call,
        a_join_passes_over_a_locked_seat,
        an_observer_of_no_segment_is_told,
    ];
}

fn options() -> SegmentOptions {
    let timeout = std::time::Duration::from_millis(50);
    Segment::options()
        .capacity(1 << 20)
        .seats(4)
        .open_timeout(timeout)
}

fn file(name: &Name) -> PathBuf {
    Path::new("/dev/shm").join(&name.0)
}

fn bits(name: &Name) -> u32 {
    fs::metadata(file(name)).unwrap().mode() & 0o777
}

fn set_mask(mask: u32) {
    // SAFETY: `umask` has no precondition.
    unsafe { libc::umask(mask) };
}

/// Changes this process's user for good. Returns `false` if the process may not.
fn become_stranger() -> bool {
    // SAFETY: changes this process's user and nothing else; it has one thread.
    let group = unsafe { libc::setgid(STRANGER) };
    // SAFETY: as above.
    let user = unsafe { libc::setuid(STRANGER) };
    (group, user) == (0, 0)
}

/// Returns `true` if this process may act as other users. Otherwise prints that a part of the test
/// is skipped.
fn may_be_others() -> bool {
    let file = std::env::temp_dir().join(format!("ndshm-owned-{}", std::process::id()));
    fs::write(&file, "").unwrap();
    let given = chown(&file, Some(STRANGER), None).is_ok();
    fs::remove_file(&file).unwrap();
    let child = Child::fork(|| assert!(given && become_stranger()));
    let may = child.wait_within(DEADLINE).is_some_and(|end| end.success());
    if !may {
        println!("  (skipped: no right to act as another user)");
    }
    may
}

fn a_name_is_private_whatever_the_mask() {
    for mask in [0, 0o077, 0o777] {
        set_mask(mask);
        let name = Name::new("private");
        let _segment = options().create(&name.0).unwrap();
        assert_eq!(bits(&name), 0o600, "mask {mask:o}");
    }
}

fn other_bits_are_set_where_asked_for() {
    set_mask(0o777);
    let name = Name::new("bits");
    let _segment = options().mode(0o640).create(&name.0).unwrap();
    assert_eq!(bits(&name), 0o640);
    // Read permission for others does not endanger a process that opens the segment.
    options().open(&name.0).unwrap();
}

fn what_others_may_write_is_refused() {
    let name = Name::new("shared");
    let _segment = options().mode(0o660).create(&name.0).unwrap();
    for options in [options(), options().mode(0o606)] {
        let error = options.open(&name.0).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, SegmentError::Foreign { mode: 0o660, .. }),
            "{text}"
        );
        assert!(
            text.contains("mode 660") && text.contains("`mode`"),
            "{text}"
        );
    }
    options().mode(0o660).open(&name.0).unwrap();
    assert!(options().observe(&name.0).is_err());
    options().mode(0o666).observe(&name.0).unwrap();
}

fn what_another_owns_is_refused() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("owned");
    let _segment = options().create(&name.0).unwrap();
    chown(file(&name), Some(STRANGER), None).unwrap();
    let refused = [
        options().open(&name.0).err(),
        options().open_or_create(&name.0).err(),
        options().owner(STRANGER + 1).open(&name.0).err(),
        options().observe(&name.0).err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(SegmentError::Foreign { uid: STRANGER, .. })),
            "{error:?}"
        );
    }
    assert!(matches!(
        options().create(&name.0),
        Err(SegmentError::Exists { .. })
    ));
    options().owner(STRANGER).open(&name.0).unwrap();
}

fn a_link_is_not_followed() {
    let target = std::env::temp_dir().join(format!("ndshm-target-{}", std::process::id()));
    fs::write(&target, "what must stay").unwrap();
    let name = Name::new("link");
    symlink(&target, file(&name)).unwrap();
    assert!(matches!(
        options().create(&name.0),
        Err(SegmentError::Exists { .. })
    ));
    for error in [
        options().open(&name.0).err(),
        options().open_or_create(&name.0).err(),
        options().observe(&name.0).err(),
    ] {
        let error = error.expect("a link is no segment");
        assert!(error.to_string().contains(&name.0), "{error}");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "what must stay");
    fs::remove_file(&target).unwrap();
}

fn two_users_share_where_both_say_so() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("users");
    let segment = options().mode(0o666).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Handle<u32, Ix1> = table.from_elem(10, 1).unwrap();
    let stranger = Child::fork(|| {
        assert!(become_stranger());
        for options in [options().mode(0o666), options().owner(0)] {
            let error = options.open(&name.0).unwrap_err();
            assert!(
                matches!(error, SegmentError::Foreign { uid: 0, .. }),
                "{error}"
            );
        }
        let segment = options().mode(0o666).owner(0).open(&name.0).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        table.write(x).unwrap().fill(2);
        let own = table.from_elem(10, 3u8).unwrap();
        assert_eq!(table.read(own).unwrap().sum(), 30);
    });
    stranger.join();
    assert_eq!(table.read(x).unwrap().sum(), 20);
    drop((table, segment));
    assert!(!name.exists(), "the last participant has left");
}

fn an_observer_sees_what_is_there() {
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
        Err(LeaseError::TypeMismatch(_))
    ));
    let found = observer.verify();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.seats, found.live), (2, 2));
    table.free(x).unwrap();
    assert!(matches!(observer.attach(x), Err(LeaseError::Stale { .. })));
}

fn an_observer_copies_bytes() {
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
            matches!(error, CopyError::Range { bytes: 12, .. }),
            "{error}"
        );
    }
    table.free(x).unwrap();
    let stale = observer.copy_bytes(x, 0, &mut bytes).unwrap_err();
    assert!(
        matches!(stale, CopyError::Lease(LeaseError::Stale { .. })),
        "{stale}"
    );
}

/// Checks that a copy never holds bytes of the next array in a freed array's slot.
fn a_copy_is_of_one_array() {
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
                Err(CopyError::Lease(LeaseError::Stale { .. })) => stale += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    other.kill();
}

fn an_observer_cannot_write() {
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

fn an_observer_needs_no_right_to_write() {
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
    fs::set_permissions(file(&name), fs::Permissions::from_mode(0o600)).unwrap();
    let stranger = Child::fork(|| {
        assert!(become_stranger());
        let error = options().owner(0).observe(&name.0).unwrap_err();
        assert!(error.to_string().contains("ermission denied"), "{error}");
    });
    stranger.join();
}

fn an_observer_keeps_nothing_alive() {
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

fn an_observer_of_no_segment_is_told() {
    let name = Name::new("nothing");
    assert!(matches!(
        Observer::open(&name.0),
        Err(SegmentError::NotFound { .. })
    ));
    fs::write(file(&name), "").unwrap();
    fs::set_permissions(file(&name), fs::Permissions::from_mode(0o600)).unwrap();
    let error = options().observe(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::Unfinished { size: 0, .. }),
        "{error}"
    );
    fs::write(file(&name), [7; 64]).unwrap();
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

/// Leaves this process `bytes` of address space beyond its current size.
fn limit_address_space(bytes: u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let page = rustix::param::page_size() as u64;
    let limit = Some(pages * page + bytes);
    let limits = rustix::process::Rlimit {
        current: limit,
        maximum: None,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limits).unwrap();
}

/// Checks that an observer maps little. The observer is forked before the segment exists, so it
/// does not inherit the mapping.
fn an_observer_needs_little_address_space() {
    let name = Name::new("little");
    let (go, done) = (Pipe::new(), Pipe::new());
    let observer = Child::fork(|| {
        let (first, last) = (go.receive(), go.receive());
        limit_address_space(64 << 20);
        let observer = Observer::open(&name.0).unwrap();
        assert_eq!(observer.capacity(), 16 << 40);
        let handle = Handle::<u16, Ix1>::from_bits;
        let sum = |bits| {
            let view = observer.attach(handle(bits)).unwrap();
            // SAFETY: no process writes these arrays any more, and the observer lives.
            unsafe { view.deref_into_view() }.sum()
        };
        assert_eq!(observer.census().live, 2);
        assert_eq!((sum(first), sum(last)), (10, 20));
        let mut copied = [0; 2];
        observer.copy_bytes(handle(last), 0, &mut copied).unwrap();
        assert_eq!(copied, [2, 0]);
        let early = observer.attach(handle(first)).unwrap();
        done.send(0);
        // There are now more spans than the first mapping of the tables covers.
        let (many, newest) = (go.receive(), go.receive());
        assert_eq!(observer.census().live, many);
        assert_eq!(observer.arrays().count() as u64, many - 1);
        assert!(observer.verify().is_clean());
        assert_eq!(observer.verify().live as u64, many);
        assert_eq!(observer.find("newest").unwrap().to_bits(), newest);
        assert_eq!(sum(newest), 30);
        // SAFETY: as above.
        let early = unsafe { early.deref_into_view() };
        assert_eq!(early.sum(), 10, "former views stay valid");
        observer.reach().unwrap();
    });
    let segment = Segment::options()
        .capacity(16 << 40)
        .create(&name.0)
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let first = table.from_elem(10, 1u16).unwrap();
    // This array has another class and lies far away in the data region.
    let last = table.from_elem(10, 2u16).unwrap();
    go.send(first.to_bits());
    go.send(last.to_bits());
    done.receive();
    for _ in 0..30_000 {
        table.zeros::<u8, _>(1).unwrap();
    }
    let newest = table.from_elem(10, 3u16).unwrap();
    table.publish("newest", newest).unwrap();
    // The record of the name is an array, too.
    let live = Observer::open(&name.0).unwrap().census().live;
    go.send(live);
    go.send(newest.to_bits());
    observer.join();
}

fn an_observer_without_address_space_says_so() {
    let name = Name::new("without");
    let (go, done) = (Pipe::new(), Pipe::new());
    let observer = Child::fork(|| {
        let first = Handle::<u16, Ix1>::from_bits(go.receive());
        let observer = Observer::open(&name.0).unwrap();
        limit_address_space(1 << 20);
        done.send(0);
        let newest = Handle::<u16, Ix1>::from_bits(go.receive());
        let unseen = [
            observer.reach().unwrap_err().to_string(),
            observer.info(newest).unwrap_err().to_string(),
            observer.attach(newest).err().unwrap().to_string(),
            observer.find("newest").unwrap_err().to_string(),
            observer
                .copy_bytes(newest, 0, &mut [])
                .unwrap_err()
                .to_string(),
        ];
        for text in unseen {
            assert!(text.contains("address space"), "{text}");
            assert!(text.contains("ulimit -v"), "{text}");
        }
        assert_eq!(observer.info(first).unwrap().shape, [10]);
        // Apply the remedy.
        let unlimited = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::As, unlimited).unwrap();
        observer.reach().unwrap();
        assert_eq!(observer.info(newest).unwrap().shape, [10]);
    });
    let segment = Segment::options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    go.send(table.from_elem(10, 1u16).unwrap().to_bits());
    done.receive();
    for _ in 0..30_000 {
        table.zeros::<u8, _>(1).unwrap();
    }
    let newest = table.from_elem(10, 3u16).unwrap();
    table.publish("newest", newest).unwrap();
    go.send(newest.to_bits());
    observer.join();
}

/// Returns the error of each way to open a segment by a descriptor.
fn refusals(fd: &OwnedFd) -> [Option<SegmentError>; 3] {
    let copy = || fd.try_clone().unwrap();
    [
        Segment::from_fd(copy()).err(),
        Observer::from_fd(copy()).err(),
        options()
            .owner(STRANGER)
            .mode(0o666)
            .observe_fd(copy())
            .err(),
    ]
}

fn an_unsealed_memfd_is_refused() {
    let segment = options().anonymous().unwrap();
    let own = segment.fd().unwrap();
    let size = rustix::fs::fstat(own).unwrap().st_size as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("unsealed", flags).unwrap();
    rustix::fs::ftruncate(&copy, size).unwrap();
    let mut head = [0; 4096];
    rustix::io::pread(own, &mut head, 0).unwrap();
    rustix::io::pwrite(&copy, &head, 0).unwrap();
    for seals in [SealFlags::empty(), SealFlags::GROW, SealFlags::SHRINK] {
        rustix::fs::fcntl_add_seals(&copy, seals).unwrap();
        if seals == SealFlags::SHRINK {
            // The remedy that the error names: now both seals are set.
            assert!(refusals(&copy).iter().all(Option::is_none));
            return;
        }
        for refused in refusals(&copy) {
            assert!(
                matches!(refused, Some(SegmentError::NotSealed)),
                "{refused:?}"
            );
        }
    }
}

fn a_memfd_of_huge_pages_is_refused() {
    let segment = Segment::anonymous().unwrap();
    let size = rustix::fs::fstat(segment.fd().unwrap()).unwrap().st_size as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(huge) = rustix::fs::memfd_create("huge", flags) else {
        println!("  (skipped: this kernel has no hugetlbfs)");
        return;
    };
    rustix::fs::ftruncate(&huge, size).unwrap();
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&huge, seals).unwrap();
    for refused in refusals(&huge) {
        let Some(SegmentError::Hugetlb { page, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(page >= 1 << 16, "{page}");
    }
}

/// Checks that a passed descriptor of another user's file is refused.
fn a_passed_file_of_another_user_is_refused() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("passed");
    let _segment = options().create(&name.0).unwrap();
    chown(file(&name), Some(STRANGER), None).unwrap();
    let fd = || OwnedFd::from(fs::File::open(file(&name)).unwrap());
    for refused in [
        Segment::from_fd(fd()).err(),
        Observer::from_fd(fd()).err(),
        options().owner(STRANGER + 1).observe_fd(fd()).err(),
    ] {
        let text = refused.as_ref().map(ToString::to_string);
        assert!(
            matches!(refused, Some(SegmentError::Foreign { uid: STRANGER, .. })),
            "{text:?}"
        );
    }
    options().owner(STRANGER).observe_fd(fd()).unwrap();
}

/// Locks the bytes of these seats through a read-only descriptor. The descriptor holds the locks.
fn lock_seats(name: &Name, seats: std::ops::Range<i64>) -> fs::File {
    let reader = fs::File::open(file(name)).unwrap();
    // SAFETY: any bytes are a value of this struct of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_len = 1;
    for seat in seats {
        lock.l_start = (1 << 62) + seat;
        // SAFETY: `lock` is the argument of this command. The call fails for seats of living
        // participants.
        unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    }
    reader
}

fn read_locks_of_a_reader_are_named() {
    let as_stranger = may_be_others();
    let name = Name::new("locked");
    let segment = options().mode(0o644).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(10, 7u16).unwrap();
    let told = Pipe::new();
    let victim = Child::fork(|| {
        let guard = table.write(x).unwrap();
        told.send(0);
        std::thread::sleep(2 * DEADLINE);
        drop(guard);
    });
    told.receive();
    let (locked, again) = (Pipe::new(), Pipe::new());
    let spy = Child::fork(|| {
        assert!(!as_stranger || become_stranger());
        let _first = lock_seats(&name, 0..4);
        locked.send(0);
        again.receive();
        // This locks the byte of the dead participant's seat.
        let _second = lock_seats(&name, 0..4);
        locked.send(0);
        std::thread::sleep(2 * DEADLINE);
    });
    locked.receive();
    let pid = spy.pid();
    let names_it = |text: String| {
        assert!(text.contains(&format!("process {pid};")), "{text}");
        assert!(text.contains("chmod"), "{text}");
    };
    let error = HandleTable::join(&segment).map(drop).unwrap_err();
    assert!(
        matches!(&error, JoinError::SeatLocked { seats: 4, locked: 2, lock, .. } if lock.pids == [pid]),
        "{error:?}"
    );
    names_it(error.to_string());
    victim.kill();
    again.send(0);
    locked.receive();
    let report = table.reap().unwrap();
    assert_eq!(
        (report.seats, report.locked),
        (0, 1),
        "the reap leaves the locked seat"
    );
    assert_eq!(table.foreign_locks().len(), 3);
    let seats = Observer::open(&name.0).unwrap().seats().unwrap();
    let alive: Vec<bool> = seats.iter().map(|seat| seat.alive).collect();
    assert_eq!(alive, [true, false], "a read lock does not count as alive");
    let error = table.write(x).map(drop).unwrap_err();
    assert!(
        matches!(&error, LeaseError::Blocked { lock, .. } if lock.pids == [pid]),
        "{error:?}"
    );
    names_it(error.to_string());
    // Apply the remedy.
    spy.kill();
    assert_eq!(table.reap().unwrap().seats, 1);
    assert!(table.foreign_locks().is_empty());
    assert!(matches!(table.write(x), Err(LeaseError::Poisoned { .. })));
    HandleTable::join(&segment).unwrap();
}

/// Checks a call while a reader waits for the lock byte of a worker's seat. The reader gets the
/// byte as soon as the worker is dead, before the pool can take back the worker's tiles.
fn a_lock_on_a_dead_workers_seat_ends_the_call() {
    let name = Name::new("pool-locked");
    let segment = options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u64, _>(8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    for workers in [1, 2] {
        let mut pool = Pool::fork(&table, workers).unwrap();
        // The first worker has the seat after the parent's.
        pool.broadcast(&(), |_, ()| ()).unwrap();
        let most = Duration::from_secs(60);
        pool.set_deadline(Some(most));
        let spies: Vec<Child> = (1..4)
            .map(|seat| Child::fork(|| wait_for_lock(&name, seat)))
            .collect();
        let flag = Flag::new();
        let start = std::time::Instant::now();
        let outcome = pool.for_each(&tiles, &flag.number, |_, &flag, tile| {
            if tile.index() == 0 && !Flag::is_raised(flag) {
                Flag::raise(flag);
                // By now the spies wait for their locks. If one of them is late, the pool takes
                // back the worker's tiles and still reports the death.
                std::thread::sleep(Duration::from_millis(300));
                std::process::abort();
            }
        });
        assert!(
            matches!(outcome, Err(PoolError::WorkerDied { .. })),
            "{outcome:?}"
        );
        assert!(start.elapsed() < most, "the call waited for its deadline");
        spies.into_iter().for_each(Child::kill);
        table.reap().unwrap();
        drop(pool);
        table.reap().unwrap();
        table.clear_poison(x).unwrap();
    }
}

/// Waits for a lock on the byte of a seat, and holds it until this process is killed.
fn wait_for_lock(name: &Name, seat: i64) {
    let reader = fs::File::open(file(name)).unwrap();
    // SAFETY: any bytes are a value of this struct of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_len = 1;
    lock.l_start = (1 << 62) + seat;
    // SAFETY: `lock` is the argument of this command.
    unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_OFD_SETLKW, &lock) };
    std::thread::sleep(4 * DEADLINE);
}

fn a_join_passes_over_a_locked_seat() {
    let name = Name::new("passed-over");
    let segment = options().create(&name.0).unwrap();
    let _first = HandleTable::join(&segment).unwrap();
    let reader = lock_seats(&name, 1..2);
    let second = HandleTable::join(&segment).unwrap();
    assert_eq!(second.seat().unwrap(), 2);
    drop(reader);
    assert_eq!(HandleTable::join(&segment).unwrap().seat().unwrap(), 1);
}
