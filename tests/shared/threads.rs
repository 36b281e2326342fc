//! Threads of one process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use ndarray::{Array2, Dimension, Ix1, IxDyn, ShapeBuilder, array};
use ndshm::element::{DType, Order, ScalarType};
use ndshm::error::{AllocError, LeaseError, NameError};
use ndshm::shared::{
    SharedBuilder, SharedPin, SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard,
    SharedWriteGuard,
};
use ndshm::untyped::{Locked, Mode};
use ndshm::{AnyHandle, Element, Handle, HandleTable, Observer, Segment, SharedTable};

use crate::support::{Child, DEADLINE, sleep_for_ever};

pub type Vector = Handle<u64, Ix1>;

pub fn segment() -> Segment {
    Segment::options()
        .capacity(8 << 20)
        .seats(8)
        .anonymous()
        .unwrap()
}

/// Returns the number of occupied seats.
pub fn seats(segment: &Segment) -> usize {
    let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
    observer.seats().unwrap().len()
}

pub fn is_busy<T>(outcome: &Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Busy { pid, .. }) if *pid == std::process::id())
}

fn is_poisoned<T>(outcome: Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Poisoned { .. }))
}

/// Asserts that a segment is undamaged, and that nothing is left but `arrays` and the seats.
pub fn assert_clean(segment: &Segment, arrays: usize) {
    let table = HandleTable::join(segment).unwrap();
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    let held = (
        found.readers,
        found.writers,
        found.reserved,
        found.in_transit,
    );
    assert_eq!(held, (0, 0, 0, 0), "{found}");
    assert_eq!(table.arrays().count(), arrays);
}

/// What the signatures promise.
fn assert_send<T: Send + Sync + 'static>() {}

pub fn one_seat_serves_all_threads() {
    assert_send::<SharedTable>();
    assert_send::<SharedReadGuard<f64, IxDyn>>();
    assert_send::<SharedWriteGuard<f64, IxDyn>>();
    assert_send::<SharedUntypedReadGuard>();
    assert_send::<SharedUntypedWriteGuard>();
    assert_send::<SharedBuilder>();
    assert_send::<Locked>();
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let made: Vec<Vector> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|number| {
                let segment = &segment;
                scope.spawn(move || {
                    let table = SharedTable::of(segment).unwrap();
                    let kept = table.from_elem(100, number).unwrap();
                    for turn in 0..500 {
                        let x = table.from_elem(50, turn).unwrap();
                        table.write(x).unwrap()[49] += 1;
                        assert_eq!(table.read(x).unwrap()[49], turn + 1);
                        table.free(x).unwrap();
                    }
                    kept
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(seats(&segment), 1);
    // The arrays of the threads outlive them.
    for (number, &x) in made.iter().enumerate() {
        assert_eq!(table.read(x).unwrap().sum(), 100 * number as u64);
        assert_eq!(table.info(x).unwrap().owner, Some(std::process::id()));
    }
    assert_eq!(table.arrays().count(), 8);
    drop(table);
    assert_eq!(seats(&segment), 0);
    assert_clean(&segment, 0);
}

pub fn writers_and_readers_of_two_threads_exclude_each_other() {
    let table = SharedTable::of(&segment()).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let beside = || {
        thread::scope(|scope| {
            let all = scope.spawn(|| {
                let busy = table.write(x).unwrap_err().to_string();
                (
                    busy,
                    is_busy(&table.read(x)),
                    is_busy(&table.read_untyped(x)),
                    is_busy(&table.write_untyped(x)),
                    is_busy(&table.lock(x, Mode::Recover)),
                    is_busy(&table.recover(x, |_| ())),
                )
            });
            all.join().unwrap()
        })
    };
    let guard = table.write(x).unwrap();
    let (busy, read, ..) = beside();
    assert!(
        busy.contains("this process") && busy.contains("unlock"),
        "{busy}"
    );
    assert!(read);
    drop(guard);
    let guard = table.write_untyped(x).unwrap();
    assert!(matches!(beside(), (_, true, true, true, true, true)));
    drop(guard);
    let guard = table.read(x).unwrap();
    assert!(matches!(beside(), (_, false, false, true, true, true)));
    drop(guard);
    // No addition is lost.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let mut locked = table.lock_timeout(x, Mode::Write, DEADLINE).unwrap();
                    let mut first = locked.bytes().cast::<u64>();
                    // SAFETY: the array is locked for writing, and has 4 elements.
                    *unsafe { first.as_mut() } += 1;
                    table.unlock(&mut locked, false).unwrap();
                }
            });
        }
    });
    assert_eq!(table.read(x).unwrap()[0], 4000);
}

