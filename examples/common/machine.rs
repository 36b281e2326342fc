//! The share of the machine that a measurement had, from /proc.

use std::fs;

/// Shares of the processors' time that make times longer, and are worth a line.
const OTHERS: f64 = 0.05;
const STOLEN: f64 = 0.01;

/// Processor times up to a moment, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ticks {
    /// Of all processors together.
    all: u64,
    idle: u64,
    /// Taken by the host of this virtual machine.
    stolen: u64,
    /// Of this process and of its children that have ended.
    own: u64,
}

/// The start of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    ticks: Option<Ticks>,
    /// Number of threads that were ready to run, on average of the last minute.
    load: Option<f64>,
}

/// The use of the machine by others during a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disturbance {
    /// Share of the processors' time that other programs used.
    pub others: f64,
    /// Share that the host of this virtual machine took.
    pub stolen: f64,
    /// Load average at the start.
    pub load: Option<f64>,
}

impl Machine {
    /// Begins a measurement.
    pub fn now() -> Machine {
        let load = fs::read_to_string("/proc/loadavg").ok();
        Machine {
            ticks: Ticks::now(),
            load: load.and_then(|load| load.split(' ').next()?.parse().ok()),
        }
    }

    /// Returns the use of the machine by others since [`now`](Machine::now), if it has made times
    /// longer. Call this when the measured children have ended: their time is counted then.
    pub fn disturbance(&self) -> Option<Disturbance> {
        let (since, now) = (self.ticks?, Ticks::now()?);
        let (others, stolen) = now.shares_since(since)?;
        let matters = others > OTHERS || stolen > STOLEN;
        matters.then_some(Disturbance {
            others,
            stolen,
            load: self.load,
        })
    }
}

impl Ticks {
    fn now() -> Option<Ticks> {
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let process = fs::read_to_string("/proc/self/stat").ok()?;
        Ticks::parse(&machine, &process)
    }

    fn parse(machine: &str, process: &str) -> Option<Ticks> {
        // user, nice, system, idle, iowait, irq, softirq, steal; the guests are in the first two.
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = numbers(line).take(8).collect();
        let &[_, _, _, idle, iowait, _, _, stolen] = &*fields else {
            return None;
        };
        // The program's name is in parentheses, and may have any characters. Behind it: state, ten
        // numbers, and then the times of the process and of its children.
        let behind = process.rsplit_once(')')?.1.trim_start().split_once(' ')?.1;
        let times: Vec<u64> = numbers(behind).skip(10).take(4).collect();
        (times.len() == 4).then(|| Ticks {
            all: fields.iter().sum(),
            idle: idle + iowait,
            stolen,
            own: times.iter().sum(),
        })
    }

    /// Returns the shares of other programs and of the host, or `None` if no time has passed.
    fn shares_since(self, since: Ticks) -> Option<(f64, f64)> {
        let all = self.all.saturating_sub(since.all);
        // The kernel may count idle time back.
        let idle = self.idle.saturating_sub(since.idle);
        let stolen = self.stolen.saturating_sub(since.stolen);
        let own = self.own.saturating_sub(since.own);
        let others = all.saturating_sub(idle + stolen + own);
        let share = |ticks: u64| ticks as f64 / all as f64;
        (all > 0).then(|| (share(others), share(stolen)))
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    // A negative number is none of those that are needed, and keeps its place.
    let number = |word: &str| word.parse().unwrap_or(0);
    text.split_ascii_whitespace().map(number)
}

impl std::fmt::Display for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |share: f64| (100.0 * share).round();
        write!(
            f,
            "the machine was shared: other programs used {} % of the processors, the host {} %",
            percent(self.others),
            percent(self.stolen)
        )?;
        if let Some(load) = self.load {
            write!(f, " (load {load})")?;
        }
        write!(f, "; alone, these times are shorter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "cpu  1000 20 300 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
    const PROCESS: &str =
        "77 (a) b) R 1 77 77 0 -1 4194304 900 10 0 0 150 30 15 5 20 0 1 0 99 1 2 3";

    #[test]
    fn times_are_found_in_the_texts_of_proc() {
        let expected = Ticks {
            all: 5463,
            idle: 4050,
            stolen: 80,
            own: 200,
        };
        assert_eq!(Ticks::parse(MACHINE, PROCESS), Some(expected));
        for (machine, process) in [
            ("", PROCESS),
            ("cpu  1 2 3", PROCESS),
            ("intr 1 2 3 4 5 6 7 8", PROCESS),
            (MACHINE, ""),
            (MACHINE, "77 (a) R 1 2"),
        ] {
            assert_eq!(Ticks::parse(machine, process), None);
        }
        // This system's texts.
        let now = Ticks::now().unwrap();
        assert!(now.all >= now.idle + now.stolen, "{now:?}");
    }

    #[test]
    fn shares_are_those_of_the_interval() {
        let since = Ticks {
            all: 1000,
            idle: 400,
            stolen: 10,
            own: 5,
        };
        let later = Ticks {
            all: 1200,
            idle: 440,
            stolen: 30,
            own: 105,
        };
        // 200 in all: 40 idle, 20 stolen, 100 own.
        assert_eq!(later.shares_since(since), Some((0.2, 0.1)));
        assert_eq!(later.shares_since(later), None);
        // The process cannot have used more than was used; rounding may say so.
        let alone = Ticks { own: 1000, ..later };
        assert_eq!(alone.shares_since(since), Some((0.0, 0.1)));
    }

    #[test]
    fn the_line_names_both_shares() {
        let text = Disturbance {
            others: 0.404,
            stolen: 0.0251,
            load: Some(9.5),
        }
        .to_string();
        assert!(text.contains("40 %") && text.contains("3 %") && text.contains("load 9.5"));
    }
}
