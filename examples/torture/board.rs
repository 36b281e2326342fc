//! Words that all processes of the run share beside the segment: counts, findings, and the fate of
//! each job. They lie in plain shared memory, to be independent of the tested crate.

#![allow(
    clippy::disallowed_types,
    reason = "words of this program, no part of the crate's protocol"
)]

use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use rustix::mm::{MapFlags, ProtFlags};

use super::numbers::Numbers;
use super::process::exit_at_once;

/// Exit code of a process with a finding.
pub const FOUND: i32 = 3;
/// Number of findings whose text is kept, and its maximum length.
const KEPT: usize = 32;
const TEXT: usize = 1000;
/// Maximum number of jobs; the fate of each is kept.
const JOBS: usize = 1 << 28;
/// Maximum number of victims at once, and of arrays that need a word.
const MOST: usize = 64;

macro_rules! counts {
    ($($name:ident $text:literal,)+) => {
        /// Counted events.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Count { $($name),+ }

        /// All counts, with their names in the summary.
        pub const COUNTS: &[(Count, &str)] = &[$((Count::$name, $text)),+];
    };
}

counts! {
    Kills "victims killed",
    GrandKills "grandchildren killed",
    Stops "victims stopped and continued",
    Forks "grandchildren forked",
    Quits "victims that were asked to end",
    Audits "audits",
    Exhaustions "exhaustions of memory",
    SlotExhaustions "exhaustions of slots",
    SeatExhaustions "exhaustions of seats",
    Joins "joins",
    SeatsFull "joins refused: no seat",
    Allocs "allocations",
    Full "allocations refused: full",
    Frees "frees",
    FreesLeased "frees while the same process leases",
    Attaches "attaches",
    Reads "read leases checked",
    Writes "write leases checked",
    Busy "leases refused: busy",
    Stale "refused: stale",
    Owned "refused: owned by another",
    Poisoned "leases refused: poisoned",
    HealedInPlace "poisoned arrays overwritten without a lease, then cleared",
    HealedAfter "poisoned arrays cleared, then overwritten",
    Tolerated "half-written arrays seen during such a healing",
    Adopts "adopted",
    Detaches "detached",
    Rounds "rounds opened",
    RoundsDone "rounds finished",
    RoundsTorn "rounds finished with torn tiles",
    RoundsLate "rounds given up",
    Entries "rounds entered",
    EntriesRefused "entries refused",
    Tiles "tiles checked",
    TilesTorn "tiles given up half-written",
    Pushes "jobs pushed",
    Pops "jobs popped",
    JobsLost "jobs that died with their consumer",
    Names "names used",
    NamesRefused "names and parts refused: taken, or not there",
    Bundles "bundles filled and freed",
    Reaps "reaps",
    Reaped "dead seats reaped by them",
    Trims "trims",
}

/// The shared words, initially zero.
pub struct Board {
    counts: [AtomicU64; COUNTS.len()],
    quit: AtomicU64,
    jobs_made: AtomicU64,
    findings: AtomicU64,
    /// For each victim a handle that only it knows. The victim sets this to 0 before freeing it.
    private: [AtomicU64; MOST],
    /// For each lasting array 1 from before its poison is cleared until the array is overwritten.
    healing: [AtomicU64; MOST],
    texts: [[AtomicU8; TEXT]; KEPT],
    jobs: [AtomicU8; JOBS],
}

const PUSHED: u8 = 1;
const POPPED: u8 = 2;
const REFUSED: u8 = 4;

