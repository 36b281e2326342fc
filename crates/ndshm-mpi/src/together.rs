//! How the ranks of a node make a collective call: they arrive at the leader, which does the node's
//! part and posts the outcome for all.
//!
//! All of it runs on words of the segment. A rank without a processor sleeps, and no barrier of MPI
//! spins within a node.

use std::any::Any;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, QueueError, RoundError};
use ndshm::partition::{Entered, Group};
use ndshm::{HandleTable, Partition, PartitionHandle, Queue, QueueHandle, Tile, Write};

use crate::call::Call;
use crate::error::{Error, Ranks, Result};
use crate::leaders::Leaders;
use crate::node::Node;

/// The message of a rank to its leader at the beginning of a call.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Arrival {
    rank: u64,
    /// The number of the call.
    number: u64,
    call: Call,
}

/// Words of the board: the outcome of a call, and its results.
const BOARD: usize = 16;

/// Results that fit on the board.
const WORDS: usize = BOARD - 1;

type Board<'t> = Partition<'t, Write<u64, Ix1>>;

/// Makes the queue of arrivals and the board of a node.
pub(crate) fn make(table: &HandleTable, ranks: usize) -> Result<(Queue<'_, Arrival>, Board<'_>)> {
    let board = table.zeros::<u64, _>(BOARD)?;
    Ok((
        table.queue(2 * ranks)?,
        table.partition(board.write(), Axis(0), BOARD)?,
    ))
}

/// Opens the queue and the board that the leader has made.
pub(crate) fn open(
    table: &HandleTable,
    names: [u64; 2],
) -> Result<(Queue<'_, Arrival>, Board<'_>)> {
    Ok((
        table.open_queue(QueueHandle::from_bits(names[0]))?,
        table.open_partition(PartitionHandle::from_bits(names[1]))?,
    ))
}

/// The place of a rank in the sequence of its node's calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Between two calls.
    In,
    /// In a call, or a panic has ended one.
    Calling,
    /// The ranks are at different calls, and an answer may be that of an earlier one.
    Out,
}

impl Node {
    /// Runs a call, or a part of one, if the ranks are in step.
    pub(crate) fn in_step<R>(&self, call: Call, run: impl FnOnce() -> Result<R>) -> Result<R> {
        if self.step.get() != Step::In {
            return Err(Error::OutOfStep { call: call.text() });
        }
        self.step.set(Step::Calling);
        let outcome = run();
        let left = matches!(
            outcome,
            Err(Error::NotCalled { .. } | Error::Unequal { .. })
        );
        if !left && self.step.get() == Step::Calling {
            self.step.set(Step::In);
        }
        outcome
    }

    /// Makes a collective call of all nodes: the leaders agree, each does `work`, and all ranks get
    /// its words.
    pub(crate) fn lead<const N: usize>(
        &self,
        call: Call,
        work: impl FnOnce(&Leaders) -> Result<[u64; N]>,
    ) -> Result<[u64; N]> {
        self.in_step(call, || {
            let arrived = self.arrive(call);
            self.let_go(&arrived);
            self.answer_all(call, arrived, work)
        })
    }

    /// Goes on with a call, as [`lead`](Node::lead). The leader does not drop the values that it
    /// [keeps](Node::keep) for this call.
    pub(crate) fn go_on<const N: usize>(
        &self,
        call: Call,
        work: impl FnOnce(&Leaders) -> Result<[u64; N]>,
    ) -> Result<[u64; N]> {
        self.in_step(call, || {
            let arrived = self.arrive(call);
            self.answer_all(call, arrived, work)
        })
    }

    fn answer_all<const N: usize>(
        &self,
        call: Call,
        arrived: Result<()>,
        work: impl FnOnce(&Leaders) -> Result<[u64; N]>,
    ) -> Result<[u64; N]> {
        self.answer(|leaders| {
            let failed = arrived.is_err().then(|| self.world_ranks[0]);
            let agreed = leaders.agree(call, self.history.get(), failed, self.patience.get());
            arrived.and(agreed)?;
            work(leaders)
        })
    }

    /// Makes a collective call of this node alone.
    pub(crate) fn lead_here<const N: usize>(
        &self,
        call: Call,
        work: impl FnOnce() -> Result<[u64; N]>,
    ) -> Result<[u64; N]> {
        self.in_step(call, || {
            let arrived = self.arrive(call);
            self.let_go(&arrived);
            self.answer(|_| {
                arrived?;
                work()
            })
        })
    }

