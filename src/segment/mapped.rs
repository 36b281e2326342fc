//! Segments in the kernel: rebound after a fork, locked, backed by memory.

pub(crate) mod backing;
mod commit_budget;
pub(crate) mod description;
mod gate;
pub(crate) mod membership;
mod prefault;

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::mm::Advice;

use super::limits::MemoryLimits;
use super::options::{RetainLimits, SegmentOptions};
use super::os::commit::{self, Way};
use super::os::file::{Kind, reopen, reopen_with};
use super::os::foreign_lock;
use super::os::fork::process_token;
use super::os::huge::HugeRequest;
use super::os::mapping::{Mapping, page_size};
use crate::layout::{Header, Layout};
use crate::memory::Memory;
use crate::segment::error::{ForeignLock, NoMemory, SegmentError};
use crate::segment::id::SegmentId;
use crate::sync::{Atom, Backoff, Ordering};
use backing::{Backing, Parts};
use commit_budget::CommitBudget;
use gate::Gate;

pub(crate) use super::os::fork;
pub(super) use super::os::mapping::address_space_limit;

#[cfg(test)]
mod tests;

/// A mapped segment. The fields drop in this order: unmap, close, remove the name.
pub(super) struct Inner {
    memory: Memory,
    mapping: Mapping,
    backing: Backing,
    key: u64,
    /// The number of this mapping in the process.
    number: u64,
    id: SegmentId,
    /// No page is given back before the segment ends.
    pinned: bool,
    retain: RetainLimits,
    budget: CommitBudget,
    gate: Gate,
    huge: HugeRequest,
    /// Token of the process that owns the mapped description.
    token: Atom<u64>,
    /// Token of the process in which a thread is rebinding; 0 if none is.
    rebinding: Atom<u64>,
}

/// Returns the default of `SegmentOptions::retain`. Reads the limits once in a process: the files
/// of the groups take longer to read than a segment takes to open.
fn default_retain() -> u64 {
    static RETAIN: Atom<u64> = Atom::zero();
    // Relaxed: the number is all there is to see, and every thread finds the same.
    let known = RETAIN.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // Miri opens no files.
    let limits = match cfg!(miri) {
        true => None,
        false => MemoryLimits::read().ok(),
    };
    let retain = match limits {
        Some(limits) => limits.default_retain(),
        None => commit::total_memory() / 4,
    };
    RETAIN.store(retain, Ordering::Relaxed);
    retain
}

/// The number of mappings that this process has made.
static MAPPINGS: Atom<u64> = Atom::zero();

