//! Segments sent through Unix sockets.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ndshm::error::SegmentError;
use ndshm::{HandleTable, Segment};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType};

use crate::support::{Child, Name, Pipe, sleep_for_ever};
use crate::{TIMEOUT, Vector, options};

/// Returns the two ends of a pair of sockets of this type.
fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap()
}

pub fn segments_pass_through_a_socket() {
    let name = Name::new("socket");
    for segment in [options().anonymous(), options().create(&name.0)] {
        let segment = segment.unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x: Vector = table.from_elem(5, 7).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        segment.send_to(&ours, TIMEOUT).unwrap();
        segment.send_to(&ours, TIMEOUT).unwrap();
        let child = Child::fork(|| {
            for _ in 0..2 {
                let segment = Segment::receive_from(&theirs, TIMEOUT).unwrap();
                assert_eq!(segment.id(), table.segment().id());
                assert_eq!(segment.name(), table.segment().name());
                let table = HandleTable::join(&segment).unwrap();
                assert_eq!(table.read(x).unwrap().sum(), 35);
            }
        });
        child.join();
    }
    assert!(!name.exists());
    let segment = options().in_process().unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let refused = segment.send_to(&ours, TIMEOUT);
    assert!(matches!(refused, Err(SegmentError::NotShared)));
}

pub fn a_socket_may_be_of_any_kind() {
    let segment = options().anonymous().unwrap();
    for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
        let (ours, theirs) = pair(kind);
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        segment.send_to(&ours, TIMEOUT).unwrap();
        let received = Segment::receive_from(&theirs, TIMEOUT).unwrap();
        assert_eq!(received.id(), segment.id());
    }
    // A socket that demands the credentials of senders.
    let (ours, theirs) = pair(SocketType::STREAM);
    rustix::net::sockopt::set_socket_passcred(&theirs, true).unwrap();
    segment.send_to(&ours, TIMEOUT).unwrap();
    assert!(Segment::receive_from(&theirs, TIMEOUT).is_ok());
    // Other sockets pass no descriptors, and would lose them without a word.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for other in [stream.as_fd(), file.as_fd()] {
        for refused in [
            segment.send_to(other, TIMEOUT),
            Segment::receive_from(other, TIMEOUT).map(drop),
        ] {
            assert_text(refused, "not a Unix socket");
        }
    }
    assert_text(segment.send_to(pair_end_alone(), TIMEOUT), "has closed it");
}

fn pair_end_alone() -> UnixStream {
    UnixStream::pair().unwrap().0
}

#[track_caller]
fn assert_text(outcome: Result<(), SegmentError>, expected: &str) {
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains(expected), "{text}");
}

pub fn a_stream_goes_on_behind_the_message() {
    let segment = options().anonymous().unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"before").unwrap();
    segment.send_to(&ours, TIMEOUT).unwrap();
    ours.write_all(b"after").unwrap();
    let mut text = [0; 6];
    theirs.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"before");
    let received = Segment::receive_from(&theirs, TIMEOUT).unwrap();
    assert_eq!(received.id(), segment.id());
    theirs.read_exact(&mut text[..5]).unwrap();
    assert_eq!(&text[..5], b"after");
}

