//! `leave` and `after_fork`.

#![expect(
    clippy::disallowed_types,
    reason = "no word of the segment: what threads of this test tell each other"
)]

use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndshm::error::{JoinError, LeaseError, SegmentError};
use ndshm::untyped::Mode;
use ndshm::{HandleTable, Segment, SharedTable};

use crate::support::{Child, Name, Pipe, sleep_for_ever};
use crate::{TIMEOUT, Vector, options};

fn is_left<T>(outcome: Result<T, impl Into<ndshm::Error>>) -> bool {
    match outcome.map_err(Into::into) {
        Err(ndshm::Error::Segment(SegmentError::Left)) => true,
        Err(ndshm::Error::Join(JoinError::Segment(SegmentError::Left))) => true,
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

/// Creates a detached array of `len` numbers, and returns it with its address in the segment.
fn detached(segment: &Segment, len: usize, value: u64) -> (Vector, *mut u64) {
    let table = HandleTable::join(segment).unwrap();
    let x: Vector = table.from_elem(len, value).unwrap();
    table.detach(x).unwrap();
    let at = table.attach(x).unwrap().as_mut_ptr();
    (x, at)
}

fn look(at: *const u64) -> u64 {
    // SAFETY: the segment of the array is mapped, as the tests assert.
    unsafe { at.read_volatile() }
}

fn store(at: *mut u64, value: u64) {
    // SAFETY: as in `look`; no other access happens meanwhile.
    unsafe { at.write_volatile(value) };
}

pub fn views_outlive_the_membership() {
    let name = Name::new("leave");
    let segment = options().create(&name.0).unwrap();
    let clone = segment.clone();
    let (_, at) = detached(&segment, 10_000, 7);
    let other = options().open(&name.0).unwrap();
    segment.leave().unwrap();
    assert!(name.exists(), "another member is left");
    drop(other);
    assert!(!name.exists(), "the last member has left");
    assert_eq!(look(at), 7);
    segment.leave().unwrap();
    drop(segment);
    assert_eq!(look(at), 7, "the clone keeps it");
    drop(clone);

    let segment = options().create(&name.0).unwrap();
    let (_, at) = detached(&segment, 10_000, 8);
    segment.leave().unwrap();
    assert!(!name.exists(), "the last process removes it");
    assert_eq!(look(at), 8);
    // A name that is created anew is not that of the segment that was left.
    let new = options().create(&name.0).unwrap();
    assert_ne!(new.id(), segment.id());
    drop(segment);
    assert!(name.exists());

    new.persist(true);
    new.leave().unwrap();
    drop(new);
    assert!(name.exists(), "a persistent one stays");
}

pub fn stores_after_leaving_reach_nobody() {
    let segment = options().anonymous().unwrap();
    let other = Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap();
    let (x, at) = detached(&segment, 10_000, 7);
    let (_, near) = detached(&segment, 10_000, 1);
    store(at, 9);
    segment.leave().unwrap();
    store(at, 10);
    assert_eq!(look(at), 10);
    let table = HandleTable::join(&other).unwrap();
    let read = table.read(x).unwrap();
    assert_eq!((read[0], read[1]), (9, 7));
    drop(read);
    // The arrays are others' now. The left mapping shows what they do, apart from its own pages.
    let mut write = table.write(x).unwrap();
    write.fill(11);
    drop(write);
    assert_eq!((look(at), look(at.wrapping_add(5000))), (10, 11));
    assert_eq!(look(near), 1);
    store(near, 2);
    for _ in 0..3 {
        let again: Vector = table.from_elem(10_000, 5).unwrap();
        assert_eq!(table.read(again).unwrap().sum(), 50_000);
    }
    assert!(table.verify().unwrap().is_clean());
    // The words of the tables are private too.
    segment.persist(true);
    assert!(!other.is_persistent());
}

pub fn tables_must_leave_first() {
    let segment = options().anonymous().unwrap();
    let (first, second) = (HandleTable::join(&segment), HandleTable::join(&segment));
    let x: Vector = first.as_ref().unwrap().from_elem(3, 4).unwrap();
    for (table, seats) in [(second.unwrap(), 2), (first.unwrap(), 1)] {
        let refused = segment.leave().unwrap_err();
        assert!(
            matches!(refused, SegmentError::Joined { seats: s } if s == seats),
            "{refused}"
        );
        assert_eq!(table.read(x).unwrap().sum(), 12);
        drop(table);
    }
    // A seat that was not to be had counts for nothing.
    let full = options().seats(1).anonymous().unwrap();
    let only = HandleTable::join(&full).unwrap();
    assert!(HandleTable::join(&full).is_err());
    only.reap().unwrap();
    drop(only);
    full.leave().unwrap();
    segment.leave().unwrap();
}

pub fn all_that_needs_the_segment_is_refused() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for segment in [options().anonymous(), options().in_process()] {
        let segment = segment.unwrap();
        let id = segment.id();
        segment.leave().unwrap();
        assert!(is_left(HandleTable::join(&segment)));
        assert!(is_left(segment.inheritable_fd()));
        assert!(is_left(segment.send_to(&ours, TIMEOUT)));
        assert!(is_left(segment.peer_address()));
        assert!(is_left(segment.after_fork()));
        assert!(segment.fd().is_none());
        assert_eq!((segment.id(), segment.capacity()), (id, 8 << 20));
        let child = Child::fork(|| {
            assert!(is_left(HandleTable::join(&segment)));
            assert!(is_left(segment.after_fork()));
            segment.leave().unwrap();
        });
        child.join();
        assert!(is_left(HandleTable::join(&segment)));
    }
    // The process may come back.
    let name = Name::new("back");
    let segment = options().persistent(true).create(&name.0).unwrap();
    let (x, _) = detached(&segment, 3, 5);
    segment.leave().unwrap();
    let again = options().open(&name.0).unwrap();
    assert_eq!(again.id(), segment.id());
    let table = HandleTable::join(&again).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 15);
}

