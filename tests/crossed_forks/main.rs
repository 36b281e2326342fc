//! Calls all public methods of each value that can cross a fork, in the child, after the parent has
//! dropped the value and reused its memory for other arrays.
//!
//! [`METHODS`] lists the behaviour of each method. Methods that return a reference cannot refuse:
//! they are listed in [`REFERENCES`], and `Pool::fork` refuses while such a guard is held.

mod guards;
mod pools;
mod queues;
mod rounds;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Segment};
use support::{Child, Pipe};

/// The behaviour of a method in a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InChild {
    /// Acts under a lease or a seat of the child's own, and reports a freed value as freed.
    Rejoins,
    /// Returns an error that states the reason.
    Refuses,
    /// Does nothing, and leaves the parent's value alone.
    DoesNothing,
    /// Returns data of the value itself, from private memory.
    Private,
    /// Reads the segment's tables, which requires no seat.
    Looks,
}

/// Type, methods, their behaviour in a child, and the check.
pub type Row = (&'static str, &'static str, InChild, fn(&Ground));

/// Methods that return references or views. The compiler lets these cross a fork with their guard.
/// Their documentation says so: they show the parent's array, and `Pool::fork` refuses while such a
/// guard is held.
const REFERENCES: &[(&str, &str)] = &[
    ("ReadGuard", "deref, view"),
    ("WriteGuard", "deref, deref_mut, view, view_mut"),
    ("UntypedReadGuard", "bytes"),
    ("UntypedWriteGuard", "bytes, bytes_mut"),
    ("Locked", "bytes"),
    ("ArrayBuilder", "bytes_mut"),
    ("Tile", "views"),
    ("ReadyTile", "views"),
    ("Pinned, RawPin", "as_ptr, the unsafe views"),
    ("Attached", "as_ptr, as_mut_ptr, the unsafe views"),
    ("Tensor, &str, &[u8] out of an ObjectGuard", "deref"),
    ("a lent Arrow array", "values"),
];

/// One row for each value, with the behaviour of its methods in a child.
const METHODS: [&[Row]; 5] = [
    tables::METHODS,
    queues::METHODS,
    rounds::METHODS,
    guards::METHODS,
    pools::METHODS,
];

fn main() {
    if std::env::args().any(|arg| arg == "--table") {
        for (what, methods, does, _) in METHODS.concat() {
            println!("{what:14} {does:11?} {methods}");
        }
        for (what, methods) in REFERENCES {
            println!("{what:14} reference   {methods}");
        }
        return;
    }
    support::run_tests![
        methods_behave_in_a_child_as_listed,
        guards::fork_refuses_while_references_exist,
    ];
}

type Vector = Handle<u64, Ix1>;

fn is_stale(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Stale { .. })
}

/// A parent process and its segment.
pub struct Ground {
    /// The parent's table.
    pub table: HandleTable,
    go: Pipe,
}

impl Ground {
    fn new() -> Ground {
        let segment = Segment::options().capacity(4 << 20).anonymous().unwrap();
        Ground {
            table: HandleTable::join(&segment).unwrap(),
            go: Pipe::new(),
        }
    }

    /// Forks a child, drops the parent's `value`, reuses its memory for arrays of zeros, and lets
    /// the child `act` on its copy. Checks that the arrays stay zero and the tables stay valid.
    #[track_caller]
    pub fn cross<V>(&self, value: V, act: impl FnOnce(V)) {
        self.cross_and_end(value, drop, act);
    }

    /// Works like [`cross`](Ground::cross), but ends the parent's value by `end`.
    #[track_caller]
    pub fn cross_and_end<V>(&self, value: V, end: impl FnOnce(V), act: impl FnOnce(V)) {
        let mut value = Some(value);
        let mut act = Some(act);
        let child = Child::fork(|| {
            self.go.receive();
            let act = act.take().unwrap();
            act(value.take().unwrap());
        });
        end(value.take().unwrap());
        self.reuse_and_check(child);
    }

    /// Works like [`cross`](Ground::cross), but the parent keeps its value.
    #[track_caller]
    pub fn cross_kept<V>(&self, value: &mut V, act: impl FnOnce(&mut V)) {
        let mut act = Some(act);
        let child = Child::fork(|| {
            self.go.receive();
            let act = act.take().unwrap();
            act(value);
        });
        self.reuse_and_check(child);
    }

    #[track_caller]
    fn reuse_and_check(&self, child: Child) {
        let zeros: Vec<Handle<u64, Ix1>> = (2..200)
            .step_by(2)
            .flat_map(|len| [(); 8].map(|()| self.table.zeros(len).unwrap()))
            .collect();
        self.go.send(0);
        child.join();
        for handle in zeros {
            let array = self.table.read(handle).unwrap();
            assert!(array.iter().all(|&x| x == 0), "the child wrote {array:?}");
            drop(array);
            self.table.free(handle).unwrap();
        }
        self.table.reap().unwrap();
        let found = self.table.verify().unwrap();
        assert!(found.is_clean(), "{found}");
    }
}

fn methods_behave_in_a_child_as_listed() {
    let mut failed = 0;
    for (what, methods, does, check) in METHODS.concat() {
        let child = Child::fork(|| check(&Ground::new()));
        let ok = child
            .wait_within(support::DEADLINE)
            .is_some_and(|status| status.success());
        if !ok {
            println!("  {what}: {methods}: is not {does:?}");
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "rows of the table are wrong");
}
