//! Arrays over many machines: one [`ndshm`] segment per node, joined by its MPI ranks, and MPI
//! between the nodes.
#![warn(missing_docs)]

pub mod blocks;
mod call;
mod error;
mod exchange;
mod gather;
mod init;
mod layout;
mod leaders;
mod node;
mod reduce;
mod resample;
mod rows;
mod segment;
mod tiles;
mod together;
mod traffic;

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
