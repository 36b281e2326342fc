//! This process's part in a segment: its seat, its pins, and the arrays that it has sent.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ndshm::error::{JoinError, SegmentError};
use ndshm::segment::PeerAddress;
use ndshm::shared::SharedPin;
use ndshm::{AnyHandle, Segment, SharedTable};
use pyo3::prelude::*;

use crate::error::{self, raise};
use crate::fork::{self, Changing};
use crate::kept;
use crate::sent::SentArrays;

/// The participant of this process in one segment.
///
/// It lives as long as a table object or a view of one of its arrays; and longer once an array was
/// sent or received: see [`crate::kept`].
pub(crate) struct Joined {
    segment: Segment,
    id: u64,
    /// The pid and the descriptor that other processes open the segment by: two halves of a word.
    /// 0 if they are not known.
    address: AtomicU64,
    /// The process that sent the segment, and its descriptor there. `None` if it was opened otherwise.
    sender: Option<(u32, u32)>,
    /// The process uses arrays of others, and has made none itself.
    pub(crate) is_guest: AtomicBool,
    /// The list of those that stay joined has it.
    pub(crate) is_kept: AtomicBool,
    /// A table object with `allow_pickle=False` was made. So those of `x.table` refuse objects, too.
    pub(crate) refuses_pickles: AtomicBool,
    /// A thread of the process is about to leave. Waits end.
    is_leaving: AtomicBool,
    /// Set under the lock of `parts`, and taken back if leaving fails.
    has_left: AtomicBool,
    /// `None` after the process has left the segment.
    parts: Mutex<Option<Parts>>,
}

struct Parts {
    /// A thread that uses the table has a reference to it. While there is any, the process does not
    /// leave.
    table: Arc<SharedTable>,
    pins: Pins,
    sent: SentArrays,
}

/// The pins of views. They are here and not in their Python objects, so that all of them can be
/// given back when the process leaves.
#[derive(Default)]
struct Pins {
    pins: Vec<Option<Arc<SharedPin>>>,
    free: Vec<usize>,
}

