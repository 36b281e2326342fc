//! The identity of this process: a random token that a fork wipes.

use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::sync::{Atom, Ordering};

/// Address of the page that holds the token; 0 until the first use. [`UNWIPED`] is added if the
/// kernel does not wipe the page on a fork.
static PAGE: Atom<u64> = Atom::zero();

/// Set in [`PAGE`] if the token is not wiped, and therefore carries the pid in its low half.
const UNWIPED: u64 = 1;

/// Bytes mapped for the token; the kernel rounds up to a page.
const PAGE_LEN: usize = 4096;

/// Returns this process's token: a random number other than 0, different from that of every other
/// process, and of this one before a fork or exec.
///
/// Costs two loads if the kernel wipes the page on a fork (Linux 4.14 and later), and a `getpid`
/// otherwise.
#[inline]
pub(crate) fn process_token() -> u64 {
    // Acquire: pairs with the Release in `make_page`.
    let page = PAGE.load(Ordering::Acquire);
    if page != 0 && page & UNWIPED == 0 {
        let token = token_at(page).load(Ordering::Relaxed);
        if token != 0 {
            return token;
        }
    }
    draw_token(page)
}

/// The place of this process's token, for callers that often check if the process has forked.
#[derive(Clone, Copy)]
pub(crate) struct TokenWord(&'static Atom<u64>);

impl TokenWord {
    pub(crate) fn of_this_process() -> TokenWord {
        // This word is never written, so it is the token of no process.
        static NEVER: Atom<u64> = Atom::zero();
        process_token();
        let page = PAGE.load(Ordering::Acquire);
        TokenWord(match page & UNWIPED {
            0 => token_at(page),
            _ => &NEVER,
        })
    }

    /// Returns `true` if `token`, which is not 0, is this process's. Costs a load and a comparison
    /// if the kernel wipes the page on a fork.
    #[inline]
    pub(crate) fn is(self, token: u64) -> bool {
        self.is_plainly(token) || is_process(token)
    }

    /// Does the work of [`is`](TokenWord::is) by the load and the comparison alone: returns `false`,
    /// too, where the kernel does not wipe the page.
    #[inline(always)]
    pub(crate) fn is_plainly(self, token: u64) -> bool {
        self.0.load(Ordering::Relaxed) == token
    }
}

#[cold]
fn is_process(token: u64) -> bool {
    process_token() == token
}

/// Under Miri no process forks, so any static word counts as wiped in every child.
#[cfg(miri)]
fn token_at(_page: u64) -> &'static Atom<u64> {
    static TOKEN: Atom<u64> = Atom::zero();
    &TOKEN
}

#[cfg(not(miri))]
#[inline]
fn token_at(page: u64) -> &'static Atom<u64> {
    let word = ptr::with_exposed_provenance::<Atom<u64>>((page & !UNWIPED) as usize);
    // SAFETY: `page` came out of `PAGE`, so it is the address of a page that `make_page` mapped
    // readable and writable, or of a word of the heap, exposed, and never unmaps or frees. It is
    // aligned for an `Atom`, any bytes are a value of it, and only this function's callers access
    // them, through atomics.
    unsafe { &*word }
}

/// Returns the token. Draws one if this process has none yet.
#[cold]
fn draw_token(page: u64) -> u64 {
    let page = match page {
        0 => make_page(),
        page => page,
    };
    let token = token_at(page);
    let (mask, tag) = match page & UNWIPED {
        0 => (0, 0),
        _ => (u64::from(u32::MAX), u64::from(std::process::id())),
    };
    // A token of 0 was wiped; a token with another pid was inherited.
    let drawn = token.update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
        let stale = seen == 0 || seen & mask != tag;
        // Not 0 in either case: no process has the pid 0.
        stale.then(|| (random_nonzero() & !mask) | tag)
    });
    match drawn {
        Ok((_, fresh)) => fresh,
        Err(current) => current,
    }
}

/// Maps the page for the token. If two threads do so at once, the first page stays.
fn make_page() -> u64 {
    if cfg!(miri) {
        // An address that [`token_at`] does not use.
        let page = PAGE_LEN as u64;
        PAGE.store(page, Ordering::Release);
        return page;
    }
    let flags = MapFlags::PRIVATE;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice replaces nothing.
    let mapped = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), PAGE_LEN, access, flags) };
    let base = match mapped.ok().and_then(NonNull::new) {
        Some(base) => base,
        // The mapping failed: use a word of the heap, which is never wiped.
        None => NonNull::from(Box::leak(Box::new(0u64))).cast(),
    };
    let is_mapping = mapped.is_ok();
    // SAFETY: the range is the mapping made above, which holds nothing yet.
    let wiped = is_mapping
        && unsafe { rustix::mm::madvise(base.as_ptr(), PAGE_LEN, Advice::LinuxWipeOnFork) }.is_ok();
    let address = base.as_ptr().expose_provenance() as u64;
    let page = address | if wiped { 0 } else { UNWIPED };
    // Release: a thread that reads the address sees the page as it was mapped.
    match PAGE.compare_exchange(0, page, Ordering::Release, Ordering::Acquire) {
        Ok(_) => page,
        Err(first) => {
            if is_mapping {
                // SAFETY: the range is the mapping made above; no other thread has its address.
                let _ = unsafe { rustix::mm::munmap(base.as_ptr(), PAGE_LEN) };
            }
            first
        }
    }
}

