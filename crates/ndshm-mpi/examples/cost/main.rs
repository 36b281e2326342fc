//! The cost of a resampling on 10 to 1000 nodes: messages counted by the library's own plan, and
//! priced by a latency and a bandwidth. Needs no launcher.
//!
//! ```sh
//! cargo run --release --example cost -- --output cost.npy
//! ndshm plot cost.npy --line -o cost.svg
//! ```

mod count;
mod options;

use std::ops::Range;

use ndarray::Array2;
use ndshm::pool::TileRng;
use ndshm::primitives::SystematicPlan;
use ndshm::{HandleTable, Segment};
use ndshm_mpi::Layout;
use rand_distr::{Distribution, StandardNormal};

use count::{Counted, Message};
use options::Options;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const TILE: usize = SystematicPlan::TILE;

/// Numbers of nodes in the table, and in the array that is drawn.
const SHOWN: usize = 10;
const DRAWN: usize = 100;

fn main() -> Result<()> {
    let options = Options::parse()?;
    if options
        .nodes
        .checked_mul(options.rows)
        .is_none_or(|rows| rows >= 1 << 48)
    {
        return Err(format!(
            "{} nodes of {} rows: the plan of so many rows does not fit the memory; pass less of either",
            options.nodes, options.rows
        )
        .into());
    }
    println!(
        "{} rows of {} bytes a node, {} us of work a step, {} us a message, {} GB/s",
        options.rows, options.row_bytes, options.work, options.latency, options.bandwidth
    );
    println!(
        "{:>6} {:>9} {:>9} {:>11} {:>11} {:>10} {:>6} | {:>13} {:>12} {:>6}",
        "nodes",
        "messages",
        "partners",
        "row bytes",
        "sum bytes",
        "us",
        "eff.",
        "bytes at 0",
        "us",
        "eff."
    );
    let weights = Weights::new(&options);
    let mut drawn = Array2::<f64>::zeros((2, DRAWN));
    for at in 0..DRAWN {
        let nodes = (options.nodes * (at + 1) / DRAWN).max(1);
        let (counted, rows) = weights.count(&options, nodes)?;
        let ours = Ours::new(&options, nodes, &counted);
        let central = Centralised::new(&options, nodes, rows, ours.rows);
        let efficiency = [ours.time, central.time].map(|time| options.work / (options.work + time));
        drawn[(0, at)] = efficiency[0];
        drawn[(1, at)] = efficiency[1];
        if (at + 1).is_multiple_of(DRAWN / SHOWN) || at == 0 {
            println!(
                "{nodes:>6} {:>9} {:>9} {:>11} {:>11} {:>10.1} {:>6.3} | {:>13} {:>12.1} {:>6.3}",
                ours.busiest.messages,
                ours.busiest.partners,
                ours.busiest.bytes,
                counted.gathered,
                ours.time,
                efficiency[0],
                central.bytes,
                central.time,
                efficiency[1]
            );
        }
    }
    if let Some(path) = &options.output {
        let table = HandleTable::join(&Segment::anonymous()?)?;
        table.save_npy(table.from_array(&drawn)?, path)?;
        println!("efficiency, ours and centralised, at each hundredth of the nodes: {path}");
    }
    Ok(())
}

/// Weights of the rows of all nodes, made anew whenever they are needed: exponentials of normal
/// numbers.
struct Weights {
    seed: u64,
    spread: f64,
    /// Sums of all tiles, each full.
    sums: Vec<f64>,
}

impl Weights {
    fn new(options: &Options) -> Weights {
        let mut weights = Weights {
            seed: options.seed,
            spread: options.spread,
            sums: Vec::new(),
        };
        let tiles = (options.nodes * options.rows).div_ceil(TILE);
        let sum = |tile| SystematicPlan::sums(&weights.of_tile(tile, TILE))[0];
        weights.sums = (0..tiles).map(sum).collect();
        weights
    }

    fn of_tile(&self, tile: usize, len: usize) -> Vec<f64> {
        let rng = TileRng::at(self.seed, 0, tile);
        let normal = StandardNormal.sample_iter(rng);
        let weight = |normal: f64| (self.spread * normal).exp();
        normal.take(len).map(weight).collect()
    }

