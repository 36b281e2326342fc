//! Successive snapshots of a segment, and the changes between them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ndshm::inspect::{ArrayInfo, Census, RoundProgress, SeatInfo};
use ndshm::{AnyHandle, Observer};
use serde_json::{Value as Json, json};

use super::view::View;
use crate::output::Failure;
use crate::path;
use crate::target::Place;

/// Number of snapshots whose memory usage is remembered.
const HISTORY: usize = 400;

/// A watched segment.
pub struct Watched {
    pub place: String,
    observer: Observer,
    file: File,
    pub snapshot: Snapshot,
    /// Bytes in use at each snapshot so far, the newest last.
    pub history: VecDeque<u64>,
}

/// A snapshot of a segment.
#[derive(Default)]
pub struct Snapshot {
    pub at: Option<Instant>,
    pub size: u64,
    pub resident: u64,
    pub arrays: Vec<ArrayInfo>,
    pub names: HashMap<u64, String>,
    pub census: Census,
    /// Arrays made and freed per second since the previous snapshot.
    pub rates: Option<(f64, f64)>,
    pub rounds: Vec<(AnyHandle, RoundProgress)>,
    pub seats: Vec<Participant>,
    /// Damage in the table of names.
    pub damage: Option<String>,
}

/// A seat and its process.
pub struct Participant {
    pub seat: SeatInfo,
    pub command: String,
    /// The process state as a letter.
    pub state: char,
    /// Arrays that it writes, or has a round on.
    pub writes: usize,
    /// Arrays that it reads, or takes part in a round on.
    pub reads: usize,
    /// Arrays that it owns.
    pub owned: usize,
    /// Bytes of the arrays that it owns.
    pub bytes: u64,
    /// What its process did since the previous snapshot.
    pub rates: Option<Rates>,
    /// Processor time of its process so far, in seconds.
    time: Option<f64>,
}

/// What a process did between two snapshots, per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Arrays made, of those that still lived at the later snapshot.
    pub made: f64,
    /// Arrays freed, of those that lived at the earlier snapshot.
    pub freed: f64,
    /// Seconds of processor time.
    pub cpu: f64,
}

impl Watched {
    pub fn new(place: &Place) -> Result<Watched, Failure> {
        Ok(Watched {
            place: place.to_string(),
            observer: place.observe()?,
            file: place.file()?,
            snapshot: Snapshot::default(),
            history: VecDeque::new(),
        })
    }

    /// Takes a new snapshot.
    pub fn update(&mut self) -> Result<&Snapshot, Failure> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| Failure::refused(format_args!("{}: {error}", self.place)))?;
        let (now, census) = (Instant::now(), self.observer.census());
        let before = &self.snapshot;
        let rates = before.at.map(|at| {
            let seconds = now.duration_since(at).as_secs_f64().max(1e-9);
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            (
                rate(census.made, before.census.made),
                rate(census.freed, before.census.freed),
            )
        });
        let arrays: Vec<ArrayInfo> = self.observer.arrays().collect();
        let (names, damage) = match path::all(&self.observer) {
            Ok(paths) => (
                paths
                    .into_iter()
                    .map(|(handle, names)| (handle, names.join(", ")))
                    .collect(),
                None,
            ),
            Err(error) => (HashMap::new(), Some(error.to_string())),
        };
        let mut seats: Vec<Participant> = self
            .observer
            .seats()?
            .into_iter()
            .map(|seat| Participant::of(seat, &arrays))
            .collect();
        if let Some(at) = before.at {
            let seconds = now.duration_since(at).as_secs_f64().max(1e-9);
            let changes = Changes::between(&before.arrays, &arrays);
            for seat in &mut seats {
                seat.rates = before.rates_of(seat, &changes, seconds);
            }
        }
        self.snapshot = Snapshot {
            at: Some(now),
            size: metadata.size(),
            resident: metadata.blocks().saturating_mul(512),
            census,
            rates,
            rounds: self.observer.rounds(),
            seats,
            arrays,
            names,
            damage,
        };
        self.history.push_back(self.snapshot.resident);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        Ok(&self.snapshot)
    }
}

/// Arrays that came and went between two snapshots, by the pid of their owner.
#[derive(Default)]
struct Changes {
    made: HashMap<u32, usize>,
    freed: HashMap<u32, usize>,
}

