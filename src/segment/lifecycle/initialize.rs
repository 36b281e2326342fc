//! The way from a file, or fresh memory, to a mapped and initialized segment.

use std::os::fd::{AsFd, OwnedFd};

use crate::layout::{Geometry, Header, HintTree, Layout};
use crate::memory::Memory;
use crate::segment::error::{NoMemory, SegmentError};
use crate::segment::geometry::geometry_in;
use crate::segment::id::SegmentId;
use crate::segment::in_process::PrivateSeats;
use crate::segment::mapped::backing::{Backing, Parts};
use crate::segment::mapped::description::Description;
use crate::segment::mapped::membership::Membership;
use crate::segment::options::SegmentOptions;
use crate::segment::os::commit::{self, Way};
use crate::segment::os::file::{FileId, Kind, header_word, os_error};
use crate::segment::os::fork;
use crate::segment::os::mapping::{Mapping, map_error};
use crate::sync::Ordering;

/// Outcome of opening a file.
pub(crate) enum Opened {
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
pub(crate) fn open_file(
    fd: OwnedFd,
    kind: Kind,
    name: Option<(&str, FileId)>,
    what: &str,
    options: &SegmentOptions,
) -> Result<Opened, SegmentError> {
    let failed = |call| move |errno| os_error(call, what, errno);
    // The header before the size: a creator sets the size first. In the other order a finished segment
    // could show the size that it had before.
    let header = header_word(fd.as_fd(), Header::ALIVE).map_err(failed("pread"))?;
    let size = rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size as u64;
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
    let parts = initialize(own, mapping, geometry, header, options.pinned, what)?;
    Ok(Opened::Ready(Box::new(parts)))
}

/// Turns the mapping of a file into a segment. Initializes it with `geometry`, unless another
/// process has initialized it already; then that geometry holds, and `pinned` has no effect.
/// `header` is the header word that the caller has read; 0 if there was none.
pub(crate) fn initialize(
    mut own: Description,
    mapping: Mapping,
    geometry: Geometry,
    header: u64,
    pinned: bool,
    what: &str,
) -> Result<Parts, SegmentError> {
    let layout = Layout::new(geometry);
    let mut is_backed = header == 0;
    if is_backed {
        commit_fixed_tables(&own, &mapping, &layout)?;
    }
    // SAFETY: the mapping has `layout.total` bytes, because the geometry was chosen by the size of
    // the file. It starts at a page, and lives as long as the `Memory`, in one struct with it. All
    // processes that open such a file go through `Memory`.
    let mut memory = unsafe { Memory::new(mapping.base(), layout) };
    if let Err(found) = claim_header(&memory, pinned) {
        let found = geometry_in(found, layout.total, what)?;
        if found != geometry {
            let layout = Layout::new(found);
            own.resize_seats(found.seats);
            // SAFETY: as above; `geometry_in` has compared the total with the mapping's size.
            memory = unsafe { Memory::new(mapping.base(), layout) };
            is_backed = false;
        }
    }
    // Relaxed: the mark publishes no memory. Nobody takes pages back from the tables, so a mark that is
    // seen late only costs the time to ask for pages that are there.
    let mark = &memory.header()[Header::BACKED];
    let inode = own.file().map(FileId::inode);
    if Some(mark.load(Ordering::Relaxed)) != inode {
        if !is_backed {
            commit_fixed_tables(&own, &mapping, memory.layout())?;
        }
        mark.store(inode.unwrap_or(0), Ordering::Relaxed);
    }
    let (key, id) = (draw_key(&memory), draw_id(&memory));
    Ok(Parts {
        memory,
        mapping,
        backing: Backing::File(own),
        key,
        id,
    })
}

/// Sets the header to the geometry of `memory`. The error is the header set by another process.
pub(crate) fn claim_header(memory: &Memory, pinned: bool) -> Result<(), u64> {
    let word = Header::with_pinned(Header::encode(&memory.layout().geometry), pinned);
    // From 0 to { magic, version, geometry, pinned }: initialized. The exchange publishes nothing,
    // because zeros are an empty table. No access depends on the Acquire on failure, which costs
    // nothing.
    memory.header()[Header::ALIVE]
        .compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
}

/// Returns the segment's key. The first caller draws it.
pub(crate) fn draw_key(memory: &Memory) -> u64 {
    draw(memory, Header::KEY)
}

/// Returns the segment's id. The first caller draws it.
fn draw_id(memory: &Memory) -> SegmentId {
    SegmentId::from_bits(draw(memory, Header::ID))
}

/// Returns the random number in a word of the header. The first caller draws it.
fn draw(memory: &Memory, word: usize) -> u64 {
    let word = &memory.header()[word];
    // Relaxed: a number that is drawn never changes, and publishes nothing.
    let drawn = word.load(Ordering::Relaxed);
    if drawn != 0 {
        return drawn;
    }
    let fresh = fork::random_nonzero();
    match word.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(first) => first,
    }
}

/// Allocates the tables that are touched regardless of the arrays: header, seats, spans, schemas,
/// names and their counters, hints.
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

/// Creates a segment in fresh memory of this process.
pub(crate) fn in_process(geometry: Geometry, pinned: bool) -> Result<Parts, SegmentError> {
    let layout = Layout::new(geometry);
    let total = layout.total;
    let mapping = Mapping::private(total).map_err(|errno| map_error(errno, total))?;
    // SAFETY: the mapping has `layout.total` bytes, starts at a page, and lives as long as the
    // `Memory`, in one struct with it. It is new, and accessed through `Memory` alone.
    let memory = unsafe { Memory::new(mapping.base(), layout) };
    // The exchange succeeds, because fresh memory is zeroed.
    let _ = claim_header(&memory, pinned);
    let (key, id) = (draw_key(&memory), draw_id(&memory));
    Ok(Parts {
        memory,
        mapping,
        backing: Backing::InProcess(PrivateSeats::new(geometry.seats)),
        key,
        id,
    })
}
