//! Trials: a process is killed at a random instant of its work, and another one does the same work.

use std::io::{PipeWriter, Read, Write};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

/// How long the other process may take.
const DEADLINE: Duration = Duration::from_secs(1);

/// What became of a trial.
pub struct Outcome {
    /// What the other process said, or `None` if it did not end in time.
    pub said: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What the dead process still holds afterwards, in bytes, if that can be asked for.
    pub held: Option<u64>,
}

impl Outcome {
    /// Prints the outcome for the driver.
    pub fn print(&self) {
        let said = self
            .said
            .as_ref()
            .map_or("null".to_owned(), |said| format!("{said:?}"));
        let held = self.held.map_or("null".to_owned(), |held| held.to_string());
        println!(
            "{{\"hang\": {}, \"said\": {said}, \"seconds\": {:e}, \"held\": {held}}}",
            self.said.is_none(),
            self.took.as_secs_f64()
        );
    }
}

/// Returns what `trials KIND COUNT SEED` on the command line asks for.
pub fn trial_arguments() -> Option<(String, u64, u64)> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != "trials" {
        return None;
    }
    let kind = arguments.next()?;
    Some((
        kind,
        arguments.next()?.parse().ok()?,
        arguments.next()?.parse().ok()?,
    ))
}

/// Returns a number that is the same for the same seed.
pub fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A child that works until it is killed.
pub struct Victim(Pid);

impl Victim {
    /// Forks a child that calls `prepare`, and the work that it returns without end. Returns when
    /// the child works.
    pub fn start<W: FnMut()>(prepare: impl FnOnce() -> W) -> Victim {
        let (mut began, begin) = std::io::pipe().expect("a pipe");
        let pid = fork(begin, |mut begin| {
            let mut work = prepare();
            work();
            begin.write_all(&[1]).expect("the parent reads");
            loop {
                work();
            }
        });
        began.read_exact(&mut [0]).expect("the victim works");
        Victim(pid)
    }

    /// Kills the child after 1 to 20 ms.
    pub fn kill(self, seed: u64) {
        std::thread::sleep(Duration::from_micros(1_000 + mixed(seed) % 19_000));
        kill(self.0);
    }
}

/// Runs the same work once in another child. [`Outcome::said`] is what the work returned.
pub fn survivor(work: impl FnOnce() -> String) -> Outcome {
    let start = Instant::now();
    let (mut said, say) = std::io::pipe().expect("a pipe");
    let pid = fork(say, |mut say| {
        let word = work();
        say.write_all(word.as_bytes()).expect("the parent reads");
        std::process::exit(0);
    });
    // A pipe has no deadline. So the child is looked for, ever less often.
    let mut pause = Duration::from_micros(50);
    let ended = loop {
        if let Ok(Some(_)) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
            break true;
        }
        if start.elapsed() > DEADLINE {
            kill(pid);
            break false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    };
    let took = start.elapsed();
    let mut word = String::new();
    said.read_to_string(&mut word).expect("the child's word");
    if ended && word.is_empty() {
        word.push_str("crashed");
    }
    Outcome {
        said: ended.then_some(word),
        took,
        held: None,
    }
}

impl Outcome {
    /// Runs a trial: see [`Victim`] and [`survivor`].
    pub fn of<W: FnMut()>(
        seed: u64,
        prepare: impl FnOnce() -> W,
        other: impl FnOnce() -> String,
    ) -> Outcome {
        Victim::start(prepare).kill(seed);
        survivor(other)
    }
}

fn fork(pipe: PipeWriter, child: impl FnOnce(PipeWriter)) -> Pid {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").count();
    assert_eq!(threads, 1, "a child would have only the calling thread");
    // SAFETY: the process has one thread (checked above), so the child finds no lock held.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    let Some(pid) = Pid::from_raw(pid) else {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .expect("to end with the parent");
        child(pipe);
        std::process::exit(1);
    };
    pid
}

fn kill(pid: Pid) {
    rustix::process::kill_process(pid, Signal::KILL).expect("our child");
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("our child");
}