impl Board {
    /// Maps a board that this process shares with all processes forked from it.
    pub fn new() -> &'static Board {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let len = size_of::<Board>();
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, flags) };
        let page = page.expect("memory for the board").cast::<Board>();
        // SAFETY: the mapping is permanent, aligned to a page, and as long as a `Board`. Zeros are
        // a valid `Board`, and all of its words are atomic.
        unsafe { &*page }
    }

    pub fn count(&self, what: Count) {
        self.add(what, 1);
    }

    pub fn add(&self, what: Count, n: usize) {
        self.counts[what as usize].fetch_add(n as u64, Relaxed);
    }

    pub fn get(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Relaxed)
    }

    /// Sets or clears the request to the victims to end.
    pub fn set_quit(&self, quit: bool) {
        self.quit.store(u64::from(quit), SeqCst);
    }

    pub fn quit(&self) -> bool {
        self.quit.load(Relaxed) != 0
    }

    /// Records a finding.
    pub fn find(&self, text: &str) {
        let index = self.findings.fetch_add(1, SeqCst) as usize;
        if let Some(place) = self.texts.get(index) {
            for (to, byte) in place.iter().zip(text.bytes()) {
                to.store(byte, SeqCst);
            }
        }
    }

    pub fn findings(&self) -> u64 {
        self.findings.load(SeqCst)
    }

    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.texts
            .iter()
            .take(self.findings() as usize)
            .map(|text| {
                let bytes = text.iter().map(|byte| byte.load(SeqCst));
                let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            })
    }

    pub fn show_private(&self, victim: usize, bits: u64) {
        self.private[victim].store(bits, SeqCst);
    }

    pub fn private(&self, victim: usize) -> u64 {
        self.private[victim].load(SeqCst)
    }

    /// Marks an array as healing. Call this before clearing the poison of a half-written array.
    pub fn begin_healing(&self, array: usize) {
        self.healing[array].store(1, SeqCst);
    }

    /// Clears the mark. Call this after overwriting the whole array, before releasing the lease.
    pub fn end_healing(&self, array: usize) {
        self.healing[array].store(0, SeqCst);
    }

    pub fn is_healing(&self, array: usize) -> bool {
        self.healing[array].load(SeqCst) != 0
    }

    /// Returns the number of a new job to push, or `None` after the maximum.
    pub fn new_job(&self) -> Option<u64> {
        let job = self.jobs_made.fetch_add(1, SeqCst);
        (job < JOBS as u64).then_some(job)
    }

    /// Records that a push has returned.
    pub fn pushed(&self, job: u64, accepted: bool) {
        let mark = if accepted { PUSHED } else { REFUSED };
        let before = self.jobs[job as usize].fetch_or(mark, SeqCst);
        if !accepted && before & POPPED != 0 {
            self.find(&format!("job {job} was popped, but its push was refused"));
        }
    }

    /// Records that a pop has returned the job.
    pub fn popped(&self, job: u64) {
        if job >= self.jobs_made.load(SeqCst) {
            return self.find(&format!("job {job:#x} was popped, but never made"));
        }
        let before = self.jobs[job as usize].fetch_or(POPPED, SeqCst);
        if before & (POPPED | REFUSED) != 0 {
            self.find(&format!(
                "job {job} was popped; before it had marks {before}"
            ));
        }
    }

    /// Counts the jobs whose push has succeeded and that no pop has returned.
    pub fn jobs_lost(&self) -> usize {
        let made = self.jobs_made.load(SeqCst).min(JOBS as u64) as usize;
        let lost = |job: &&AtomicU8| job.load(SeqCst) & (PUSHED | POPPED) == PUSHED;
        self.jobs[..made].iter().filter(lost).count()
    }
}

/// A process of the run: the board, its number among all processes, and its random stream.
pub struct Me {
    pub board: &'static Board,
    pub incarnation: u64,
    pub pid: u32,
    pub random: Numbers,
    /// Number of patterns that the process has written.
    pub sequence: u64,
}

impl Me {
    pub fn new(board: &'static Board, seed: u64, incarnation: u64) -> Me {
        Me {
            board,
            incarnation,
            pid: std::process::id(),
            random: Numbers::new(seed, incarnation),
            sequence: 0,
        }
    }

    pub fn count(&self, what: Count) {
        self.board.count(what);
    }

    /// Returns the author of the next pattern.
    pub fn author(&mut self) -> u64 {
        self.sequence += 1;
        u64::from(self.pid) << 32 | self.sequence & 0xffff_ffff
    }

    /// Records a finding and ends the process at once: nothing changes the state that it found.
    pub fn found(&self, what: impl std::fmt::Display) -> ! {
        self.board.find(&format!(
            "process {} (number {}, {} patterns written): {what}",
            self.pid, self.incarnation, self.sequence
        ));
        exit_at_once(FOUND)
    }
}
