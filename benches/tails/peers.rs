//! The same work without shared memory: an allocator, a mutex, a ring, a channel, threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::{Mutex, mpsc};

use crossbeam_queue::ArrayQueue;

use crate::alone;
use crate::common::process::Process;
use crate::record::{Limits, Record, Tail};

pub fn malloc(limits: Limits, bytes: usize) -> Tail {
    let layout = Layout::from_size_align(bytes, 16).expect("a small power of two");
    alone(limits, || {
        // SAFETY: the layout is not empty.
        let memory = black_box(unsafe { System.alloc(layout) });
        assert!(!memory.is_null(), "no memory for the bench");
        // SAFETY: the memory comes from this allocator, for this layout.
        unsafe { System.dealloc(memory, layout) };
    })
}

pub fn mutex(limits: Limits) -> Tail {
    let mutex = Mutex::new(0.0);
    alone(limits, || *mutex.lock().expect("no panic") += 1.0)
}

/// Measures a push. The pop is between the calls.
pub fn push(limits: Limits) -> Tail {
    let ring = ArrayQueue::<[u64; 2]>::new(256);
    let mut record = Record::new(limits, Vec::new());
    while record.goes_on() {
        let pushed = record.call(|| ring.push(black_box([1, 2])));
        pushed.expect("it has room");
        black_box(ring.pop().expect("a job"));
    }
    record.finish()
}

/// Measures the wait for one of 16 numbers that two threads send back at once.
pub fn channel(limits: Limits) -> Tail {
    in_a_process(move || {
        let (ready, readies) = mpsc::channel();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (send, tokens) = mpsc::channel::<usize>();
                let ready = ready.clone();
                std::thread::spawn(move || {
                    for token in tokens {
                        // After the last call nobody listens.
                        let _ = ready.send(token);
                    }
                });
                send
            })
            .collect();
        let send = |token: usize| threads[token % 2].send(token).expect("the thread lives");
        (0..16).for_each(send);
        let mut record = Record::new(limits, Vec::new());
        while record.goes_on() {
            let token = record.call(|| readies.recv());
            send(token.expect("the threads live"));
        }
        record.finish()
    })
}

/// Measures a join of two empty halves on two threads, called from a third.
pub fn join(limits: Limits) -> Tail {
    in_a_process(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let pool = pool.expect("threads");
        let half = || black_box(());
        alone(limits, || pool.install(|| rayon::join(half, half)))
    })
}

/// Measures in a process of its own, because a process with threads must not fork.
fn in_a_process(measure: impl FnOnce() -> Tail) -> Tail {
    let mut process = Process::fork(|| {
        let words = measure().to_words();
        move |at| words[at as usize]
    });
    Tail::from_words(std::array::from_fn(|at| {
        process.ask(at as u64);
        process.answer()
    }))
}
