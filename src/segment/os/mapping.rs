//! The address range of a segment: reserved once, mapped in place, never moved.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use rustix::process::Resource;

use crate::segment::error::SegmentError;

/// A mapping of a segment; unmapped on drop.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the struct is an address and a length, and uses them only for system calls that any
// thread may make. `Memory` and the leases decide which thread may access the bytes.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

/// Alignment of a mapping's start. With it the data region starts at a huge page.
const ALIGN: usize = 2 << 20;

const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl Mapping {
    /// Maps `len` bytes of a file, shared.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, len: u64) -> Result<Mapping, Errno> {
        let mapping = Mapping::reserve(len)?;
        mapping.rebind(fd)?;
        Ok(mapping)
    }

    /// Maps parts of a file one after another, shared and read-only. A part is an offset and a
    /// length of at least one byte. Returns the mapping, and the offset of each part in it.
    pub(crate) fn of_file_parts<const N: usize>(
        fd: BorrowedFd<'_>,
        parts: [(u64, u64); N],
    ) -> Result<(Mapping, [u64; N]), Errno> {
        let page = page_size() as u64;
        // A mapping starts and ends at a page.
        let pages = parts.map(|(offset, len)| {
            let room = (offset % page).checked_add(len)?;
            room.checked_next_multiple_of(page)
        });
        let total = pages
            .iter()
            .try_fold(0u64, |sum, &room| sum.checked_add(room?));
        let mapping = Mapping::reserve(total.ok_or(Errno::NOMEM)?)?;
        let mut end = 0;
        let mut starts = [0; N];
        for (start, ((offset, _), room)) in starts.iter_mut().zip(parts.into_iter().zip(pages)) {
            let (skipped, room) = (offset % page, room.ok_or(Errno::NOMEM)?);
            mapping.map_at(end, room as usize, ProtFlags::READ, fd, offset - skipped)?;
            *start = end as u64 + skipped;
            end += room as usize;
        }
        mapping.leave_out_of_core_dumps();
        Ok((mapping, starts))
    }

    /// Maps `len` bytes of this process's own memory.
    pub(crate) fn private(len: u64) -> Result<Mapping, Errno> {
        let mapping = Mapping::reserve(len)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is the reservation that `mapping` owns, and no other code has its
        // address yet.
        unsafe { rustix::mm::mmap_anonymous(mapping.start(), mapping.len, ACCESS, flags) }?;
        mapping.leave_out_of_core_dumps();
        Ok(mapping)
    }

    /// Reserves `len` bytes of address space that cannot be accessed yet, aligned to [`ALIGN`].
    fn reserve(len: u64) -> Result<Mapping, Errno> {
        let page = page_size();
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let len = len.checked_next_multiple_of(page).ok_or(Errno::NOMEM)?;
        let room = len.checked_add(ALIGN).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), room, ProtFlags::empty(), flags)
        }?;
        let before = start.addr().next_multiple_of(ALIGN) - start.addr();
        let base = start.wrapping_byte_add(before);
        unmap(start, before);
        unmap(base.wrapping_byte_add(len), room - before - len);
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { base, len })
    }

    /// Maps the same file through another description of it, over the same addresses.
    pub(crate) fn rebind(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        self.map_at(0, self.len, ACCESS, fd, 0)?;
        self.leave_out_of_core_dumps();
        Ok(())
    }

    /// Maps the same file privately, over the same addresses: a page that is written becomes this
    /// process's own. On failure the mapping is as it was.
    pub(crate) fn make_private(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // Not in place: a kernel that refuses the new mapping may have removed the old one already.
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let fresh = unsafe { rustix::mm::mmap(ptr::null_mut(), self.len, ACCESS, flags, fd, 0) }?;
        let moved = MremapFlags::MAYMOVE;
        // SAFETY: `fresh` is the mapping made above, of which only this function knows. The target
        // is this mapping's own range, with the same bytes of the same file; as in `map_at`,
        // another thread's access waits until the kernel has finished the exchange.
        let outcome =
            unsafe { rustix::mm::mremap_fixed(fresh, self.len, self.len, moved, self.start()) };
        if let Err(errno) = outcome {
            unmap(fresh, self.len);
            return Err(errno);
        }
        self.leave_out_of_core_dumps();
        Ok(())
    }

    /// Maps `len` bytes of the file from `offset` on, `at` bytes after the start of the range.
    fn map_at(
        &self,
        at: usize,
        len: usize,
        access: ProtFlags,
        fd: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<(), Errno> {
        assert!(at <= self.len && len <= self.len - at);
        let start = self.start().wrapping_byte_add(at);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range belongs to this mapping. It is either a reservation without an access,
        // or a mapping of the same bytes of the same file. In the second case every byte keeps its
        // contents, and another thread's access waits until the kernel has finished the exchange.
        unsafe { rustix::mm::mmap(start, len, access, flags, fd, offset) }?;
        Ok(())
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn start(&self) -> *mut std::ffi::c_void {
        self.base.as_ptr().cast()
    }

    fn leave_out_of_core_dumps(&self) {
        // SAFETY: the advice changes no byte. An old kernel refuses it, which costs only disk space
        // in a crash.
        let _ = unsafe { rustix::mm::madvise(self.start(), self.len, Advice::LinuxDontDump) };
    }

    /// Gives back the memory of whole pages, which read as zeros from now on.
    ///
    /// # Safety
    /// - `offset + len` is within the mapping, and both are multiples of the page size.
    /// - The contents of the bytes are no longer needed, and no other access happens meanwhile.
    pub(crate) unsafe fn discard(&self, offset: u64, len: u64, advice: Advice) -> bool {
        let at = self.start().wrapping_byte_add(offset as usize);
        // SAFETY: the range is within this mapping, and by the second duty its contents are not
        // needed; the advice is one of those that free pages.
        unsafe { rustix::mm::madvise(at, len as usize, advice) }.is_ok()
    }

    /// Asks for huge pages at the first touch in a range.
    pub(crate) fn advise_huge(&self, offset: u64, len: u64) -> Result<(), Errno> {
        debug_assert!(offset + len <= self.len as u64);
        let at = self.start().wrapping_byte_add(offset as usize);
        // SAFETY: the range is within this mapping; the advice changes no byte.
        unsafe { rustix::mm::madvise(at, len as usize, Advice::LinuxHugepage) }
    }

    /// Turns the pages of a range, and the holes between them, into huge pages.
    pub(crate) fn collapse(&self, offset: u64, len: u64) -> Result<(), Errno> {
        debug_assert!(offset + len <= self.len as u64);
        let at = self.start().wrapping_byte_add(offset as usize);
        // SAFETY: the range is within this mapping. The kernel copies the bytes and blocks writes
        // meanwhile, so no access sees a change.
        match unsafe { libc::madvise(at, len as usize, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => {
                Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
            }
        }
    }

    /// Allocates the pages of a range. Returns an error where a touch would raise SIGBUS.
    pub(crate) fn populate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        debug_assert!(offset + len <= self.len as u64);
        let at = self.start().wrapping_byte_add(offset as usize);
        let advice = Advice::LinuxPopulateWrite;
        // SAFETY: the range is within this mapping; the advice changes no byte.
        unsafe { rustix::mm::madvise(at, len as usize, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start(), self.len);
    }
}

/// Unmaps a range that the caller has mapped and no longer uses.
fn unmap(start: *mut std::ffi::c_void, len: usize) {
    if len > 0 {
        // SAFETY: private to this file: the callers pass their own mappings, either the surplus of
        // a reservation, or a mapping without users, because its `Mapping` drops.
        let outcome = unsafe { rustix::mm::munmap(start, len) };
        debug_assert!(outcome.is_ok());
    }
}

/// Returns the bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: the call reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Returns the limit of this process's address space, if there is one.
pub(crate) fn address_space_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::As).current
}

