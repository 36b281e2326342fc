//! What others do to a name while a call is on its way, and what each wish comes to then.

use super::super::tests::{Name, no_forks, small};
use super::*;

/// Opens the segment of this name, with something done before the first look at the name.
fn after_first(
    name: &Name,
    wish: Wish,
    options: &SegmentOptions,
    before: impl FnOnce(),
) -> Result<Parts, SegmentError> {
    let mut before = Some(before);
    let joined = |name: &str, options: &SegmentOptions| {
        if let Some(before) = before.take() {
            before();
        }
        join(name, options)
    };
    attach_by(joined, &name.0, wish, options)
}

#[test]
fn a_new_segment_is_alive_and_known_by_its_key() {
    let name = Name::new("made");
    let options = small();
    let key = make(&name.0, &options).unwrap();
    let key = key.expect("Linux 5.14 can touch memory that may not be there");
    let fd = open_file(&name.0).unwrap();
    let word = |index| description::header_word(fd.as_fd(), index).unwrap();
    let geometry = Header::decode(word(Header::ALIVE)).unwrap();
    assert_eq!(geometry.capacity, 8 << 20);
    assert_eq!(word(Header::KEY), key);
}

#[test]
fn a_segment_that_is_gone_before_it_is_entered_is_created_anew() {
    let _quiet = no_forks();
    let name = Name::new("gone");
    let options = small();
    let mut first = 0;
    let created = after_first(&name, Wish::Create, &options, || {
        let other = small().open(&name.0).unwrap();
        first = other.key();
        drop(other);
        assert!(!name.exists());
    });
    assert_ne!(created.unwrap().key, first);
}

#[test]
fn a_segment_of_another_is_not_taken_for_a_created_one() {
    let _quiet = no_forks();
    let name = Name::new("replaced");
    let options = small();
    let mut other = None;
    let refused = after_first(&name, Wish::Create, &options, || {
        drop(small().open(&name.0).unwrap());
        other = Some(small().create(&name.0).unwrap());
    });
    assert!(matches!(refused.err(), Some(SegmentError::Exists { .. })));
    let joined = attach(&name.0, Wish::OpenOrCreate, &options).unwrap();
    assert_eq!(joined.key, other.unwrap().key());
}

#[test]
fn a_name_that_is_being_removed_is_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("closed-gate");
    let segment = small().persistent(true).create(&name.0).unwrap();
    let key = segment.key();
    drop(segment);
    let gate = open_file(&name.0).unwrap();
    assert_eq!(seat_lock::close_gate(gate.as_fd()), Ok(true));
    let refused = small().open(&name.0).unwrap_err();
    assert!(matches!(refused, SegmentError::Unsettled { .. }));
    let passed = small().from_fd(open_file(&name.0).unwrap()).unwrap_err();
    assert!(matches!(passed, SegmentError::Unsettled { .. }));
    let patient = || small().open_timeout(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| patient().open(&name.0).unwrap().key());
        let passed = scope.spawn(|| {
            patient()
                .from_fd(open_file(&name.0).unwrap())
                .unwrap()
                .key()
        });
        std::thread::sleep(Duration::from_millis(30));
        drop(gate);
        assert_eq!(opener.join().unwrap(), key);
        assert_eq!(passed.join().unwrap(), key);
    });
}

#[test]
fn a_creator_at_work_is_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("at-work");
    let model = small().in_process().unwrap();
    let total = model.memory().layout().total;
    let file = std::fs::File::create(path(&name.0)).unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).unwrap();
    std::thread::scope(|scope| {
        let patient = small().open_timeout(Duration::from_secs(60));
        let opener = scope.spawn(|| patient.open(&name.0).unwrap().capacity());
        std::thread::sleep(Duration::from_millis(30));
        file.set_len(total).unwrap();
        assert_eq!(opener.join().unwrap(), 8 << 20);
    });
}

#[test]
fn only_users_that_the_options_name_are_trusted() {
    let user = rustix::process::geteuid().as_raw();
    let of = |uid| {
        let mut stat = rustix::fs::stat(DIR).unwrap();
        (stat.st_uid, stat.st_mode) = (uid, 0o100_600);
        stat
    };
    let check = |uid: u32, options: SegmentOptions| check_owner("a", &of(uid), &options).is_ok();
    assert!(check(user, small()) && check(user, small().owner(user + 1)));
    assert!(!check(user + 1, small()) && check(user + 1, small().owner(user + 1)));
    assert!(!check(user + 2, small().owner(user + 1)));
}

