//! System calls and files: all that a segment asks of the kernel.

pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod file;
pub(crate) mod foreign_lock;
pub(crate) mod fork;
pub(crate) mod huge;
pub(crate) mod lock;
#[cfg_attr(miri, path = "heap.rs")]
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod retry;
