//! The way from a file, or fresh memory, to a mapped and initialized segment.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::commit::{self, Way};
use super::description::{self, Description, Kind};
use super::fork;
use super::in_process::PrivateSeats;
use super::mapping::{Mapping, map_error};
use super::named::{FileId, Membership};
use super::options::SegmentOptions;
use super::shared::Backing;
use crate::layout::{Geometry, Header, HeaderError, HintTree, LAYOUT_VERSION, Layout};
use crate::memory::Memory;
use crate::segment::error::{NoMemory, SegmentError};
use crate::sync::Ordering;

/// A segment that is mapped and initialized.
pub(super) struct Parts {
    pub(super) memory: Memory,
    pub(super) mapping: Mapping,
    pub(super) backing: Backing,
    pub(super) key: u64,
}

/// Outcome of opening a file.
pub(super) enum Opened {
    Ready(Box<Parts>),
    /// The file has no header, and its size matches no geometry.
    Unfinished {
        size: u64,
    },
}

/// Maps a file that may hold a segment, and initializes the segment if no process has yet.
///
/// `name` is given if the file has one; the last process to leave then removes the name. A file
/// that is not a segment stays unchanged.
pub(super) fn open_file(
    fd: OwnedFd,
    kind: Kind,
    name: Option<(&str, FileId)>,
    what: &str,
    options: &SegmentOptions,
) -> Result<Opened, SegmentError> {
    let failed = |call| move |errno| description::os_error(call, what, errno);
    let size = rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size as u64;
    let header = description::header_word(fd.as_fd(), Header::ALIVE).map_err(failed("pread"))?;
    let geometry = match header {
        0 => match options.geometry_of_size(size)? {
            Some(geometry) => geometry,
            None => return Ok(Opened::Unfinished { size }),
        },
        word => geometry_in(word, size, what)?,
    };
    let member = name.map(|(name, id)| Membership::new(name, id));
    let own = Description::new(fd, kind, geometry.seats, member);
    let mapping = Mapping::of_file(own.fd(), size).map_err(|errno| map_error(errno, size))?;
    let parts = bring_to_life(own, mapping, geometry, what)?;
    Ok(Opened::Ready(Box::new(parts)))
}

/// Returns the geometry in a header word, if a file of this size can have it.
pub(super) fn geometry_in(header: u64, size: u64, what: &str) -> Result<Geometry, SegmentError> {
    let not_ours = |problem| SegmentError::NotOurs {
        what: what.into(),
        problem,
        header,
        size,
    };
    match Header::decode(header) {
        Ok(geometry) if Layout::new(geometry).total == size => Ok(geometry),
        Ok(_) => Err(not_ours("its size is not the one that its header says")),
        Err(HeaderError::NotOurs { .. }) => Err(not_ours("it starts with something else")),
        Err(HeaderError::Version { found }) => Err(SegmentError::Version {
            what: what.into(),
            found,
            supported: LAYOUT_VERSION,
        }),
    }
}

/// Turns the mapping of a file into a segment. Initializes it with `geometry`, unless another
/// process has initialized it already; then that geometry holds.
pub(super) fn bring_to_life(
    mut own: Description,
    mapping: Mapping,
    geometry: Geometry,
    what: &str,
) -> Result<Parts, SegmentError> {
    let layout = Layout::new(geometry);
    commit_fixed_tables(&own, &mapping, &layout)?;
    // SAFETY: the mapping has `layout.total` bytes, because the geometry was chosen by the size of
    // the file. It starts at a page, and lives as long as the `Memory`, in one struct with it. All
    // processes that open such a file go through `Memory`.
    let mut memory = unsafe { Memory::new(mapping.base(), layout) };
    if let Err(found) = claim_header(&memory) {
        let found = geometry_in(found, layout.total, what)?;
        if found != geometry {
            let layout = Layout::new(found);
            commit_fixed_tables(&own, &mapping, &layout)?;
            own.resize_seats(found.seats);
            // SAFETY: as above; `geometry_in` has compared the total with the mapping's size.
            memory = unsafe { Memory::new(mapping.base(), layout) };
        }
    }
    let key = draw_key(&memory);
    Ok(Parts {
        memory,
        mapping,
        backing: Backing::File(own),
        key,
    })
}

/// Sets the header to the geometry of `memory`. The error is the header set by another process.
pub(super) fn claim_header(memory: &Memory) -> Result<(), u64> {
    let word = Header::encode(&memory.layout().geometry);
    // From 0 to { magic, version, geometry }: initialized. The exchange publishes nothing, because
    // zeros are an empty table. No access depends on the Acquire on failure, which costs nothing.
    memory.header()[Header::ALIVE]
        .compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
}

/// Returns the segment's key. The first caller draws it.
pub(super) fn draw_key(memory: &Memory) -> u64 {
    let word = &memory.header()[Header::KEY];
    let fresh = fork::random_nonzero();
    match word.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(first) => first,
    }
}

/// Allocates the tables that are touched regardless of the arrays: header, seats, spans, schemas,
/// names, hints.
fn commit_fixed_tables(
    own: &Description,
    mapping: &Mapping,
    layout: &Layout,
) -> Result<(), NoMemory> {
    if own.kind == Kind::Limited {
        commit::allocate(Some(own.fd()), mapping, 0, layout.slots, Way::File)?;
        let hints = HintTree::new(&layout.geometry).total_words() as u64 * 8;
        let last = layout.hints + hints - layout.schemas;
        commit::allocate(Some(own.fd()), mapping, layout.schemas, last, Way::File)?;
    }
    Ok(())
}

/// Creates a segment of the first of these geometries that the system does not refuse as too large.
pub(super) fn make_largest<T>(
    geometries: Vec<Geometry>,
    mut make: impl FnMut(Geometry) -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    let mut refused = None;
    for geometry in geometries {
        match make(geometry) {
            Err(error) if can_be_smaller(&error) => refused = Some(error),
            outcome => return outcome,
        }
    }
    // There is at least one geometry, so `refused` is set here.
    Err(refused.unwrap_or_else(|| map_error(Errno::NOMEM, 0)))
}

/// Returns `true` if a smaller segment may succeed.
pub(super) fn can_be_smaller(error: &SegmentError) -> bool {
    matches!(
        error,
        SegmentError::AddressSpace { .. }
            | SegmentError::FileSize { .. }
            | SegmentError::Os {
                call: "ftruncate",
                ..
            }
    )
}

/// Creates a segment in fresh memory of this process.
pub(super) fn in_process(geometry: Geometry) -> Result<Parts, SegmentError> {
    let layout = Layout::new(geometry);
    let total = layout.total;
    let mapping = Mapping::private(total).map_err(|errno| map_error(errno, total))?;
    // SAFETY: the mapping has `layout.total` bytes, starts at a page, and lives as long as the
    // `Memory`, in one struct with it. It is new, and accessed through `Memory` alone.
    let memory = unsafe { Memory::new(mapping.base(), layout) };
    // The exchange succeeds, because fresh memory is zeroed.
    let _ = claim_header(&memory);
    let key = draw_key(&memory);
    Ok(Parts {
        memory,
        mapping,
        backing: Backing::InProcess(PrivateSeats::new(geometry.seats)),
        key,
    })
}
