//! Common parts of the benches: arguments, the sample loop, the table and the JSON lines.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod busy;
pub mod process;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Approximate duration of a sample.
const SAMPLE: Duration = Duration::from_millis(5);
const SAMPLES: usize = 31;
/// Number of samples if each is a single call.
const CALLS: usize = 2001;
/// Smallest number of samples of a long call.
const FEW: usize = 5;
/// Time after which no further samples are taken, once there are enough.
const PATIENCE: Duration = Duration::from_secs(3);

/// Quotient of the halves of a run beyond which it is reported as unsteady: a third.
const STEADY: f64 = 4.0 / 3.0;

/// A subject to measure: `run(n)` repeats it `n` times and returns the time that this took.
pub struct Subject<'a> {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// A repetition does this many operations.
    operations: usize,
}

impl Subject<'_> {
    /// Declares that a repetition does `operations` operations. The times are those of one.
    pub fn per(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }
}

/// Creates a subject that is timed from outside.
pub fn each<'a, R>(name: impl Into<String>, mut call: impl FnMut() -> R + 'a) -> Subject<'a> {
    timed(name, move |times| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(call());
        }
        start.elapsed()
    })
}

/// Creates a subject that times itself.
pub fn timed<'a>(name: impl Into<String>, run: impl FnMut(u64) -> Duration + 'a) -> Subject<'a> {
    Subject {
        name: name.into(),
        run: Box::new(run),
        operations: 1,
    }
}

/// Nanoseconds per repetition, one entry per sample.
struct Samples(Vec<f64>);

impl Samples {
    fn median(&self) -> f64 {
        median(self.0.clone())
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Returns the quotient of the medians of the second and of the first half of the samples, which
    /// were taken in this order. It is far from 1 if the machine has changed its clock, or had other
    /// work for a part of the time.
    fn drift(&self) -> f64 {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        match first.is_empty() {
            true => 1.0,
            false => median(second.to_vec()) / median(first.to_vec()),
        }
    }

    fn ratio_of_medians(&self, to: &Samples) -> f64 {
        self.median() / to.median()
    }

    /// Returns the median of the quotients of neighbouring samples: a passing disturbance of the
    /// machine slows both.
    fn ratio(&self, to: &Samples) -> f64 {
        median(self.0.iter().zip(&to.0).map(|(a, b)| a / b).collect())
    }
}

/// Pseudo-random numbers, the same in every run (SplitMix64, Steele et al. 2014).
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

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Returns a number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A run of a bench, with the arguments of the command line.
pub struct Bench {
    json: bool,
    quick: bool,
    options: Vec<String>,
    filters: Vec<String>,
}

impl Bench {
    /// Parses the arguments, and prints the head of the table.
    pub fn from_args() -> Bench {
        let bench = Bench::parse();
        if !bench.json {
            println!("{:<44}{:>12}{:>12}{:>10}", "", "min", "median", "ratio");
        }
        bench
    }

