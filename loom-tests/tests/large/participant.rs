//! The calls of a participant on arrays, and their record in the history.

use std::cell::Cell;

use ndarray::Ix1;
use ndshm::error::{AllocError, JoinError, LeaseError};
use ndshm::{HandleTable, Partition, ReadGuard, Write, WriteGuard, model};
use shuttle::thread;

use crate::program::{Act, Death, Life};
use crate::reference::{Answer, Question, TORN};
use crate::world::{Known, TILES, Vector, WORDS, World};

pub type Tiles<'t> = Partition<'t, Write<u64, Ix1>>;

/// A participant of a world.
pub struct Participant<'w> {
    pub world: &'w World,
    pub who: usize,
    /// The number of arrays and tiles that it still writes wholly. It dies halfway through the next
    /// one.
    wholes: Cell<u32>,
}

/// A lease that is held.
pub enum Lease<'t> {
    Read(ReadGuard<'t, u64, Ix1>, Known, Vec<u64>),
    Write(WriteGuard<'t, u64, Ix1>, Known),
}

fn refusal(error: &LeaseError) -> Answer {
    match error {
        LeaseError::Stale { .. } => Answer::Stale,
        LeaseError::Busy { .. } => Answer::Busy,
        LeaseError::Poisoned { .. } => Answer::Poisoned,
        error => panic!("{error}"),
    }
}

/// Returns the common value of all words, or [`TORN`] if they differ.
pub fn common(words: &[u64]) -> u64 {
    match words.iter().all(|word| *word == words[0]) {
        true => words[0],
        false => TORN,
    }
}

impl<'w> Participant<'w> {
    pub fn new(world: &'w World, who: usize, death: Option<Death>) -> Participant<'w> {
        let wholes = match death {
            Some(Death::HalfWritten(wholes)) => u32::from(wholes),
            _ => u32::MAX,
        };
        let wholes = Cell::new(wholes);
        Participant { world, who, wholes }
    }

    pub fn ask<R>(
        &self,
        what: Question,
        act: impl FnOnce() -> R,
        answer: impl FnOnce(&R) -> Answer,
    ) -> R {
        self.world.ask(self.who, what, act, answer)
    }

    /// Records a call that changes no array, like `ask`.
    pub fn other<R>(&self, act: impl FnOnce() -> R) -> R {
        self.ask(Question::Other, act, |_| Answer::Done)
    }

    /// Marks the point between the first written word and the next: a place to be interrupted or to
    /// die.
    pub fn half_written(&self) {
        self.other(|| {
            self.world.segment.is_persistent();
            let left = self.wholes.get().checked_sub(1);
            self.wholes.set(left.unwrap_or_else(|| model::die()));
        });
    }

    /// Runs all acts of a life.
    pub fn live(&self, life: &Life) {
        let mut acts = life.acts.iter();
        while acts.len() > 0 {
            let table = self.join();
            self.stay(&table, &mut acts);
            self.ask(Question::Leave, || drop(table), |()| Answer::Done);
        }
    }

    fn join(&self) -> HandleTable {
        loop {
            match self.other(|| HandleTable::join(&self.world.segment)) {
                Ok(table) => return table,
                // There is a seat for each, but a reaper may hold one for a moment.
                Err(JoinError::SeatsFull { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Runs acts until the participant leaves.
    fn stay<'a>(&self, table: &HandleTable, acts: &mut impl Iterator<Item = &'a Act>) {
        let tiles: Tiles<'_> = self
            .other(|| table.open_partition(self.world.tiles))
            .expect("the survivor owns it");
        self.work(table, &tiles, acts);
        self.other(|| drop(tiles));
    }

    fn work<'a>(
        &self,
        table: &HandleTable,
        tiles: &Tiles<'_>,
        acts: &mut impl Iterator<Item = &'a Act>,
    ) {
        let mut stamp = (self.who as u64) << 32;
        let mut leases = Vec::new();
        let mut round = None;
        for &act in acts {
            stamp += 1;
            match act {
                Act::Alloc { large } => {
                    let words = WORDS[usize::from(large && self.world.has_large)];
                    if let Some(handle) = self.alloc(table, words, stamp) {
                        self.world.know(handle);
                    }
                }
                Act::EndLease(which) => {
                    if !leases.is_empty() {
                        let at = usize::from(which) % leases.len();
                        self.end_lease(leases.swap_remove(at));
                    }
                }
                Act::Reap => {
                    self.other(|| table.reap()).unwrap();
                }
                Act::Leave => break,
                Act::Tiles(count) => self.run_tiles(table, tiles, count),
                Act::Round => match round.take() {
                    None => round = self.begin(table, tiles),
                    Some(running) => {
                        self.run_tiles(table, tiles, TILES as u8);
                        round = self.finish(table, running);
                    }
                },
                Act::Free(which)
                | Act::Attach(which)
                | Act::Read(which)
                | Act::Write(which)
                | Act::ClearPoison(which) => {
                    if let Some(known) = self.world.choose(which) {
                        leases.extend(self.with_array(table, act, known, stamp));
                    }
                }
            }
        }
        for lease in leases {
            self.end_lease(lease);
        }
        if let Some(running) = round {
            let left = self.finish(table, running);
            self.other(|| drop(left));
        }
    }

    pub fn alloc(&self, table: &HandleTable, words: usize, value: u64) -> Option<Vector> {
        let question = Question::Alloc {
            words: words as u64,
            value,
        };
        let answer = |made: &Result<Vector, AllocError>| match made {
            Ok(handle) => Answer::Fresh(self.world.name(*handle)),
            Err(AllocError::Full { .. }) => Answer::Full,
            Err(error) => panic!("{error}"),
        };
        let made = self.ask(question, || table.from_elem(words, value), answer);
        made.ok()
    }

    /// Performs a call on one array. Returns the lease if the call granted one.
    pub fn with_array<'t>(
        &self,
        table: &'t HandleTable,
        act: Act,
        known: Known,
        stamp: u64,
    ) -> Option<Lease<'t>> {
        let Known { handle, name } = known;
        let refusal = |error: &LeaseError| {
            let answer = refusal(error);
            if answer == Answer::Stale {
                self.world.forget(name);
            }
            answer
        };
        let done = |result: &Result<(), LeaseError>| match result {
            Ok(()) => Answer::Done,
            Err(error) => refusal(error),
        };
        match act {
            Act::Free(_) => {
                let stale = |freed: &Result<_, _>| {
                    [Answer::Stale, Answer::Done][usize::from(freed.is_ok())]
                };
                let _ = self.ask(Question::Free(name), || table.free(handle), stale);
                self.world.forget(name);
            }
            Act::Attach(_) => self.attach(table, known),
            Act::ClearPoison(_) => {
                let clear = || table.clear_poison(handle);
                let _ = self.ask(Question::ClearPoison(name), clear, done);
            }
            Act::Read(_) => {
                let answer = |read: &Result<ReadGuard<'_, _, _>, _>| match read {
                    Ok(array) => Answer::Given(common(&array.to_vec())),
                    Err(error) => refusal(error),
                };
                let read = self.ask(Question::Read(name), || table.read(handle), answer);
                return read.ok().map(|array| {
                    let seen = array.to_vec();
                    Lease::Read(array, known, seen)
                });
            }
            Act::Write(_) => {
                let answer = |write: &Result<WriteGuard<'_, _, _>, _>| match write {
                    Ok(array) => Answer::Given(common(&array.to_vec())),
                    Err(error) => refusal(error),
                };
                let question = Question::Write(name, stamp);
                let write = self.ask(question, || table.write(handle), answer);
                return write.ok().map(|mut array| {
                    array[0] = stamp;
                    self.half_written();
                    array.fill(stamp);
                    Lease::Write(array, known)
                });
            }
            _ => unreachable!("not a call on one array"),
        }
        None
    }

    pub fn attach(&self, table: &HandleTable, known: Known) {
        let look = || table.attach(known.handle).map(|array| array.shape()[0]);
        let answer = |seen: &Result<usize, LeaseError>| match seen {
            Ok(len) => {
                assert!(WORDS.contains(len), "an unknown shape");
                Answer::Done
            }
            Err(error) => refusal(error),
        };
        let _ = self.ask(Question::Attach(known.name), look, answer);
    }

    pub fn end_lease(&self, lease: Lease<'_>) {
        match lease {
            Lease::Read(array, known, seen) => {
                assert_eq!(array.to_vec(), seen, "changed under a read lease");
                self.ask(
                    Question::EndRead(known.name),
                    || drop(array),
                    |()| Answer::Done,
                );
            }
            Lease::Write(array, known) => {
                assert_ne!(common(&array.to_vec()), TORN, "changed under a write lease");
                self.ask(
                    Question::EndWrite(known.name),
                    || drop(array),
                    |()| Answer::Done,
                );
            }
        }
    }
}