    /// Keeps a value until all ranks have arrived at the next call. Until then a rank may open it, or
    /// be in its last round.
    pub(crate) fn keep(&self, value: impl Any) {
        self.kept.borrow_mut().push(Box::new(value));
    }

    fn let_go(&self, arrived: &Result<()>) {
        if arrived.is_ok() {
            self.kept.borrow_mut().clear();
        }
    }

    /// Runs a round of a partition that the leader has posted in the same call. All ranks are there.
    pub(crate) fn run_posted<G: Group + 'static>(
        &self,
        bits: u64,
        kernel: impl FnMut(&mut Tile<'_, '_, G>),
    ) -> Result<()> {
        let tiles = self
            .table
            .open_partition::<G>(PartitionHandle::from_bits(bits))?;
        self.round(&tiles, 0, kernel).map(drop)
    }

    /// Runs the round after `after` with all ranks of the node, which have arrived or are about to.
    /// Returns its number.
    pub(crate) fn round<G: Group>(
        &self,
        tiles: &Partition<'_, G>,
        after: u64,
        mut kernel: impl FnMut(&mut Tile<'_, '_, G>),
    ) -> Result<u64> {
        let ranks = self.ranks();
        if self.is_leader() {
            return self.fail_here(self.open_round(tiles, kernel));
        }
        /// The interval between looks at the board.
        const SLICE: Duration = Duration::from_millis(50);
        let start = Instant::now();
        let number = loop {
            match tiles.enter_next_at(self.rank, ranks, after, SLICE) {
                Ok(Entered::Member(mut part)) => {
                    while let Some(mut tile) = part.claim()? {
                        kernel(&mut tile);
                    }
                    break part.round();
                }
                Ok(Entered::Over { round }) => break round,
                Ok(_) => return Err(self.elsewhere()),
                Err(RoundError::NotOpened { .. }) => {
                    if self.board.progress()?.round > self.posts.get() {
                        // The leader posts in a round only if it fails.
                        return Err(self.read_board::<0>().err().unwrap_or(self.elsewhere()));
                    }
                    if start.elapsed() > self.patience.get().saturating_mul(2) {
                        return Err(self.not_called("a round", start.elapsed()));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        };
        match tiles.wait_finished(number, self.patience.get().saturating_mul(2)) {
            Ok(()) => Ok(number),
            Err(RoundError::Deadline { waited, .. }) => Err(self.not_called("a round", waited)),
            // The leader has the same error, and posts it for those that did not see the round.
            Err(_) => {
                self.step.set(Step::Out);
                Err(self.elsewhere())
            }
        }
    }

    fn open_round<G: Group>(
        &self,
        tiles: &Partition<'_, G>,
        mut kernel: impl FnMut(&mut Tile<'_, '_, G>),
    ) -> Result<u64> {
        let round = tiles.begin()?;
        let number = round.number();
        let run = || {
            if let Some(mut part) = tiles.enter_at(0, self.ranks())? {
                while let Some(mut tile) = part.claim()? {
                    kernel(&mut tile);
                }
            }
            round.finish(self.patience.get())
        };
        match run() {
            Ok(()) => Ok(number),
            Err(error) => {
                // Ranks that were in the round have its error, and read no board.
                self.step.set(Step::Out);
                Err(error.into())
            }
        }
    }

    /// Tells the leader that this rank is in `call`. The leader waits for all ranks of its node, and
    /// compares.
    pub(crate) fn arrive(&self, call: Call) -> Result<()> {
        let number = self.calls.get() + 1;
        self.calls.set(number);
        self.history.set(call.after(self.history.get()));
        if !self.is_leader() {
            let rank = self.rank as u64;
            let arrival = Arrival { rank, number, call };
            return Ok(self.arrivals.push(arrival).map_err(QueueError::from)?);
        }
        let start = Instant::now();
        let mut here = vec![false; self.ranks()];
        here[0] = true;
        let mut unequal = None;
        for _ in 1..self.ranks() {
            let left = self.patience.get().saturating_sub(start.elapsed());
            let Some(arrival) = self.arrivals.pop_timeout(left)? else {
                let missing = (here.iter().zip(&self.world_ranks)).filter(|(here, _)| !**here);
                return Err(Error::NotCalled {
                    call: call.text(),
                    ranks: Ranks(missing.map(|(_, &rank)| rank).collect()),
                    waited: self.patience.get(),
                });
            };
            let rank = arrival.rank as usize;
            here[rank] = true;
            if arrival.call != call || arrival.number != number {
                unequal = Some(Error::Unequal {
                    rank: self.world_ranks[rank],
                    call: arrival.call.text(),
                    other: self.world_ranks[0],
                    expected: call.text(),
                });
            }
        }
        unequal.map_or(Ok(()), Err)
    }

    /// Does `work` on the leader, and gives its words to all ranks of the node, which have arrived.
    fn answer<const N: usize>(
        &self,
        work: impl FnOnce(&Leaders) -> Result<[u64; N]>,
    ) -> Result<[u64; N]> {
        const { assert!(N <= WORDS) };
        let Some(leaders) = &self.leaders else {
            return self.wait_for_board();
        };
        let done = work(leaders);
        match &done {
            Ok(words) => self.post(words, None)?,
            Err(Error::Elsewhere { rank }) => {
                self.post_failure(*rank);
                step_aside();
            }
            Err(_) => self.post_failure(self.world_ranks[0]),
        }
        done
    }

    /// Writes to the board that a rank has an error. It matters more than one of the board, which
    /// leaves the others waiting.
    fn post_failure(&self, rank: i32) {
        if self.post(&[], Some(rank)).is_err() {
            self.step.set(Step::Out);
        }
    }

    /// Writes the outcome of a call to the board: its words, or the rank that has the error.
    fn post(&self, words: &[u64], failed: Option<i32>) -> Result<()> {
        if self.ranks() == 1 {
            return Ok(());
        }
        let start = Instant::now();
        let round = loop {
            match self.board.begin() {
                // A rank still reads an older outcome. That happens only after an error.
                Err(RoundError::Lease(LeaseError::Busy { .. }))
                    if start.elapsed() < self.patience.get() =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                begun => break begun?,
            }
        };
        if let Some(mut part) = self.board.enter()? {
            while let Some(mut tile) = part.claim()? {
                let mut board = tile.views();
                board[0] = failed.map_or(0, |rank| rank as u64 + 1);
                for (place, &word) in board.iter_mut().skip(1).zip(words) {
                    *place = word;
                }
            }
        }
        self.posts.set(round.number());
        round.finish(self.patience.get())?;
        Ok(())
    }

    fn wait_for_board<const N: usize>(&self) -> Result<[u64; N]> {
        let next = self.posts.get() + 1;
        // The leader waits for other leaders, one after the other.
        let turns = usize::BITS - self.count.leading_zeros() + 3;
        let patience = self.patience.get().saturating_mul(turns);
        match self.board.wait_finished(next, patience) {
            Ok(()) => self.read_board(),
            Err(RoundError::Deadline { waited, .. }) => Err(self.not_called("its answer", waited)),
            Err(error) => Err(error.into()),
        }
    }

    fn read_board<const N: usize>(&self) -> Result<[u64; N]> {
        self.posts.set(self.posts.get() + 1);
        let (failed, words) = {
            let board = self.table.read(self.board.group().handle())?;
            (board[0], std::array::from_fn(|at| board[at + 1]))
        };
        match failed {
            0 => Ok(words),
            failed => {
                step_aside();
                Err(Error::Elsewhere {
                    rank: failed as i32 - 1,
                })
            }
        }
    }

    /// Tells the ranks of the node, which wait in a round, of an error of their leader.
    pub(crate) fn fail_here<R>(&self, outcome: Result<R>) -> Result<R> {
        if outcome.is_err() && self.is_leader() {
            self.post_failure(self.world_ranks[0]);
        }
        outcome
    }

    fn elsewhere(&self) -> Error {
        step_aside();
        Error::Elsewhere {
            rank: self.world_ranks[0],
        }
    }

    /// Returns the error of a rank whose leader is missing.
    fn not_called(&self, call: &str, waited: Duration) -> Error {
        // All others of the node miss it, too.
        if self.rank > 1 {
            step_aside();
        }
        Error::NotCalled {
            call: call.to_owned(),
            ranks: Ranks(vec![self.world_ranks[0]]),
            waited,
        }
    }
}

/// Lets the rank with the cause report it: if that ends the job, it ends this rank here.
pub(crate) fn step_aside() {
    if crate::init::is_rank() {
        std::thread::sleep(Duration::from_secs(1));
    }
}