pub fn readers_of_two_threads_count_privately() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let other = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let here = table.read(x).unwrap();
    let there = thread::scope(|scope| {
        scope
            .spawn(|| {
                let kept = table.read(x).unwrap();
                drop(table.read_untyped(x).unwrap());
                kept
            })
            .join()
            .unwrap()
    });
    assert_eq!(other.info(x).unwrap().readers.len(), 1, "one bit for all");
    drop(here);
    assert!(is_busy(&other.write(x)), "the other thread's lease counts");
    drop(there);
    other.write(x).unwrap().fill(1);
    // A handle table of this process is another participant.
    let guard = other.write(x).unwrap();
    assert!(is_busy(&table.read(x)));
    drop(guard);
}

pub fn guards_move_between_threads() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let x = table.zeros::<u64, _>(1000).unwrap();
    for turn in 1..=50u64 {
        let mut guard = table.write(x).unwrap();
        let filled = thread::spawn(move || {
            guard.fill(turn);
            guard
        });
        // Dropped by a third thread.
        thread::spawn(move || drop(filled.join().unwrap()))
            .join()
            .unwrap();
        let guards: Vec<_> = (0..4).map(|_| table.read(x).unwrap()).collect();
        let sums = guards
            .into_iter()
            .map(|guard| thread::spawn(move || guard.sum()));
        for sum in sums.collect::<Vec<_>>() {
            assert_eq!(sum.join().unwrap(), 1000 * turn);
        }
        assert_eq!(table.write(x).unwrap().handle(), x.into());
    }
    // Freed under a guard: the bytes stay until its drop.
    let guard = table.read(x).unwrap();
    table.free(x).unwrap();
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    for _ in 0..20 {
        table.from_elem(1000, 9u64).unwrap();
    }
    assert!(guard.iter().all(|&value| value == 50));
    drop((guard, table));
    assert_clean(&segment, 0);
}

pub fn functions_of_the_caller_may_use_the_table() {
    let table = SharedTable::of(&segment()).unwrap();
    let again = || {
        let x = table.zeros::<u64, _>(3).unwrap();
        table.write(x).unwrap().fill(1);
        let sum = table.read(x).unwrap().sum();
        table.free(x).unwrap();
        sum
    };
    let x = table.from_shape_fn(5, |i| again() + i as u64).unwrap();
    assert_eq!(table.read(x).unwrap().view(), array![3, 4, 5, 6, 7]);
    // A guard of another array ends in the function, and so does a clone of the table.
    let mut guard = Some((
        table.write(table.zeros::<u8, _>(3).unwrap()).unwrap(),
        table.clone(),
    ));
    let seen = table.recover(x, |mut x| {
        x[0] = again();
        drop(guard.take());
        x.sum()
    });
    assert_eq!(seen.unwrap(), 3 + 4 + 5 + 6 + 7);
    assert!(guard.is_none());
}

pub fn a_panic_poisons_and_locks_nobody_out() {
    let table = SharedTable::of(&segment()).unwrap();
    let x = table.zeros::<u64, _>(3).unwrap();
    for lease in 0..4 {
        let panicked = thread::scope(|scope| {
            let life = || {
                let _quiet = (
                    (lease == 0).then(|| table.write(x).unwrap()),
                    (lease == 1).then(|| table.write_untyped(x).unwrap()),
                    (lease == 2).then(|| table.recover(x, |_| stop())),
                    (lease == 3).then(|| table.read(x).unwrap()),
                );
                stop();
            };
            scope.spawn(life).join()
        });
        assert!(panicked.is_err());
        assert_eq!(is_poisoned(table.read(x)), lease < 3, "lease {lease}");
        table.recover(x, |mut x| x.fill(0)).unwrap();
        assert!(table.write(x).is_ok());
    }
    // A guard that a thread has taken while it unwinds, and that another thread drops by a panic.
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        struct Sender<'t>(&'t SharedTable, Vector);
        impl Drop for Sender<'_> {
            fn drop(&mut self) {
                let guard = self.0.write(self.1).unwrap();
                let life = move || {
                    let _guard = guard;
                    stop();
                };
                assert!(thread::spawn(life).join().is_err());
            }
        }
        let _sender = Sender(&table, x);
        stop();
    }));
    assert!(unwound.is_err());
    assert!(is_poisoned(table.read(x)));
    table.recover(x, |mut x| x.fill(0)).unwrap();
    // A drop while another panic is under way poisons nothing.
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        struct Late<'t>(&'t SharedTable, Vector);
        impl Drop for Late<'_> {
            fn drop(&mut self) {
                self.0.write(self.1).unwrap().fill(1);
            }
        }
        let _late = Late(&table, x);
        stop();
    }));
    assert!(unwound.is_err());
    assert_eq!(table.read(x).unwrap().sum(), 3);
    // A panic while an array is made allocates nothing.
    let before = table.arrays().count();
    let made = catch_unwind(AssertUnwindSafe(|| {
        table.from_shape_fn(3, |_| -> u64 { stop() })
    }));
    assert!(made.is_err());
    assert_eq!(table.arrays().count(), before);
    let segment = table.segment().clone();
    drop(table);
    assert_clean(&segment, 0);
}

