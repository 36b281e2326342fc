//! Segments sent through a Unix socket: a message of 16 bytes, and one descriptor beside it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::segment::error::SegmentError;
use crate::segment::id::SegmentId;
use crate::segment::os::file::os_error;

/// The first bytes of a message.
const MAGIC: [u8; 8] = *b"ndshm 1\n";

/// Bytes of a message: the magic, and the segment's id.
const MESSAGE: usize = 16;

/// The most descriptors that are received. More than one is an error, and those beyond this number
/// never arrive.
const ROOM: usize = 8;

const CLOSED: &str = "the other process has closed it; check that the process is alive, and that \
    it calls Segment::send_to or Segment::receive_from";
const NOT_UNIX: &str = "it is not a Unix socket, and only those pass descriptors; connect the \
    processes by a UnixStream, or use a named segment";

fn message(id: SegmentId) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&id.to_bits().to_le_bytes());
    bytes
}

fn refused(problem: &'static str) -> SegmentError {
    SegmentError::NotPassed { problem }
}

/// Returns the error for a failed call on the socket.
fn failed(call: &'static str, errno: Errno) -> SegmentError {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED => refused(CLOSED),
        Errno::NOTSOCK => refused(NOT_UNIX),
        Errno::NOTCONN | Errno::DESTADDRREQ => refused("it is not connected; connect it first"),
        Errno::TOOMANYREFS => refused(
            "too many descriptors of this user are on their way through sockets; let the \
             receivers call Segment::receive_from, or raise the limit (ulimit -n)",
        ),
        errno => os_error(call, "the socket", errno),
    }
}

fn check_domain(socket: BorrowedFd<'_>) -> Result<(), SegmentError> {
    match rustix::net::sockopt::socket_domain(socket) {
        Ok(AddressFamily::UNIX) => Ok(()),
        Ok(_) => Err(refused(NOT_UNIX)),
        Err(errno) => Err(failed("getsockopt", errno)),
    }
}

/// The time that a call has.
struct Time {
    start: Instant,
    timeout: Duration,
}

impl Time {
    fn new(timeout: Duration) -> Time {
        let start = Instant::now();
        Time { start, timeout }
    }

    /// Waits until the socket is ready, or has an error to report.
    fn wait(&self, socket: BorrowedFd<'_>, flags: PollFlags) -> Result<(), SegmentError> {
        loop {
            let left = self.timeout.saturating_sub(self.start.elapsed());
            // A timeout that the system cannot represent is longer than any process lives.
            let left = Timespec::try_from(left).ok();
            let mut fds = [PollFd::from_borrowed_fd(socket, flags)];
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(0) => {
                    let waited = self.start.elapsed();
                    return Err(SegmentError::SocketTimeout { waited });
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("poll", errno)),
            }
        }
    }
}

/// Sends the descriptor of the segment with this id.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    id: SegmentId,
    timeout: Duration,
) -> Result<(), SegmentError> {
    check_domain(socket)?;
    let time = Time::new(timeout);
    let message = message(id);
    let mut sent = 0;
    while sent < MESSAGE {
        time.wait(socket, PollFlags::OUT)?;
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        // The descriptor goes with the first byte. There is room for it.
        if sent == 0 {
            beside.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // NOSIGNAL: a closed socket is an error, not a SIGPIPE.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let bytes = [IoSlice::new(&message[sent..])];
        match rustix::net::sendmsg(socket, &bytes, &mut beside, flags) {
            Ok(count) => sent += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(failed("sendmsg", errno)),
        }
    }
    Ok(())
}

/// Receives a descriptor, and the id that its segment should have. Reads nothing beyond the
/// message. Closes all that a wrong message brings.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    timeout: Duration,
) -> Result<(OwnedFd, SegmentId), SegmentError> {
    check_domain(socket)?;
    let time = Time::new(timeout);
    let mut message = [0; MESSAGE];
    let mut received = 0;
    let mut fds = Vec::new();
    let mut lost = false;
    while received < MESSAGE {
        time.wait(socket, PollFlags::IN)?;
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM), ScmCredentials(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut bytes = [IoSliceMut::new(&mut message[received..])];
        let part = match rustix::net::recvmsg(socket, &mut bytes, &mut beside, flags) {
            Ok(part) => part,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(failed("recvmsg", errno)),
        };
        for beside in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = beside {
                fds.extend(passed);
            }
        }
        if fds.len() > 1 {
            return Err(refused(
                "the message brought several descriptors; send one segment by each call of \
                 Segment::send_to",
            ));
        }
        if part.flags.contains(ReturnFlags::TRUNC) {
            return Err(refused(OTHER_MESSAGE));
        }
        lost |= part.flags.contains(ReturnFlags::CTRUNC);
        if part.bytes == 0 {
            return Err(refused(match received {
                0 => CLOSED,
                _ => "it ended within the message; check whether the other process died",
            }));
        }
        received += part.bytes;
        let seen = received.min(MAGIC.len());
        if message[..seen] != MAGIC[..seen] {
            return Err(refused(OTHER_MESSAGE));
        }
    }
    let id = u64::from_le_bytes(std::array::from_fn(|at| message[8 + at]));
    match fds.pop() {
        Some(fd) => Ok((fd, SegmentId::from_bits(id))),
        None if lost => Err(refused(
            "the system has dropped the descriptor; if this process may open no more, close some, \
             or raise the limit (ulimit -n)",
        )),
        None => Err(refused(
            "the message brought no descriptor; send the segment by Segment::send_to, directly to \
             this process",
        )),
    }
}

const OTHER_MESSAGE: &str = "it brought another message; send by Segment::send_to of the same \
    release, at the moment at which this process calls Segment::receive_from";
