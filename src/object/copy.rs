//! Copies of large buffers, by several threads if that is faster.

use core::convert::Infallible;

use super::fresh;
use crate::parallel;

/// Bytes that a thread takes at a time. Whole pages: no two threads fault on the same page.
const SHARE: usize = 1 << 20;
/// From this length on, starting another thread pays off, also for memory that has its pages.
const LARGE: usize = 4 * SHARE;
/// Number of threads that saturate a machine's memory.
const MOST: usize = 4;

/// Bytes of fresh pages that are created at once: they are still in the processor's cache, zeroed,
/// when they are written.
const FRESH: usize = 256 << 10;

/// Copies `from` to `to`. If the lengths differ, copies as many bytes as the shorter slice has.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    let len = to.len().min(from.len());
    let (to, from) = (&mut to[..len], &from[..len]);
    if len < FRESH {
        // The look at its pages would take a good part of the copy's time.
        to.copy_from_slice(from);
        return;
    }
    if len < LARGE {
        copy_share(to, from);
        return;
    }
    let shares = to.chunks_mut(SHARE).zip(from.chunks(SHARE)).collect();
    let outcome = parallel::for_each(shares, MOST, |(to, from)| {
        copy_share(to, from);
        Ok::<(), Infallible>(())
    });
    match outcome {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// Copies slices of equal length. Fresh pages are created many at a time, because a fault for each
/// page costs more than copying it, and threads that fault at once block each other.
fn copy_share(to: &mut [u8], from: &[u8]) {
    if !fresh::is_fresh(to) {
        to.copy_from_slice(from);
        return;
    }
    for (to, from) in to.chunks_mut(FRESH).zip(from.chunks(FRESH)) {
        fresh::make_pages(to);
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_whatever_the_length() {
        let edges = [0, FRESH - 1, FRESH, LARGE - 1, LARGE];
        for len in edges
            .into_iter()
            .chain([1, LARGE + 1, LARGE + SHARE + 4097])
        {
            let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut to = vec![255; len];
            copy(&mut to, &from);
            assert!(to == from, "{len} bytes");
        }
    }
}
