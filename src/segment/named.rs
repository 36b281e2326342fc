//! Segments with a POSIX name. The `shared_memory` crate creates and finds the file. The segment is
//! then bound through its own open file description, with a membership that decides which process
//! removes the name.
//!
//! Every process in a named segment holds a shared lock on the gate of its file, and joins only
//! while the name resolves to that file. A leaving process first closes its description, then
//! attempts to lock the gate exclusively. It gets the lock only if no process is in the segment,
//! and no process joins while the lock is held. So of two processes that leave at once the later
//! one gets the lock, and no process stays in a file that has lost its name.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, Stat, StatVfs};
use rustix::io::Errno;
use rustix::mm::Advice;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::commit;
use super::description::{self, Kind};
use super::file_check;
use super::mapping::{map_error, page_size};
use super::open::{self, Opened, Parts};
use super::options::{SHARED_CAPACITY, SegmentOptions};
use super::seat_lock;
use crate::layout::{Geometry, Header, Layout};
use crate::memory::Memory;
use crate::segment::error::{NoMemory, SegmentError};

#[cfg(test)]
mod tests;

/// Directory in which the C library keeps named shared memory.
pub(super) const DIR: &str = "/dev/shm/";

const MAX_NAME: usize = 250;

/// The purpose of a call on a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Create,
    Open,
    OpenOrCreate,
}

/// Identity of the file that a name resolves to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(stat: &Stat) -> FileId {
        FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// Refuses names that a segment cannot have.
pub(super) fn check_name(name: &str) -> Result<(), SegmentError> {
    let problem = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory's",
        name if name.starts_with('/') => "write it without the leading slash",
        name if name.contains('/') => "it contains a slash",
        name if name.contains('\0') => "it contains a NUL byte",
        name if name.len() > MAX_NAME => "it is too long: at most 250 bytes",
        _ => return Ok(()),
    };
    Err(SegmentError::Name {
        name: name.into(),
        problem,
    })
}

pub(super) fn path(name: &str) -> String {
    format!("{DIR}{name}")
}

/// Returns `true` if the name resolves to this file.
pub(super) fn resolves_to(name: &str, id: FileId) -> bool {
    rustix::fs::lstat(path(name)).is_ok_and(|stat| FileId::of(&stat) == id)
}

/// Refuses a file that another user owns or may write to, unless the options allow it.
pub(super) fn check_owner(
    name: &str,
    stat: &Stat,
    options: &SegmentOptions,
) -> Result<(), SegmentError> {
    let mode = stat.st_mode & 0o777;
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    let trusted = own || options.owner == Some(stat.st_uid);
    if !trusted || mode & 0o022 & !options.mode != 0 {
        return Err(SegmentError::Foreign {
            name: name.into(),
            uid: stat.st_uid,
            mode,
        });
    }
    Ok(())
}

/// Refuses directories, pipes and other special files under a segment's name.
pub(super) fn check_regular(name: &str, stat: &Stat) -> Result<(), SegmentError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(SegmentError::NotOurs {
            what: path(name),
            problem: "it is not a shared memory object",
            header: 0,
            size: stat.st_size as u64,
        }),
    }
}

/// Retries of a call until its timeout.
pub(super) struct Patience {
    start: Instant,
    timeout: Duration,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Patience {
        Patience {
            start: Instant::now(),
            timeout,
            pause: Duration::from_micros(50),
        }
    }

    /// Sleeps, longer each time. Returns `false` when the time is up.
    pub(super) fn wait(&mut self) -> bool {
        let left = self.timeout.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(Duration::from_millis(10));
        true
    }

    pub(super) fn unsettled(&self, name: &str) -> SegmentError {
        SegmentError::Unsettled {
            name: name.into(),
            waited: self.start.elapsed(),
        }
    }
}

/// Membership of this process in a named segment. It is dropped after the description is closed,
/// and then removes the name if no member is left.
pub(super) struct Membership {
    pub(super) name: String,
    id: FileId,
}

