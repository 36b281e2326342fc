//! Waiting without sleep for a fixed number of turns, before a sleep. A model does not spin: a
//! sleeper checks first.

use core::time::Duration;
use std::time::Instant;

/// Turns that keep the processor, about 2 µs. An answer from another processor takes less.
pub(crate) const PAUSES: u32 = 100;

/// Calls `ready` until it returns a value, [`PAUSES`] times. Keeps the processor.
#[inline]
pub(crate) fn pausing<T>(ready: impl Fn() -> Option<T>) -> Option<T> {
    pausing_for(PAUSES, ready)
}

/// Calls `ready` until it returns a value, `pauses` times. Keeps the processor.
#[inline]
pub(crate) fn pausing_for<T>(pauses: u32, ready: impl Fn() -> Option<T>) -> Option<T> {
    turns(pauses, ready, || {
        core::hint::spin_loop();
        true
    })
}

/// Calls `ready` until it returns a value or `time` is over, at least once. Keeps the processor.
pub(crate) fn lasting<T>(time: Duration, ready: impl Fn() -> Option<T>) -> Option<T> {
    if !time.is_zero() {
        let start = Instant::now();
        loop {
            let found = pausing(&ready);
            if found.is_some() {
                return found;
            }
            if start.elapsed() >= time {
                break;
            }
        }
    }
    ready()
}

/// Calls `ready` until it returns a value, `yields` times. Offers the processor to others in
/// between, because the awaited participant may need it, and stops if `goes_on` returns `false`
/// after that.
#[inline]
pub(crate) fn yielding<T>(
    yields: u32,
    ready: impl Fn() -> Option<T>,
    mut goes_on: impl FnMut() -> bool,
) -> Option<T> {
    turns(yields, ready, || {
        std::thread::yield_now();
        goes_on()
    })
}

/// Calls `ready` and then `rest`, `count` times, until the one returns a value or the other
/// `false`.
#[inline]
fn turns<T>(
    count: u32,
    ready: impl Fn() -> Option<T>,
    mut rest: impl FnMut() -> bool,
) -> Option<T> {
    let count = if cfg!(loom) { 0 } else { count };
    for _ in 0..count {
        let found = ready();
        if found.is_some() || !rest() {
            return found;
        }
    }
    None
}