fn stop() -> ! {
    std::panic::resume_unwind(Box::new(()))
}

pub fn arrays_equal_those_of_a_handle_table() {
    let segment = segment();
    let (table, other) = (
        SharedTable::of(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    fn same<T: Element + PartialEq + std::fmt::Debug>(
        other: &HandleTable,
        one: AnyHandle,
        two: AnyHandle,
    ) {
        let (one, two) = (
            other
                .read(one.downcast::<T, IxDyn>(other).unwrap())
                .unwrap(),
            other
                .read(two.downcast::<T, IxDyn>(other).unwrap())
                .unwrap(),
        );
        assert_eq!((one.view(), one.strides()), (two.view(), two.strides()));
    }
    for shape in [&[3, 4][..], &[], &[7], &[0, 3], &[2, 1, 5]] {
        for fortran in [false, true] {
            let shape = || IxDyn(shape).set_f(fortran);
            let [one, two] = [
                table.from_elem(shape(), 7i32).unwrap(),
                other.from_elem(shape(), 7i32).unwrap(),
            ];
            same::<i32>(&other, one.into(), two.into());
            let [one, two] = [
                table.zeros::<bool, _>(shape()).unwrap(),
                other.zeros::<bool, _>(shape()).unwrap(),
            ];
            same::<bool>(&other, one.into(), two.into());
            let number = |index: IxDyn| index.slice().iter().sum::<usize>() as f64;
            let [one, two] = [
                table.from_shape_fn(shape(), number).unwrap(),
                other.from_shape_fn(shape(), number).unwrap(),
            ];
            same::<f64>(&other, one.into(), two.into());
        }
    }
    let own = Array2::from_shape_fn((300, 400), |(i, j)| (i * j) as f32);
    for view in [own.view(), own.t(), own.slice(ndarray::s![..;3, ..;2])] {
        let [one, two] = [
            table.from_array(&view).unwrap(),
            other.from_array(&view).unwrap(),
        ];
        same::<f32>(&other, one.into(), two.into());
    }
    let dtype = DType::from(ScalarType::U16);
    let bytes = [1, 0, 2, 0, 3, 0, 4, 0];
    let [one, two] = [
        table.from_bytes(&dtype, &[2, 2], Order::F, &bytes).unwrap(),
        other.from_bytes(&dtype, &[2, 2], Order::F, &bytes).unwrap(),
    ];
    same::<u16>(&other, one, two);
    let wrong = table.from_bytes(&dtype, &[2, 2], Order::F, &bytes[1..]);
    assert!(
        matches!(wrong, Err(AllocError::WrongLength { .. })),
        "{wrong:?}"
    );
    // Recycled memory is zeroed where it must be.
    for _ in 0..3 {
        let x = table.from_elem(100, 0xffu8).unwrap();
        table.free(x).unwrap();
        let x = table.zeros::<u8, _>(100).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 0);
        table.write(x).unwrap().fill(0xff);
        table.free(x).unwrap();
        let x = table.uninit::<bool, _>(100).unwrap();
        assert!(!table.read(x).unwrap()[99]);
        table.free(x).unwrap();
        let bools = DType::from(ScalarType::Bool);
        let x = table.uninit_untyped(&bools, &[100], Order::C).unwrap();
        assert_eq!(table.read_untyped(x).unwrap().bytes(), [0; 100]);
        table.free(x).unwrap();
    }
    assert!(matches!(
        table.zeros::<u8, _>(IxDyn(&[1; 9])),
        Err(AllocError::TooManyAxes { axes: 9 })
    ));
    let far = table.zeros::<u64, _>((usize::MAX, 2));
    assert!(matches!(far, Err(AllocError::TooLarge { .. })), "{far:?}");
    // Bytes that are no bools are found without a lease that stays.
    let x = table.zeros::<bool, _>(3).unwrap();
    table.write_untyped(x).unwrap().bytes_mut()[1] = 2;
    for refused in [table.read(x).map(drop), table.write(x).map(drop)] {
        assert!(
            matches!(refused, Err(LeaseError::InvalidElement { .. })),
            "{refused:?}"
        );
    }
    table.write_untyped(x).unwrap().bytes_mut()[1] = 1;
    assert!(table.read(x).unwrap()[1]);
    names(&table, &other);
}

fn names(table: &SharedTable, other: &HandleTable) {
    let [x, y] = [(); 2].map(|()| table.zeros::<u64, _>(2).unwrap());
    table.publish("a", x).unwrap();
    assert_eq!(other.find::<u64, Ix1>("a").unwrap(), x);
    assert!(matches!(
        table.publish("a", y),
        Err(NameError::Taken { .. })
    ));
    assert_eq!(table.replace("a", y).unwrap(), Some(x.into()));
    table.rename("a", "b").unwrap();
    assert_eq!(table.find_any("b").unwrap(), y.into());
    assert_eq!(table.names("").unwrap()[0].name, "b");
    assert_eq!(table.unpublish("b").unwrap(), y.into());
    assert!(matches!(
        table.find::<u64, Ix1>("b"),
        Err(NameError::NotFound { .. })
    ));
    table.detach(x).unwrap();
    assert_eq!(table.info(x).unwrap().owner, None);
    table.adopt(x).unwrap();
    assert_eq!(table.info(x).unwrap().owner, Some(std::process::id()));
}

pub fn values_are_unlocked_once_and_by_their_table() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let other = SharedTable::new(HandleTable::join(&segment).unwrap());
    let x = table.zeros::<u64, _>(4).unwrap();
    for mode in [Mode::Read, Mode::Write, Mode::Recover] {
        let mut locked = table.lock(x, mode).unwrap();
        let refused = other.unlock(&mut locked, false);
        assert!(
            matches!(refused, Err(LeaseError::NotHeld { .. })),
            "{refused:?}"
        );
        let twice = thread::scope(|scope| {
            let unlock = || {
                (
                    table.unlock(&mut locked, false),
                    table.unlock(&mut locked, false),
                )
            };
            scope.spawn(unlock).join().unwrap()
        });
        assert!(
            matches!(twice, (Ok(()), Err(LeaseError::NotHeld { .. }))),
            "{twice:?}"
        );
        assert!(table.write(x).is_ok());
    }
}