impl Inner {
    /// Builds a segment of its parts, for this process.
    pub(super) fn new(parts: Parts, options: &SegmentOptions) -> Inner {
        let layout = *parts.memory.layout();
        let fd = match &parts.backing {
            Backing::File(own) => Some(own.fd()),
            Backing::InProcess(_) => None,
        };
        let alive = parts.memory.header()[Header::ALIVE].load(Ordering::Relaxed);
        let pinned = Header::is_pinned(alive);
        // Pages that cannot be given back are all kept for reuse.
        let retain = match pinned {
            true => Some(u64::MAX >> 1),
            false => options.retain,
        };
        let inner = Inner {
            huge: HugeRequest::ask(options.huge_pages, &parts.mapping, &layout, fd),
            memory: parts.memory,
            mapping: parts.mapping,
            backing: parts.backing,
            key: parts.key,
            // Relaxed: the numbers only have to differ.
            number: MAPPINGS.fetch_add(1, Ordering::Relaxed),
            id: parts.id,
            pinned,
            retain: RetainLimits::of(retain, default_retain),
            budget: CommitBudget::new(),
            gate: Gate::new(),
            token: Atom::zero(),
            rebinding: Atom::zero(),
        };
        inner.token.store(process_token(), Ordering::Release);
        inner
    }

    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn mapping_number(&self) -> u64 {
        self.number
    }

    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    /// Returns `true` if no page is given back before the segment ends.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    pub(super) fn retain_limits(&self) -> RetainLimits {
        self.retain
    }

    /// Returns the name, if the segment has one.
    pub(super) fn name(&self) -> Option<&str> {
        let Backing::File(own) = &self.backing else {
            return None;
        };
        own.membership.as_ref().map(|member| member.name.as_str())
    }

    /// Returns the descriptor of the segment's file, if it has one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File(own) => Some(own.fd()),
            Backing::InProcess(_) => None,
        }
    }

    /// Returns a new descriptor of the segment's file, which an exec does not close.
    pub(super) fn inheritable_fd(&self) -> Result<OwnedFd, SegmentError> {
        reopen_with(self.own_fd()?, OFlags::RDWR)
    }

    /// Returns a new descriptor of the segment's file, to be sent to another process.
    ///
    /// It has a description of its own: a copy of this process's would keep the process alive for
    /// the others.
    pub(super) fn passable_fd(&self) -> Result<OwnedFd, SegmentError> {
        reopen(self.own_fd()?)
    }

    /// Returns the descriptor of the segment's file, if other processes may get the segment.
    pub(super) fn own_fd(&self) -> Result<BorrowedFd<'_>, SegmentError> {
        match &self.backing {
            _ if self.has_left() => Err(SegmentError::Left),
            Backing::File(own) => own.checked_fd(),
            Backing::InProcess(_) => Err(SegmentError::NotShared),
        }
    }

    /// Returns `true` if the process has left the segment, and may store to it no more.
    pub(super) fn has_left(&self) -> bool {
        self.gate.has_left()
    }

    /// Returns the token of the process that owns the mapped description. If that is not this
    /// process, call [`rebind`](Inner::rebind).
    #[inline]
    pub(super) fn token(&self) -> u64 {
        // Acquire: pairs with the Release in `rebind`. A thread that sees the token also sees the
        // locks of the new descriptor.
        self.token.load(Ordering::Acquire)
    }

    /// Binds the inherited mapping to this process, once. Other threads wait for the thread that
    /// rebinds.
    pub(super) fn rebind(&self) -> Result<(), SegmentError> {
        let me = process_token();
        let is_bound = || self.token() == me;
        match self.take_turn(me, is_bound) {
            true => self.end_turn(self.rebind_in_turn(me)),
            false => Ok(()),
        }
    }

    /// Waits until no other thread of this process, whose token is `me`, exchanges the mapping.
    /// Returns `false` without a turn once `is_done` holds.
    fn take_turn(&self, me: u64, is_done: impl Fn() -> bool) -> bool {
        let turn = &self.rebinding;
        let backoff = Backoff::new();
        loop {
            if is_done() {
                return false;
            }
            // A token of another process was inherited in the middle of a turn. The thread that had
            // the turn is not in this process, so we start the work anew.
            let holder = turn.load(Ordering::Relaxed);
            let free = holder != me;
            if free
                && turn
                    .compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return true;
            }
            backoff.snooze();
        }
    }

    /// Ends the turn of the caller, and returns the outcome of its work.
    fn end_turn(&self, outcome: Result<(), SegmentError>) -> Result<(), SegmentError> {
        // Release: pairs with the Acquire of the exchange in `take_turn`.
        self.rebinding.store(0, Ordering::Release);
        outcome
    }

    /// Leaves the segment, and keeps its bytes mapped as this process's own. Fails unless this
    /// process has `seats` seats. Copies the pages of the bytes in `kept`, each an offset in the
    /// data region and a length: nobody changes these copies.
    pub(super) fn leave(&self, seats: u64, kept: &[(u64, u64)]) -> Result<(), SegmentError> {
        let me = process_token();
        let has_left = || self.has_left();
        match self.take_turn(me, has_left) {
            true => self.end_turn(self.leave_in_turn(me, seats, kept)),
            false => Ok(()),
        }
    }

    /// Leaves like [`leave`](Inner::leave).
    ///
    /// 1. Close the gate: no thread can join any more. This fails if there are other seats.
    /// 2. Exchange the mapping for a private one: no store reaches the segment any more.
    /// 3. Copy the pages that are kept. The seats still keep others from using their bytes.
    /// 4. Replace the description, which ends the locks that came with it, and with the locks the
    ///    seats: for other processes their participants have died.
    /// 5. Remove the name, if no process is left.
    ///
    /// A death after any step ends the locks, and leaves at most the name, as any other death.
    fn leave_in_turn(&self, me: u64, seats: u64, kept: &[(u64, u64)]) -> Result<(), SegmentError> {
        // Another thread may have left after the caller looked, and before it got its turn.
        if self.has_left() {
            return Ok(());
        }
        if self.token() != me {
            self.gate.forget();
        }
        self.gate
            .close(seats)
            .map_err(|seats| SegmentError::Joined { seats })?;
        let Backing::File(own) = &self.backing else {
            if seats > 0 {
                self.gate.open(seats);
                return Err(SegmentError::NotShared);
            }
            self.gate.end();
            return Ok(());
        };
        match own.make_private(&self.mapping, self.memory.layout().total) {
            Ok(reader) => {
                for &(offset, len) in kept {
                    self.copy_pages(offset, len);
                }
                let outcome = own.give_up(&reader);
                self.gate.end();
                outcome
            }
            Err(error) => {
                // The mapping is as it was.
                self.gate.open(seats);
                Err(error)
            }
        }
    }

    /// Copies the pages of `len` bytes at `offset` of the data region. The mapping is private.
    /// Without memory for them, they stay those of the file.
    fn copy_pages(&self, offset: u64, len: u64) {
        let (page, capacity) = (page_size() as u64, self.memory.layout().geometry.capacity);
        let first = offset - offset % page;
        let end = offset.saturating_add(len).min(capacity);
        if first < end {
            let pages = (end - first).next_multiple_of(page);
            let _ = self
                .mapping
                .populate(self.memory.layout().data + first, pages);
        }
    }

    /// Binds the inherited mapping to this process, whose token is `me`, unless another thread did
    /// so before the caller got its turn. A second time would end locks of the first.
    fn rebind_in_turn(&self, me: u64) -> Result<(), SegmentError> {
        if self.token() == me {
            return Ok(());
        }
        if self.has_left() {
            return Err(SegmentError::Left);
        }
        let Backing::File(own) = &self.backing else {
            return Err(SegmentError::NotShared);
        };
        let (mapping, layout) = (&self.mapping, self.memory.layout());
        own.rebind(mapping, layout.total)?;
        self.huge.advise(mapping, layout);
        self.budget.forget();
        self.gate.forget();
        self.token.store(me, Ordering::Release);
        Ok(())
    }

    /// Attempts to take the lock that marks a seat as alive. The lock belongs to the seat's own
    /// participant, or to the participant of seat `by`, which reaps the seat. Returns `false` if
    /// the lock is held.
    pub(super) fn try_lock_seat(
        &self,
        index: usize,
        by: Option<usize>,
    ) -> Result<bool, SegmentError> {
        // On the parent's description the lock would belong to the parent.
        self.rebind()?;
        if !self.gate.enter() {
            return Err(SegmentError::Left);
        }
        let outcome = match &self.backing {
            Backing::InProcess(seats) => Ok(seats.try_lock(index, by)),
            Backing::File(own) => own.try_lock_seat(index),
        };
        if !matches!(outcome, Ok(true)) {
            self.gate.exit();
        }
        outcome
    }

    /// Returns `true` if the lock that marks a seat as alive is held, by its participant or by a
    /// reaper. Takes no lock, so no reap beside it skips the seat.
    pub(super) fn is_seat_locked(&self, index: usize) -> Result<bool, SegmentError> {
        // The locks of the parent's description would not be reported.
        self.rebind()?;
        match &self.backing {
            _ if self.has_left() => Err(SegmentError::Left),
            Backing::InProcess(seats) => Ok(seats.is_locked(index)),
            Backing::File(own) => own.is_seat_locked(index),
        }
    }

    /// Returns `true` if a look at the file's locks shows that a seat is locked. A segment without
    /// a file shows none.
    pub(super) fn shows_seat_lock(&self, index: usize) -> Result<bool, SegmentError> {
        match &self.backing {
            Backing::InProcess(_) => Ok(false),
            Backing::File(_) => self.is_seat_locked(index),
        }
    }

    /// Releases a lock that [`try_lock_seat`](Inner::try_lock_seat) took in this process. Does
    /// nothing in a forked child that has not rebound, because the lock is its parent's.
    pub(super) fn unlock_seat(&self, index: usize) {
        if self.token() != process_token() {
            return;
        }
        match &self.backing {
            Backing::InProcess(seats) => seats.unlock(index),
            Backing::File(own) => {
                // If the descriptor is gone, the lock lasts as long as the mapping.
                if let Ok(fd) = own.checked_fd() {
                    own.seats.unlock(fd, index);
                }
            }
        }
        self.gate.exit();
    }

    /// Returns the foreign lock on a seat, if there is one. Costs one system call if there is none.
    pub(super) fn foreign_lock(&self, seat: usize) -> Option<ForeignLock> {
        foreign_lock::find(self.checked_fd()?, seat)
    }

    /// Returns `true` if a foreign lock is on a seat. Does not search for its holder.
    pub(super) fn is_foreign_locked(&self, seat: usize) -> bool {
        self.checked_fd()
            .is_some_and(|fd| foreign_lock::is_on(fd, seat))
    }

    /// Releases all locks of a seat's participant, as the kernel does when its process ends.
    #[cfg(test)]
    pub(super) fn kill(&self, seat: usize) {
        match &self.backing {
            Backing::InProcess(seats) => seats.kill(seat),
            Backing::File(_) => panic!("only an in-process segment has scripted deaths"),
        }
    }

    /// Commits `len` bytes at `offset` of the data region: after this call they can be touched.
    pub(super) fn commit(&self, offset: u64, len: u64) -> Result<(), NoMemory> {
        let left = self
            .memory
            .layout()
            .geometry
            .capacity
            .saturating_sub(offset);
        if len > left {
            return Err(NoMemory {
                need: len,
                have: left,
                what: "the segment".into(),
                remedy: "make it with a larger capacity",
            });
        }
        self.budget.check(len, || match &self.backing {
            Backing::File(own) if own.kind == Kind::Memfd => match own.checked_fd() {
                Ok(fd) => commit_budget::untouched(&self.memory, fd),
                Err(_) => 0,
            },
            // The pages of a limited file system are allocated before they are promised; those
            // of private memory cannot be counted.
            _ => 0,
        })?;
        self.allocate(self.memory.layout().data + offset, len)
    }

    /// Returns `true` if a commit is a promise alone: the pages of a memfd come with the first touch,
    /// and no file system can refuse them.
    pub(super) fn only_promises(&self) -> bool {
        matches!(&self.backing, Backing::File(own) if own.kind == Kind::Memfd)
    }

    /// Commits the words of these slots. Runs before their span is appended.
    pub(super) fn commit_slots(&self, first: usize, count: usize) -> Result<(), NoMemory> {
        let layout = self.memory.layout();
        let row_words = layout.geometry.row_words();
        let tables = [
            (layout.slots, 1),
            (layout.readers, row_words),
            (layout.pins, row_words),
            (layout.descriptors, Layout::DESCRIPTOR_WORDS),
        ];
        for (table, words) in tables {
            let row = words as u64 * 8;
            self.allocate(table + first as u64 * row, count as u64 * row)?;
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), NoMemory> {
        match &self.backing {
            Backing::File(own) if own.kind == Kind::Limited => {
                let way = match self.huge.is_granted_at_touch(len) {
                    // `fallocate` ignores the advice on the mapping.
                    true => Way::Touch,
                    false => Way::File,
                };
                commit::allocate(own.checked_fd().ok(), &self.mapping, offset, len, way)
            }
            _ => Ok(()),
        }
    }

    /// Returns the descriptor of the segment's file, if the program has not closed it.
    fn checked_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File(own) => own.checked_fd().ok(),
            Backing::InProcess(_) => None,
        }
    }

    /// Gives back the whole pages within `len` bytes at `offset` of the data region. Returns `true`
    /// if the whole range certainly reads as zeros now. Gives no page of a pinned segment back.
    ///
    /// The caller has exclusive access to the range, and no longer needs its contents.
    pub(super) fn punch(&self, offset: u64, len: u64) -> bool {
        if self.pinned {
            return false;
        }
        let page = page_size() as u64;
        // The data region starts at a page boundary.
        let Some(end) = offset
            .checked_add(len)
            .filter(|&end| end <= self.memory.layout().geometry.capacity)
        else {
            return false;
        };
        let first = offset.next_multiple_of(page);
        let last = end - end % page;
        if first >= last {
            return len == 0;
        }
        let advice = match &self.backing {
            Backing::File(_) => Advice::LinuxRemove,
            Backing::InProcess(_) => Advice::LinuxDontNeed,
        };
        let at = self.memory.layout().data + first;
        // SAFETY: the range is within the data region, in whole pages, and the caller's alone.
        let done = unsafe { self.mapping.discard(at, last - first, advice) };
        done && first == offset && last == end
    }
    /// Gives back the pages of `len` bytes at `offset` of the data region, without the page that the
    /// range begins in; see [`punch`](Inner::punch). Where huge pages were asked for, that page is a
    /// huge one: the system would split it.
    pub(super) fn punch_beyond(&self, offset: u64, len: u64) {
        let page = page_size() as u64;
        let first = offset.next_multiple_of(self.huge.page_to_keep().max(page));
        let end = offset.saturating_add(len).next_multiple_of(page);
        if first < end {
            self.punch(first, end - first);
        }
    }
}
