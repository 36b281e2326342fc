//! What the system counts for a process: context switches and page faults.

use std::mem::MaybeUninit;

use rustix::process::Pid;

/// Counts since the start of this process and of the workers that it watches.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// How often the scheduler took the processor from a thread of this process.
    pub preempted: u64,
    /// How often it took the processor from a worker.
    pub workers: u64,
    /// How often a thread of this process gave its processor up, to wait.
    pub slept: u64,
    /// Page faults of this process that read no file.
    pub faults: u64,
}

impl Counts {
    /// Reads the counts of this process and of `workers`.
    pub fn read(workers: &[Pid]) -> Counts {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to writable memory of this type.
        let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        assert_eq!(failed, 0, "getrusage of this process");
        // SAFETY: zeros are a valid value, and the call has filled it.
        let usage = unsafe { usage.assume_init() };
        Counts {
            preempted: usage.ru_nivcsw as u64,
            workers: workers.iter().map(|&worker| preempted(worker)).sum(),
            slept: usage.ru_nvcsw as u64,
            faults: usage.ru_minflt as u64,
        }
    }

    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            preempted: self.preempted - before.preempted,
            workers: self.workers - before.workers,
            slept: self.slept - before.slept,
            faults: self.faults - before.faults,
        }
    }
}

/// Returns how often the scheduler took the processor from a process with one thread.
fn preempted(process: Pid) -> u64 {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("a worker lives");
    let count = |line: &str| {
        let count = line.strip_prefix("nonvoluntary_ctxt_switches:")?;
        count.trim().parse().ok()
    };
    status.lines().find_map(count).expect("Linux counts them")
}
