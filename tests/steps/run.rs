//! One run of an operation: recorded to its end, or killed at one of its instructions.

use std::io;
use std::time::Duration;

use crate::support::Child;
use crate::tracer::{Trace, Victim};

/// The point at which a victim dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// After that many instructions.
    After(usize),
    /// Within the system call that this instruction makes, before the kernel has performed it.
    Entering(usize),
    /// The same, after the kernel has performed it.
    Returning(usize),
}

/// Microseconds that a rival has before the victim dies.
const MOMENTS: [u64; 7] = [0, 50, 100, 200, 400, 800, 2_000];

/// The mode of the next run.
#[derive(Clone, Copy)]
enum Plan {
    Undisturbed,
    Recorded,
    Killed(Death),
}

/// The plan for the next victim, and the results of the runs before.
pub struct Run {
    plan: Plan,
    /// The instructions, once they are recorded.
    pub trace: Option<Trace>,
    /// Memory that is left after an undisturbed run.
    memory: Option<u64>,
    /// If `true`, the last victim left the recorded path and did not die at the intended point.
    pub astray: bool,
    /// If `true`, the next victim is stepped all the way.
    pub walk: bool,
    /// The index of the rival's last moment.
    moment: usize,
}

impl Run {
    /// Creates a run that goes to its end.
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

    /// Records the next run.
    pub fn record(&mut self) {
        self.plan = Plan::Recorded;
    }

    /// Ends the next run by this death.
    pub fn kill(&mut self, death: Death) {
        self.plan = Plan::Killed(death);
    }

    /// Runs `life` in a child. The instructions between its two marks are the operation.
    pub fn victim(&mut self, life: impl FnOnce()) {
        self.perform(life, || ()).expect("ptrace");
    }

    /// Works like [`victim`](Run::victim); before and during the victim's death, `rival` runs in
    /// another child.
    pub fn victim_beside(&mut self, life: impl FnOnce(), rival: impl FnOnce()) {
        self.moment = (self.moment + 1) % MOMENTS.len();
        let moment = MOMENTS[self.moment];
        let mut child = None;
        let start = || {
            child = Some(Child::fork(rival));
            // The rival has got anywhere from its first steps to its end. The victim stands still
            // meanwhile.
            std::thread::sleep(Duration::from_micros(moment));
        };
        let outcome = self.perform(life, start);
        outcome.expect("ptrace");
        child.expect("it was started").join();
    }

    /// Runs the victim. Calls `before_death` when it has reached its place of death, or has ended.
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

    /// Checks the memory that is left after everything was freed: at most that of an undisturbed
    /// run, plus pages of the tables that only the survivors of a death write to.
    pub fn memory(&mut self, blocks: u64) {
        const TABLES: u64 = 4 * 4096 / 512;
        let most = *self.memory.get_or_insert(blocks) + TABLES;
        assert!(
            blocks <= most,
            "{blocks} blocks of memory are left, but at most {most} may be"
        );
    }
}
