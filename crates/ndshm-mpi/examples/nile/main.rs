//! A bootstrap particle filter on many machines: the Nile's annual flow, 1871 to 1970.
//!
//! ```sh
//! mpirun -n 64 nile --particles 1_000_000_000
//! mpirun -n 4 nile --nodes 2 --output nile.npy       # this machine, as if it were two
//! ndshm plot nile.npy --line -o nile.svg
//! ```
//!
//! The model is the one of `examples/particle_filter` in the repository of ndshm, and so are all bits
//! of the result: the digest is that of the example on one machine.

#[path = "../../../../examples/particle_filter/data.rs"]
#[allow(dead_code, reason = "this example reads no file")]
mod data;
mod filter;
#[path = "../../../../examples/particle_filter/model.rs"]
#[allow(dead_code, reason = "this example has tiles of its own")]
mod model;
#[path = "../shared/nodes.rs"]
mod nodes;
mod options;
#[path = "../shared/progress.rs"]
mod progress;

use std::time::Instant;

use mpi::traits::*;
use ndarray::{Array2, aview1};
use ndshm::{HandleTable, Segment};
use ndshm_mpi::Node;

use filter::Filter;
use options::Options;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let options = Options::parse()?;
    let job = ndshm_mpi::init()?;
    let world = job.world();
    let node = nodes::join(&world, options.nodes)?;
    if node.is_first() {
        println!(
            "{} particles on {} ranks of {} nodes",
            options.particles,
            world.size(),
            node.nodes()
        );
    }
    run(&node, &options)
}

/// Filters all years, and prints the result on the first rank.
fn run(node: &Node, options: &Options) -> Result<()> {
    let model = model::Model {
        obs_var: options.obs_var.unwrap_or(model::NILE.obs_var),
        ..model::NILE
    };
    let mut filter = Filter::new(node, model, options.particles, options.seed)?;
    let flows = data::Series::nile().values;
    let mut drawn = Array2::zeros((2, flows.len()));
    drawn.row_mut(0).assign(&aview1(&flows));
    // As the example on one machine: two steps before the clock starts.
    for &flow in &flows[..2] {
        filter.step(0, flow)?;
    }
    let (mut log_likelihood, mut mean, mut sent) = (0.0, 0.0, 0);
    let start = Instant::now();
    for (index, &flow) in flows.iter().enumerate() {
        let outcome = filter.step(index, flow)?;
        log_likelihood += outcome.estimate.log_likelihood;
        mean = outcome.estimate.mean;
        drawn[(1, index)] = mean;
        sent += outcome.sent;
        if node.is_first() {
            options.progress.show(index as u64 + 1, flows.len() as u64);
        }
    }
    let step = start.elapsed() / flows.len() as u32;
    let digest = filter.digest()?;
    if let Some(digest) = digest {
        println!("log-likelihood {log_likelihood:.4}");
        println!("last mean {mean:.3}");
        println!("rows sent by the first node: {} a step", sent / flows.len());
        println!("time of a step: {step:.1?}");
        println!("digest {digest:016x}");
        if let Some(path) = &options.output {
            let table = HandleTable::join(&Segment::anonymous()?)?;
            table.save_npy(table.from_array(&drawn)?, path)?;
            println!("flows and filtered levels: {}", path.display());
        }
    }
    Ok(())
}