pub fn waiting_ends_in_time() {
    let segment = options().anonymous().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let short = Duration::from_millis(50);
    let in_time = |outcome: Result<(), SegmentError>, start: Instant| {
        let refused = outcome.unwrap_err();
        assert!(
            matches!(refused, SegmentError::SocketTimeout { waited } if waited >= short),
            "{refused}"
        );
        assert!(start.elapsed() < TIMEOUT);
    };
    let start = Instant::now();
    in_time(Segment::receive_from(&theirs, short).map(drop), start);
    // A sender that sends a byte now and then gets no more time: all of it would take 15 s.
    let slow = Child::fork(|| {
        for byte in b"ndshm 1\n0123456" {
            let _ = ours.write_all(&[*byte]);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let (long, start) = (Duration::from_millis(1500), Instant::now());
    in_time(Segment::receive_from(&theirs, long).map(drop), start);
    assert!(start.elapsed() < Duration::from_secs(8));
    slow.kill();
    // A receiver that never receives.
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    while ours.write(&[0; 4096]).is_ok() {}
    ours.set_nonblocking(false).unwrap();
    in_time(segment.send_to(&ours, short), Instant::now());
}

/// Sends these bytes and descriptors, whatever they are.
fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(beside.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let bytes = [IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &bytes, &mut beside, SendFlags::empty()).unwrap();
}

/// Returns the number of open descriptors of this process.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn message(segment: &Segment) -> Vec<u8> {
    let mut bytes = b"ndshm 1\n".to_vec();
    bytes.extend(segment.id().to_bits().to_le_bytes());
    bytes
}

pub fn hostile_senders_leave_nothing_open() {
    let segment = options().anonymous().unwrap();
    let other = options().anonymous().unwrap();
    let good = message(&segment);
    let fd = segment.fd().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let directory = std::fs::File::open("/tmp").unwrap();
    let program = std::fs::File::open("/proc/self/exe").unwrap();
    let pipe = std::io::pipe().unwrap();
    let zeros = rustix::fs::memfd_create("zeros", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&zeros, rustix::fs::fstat(fd).unwrap().st_size as u64).unwrap();
    let sealed = rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SHRINK;
    rustix::fs::fcntl_add_seals(&zeros, sealed).unwrap();
    let (far, _near) = UnixStream::pair().unwrap();
    let foreign = [
        (null.as_fd(), "neither a memfd nor"),
        (directory.as_fd(), "neither a memfd nor"),
        (program.as_fd(), "neither a memfd nor"),
        (pipe.0.as_fd(), "neither a memfd nor"),
        (far.as_fd(), "neither a memfd nor"),
        (zeros.as_fd(), "is not a segment of ndshm"),
        (other.fd().unwrap(), "not segment"),
    ];
    let long = [&good[..], b"more"].concat();
    let mut cases: Vec<(SocketType, &[u8], Vec<BorrowedFd<'_>>, &str)> = vec![
        (SocketType::STREAM, &good, vec![], "no descriptor"),
        (
            SocketType::STREAM,
            &good,
            vec![fd; 2],
            "several descriptors",
        ),
        (
            SocketType::STREAM,
            &good,
            vec![fd; 60],
            "several descriptors",
        ),
        (SocketType::STREAM, &good[..15], vec![fd], "ended within"),
        (SocketType::STREAM, &good[..1], vec![fd], "ended within"),
        (
            SocketType::STREAM,
            b"POST / HTTP/1.1\r\n",
            vec![fd],
            "another message",
        ),
        (SocketType::STREAM, b"n", vec![fd; 2], "several descriptors"),
        (SocketType::STREAM, b"x", vec![fd], "another message"),
        (SocketType::SEQPACKET, &long, vec![fd], "another message"),
        (SocketType::DGRAM, &long, vec![fd], "another message"),
        (SocketType::SEQPACKET, &good[..3], vec![fd], "ended within"),
    ];
    cases.extend(
        foreign
            .iter()
            .map(|(fd, expected)| (SocketType::STREAM, &good[..], vec![*fd], *expected)),
    );
    let before = open_descriptors();
    for (kind, bytes, fds, expected) in cases {
        let (ours, theirs) = pair(kind);
        send(&ours, bytes, &fds);
        drop(ours);
        assert_text(Segment::receive_from(&theirs, TIMEOUT).map(drop), expected);
        drop(theirs);
        assert_eq!(open_descriptors(), before, "{expected}");
    }
    // Descriptors beside the second part of a message.
    let (ours, theirs) = pair(SocketType::STREAM);
    send(&ours, &good[..8], &[fd]);
    send(&ours, &good[8..], &[fd]);
    assert_text(Segment::receive_from(&theirs, TIMEOUT).map(drop), "several");
    drop((ours, theirs));
    let (ours, theirs) = pair(SocketType::STREAM);
    send(&ours, &good[..8], &[]);
    send(&ours, &good[8..], &[fd]);
    assert!(Segment::receive_from(&theirs, TIMEOUT).is_ok());
    drop((ours, theirs));
    assert_text(
        Segment::receive_from(pair_end_alone(), TIMEOUT).map(drop),
        "has closed it",
    );
    assert_eq!(open_descriptors(), before);
    // No byte of the file of zeros has become a segment.
    let mut first = [0; 8];
    rustix::io::pread(&zeros, &mut first, 0).unwrap();
    assert_eq!(first, [0; 8]);
}

pub fn a_process_without_a_free_descriptor_is_told() {
    let segment = options().anonymous().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    segment.send_to(&ours, TIMEOUT).unwrap();
    let mut all = Vec::new();
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(64),
            maximum: Some(64),
        },
    )
    .unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        all.push(file);
    }
    assert_text(
        Segment::receive_from(&theirs, TIMEOUT).map(drop),
        "may open no more",
    );
    assert_text(
        segment.send_to(&ours, TIMEOUT),
        "no file descriptor is left",
    );
}

/// A segment on its way, or in a process that has died, keeps no seat.
pub fn a_receiver_that_dies_keeps_nobody_alive() {
    let told = Pipe::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sender = Child::fork(|| {
        let segment = options().anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x: Vector = table.from_elem(3, 1).unwrap();
        // One copy stays in the socket until this process is dead.
        segment.send_to(&ours, TIMEOUT).unwrap();
        segment.send_to(&ours, TIMEOUT).unwrap();
        told.send(x.to_bits());
        sleep_for_ever();
    });
    let x = Vector::from_bits(told.receive());
    let segment = Segment::receive_from(&theirs, TIMEOUT).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 3);
    sender.kill();
    assert_eq!(table.reap().unwrap().seats, 1);
    assert!(table.read(x).is_err());
    let received = Segment::receive_from(&theirs, TIMEOUT).unwrap();
    assert_eq!(received.id(), segment.id());
    // The descriptors that it brought are closed, apart from the segments' own.
    // SAFETY: the number is that of an open descriptor, which `ManuallyDrop` leaves open.
    let own = std::mem::ManuallyDrop::new(unsafe {
        OwnedFd::from_raw_fd(received.fd().unwrap().as_raw_fd())
    });
    let flags = rustix::io::fcntl_getfd(&*own).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}