pub fn a_wait_for_a_lease_ends() {
    let table = SharedTable::of(&segment()).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let guard = table.write(x).unwrap();
    let start = Instant::now();
    let wait = Duration::from_millis(30);
    let timed_out = table.lock_timeout(x, Mode::Read, wait);
    let Err(LeaseError::TimedOut { pid, waited, .. }) = timed_out else {
        panic!("{timed_out:?}");
    };
    assert_eq!((pid, waited), (std::process::id(), wait));
    assert!(start.elapsed() >= wait);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| table.lock_timeout(x, Mode::Write, DEADLINE));
        thread::sleep(wait);
        // The table serves others while one waits.
        assert!(table.zeros::<u8, _>(3).is_ok() && !waiting.is_finished());
        drop(guard);
        table
            .unlock(&mut waiting.join().unwrap().unwrap(), false)
            .unwrap();
    });
    table.free(x).unwrap();
    let stale = table.lock_timeout(x, Mode::Read, DEADLINE);
    assert!(matches!(stale, Err(LeaseError::Stale { .. })), "{stale:?}");
}

pub fn a_wait_takes_back_what_the_dead_held() {
    let table = SharedTable::of(&segment()).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let pipe = crate::support::Pipe::new();
    let child = Child::fork(|| {
        let _guard = table.write(x).unwrap();
        pipe.send(1);
        sleep_for_ever();
    });
    pipe.receive();
    let killed = thread::scope(|scope| {
        let waiting = scope.spawn(|| table.lock_timeout(x, Mode::Write, DEADLINE));
        child.kill();
        waiting.join().unwrap()
    });
    assert!(is_poisoned(killed));
    table.recover(x, |mut x| x.fill(0)).unwrap();
}

