//! Segments in the kernel: created, opened, rebound after a fork, backed by memory.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::mm::Advice;

use super::commit::Way;
use super::description::{self, Description, Kind};
use super::fork::process_token;
use super::huge::Huge;
use super::in_process::PrivateSeats;
use super::mapping::{Mapping, page_size};
use super::named::{self, Wish};
use super::open::{self, Parts};
use super::options::{IN_PROCESS_CAPACITY, SegmentOptions};
use super::promise::{self, Forecast};
use super::{Segment, anonymous, commit, passed};
use crate::error::{NoMemory, SegmentError};
use crate::layout::Layout;
use crate::memory::Memory;
use crate::sync::spin::Backoff;
use crate::sync::{Atom, Ordering};

#[cfg(test)]
mod tests;

/// The place of a segment's bytes.
pub(super) enum Backing {
    File(Description),
    InProcess(PrivateSeats),
}

/// A mapped segment. The fields drop in this order: unmap, close, remove the name.
pub(super) struct Inner {
    memory: Memory,
    pub(super) mapping: Mapping,
    backing: Backing,
    key: u64,
    retain: u64,
    forecast: Forecast,
    pub(super) huge: Huge,
    /// Token of the process that owns the mapped description.
    token: Atom<u64>,
    /// Token of the process in which a thread is rebinding; 0 if none is.
    rebinding: Atom<u64>,
}

impl Inner {
    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn backing(&self) -> &Backing {
        &self.backing
    }

    pub(super) fn retain_limit(&self) -> u64 {
        self.retain
    }
}

impl Segment {
    /// Creates a segment without a name, which forked children inherit.
    ///
    /// It leaves nothing behind, however its processes end, and is limited by the memory of the
    /// machine, not by the size of `/dev/shm`. Other processes get it through
    /// [`inheritable_fd`](Segment::inheritable_fd).
    pub fn anonymous() -> Result<Segment, SegmentError> {
        Segment::options().anonymous()
    }

    /// Creates a segment under a new name, readable and writable for this user alone.
    ///
    /// The name is removed when the last process leaves, unless the segment
    /// [persists](Segment::persist). If that last process is killed, the name stays, and the next
    /// process that opens it joins the existing segment.
    ///
    /// A name has 1 to 250 bytes and no slash; it appears below `/dev/shm`.
    pub fn create(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().create(name)
    }

    /// Opens a segment by its name.
    ///
    /// If a creator has made the name but not yet the segment, the call waits for it, up to
    /// [`open_timeout`](SegmentOptions::open_timeout).
    pub fn open(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().open(name)
    }

    /// Opens a segment by its name, or creates it if there is none. Several processes may call this
    /// at once: they end up in the same segment.
    ///
    /// If a creator has died before it was done, its file is replaced after
    /// [`open_timeout`](SegmentOptions::open_timeout).
    pub fn open_or_create(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().open_or_create(name)
    }

    /// Creates a segment in this process's memory. Its threads can share it.
    ///
    /// A forked child has a private copy of this memory. There every call that needs to share it
    /// fails with [`SegmentError::NotShared`].
    pub fn in_process() -> Result<Segment, SegmentError> {
        Segment::options().in_process()
    }

    /// Opens the segment behind a descriptor that was inherited over an exec or sent by another
    /// process. [`inheritable_fd`](Segment::inheritable_fd) makes such a descriptor.
    ///
    /// The descriptor is closed: the segment opens its own description of the same file.
    pub fn from_fd(fd: OwnedFd) -> Result<Segment, SegmentError> {
        Segment::options().from_fd(fd)
    }

    /// Returns the name, if the segment has one.
    pub fn name(&self) -> Option<&str> {
        let Backing::File(own) = &self.inner.backing else {
            return None;
        };
        own.membership.as_ref().map(|member| member.name.as_str())
    }