impl Changes {
    fn between(before: &[ArrayInfo], after: &[ArrayInfo]) -> Changes {
        let count = |arrays: &[ArrayInfo], others: &[ArrayInfo]| {
            let others: HashSet<u64> = others.iter().map(|it| it.handle.to_bits()).collect();
            let mut counts = HashMap::new();
            for array in arrays {
                if !others.contains(&array.handle.to_bits())
                    && let Some(pid) = array.owner
                {
                    *counts.entry(pid).or_default() += 1;
                }
            }
            counts
        };
        Changes {
            made: count(after, before),
            freed: count(before, after),
        }
    }
}

impl Snapshot {
    /// Returns the rates of a participant since this snapshot; `None` if it was not there.
    fn rates_of(&self, seat: &Participant, changes: &Changes, seconds: f64) -> Option<Rates> {
        let pid = seat.seat.pid;
        let then = self.seats.iter().find(|then| then.seat == seat.seat)?;
        let rate =
            |counts: &HashMap<u32, usize>| counts.get(&pid).copied().unwrap_or(0) as f64 / seconds;
        Some(Rates {
            made: rate(&changes.made),
            freed: rate(&changes.freed),
            cpu: match (then.time, seat.time) {
                (Some(then), Some(now)) => ((now - then) / seconds).max(0.0),
                _ => 0.0,
            },
        })
    }

    /// Returns `true` if a live participant is in the segment.
    pub fn is_inhabited(&self) -> bool {
        self.seats.iter().any(|participant| participant.seat.alive)
    }

    pub fn document(&self, view: &View) -> Json {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "time": since.map_or(0.0, |since| since.as_secs_f64()),
            "size": self.size,
            "resident": self.resident,
            "arrays": self.arrays.len(),
            "live": self.census.live,
            "made": self.census.made,
            "freed": self.census.freed,
            "made_per_s": self.rates.map(|(made, _)| made),
            "freed_per_s": self.rates.map(|(_, freed)| freed),
            "rounds": self.rounds.iter().map(|(partition, round)| json!({
                "partition": partition.to_string(),
                "round": round.round,
                "running": round.running,
                "done": round.done,
                "held": round.held,
                "torn": round.torn,
                "tiles": round.tiles,
            })).collect::<Json>(),
            "seats": view.seats(self).iter().map(|participant| json!({
                "seat": participant.seat.seat,
                "pid": participant.seat.pid,
                "alive": participant.seat.alive,
                "command": participant.command,
                "state": participant.state.to_string(),
                "writes": participant.writes,
                "reads": participant.reads,
                "owned": participant.owned,
                "owned_bytes": participant.bytes,
                "made_per_s": participant.rates.map(|rates| rates.made),
                "freed_per_s": participant.rates.map(|rates| rates.freed),
                "cpu": participant.rates.map(|rates| rates.cpu),
            })).collect::<Json>(),
        })
    }
}

impl Participant {
    /// Counts the leases and the arrays of the seat's process. Leases and owners name processes, so
    /// all seats of one process show the same counts.
    fn of(seat: SeatInfo, arrays: &[ArrayInfo]) -> Participant {
        let process = match seat.alive {
            true => process(seat.pid),
            false => None,
        };
        let time = process.as_ref().map(|process| process.time);
        let (command, state) = match process {
            Some(process) => (process.name, process.state),
            None => ("-".into(), '-'),
        };
        let owned = || arrays.iter().filter(|array| array.owner == Some(seat.pid));
        let writes = arrays.iter().filter(|array| array.writer == Some(seat.pid));
        let reads = arrays
            .iter()
            .filter(|array| array.readers.contains(&seat.pid));
        Participant {
            writes: writes.count(),
            reads: reads.count(),
            owned: owned().count(),
            bytes: owned().map(|array| array.bytes).sum(),
            rates: None,
            time,
            seat,
            command,
            state,
        }
    }
}

/// A process as /proc shows it.
#[derive(PartialEq, Debug)]
struct Process {
    name: String,
    /// The state as a letter.
    state: char,
    /// Processor time so far, in seconds.
    time: f64,
}

/// Returns a process from /proc.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name is in parentheses, and may itself contain some.
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), of which the state is the third.
    let ticks = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    let ticks = ticks(14)? + ticks(15)?;
    Some(Process {
        name: name.to_owned(),
        state: fields[0].chars().next()?,
        time: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_has_a_name() {
        let this = process(std::process::id()).unwrap();
        assert!(!this.name.is_empty());
        assert!("RSD".contains(this.state), "{}", this.state);
        // Work until the clock of the process moves.
        while process(std::process::id()).unwrap().time <= this.time {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
        assert_eq!(process(u32::MAX), None);
    }
}
