//! A forked process that answers questions; questions and answers are numbers.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

/// The question that ends the process.
const END: u64 = u64::MAX;

/// A forked process. Dropping this ends it.
pub struct Process {
    /// `None` once the process was waited for.
    pid: Option<Pid>,
    questions: PipeWriter,
    answers: PipeReader,
}

impl Process {
    /// Forks a process that calls `prepare` and then answers questions with the returned closure.
    ///
    /// # Panics
    ///
    /// If the calling process has more than one thread.
    pub fn fork<F: FnMut(u64) -> u64>(prepare: impl FnOnce() -> F) -> Process {
        let threads = std::fs::read_dir("/proc/self/task").expect("Linux").count();
        assert_eq!(threads, 1, "a child would have only the calling thread");
        let (mut asked, questions) = std::io::pipe().expect("a pipe");
        let (answers, mut answer) = std::io::pipe().expect("a pipe");
        // SAFETY: the process has one thread (checked above), so the child finds no lock held.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        let Some(pid) = Pid::from_raw(pid) else {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .expect("to end with the parent");
            let mut respond = prepare();
            while let Some(question) = receive(&mut asked) {
                answer
                    .write_all(&respond(question).to_ne_bytes())
                    .expect("the parent reads");
            }
            std::process::exit(0);
        };
        Process {
            pid: Some(pid),
            questions,
            answers,
        }
    }

    /// Forks a process that never sleeps.
    pub fn busy() -> Process {
        let mut process = Process::fork(|| {
            |_| loop {
                std::hint::spin_loop()
            }
        });
        process.ask(0);
        process
    }

    /// Returns the processor time of all processes that have ended and were waited for.
    pub fn time_of_ended() -> Duration {
        // SAFETY: zeroes are a value of this structure of numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is this function's own.
        let failed = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        [usage.ru_utime, usage.ru_stime]
            .map(|time| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000))
            .iter()
            .sum()
    }

    pub fn ask(&mut self, question: u64) {
        self.questions
            .write_all(&question.to_ne_bytes())
            .expect("the process reads");
    }

    pub fn answer(&mut self) -> u64 {
        receive(&mut self.answers).expect("the process answers")
    }

    /// Kills the process and waits for its end.
    pub fn kill(mut self) {
        if let Some(pid) = self.pid.take() {
            rustix::process::kill_process(pid, Signal::KILL).expect("our child");
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("our child");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            self.ask(END);
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("our child");
        }
    }
}

fn receive(pipe: &mut PipeReader) -> Option<u64> {
    let mut bytes = [0; 8];
    pipe.read_exact(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes)).filter(|&number| number != END)
}

/// Returns the time of a clock that all processes share.
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
