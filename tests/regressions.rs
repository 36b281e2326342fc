//! The four faults of the classic manager of shared arrays. Each is shown on a re-creation of its
//! rules, and then in the same situation with this crate.

mod support;

use std::time::{Duration, Instant};

use ndshm::HandleTable;
use ndshm::error::LeaseError;
use support::{Child, Pipe, table};

fn main() {
    support::run_tests![
        a_new_array_does_not_alias_a_live_one,
        a_freed_handle_is_stale,
        workers_see_arrays_made_after_the_fork,
        a_dead_worker_does_not_block_others,
    ];
}

/// The old manager's book-keeping: a handle comes from a counter, an array from its place in the
/// list. The counter follows the list's length, and freeing removes an entry from the list.
#[derive(Default)]
struct OldManager {
    arrays: Vec<Vec<u64>>,
}

impl OldManager {
    fn create(&mut self, len: usize) -> usize {
        self.arrays.push(vec![0; len]);
        self.arrays.len() - 1
    }

    fn get(&mut self, handle: usize) -> Option<&mut Vec<u64>> {
        self.arrays.get_mut(handle)
    }

    fn free(&mut self, handle: usize) {
        self.arrays.remove(handle);
    }
}

fn a_new_array_does_not_alias_a_live_one() {
    let mut old = OldManager::default();
    let a = old.create(4);
    let b = old.create(4);
    old.free(a);
    let c = old.create(4);
    assert_eq!(b, c, "the old rule: two live arrays, one handle");

    let table = table();
    let a = table.zeros::<u64, _>(4).unwrap();
    let b = table.zeros::<u64, _>(4).unwrap();
    table.free(a).unwrap();
    let c = table.zeros::<u64, _>(4).unwrap();
    assert!(a != b && b != c && a != c);
    table.write(b).unwrap().fill(1);
    table.write(c).unwrap().fill(2);
    assert_eq!(table.read(b).unwrap().sum(), 4);
}

fn a_freed_handle_is_stale() {
    let mut old = OldManager::default();
    let a = old.create(4);
    let b = old.create(4);
    old.get(b).unwrap()[0] = 7;
    old.free(a);
    assert_eq!(
        old.get(a).unwrap()[0],
        7,
        "the old rule: a's handle opens b"
    );

    let table = table();
    let a = table.zeros::<u64, _>(4).unwrap();
    table.free(a).unwrap();
    for _ in 0..1000 {
        let other = table.from_elem(4, 7u64).unwrap();
        assert!(matches!(table.read(a), Err(LeaseError::Stale { .. })));
        table.free(a).unwrap_err();
        table.free(other).unwrap();
    }
}

fn workers_see_arrays_made_after_the_fork() {
    let mut old = OldManager::default();
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let late = to_child.receive() as usize;
        to_parent.send(u64::from(old.get(late).is_some()));
    });
    let late = old.create(4);
    to_child.send(late as u64);
    assert_eq!(
        to_parent.receive(),
        0,
        "the old rule: the list is private to the parent"
    );
    child.join();

    let table = table();
    let child = Child::fork(|| {
        let late = ndshm::Handle::<u64, ndarray::Ix1>::from_bits(to_child.receive());
        table.write(late).unwrap().fill(5);
    });
    let late = table.zeros::<u64, _>(4).unwrap();
    to_child.send(late.to_bits());
    child.join();
    assert_eq!(table.read(late).unwrap().sum(), 20);
}

/// The old manager's lock around create and free, in shared memory.
struct OldLock {
    table: HandleTable,
    word: ndshm::Handle<u64, ndarray::Ix1>,
}

impl OldLock {
    #[expect(
        clippy::disallowed_types,
        reason = "the old lock is no protocol of this crate"
    )]
    fn word(&self) -> &std::sync::atomic::AtomicU64 {
        let mut word = self.table.attach(self.word).unwrap();
        // SAFETY: the array lives as long as the table, is aligned, and is used through this alone.
        unsafe { &*word.as_mut_ptr().cast() }
    }

    fn lock(&self, patience: Duration) -> bool {
        use std::sync::atomic::Ordering::{Acquire, Relaxed};
        let start = Instant::now();
        while self
            .word()
            .compare_exchange(0, 1, Acquire, Relaxed)
            .is_err()
        {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    fn unlock(&self) {
        self.word().store(0, std::sync::atomic::Ordering::Release);
    }
}

fn a_dead_worker_does_not_block_others() {
    let table = table();
    let word = table.zeros::<u64, _>(1).unwrap();
    let old = OldLock { table, word };
    let pipe = Pipe::new();
    let worker = Child::fork(|| {
        assert!(old.lock(Duration::from_secs(1)));
        pipe.send(1);
        std::thread::sleep(support::DEADLINE);
        old.unlock();
    });
    pipe.receive();
    worker.kill();
    assert!(
        !old.lock(Duration::from_millis(100)),
        "the old rule: locked for ever"
    );

    // The worker dies inside create, free, or a lease, where it spends most of its time.
    let table = old.table;
    for _ in 0..50 {
        let worker = Child::fork(|| {
            pipe.send(1);
            loop {
                let x = table.zeros::<u64, _>(1000).unwrap();
                table.write(x).unwrap().fill(1);
                table.free(x).unwrap();
            }
        });
        pipe.receive();
        worker.kill();
        let x = table.zeros::<u64, _>(1000).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 0);
        table.free(x).unwrap();
    }
    table.reap().unwrap();
    assert_eq!(table.arrays().count(), 1, "the old lock's word");
}
