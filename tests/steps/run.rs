//! One performance of an operation: recorded to its end, or killed at one of its instructions.

use std::io;
use std::time::Duration;

use crate::support::Child;
use crate::tracer::{Trace, Victim};

/// Where a victim is to die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// After that many instructions.
    After(usize),
    /// Within the call into the kernel that this instruction makes, before the kernel has done it.
    Entering(usize),
    /// The same, after the kernel has done it.
    Returning(usize),
}

/// Microseconds that a rival has before the victim dies.
const MOMENTS: [u64; 7] = [0, 50, 100, 200, 400, 800, 2_000];

/// How the next one is to be.
#[derive(Clone, Copy)]
enum Plan {
    Undisturbed,
    Recorded,
    Killed(Death),
}

/// What is to become of the victim, and what has come of those before.
pub struct Run {
    plan: Plan,
    /// The instructions, once they are recorded.
    pub trace: Option<Trace>,
    /// Memory that is left after an undisturbed run.
    memory: Option<u64>,
    /// Whether the last one did not die where it was to, because it went another way.
    pub astray: bool,
    /// Whether the next one is stepped all the way.
    pub walk: bool,
    /// Which of the moments a rival has had last.
    moment: usize,
}

impl Run {
    /// A run to the end.
    pub fn new() -> Run {
        Run {
            plan: Plan::Undisturbed,
            trace: None,
            memory: None,
            astray: false,
            walk: false,
            moment: 0,
        }
    }

    /// The next one is recorded.
    pub fn record(&mut self) {
        self.plan = Plan::Recorded;
    }

    /// The next one ends by this death.
    pub fn kill(&mut self, death: Death) {
        self.plan = Plan::Killed(death);
    }

    /// Performs `life` in a child of its own. What it does between two marks is the operation.
    pub fn victim(&mut self, life: impl FnOnce()) {
        self.perform(life, || ()).expect("ptrace");
    }

    /// As above; before the victim is killed, and over its death, `rival` is at work in another child.
    pub fn victim_beside(&mut self, life: impl FnOnce(), rival: impl FnOnce()) {
        self.moment = (self.moment + 1) % MOMENTS.len();
        let moment = MOMENTS[self.moment];
        let mut child = None;
        let start = || {
            child = Some(Child::fork(rival));
            // Anywhere from its first steps to its end: the victim stands still meanwhile.
            std::thread::sleep(Duration::from_micros(moment));
        };
        let outcome = self.perform(life, start);
        outcome.expect("ptrace");
        child.expect("it was started").join();
    }

    /// Runs `before_death` when the victim is where it is to die, or has ended.
    fn perform(&mut self, life: impl FnOnce(), before_death: impl FnOnce()) -> io::Result<()> {
        let mut victim = Victim::start(life)?;
        let (death, trace) = match (self.plan, &self.trace) {
            (Plan::Killed(death), Some(trace)) => (death, trace),
            (plan, _) => {
                if let Plan::Recorded = plan {
                    self.trace = Some(victim.record()?);
                }
                assert_eq!(victim.finish()?, 0, "the victim's exit code");
                before_death();
                return Ok(());
            }
        };
        let (Death::After(k) | Death::Entering(k) | Death::Returning(k)) = death;
        if self.walk {
            victim.walk(k)?;
        } else if !victim.run(trace, k)? {
            self.astray = true;
        } else if !matches!(death, Death::After(_)) {
            victim.enter_kernel(matches!(death, Death::Returning(_)))?;
        }
        before_death();
        victim.kill()
    }

    /// Memory that is left when all is given back: no more than after an undisturbed run, but for
    /// pages of the tables that only who comes after a death writes to.
    pub fn memory(&mut self, blocks: u64) {
        const TABLES: u64 = 4 * 4096 / 512;
        let most = *self.memory.get_or_insert(blocks) + TABLES;
        assert!(
            blocks <= most,
            "{blocks} blocks of memory are left, not {most} at most"
        );
    }
}
