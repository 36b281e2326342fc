//! Successive snapshots of a segment, and the changes between them.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ndshm::inspect::{ArrayInfo, Census, RoundProgress, SeatInfo};
use ndshm::{AnyHandle, Observer};
use serde_json::{Value as Json, json};

use crate::output::Failure;
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
    at: Option<Instant>,
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
        let (names, damage) = match self.observer.names("") {
            Ok(names) => (
                names
                    .into_iter()
                    .map(|info| (info.handle.to_bits(), info.name))
                    .collect(),
                None,
            ),
            Err(error) => (HashMap::new(), Some(error.to_string())),
        };
        let seats = self.observer.seats()?;
        self.snapshot = Snapshot {
            at: Some(now),
            size: metadata.size(),
            resident: metadata.blocks().saturating_mul(512),
            census,
            rates,
            rounds: self.observer.rounds(),
            seats: seats
                .into_iter()
                .map(|seat| Participant::of(seat, &arrays))
                .collect(),
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

impl Snapshot {
    /// Returns `true` if a live participant is in the segment.
    pub fn is_inhabited(&self) -> bool {
        self.seats.iter().any(|participant| participant.seat.alive)
    }

    pub fn document(&self) -> Json {
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
            "seats": self.seats.iter().map(|participant| json!({
                "seat": participant.seat.seat,
                "pid": participant.seat.pid,
                "alive": participant.seat.alive,
                "command": participant.command,
                "state": participant.state.to_string(),
                "writes": participant.writes,
                "reads": participant.reads,
            })).collect::<Json>(),
        })
    }
}

impl Participant {
    /// Counts the leases of the seat's process. Leases name processes, so all seats of one process
    /// show the same counts.
    fn of(seat: SeatInfo, arrays: &[ArrayInfo]) -> Participant {
        let (command, state) = match seat.alive {
            true => process(seat.pid),
            false => None,
        }
        .unwrap_or(("-".into(), '-'));
        let writes = arrays.iter().filter(|array| array.writer == Some(seat.pid));
        let reads = arrays
            .iter()
            .filter(|array| array.readers.contains(&seat.pid));
        Participant {
            writes: writes.count(),
            reads: reads.count(),
            seat,
            command,
            state,
        }
    }
}

/// Returns name and state of a process from /proc.
fn process(pid: u32) -> Option<(String, char)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name is in parentheses, and may itself contain some.
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    Some((name.to_owned(), rest.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_has_a_name() {
        let (name, state) = process(std::process::id()).unwrap();
        assert!(!name.is_empty());
        assert!("RSD".contains(state), "{state}");
        assert_eq!(process(u32::MAX), None);
    }
}
