//! Arrays over many machines: one [`ndshm`] segment per node, joined by its MPI ranks, and MPI
//! between the nodes.
//!
//! ```
//! # ndshm_mpi::doctest(|job| {
//! use ndshm_mpi::Node;
//!
//! // let job = ndshm_mpi::init()?;
//! let node = Node::from_comm(&job.world())?;
//! let (x, next) = (node.rows::<f64, _>((20_000, 3))?, node.rows::<f64, _>((20_000, 3))?);
//! let w = node.rows::<f64, _>(20_000)?;
//! let tiles = node.partition(&x, (x.write(), w.write()))?;
//! node.for_each(&tiles, |(mut x, mut w), tile| {
//!     x.fill(tile.index() as f64);
//!     w.fill(1.0);
//! })?;
//! node.resample_systematic(&w, 0.5, &x, &next)?;
//! assert_eq!(node.sum(&next)?, node.sum(&x)?);
//! # Ok(()) });
//! ```
//!
//! # Terms
//! - **node**: the ranks that share a segment: [`Node`]. The first of them is its *leader*, which
//!   exchanges messages with other leaders.
//! - **global array**: an array of which each node holds the rows of its tiles: [`Rows`], [`Layout`].
//! - **collective call**: one that all ranks make with the same arguments.
//! - **traffic**: which rows go from which node to which: [`Traffic`], [`Node::exchange`].
//!
//! # Planning apart from MPI
//! [`Layout`], [`Traffic`] and the module [`blocks`] are arithmetic: they compute for any node of any
//! number of nodes, in any process.
#![warn(missing_docs)]

pub mod blocks;
mod call;
mod checkpoint;
mod error;
mod exchange;
mod gather;
mod init;
mod launcher;
mod layout;
mod leaders;
mod node;
mod reduce;
mod resample;
mod rows;
mod segment;
mod settle;
mod tiles;
mod together;
mod traffic;

pub use checkpoint::Saved;
pub use error::{Error, Ranks, Result};
pub use init::{Job, init};
pub use layout::Layout;
pub use node::Node;
pub use rows::Rows;
pub use tiles::{TileContext, Tiles};
pub use traffic::{Crossing, Traffic};

/// Runs an example of the documentation, as a job of one rank.
#[doc(hidden)]
pub fn doctest(example: fn(&Job) -> Result<()>) {
    if let Err(error) = init().and_then(|job| example(&job)) {
        panic!("{error}");
    }
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