/// Returns the error for a failed mapping.
pub(crate) fn map_error(errno: Errno, bytes: u64) -> SegmentError {
    match errno {
        Errno::NOMEM => match mappings_used_up() {
            Some(limit) => SegmentError::Mappings { bytes, limit },
            None => SegmentError::AddressSpace {
                bytes,
                limit: address_space_limit(),
            },
        },
        errno => SegmentError::Os {
            call: "mmap",
            what: "the segment".into(),
            source: errno.into(),
        },
    }
}

/// Returns the maximum number of mappings, if this process has about as many.
///
/// Reads the files in pieces: if no mapping is left, there is no memory for a long text either.
fn mappings_used_up() -> Option<u64> {
    let mut buffer = [0; 4096];
    let mut read = |path, each: &mut dyn FnMut(&[u8])| {
        let mut file = File::open(path).ok()?;
        loop {
            match file.read(&mut buffer).ok()? {
                0 => return Some(()),
                len => each(&buffer[..len]),
            }
        }
    };
    let mut limit = 0;
    read("/proc/sys/vm/max_map_count", &mut |text| {
        limit = more_digits(limit, text)
    })?;
    let mut count = 0;
    read("/proc/self/maps", &mut |text| count += lines(text))?;
    limit_reached(count, limit)
}

/// Appends the digits of a text to a number.
fn more_digits(number: u64, text: &[u8]) -> u64 {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(number, |number, digit| {
        number.saturating_mul(10) + u64::from(digit - b'0')
    })
}

