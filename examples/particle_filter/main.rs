//! A bootstrap particle filter: forked workers move its particles in shared memory.
//!
//! `cargo run --release --example particle_filter`; `-- --help` shows the options.

mod baselines;
mod data;
mod filter;
mod kalman;
#[path = "../common/machine.rs"]
mod machine;
mod model;
mod options;
mod plot;
mod replicates;
mod report;
mod shared;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use ndshm::{HandleTable, Pool, Segment};

use baselines::{Copies, OneProcess, Threads};
use data::Series;
use filter::{Engine, Outcome, Task};
use machine::Machine;
use options::Options;
use report::{Report, Times};
use shared::Shared;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("particle_filter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.copy_worker {
        return baselines::serve_copies();
    }
    let series = match &options.data {
        Some(path) => Series::read(path)?,
        None => Series::nile(),
    };
    let plot = match &options.plot {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe()?.with_extension("svg"),
    };
    let plot_error = |error: std::io::Error| {
        let path = plot.display();
        format!("cannot write the plot to {path}: {error}; give another place with --plot FILE")
    };
    // Create the file first: a wrong path should fail now, not at the end.
    let mut plot_file = File::create(&plot).map_err(plot_error)?;
    let task = Task {
        model: options.model(),
        observations: &series.values,
        particles: options.particles,
        seed: options.seed,
    };
    let workers = options.workers();

    let machine = Machine::now();
    // Run the forked workers first: rayon starts threads, and a process with threads cannot fork.
    let (outcome, fork_time, monte_carlo_error) = fork(&task, workers)?;
    let mut times = Times {
        fork: fork_time,
        ..Times::default()
    };
    if !options.no_compare {
        let particles = task.particles;
        let mut one_process = OneProcess::new(particles);
        times.one_process = Some(compare("one process", &mut one_process, &task, &outcome)?);
        drop(one_process);
        let mut threads = Threads::new(particles, workers)?;
        times.rayon = Some(compare("rayon threads", &mut threads, &task, &outcome)?);
        drop(threads);
        let mut copies = Copies::new(particles, workers)?;
        times.copies = Some(compare("sent copies", &mut copies, &task, &outcome)?);
    }

    // The workers have ended, so their time counts as this program's.
    let disturbance = machine.disturbance();

    let exact = kalman::filter(&task.model, task.observations);
    let svg = plot::svg(&series, &outcome, &exact);
    plot_file.write_all(svg.as_bytes()).map_err(plot_error)?;
    let report = Report {
        series: &series,
        particles: task.particles,
        workers,
        seed: task.seed,
        outcome,
        exact,
        monte_carlo_error,
        times,
        disturbance,
        plot,
    };
    let text = match options.json {
        true => format!("{:#}\n", report.json()),
        false => report.text(),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Runs the filter on forked workers. Returns its results, the time of a step, and the Monte Carlo
/// error.
fn fork(task: &Task, workers: usize) -> Result<(Outcome, f64, f64)> {
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = Pool::fork(&table, workers)?;
    let mut shared = Shared::new(&table, &mut pool, task.particles)?;
    let (outcome, time) = with_progress("forked workers", &mut shared, task)?;
    shared.free()?;
    show_progress("Monte Carlo error", "");
    let error = replicates::monte_carlo_error(&table, &mut pool, task)?;
    end_progress();
    Ok((outcome, time, error))
}

/// Runs another variant, which must end with the same bits as the first.
fn compare(name: &str, engine: &mut dyn Engine, task: &Task, expected: &Outcome) -> Result<f64> {
    let (outcome, time) = with_progress(name, engine, task)?;
    if outcome != *expected {
        return Err(format!(
            "{name}: digest {:016x} and log-likelihood {} instead of {:016x} and {}: the variants \
             must agree to the last bit; please report this with the command line",
            outcome.digest, outcome.log_likelihood, expected.digest, expected.log_likelihood,
        )
        .into());
    }
    Ok(time)
}

fn with_progress(name: &str, engine: &mut dyn Engine, task: &Task) -> Result<(Outcome, f64)> {
    let steps = task.observations.len();
    let result = filter::run(engine, task, &mut |done| {
        show_progress(name, &format!(": step {done} of {steps}"));
    });
    end_progress();
    result
}

/// Shows the progress in one line, which is overwritten. Without a terminal it shows nothing.
fn show_progress(name: &str, what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{name}{what}");
    }
}

fn end_progress() {
    show_progress("", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(series: &Series, particles: usize, seed: u64) -> Task<'_> {
        Task {
            model: model::NILE,
            observations: &series.values,
            particles,
            seed,
        }
    }

    #[test]
    fn threads_end_with_the_bits_of_one_process() {
        let series = Series::nile();
        let task = task(&series, 3 * model::TILE + 1, 9);
        let run = |engine: &mut dyn Engine| filter::run(engine, &task, &mut |_| ()).unwrap().0;
        let expected = run(&mut OneProcess::new(task.particles));
        for threads in [1, 2, 8] {
            let mut engine = Threads::new(task.particles, threads).unwrap();
            assert_eq!(run(&mut engine), expected, "{threads} threads");
        }
    }

    #[test]
    fn estimates_are_near_the_exact_ones() {
        let series = Series::nile();
        let exact = kalman::filter(&model::NILE, &series.values);
        let task = task(&series, 20_000, 2);
        let mut engine = OneProcess::new(task.particles);
        let (outcome, _) = filter::run(&mut engine, &task, &mut |_| ()).unwrap();
        // At 10,000 particles 200 seeds differ by 0.10.
        let error = 0.10 / 2f64.sqrt();
        assert!((outcome.log_likelihood - exact.log_likelihood).abs() < 4.0 * error);
        for ((mean, band), (exact, variance)) in outcome
            .means
            .iter()
            .zip(&outcome.bands)
            .zip(exact.means.iter().zip(&exact.variances))
        {
            let deviation = variance.sqrt();
            assert!((mean - exact).abs() < 0.1 * deviation);
            // Quantiles of the normal distribution.
            let expected = [exact - 1.6449 * deviation, exact + 1.6449 * deviation];
            for (found, expected) in band.iter().zip(expected) {
                assert!((found - expected).abs() < 0.15 * deviation);
            }
        }
    }

    #[test]
    fn a_different_seed_gives_different_particles() {
        let series = Series::nile();
        let digest = |seed| {
            let task = task(&series, 500, seed);
            let mut engine = OneProcess::new(task.particles);
            filter::run(&mut engine, &task, &mut |_| ())
                .unwrap()
                .0
                .digest
        };
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }
}