/// A child that leaves takes nothing from its parent, although it has inherited its seats.
pub fn a_child_may_leave_what_its_parent_uses() {
    let name = Name::new("child-leaves");
    let segment = options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Vector = table.from_elem(3, 4).unwrap();
    let at = table.attach(x).unwrap().as_mut_ptr();
    let write = table.write(x).unwrap();
    let child = Child::fork(|| {
        segment.leave().unwrap();
        store(at, 100);
        assert!(is_left(table.seat()), "its copy of the table cannot join");
        assert!(is_left(segment.after_fork()));
    });
    child.join();
    assert!(name.exists());
    assert_eq!(write.sum(), 12);
    let beside = Child::fork(|| {
        let other = HandleTable::join(&options().open(&name.0).unwrap()).unwrap();
        assert_eq!(other.reap().unwrap().seats, 0, "the parent is alive");
        assert!(matches!(other.read(x), Err(LeaseError::Busy { .. })));
    });
    beside.join();
    drop(write);
    // A child that has a seat of its own.
    let child = Child::fork(|| {
        table.seat().unwrap();
        assert!(matches!(
            segment.leave(),
            Err(SegmentError::Joined { seats: 1 })
        ));
    });
    child.join();
    assert_eq!(table.read(x).unwrap().sum(), 12);
}

pub fn a_child_keeps_the_name_that_its_parent_leaves() {
    let name = Name::new("parent-leaves");
    let (told, asked) = (Pipe::new(), Pipe::new());
    let segment = options().create(&name.0).unwrap();
    let child = Child::fork(|| {
        asked.receive();
        let table = HandleTable::join(&segment).unwrap();
        told.send(u64::from(name.exists()));
        asked.receive();
        drop((table, segment.clone()));
        segment.leave().unwrap();
    });
    segment.leave().unwrap();
    assert!(name.exists(), "the child shares the description");
    asked.send(0);
    assert_eq!(told.receive(), 1);
    assert!(name.exists());
    asked.send(0);
    child.join();
    assert!(!name.exists());
}

