//! Common parts of the examples: the options of a pool, a progress bar, and a digest of results.

mod digest;
mod progress;

use clap::{Args, ValueEnum};
use ndshm::error::PoolError;
use ndshm::{HandleTable, Pool};

pub use digest::Digest;
pub use progress::Bar;

/// Result of an example.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Kinds of workers of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Processes, copies of this one.
    Fork,
    /// Processes that start this program anew.
    Spawn,
    /// Threads of this process.
    Threads,
    /// No workers: this thread, as the reference for the others.
    Serial,
}

/// Number and kind of the workers.
#[derive(Clone, Copy, Debug, Args)]
pub struct Crew {
    /// Number of workers [default: one per processor]
    #[arg(long = "workers", value_name = "N", value_parser = workers)]
    count: Option<usize>,

    /// Kind of the workers
    #[arg(long, value_enum, default_value_t = Backend::Fork)]
    backend: Backend,
}

impl Crew {
    /// Starts the pool. With forked workers, call this before the program starts threads or other
    /// processes.
    pub fn start<'t>(&self, table: &'t HandleTable) -> std::result::Result<Pool<'t>, PoolError> {
        let processors = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers = self.count.unwrap_or_else(processors);
        match self.backend {
            Backend::Fork => Pool::fork(table, workers),
            Backend::Spawn => Pool::spawn(table, workers),
            Backend::Threads => Pool::threads(table, workers),
            Backend::Serial => Pool::serial(table),
        }
    }

    /// Describes the workers of a running pool.
    pub fn describe(&self, pool: &Pool<'_>) -> String {
        let (one, many) = match self.backend {
            Backend::Fork => ("forked worker", "forked workers"),
            Backend::Spawn => ("spawned worker", "spawned workers"),
            Backend::Threads => ("worker thread", "worker threads"),
            Backend::Serial => return "no workers".into(),
        };
        match pool.workers() {
            1 => format!("1 {one}"),
            workers => format!("{workers} {many}"),
        }
    }
}

fn workers(text: &str) -> std::result::Result<usize, String> {
    count(text, 1..=128)
}

/// Parses a whole number in a range. Underscores are allowed.
pub fn count(
    text: &str,
    range: std::ops::RangeInclusive<usize>,
) -> std::result::Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "give a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_underscores_and_within_limits() {
        assert_eq!(count("20_000", 1..=30_000), Ok(20_000));
        for text in ["0", "30_001", "-1", "many", ""] {
            assert!(count(text, 1..=30_000).is_err(), "{text:?}");
        }
    }
}