#[test]
fn a_directory_is_not_taken_for_a_name_that_nobody_has() {
    let name = Name::new("directory");
    std::fs::create_dir(path(&name.0)).unwrap();
    let refused = small().open(&name.0);
    std::fs::remove_dir(path(&name.0)).unwrap();
    assert!(matches!(refused, Err(SegmentError::Os { .. })));
}

#[test]
fn each_pause_is_longer_than_the_one_before() {
    let mut patience = Patience::new(Duration::from_millis(100));
    let mut turns = 0;
    while patience.wait() {
        turns += 1;
    }
    // 50 us doubled to 10 ms are 8 turns, in 13 ms.
    assert!(turns <= 20, "{turns}");
}

#[test]
fn a_new_name_has_the_bits_that_were_asked_for() {
    let name = Name::new("bits");
    make(&name.0, &small().mode(0o640)).unwrap();
    let stat = rustix::fs::stat(path(&name.0)).unwrap();
    assert_eq!(stat.st_mode & 0o777, 0o640);
}

#[test]
fn a_file_that_could_not_be_made_is_told_by_its_reason() {
    let code = |errno: Errno| errno.raw_os_error() as u32;
    let reason = |error| not_made("a", 7, error);
    let create = |errno| reason(ShmemError::MapCreateFailed(code(errno)));
    let exists = reason(ShmemError::MappingIdExists);
    assert!(matches!(exists, SegmentError::Exists { .. }));
    let large = create(Errno::NOMEM);
    assert!(matches!(large, SegmentError::AddressSpace { bytes: 7, .. }));
    let full = create(Errno::NOSPC);
    assert!(
        matches!(full, SegmentError::NoMemory(_)),
        "there are inodes"
    );
    let call = |error| match error {
        SegmentError::Os { call, source, .. } => (call, source.raw_os_error()),
        other => panic!("{other}"),
    };
    let denied = Some(libc::EACCES);
    assert_eq!(call(create(Errno::ACCESS)), ("shm_open", denied));
    let resized = reason(ShmemError::UnknownOsError(code(Errno::ACCESS)));
    assert_eq!(call(resized), ("ftruncate", denied));
    let other = reason(ShmemError::LinkDoesNotExist);
    assert_eq!(call(other), ("shm_open", Some(libc::EIO)));
}

#[test]
fn only_a_place_without_inodes_is_said_to_have_none() {
    let told = |inodes| {
        let mut shm = rustix::fs::statvfs(DIR).unwrap();
        (shm.f_favail, shm.f_files) = (inodes, 20);
        no_inode("a", Ok(shm))
    };
    assert!(matches!(told(0), SegmentError::Inodes { inodes: 20, .. }));
    assert!(matches!(told(1), SegmentError::NoMemory(_)));
    let unknown = no_inode("a", Err(Errno::IO));
    assert!(matches!(unknown, SegmentError::NoMemory(_)));
}

#[test]
fn only_the_file_that_was_made_is_unwanted() {
    let stat = rustix::fs::stat(DIR).unwrap();
    let of = |size, persistent| Deserted {
        id: FileId::of(&stat),
        stat,
        size,
        header: 0,
        persistent,
    };
    assert!(is_unwanted(&of(7, false), 7));
    assert!(!is_unwanted(&of(7, true), 7) && !is_unwanted(&of(8, false), 7));
}

#[test]
fn a_name_is_opened_for_this_program_alone_and_not_through_a_link() {
    let (name, link) = (Name::new("flags"), Name::new("flags-link"));
    std::fs::write(path(&name.0), "").unwrap();
    let fd = open_file(&name.0).unwrap();
    let descriptor = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(descriptor.contains(rustix::io::FdFlags::CLOEXEC));
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    assert!(flags.contains(OFlags::RDWR | OFlags::NONBLOCK));
    std::os::unix::fs::symlink(path(&name.0), path(&link.0)).unwrap();
    assert_eq!(open_file(&link.0).err(), Some(Errno::LOOP));
}
