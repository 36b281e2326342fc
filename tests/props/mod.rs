//! Support for tests on random inputs: the same inputs in each run, and an end to tests that hang.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Time limit of one case.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` on `cases` inputs. They are the same each time, unless `PROPTEST_CASES` or
/// `PROPTEST_RNG_SEED` asks for others.
#[track_caller]
pub fn check<S: Strategy>(cases: u32, inputs: S, test: impl Fn(S::Value)) {
    let is_set = |variable| std::env::var_os(variable).is_some();
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if !is_set("PROPTEST_CASES") {
        config.cases = cases;
    }
    if !is_set("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(0x5eed);
    }
    let heart = Watchdog::start(PATIENCE);
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        heart.beat();
        test(input);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Ends the process when it has received no message for too long.
pub struct Watchdog(Sender<()>);

impl Watchdog {
    pub fn start(patience: Duration) -> Watchdog {
        let (beat, beats) = channel();
        std::thread::spawn(move || {
            loop {
                match beats.recv_timeout(patience) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("a case has not ended within {patience:?}");
                        std::process::abort();
                    }
                }
            }
        });
        Watchdog(beat)
    }

    pub fn beat(&self) {
        let _ = self.0.send(());
    }
}

/// Pseudo-random numbers, the same each time.
pub struct Numbers(u64);

impl Numbers {
    pub fn from_seed(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// Returns the next number (SplitMix64).
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.any() % end as u64) as usize
    }
}
