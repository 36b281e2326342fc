//! Locks of a user who may only read the file.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ndarray::Axis;
use ndshm::error::{JoinError, LeaseError, PoolError};
use ndshm::{HandleTable, Observer, Pool};

use crate::support::{Child, DEADLINE, Flag, Name, Pipe};
use crate::{become_stranger, may_be_others, options};

/// Asks for a read lock on the byte of a seat. A read-only descriptor suffices.
fn lock_seat(reader: &fs::File, seat: i64, command: libc::c_int) {
    // SAFETY: any bytes are a value of this struct of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_len = 1;
    lock.l_start = (1 << 62) + seat;
    // SAFETY: `lock` is the argument of the commands that are passed here.
    unsafe { libc::fcntl(reader.as_raw_fd(), command, &lock) };
}

/// Locks the bytes of these seats, except for those of living participants. The descriptor holds
/// the locks.
fn lock_seats(name: &Name, seats: std::ops::Range<i64>) -> fs::File {
    let reader = fs::File::open(name.path()).unwrap();
    for seat in seats {
        lock_seat(&reader, seat, libc::F_OFD_SETLK);
    }
    reader
}

/// Waits for a lock on the byte of a seat, and holds it until this process is killed.
fn wait_for_lock(name: &Name, seat: i64) {
    let reader = fs::File::open(name.path()).unwrap();
    lock_seat(&reader, seat, libc::F_OFD_SETLKW);
    std::thread::sleep(4 * DEADLINE);
}

pub fn a_read_lock_of_another_process_is_named() {
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
pub fn a_lock_on_a_dead_workers_seat_ends_the_call() {
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

pub fn a_join_passes_over_a_locked_seat() {
    let name = Name::new("passed-over");
    let segment = options().create(&name.0).unwrap();
    let _first = HandleTable::join(&segment).unwrap();
    let reader = lock_seats(&name, 1..2);
    let second = HandleTable::join(&segment).unwrap();
    assert_eq!(second.seat().unwrap(), 2);
    drop(reader);
    assert_eq!(HandleTable::join(&segment).unwrap().seat().unwrap(), 1);
}
