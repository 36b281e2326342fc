//! The command line.

use crate::model::Model;

use crate::progress::Progress;

/// The text of `--help`.
const HELP: &str = "\
A particle filter of the water in a channel, with wide states, by MPI on many machines.

usage: mpirun -n RANKS wide [OPTIONS]

  --members N      members of the ensemble; default 512
  --cells N        cells of the channel; default 500. A row has twice as many numbers
  --stations N     cells that are observed; default 20
  --steps N        observations in time; default 40
  --substeps N     steps of the scheme between two of them; default a fiftieth of the cells, at most 100
  --tile N         members of a tile; default 8
  --nodes K        divide the ranks of this machine into K simulated nodes
  --seed N         seed of all random numbers; default 1
  --checkpoint DIR save all members there, and begin with what is there
  --every N        steps from one checkpoint to the next; default 10
  --output FILE    write the heights of the truth and of the mean as a .npy of two lines
";

pub struct Options {
    pub members: usize,
    pub model: Model,
    pub steps: u64,
    pub tile: usize,
    pub nodes: Option<i32>,
    pub seed: u64,
    pub checkpoint: Option<String>,
    pub every: u64,
    pub output: Option<String>,
    pub progress: Progress,
}

impl Options {
    pub fn parse() -> Result<Options, String> {
        let mut options = Options {
            members: 512,
            model: Model {
                cells: 500,
                substeps: 0,
                stations: 20,
            },
            steps: 40,
            tile: 8,
            nodes: None,
            seed: 1,
            checkpoint: None,
            every: 10,
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
            let number = || {
                let number = text.replace('_', "").parse().ok();
                number.filter(|&n: &u32| n > 0).ok_or_else(|| {
                    format!("{name} {text}: not a number that is possible here; see --help")
                })
            };
            match name.as_str() {
                "--members" => options.members = number()? as usize,
                "--cells" => options.model.cells = number()? as usize,
                "--stations" => options.model.stations = number()? as usize,
                "--steps" => options.steps = number()?.into(),
                "--substeps" => options.model.substeps = number()? as usize,
                "--tile" => options.tile = number()? as usize,
                "--nodes" => {
                    let nodes = i32::try_from(number()?);
                    options.nodes = Some(nodes.map_err(|_| format!("{name} {text}: too many"))?);
                }
                "--seed" => options.seed = number()?.into(),
                "--checkpoint" => options.checkpoint = Some(text),
                "--every" => options.every = number()?.into(),
                "--output" => options.output = Some(text),
                _ => return Err(format!("there is no option {name}; see --help")),
            }
        }
        let Model {
            cells, stations, ..
        } = options.model;
        if cells < stations.max(2) {
            return Err(format!(
                "{stations} stations in {cells} cells: a channel has at least 2 cells, and one for \
                 each station; set --cells or --stations"
            ));
        }
        if options.model.substeps == 0 {
            options.model.substeps = (cells / 50).clamp(1, 100);
        }
        Ok(options)
    }
}