pub fn pages_are_given_back_after_a_free() {
    let options = Segment::options().capacity(64 << 20).seats(4).retain(0);
    let segment = options.anonymous().unwrap();
    let table = SharedTable::of(&segment).unwrap();
    let blocks = || {
        use std::os::unix::fs::MetadataExt;
        let file = segment.fd().unwrap().try_clone_to_owned().unwrap();
        std::fs::File::from(file).metadata().unwrap().blocks() * 512
    };
    let before = blocks();
    let x = table.from_elem(1 << 20, 7u8).unwrap();
    assert!(blocks() >= before + (1 << 20));
    table.free(x).unwrap();
    assert!(blocks() < before + (1 << 20), "by the free");
    // By the last lease, which another thread ends.
    let x = table.from_elem(1 << 20, 7u8).unwrap();
    let guard = table.read(x).unwrap();
    table.free(x).unwrap();
    assert!(blocks() >= before + (1 << 20) && guard[0] == 7);
    thread::spawn(move || drop(guard)).join().unwrap();
    assert!(blocks() < before + (1 << 20));
    let x = table.zeros::<u8, _>(1 << 20).unwrap();
    assert!(blocks() < before + (1 << 20), "clean pages are not touched");
    assert_eq!(table.read(x).unwrap().sum(), 0);
    table.free(x).unwrap();
    // With pages retained, a trim gives them back.
    let keeping = SharedTable::of(&self::segment()).unwrap();
    let x = keeping.from_elem(1 << 20, 7u8).unwrap();
    keeping.free(x).unwrap();
    assert!(keeping.trim().unwrap() >= 1 << 20);
    // The extent is used again, and clean.
    let x = keeping.zeros::<u8, _>(1 << 20).unwrap();
    assert_eq!(keeping.read(x).unwrap().sum(), 0);
    drop(table);
    assert_clean(&segment, 0);
}

pub fn memory_that_is_refused_leaves_nothing_behind() {
    let segment = Segment::options()
        .capacity(1 << 45)
        .seats(4)
        .anonymous()
        .unwrap();
    let table = SharedTable::of(&segment).unwrap();
    for _ in 0..3 {
        let refused = table.uninit::<u8, _>(1 << 44);
        assert!(
            matches!(refused, Err(AllocError::NoMemory(_))),
            "{refused:?}"
        );
        let x = table.from_elem(100, 1u8).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
        table.free(x).unwrap();
    }
    drop(table);
    assert_clean(&segment, 0);
}

pub fn the_last_clone_or_guard_releases_the_seat() {
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let x = table.zeros::<u64, _>(3).unwrap();
    let guard = table.read(x).unwrap();
    let builder = table.builder(&u64::dtype(), &[3], Order::C).unwrap();
    let clone = table.clone();
    drop(table);
    drop(clone);
    assert_eq!(guard.sum(), 0);
    assert_eq!(seats(&segment), 1);
    drop(guard);
    let table = SharedTable::of(&segment).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 0, "the table of the builder");
    drop((table, builder));
    assert_eq!(seats(&segment), 0);
    for _ in 0..100 {
        let table = SharedTable::of(&segment).unwrap();
        assert_eq!(table.seat().unwrap(), 0);
    }
    assert_clean(&segment, 0);
}

/// Pins of several threads count privately, and keep the bytes of a freed array.
pub fn pins_keep_the_bytes_of_a_freed_array() {
    assert_send::<SharedPin>();
    let segment = segment();
    let table = SharedTable::of(&segment).unwrap();
    let x = table.from_elem(1000, 7u64).unwrap();
    let first = table.pin(x).unwrap();
    let second = thread::scope(|scope| scope.spawn(|| table.pin(x).unwrap()).join().unwrap());
    assert_eq!(table.pins().unwrap(), [(x.into(), 2)]);
    // A pin excludes nobody.
    drop(table.write(x).unwrap());
    table.free(x).unwrap();
    assert!(matches!(table.pin(x), Err(LeaseError::Stale { .. })));
    drop(first);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..300u64 {
                    let y = table.from_elem(1000, turn).unwrap();
                    let pin = table.pin(y).unwrap();
                    table.free(y).unwrap();
                    // SAFETY: the array is freed, so nobody can write it any more.
                    let bytes = unsafe { pin.bytes() };
                    assert!(bytes.chunks(8).all(|value| value == turn.to_ne_bytes()));
                }
            });
        }
    });
    assert_eq!(
        (second.handle(), second.len(), second.is_kept()),
        (x.into(), 8000, true)
    );
    // SAFETY: as above.
    let bytes = unsafe { second.bytes() };
    assert!(bytes.chunks(8).all(|value| value == 7u64.to_ne_bytes()));
    drop(table);
    assert_eq!(seats(&segment), 1, "the pin shares the table");
    drop(second);
    assert_clean(&segment, 0);
}
