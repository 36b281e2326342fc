//! New names: the file of a named segment, created and initialized by the `shared_memory` crate.

use std::ptr::NonNull;

use rustix::fs::{Mode, StatVfs};
use rustix::io::Errno;
use rustix::mm::Advice;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::initialize;
use crate::layout::{Geometry, Layout};
use crate::memory::Memory;
use crate::segment::error::{NoMemory, SegmentError};
use crate::segment::geometry::{SHARED_CAPACITY, make_largest};
use crate::segment::mapped::membership::{Unused, remove_if_unused};
use crate::segment::options::SegmentOptions;
use crate::segment::os::file::{DIR, SHM_REMEDY, check_file_size, os_error, path, shm_free};
use crate::segment::os::mapping::{map_error, page_size};

/// Creates the file and initializes it. Returns the key, by which the caller recognizes the
/// segment, or `None` if the kernel is too old to populate the first page safely.
pub(super) fn make(name: &str, options: &SegmentOptions) -> Result<Option<u64>, SegmentError> {
    make_largest(options.geometries(SHARED_CAPACITY)?, |geometry| {
        make_sized(name, geometry, options)
    })
}

fn make_sized(
    name: &str,
    geometry: Geometry,
    options: &SegmentOptions,
) -> Result<Option<u64>, SegmentError> {
    let size = Layout::new(geometry).total;
    check_file_size(size)?;
    let bytes = usize::try_from(size).map_err(|_| map_error(Errno::NOMEM, size))?;
    let conf = ShmemConf::new().os_id(format!("/{name}")).size(bytes);
    let mut shmem = conf.create().map_err(|error| not_made(name, size, error))?;
    // From now on the membership removes the name; a forked child's copy of `shmem` must not.
    shmem.set_owner(false);
    // Set the mode before initializing: no process may join before the file has its final mode.
    let first_page = || initialize_first_page(&shmem, geometry, options.pinned);
    match set_mode(name, options.mode).and_then(|()| first_page()) {
        Ok(key) => Ok(key),
        Err(errno) => {
            drop(shmem);
            let _ = remove_if_unused(name, |file| is_unwanted(file, size));
            Err(match errno {
                Errno::FAULT | Errno::NOMEM | Errno::NOSPC => no_room(),
                errno => os_error("madvise", &path(name), errno),
            })
        }
    }
}

/// Returns the reason why no file of this size could be created.
fn not_made(name: &str, size: u64, error: ShmemError) -> SegmentError {
    match error {
        ShmemError::MappingIdExists => SegmentError::Exists { name: name.into() },
        ShmemError::MapCreateFailed(code) => match errno(code) {
            Errno::NOMEM => map_error(Errno::NOMEM, size),
            Errno::NOSPC => no_inode(name, rustix::fs::statvfs(DIR)),
            errno => os_error("shm_open", &path(name), errno),
        },
        ShmemError::UnknownOsError(code) => os_error("ftruncate", &path(name), errno(code)),
        // The remaining variants concern links, which we do not use.
        _ => os_error("shm_open", &path(name), Errno::IO),
    }
}

/// Returns `true` if a file is the one that could not be initialized, by its size.
fn is_unwanted(file: &Unused, size: u64) -> bool {
    file.size == size && !file.persistent
}

/// Sets the permission bits of a new name, regardless of the umask.
///
/// If another file has taken the name meanwhile, it is also this user's. Its creator has asked for
/// the same bits, or sets its own next.
fn set_mode(name: &str, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmod(path(name), Mode::from_raw_mode(mode))
}

fn no_inode(name: &str, shm: Result<StatVfs, Errno>) -> SegmentError {
    match shm {
        Ok(fs) if fs.f_favail == 0 => SegmentError::Inodes {
            name: name.into(),
            inodes: fs.f_files,
        },
        _ => no_room(),
    }
}

fn no_room() -> SegmentError {
    SegmentError::NoMemory(NoMemory {
        need: page_size() as u64,
        have: shm_free(),
        what: "/dev/shm".into(),
        remedy: SHM_REMEDY,
    })
}

/// Writes header and key through the crate's mapping, after allocating its first page.
fn initialize_first_page(
    shmem: &Shmem,
    geometry: Geometry,
    pinned: bool,
) -> Result<Option<u64>, Errno> {
    let base = NonNull::new(shmem.as_ptr()).ok_or(Errno::FAULT)?;
    let first = base.as_ptr().cast();
    // SAFETY: the first page of `shmem`'s mapping, which exists as long as `shmem`; the advice
    // changes no byte.
    match unsafe { rustix::mm::madvise(first, page_size(), Advice::LinuxPopulateWrite) } {
        // A kernel before 5.14: the first process that joins initializes the segment.
        Err(Errno::INVAL) => return Ok(None),
        outcome => outcome?,
    }
    // SAFETY: the mapping has `layout.total` bytes, starts at a page, and outlives `memory`, which
    // ends in this function. The file is new, and every process that knows it goes through
    // `Memory`.
    let memory = unsafe { Memory::new(base, Layout::new(geometry)) };
    // A failed exchange means that another process has joined and initialized the segment already.
    let _ = initialize::claim_header(&memory, pinned);
    Ok(Some(initialize::draw_key(&memory)))
}

/// Returns the error with a code of the `shared_memory` crate.
fn errno(code: u32) -> Errno {
    Errno::from_raw_os_error(code as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Header;
    use crate::segment::os::file::{FileId, header_word, open_file};
    use crate::segment::tests::{Name, small};
    use std::os::fd::AsFd;

    #[test]
    fn a_new_segment_is_alive_and_known_by_its_key() {
        let name = Name::new("made");
        let options = small();
        let key = make(&name.0, &options).unwrap();
        let key = key.expect("Linux 5.14 can touch memory that may not be there");
        let fd = open_file(&name.0).unwrap();
        let word = |index| header_word(fd.as_fd(), index).unwrap();
        let geometry = Header::decode(word(Header::ALIVE)).unwrap();
        assert_eq!(geometry.capacity, 8 << 20);
        assert_eq!(word(Header::KEY), key);
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
        let of = |size, persistent| Unused {
            id: FileId::of(&stat),
            stat,
            size,
            header: 0,
            persistent,
        };
        assert!(is_unwanted(&of(7, false), 7));
        assert!(!is_unwanted(&of(7, true), 7) && !is_unwanted(&of(8, false), 7));
    }
}
