//! The agreement of the nodes' leaders that all of them make the same call.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use mpi::point_to_point::Source;
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::*;

use crate::call::Call;
use crate::error::{Error, Ranks, Result};
use crate::together::step_aside;

/// The message of a leader to its parent in the tree, and of the parent to its children.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Message {
    /// Hash of all calls so far, and the present one.
    history: u64,
    call: Call,
    /// The rank that has found an error, plus 1.
    failed: u64,
}

const UP: i32 = 0x6e64;
const DOWN: i32 = 0x6e65;

/// The first ranks of all nodes.
pub(crate) struct Leaders {
    /// Never freed: MPI frees it by all of its ranks together, and they drop their nodes at any time.
    pub(crate) comm: ManuallyDrop<SimpleCommunicator>,
    /// Their ranks among all.
    pub(crate) world_ranks: Vec<i32>,
}

impl Leaders {
    /// Waits for all leaders, and compares their calls.
    pub(crate) fn agree(
        &self,
        call: Call,
        history: u64,
        failed: Option<i32>,
        patience: Duration,
    ) -> Result<()> {
        let world_rank = |leader: i32| self.world_ranks[leader as usize];
        agree(&self.comm, world_rank, call, history, failed, patience)
    }
}

/// Waits for all ranks of `comm`, and compares their calls along a binomial tree. `failed` is the
/// rank that has found an error already. `world_rank` returns the number by which an error names a
/// rank.
///
/// After it, no rank waits for one that is in another call.
pub(crate) fn agree(
    comm: &SimpleCommunicator,
    world_rank: impl Fn(i32) -> i32,
    call: Call,
    history: u64,
    failed: Option<i32>,
    patience: Duration,
) -> Result<()> {
    let (rank, size) = (comm.rank(), comm.size());
    if size == 1 {
        return match failed {
            Some(rank) => Err(Error::Elsewhere { rank }),
            None => Ok(()),
        };
    }
    let mut message = Message {
        history,
        call,
        failed: failed.map_or(0, |rank| rank as u64 + 1),
    };
    let mut found = None;
    let mut children = Vec::new();
    let mut step = 1;
    while step < size && rank & step == 0 {
        let child = rank + step;
        // A child that misses one of its own says so before it is missed itself.
        let patience = patience.saturating_add(patience.saturating_mul(step.ilog2()) / 4);
        step <<= 1;
        if child >= size {
            continue;
        }
        children.push(child);
        let error = match wait(&comm.process_at_rank(child), UP, patience) {
            None => Some(Error::NotCalled {
                call: call.text(),
                ranks: Ranks(vec![world_rank(child)]),
                waited: patience,
            }),
            Some(theirs) if theirs.failed != 0 => {
                message.failed = theirs.failed;
                None
            }
            Some(theirs) if theirs.history != history => {
                Some(unequal([child, rank].map(&world_rank), &theirs.call, &call))
            }
            Some(_) => None,
        };
        if let Some(error) = error
            && message.failed == 0
        {
            message.failed = world_rank(rank) as u64 + 1;
            found = Some(error);
        }
    }
    if rank != 0 {
        let parent = comm.process_at_rank(rank & !step);
        parent.send_with_tag(bytemuck::bytes_of(&message), UP);
        // The parent waits for others, each for its patience; so does each rank above it.
        let turns = size.ilog2() + 1 + rank.count_ones();
        match wait(&parent, DOWN, patience.saturating_mul(turns)) {
            Some(verdict) => message.failed = verdict.failed,
            None if found.is_none() => {
                // Others whose parent it is miss it, too.
                if rank & !step == 0 && rank > 1 {
                    step_aside();
                }
                found = Some(Error::NotCalled {
                    call: call.text(),
                    ranks: Ranks(vec![world_rank(rank & !step)]),
                    waited: patience.saturating_mul(turns),
                });
            }
            None => {}
        }
    }
    for child in children.into_iter().rev() {
        let child = comm.process_at_rank(child);
        child.send_with_tag(bytemuck::bytes_of(&message), DOWN);
    }
    match (found, message.failed) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(()),
        (None, failed) => Err(Error::Elsewhere {
            rank: failed as i32 - 1,
        }),
    }
}

/// Returns the error of a rank with another call than the one that it is compared with.
fn unequal([rank, other]: [i32; 2], theirs: &Call, ours: &Call) -> Error {
    let (call, expected) = match theirs.text() == ours.text() {
        true => {
            let ours = ours.text();
            (format!("something else before {ours}"), "else".to_owned())
        }
        false => (theirs.text(), ours.text()),
    };
    Error::Unequal {
        rank,
        call,
        other,
        expected,
    }
}

/// Receives the message of a process if it comes in time. No request is left open if it does not.
fn wait(from: &Process<'_>, tag: i32, patience: Duration) -> Option<Message> {
    /// From here on, the wait leaves the processor to others.
    const SPIN: Duration = Duration::from_millis(2);
    let start = Instant::now();
    loop {
        if let Some((message, _)) = from.immediate_matched_probe_with_tag(tag) {
            let mut bytes = Message::zeroed();
            message.matched_receive_into(bytemuck::bytes_of_mut(&mut bytes));
            return Some(bytes);
        }
        let waited = start.elapsed();
        match waited {
            _ if waited > patience => return None,
            _ if waited > SPIN => std::thread::sleep(Duration::from_micros(50)),
            _ => std::thread::yield_now(),
        }
    }
}
