//! The outcome of work that each leader does alone: one of them has the error.

use mpi::collective::SystemOperation;
use mpi::traits::*;

use crate::error::{Error, Result};
use crate::leaders::Leaders;

impl Leaders {
    /// Returns the error of the first leader that has one there, and [`Error::Elsewhere`] on all
    /// others. All leaders call this, and wait for each other.
    pub(crate) fn settle<R>(&self, outcome: Result<R>) -> Result<R> {
        let (me, none) = (self.comm.rank(), self.comm.size());
        let mut first = none;
        let mine = if outcome.is_err() { me } else { none };
        (self.comm).all_reduce_into(&mine, &mut first, SystemOperation::min());
        match first {
            _ if first == none || first == me => outcome,
            _ => Err(Error::Elsewhere {
                rank: self.world_ranks[first as usize],
            }),
        }
    }
}