    /// Parses `--json`, `--quick`, and parts of names. Ignores other options, among them the
    /// `--bench` that cargo adds. A build without optimisation is always quick: it only shows that
    /// the bench runs.
    pub fn parse() -> Bench {
        let (mut options, mut filters) = (Vec::new(), Vec::new());
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--plot" => options.extend(args.next().map(|value| format!("{arg}={value}"))),
                option if option.starts_with("--") => options.push(arg),
                _ => filters.push(arg),
            }
        }
        Bench {
            json: options.iter().any(|option| option == "--json"),
            quick: cfg!(debug_assertions) || options.iter().any(|option| option == "--quick"),
            options,
            filters,
        }
    }

    pub fn is_quick(&self) -> bool {
        self.quick
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns `true` if the command line has an option of a single bench.
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// Returns the number in an option `--name=number` of a single bench.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }

    /// Returns the text in an option `--name=text` of a single bench.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns `true` if the command line selects the figure.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part.as_str()))
    }

    /// Measures the subjects in turns, in samples of many repetitions. The first subject is ours:
    /// a ratio is its time divided by another subject's.
    pub fn compare(&self, mut subjects: Vec<Subject<'_>>) {
        if !subjects.iter().any(|subject| self.wants(&subject.name)) {
            return;
        }
        let (target, samples) = match self.quick {
            true => (SAMPLE / 10, 5),
            false => (SAMPLE, SAMPLES),
        };
        let taken = take(&mut subjects, target, samples, SAMPLES);
        self.report(names(subjects), taken, Samples::ratio);
    }

    /// Measures the subjects in turns. Returns the name of each, and the minimum and the median of
    /// its times in nanoseconds. Takes more and shorter samples than [`compare`](Bench::compare), so
    /// that some of them are undisturbed on a busy machine too, and fewer of calls that take long.
    pub fn measure(&self, mut subjects: Vec<Subject<'_>>) -> Vec<(String, [f64; 2])> {
        let (target, samples) = match self.quick {
            true => (SAMPLE / 10, 5),
            false => (SAMPLE / 5, 3 * SAMPLES),
        };
        let taken = take(&mut subjects, target, samples, FEW);
        let times = taken.iter().map(|taken| [taken.min(), taken.median()]);
        names(subjects).into_iter().zip(times).collect()
    }

    /// Measures one subject after the other, each sample a single call. Use this if the times of
    /// calls vary more than the clock errs, and a subject would fall asleep while it waits for its
    /// turn.
    pub fn compare_calls(&self, mut subjects: Vec<Subject<'_>>) {
        if !subjects.iter().any(|subject| self.wants(&subject.name)) {
            return;
        }
        let samples = if self.quick { 31 } else { CALLS };
        let taken = subjects
            .iter_mut()
            .flat_map(|subject| sample(std::slice::from_mut(subject), &[1], samples, SAMPLES))
            .collect();
        self.report(names(subjects), taken, Samples::ratio_of_medians);
    }

    /// Reports figures that the caller measured, as [`compare`](Bench::compare) does.
    pub fn report_samples(&self, figures: Vec<(String, Vec<f64>)>) {
        let (names, taken): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
        self.report(
            names,
            taken.into_iter().map(Samples).collect(),
            Samples::ratio,
        );
    }

    /// Reports a figure that is not a time.
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
            let drift = samples.drift();
            if !(1.0 / STEADY..=STEADY).contains(&drift) {
                eprintln!(
                    "warning: {name}: the second half of the samples took {drift:.2} times as long \
                     as the first; the machine was not steady, so compare only ratios of one run"
                );
            }
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

/// Takes samples of each subject in turns, each of about `target` once it is warm.
fn take(
    subjects: &mut [Subject<'_>],
    target: Duration,
    samples: usize,
    least: usize,
) -> Vec<Samples> {
    let each = subjects.iter_mut();
    let batches: Vec<u64> = each.map(|subject| calibrate(subject, target)).collect();
    sample(subjects, &batches, samples, least)
}

/// Takes samples of each subject in turns; after `PATIENCE` no more than `least`.
fn sample(
    subjects: &mut [Subject<'_>],
    batches: &[u64],
    samples: usize,
    least: usize,
) -> Vec<Samples> {
    let mut taken: Vec<_> = subjects.iter().map(|_| Samples(Vec::new())).collect();
    let start = Instant::now();
    for round in 0..samples {
        if round >= least && start.elapsed() > PATIENCE {
            break;
        }
        for ((subject, &batch), taken) in subjects.iter_mut().zip(batches).zip(&mut taken) {
            let time = (subject.run)(batch);
            let operations = batch as f64 * subject.operations as f64;
            taken.0.push(time.as_secs_f64() * 1e9 / operations);
        }
    }
    taken
}

/// Returns the number of repetitions that take about `target`, when warm.
///
/// The first repetitions pay for what is made once: pages, a span, a look at the machine's memory. So
/// a time counts only if a second run of as many repetitions takes as long.
fn calibrate(subject: &mut Subject<'_>, target: Duration) -> u64 {
    let mut times = 1;
    loop {
        let took = (subject.run)(times);
        if took * 2 >= target {
            let took = took.min((subject.run)(times));
            if took * 2 >= target {
                let scale = target.as_secs_f64() / took.as_secs_f64();
                return ((times as f64 * scale) as u64).max(1);
            }
        }
        times *= 2;
    }
}

/// Formats a ratio with about two significant digits or more.
fn digits(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 0.1 => format!("{ratio:.4}"),
        ratio => format!("{ratio:.2}"),
    }
}

/// Formats a duration in nanoseconds.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}