/// Counts the lines of a text.
fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Returns the limit if `count` mappings leave no room for another one. Creating one may take a few
/// more temporarily.
fn limit_reached(count: u64, limit: u64) -> Option<u64> {
    (count + 4 >= limit).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_private_mapping_is_aligned_zeroed_and_large() {
        let mapping = Mapping::private(1 << 36).unwrap();
        assert!(mapping.base().addr().get().is_multiple_of(ALIGN));
        // SAFETY: the last byte of the mapping, which no one else knows of.
        let last = unsafe { mapping.base().add((1 << 36) - 1) };
        // SAFETY: as above; fresh memory is zeroed.
        assert_eq!(unsafe { last.read() }, 0);
    }

    #[test]
    fn mappings_are_used_up_a_few_before_the_limit() {
        assert_eq!(limit_reached(65_526, 65_530), Some(65_530));
        assert_eq!(limit_reached(65_525, 65_530), None);
        assert_eq!(more_digits(more_digits(0, b"65"), b"530\n"), 65_530);
        assert_eq!((lines(b"a\nb\nc"), lines(b"abc")), (2, 0));
    }

    #[test]
    fn what_does_not_fit_names_its_size() {
        let bytes = 1 << 60;
        let errno = Mapping::private(bytes).err().unwrap();
        let error = map_error(errno, bytes);
        assert!(matches!(
            error,
            SegmentError::AddressSpace {
                bytes: 0x1000_0000_0000_0000,
                ..
            }
        ));
    }

    /// Creates a file of pages, each filled with its number.
    fn file(name: &str, pages: u8) -> std::os::fd::OwnedFd {
        let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        for number in 0..pages {
            let page = vec![number; page_size()];
            let at = u64::from(number) * page.len() as u64;
            assert_eq!(rustix::io::pwrite(&fd, &page, at), Ok(page.len()));
        }
        fd
    }

    fn byte(mapping: &Mapping, at: u64) -> u8 {
        assert!(at < mapping.len as u64);
        // SAFETY: the byte is within the mapping.
        let at = unsafe { mapping.base().add(at as usize) };
        // SAFETY: as above; nobody writes it.
        unsafe { at.read_volatile() }
    }

    #[test]
    fn parts_of_a_file_lie_one_after_another() {
        let fd = file("ndshm-parts", 8);
        let page = page_size() as u64;
        let parts = [
            (0, 10),
            (2 * page + 100, page),
            (5 * page, page),
            (7 * page + 9, page - 9),
        ];
        let (mapping, starts) = Mapping::of_file_parts(fd.as_fd(), parts).unwrap();
        assert_eq!(starts, [0, page + 100, 3 * page, 4 * page + 9]);
        assert_eq!(mapping.len as u64, 5 * page, "whole pages, and no more");
        let firsts = starts.map(|start| byte(&mapping, start));
        assert_eq!(firsts, [0, 2, 5, 7]);
        let lasts = [0, 1, 2, 3].map(|i| byte(&mapping, starts[i] + parts[i].1 - 1));
        assert_eq!(lasts, [0, 3, 5, 7]);
        let beyond = Mapping::of_file_parts(fd.as_fd(), [(1, u64::MAX)]);
        assert_eq!(beyond.err(), Some(Errno::NOMEM));
    }

    /// Text of the system's list of mappings from the line of this address on.
    fn smaps_from(mapping: &Mapping) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let head = format!("{:x}-", mapping.base().addr());
        let at = smaps.find(&head).expect("it is mapped");
        smaps[at..].to_owned()
    }

    #[test]
    fn mappings_are_left_out_of_core_dumps_and_go_when_dropped() {
        let fd = file("ndshm-dropped", 2);
        let listed = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.matches("ndshm-dropped").count()
        };
        let size = 2 * page_size() as u64;
        let whole = Mapping::of_file(fd.as_fd(), size).unwrap();
        let (parts, _) = Mapping::of_file_parts(fd.as_fd(), [(0, size)]).unwrap();
        let private = Mapping::private(size).unwrap();
        for mapping in [&whole, &parts, &private] {
            let smaps = smaps_from(mapping);
            let flags = smaps.lines().find(|line| line.starts_with("VmFlags:"));
            assert!(flags.unwrap().contains(" dd"), "{flags:?}");
        }
        assert_eq!(listed(), 2);
        drop((whole, parts));
        assert_eq!(listed(), 0);
    }

    #[test]
    fn a_reservation_touches_no_neighbour() {
        let mappings: Vec<Mapping> = (0..32)
            .map(|number| {
                let mapping = Mapping::private(ALIGN as u64 * (1 + number % 3)).unwrap();
                // SAFETY: the first byte of a mapping that is writable, and this test's own.
                unsafe { mapping.base().write(number as u8 + 1) };
                mapping
            })
            .collect();
        for (number, mapping) in mappings.iter().enumerate() {
            assert_eq!(byte(mapping, 0), number as u8 + 1);
            assert_eq!(byte(mapping, mapping.len as u64 - 1), 0);
        }
    }

    #[test]
    fn advice_that_the_system_refuses_is_an_error() {
        let mapping = Mapping::private(4 << 20).unwrap();
        // An address within a page.
        assert_eq!(mapping.advise_huge(1, 100), Err(Errno::INVAL));
        assert_eq!(mapping.collapse(1, 100), Err(Errno::INVAL));
        assert_eq!(mapping.populate(1, 100), Err(Errno::INVAL));
        assert_eq!(page_size(), rustix::param::page_size());
    }
}
