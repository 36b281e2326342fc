//! Errors of partitions and of their rounds.

use core::ops::Range;
use core::time::Duration;

use thiserror::Error as ThisError;

use super::edge::Edge;
use crate::handle::AnyHandle;
use crate::message::{Called, Rows};
use crate::names::NameError;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// Error of dividing arrays into tiles.
#[derive(ThisError)]
#[non_exhaustive]
pub enum PartitionError {
    /// The tile length is 0.
    #[error("a tile length of 0 is invalid: a tile covers at least one index")]
    EmptyTile,
    /// An array of the group does not have the axis.
    #[error(
        "{handle}{} has {axes} {}, so it cannot be divided along axis {axis}",
        Called(.name),
        if *.axes == 1 { "axis" } else { "axes" }
    )]
    NoSuchAxis {
        /// The array.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// Its number of axes.
        axes: usize,
        /// The requested axis.
        axis: usize,
    },
    /// The arrays of a group have different lengths along the axis.
    #[error(
        "{handle}{} has {found} indices along axis {axis}, the others of its group have {expected}",
        Called(.name)
    )]
    Lengths {
        /// The array that differs.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The axis.
        axis: usize,
        /// Its length.
        found: usize,
        /// The length of the arrays before it.
        expected: usize,
    },
    /// The grid is invalid for every array.
    #[error("invalid grid: {problem}")]
    Grid {
        /// The violated rule.
        problem: &'static str,
    },
    /// The bounds of a grid do not match the axis.
    #[error(
        "bounds from {first:?} to {last:?} along axis {axis}, which has {axis_len} indices: they \
         must start with 0 and end with {axis_len}"
    )]
    Bounds {
        /// The axis.
        axis: usize,
        /// Its length.
        axis_len: usize,
        /// The first bound, if there is one.
        first: Option<usize>,
        /// The last bound.
        last: Option<usize>,
    },
    /// The same array is in the group twice, and written.
    #[error(
        "{handle}{} is in the group twice and written: its tiles would overlap",
        Called(.name)
    )]
    Overlap {
        /// The array.
        handle: AnyHandle,
        /// A name that it has.
        name: Option<String>,
    },
    /// An array with a row for each tile has another number of rows.
    #[error(
        "{handle}{} has {rows} {} along axis 0, and the partition {tiles} {}: an array of per_tile() \
         has one for each tile", Called(.name),
        if *.rows == 1 { "index" } else { "indices" },
        if *.tiles == 1 { "tile" } else { "tiles" }
    )]
    Rows {
        /// The array.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The length of its first axis.
        rows: usize,
        /// The number of tiles.
        tiles: usize,
    },
    /// The group has more than 8 arrays.
    #[error("a group of {arrays} arrays is too large: at most {limit} can be divided together")]
    TooManyArrays {
        /// Arrays in the group.
        arrays: usize,
        /// The largest possible number.
        limit: usize,
    },
    /// The number of weights differs from the number of indices of the axis.
    #[error(
        "{weights} weight{} for {axis_len} {} along axis {axis}: give each index one weight",
        if *.weights == 1 { "" } else { "s" },
        if *.axis_len == 1 { "index" } else { "indices" }
    )]
    Weights {
        /// The axis.
        axis: usize,
        /// Its length.
        axis_len: usize,
        /// The number of weights.
        weights: usize,
    },
    /// The grid has more tiles than a partition can count.
    #[error(
        "{} tiles: at most {limit} are possible; use {remedy}",
        tiles.map_or_else(|| format!("more than {}", usize::MAX), |tiles| tiles.to_string())
    )]
    TooManyTiles {
        /// Number of tiles of the grid; `None` if it does not fit into a `usize`.
        tiles: Option<usize>,
        /// The largest possible number.
        limit: u64,
        /// A possible change of the grid, along each axis that needs one.
        remedy: String,
    },
    /// The partition was freed, or an array that it divides: no round can run.
    #[error("partition {handle} was freed, or an array that it divides: no tile is left to run")]
    Freed {
        /// The partition.
        handle: AnyHandle,
    },
    /// An array of the group could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The name is invalid, or nothing has it.
    #[error(transparent)]
    Name(NameError),
    /// The claim words could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

