//! The model checker that words, threads and watched bytes belong to: loom, or under `cfg(shuttle)`
//! shuttle. Nothing else in the crate names one of the two.

#[cfg(not(shuttle))]
mod names {
    pub(crate) use loom::cell::{ConstPtr, MutPtr, UnsafeCell};
    pub(crate) use loom::sync::atomic::AtomicU64;
    pub(crate) use loom::sync::{Condvar, Mutex};
    pub(crate) use loom::thread::{Builder, JoinHandle, yield_now};
    pub(crate) use loom::{lazy_static, thread_local};
}

#[cfg(shuttle)]
mod names {
    pub(crate) use shuttle::sync::atomic::AtomicU64;
    pub(crate) use shuttle::sync::{Condvar, Mutex};
    pub(crate) use shuttle::thread::{Builder, JoinHandle, yield_now};
    pub(crate) use shuttle::{lazy_static, thread_local};

    pub(crate) use crate::sync::watched::{ConstPtr, MutPtr, UnsafeCell};
}

pub(crate) use names::*;
