//! Copies of large pieces of memory on several threads: one core does not fill the memory's
//! bandwidth.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use crate::segment::lock;

/// Bytes that one thread takes at a time; from twice as many on there is a second thread. Copying
/// them takes about a millisecond, ten times as long as starting a thread.
const PIECE: usize = 8 << 20;

/// Bytes of a Python object.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    /// The address of the first byte.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

/// A place, and the bytes that belong there. Both have the same length.
pub(crate) type Part<'a> = (&'a mut [u8], Source);

/// Copies all parts.
///
/// # Safety
/// The bytes of every source stay readable until the call returns.
pub(crate) unsafe fn copy_all(parts: Vec<Part<'_>>) {
    let bytes: usize = parts.iter().map(|(to, _)| to.len()).sum();
    let helpers = match bytes / PIECE {
        0 | 1 => 0,
        // The number of cores comes from files, which takes longer than a small copy.
        most => most.min(thread::available_parallelism().map_or(1, NonZero::get)) - 1,
    };
    let pieces = Mutex::new(parts.into_iter().flat_map(pieces));
    let run = || {
        // A closure of its own: the lock is not held during the copy.
        let next = || lock(&pieces).next();
        while let Some((to, from)) = next() {
            debug_assert_eq!(to.len(), from.len);
            let len = to.len().min(from.len);
            // SAFETY: the caller vouches for the source. The destination is borrowed for writing,
            // so it does not overlap. Both have at least `len` bytes, which need no alignment.
            unsafe { std::ptr::copy_nonoverlapping(from.first as *const u8, to.as_mut_ptr(), len) };
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // Do without threads that cannot be started.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
}

/// Divides a part into pieces that one thread copies at a time.
fn pieces((to, from): Part<'_>) -> impl Iterator<Item = Part<'_>> {
    to.chunks_mut(PIECE).enumerate().map(move |(place, to)| {
        let source = Source {
            first: from.first + place * PIECE,
            len: to.len(),
        };
        (to, source)
    })
}
