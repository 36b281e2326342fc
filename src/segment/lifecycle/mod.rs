//! How a process gets a segment: by creating it, by its name, or by a descriptor; and how names are
//! removed.
//!
//! Every way leads through the same files, in this order. For a name:
//! 1. `named.rs` finds the file, or lets `new_name.rs` create it, and retries while others change
//!    the name;
//! 2. `os/check.rs` refuses a file that cannot be a segment, or that others may write;
//! 3. `mapped/membership.rs` takes the lock that keeps the name;
//! 4. `initialize.rs` reads or sets the header, and maps the file;
//! 5. `mapped.rs` builds the segment of these parts.

pub(crate) mod initialize;
pub(crate) mod named;
mod new_name;
mod passed;
pub(crate) mod remove;
mod unnamed;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::Segment;
use super::mapped::Inner;
use super::mapped::backing::Parts;
use super::options::{Removal, SegmentOptions};
use crate::segment::error::SegmentError;
use named::OpenMode;

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

    /// Returns the descriptor of the segment's file; `None` for an in-process segment.
    ///
    /// To share the segment, pass on a descriptor from [`inheritable_fd`](Segment::inheritable_fd),
    /// not this one: while any process holds a copy of this descriptor, this process counts as
    /// alive.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    /// Returns a new descriptor of the segment's file, which stays open in a child that calls exec;
    /// the child opens it by [`from_fd`](Segment::from_fd).
    ///
    /// Every child that is started while it is open inherits it, so drop it after the start.
    pub fn inheritable_fd(&self) -> Result<OwnedFd, SegmentError> {
        self.inner.inheritable_fd()
    }

    /// Builds a segment of its parts.
    fn from_parts(parts: Parts, options: &SegmentOptions) -> Segment {
        Segment {
            inner: Arc::new(Inner::new(parts, options)),
        }
    }
}

impl SegmentOptions {
    /// Creates a segment without a name; see [`Segment::anonymous`].
    pub fn anonymous(self) -> Result<Segment, SegmentError> {
        let parts = unnamed::anonymous(&self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Creates a segment in this process's memory; see [`Segment::in_process`].
    pub fn in_process(self) -> Result<Segment, SegmentError> {
        let parts = unnamed::in_process(&self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Creates a segment under a new name; see [`Segment::create`].
    pub fn create(self, name: &str) -> Result<Segment, SegmentError> {
        attach_named(name, OpenMode::Create, &self)
    }

    /// Opens a segment by its name; see [`Segment::open`].
    pub fn open(self, name: &str) -> Result<Segment, SegmentError> {
        attach_named(name, OpenMode::Open, &self)
    }

    /// Opens a segment by its name, or creates it; see [`Segment::open_or_create`].
    pub fn open_or_create(self, name: &str) -> Result<Segment, SegmentError> {
        attach_named(name, OpenMode::OpenOrCreate, &self)
    }

    /// Removes the name of a segment without members, which a crash has left behind. A
    /// [persistent](SegmentOptions::persistent) one is removed only if these options are persistent
    /// too.
    ///
    /// The removal follows the same rule, under the same lock, as that of the last process to
    /// leave. A process that is just opening the name either is a member already, or no longer
    /// finds the name.
    ///
    /// ```
    /// use ndshm::Segment;
    /// use ndshm::segment::Removal;
    ///
    /// let name = format!("ndshm-doc-remove-{}", std::process::id());
    /// let segment = Segment::options().persistent(true).create(&name)?;
    /// assert_eq!(Segment::options().remove(&name)?, Removal::InUse);
    /// drop(segment);
    /// assert_eq!(Segment::options().remove(&name)?, Removal::Persistent);
    /// assert_eq!(Segment::options().persistent(true).remove(&name)?, Removal::Removed);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NotFound`], [`SegmentError::PermissionMismatch`], [`SegmentError::NotOurs`];
    /// [`SegmentError::NotInitialized`] for a file that begins with zeros, see
    /// [`remove_unfinished`](SegmentOptions::remove_unfinished).
    pub fn remove(self, name: &str) -> Result<Removal, SegmentError> {
        remove::unused(name, &self)
    }

    /// Removes the name of a file that begins with zeros, and still does after the open timeout: a
    /// segment left by a creator that died before initializing it.
    ///
    /// Nothing in the file shows that it is a segment: a file of any program may begin with zeros.
    ///
    /// # Errors
    /// Returns the errors of [`remove`](SegmentOptions::remove), and [`SegmentError::NotOurs`] if
    /// the file does not begin with zeros.
    pub fn remove_unfinished(self, name: &str) -> Result<Removal, SegmentError> {
        remove::unfinished(name, &self)
    }

    /// Opens a segment by a descriptor; see [`Segment::from_fd`].
    pub fn from_fd(self, fd: OwnedFd) -> Result<Segment, SegmentError> {
        let parts = passed::attach(fd, &self)?;
        Ok(Segment::from_parts(parts, &self))
    }
}

/// Creates or opens the segment of this name.
fn attach_named(
    name: &str,
    mode: OpenMode,
    options: &SegmentOptions,
) -> Result<Segment, SegmentError> {
    let parts = named::attach(name, mode, options)?;
    let segment = Segment::from_parts(parts, options);
    if options.persistent && mode != OpenMode::Open {
        segment.persist(true);
    }
    Ok(segment)
}
