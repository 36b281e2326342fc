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
mod peer;
pub(crate) mod remove;
mod socket;
mod unnamed;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Segment;
use super::id::{PeerAddress, SegmentId};
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
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;            // so does each child that this process forks
    /// assert!(segment.name().is_none());
    /// # drop(table);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("memfd", "memfd_create", "MAP_ANONYMOUS", "MAP_SHARED", "mmap"))]
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
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// assert!(Segment::create(name).is_err());             // it exists
    /// drop(segment);                                       // the last process removes the name
    /// assert!(Segment::open(name).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("shm_open", "shmget", "O_CREAT", "ftruncate"))]
    pub fn create(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().create(name)
    }

    /// Opens a segment by its name.
    ///
    /// If a creator has made the name but not yet the segment, the call waits for it, up to
    /// [`open_timeout`](SegmentOptions::open_timeout).
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// let same = Segment::open(name)?;                     // in any process
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("shm_open", "shmat", "attach", "mmap"))]
    pub fn open(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().open(name)
    }

    /// Opens a segment by its name, or creates it if there is none. Several processes may call this
    /// at once: they end up in the same segment.
    ///
    /// If a creator has died before it was done, its file is replaced after
    /// [`open_timeout`](SegmentOptions::open_timeout).
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::open_or_create(name)?;
    /// let same = Segment::open_or_create(name)?;           // in any process, at the same time
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("shm_open"))]
    pub fn open_or_create(name: &str) -> Result<Segment, SegmentError> {
        Segment::options().open_or_create(name)
    }

    /// Creates a segment in this process's memory. Its threads can share it.
    ///
    /// A forked child has a private copy of this memory. There every call that needs to share it
    /// fails with [`SegmentError::NotShared`].
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::in_process()?;
    /// let x = HandleTable::join(&segment)?.from_elem(3, 1.0)?;
    /// # let _ = x;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn in_process() -> Result<Segment, SegmentError> {
        Segment::options().in_process()
    }

    /// Opens the segment behind a descriptor that was inherited over an exec or sent by another
    /// process. [`inheritable_fd`](Segment::inheritable_fd) makes such a descriptor.
    ///
    /// The descriptor is closed: the segment opens its own description of the same file.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::anonymous()?;
    /// let same = Segment::from_fd(segment.inheritable_fd()?)?;
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Segment, SegmentError> {
        Segment::options().from_fd(fd)
    }

    /// Returns the descriptor of the segment's file; `None` for an in-process segment, and after
    /// [`leave`](Segment::leave).
    ///
    /// To share the segment, pass on a descriptor from [`inheritable_fd`](Segment::inheritable_fd),
    /// not this one: while any process holds a copy of this descriptor, this process counts as
    /// alive.
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// assert!(Segment::anonymous()?.fd().is_some());
    /// assert!(Segment::in_process()?.fd().is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self.inner.has_left() {
            true => None,
            false => self.inner.fd(),
        }
    }

    /// Returns a new descriptor of the segment's file, which stays open in a child that calls exec;
    /// the child opens it by [`from_fd`](Segment::from_fd).
    ///
    /// Every child that is started while it is open inherits it, so drop it after the start.
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let segment = Segment::anonymous()?;
    /// let fd = segment.inheritable_fd()?;                  // stays open in a program that it starts
    /// let same = Segment::from_fd(fd)?;                    // there
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("dup", "memfd", "FD_CLOEXEC"))]
    pub fn inheritable_fd(&self) -> Result<OwnedFd, SegmentError> {
        self.inner.inheritable_fd()
    }

    /// Returns the segment's id, by which processes recognize it.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::anonymous()?;
    /// let received = Segment::from_fd(segment.inheritable_fd()?)?;
    /// assert_eq!(received.id(), segment.id());
    /// assert_ne!(Segment::anonymous()?.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn id(&self) -> SegmentId {
        self.inner.id()
    }

    /// Returns `true` if nobody gives pages of the segment back; see
    /// [`SegmentOptions::pinned`].
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// assert!(Segment::options().pinned(true).anonymous()?.is_pinned());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_pinned(&self) -> bool {
        self.inner.is_pinned()
    }

    /// Sends the segment through a connected Unix socket to a process that calls
    /// [`receive_from`](Segment::receive_from).
    ///
    /// Works for anonymous and named segments, between all processes that share a socket:
    /// containers, user namespaces and users. The other process needs no name and no pid. Waits for
    /// room in the socket, whether the socket blocks or not, and not for the other process to
    /// receive. Keep the segment until then: a named segment loses its name with its last process,
    /// and a segment that is on its way counts as none.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let (ours, theirs) = UnixStream::pair()?;       // between two processes: connect, or inherit
    /// let segment = Segment::anonymous()?;
    /// segment.send_to(&ours, Duration::from_secs(5))?;
    ///
    /// let received = Segment::receive_from(&theirs, Duration::from_secs(5))?;
    /// assert_eq!(received.id(), segment.id());
    /// let table = HandleTable::join(&received)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NotPassed`] if the socket is closed, not connected, or not a Unix socket;
    /// [`SegmentError::SocketTimeout`]; [`SegmentError::NotShared`] for an in-process segment;
    /// [`SegmentError::Left`].
    #[doc(alias("SCM_RIGHTS", "sendmsg"))]
    pub fn send_to(&self, socket: impl AsFd, timeout: Duration) -> Result<(), SegmentError> {
        let fd = self.inner.passable_fd()?;
        socket::send(socket.as_fd(), fd.as_fd(), self.id(), timeout)
    }

    /// Receives a segment that another process sends by [`send_to`](Segment::send_to), and opens
    /// it.
    ///
    /// Reads exactly one message of `send_to` from a stream. The descriptor is checked like that of
    /// [`from_fd`](Segment::from_fd), and closed: whatever the sender does, no descriptor is left
    /// over.
    ///
    /// [`send_to`](Segment::send_to) has an example.
    ///
    /// # Errors
    /// [`SegmentError::NotPassed`] if something else arrives, or the socket is closed;
    /// [`SegmentError::SocketTimeout`]; [`SegmentError::OtherSegment`]; and the errors of
    /// [`from_fd`](Segment::from_fd).
    pub fn receive_from(socket: impl AsFd, timeout: Duration) -> Result<Segment, SegmentError> {
        Segment::options().receive_from(socket, timeout)
    }

    /// Returns the address by which another process opens the segment through `/proc`; see
    /// [`open_peer`](Segment::open_peer).
    ///
    /// A forked child has an address of its own. An address is valid until its process ends or
    /// drops the segment.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::anonymous()?;
    /// let address = segment.peer_address()?;               // some 30 bytes as text, for any message
    /// let same = Segment::open_peer(&address)?;            // in another process of this user
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NotShared`], [`SegmentError::Closed`], [`SegmentError::Left`].
    pub fn peer_address(&self) -> Result<PeerAddress, SegmentError> {
        let number = self.inner.own_fd()?.as_raw_fd();
        Ok(PeerAddress::new(
            std::process::id(),
            number.unsigned_abs(),
            self.id(),
        ))
    }

    /// Opens a segment that another process has open.
    ///
    /// Needs no help of the other process beyond its address, but the permission to look into it:
    /// the same user, or root, in the same pid and user namespace, and a process that has not
    /// forbidden it (`PR_SET_DUMPABLE`). Yama does not matter, because nothing is traced. Where
    /// this is not given, as between containers, use [`send_to`](Segment::send_to) or a named
    /// segment.
    ///
    /// The id decides whether the right segment is open, so it does not matter if the other process
    /// ends meanwhile, or if its pid or descriptor belongs to another process or file by now.
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let segment = Segment::anonymous()?;
    /// let text = segment.peer_address()?.to_string();     // sent as a text, by MPI or a pickle
    ///
    /// let peer = Segment::open_peer(&text.parse()?)?;
    /// assert_eq!(peer.id(), segment.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NoPeer`], [`SegmentError::PeerDenied`], [`SegmentError::OtherSegment`]; and
    /// the errors of [`from_fd`](Segment::from_fd).
    pub fn open_peer(address: &PeerAddress) -> Result<Segment, SegmentError> {
        Segment::options().open_peer(address)
    }

    /// Binds the segment to this process at once, in a child that a fork has made. For fork hooks,
    /// such as `pthread_atfork` or Python's `os.register_at_fork`.
    ///
    /// Without it the first use of the segment in the child does so. A child that never uses the
    /// segment then keeps its parent's seats and the name alive, as long as it lives: the locks are
    /// the parent's and the child's together. Tables of the segment take seats of their own at
    /// their first use, as without this call. Does nothing in a process that has the segment bound.
    ///
    /// # Errors
    /// [`SegmentError::NotShared`] for an in-process segment in a child; [`SegmentError::Closed`];
    /// [`SegmentError::Left`]; the errors of opening and mapping.
    ///
    /// ```
    /// let segment = ndshm::Segment::anonymous()?;
    /// // In the child:
    /// segment.after_fork()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn after_fork(&self) -> Result<(), SegmentError> {
        match self.inner.has_left() {
            true => Err(SegmentError::Left),
            false => self.inner.rebind(),
        }
    }

    /// Leaves the segment, for the whole process, and keeps the memory readable: for processes in
    /// which views of arrays may be used until the very end, as by destructors of an interpreter.
    ///
    /// Drop the tables first, in all threads: the seats are theirs. After this call, all addresses
    /// in the segment stay valid until the last reference to the segment is dropped, or for ever if
    /// it is leaked. They show the arrays as they are; a page that is *written* becomes a private
    /// copy, which nobody else sees. So no store of this process reaches the segment any more, and
    /// others may reuse the arrays. A device that has registered the memory still stores to the
    /// shared pages: deregister it, and wait for asynchronous reads (io_uring, `O_DIRECT`) into
    /// arrays. In a named segment, a touch of a page that others have given back needs room in
    /// `/dev/shm`, and raises SIGBUS if there is none.
    ///
    /// The membership ends, and the last process removes the name, as if the segment was dropped.
    /// All clones of the segment have left: every call that needs it returns
    /// [`SegmentError::Left`], also in children that are forked later. A second call does nothing.
    /// The process can open the segment again, at other addresses.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.from_elem(3, 1.0)?;
    /// table.detach(x)?;
    /// let view = table.attach(x)?.as_ptr();
    /// assert!(segment.leave().is_err());      // the table is still in it
    /// drop(table);
    /// segment.leave()?;
    /// // SAFETY: the segment is still mapped, and nobody writes the array.
    /// assert_eq!(unsafe { view.read() }, 1.0);
    /// assert!(HandleTable::join(&segment).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::Joined`] if a table of this process is in the segment. The errors of opening
    /// and mapping: a private mapping needs as much address space again for a moment, and under
    /// `vm.overcommit_memory=2` also the commit charge of the whole capacity. After an error of
    /// opening or mapping nothing has changed.
    #[doc(alias("munmap", "close", "detach"))]
    pub fn leave(&self) -> Result<(), SegmentError> {
        self.inner.leave(0, &[])
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
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().capacity(1 << 30).anonymous()?;
    /// assert!(segment.name().is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn anonymous(self) -> Result<Segment, SegmentError> {
        let parts = unnamed::anonymous(&self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Creates a segment in this process's memory; see [`Segment::in_process`].
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().capacity(1 << 20).in_process()?;
    /// assert!(segment.name().is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn in_process(self) -> Result<Segment, SegmentError> {
        let parts = unnamed::in_process(&self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Creates a segment under a new name; see [`Segment::create`].
    ///
    /// ```
    /// # use ndshm::Segment;
    /// # let name = &format!("docs-{}-create", std::process::id());
    /// let segment = Segment::options().capacity(1 << 20).create(name)?;
    /// assert!(Segment::options().create(name).is_err());   // it exists
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn create(self, name: &str) -> Result<Segment, SegmentError> {
        attach_named(name, OpenMode::Create, &self)
    }

    /// Opens a segment by its name; see [`Segment::open`].
    ///
    /// ```
    /// # use ndshm::Segment;
    /// # let name = &format!("docs-{}-open", std::process::id());
    /// assert!(Segment::options().open(name).is_err());     // nothing has the name
    /// let first = Segment::options().capacity(1 << 20).create(name)?;
    /// let segment = Segment::options().open(name)?;
    /// assert_eq!(segment.id(), first.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn open(self, name: &str) -> Result<Segment, SegmentError> {
        attach_named(name, OpenMode::Open, &self)
    }

    /// Opens a segment by its name, or creates it; see [`Segment::open_or_create`].
    ///
    /// ```
    /// # use ndshm::Segment;
    /// # let name = &format!("docs-{}-either", std::process::id());
    /// let first = Segment::options().capacity(1 << 20).open_or_create(name)?;
    /// let second = Segment::options().capacity(1 << 20).open_or_create(name)?;
    /// assert_eq!(first.id(), second.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
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
    #[doc(alias("shm_unlink", "unlink"))]
    pub fn remove(self, name: &str) -> Result<Removal, SegmentError> {
        remove::unused(name, &self)
    }

    /// Removes the name of a file that begins with zeros, and still does after the open timeout: a
    /// segment left by a creator that died before initializing it.
    ///
    /// Nothing in the file shows that it is a segment: a file of any program may begin with zeros.
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// if let Err(error) = Segment::options().remove_unfinished("weather-of-1870") {
    ///     println!("{error}");                             // there is no such name
    /// }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`remove`](SegmentOptions::remove), and [`SegmentError::NotOurs`] if
    /// the file does not begin with zeros.
    pub fn remove_unfinished(self, name: &str) -> Result<Removal, SegmentError> {
        remove::unfinished(name, &self)
    }

    /// Opens a segment by a descriptor; see [`Segment::from_fd`].
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let segment = Segment::anonymous()?;
    /// let same = Segment::options().retain(0).from_fd(segment.inheritable_fd()?)?;
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn from_fd(self, fd: OwnedFd) -> Result<Segment, SegmentError> {
        let parts = passed::attach(fd, &self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Receives a segment through a socket; see [`Segment::receive_from`].
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use ndshm::Segment;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let segment = Segment::anonymous()?;
    /// segment.send_to(&ours, Duration::from_secs(5))?;
    /// let received = Segment::options().retain(0).receive_from(&theirs, Duration::from_secs(5))?;
    /// assert_eq!(received.id(), segment.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive_from(
        self,
        socket: impl AsFd,
        timeout: Duration,
    ) -> Result<Segment, SegmentError> {
        let (fd, id) = socket::receive(socket.as_fd(), timeout)?;
        let parts = passed::attach_checked(fd, Some(id), "the received descriptor", &self)?;
        Ok(Segment::from_parts(parts, &self))
    }

    /// Opens a segment that another process has open; see [`Segment::open_peer`].
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let segment = Segment::anonymous()?;
    /// let address = segment.peer_address()?;               // sent as a text
    /// let same = Segment::options().retain(0).open_peer(&address)?;
    /// assert_eq!(same.id(), segment.id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn open_peer(self, address: &PeerAddress) -> Result<Segment, SegmentError> {
        let parts = peer::attach(address, &self)?;
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
