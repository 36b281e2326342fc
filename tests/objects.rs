//! Objects between processes: other processes read them in place, readers keep them, and a reap
//! frees those of the dead.

mod support;

use std::cell::Cell;
use std::collections::HashMap;

use ndarray::{Array1, Array2, Ix1, Ix2};
use ndshm::error::{LeaseError, ObjectError};
use ndshm::object::{ObjectHandle, Tensor};
use ndshm::{HandleTable, Pool, Segment};
use serde::{Deserialize, Serialize};
use support::{Child, Name, Pipe};

fn main() {
    support::run_tests![
        a_forked_child_reads_in_place,
        another_process_reads_in_a_named_segment,
        a_freed_object_stays_until_its_readers_leave,
        a_killed_reader_is_reaped,
        an_object_is_freed_with_its_dead_owner,
        an_object_that_is_being_stored_belongs_to_the_parent,
        a_guard_that_crossed_a_fork_belongs_to_the_parent,
        a_pool_may_fork_right_after_a_large_object,
    ];
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Layer<'a> {
    #[serde(borrow)]
    weights: Tensor<'a, f32, Ix2>,
    #[serde(borrow)]
    bias: Tensor<'a, f32, Ix1>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Model<'a> {
    name: &'a str,
    #[serde(borrow)]
    layers: Vec<Layer<'a>>,
    steps: u64,
    notes: HashMap<String, Option<f64>>,
}

fn model() -> Model<'static> {
    let layer = |at: usize| Layer {
        weights: Array2::from_shape_fn((100, 50 + at), |(i, j)| (i * j + at) as f32).into(),
        bias: Array1::from_elem(50 + at, at as f32).into(),
    };
    Model {
        name: "a model",
        layers: (0..4).map(layer).collect(),
        steps: 12,
        notes: HashMap::from([("loss".to_owned(), Some(0.5)), ("none".to_owned(), None)]),
    }
}

fn table() -> HandleTable {
    let segment = Segment::options().capacity(64 << 20).seats(8).anonymous();
    HandleTable::join(&segment.unwrap()).unwrap()
}

/// Returns the line of the mapping that contains `at`.
fn mapping_of<T>(at: *const T) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let covers = |line: &&str| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(start, end)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&at.addr())
        })
    };
    maps.lines().find(covers).unwrap_or_default().to_owned()
}

/// Reads the model in place, and asserts that nothing was copied.
#[track_caller]
fn read_and_check(table: &HandleTable, handle: ObjectHandle, path: &str) {
    let guard = table.open_object(handle).unwrap();
    let read: Model<'_> = guard.get().unwrap();
    assert_eq!(read, model());
    for layer in &read.layers {
        assert!(layer.weights.is_borrowed() && layer.bias.is_borrowed());
        for place in [
            mapping_of(layer.weights.as_ptr()),
            mapping_of(layer.bias.as_ptr()),
        ] {
            assert!(place.contains(path), "{place:?} is not in the segment");
        }
    }
    assert!(mapping_of(read.name.as_ptr()).contains(path));
    // A copy is elsewhere.
    let copy = read.layers[0].weights.clone().into_owned();
    assert!(!mapping_of(copy.as_ptr()).contains(path));
}

fn a_forked_child_reads_in_place() {
    let table = table();
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        let handle = ObjectHandle::from_bits(pipe.receive());
        read_and_check(&table, handle, "memfd:");
    });
    // The object is stored after the fork.
    let handle = table.put_object(&model()).unwrap();
    pipe.send(handle.to_bits());
    child.join();
    read_and_check(&table, handle, "memfd:");
    assert_eq!(table.verify().unwrap().readers, 0);
}

fn another_process_reads_in_a_named_segment() {
    let name = Name::new("objects");
    let pipe = Pipe::new();
    // The child is forked before the segment exists: it knows only the name and the handle.
    let child = Child::fork(|| {
        let handle = ObjectHandle::from_bits(pipe.receive());
        let table = HandleTable::open(&name.0).unwrap();
        read_and_check(&table, handle, &name.0);
    });
    let options = Segment::options().capacity(16 << 20).seats(4);
    let table = HandleTable::join(&options.create(&name.0).unwrap()).unwrap();
    let handle = table.put_object(&model()).unwrap();
    pipe.send(handle.to_bits());
    child.join();
}

