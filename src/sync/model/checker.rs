//! The model checker to which words and threads belong: loom, or shuttle under `cfg(shuttle)`. Only
//! `clock.rs` and the exploration of models also name one of the two.

#[cfg(not(shuttle))]
mod names {
    pub(crate) use loom::sync::atomic::AtomicU64;
    pub(crate) use loom::sync::{Condvar, Mutex};
    pub(crate) use loom::thread::{Builder, JoinHandle, Thread, current, yield_now};
    pub(crate) use loom::{lazy_static, thread_local};
}

#[cfg(shuttle)]
mod names {
    pub(crate) use shuttle::sync::atomic::AtomicU64;
    pub(crate) use shuttle::sync::{Condvar, Mutex};
    pub(crate) use shuttle::thread::{Builder, JoinHandle, Thread, current, yield_now};
    pub(crate) use shuttle::{lazy_static, thread_local};
}

pub(crate) use names::*;
