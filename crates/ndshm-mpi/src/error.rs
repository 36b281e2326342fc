//! The errors of this crate, each on one rank and with its remedy.

use std::fmt;
use std::time::Duration;

use thiserror::Error as ThisError;

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a call.
///
/// If a collective call fails, one rank returns the cause. All others return
/// [`Elsewhere`](Error::Elsewhere), so that a job of a thousand ranks prints one text.
#[derive(ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A call of ndshm failed.
    #[error(transparent)]
    Ndshm(#[from] ndshm::Error),
    /// MPI has been initialised before.
    #[error(
        "MPI is initialised already: call ndshm_mpi::init() instead of mpi::initialize(), and once"
    )]
    Initialized,
    /// [`init`](crate::init) was called in another thread than that of `main`.
    #[error("this is not the thread of main: call ndshm_mpi::init() in it, and use MPI there")]
    NotMainThread,
    /// A node was asked for in a process that is no rank of a [`Job`](crate::Job).
    #[error(
        "this process is no rank of a job: call ndshm_mpi::init() first, instead of mpi::initialize(), \
         which lets the job hang if a rank fails"
    )]
    NoJob,
    /// MPI could not be initialised with the threads that ndshm-mpi needs.
    #[error(
        "this MPI has no threads: it grants {granted}, and ndshm-mpi needs MPI_THREAD_FUNNELED; use \
         a build of MPI with threads"
    )]
    NoThreads {
        /// The level that was granted.
        granted: String,
    },
    /// The launcher is not that of the MPI of this program, or not set up for it.
    #[error(
        "this program is a job of 1 rank, and its launcher started it {started} times ({variable}): \
         start it by the launcher of {library}, with which it was built; for {started} separate jobs, \
         start env -u {variable} PROGRAM"
    )]
    OtherLauncher {
        /// Ranks that the launcher has started.
        started: i32,
        /// The variable that says so.
        variable: &'static str,
        /// The MPI of this program.
        library: String,
    },
    /// A rank could not join the segment of its node.
    #[error(
        "rank {rank} on {host} cannot join the segment of rank {leader}: {problem}; run all ranks of a \
         node in one container, or in containers with one network, or give each rank a node of its \
         own: Node::from_comm_by(&world, world.rank())"
    )]
    NotJoined {
        /// The rank.
        rank: i32,
        /// Its machine.
        host: String,
        /// The rank that has the segment.
        leader: i32,
        /// The text of its error.
        problem: String,
    },
    /// An array has fewer tiles than there are nodes.
    #[error(
        "{rows} rows in tiles of {tile} are {tiles} tiles, and each of the {nodes} nodes needs one: \
         run on at most {tiles} nodes, or take smaller tiles with Node::rows_in_tiles"
    )]
    TooFewTiles {
        /// Rows of the array.
        rows: usize,
        /// Rows of a tile.
        tile: usize,
        /// Tiles of the array.
        tiles: usize,
        /// Nodes of the job.
        nodes: usize,
    },
    /// Ranks called different things, or one thing with different arguments.
    #[error(
        "rank {rank} called {call}, and rank {other} called {expected}: all ranks make the same calls \
         with the same arguments"
    )]
    Unequal {
        /// The rank that differs.
        rank: i32,
        /// Its call.
        call: String,
        /// The rank that it is compared with.
        other: i32,
        /// The call of that rank.
        expected: String,
    },
    /// Ranks did not call within the [patience](crate::Node::set_patience).
    #[error(
        "{call}: no call from {ranks} within {waited:?}: all ranks make the same calls; if a step \
         may take longer, set a longer time with Node::set_patience, or before it with Job::set_patience"
    )]
    NotCalled {
        /// The call that waited.
        call: String,
        /// The ranks that are missing.
        ranks: Ranks,
        /// The time of the wait.
        waited: Duration,
    },
    /// A call came within another one, or after one that left the ranks at different calls:
    /// after [`NotCalled`](Error::NotCalled), [`Unequal`](Error::Unequal) or a caught panic.
    #[error(
        "{call}: the ranks are out of step, for another call has not ended, or has failed: make no \
         collective calls in a kernel, and end the job after an error or panic that leaves ranks behind"
    )]
    OutOfStep {
        /// The call that was refused.
        call: String,
    },
    /// Another rank has the cause.
    #[error("rank {rank} reports the error of this call")]
    Elsewhere {
        /// The rank that returns the cause.
        rank: i32,
    },
    /// An argument is not possible.
    #[error("{call}: {problem}")]
    Argument {
        /// The call.
        call: String,
        /// The problem, with the remedy.
        problem: String,
    },
    /// A checkpoint could not be written or read.
    #[error("checkpoint {path}: {problem}")]
    Checkpoint {
        /// The file or directory.
        path: String,
        /// The problem, with the remedy.
        problem: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text of an error that `main` returns.
        fmt::Display::fmt(self, f)
    }
}

macro_rules! from_parts_of_ndshm {
    ($($part:ident)*) => {$(
        impl From<ndshm::error::$part> for Error {
            fn from(error: ndshm::error::$part) -> Error {
                Error::Ndshm(error.into())
            }
        }
    )*};
}

from_parts_of_ndshm! {
    AllocError JoinError LeaseError NpyError PartitionError PrimitiveError QueueError RoundError
    SegmentError
}

/// Ranks in the communicator of a node, of which an error names the first few.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranks(pub Vec<i32>);

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        f.write_str(if self.0.len() == 1 { "rank" } else { "ranks" })?;
        for (at, rank) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{} {rank}", if at == 0 { "" } else { "," })?;
        }
        match self.0.len() {
            0..=SHOWN => Ok(()),
            more => write!(f, " and {} more", more - SHOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_ranks_are_named() {
        assert_eq!(Ranks(vec![3]).to_string(), "rank 3");
        assert_eq!(Ranks(vec![3, 4]).to_string(), "ranks 3, 4");
        let many = Ranks((0..1000).collect()).to_string();
        assert_eq!(many, "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 992 more");
    }
}