/// Returns a random number other than 0.
pub(crate) fn random_nonzero() -> u64 {
    loop {
        let mut bytes = [0u8; 8];
        let flags = rustix::rand::GetRandomFlags::empty();
        let drawn = match rustix::rand::getrandom(&mut bytes, flags) {
            Ok(8) => u64::from_ne_bytes(bytes),
            Err(rustix::io::Errno::INTR) | Ok(_) => 0,
            Err(_) => weakly_random(),
        };
        if drawn != 0 {
            return drawn;
        }
    }
}

/// Mixes the hasher's keys, the time and the pid, on systems that refuse `getrandom`.
fn weakly_random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    hasher.write_i64(now.tv_sec);
    hasher.write_u64(now.tv_nsec as u64);
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_a_process_see_one_token() {
        let token = process_token();
        assert_ne!(token, 0);
        let others: Vec<u64> = (0..4)
            .map(|_| std::thread::spawn(process_token))
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(others, [token; 4]);
    }

    #[test]
    fn a_token_word_tells_this_process_from_others() {
        // No process writes this one, as where the kernel does not wipe pages.
        static UNWRITTEN: Atom<u64> = Atom::zero();
        let token = process_token();
        for word in [TokenWord::of_this_process(), TokenWord(&UNWRITTEN)] {
            assert!(word.is(token));
            assert!(!word.is(token ^ 1) && !word.is(token ^ (1 << 63)));
        }
    }

    /// Checks a word that the kernel does not wipe at a fork: the child inherits the token of its
    /// parent, and tells it from its own by the pid.
    #[test]
    #[cfg(not(miri))]
    fn an_unwiped_token_is_of_one_pid() {
        let word: &'static Atom<u64> = Box::leak(Box::new(Atom::zero()));
        let page = ptr::from_ref(word).expose_provenance() as u64 | UNWIPED;
        let pid = u64::from(std::process::id());
        let low = u64::from(u32::MAX);
        let token = draw_token(page);
        assert_eq!(token & low, pid);
        assert_ne!(token & !low, 0, "one in 4 billion");
        assert_eq!(word.load(Ordering::Relaxed), token);
        assert_eq!(draw_token(page), token, "drawn once");
        word.store(token ^ 1, Ordering::Relaxed);
        let fresh = draw_token(page);
        assert_eq!(fresh & low, pid);
        assert_ne!(fresh, token);
    }

    #[test]
    #[cfg(not(miri))]
    fn a_wiped_token_is_drawn_once_and_is_random_in_all_bits() {
        let word: &'static Atom<u64> = Box::leak(Box::new(Atom::zero()));
        let page = ptr::from_ref(word).expose_provenance() as u64;
        let token = draw_token(page);
        assert_eq!(draw_token(page), token);
        let pid = u64::from(std::process::id());
        assert_ne!(token & u64::from(u32::MAX), pid, "one in 4 billion");
    }

    #[test]
    fn random_numbers_differ() {
        let drawn = [
            random_nonzero(),
            random_nonzero(),
            weakly_random(),
            weakly_random(),
        ];
        for (at, number) in drawn.iter().enumerate() {
            assert!(!drawn[..at].contains(number));
        }
    }

    /// Forks a child that only reads the token and sends it through a pipe, which is all that a
    /// forked child of a process with threads may do.
    #[test]
    fn a_forked_child_has_a_token_of_its_own() {
        let _alone = crate::segment::tests::FORKS.write().unwrap();
        let token = process_token();
        // How the child ends would be lost if SIGCHLD, which is inherited, were ignored.
        // SAFETY: the default action is a valid one.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let mut pipe = [0; 2];
        // SAFETY: `pipe` has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child calls nothing that takes a lock or allocates, and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let told = process_token().to_ne_bytes();
            // SAFETY: `told` has 8 bytes.
            let sent = unsafe { libc::write(pipe[1], told.as_ptr().cast(), 8) };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(sent != 8)) };
        }
        let mut told = [0u8; 8];
        let place = told.as_mut_ptr().cast();
        // SAFETY: `place` has room for 8 bytes.
        let received = unsafe { libc::read(pipe[0], place, 8) };
        assert_eq!(received, 8);
        let mut status = 0;
        // SAFETY: `status` is a place for the answer, `child` a child of this process.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        for end in pipe {
            // SAFETY: the descriptor is this test's own.
            assert_eq!(unsafe { libc::close(end) }, 0);
        }
        assert_eq!(status, 0);
        let told = u64::from_ne_bytes(told);
        assert_ne!(told, 0);
        assert_ne!(told, token);
        assert_eq!(process_token(), token, "the parent's token changed");
    }
}
