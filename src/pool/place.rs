//! Where kernels were given to a pool, for the model checker's reports.

use core::any::TypeId;
use core::panic::Location;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};

type Place = &'static Location<'static>;

/// By the kernel's type, which a closure shares with no other. Of a named function that is given
/// to several calls it is the last one.
static CALLS: LazyLock<Mutex<HashMap<TypeId, Place>>> = LazyLock::new(Mutex::default);

fn calls() -> MutexGuard<'static, HashMap<TypeId, Place>> {
    CALLS.lock().unwrap_or_else(|calls| calls.into_inner())
}

/// Notes that the caller's caller gives `F` to a pool.
#[track_caller]
pub(super) fn note<F: 'static>() {
    calls().insert(TypeId::of::<F>(), Location::caller());
}

/// Where `F` was given to a pool.
pub(super) fn of<F: 'static>() -> Option<Place> {
    calls().get(&TypeId::of::<F>()).copied()
}
