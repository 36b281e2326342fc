//! Times of single calls, and the reasons of the slow ones.

use std::hint::black_box;
use std::time::Duration;

use rustix::process::Pid;

use crate::clock::{ticks, ticks_per_ns};
use crate::counts::Counts;

/// A call is slow if it takes this many times the median.
const SLOW: f64 = 100.0;
/// The calls before the recorded ones: at most a tenth of the number and of the time of those, and
/// at least so many.
const WARM_UP: usize = 100;
/// A pause of this many times the lower quartile of the first calls is reason to read the counts.
const PAUSE: u64 = 20;

/// Number and time of the calls to make.
#[derive(Clone, Copy)]
pub struct Limits {
    pub calls: usize,
    /// No further calls are made after this time.
    pub patience: Duration,
}

/// The times of calls in the order in which they were made.
pub struct Record {
    /// All of it is touched before the first call.
    times: Vec<u64>,
    taken: usize,
    /// The first calls are not part of the result. They tell which pauses are long.
    warm: bool,
    ticks_per_ns: f64,
    patience: u64,
    started: u64,
    /// End of the last call.
    end: u64,
    pause: u64,
    /// Calls that took longer than `pause`: the time, and in the lowest bits the cause.
    long: Vec<u64>,
    workers: Vec<Pid>,
    first: Counts,
    seen: Counts,
}

/// Bits for the number of a cause.
const CAUSE_BITS: u32 = 3;

/// Causes of slow calls. Of several, the first one counts.
pub const CAUSES: [&str; 5] = [
    "preempted",
    "worker preempted",
    "asleep",
    "page fault",
    // No switch and no fault: an interrupt, the hypervisor, or the call itself.
    "other",
];

/// The times of a figure, in nanoseconds, with the counts of its run.
pub struct Tail {
    pub calls: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub worst: f64,
    pub counts: Counts,
    /// Duration from which a call counts as slow.
    pub slow: f64,
    /// Number of slow calls by cause.
    pub causes: [u64; CAUSES.len()],
    /// Cause of the worst call, if it was slow.
    pub worst_by: Option<usize>,
}

impl Record {
    /// Prepares the times of calls. The counts include those of `workers`, processes with one
    /// thread.
    pub fn new(limits: Limits, workers: Vec<Pid>) -> Record {
        let ticks_per_ns = ticks_per_ns();
        let now = ticks();
        Record {
            times: vec![1; limits.calls],
            taken: 0,
            warm: false,
            ticks_per_ns,
            patience: (limits.patience.as_nanos() as f64 * ticks_per_ns) as u64,
            started: now,
            end: now,
            pause: u64::MAX,
            long: vec![1; limits.calls],
            workers,
            first: Counts::default(),
            seen: Counts::default(),
        }
    }

    /// Returns `true` if another call is to be made.
    #[inline]
    pub fn goes_on(&mut self) -> bool {
        let took = self.end.saturating_sub(self.started);
        if self.warm {
            return self.taken < self.times.len() && took < self.patience;
        }
        let long = took > self.patience / 10 && self.taken >= WARM_UP;
        if long || self.taken >= self.times.len() / 10 {
            self.begin();
        }
        true
    }

    /// Ends the warm-up.
    fn begin(&mut self) {
        let first = &mut self.times[..self.taken];
        first.sort_unstable();
        self.pause = first[first.len() / 4].max(1) * PAUSE;
        first.fill(1);
        (self.taken, self.warm) = (0, true);
        self.long.clear();
        self.first = Counts::read(&self.workers);
        self.seen = self.first;
        self.started = ticks();
        self.end = self.started;
    }

    /// Times a call.
    #[inline(always)]
    pub fn call<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let start = ticks();
        let result = black_box(call());
        let end = ticks();
        self.times[self.taken] = end.saturating_sub(start);
        self.taken += 1;
        // The pause was in this call, or between the last one and this.
        if end.saturating_sub(self.end) > self.pause {
            self.look(end.saturating_sub(start));
        } else {
            self.end = end;
        }
        result
    }

    /// Reads the counts after a pause. If it was in the last call, which took `took`, notes the call's
    /// cause.
    #[cold]
    fn look(&mut self, took: u64) {
        let now = Counts::read(&self.workers);
        let new = now.since(&self.seen);
        self.seen = now;
        if took > self.pause {
            let causes = [new.preempted, new.workers, new.slept, new.faults];
            let cause = causes.iter().position(|&count| count > 0);
            let cause = cause.unwrap_or(causes.len());
            self.long.push(took << CAUSE_BITS | cause as u64);
        }
        self.end = ticks();
    }

    pub fn finish(mut self) -> Tail {
        let counts = Counts::read(&self.workers).since(&self.first);
        let times = &mut self.times[..self.taken];
        times.sort_unstable();
        let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)];
        let slow = ((at(0.5) as f64 * SLOW) as u64).max(self.pause);
        let mut causes = [0; CAUSES.len()];
        let cause = |call: u64| (call & ((1 << CAUSE_BITS) - 1)) as usize;
        let slow_calls = self.long.iter().filter(|&call| call >> CAUSE_BITS > slow);
        slow_calls
            .clone()
            .for_each(|&call| causes[cause(call)] += 1);
        let ns = |ticks: u64| ticks as f64 / self.ticks_per_ns;
        Tail {
            calls: times.len() as u64,
            p50: ns(at(0.5)),
            p99: ns(at(0.99)),
            p999: ns(at(0.999)),
            worst: ns(at(1.0)),
            counts,
            slow: ns(slow),
            causes,
            worst_by: slow_calls.max().map(|&call| cause(call)),
        }
    }
}

impl Tail {
    /// Returns `true` if the tail needs an explanation.
    pub fn is_long(&self) -> bool {
        self.p999 > SLOW * self.p50
    }

    /// Returns the numbers, for the pipe from a child to its parent.
    pub fn to_words(&self) -> [u64; Tail::WORDS] {
        let counts = &self.counts;
        let times = [self.p50, self.p99, self.p999, self.worst, self.slow];
        let mut words = vec![self.calls];
        words.extend(times.map(f64::to_bits));
        words.extend([
            counts.preempted,
            counts.workers,
            counts.slept,
            counts.faults,
        ]);
        words.extend(self.causes);
        words.push(self.worst_by.map_or(u64::MAX, |cause| cause as u64));
        words.try_into().expect("the number of words")
    }

    pub const WORDS: usize = 11 + CAUSES.len();

    pub fn from_words(words: [u64; Tail::WORDS]) -> Tail {
        let [
            calls,
            p50,
            p99,
            p999,
            worst,
            slow,
            preempted,
            workers,
            slept,
            faults,
            ..,
        ] = words;
        let (causes, last) = words[10..].split_at(CAUSES.len());
        Tail {
            calls,
            p50: f64::from_bits(p50),
            p99: f64::from_bits(p99),
            p999: f64::from_bits(p999),
            worst: f64::from_bits(worst),
            counts: Counts {
                preempted,
                workers,
                slept,
                faults,
            },
            slow: f64::from_bits(slow),
            causes: causes.try_into().expect("a count of each cause"),
            worst_by: (last[0] != u64::MAX).then_some(last[0] as usize),
        }
    }
}