pub fn threads_that_join_and_one_that_leaves() {
    for _ in 0..20 {
        let segment = options().anonymous().unwrap();
        let other = Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        let (_, at) = detached(&segment, 1, 3);
        let (left, joined) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let was_left = left.load(Ordering::Acquire);
                        let outcome = HandleTable::join(&segment);
                        if let Ok(table) = &outcome {
                            assert!(!was_left, "joined after the process had left");
                            let x: Vector = table.from_elem(2, 1).unwrap();
                            assert_eq!(table.read(x).unwrap().sum(), 2);
                            joined.fetch_add(1, Ordering::Relaxed);
                        }
                        if is_left(outcome.map(drop)) {
                            break;
                        }
                        // Leaves moments without a seat, in which the process can leave.
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
            }
            let deadline = Instant::now() + TIMEOUT;
            while joined.load(Ordering::Relaxed) == 0 {
                assert!(Instant::now() < deadline, "nobody joins");
                std::thread::yield_now();
            }
            while segment.leave().is_err() {
                assert!(Instant::now() < deadline, "no moment without a seat");
                std::thread::yield_now();
            }
            left.store(true, Ordering::Release);
        });
        assert_eq!(look(at), 3);
        // The participants have left all that they had in the segment, not in a private copy.
        let table = HandleTable::join(&other).unwrap();
        assert_eq!(table.reap().unwrap().seats, 0);
        assert_eq!(table.verify().unwrap().live, 1, "{joined:?} joined");
    }
}

/// Of threads that leave at once, none returns before the stores of the process are its own.
pub fn a_thread_that_has_left_stores_into_no_segment() {
    for _ in 0..200 {
        let segment = options().anonymous().unwrap();
        let other = Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        let (x, at) = detached(&segment, 1, 3);
        let (address, start) = (at.expose_provenance(), Barrier::new(2));
        std::thread::scope(|scope| {
            for value in [5, 7] {
                let (segment, start) = (&segment, &start);
                scope.spawn(move || {
                    start.wait();
                    segment.leave().unwrap();
                    let place = std::ptr::with_exposed_provenance::<AtomicU64>(address);
                    // SAFETY: the segment is mapped, and both threads store atomically.
                    unsafe { &*place }.store(value, Ordering::Relaxed);
                });
            }
        });
        let table = HandleTable::join(&other).unwrap();
        assert_eq!(table.read(x).unwrap().to_vec(), [3]);
    }
}

/// A copy of a segment's file has the same handles, seats and epochs. A table of the copy gives no
/// lease of the original back, and no pin.
pub fn a_lease_of_a_copied_segment_is_another_one() {
    let (name, copied) = (Name::new("original"), Name::new("copied"));
    let first = options().persistent(true).create(&name.0).unwrap();
    let (x, _) = detached(&first, 1, 3);
    let [from, to] = [&name, &copied].map(Name::path);
    std::fs::copy(from, to).unwrap();
    let second = options().open(&copied.0).unwrap();
    let [first, second] = [first, second].map(|segment| HandleTable::join(&segment).unwrap());
    assert_eq!(first.seat().unwrap(), second.seat().unwrap());
    let mut locked = first.lock(x, Mode::Write).unwrap();
    let guard = second.write(x).unwrap();
    let refused = second.unlock(&mut locked, false).unwrap_err();
    assert!(matches!(refused, LeaseError::NotHeld { .. }), "{refused}");
    assert!(second.write(x).is_err(), "the guard's lease was given back");
    drop(guard);
    first.unlock(&mut locked, false).unwrap();
    let (mut pin, _other) = (first.pin_raw(x).unwrap(), second.pin(x).unwrap());
    assert!(second.unpin(&mut pin).is_err());
    assert_eq!(second.info(x).unwrap().pins.len(), 1);
    first.unpin(&mut pin).unwrap();
}

