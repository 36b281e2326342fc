//! Segments found in another process through `/proc`.

use std::os::fd::{AsFd, AsRawFd};

use ndshm::error::SegmentError;
use ndshm::segment::{PeerAddress, SegmentId};
use ndshm::{HandleTable, Segment};

use crate::support::{Child, Name, Pipe, sleep_for_ever};
use crate::{Vector, options};

fn send_address(pipe: &Pipe, address: &PeerAddress) {
    for number in [u64::from(address.pid()), u64::from(address.fd())] {
        pipe.send(number);
    }
    pipe.send(address.id().to_bits());
}

fn receive_address(pipe: &Pipe) -> PeerAddress {
    let (pid, fd, id) = (pipe.receive(), pipe.receive(), pipe.receive());
    PeerAddress::new(pid as u32, fd as u32, SegmentId::from_bits(id))
}

pub fn a_sibling_opens_a_segment_by_its_address() {
    let name = Name::new("peer");
    let (told, asked) = (Pipe::new(), Pipe::new());
    for named in [false, true] {
        let owner = Child::fork(|| {
            let segment = match named {
                true => options().create(&name.0).unwrap(),
                false => options().anonymous().unwrap(),
            };
            let table = HandleTable::join(&segment).unwrap();
            let x: Vector = table.from_elem(5, 7).unwrap();
            send_address(&told, &segment.peer_address().unwrap());
            told.send(x.to_bits());
            asked.receive();
        });
        let address = receive_address(&told);
        assert_eq!(address.pid(), owner.pid());
        let x = Vector::from_bits(told.receive());
        let sibling = Child::fork(|| {
            let segment = Segment::open_peer(&address).unwrap();
            assert_eq!(segment.id(), address.id());
            assert_eq!(segment.name().is_some(), named);
            let table = HandleTable::join(&segment).unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 35);
        });
        sibling.join();
        asked.send(0);
        owner.join();
        let gone = Segment::open_peer(&address).unwrap_err();
        assert!(
            matches!(gone, SegmentError::NoPeer { address: a } if a == address),
            "{gone}"
        );
    }
    assert!(!name.exists());
    let refused = options().in_process().unwrap().peer_address();
    assert!(matches!(refused, Err(SegmentError::NotShared)));
}

/// A child that has bound the segment has another description, under the same number.
pub fn a_child_has_an_address_of_its_own() {
    let segment = options().anonymous().unwrap();
    let parents = segment.peer_address().unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    for binds in [false, true] {
        let child = Child::fork(|| {
            if binds {
                segment.after_fork().unwrap();
            }
            assert_eq!(segment.id(), parents.id());
            send_address(&told, &segment.peer_address().unwrap());
            asked.receive();
        });
        let address = receive_address(&told);
        assert_eq!((address.pid(), address.id()), (child.pid(), parents.id()));
        for address in [address, parents] {
            assert_eq!(Segment::open_peer(&address).unwrap().id(), segment.id());
        }
        asked.send(0);
        child.join();
    }
}

pub fn an_address_that_leads_elsewhere_is_refused() {
    let segment = options().anonymous().unwrap();
    let other = options().anonymous().unwrap();
    let address = segment.peer_address().unwrap();
    let (pid, fd, id) = (address.pid(), address.fd(), address.id());
    // The number belongs to another segment by now.
    let moved = PeerAddress::new(pid, other.peer_address().unwrap().fd(), id);
    let refused = Segment::open_peer(&moved).unwrap_err();
    assert!(
        matches!(
            refused,
            SegmentError::OtherSegment { expected, found, .. }
                if expected == id && found == other.id()
        ),
        "{refused}"
    );
    let closed = PeerAddress::new(pid, 9999, id);
    let refused = Segment::open_peer(&closed).unwrap_err();
    assert!(matches!(refused, SegmentError::NoPeer { .. }), "{refused}");
    // No process can have it.
    let nobody = PeerAddress::new(u32::MAX, fd, id);
    let refused = Segment::open_peer(&nobody).unwrap_err();
    assert!(matches!(refused, SegmentError::NoPeer { .. }), "{refused}");
    // A segment that its process has dropped.
    drop(segment);
    let refused = Segment::open_peer(&address).unwrap_err();
    assert!(matches!(refused, SegmentError::NoPeer { .. }), "{refused}");
}

/// A pid and a number may be anything's by the time they are used.
pub fn nothing_is_opened_or_changed_at_a_foreign_descriptor() {
    let pid = std::process::id();
    let id = SegmentId::from_bits(0);
    let size = rustix::fs::fstat(options().anonymous().unwrap().fd().unwrap())
        .unwrap()
        .st_size;
    // An id of 0 is that of a file of zeros, which the crate would make a segment of.
    let zeros = rustix::fs::memfd_create("zeros", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&zeros, size as u64).unwrap();
    let sealed = rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SHRINK;
    rustix::fs::fcntl_add_seals(&zeros, sealed).unwrap();
    let pipe = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (socket, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    for fd in [
        zeros.as_fd(),
        pipe.0.as_fd(),
        pipe.1.as_fd(),
        null.as_fd(),
        socket.as_fd(),
    ] {
        let address = PeerAddress::new(pid, fd.as_raw_fd() as u32, id);
        let refused = options().open_peer(&address).unwrap_err();
        assert!(matches!(refused, SegmentError::NotOurs { .. }), "{refused}");
    }
    assert_eq!(rustix::fs::fstat(&zeros).unwrap().st_blocks, 0);
}

pub fn another_user_is_denied() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let segment = options().anonymous().unwrap();
    let address = segment.peer_address().unwrap();
    let stranger = Child::fork(|| {
        // SAFETY: the calls have no precondition.
        assert_eq!(unsafe { libc::setgid(65_534) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setuid(65_534) }, 0);
        let refused = Segment::open_peer(&address).unwrap_err();
        assert!(
            matches!(refused, SegmentError::PeerDenied { address: a, .. } if a == address),
            "{refused}"
        );
    });
    stranger.join();
    // A process that lets nobody look into it, as one with secrets.
    let (told, asked) = (Pipe::new(), Pipe::new());
    let secretive = Child::fork(|| {
        // SAFETY: the calls have no precondition.
        assert_eq!(unsafe { libc::setuid(65_534) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }, 0);
        let own = options().anonymous().unwrap();
        send_address(&told, &own.peer_address().unwrap());
        asked.receive();
    });
    let address = receive_address(&told);
    let twin = Child::fork(|| {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setuid(65_534) }, 0);
        let refused = Segment::open_peer(&address).unwrap_err();
        assert!(
            matches!(refused, SegmentError::PeerDenied { .. }),
            "{refused}"
        );
    });
    twin.join();
    asked.send(0);
    secretive.join();
    let idle = Child::fork(|| sleep_for_ever());
    let nothing = PeerAddress::new(idle.pid(), 9999, address.id());
    assert!(matches!(
        Segment::open_peer(&nothing),
        Err(SegmentError::NoPeer { .. })
    ));
    idle.kill();
}