    /// Counts the messages of a resampling on `nodes` nodes. Returns the number of rows, too.
    fn count(&self, options: &Options, nodes: usize) -> Result<(Counted, usize)> {
        let rows = nodes * options.rows;
        let len = |tile: usize| TILE.min(rows - tile * TILE);
        let of_tiles = |tiles: Range<usize>| -> Vec<f64> {
            tiles
                .flat_map(|tile| self.of_tile(tile, len(tile)))
                .collect()
        };
        let layout = Layout::new(rows, options.tile, nodes)?;
        let mut sums = self.sums[..rows.div_ceil(TILE)].to_vec();
        let last = sums.len() - 1;
        sums[last] = SystematicPlan::sums(&of_tiles(last..last + 1))[0];
        let plan = SystematicPlan::new(&sums, 0.5, rows).map_err(ndshm::Error::from)?;
        let counted = count::resampling(&plan, &layout, options.row_bytes, &of_tiles)?;
        Ok((counted, rows))
    }
}

/// The messages of one node in an exchange.
#[derive(Clone, Copy, Default)]
struct Busy {
    messages: usize,
    bytes: usize,
    partners: usize,
}

fn by_node(nodes: usize, messages: &[Message]) -> Vec<Busy> {
    let mut busy = vec![Busy::default(); nodes];
    let mut pairs = Vec::new();
    for message in messages {
        for (node, other) in [(message.from, message.to), (message.to, message.from)] {
            busy[node].messages += 1;
            busy[node].bytes += message.bytes;
            pairs.push((node, other));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    for (node, _) in pairs {
        busy[node].partners += 1;
    }
    busy
}

/// The price of ndshm-mpi's resampling.
struct Ours {
    /// The greatest numbers of any node in the exchange.
    busiest: Busy,
    /// Time of the exchange alone.
    rows: f64,
    time: f64,
}

impl Ours {
    fn new(options: &Options, nodes: usize, counted: &Counted) -> Ours {
        let busy = by_node(nodes, &counted.exchange);
        let price = |busy: &Busy| options.price(busy.messages, busy.bytes);
        let rows = busy.iter().map(price).fold(0.0, f64::max);
        let greatest = |of: fn(&Busy) -> usize| busy.iter().map(of).max().unwrap_or(0);
        let busiest = Busy {
            messages: greatest(|busy| busy.messages),
            bytes: greatest(|busy| busy.bytes),
            partners: greatest(|busy| busy.partners),
        };
        // A comparison takes as long as its tree is deep, up and down.
        let bytes = counted.agreement.first().map_or(0, |message| message.bytes);
        let depth = 2 * depth(nodes);
        let agreements = counted.agreements as f64 * options.price(depth, depth * bytes);
        let gather = options.price(self::depth(nodes), missing(counted.gathered, nodes));
        Ours {
            busiest,
            rows,
            time: agreements + gather + rows,
        }
    }
}

/// The price of a resampling with one rank in the centre: all weights go to rank 0, all indices
/// come back, and the rows move as they do here.
struct Centralised {
    /// Bytes that rank 0 receives and sends.
    bytes: usize,
    time: f64,
}

impl Centralised {
    fn new(options: &Options, nodes: usize, rows: usize, exchange: f64) -> Centralised {
        let weights = missing(rows * size_of::<f64>(), nodes);
        let indices = match nodes {
            1 => 0,
            _ => rows * size_of::<u64>(),
        };
        let tree = |bytes| options.price(depth(nodes), bytes);
        Centralised {
            bytes: weights + indices,
            time: tree(weights) + tree(indices) + exchange,
        }
    }
}

/// Returns the number of turns of a tree of messages.
fn depth(nodes: usize) -> usize {
    nodes.next_power_of_two().ilog2() as usize
}

/// Returns the bytes that a node lacks, of those of all nodes.
fn missing(bytes: usize, nodes: usize) -> usize {
    bytes - bytes / nodes
}
