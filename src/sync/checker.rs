//! The model checker that words and threads belong to: loom, or under `cfg(shuttle)` shuttle. Only
//! `clock.rs`, and the exploration of models, name one of the two besides.

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