/// The hook releases the parent of a child that never uses the segment.
pub fn a_fork_hook_lets_a_dead_parent_be_reaped() {
    for hook in [false, true] {
        let segment = options().anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let (told, asked) = (Pipe::new(), Pipe::new());
        let parent = Child::fork(|| {
            table.seat().unwrap();
            let idle = Child::fork(|| {
                if hook {
                    segment.after_fork().unwrap();
                    segment.after_fork().unwrap();
                }
                told.send(0);
                asked.receive();
                // A table that crossed rejoins at its first use, after the hook as before.
                table.seat().unwrap();
                told.send(0);
                asked.receive();
            });
            std::mem::forget(idle);
            sleep_for_ever();
        });
        told.receive();
        parent.kill();
        let reaped = table.reap().unwrap().seats;
        assert_eq!(reaped, usize::from(hook), "with the hook: {hook}");
        asked.send(0);
        told.receive();
        let reaped = table.reap().unwrap().seats;
        assert_eq!(reaped, usize::from(!hook));
        asked.send(0);
    }
    let private = options().in_process().unwrap();
    private.after_fork().unwrap();
    let child = Child::fork(|| {
        let refused = private.after_fork();
        assert!(matches!(refused, Err(SegmentError::NotShared)));
    });
    child.join();
}

/// For a moment the private mapping lies beside the shared one, and needs its own address space.
pub fn without_address_space_nothing_changes() {
    let segment = options().capacity(1 << 30).anonymous().unwrap();
    let (x, at) = detached(&segment, 10_000, 7);
    let used = {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    };
    let limit = |bytes| {
        let all = rustix::process::getrlimit(rustix::process::Resource::As);
        let limit = rustix::process::Rlimit {
            current: bytes,
            maximum: all.maximum,
        };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    };
    limit(Some(used + (256 << 20)));
    let refused = segment.leave().unwrap_err();
    assert!(
        matches!(refused, SegmentError::AddressSpace { .. }),
        "{refused}"
    );
    let table = HandleTable::join(&segment).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 70_000);
    drop(table);
    limit(None);
    segment.leave().unwrap();
    assert_eq!(look(at), 7);
}

/// A shared table leaves with its pins: no store through them reaches an array of another process.
pub fn a_shared_table_leaves_with_its_pins() {
    let name = Name::new("leave-pins");
    let segment = options().create(&name.0).unwrap();
    let other = options().open(&name.0).unwrap();
    let others = HandleTable::join(&other).unwrap();
    let table = SharedTable::of(&segment).unwrap();
    let [x, y] = [(); 2].map(|()| table.from_elem(1000, 7u64).unwrap());
    let [kept, lost] = [x, y].map(|x| table.pin(x).unwrap());
    let [at, lost_at] = [&kept, &lost].map(|pin| pin.as_ptr().as_ptr().cast::<u64>());

    // Another seat of the process refuses it, and nothing has changed.
    let second = HandleTable::join(&segment).unwrap();
    // SAFETY: of these calls: there are no guards and no builders, and no other thread.
    let refused = unsafe { table.leave([&kept]) }.unwrap_err();
    let seats = |error: &JoinError| match error {
        JoinError::Segment(SegmentError::Joined { seats }) => *seats,
        error => panic!("{error}"),
    };
    assert_eq!(seats(&refused), 2);
    drop(second);
    store(at, 8);
    assert_eq!(others.pin(x).unwrap().len(), 8000);
    assert_eq!(table.read(x).unwrap()[0], 8);

    // SAFETY: as above.
    unsafe { table.leave([&kept]) }.unwrap();
    assert_eq!(others.reap().unwrap().seats, 1);
    assert!(others.read(x).is_err(), "it was freed with its owner");
    let made: Vec<Vector> = (0..40)
        .map(|_| others.from_elem(1000, 5).unwrap())
        .collect();
    assert_eq!((look(at), look(at.wrapping_add(999))), (8, 7), "the copy");
    for at in [at, lost_at] {
        (0..1000).for_each(|index| store(at.wrapping_add(index), 9));
    }
    for &array in &made {
        assert_eq!(others.read(array).unwrap().sum(), 5000);
    }
    assert!(table.zeros::<u64, _>(3).is_err() && table.pin(x).is_err());
    // SAFETY: as above.
    assert!(is_left(unsafe { table.leave([]) }));
    drop((kept, lost, table));
    assert!(others.verify().unwrap().is_clean());
    drop((others, other));
    assert!(!name.exists());
    assert_eq!(look(at), 9);
    let own = SharedTable::of(&Segment::in_process().unwrap()).unwrap();
    // SAFETY: as above.
    assert!(unsafe { own.leave([]) }.is_err());
}
