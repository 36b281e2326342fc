//! What the benches share: arguments, the sample loop, the table and the JSON lines.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod process;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// One sample takes about this long.
const SAMPLE: Duration = Duration::from_millis(5);
const SAMPLES: usize = 31;
/// Samples where each is a single call.
const CALLS: usize = 2001;
/// After this long, the samples that there are have to do.
const PATIENCE: Duration = Duration::from_secs(3);

/// One thing to measure: `run(n)` does it `n` times and says how long that took.
pub struct Subject<'a> {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

/// A subject that is timed from outside.
pub fn each<'a, R>(name: impl Into<String>, mut call: impl FnMut() -> R + 'a) -> Subject<'a> {
    timed(name, move |times| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(call());
        }
        start.elapsed()
    })
}

/// A subject that times itself.
pub fn timed<'a>(name: impl Into<String>, run: impl FnMut(u64) -> Duration + 'a) -> Subject<'a> {
    Subject {
        name: name.into(),
        run: Box::new(run),
    }
}

/// Nanoseconds a repetition, one entry a sample.
struct Samples(Vec<f64>);

impl Samples {
    fn median(&self) -> f64 {
        median(self.0.clone())
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn ratio_of_medians(&self, to: &Samples) -> f64 {
        self.median() / to.median()
    }

    /// The median of the quotients of samples taken right after each other: what slows the machine
    /// for a while slows both.
    fn ratio(&self, to: &Samples) -> f64 {
        median(self.0.iter().zip(&to.0).map(|(a, b)| a / b).collect())
    }
}

/// Numbers in an order of their own, the same in every run (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// One in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A run of a bench: what was asked for on the command line.
pub struct Bench {
    json: bool,
    quick: bool,
    options: Vec<String>,
    filters: Vec<String>,
}

impl Bench {
    /// Takes `--json`, `--quick`, and parts of names; ignores the rest of the options, among them
    /// the `--bench` that cargo adds. A build without optimisation is always quick: it only shows
    /// that the bench runs.
    pub fn from_args() -> Bench {
        let (options, filters): (Vec<_>, Vec<_>) = std::env::args()
            .skip(1)
            .partition(|arg| arg.starts_with("--"));
        let bench = Bench {
            json: options.iter().any(|option| option == "--json"),
            quick: cfg!(debug_assertions) || options.iter().any(|option| option == "--quick"),
            options,
            filters,
        };
        if !bench.json {
            println!("{:<44}{:>12}{:>12}{:>10}", "", "min", "median", "ratio");
        }
        bench
    }

    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// The number in an option of a bench's own, as `--name=number`.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = |option: &String| option.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        self.options.iter().find_map(value)
    }

    /// Whether a figure is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part.as_str()))
    }

    /// Measures the subjects in turns, in samples of many repetitions. The first is ours: the
    /// ratios are its time to that of each other.
    pub fn compare(&self, mut subjects: Vec<Subject<'_>>) {
        if !subjects.iter().any(|subject| self.wants(&subject.name)) {
            return;
        }
        let (target, samples) = match self.quick {
            true => (SAMPLE / 10, 5),
            false => (SAMPLE, SAMPLES),
        };
        let batches: Vec<u64> = subjects
            .iter_mut()
            .map(|subject| calibrate(subject, target))
            .collect();
        let taken = sample(&mut subjects, &batches, samples);
        self.report(names(subjects), taken, Samples::ratio);
    }

    /// Measures one subject after the other, each sample a single call: for calls whose times vary
    /// more than the clock errs, and where a subject that waits for its turn would fall asleep.
    pub fn compare_calls(&self, mut subjects: Vec<Subject<'_>>) {
        if !subjects.iter().any(|subject| self.wants(&subject.name)) {
            return;
        }
        let samples = if self.quick { 31 } else { CALLS };
        let taken = subjects
            .iter_mut()
            .flat_map(|subject| sample(std::slice::from_mut(subject), &[1], samples))
            .collect();
        self.report(names(subjects), taken, Samples::ratio_of_medians);
    }

    /// Reports figures that were measured elsewhere, as [`compare`](Bench::compare) does.
    pub fn report_samples(&self, figures: Vec<(String, Vec<f64>)>) {
        let (names, taken): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
        self.report(
            names,
            taken.into_iter().map(Samples).collect(),
            Samples::ratio,
        );
    }

    /// Reports a figure that is no time.
    pub fn report_ratio(&self, name: &str, ratio: f64, against: &str) {
        match self.json {
            true => {
                println!(r#"{{"name": "{name}", "ratio": {ratio:.4}, "against": "{against}"}}"#)
            }
            false => println!("{name:<44}{:>34} of {against}", digits(ratio)),
        }
    }

    fn report(
        &self,
        names: Vec<String>,
        taken: Vec<Samples>,
        ratio: impl Fn(&Samples, &Samples) -> f64,
    ) {
        let (ours, first) = (&names[0], &taken[0]);
        for (index, (name, samples)) in names.iter().zip(&taken).enumerate() {
            let (min, median) = (samples.min(), samples.median());
            let ratio = (index > 0).then(|| ratio(first, samples));
            if !self.json {
                let ratio = ratio.map_or(String::new(), digits);
                println!("{name:<44}{:>12}{:>12}{ratio:>10}", time(min), time(median));
                continue;
            }
            println!(r#"{{"name": "{name}", "median_ns": {median:.1}, "min_ns": {min:.1}}}"#);
            if let Some(ratio) = ratio {
                println!(r#"{{"name": "{ours}", "ratio": {ratio:.4}, "against": "{name}"}}"#);
            }
        }
    }
}

fn names(subjects: Vec<Subject<'_>>) -> Vec<String> {
    subjects.into_iter().map(|subject| subject.name).collect()
}

/// Takes samples of each subject in turns.
fn sample(subjects: &mut [Subject<'_>], batches: &[u64], samples: usize) -> Vec<Samples> {
    let mut taken: Vec<_> = subjects.iter().map(|_| Samples(Vec::new())).collect();
    let start = Instant::now();
    for round in 0..samples {
        if round >= SAMPLES && start.elapsed() > PATIENCE {
            break;
        }
        for ((subject, &batch), taken) in subjects.iter_mut().zip(batches).zip(&mut taken) {
            let time = (subject.run)(batch);
            taken.0.push(time.as_secs_f64() * 1e9 / batch as f64);
        }
    }
    taken
}

/// How many repetitions take about as long as `target`. Warms up on the way.
fn calibrate(subject: &mut Subject<'_>, target: Duration) -> u64 {
    let mut times = 1;
    loop {
        let took = (subject.run)(times);
        if took * 2 >= target {
            let scale = target.as_secs_f64() / took.as_secs_f64();
            return ((times as f64 * scale) as u64).max(1);
        }
        times *= 2;
    }
}

/// Two digits or more that say something.
fn digits(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 0.1 => format!("{ratio:.4}"),
        ratio => format!("{ratio:.2}"),
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}
