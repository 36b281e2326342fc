//! Source locations of calls with kernels. Race reports of the model checker name them.

use core::any::TypeId;
use core::panic::Location;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};

type Place = &'static Location<'static>;

/// Locations by the kernel's type. Each closure has its own type. A named function that is given to
/// several calls has the location of the last one.
static CALLS: LazyLock<Mutex<HashMap<TypeId, Place>>> = LazyLock::new(Mutex::default);

fn calls() -> MutexGuard<'static, HashMap<TypeId, Place>> {
    CALLS.lock().unwrap_or_else(|calls| calls.into_inner())
}

/// Records that the caller of the caller gives `F` to a pool.
#[track_caller]
pub(crate) fn note<F: 'static>(_kernel: &F) {
    calls().insert(TypeId::of::<F>(), Location::caller());
}

/// Calls `open`. Race reports attribute its accesses to the call that was given `kernel`.
pub(crate) fn at_call_of<F: 'static, R>(_kernel: &F, open: impl FnOnce() -> R) -> R {
    let place = calls().get(&TypeId::of::<F>()).copied();
    crate::memory::put_down_to(place, open)
}
