//! The command line.

use ndshm::primitives::SystematicPlan;

/// The text of `--help`.
const HELP: &str = "\
Counts the messages of one systematic resampling on many nodes, and prices them.

usage: cost [OPTIONS]

  --nodes K       up to so many nodes; default 1000
  --rows N        rows of a node; default 100000
  --row-bytes B   bytes of a row; default 8
  --tile N        rows of a tile; default 4032, as Node::rows makes them
  --spread S      standard deviation of the logarithms of the weights; default 1
  --seed N        seed of the weights; default 1
  --work US       microseconds of a node's own work in a step; default 560
  --latency US    microseconds of a message; default 2
  --bandwidth GB  gigabytes a second, of a node; default 10
  --output FILE   write the efficiencies as a .npy of two lines, which `ndshm plot` draws

The plan and the exchange are those of the library, computed for all nodes in this process. Messages
of rows are counted one by one: for the busiest node, the messages, partners and bytes that it sends
or receives are printed. Its price is a latency for each, and the bytes by the bandwidth. Gathering
and comparing calls are trees: a latency for each level, and the bytes that a node receives. The
efficiency is work / (work + price).

Beside it is the resampling of ParticleDA and LibBi: all weights to rank 0 and all indices to all
nodes, by trees of the same prices; rows move as here.

No more is claimed than is counted. Not counted: waiting for a slow node, crowded networks, messages
within a node, memory copies, the plan, which each rank here makes of one sum per tile of all nodes,
and the work of rank 0 on all weights.
";

pub struct Options {
    pub nodes: usize,
    pub rows: usize,
    pub row_bytes: usize,
    pub tile: usize,
    pub spread: f64,
    pub seed: u64,
    pub work: f64,
    pub latency: f64,
    pub bandwidth: f64,
    pub output: Option<String>,
}

impl Options {
    pub fn parse() -> Result<Options, String> {
        let mut options = Options {
            nodes: 1000,
            rows: 100_000,
            row_bytes: 8,
            tile: SystematicPlan::TILE,
            spread: 1.0,
            seed: 1,
            work: 560.0,
            latency: 2.0,
            bandwidth: 10.0,
            output: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            if name == "--help" {
                print!("{HELP}");
                std::process::exit(0);
            }
            let text = arguments.next().ok_or(format!("{name} needs a value"))?;
            let wrong = || format!("{name} {text}: not a number that is possible here; see --help");
            let whole = || {
                let number = text.replace('_', "").parse().ok();
                number.filter(|&n: &usize| n > 0).ok_or_else(wrong)
            };
            let real = || {
                let number = text.parse().ok();
                number
                    .filter(|&x: &f64| x.is_finite() && x > 0.0)
                    .ok_or_else(wrong)
            };
            match name.as_str() {
                "--nodes" => options.nodes = whole()?,
                "--rows" => options.rows = whole()?,
                "--row-bytes" => options.row_bytes = whole()?,
                "--tile" => options.tile = whole()?,
                "--seed" => options.seed = text.parse().map_err(|_| wrong())?,
                "--spread" => options.spread = real()?,
                "--work" => options.work = real()?,
                "--latency" => options.latency = real()?,
                "--bandwidth" => options.bandwidth = real()?,
                "--output" => options.output = Some(text),
                _ => return Err(format!("there is no option {name}; see --help")),
            }
        }
        Ok(options)
    }

    /// Returns the microseconds of messages that follow each other.
    pub fn price(&self, messages: usize, bytes: usize) -> f64 {
        messages as f64 * self.latency + bytes as f64 / (self.bandwidth * 1e3)
    }
}