/// Error of finding a tile's place in an array, or the elements around it.
#[derive(ThisError)]
#[non_exhaustive]
pub enum BlockError {
    /// The tiles are cut along an axis that the block does not have.
    #[error(
        "the tiles are cut along axis {axis}, and a block of {axes} axes does not have it: at least \
         {} axes are needed", .axis + 1
    )]
    NoSuchAxis {
        /// The axis.
        axis: usize,
        /// Number of axes of the block.
        axes: usize,
    },
    /// The tiles cover all of an axis, whose length the partition does not know.
    #[error(
        "a block of {axes} axes has no range along axis {axis}, along which the tiles are not cut: \
         use around(&array, ..) of the partition or of the kernel's context: it knows the array's \
         length"
    )]
    NotCut {
        /// The axis.
        axis: usize,
        /// Number of axes of the block.
        axes: usize,
    },
    /// The tiles are cyclic along an axis, so their indices there are no range.
    #[error(
        "the tiles are cyclic along axis {axis}, so they are no blocks: use sides(), or cut the \
         axis by Grid::blocks, bounds or weights"
    )]
    Cyclic {
        /// The axis.
        axis: usize,
    },
    /// An array does not have the shape that is needed.
    #[error("the array has the shape {found:?}, and the shape {expected:?} is needed")]
    Shape {
        /// The shape of the array.
        found: Vec<usize>,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// The halo is longer than the array along an axis.
    #[error(
        "a halo of {width} along axis {axis} is too wide for an array of length {axis_len} with \
         Edge::{edge:?}: at most {} is possible", .edge.limit(*.axis_len)
    )]
    Halo {
        /// The axis.
        axis: usize,
        /// The length of the array along it.
        axis_len: usize,
        /// The requested width.
        width: usize,
        /// The rule beyond the edges.
        edge: Edge,
    },
}

/// Error of opening, entering or finishing a round.
#[derive(ThisError)]
#[non_exhaustive]
pub enum RoundError {
    /// A round of this partition is running.
    #[error("round {round} of this partition is running, opened by process {pid}")]
    Running {
        /// The round.
        round: u64,
        /// The process that opened it.
        pid: u32,
    },
    /// All rounds of the partition are used up.
    #[error("all {rounds} rounds of this partition are used up; create a new partition")]
    UsedUp {
        /// Rounds that a partition has.
        rounds: u64,
    },
    /// An array could not be leased for the round.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The round was opened by the process that this one was forked from.
    #[error(
        "this round belongs to the parent process, which must finish it; open a round in this \
         process"
    )]
    Forked,
    /// Tiles were torn: their holders died or panicked.
    #[error(
        "round {round}: {} tile{} left half-written, at {}; the arrays are poisoned until recover \
         or clear_poison of the partition, and read_rest reads the other tiles", .rows.len(),
        if .rows.len() == 1 { " was" } else { "s were" }, Rows(.rows)
    )]
    Torn {
        /// The round.
        round: u64,
        /// The torn tiles.
        tiles: Vec<usize>,
        /// The indices that each of them covers along the axis that the partition cuts first.
        rows: Vec<Range<usize>>,
    },
    /// A tile is half-written, so it cannot be read.
    #[error(
        "tile {tile} is half-written, at {}: read the other tiles, or call recover or clear_poison \
         of the partition", Rows(core::slice::from_ref(.rows))
    )]
    HalfWritten {
        /// The tile.
        tile: usize,
        /// The indices that it covers along the axis that the partition cuts first.
        rows: Range<usize>,
    },
    /// There is no such tile.
    #[error("tile {tile} does not exist: the partition has {tiles} tiles, numbered from 0")]
    NoSuchTile {
        /// The requested tile.
        tile: usize,
        /// The number of tiles.
        tiles: usize,
    },
    /// The participant has claimed a tile that it has neither finished nor torn.
    #[error("tile {tile} is out: call done or tear with its token before the next claim")]
    TileOut {
        /// The tile.
        tile: usize,
    },
    /// A token, a round or a participant was used that this table does not hold.
    #[error("{why}")]
    NotHeld {
        /// The reason, and the remedy.
        why: &'static str,
    },
    /// The opener of the round dropped it, or died.
    #[error(
        "round {round} was given up: its opener dropped it, died, or freed the partition; the next \
         round runs all tiles"
    )]
    GivenUp {
        /// The round.
        round: u64,
    },
    /// No round was opened in time.
    #[error("no round after round {after} was opened within {waited:?}; wait longer, or open one")]
    NotOpened {
        /// The round that the caller knows.
        after: u64,
        /// The time that the caller waited.
        waited: Duration,
    },
    /// Not all tiles were done in time.
    #[error(
        "round {round} was not over after {waited:?}: {done} of {tiles} tiles are done, {held} are \
         held"
    )]
    Deadline {
        /// The round.
        round: u64,
        /// The time that the caller waited.
        waited: Duration,
        /// Tiles that are done.
        done: usize,
        /// Tiles that a participant holds.
        held: usize,
        /// Number of all tiles.
        tiles: usize,
    },
}

impl From<JoinError> for RoundError {
    fn from(error: JoinError) -> Self {
        RoundError::Lease(error.into())
    }
}

impl From<JoinError> for PartitionError {
    fn from(error: JoinError) -> Self {
        PartitionError::Lease(error.into())
    }
}

impl From<NameError> for PartitionError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Lease(error) => PartitionError::Lease(error),
            NameError::Alloc(error) => PartitionError::Alloc(error),
            NameError::Join(error) => PartitionError::Lease(error.into()),
            other => PartitionError::Name(other),
        }
    }
}

crate::message::debug_is_display!(BlockError, PartitionError, RoundError);