impl Pins {
    fn insert(&mut self, pin: SharedPin) -> usize {
        let pin = Arc::new(pin);
        match self.free.pop() {
            Some(place) => {
                self.pins[place] = Some(pin);
                place
            }
            None => {
                self.pins.push(Some(pin));
                self.pins.len() - 1
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<Arc<SharedPin>> {
        let pin = self.pins.get_mut(place)?.take()?;
        self.free.push(place);
        Some(pin)
    }
}

/// The segments that this process has joined, with their ids. There are few.
static KNOWN: Mutex<Vec<(u64, Weak<Joined>)>> = Mutex::new(Vec::new());

/// A leaving thread waits for others at most this long. Those that wait for a lease look every
/// [`SLICE`](crate::lease) whether the process leaves.
const LONGEST_LEAVING: Duration = Duration::from_millis(200);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the joined segment with this id.
pub(crate) fn known(id: u64) -> Option<Arc<Joined>> {
    let known = lock(&KNOWN);
    let mut known = known.iter().filter(|(other, _)| *other == id);
    known.find_map(|(_, joined)| joined.upgrade().filter(|joined| !joined.has_left()))
}

/// Returns all joined segments.
pub(crate) fn all() -> Vec<Arc<Joined>> {
    let known = lock(&KNOWN);
    let joined = known.iter().map(|(_, joined)| joined);
    joined.filter_map(Weak::upgrade).collect()
}

/// Where another process finds a segment.
pub(crate) enum Place<'a> {
    /// Under a descriptor of the process that sent an array of it.
    Peer {
        pid: u32,
        fd: u32,
    },
    Name(&'a str),
}

impl Joined {
    /// Joins a segment, unless this process has joined it already. `place` is where it was found when
    /// an array of it arrived, or `None` if the program made or opened it itself.
    pub(crate) fn enter(segment: Segment, place: Option<&Place<'_>>) -> PyResult<Arc<Joined>> {
        let id = segment.id().to_bits();
        if let Some(joined) = known(id) {
            return Ok(joined);
        }
        let table = Arc::new(SharedTable::of(&segment).map_err(raise)?);
        let joined = Arc::new(Joined {
            segment,
            id,
            address: AtomicU64::new(0),
            sender: match place {
                Some(Place::Peer { pid, fd }) => Some((*pid, *fd)),
                _ => None,
            },
            is_guest: AtomicBool::new(place.is_some()),
            is_kept: AtomicBool::new(false),
            refuses_pickles: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
            parts: Mutex::new(Some(Parts {
                table,
                pins: Pins::default(),
                sent: SentArrays::default(),
            })),
        });
        let mut known = lock(&KNOWN);
        // One that another thread is leaving stays: that may fail.
        known.retain(|(_, joined)| joined.strong_count() > 0);
        known.push((id, Arc::downgrade(&joined)));
        Ok(joined)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Returns `true` if the process has left the segment.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    /// Returns `true` while a thread waits for the others, to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Returns the participant for a call that gives something back or waits, or `None` if the
    /// process has left: then it has given back all. Waits for the end of a leave that may fail.
    pub(crate) fn table_to_give_back(&self) -> Option<Arc<SharedTable>> {
        loop {
            match &*lock(&self.parts) {
                Some(parts) if !self.has_left() => return Some(Arc::clone(&parts.table)),
                Some(_) => {}
                None => return None,
            }
            let pause = || std::thread::sleep(Duration::from_millis(1));
            // The leaving thread needs the interpreter.
            Python::try_attach(|py| py.detach(pause))?;
        }
    }

    /// Returns the participant.
    pub(crate) fn table(&self) -> PyResult<Arc<SharedTable>> {
        let parts = lock(&self.parts);
        let parts = parts.as_ref().filter(|_| !self.has_left());
        let table = parts.map(|parts| Arc::clone(&parts.table));
        table.ok_or_else(error::closed)
    }

    /// Keeps the segment joined: until the process leaves it, or only for some time if all of its
    /// arrays are others'.
    pub(crate) fn keep(self: &Arc<Joined>) {
        if !self.is_kept.load(Ordering::Relaxed) {
            kept::keep(self);
        }
    }

    /// Returns `true` if the sender of the segment has ended or has closed the table. Returns
    /// `false` if that is not known.
    pub(crate) fn has_sender_left(&self) -> bool {
        let Some((pid, fd)) = self.sender else {
            return false;
        };
        let path = format!("/proc/{pid}/fd/{fd}");
        let own = self.segment.fd().map(rustix::fs::fstat);
        let (Some(Ok(own)), Ok(file), Ok(link)) = (
            own,
            std::fs::metadata(&path),
            std::fs::symlink_metadata(&path),
        ) else {
            return true;
        };
        // A process that has left keeps a description that only reads.
        let is_open = (file.dev(), file.ino()) == (own.st_dev, own.st_ino);
        !is_open || link.mode() & 0o200 == 0
    }

    /// Stores a pin. Returns its place, or gives the pin back if the process has left meanwhile.
    pub(crate) fn insert_pin(&self, pin: SharedPin) -> Option<usize> {
        let mut parts = lock(&self.parts);
        let parts = parts.as_mut().filter(|_| !self.has_left())?;
        Some(parts.pins.insert(pin))
    }

    /// Takes a pin out again. Returns `None` if the process has left the segment.
    pub(crate) fn remove_pin(&self, place: usize) -> Option<(Arc<SharedPin>, Arc<SharedTable>)> {
        let mut parts = lock(&self.parts);
        let parts = parts.as_mut()?;
        let pin = parts.pins.remove(place)?;
        Some((pin, Arc::clone(&parts.table)))
    }

    /// Returns the bytes of the arrays that have a view. An array counts once for each of its views.
    pub(crate) fn bytes_in_view(&self) -> u64 {
        let parts = lock(&self.parts);
        let pins = parts.iter().flat_map(|parts| &parts.pins.pins).flatten();
        pins.map(|pin| pin.len() as u64).sum()
    }

    /// Returns `true` if the process has this pin: after a fork, one of its own.
    pub(crate) fn is_kept_pin(&self, place: usize) -> bool {
        let parts = lock(&self.parts);
        let pins = parts.as_ref().map(|parts| &parts.pins.pins);
        let pin = pins.and_then(|pins| pins.get(place)?.as_ref());
        pin.is_some_and(|pin| pin.is_kept())
    }

    /// Returns `true` if this process has a view of an array of the segment.
    pub(crate) fn has_pins(&self) -> bool {
        let parts = lock(&self.parts);
        let pins = parts.as_ref().map(|parts| &parts.pins);
        pins.is_some_and(|pins| pins.free.len() < pins.pins.len())
    }

    /// Notes that an array was sent and has no view any more.
    pub(crate) fn note_sent(&self, handle: AnyHandle, bytes: u64) {
        if let Some(parts) = &mut *lock(&self.parts) {
            parts.sent.note(handle, bytes);
        }
    }

    /// Returns the number and the bytes of the arrays that were sent, have no view any more and
    /// still live, if these are [many](SentArrays::put_back).
    pub(crate) fn many_sent(&self, limit: u64) -> Option<(usize, u64)> {
        let (mut arrays, table) = {
            let mut parts = lock(&self.parts);
            let parts = parts.as_mut()?;
            (parts.sent.take_many(limit)?, Arc::clone(&parts.table))
        };
        arrays.retain(|(handle, _)| table.info(*handle).is_ok());
        let mut parts = lock(&self.parts);
        parts.as_mut()?.sent.put_back(arrays, limit)
    }

    /// Returns the pid and the descriptor by which another process opens the segment.
    pub(crate) fn address(&self) -> PyResult<(u32, u32)> {
        let word = self.address.load(Ordering::Relaxed);
        if word != 0 {
            return Ok(((word >> 32) as u32, word as u32));
        }
        let address = self.segment.peer_address().map_err(raise)?;
        let word = u64::from(address.pid()) << 32 | u64::from(address.fd());
        self.address.store(word, Ordering::Relaxed);
        Ok((address.pid(), address.fd()))
    }

    /// Takes a seat in a child that a fork has made. Returns the arrays whose views are not valid
    /// in the child.
    pub(crate) fn after_fork(&self) -> Result<Vec<AnyHandle>, ndshm::Error> {
        self.address.store(0, Ordering::Relaxed);
        // The thread that was about to leave is the parent's.
        self.is_leaving.store(false, Ordering::Relaxed);
        let mut parts = lock(&self.parts);
        if self.has_left() {
            // The parent was leaving. Without a seat the child leaves in one step.
            parts.take();
            self.segment.leave().map_err(ndshm::Error::from)?;
            return Ok(Vec::new());
        }
        let Some(parts) = &mut *parts else {
            return Ok(Vec::new());
        };
        // They are the parent's, as are the threads that use the table.
        parts.sent = SentArrays::default();
        parts.table = Arc::new(SharedTable::clone(&parts.table));
        Ok(parts.table.after_fork()?)
    }

    /// Leaves the segment: gives back all pins, leases and arrays. Views stay readable; if
    /// `are_kept`, they show the same for ever. If it fails, the process has not left.
    pub(crate) fn leave(&self, py: Python<'_>, are_kept: bool) -> PyResult<()> {
        if self.has_left() || self.is_leaving.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let outcome = self.leave_alone(py, are_kept);
        self.is_leaving.store(false, Ordering::Relaxed);
        outcome
    }

    /// Leaves like [`leave`](Joined::leave), as the only thread that does. Waits for the others at
    /// most [`LONGEST_LEAVING`].
    fn leave_alone(&self, py: Python<'_>, are_kept: bool) -> PyResult<()> {
        let deadline = Instant::now() + LONGEST_LEAVING;
        loop {
            let has_time = Instant::now() < deadline;
            match self.try_leave(py, are_kept, has_time) {
                Some(Ok(())) => break,
                None | Some(Err(JoinError::Segment(SegmentError::Joined { .. }))) if has_time => {}
                None | Some(Err(JoinError::Segment(SegmentError::Joined { .. }))) => {
                    return Err(error::in_use());
                }
                Some(Err(error)) => return Err(raise(error)),
            }
            py.detach(|| std::thread::sleep(Duration::from_millis(2)));
        }
        // The pins give back their bits now in a private copy of the words.
        let parts = lock(&self.parts).take();
        let kept = kept::forget(self);
        py.detach(|| drop(parts));
        drop(kept);
        Ok(())
    }

    /// Attempts to leave. Returns `None` while a thread uses the table, or forks and `has_time`.
    fn try_leave(
        &self,
        py: Python<'_>,
        are_kept: bool,
        has_time: bool,
    ) -> Option<Result<(), JoinError>> {
        let (table, pins) = {
            let parts = lock(&self.parts);
            let Some(parts) = &*parts else {
                return Some(Ok(()));
            };
            if Arc::strong_count(&parts.table) > 1 || (has_time && fork::is_under_way()) {
                return None;
            }
            // No thread gets the table any more.
            self.has_left.store(true, Ordering::Relaxed);
            let pins = parts.pins.pins.iter().flatten().filter(|_| are_kept);
            (Arc::clone(&parts.table), pins.cloned().collect::<Vec<_>>())
        };
        let _changing = Changing::new();
        let outcome = py.detach(|| {
            // Another mapping of the segment reaps the seat, which counts as dead.
            let other = self.reopen();
            // SAFETY: this module has no guards of leases. Its builders, its calls on the table and
            // its pools hold a reference to it, and this is the only one.
            unsafe { table.leave(pins.iter().map(|pin| &**pin)) }?;
            if let Some(other) = other {
                // Else the next process that joins does.
                let _ = ndshm::HandleTable::join(&other);
            }
            Ok(())
        });
        if outcome.is_err() {
            self.has_left.store(false, Ordering::Relaxed);
        }
        Some(outcome)
    }

    /// Maps the segment a second time, if other processes may have it.
    fn reopen(&self) -> Option<Segment> {
        let is_shared = self.sender.is_some()
            || self.is_kept.load(Ordering::Relaxed)
            || self.segment.name().is_some()
            || fork::has_forked();
        let address = is_shared.then(|| self.segment.peer_address().ok())?;
        Segment::open_peer(&address?).ok()
    }
}

/// Joins the segment with this id, which another process has open.
pub(crate) fn open(py: Python<'_>, id: u64, place: &Place<'_>) -> PyResult<Arc<Joined>> {
    // Until the segment is known, so that a child finds it.
    let _changing = Changing::begin(py);
    let found = py.detach(|| match place {
        Place::Peer { pid, fd } => {
            let id = ndshm::segment::SegmentId::from_bits(id);
            Segment::open_peer(&PeerAddress::new(*pid, *fd, id))
        }
        Place::Name(name) => Segment::open(name),
    });
    let segment = found.map_err(|error| match error {
        SegmentError::NotFound { .. } => error::unreachable(&error.to_string()),
        error => raise(error),
    })?;
    if segment.id().to_bits() != id {
        return Err(error::unreachable(
            "its name belongs to another table by now",
        ));
    }
    Joined::enter(segment, Some(place))
}
