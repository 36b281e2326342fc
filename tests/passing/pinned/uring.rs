//! An io_uring with one registered buffer, by plain system calls.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

const READ_FIXED: u8 = 4;
const REGISTER_BUFFERS: libc::c_uint = 0;
const ENTER_GETEVENTS: libc::c_uint = 1;
const SQES: i64 = 0x1000_0000;
/// The features word says that both rings share one mapping.
const SINGLE_MMAP: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    idle: [u32; 2],
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, ..
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, ..
    cq: [u32; 10],
}

/// A ring that can write into the buffer that it has registered.
pub struct Ring {
    fd: OwnedFd,
    buffer: *mut u8,
    sqes: *mut u8,
    rings: *mut u8,
    params: Params,
}

impl Ring {
    /// Registers a buffer. Returns `None` if the system has no io_uring for this process.
    pub fn register(buffer: *mut u8, len: usize) -> Option<Ring> {
        let mut params = Params::default();
        // SAFETY: `params` is a place for the answer.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
        if fd < 0 || params.features & SINGLE_MMAP == 0 {
            return None;
        }
        // SAFETY: the call returned a new descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let map = |offset| {
            // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
            let at = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    fd.as_raw_fd(),
                    offset,
                )
            };
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>()
        };
        let (rings, sqes) = (map(0), map(SQES));
        let vector = libc::iovec {
            iov_base: buffer.cast(),
            iov_len: len,
        };
        // SAFETY: the vector names `len` bytes that stay mapped longer than the ring.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd.as_raw_fd(),
                REGISTER_BUFFERS,
                &raw const vector,
                1,
            )
        };
        (registered == 0).then_some(Ring {
            fd,
            buffer,
            sqes,
            rings,
            params,
        })
    }

    /// Writes a number to the start of the buffer, as a device would.
    pub fn write(&self, number: u64) {
        let file = rustix::fs::memfd_create("source", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, &number.to_le_bytes(), 0).unwrap();
        let mut sqe = [0u8; 64];
        sqe[0] = READ_FIXED;
        sqe[4..8].copy_from_slice(&file.as_raw_fd().to_le_bytes());
        sqe[16..24].copy_from_slice(&(self.buffer as u64).to_le_bytes());
        sqe[24..28].copy_from_slice(&8u32.to_le_bytes());
        // SAFETY: the mapping of entries has room for one, and the kernel reads it only in `enter`.
        unsafe { self.sqes.copy_from(sqe.as_ptr(), 64) };
        let word = |offset: u32| self.rings.wrapping_add(offset as usize).cast::<u32>();
        // Entry 0 is the next one.
        // SAFETY: the offset is the kernel's, within the mapping.
        unsafe { word(self.params.sq[6]).write_volatile(0) };
        // SAFETY: as above.
        unsafe { word(self.params.sq[1]).write_volatile(1) };
        // SAFETY: the descriptor is a ring; no signal mask is passed.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                ENTER_GETEVENTS,
                ptr::null::<u8>(),
                0,
            )
        };
        assert_eq!(done, 1, "{}", std::io::Error::last_os_error());
        // An answer has 16 bytes, of which the second four are the result.
        let result = word(self.params.cq[5]).wrapping_add(2);
        // SAFETY: as above.
        assert_eq!(unsafe { result.read_volatile() }, 8);
    }
}
