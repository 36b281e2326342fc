//! The nodes of an example: those of the machines, or as many simulated ones as `--nodes` says.

use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use ndshm_mpi::Node;

/// Joins this rank's node.
///
/// # Errors
/// More nodes than ranks. The first rank reports it, and ends the job.
pub fn join(
    world: &SimpleCommunicator,
    nodes: Option<i32>,
) -> Result<Node, Box<dyn std::error::Error>> {
    let ranks = world.size();
    match nodes {
        Some(nodes) if nodes > ranks => {
            // The others wait here until the job ends.
            if world.rank() > 0 {
                world.barrier();
            }
            Err(format!(
                "--nodes {nodes} on {ranks} ranks: each node has a rank; start as many, by mpirun -n {nodes}"
            )
            .into())
        }
        Some(nodes) => Ok(Node::from_comm_by(world, world.rank() * nodes / ranks)?),
        None => Ok(Node::from_comm(world)?),
    }
}