impl Membership {
    pub(super) fn new(name: &str, id: FileId) -> Membership {
        Membership {
            name: name.into(),
            id,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // On failure the name stays; the next process that opens it joins the segment.
        let _ = remove_if_deserted(&self.name, |file| file.id == self.id && !file.persistent);
    }
}

/// A file without members. The caller has closed its gate.
pub(super) struct Deserted {
    id: FileId,
    pub(super) stat: Stat,
    pub(super) size: u64,
    pub(super) header: u64,
    pub(super) persistent: bool,
}

/// Removes the name if its file has no member and meets `condition`. Returns `true` if removed.
pub(super) fn remove_if_deserted(
    name: &str,
    condition: impl Fn(&Deserted) -> bool,
) -> Result<bool, Errno> {
    let fd = open_file(name)?;
    // While we hold the gate exclusively, no process joins, and no other process removes the name.
    // So the checks below stay valid until the removal.
    if !seat_lock::close_gate(fd.as_fd())? {
        return Ok(false);
    }
    let stat = rustix::fs::fstat(&fd)?;
    let file = Deserted {
        id: FileId::of(&stat),
        stat,
        size: stat.st_size as u64,
        header: description::header_word(fd.as_fd(), Header::ALIVE)?,
        persistent: description::header_word(fd.as_fd(), Header::PERSISTENT)? != 0,
    };
    let removable = resolves_to(name, file.id) && condition(&file);
    if removable {
        rustix::fs::unlink(path(name))?;
    }
    Ok(removable)
}

pub(super) fn open_file(name: &str) -> Result<OwnedFd, Errno> {
    // NONBLOCK: a pipe or device under this name must not block the call.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path(name), flags, Mode::empty())
}

/// Outcome of one attempt to join.
enum Entry {
    Joined(Box<Parts>),
    /// Another process is removing the name, or has removed it.
    Moved,
    Unfinished {
        size: u64,
    },
}

/// Creates or opens the segment of this name.
pub(super) fn attach(
    name: &str,
    wish: Wish,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    attach_by(join, name, wish, options)
}

/// Attaches like [`attach`]. `join` is [`join`], or the step that a test puts in its place.
fn attach_by(
    mut join: impl FnMut(&str, &SegmentOptions) -> Result<Entry, SegmentError>,
    name: &str,
    wish: Wish,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    check_name(name)?;
    let mut patience = Patience::new(options.open_timeout);
    let mut made = None;
    loop {
        if made.is_none() && wish == Wish::Create {
            made = Some(make(name, options)?);
        }
        let entry = match join(name, options) {
            Err(SegmentError::NotFound { .. }) if wish == Wish::OpenOrCreate => {
                match make(name, options) {
                    Ok(_) | Err(SegmentError::Exists { .. }) => {}
                    Err(error) => return Err(error),
                }
                match join(name, options) {
                    Err(SegmentError::NotFound { .. }) => Entry::Moved,
                    entry => entry?,
                }
            }
            // Our file is gone: another process joined it and left meanwhile.
            Err(SegmentError::NotFound { .. }) if wish == Wish::Create => {
                made = None;
                Entry::Moved
            }
            entry => entry?,
        };
        match entry {
            // Another process's segment has taken the place of the one created here.
            Entry::Joined(parts) if made.flatten().is_some_and(|key| key != parts.key) => {
                made = None;
            }
            Entry::Joined(parts) => return Ok(*parts),
            Entry::Moved if patience.wait() => {}
            Entry::Moved => return Err(patience.unsettled(name)),
            Entry::Unfinished { .. } if patience.wait() => {}
            Entry::Unfinished { size } => {
                if wish == Wish::Open || !bury(name)? {
                    return Err(SegmentError::Unfinished {
                        name: name.into(),
                        size,
                        waited: options.open_timeout,
                    });
                }
                made = None;
                patience = Patience::new(options.open_timeout);
            }
        }
    }
}

/// Removes the name of a file left by a creator that died before it initialized the segment.
///
/// The file is not finished in place: a creator that was only stopped would later set its own size,
/// and cut off memory that members use. After the removal such a creator finds the name gone, and
/// starts anew.
fn bury(name: &str) -> Result<bool, SegmentError> {
    match remove_if_deserted(name, |file| file.header == 0) {
        Err(Errno::NOENT) => Ok(true),
        outcome => outcome.map_err(|errno| description::os_error("unlink", name, errno)),
    }
}

/// Attempts to join the segment of this name through its own open file description.
fn join(name: &str, options: &SegmentOptions) -> Result<Entry, SegmentError> {
    // `shared_memory` decides only whether the name exists. Its other errors are ignored, because
    // the checks below report them more clearly. Its mapping and description end here.
    if let Err(ShmemError::MapOpenFailed(code)) = ShmemConf::new().os_id(format!("/{name}")).open()
        && errno(code) == Errno::NOENT
    {
        return Err(SegmentError::NotFound { name: name.into() });
    }
    let fd = match open_file(name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Err(SegmentError::NotFound { name: name.into() }),
        Err(errno) => {
            if let Ok(stat) = rustix::fs::lstat(path(name)) {
                check_owner(name, &stat, options)?;
            }
            return Err(description::os_error("open", &path(name), errno));
        }
    };
    let stat = file_check::check_named(fd.as_fd(), name, options)?;
    let id = FileId::of(&stat);
    if !description::enter_gate(fd.as_fd())? || !resolves_to(name, id) {
        return Ok(Entry::Moved);
    }
    let opened = open::open_file(fd, Kind::Limited, Some((name, id)), name, options)?;
    Ok(match opened {
        Opened::Ready(parts) => Entry::Joined(parts),
        Opened::Unfinished { size } => Entry::Unfinished { size },
    })
}

/// Creates the file and initializes it. Returns the key, by which `attach` recognizes the segment,
/// or `None` if the kernel is too old to populate the first page safely.
fn make(name: &str, options: &SegmentOptions) -> Result<Option<u64>, SegmentError> {
    open::make_largest(options.geometries(SHARED_CAPACITY)?, |geometry| {
        make_sized(name, geometry, options.mode)
    })
}

fn make_sized(name: &str, geometry: Geometry, mode: u32) -> Result<Option<u64>, SegmentError> {
    let size = Layout::new(geometry).total;
    description::check_file_size(size)?;
    let bytes = usize::try_from(size).map_err(|_| map_error(Errno::NOMEM, size))?;
    let conf = ShmemConf::new().os_id(format!("/{name}")).size(bytes);
    let mut shmem = conf.create().map_err(|error| not_made(name, size, error))?;
    // From now on the membership removes the name; a forked child's copy of `shmem` must not.
    shmem.set_owner(false);
    // Set the mode before initializing: no process may join before the file has its final mode.
    match set_mode(name, mode).and_then(|()| revive(&shmem, geometry)) {
        Ok(key) => Ok(key),
        Err(errno) => {
            drop(shmem);
            let _ = remove_if_deserted(name, |file| is_unwanted(file, size));
            Err(match errno {
                Errno::FAULT | Errno::NOMEM | Errno::NOSPC => no_room(),
                errno => description::os_error("madvise", &path(name), errno),
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
            errno => description::os_error("shm_open", &path(name), errno),
        },
        ShmemError::UnknownOsError(code) => {
            description::os_error("ftruncate", &path(name), errno(code))
        }
        // The remaining variants concern links, which we do not use.
        _ => description::os_error("shm_open", &path(name), Errno::IO),
    }
}

/// Returns `true` if a file is the one that could not be initialized, by its size.
fn is_unwanted(file: &Deserted, size: u64) -> bool {
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
    let have = rustix::fs::statvfs(DIR).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    SegmentError::NoMemory(NoMemory {
        need: page_size() as u64,
        have,
        what: "/dev/shm".into(),
        remedy: commit::SHM_REMEDY,
    })
}

/// Writes header and key through the crate's mapping, after allocating its first page.
fn revive(shmem: &Shmem, geometry: Geometry) -> Result<Option<u64>, Errno> {
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
    let _ = open::claim_header(&memory);
    Ok(Some(open::draw_key(&memory)))
}

fn errno(code: u32) -> Errno {
    Errno::from_raw_os_error(code as i32)
}