fn a_freed_object_stays_until_its_readers_leave() {
    let table = table();
    let (opened, freed) = (Pipe::new(), Pipe::new());
    let handle = table.put_object(&model()).unwrap();
    let child = Child::fork(|| {
        let guard = table.open_object(handle).unwrap();
        let read: Model<'_> = guard.get().unwrap();
        opened.send(1);
        freed.receive();
        assert_eq!(read, model());
        assert_eq!(guard.get::<Model<'_>>().unwrap(), model());
        let error = table.open_object(handle).unwrap_err();
        assert!(matches!(
            error,
            ObjectError::Lease(LeaseError::Stale { .. })
        ));
    });
    opened.receive();
    table.free(handle).unwrap();
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.retired, found.readers), (0, 1, 1));
    // New objects take other memory.
    let mut other = model();
    other.name = "another";
    let others: Vec<_> = (0..8).map(|_| table.put_object(&other).unwrap()).collect();
    freed.send(1);
    child.join();
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.retired, found.readers), (8, 0, 0));
    for handle in others {
        assert_eq!(
            table
                .open_object(handle)
                .unwrap()
                .get::<Model<'_>>()
                .unwrap(),
            other
        );
        table.free(handle).unwrap();
    }
}

fn a_killed_reader_is_reaped() {
    let table = table();
    let opened = Pipe::new();
    let handle = table.put_object(&model()).unwrap();
    let child = Child::fork(|| {
        let guard = table.open_object(handle).unwrap();
        let read: Model<'_> = guard.get().unwrap();
        opened.send(read.steps);
        loop {
            std::thread::park();
        }
    });
    assert_eq!(opened.receive(), 12);
    assert_eq!(table.info(handle).unwrap().readers, [child.pid()]);
    table.free(handle).unwrap();
    child.kill();
    assert_eq!(table.verify().unwrap().retired, 1);
    assert_eq!(table.reap().unwrap().seats, 1);
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.retired, found.readers), (0, 0, 0));
    assert!(found.is_clean(), "{found:?}");
}

fn an_object_is_freed_with_its_dead_owner() {
    let table = table();
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        let kept = table.put_object(&model()).unwrap();
        let lost = table.put_object(&model()).unwrap();
        table.detach(kept).unwrap();
        pipe.send(kept.to_bits());
        pipe.send(lost.to_bits());
        loop {
            std::thread::park();
        }
    });
    let [kept, lost] = [(); 2].map(|()| ObjectHandle::from_bits(pipe.receive()));
    read_and_check(&table, lost, "memfd:");
    child.kill();
    table.reap().unwrap();
    let error = table.open_object(lost).unwrap_err();
    assert!(
        matches!(error, ObjectError::Lease(LeaseError::Stale { .. })),
        "{error}"
    );
    read_and_check(&table, kept, "memfd:");
    table.adopt(kept).unwrap();
    table.free(kept).unwrap();
}

/// A value that forks when it is written for the second time: the parent's version is stored.
struct Forks {
    /// The number of times that it was written.
    rounds: Cell<u32>,
    /// The result of the fork.
    pid: Cell<i32>,
}

impl Serialize for Forks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rounds.set(self.rounds.get() + 1);
        if self.rounds.get() == 2 {
            // SAFETY: this test binary starts no thread before it forks.
            self.pid.set(unsafe { libc::fork() });
        }
        serializer.serialize_u8(7)
    }
}

fn an_object_that_is_being_stored_belongs_to_the_parent() {
    let table = table();
    let value = Forks {
        rounds: Cell::new(0),
        pid: Cell::new(-1),
    };
    let outcome = table.put_object(&value);
    let pid = value.pid.get();
    if pid == 0 {
        let forked = matches!(
            outcome,
            Err(ObjectError::Alloc(ndshm::error::AllocError::Forked))
        );
        support::exit_at_once(if forked { 0 } else { 101 });
    }
    assert!(pid > 0, "it did not fork");
    let mut status = 0;
    // SAFETY: `status` is a place to write to, the pid is of an own child, which ends by itself.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    let handle = outcome.unwrap();
    assert_eq!(table.open_object(handle).unwrap().get::<u8>().unwrap(), 7);
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.reserved), (1, 0));
}

fn a_guard_that_crossed_a_fork_belongs_to_the_parent() {
    let table = table();
    let handle = table.put_object(&model()).unwrap();
    let guard = table.open_object(handle).unwrap();
    assert!(ndshm::Pool::fork(&table, 1).is_err());
    let mut guard = Some(guard);
    Child::fork(|| drop(guard.take())).join();
    assert_eq!(table.info(handle).unwrap().readers, [std::process::id()]);
    drop(guard);
    assert!(table.info(handle).unwrap().readers.is_empty());
}

/// Checks a fork right after large objects were stored: several threads copy them, and must have
/// ended when a pool forks.
fn a_pool_may_fork_right_after_a_large_object() {
    let table = table();
    let large = Tensor::from(Array1::from_elem(5 << 20, 0.5f32));
    for _ in 0..20 {
        let handle = table.put_object(&large).unwrap();
        drop(Pool::fork(&table, 1).unwrap());
        table.free(handle).unwrap();
    }
}
