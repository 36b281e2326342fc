//! The segments that stay joined without a table object or a view.
//!
//! A process that has sent arrays of its own stays in their segment until it leaves it, because the
//! receivers look for it here. A process that only uses arrays of others, as a worker of a pool,
//! stays in the last segments that it has received, because their next array may arrive at any
//! time: opening a segment takes longer than finding an open one. It leaves a segment that too many
//! others have followed, and one that its sender has left.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;

use crate::fork::Changing;
use crate::segment::{Joined, lock};

/// The most guests that stay joined.
const MOST_GUESTS: usize = 8;

struct Kept {
    own: Vec<Arc<Joined>>,
    /// Segments in which this process has made no array, the oldest first.
    guests: VecDeque<Arc<Joined>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    own: Vec::new(),
    guests: VecDeque::new(),
});

/// Adds a segment that is not in the list.
pub(crate) fn keep(joined: &Arc<Joined>) {
    if joined.is_kept.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut kept = lock(&KEPT);
    match joined.is_guest.load(Ordering::Relaxed) {
        true => kept.guests.push_back(Arc::clone(joined)),
        false => kept.own.push(Arc::clone(joined)),
    }
}

/// Notes that this process has made or adopted an array in a segment.
pub(crate) fn made(joined: &Joined) {
    if !joined.is_guest.load(Ordering::Relaxed) {
        return;
    }
    joined.is_guest.store(false, Ordering::Relaxed);
    let mut kept = lock(&KEPT);
    let place = kept.guests.iter().position(|other| is(other, joined));
    if let Some(guest) = place.and_then(|place| kept.guests.remove(place)) {
        kept.own.push(guest);
    }
}

/// Makes room for another guest: drops those that their senders have left, and the first ones.
pub(crate) fn make_room(py: Python<'_>) {
    let guests = std::mem::take(&mut lock(&KEPT).guests);
    let mut dropped = Vec::new();
    let mut left = VecDeque::new();
    let mut over = (guests.len() + 1).saturating_sub(MOST_GUESTS);
    for guest in guests {
        if over > 0 || guest.has_sender_left() {
            over = over.saturating_sub(1);
            guest.is_kept.store(false, Ordering::Relaxed);
            dropped.push(guest);
        } else {
            left.push_back(guest);
        }
    }
    let mut kept = lock(&KEPT);
    left.append(&mut kept.guests);
    kept.guests = left;
    drop(kept);
    // The last reference leaves the segment. Views and table objects have others.
    let _changing = Changing::begin(py);
    py.detach(|| drop(dropped));
}

/// Takes a segment out of the list.
pub(crate) fn forget(joined: &Joined) -> Vec<Arc<Joined>> {
    let mut kept = lock(&KEPT);
    let mut found = Vec::new();
    let Kept { own, guests } = &mut *kept;
    found.extend(own.extract_if(.., |other| is(other, joined)));
    if let Some(place) = guests.iter().position(|other| is(other, joined)) {
        found.extend(guests.remove(place));
    }
    found
}

/// Makes all segments guests, in a forked child: their arrays are the parent's.
pub(crate) fn after_fork() {
    let mut kept = lock(&KEPT);
    let Kept { own, guests } = &mut *kept;
    for joined in own.iter() {
        joined.is_guest.store(true, Ordering::Relaxed);
    }
    guests.extend(own.drain(..));
}

fn is(one: &Arc<Joined>, other: &Joined) -> bool {
    std::ptr::eq(&**one, other)
}
