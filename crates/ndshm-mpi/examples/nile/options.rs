//! The command line.

use std::path::PathBuf;

use crate::progress::Progress;

/// The text of `--help`.
const HELP: &str = "\
A bootstrap particle filter of the Nile's annual flow, by MPI on many machines.

usage: mpirun -n RANKS nile [OPTIONS]

  --particles N   number of particles; default 1048576
  --nodes K       divide the ranks of this machine into K simulated nodes
  --seed N        seed of all random numbers; default 1
  --obs-var V     variance of the observations; 0.01 puts nearly all weight on a few particles
  --output FILE   write the flows and the filtered levels as a .npy of two lines, which `ndshm plot` draws
";

pub struct Options {
    pub particles: usize,
    pub nodes: Option<i32>,
    pub seed: u64,
    pub obs_var: Option<f64>,
    pub output: Option<PathBuf>,
    pub progress: Progress,
}

impl Options {
    pub fn parse() -> Result<Options, String> {
        let mut options = Options {
            particles: 1 << 20,
            nodes: None,
            seed: 1,
            obs_var: None,
            output: None,
            progress: Progress::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            if name == "--help" {
                print!("{HELP}");
                std::process::exit(0);
            }
            let text = arguments.next().ok_or(format!("{name} needs a value"))?;
            if name == "--output" {
                options.output = Some(text.into());
                continue;
            }
            let text = text.replace('_', "");
            let wrong = || format!("{name} {text}: not a number that is possible here; see --help");
            match name.as_str() {
                "--particles" => {
                    let particles = text.parse().map_err(|_| wrong())?;
                    options.particles = Some(particles).filter(|&n| n > 0).ok_or_else(wrong)?;
                }
                "--nodes" => {
                    let nodes = text.parse().map_err(|_| wrong())?;
                    options.nodes = Some(Some(nodes).filter(|&n| n > 0).ok_or_else(wrong)?);
                }
                "--seed" => options.seed = text.parse().map_err(|_| wrong())?,
                "--obs-var" => {
                    let variance = text.parse().map_err(|_| wrong())?;
                    let possible = Some(variance).filter(|&v: &f64| v > 0.0 && v.is_finite());
                    options.obs_var = Some(possible.ok_or_else(wrong)?);
                }
                _ => return Err(format!("there is no option {name}; see --help")),
            }
        }
        Ok(options)
    }
}