    /// Returns the descriptor of the segment's file; `None` for an in-process segment.
    ///
    /// To share the segment, pass on a descriptor from [`inheritable_fd`](Segment::inheritable_fd),
    /// not this one: while any process holds a copy of this descriptor, this process counts as
    /// alive.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.inner.backing {
            Backing::File(own) => Some(own.fd()),
            Backing::InProcess(_) => None,
        }
    }

    /// Returns a new descriptor of the segment's file, which stays open in a child that calls exec;
    /// the child opens it by [`from_fd`](Segment::from_fd).
    ///
    /// Every child that is started while it is open inherits it, so drop it after the start.
    pub fn inheritable_fd(&self) -> Result<OwnedFd, SegmentError> {
        match &self.inner.backing {
            Backing::File(own) => description::reopen_with(own.checked_fd()?, OFlags::empty()),
            Backing::InProcess(_) => Err(SegmentError::NotShared),
        }
    }

    pub(super) fn make_anonymous(options: &SegmentOptions) -> Result<Segment, SegmentError> {
        let parts = anonymous::make(options)?;
        Ok(Segment::assemble(parts, options))
    }

    pub(super) fn attach_named(
        name: &str,
        wish: Wish,
        options: &SegmentOptions,
    ) -> Result<Segment, SegmentError> {
        let segment = Segment::assemble(named::attach(name, wish, options)?, options);
        if options.persistent && wish != Wish::Open {
            segment.persist(true);
        }
        Ok(segment)
    }

    pub(super) fn attach_passed(
        fd: OwnedFd,
        options: &SegmentOptions,
    ) -> Result<Segment, SegmentError> {
        let parts = passed::attach(fd, options)?;
        Ok(Segment::assemble(parts, options))
    }

    pub(super) fn make_in_process(options: &SegmentOptions) -> Result<Segment, SegmentError> {
        let geometries = options.geometries(IN_PROCESS_CAPACITY)?;
        let parts = open::make_largest(geometries, open::in_process)?;
        Ok(Segment::assemble(parts, options))
    }

    fn assemble(parts: Parts, options: &SegmentOptions) -> Segment {
        let layout = *parts.memory.layout();
        let fd = match &parts.backing {
            Backing::File(own) => Some(own.fd()),
            Backing::InProcess(_) => None,
        };
        let inner = Inner {
            huge: Huge::ask(options.huge_pages, &parts.mapping, &layout, fd),
            memory: parts.memory,
            mapping: parts.mapping,
            backing: parts.backing,
            key: parts.key,
            retain: options
                .retain
                .unwrap_or_else(|| commit::total_memory() / 16),
            forecast: Forecast::new(),
            token: Atom::zero(),
            rebinding: Atom::zero(),
        };
        inner.token.store(process_token(), Ordering::Release);
        Segment {
            inner: Arc::new(inner),
        }
    }

    /// Returns the token of the process that owns the mapped description. If that is not this
    /// process, call [`rebind`](Segment::rebind).
    #[inline]
    pub(crate) fn token(&self) -> u64 {
        // Acquire: pairs with the Release in `rebind`. A thread that sees the token also sees the
        // locks of the new descriptor.
        self.inner.token.load(Ordering::Acquire)
    }

    /// Binds the inherited mapping to this process, once. Other threads wait for the thread that
    /// rebinds.
    pub(crate) fn rebind(&self) -> Result<(), SegmentError> {
        let me = process_token();
        let turn = &self.inner.rebinding;
        let backoff = Backoff::new();
        loop {
            if self.token() == me {
                return Ok(());
            }
            // A token of another process was inherited in the middle of a rebind. The rebinding
            // thread is not in this process, so we start the work anew.
            let holder = turn.load(Ordering::Relaxed);
            let free = holder != me;
            if free
                && turn
                    .compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            backoff.snooze();
        }
        let outcome = self.rebind_in_turn(me);
        // Release: pairs with the Acquire of the exchange above.
        turn.store(0, Ordering::Release);
        outcome
    }

    /// Binds the inherited mapping to this process, whose token is `me`, unless another thread did so
    /// before the caller got its turn. A second time would end locks of the first.
    fn rebind_in_turn(&self, me: u64) -> Result<(), SegmentError> {
        if self.token() == me {
            return Ok(());
        }
        let Backing::File(own) = &self.inner.backing else {
            return Err(SegmentError::NotShared);
        };
        let (mapping, layout) = (&self.inner.mapping, self.memory().layout());
        own.rebind(mapping, layout.total)?;
        self.inner.huge.advise(mapping, layout);
        self.inner.forecast.forget();
        self.inner.token.store(me, Ordering::Release);
        Ok(())
    }

    /// Attempts to take the lock that marks a seat as alive. The lock belongs to the seat's own
    /// participant, or to the participant of seat `by`, which reaps the seat. Returns `false` if
    /// the lock is held.
    pub(crate) fn try_lock_seat(
        &self,
        index: usize,
        by: Option<usize>,
    ) -> Result<bool, SegmentError> {
        // On the parent's description the lock would belong to the parent.
        self.rebind()?;
        match &self.inner.backing {
            Backing::InProcess(seats) => Ok(seats.try_lock(index, by)),
            Backing::File(own) => own
                .seats
                .try_lock(own.checked_fd()?, index)
                .map_err(|errno| description::os_error("fcntl(F_OFD_SETLK)", "a seat", errno)),
        }
    }

    /// Releases a lock that [`try_lock_seat`](Segment::try_lock_seat) took in this process. Does
    /// nothing in a forked child that has not rebound, because the lock is its parent's.
    pub(crate) fn unlock_seat(&self, index: usize) {
        if self.token() != process_token() {
            return;
        }
        match &self.inner.backing {
            Backing::InProcess(seats) => seats.unlock(index),
            Backing::File(own) => {
                // If the descriptor is gone, the lock lasts as long as the mapping.
                if let Ok(fd) = own.checked_fd() {
                    own.seats.unlock(fd, index);
                }
            }
        }
    }

    /// Releases all locks of a seat's participant, as the kernel does when its process ends.
    #[cfg(test)]
    pub(crate) fn model_kill(&self, seat: usize) {
        match &self.inner.backing {
            Backing::InProcess(seats) => seats.kill(seat),
            Backing::File(_) => panic!("only an in-process segment has scripted deaths"),
        }
    }

    /// Commits `len` bytes at `offset` of the data region: after this call they can be touched.
    pub(crate) fn commit(&self, offset: u64, len: u64) -> Result<(), NoMemory> {
        let left = self.capacity().saturating_sub(offset);
        if len > left {
            return Err(NoMemory {
                need: len,
                have: left,
                what: "the segment".into(),
                remedy: "make it with a larger capacity",
            });
        }
        self.inner
            .forecast
            .check(len, || match &self.inner.backing {
                Backing::File(own) if own.kind == Kind::Memfd => match own.checked_fd() {
                    Ok(fd) => promise::untouched(self.memory(), fd),
                    Err(_) => 0,
                },
                // The pages of a limited file system are allocated before they are promised; those
                // of private memory cannot be counted.
                _ => 0,
            })?;
        self.allocate(self.memory().layout().data + offset, len)
    }

    /// Commits the words of these slots. Runs before their span is carved.
    pub(crate) fn commit_slots(&self, first: usize, count: usize) -> Result<(), NoMemory> {
        let layout = self.memory().layout();
        let reader_words = layout.geometry.reader_words();
        let tables = [
            (layout.slots, 1),
            (layout.readers, reader_words),
            (layout.descriptors, Layout::DESCRIPTOR_WORDS),
        ];
        for (table, words) in tables {
            let row = words as u64 * 8;
            self.allocate(table + first as u64 * row, count as u64 * row)?;
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), NoMemory> {
        match &self.inner.backing {
            Backing::File(own) if own.kind == Kind::Limited => {
                let way = match self.inner.huge.is_granted_at_touch(len) {
                    // `fallocate` ignores the advice on the mapping.
                    true => Way::Touch,
                    false => Way::File,
                };
                commit::allocate(own.checked_fd().ok(), &self.inner.mapping, offset, len, way)
            }
            _ => Ok(()),
        }
    }

    /// Returns the descriptor of the segment's file, if the program has not closed it.
    pub(super) fn fd_to_allocate(&self) -> Option<BorrowedFd<'_>> {
        match &self.inner.backing {
            Backing::File(own) => own.checked_fd().ok(),
            Backing::InProcess(_) => None,
        }
    }

    /// Gives back the whole pages within `len` bytes at `offset` of the data region. Returns `true`
    /// if the whole range certainly reads as zeros now.
    ///
    /// The caller has exclusive access to the range, and no longer needs its contents.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> bool {
        let page = page_size() as u64;
        // The data region starts at a page boundary.
        let Some(end) = offset
            .checked_add(len)
            .filter(|&end| end <= self.capacity())
        else {
            return false;
        };
        let first = offset.next_multiple_of(page);
        let last = end - end % page;
        if first >= last {
            return len == 0;
        }
        let advice = match &self.inner.backing {
            Backing::File(_) => Advice::LinuxRemove,
            Backing::InProcess(_) => Advice::LinuxDontNeed,
        };
        let at = self.memory().layout().data + first;
        // SAFETY: the range is within the data region, in whole pages, and the caller's alone.
        let done = unsafe { self.inner.mapping.discard(at, last - first, advice) };
        done && first == offset && last == end
    }
}
