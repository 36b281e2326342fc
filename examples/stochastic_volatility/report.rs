//! The printed report, and checks of its plausibility.

use std::fmt::Write as _;

use crate::Found;
use crate::common::Result;
use crate::filter::{Filtered, Task};

/// All results, and the truth for comparison.
pub struct Report<'a> {
    pub task: Task<'a>,
    /// Log-variances from which the returns were drawn.
    pub truth: &'a [f64],
    pub workers: String,
    pub found: Found,
}

impl Report<'_> {
    fn first(&self) -> &[Filtered] {
        &self.found.outcomes[0].days
    }

    fn true_volatilities(&self) -> impl Iterator<Item = f64> {
        self.truth.iter().map(|x| (x / 2.0).exp())
    }

    /// Returns the root mean square errors of the filtered volatilities, and of the best constant.
    fn volatility_errors(&self) -> [f64; 2] {
        let mean = mean(self.true_volatilities());
        let off = |guess: f64, truth: f64| (guess - truth).powi(2);
        let filtered = self.first().iter().map(|day| day.volatility);
        [
            rms(filtered
                .zip(self.true_volatilities())
                .map(|(guess, truth)| off(guess, truth))),
            rms(self.true_volatilities().map(|truth| off(mean, truth))),
        ]
    }

    /// Returns the mean of the squared errors of the log-variance, each divided by the filter's own
    /// variance. It is 1 for a well calibrated filter.
    fn calibration(&self) -> f64 {
        let days = self.first().iter().zip(self.truth);
        mean(days.map(|(day, truth)| (day.mean - truth).powi(2) / day.variance))
    }

    /// Returns the log-likelihood of the first seed on the pool minus that of the plain filter.
    fn difference(&self) -> f64 {
        self.found.outcomes[0].log_likelihood - self.found.plain.log_likelihood
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        let (task, found) = (&self.task, &self.found);
        let (days, seeds) = (task.returns.len(), found.outcomes.len());
        writeln!(
            text,
            "{days} days simulated with mu = {}, phi = {}, sigma = {}",
            task.model.mu, task.model.phi, task.model.sigma
        )?;
        writeln!(
            text,
            "{} particles, {seeds} filters, {}, seed {}\n",
            task.particles, self.workers, task.seed
        )?;
        writeln!(text, "   day  return, %  volatility, %  in truth")?;
        for day in (0..days).step_by(days.div_ceil(10)) {
            writeln!(
                text,
                "{:>6}  {:>9.3}  {:>13.3}  {:>8.3}",
                day + 1,
                task.returns[day],
                self.first()[day].volatility,
                (self.truth[day] / 2.0).exp()
            )?;
        }

        let [mean, deviation, together] = found.log_likelihood;
        let [filtered, constant] = self.volatility_errors();
        writeln!(
            text,
            "\nlog-likelihood   {mean:>12.4}  +- {deviation:.4} a filter"
        )?;
        writeln!(
            text,
            "all together     {together:>12.4}  +- {:.4}",
            deviation / (seeds as f64).sqrt()
        )?;
        writeln!(
            text,
            "plain reference  {:>12.4}  first seed less this: {:.1e}",
            found.plain.log_likelihood,
            self.difference()
        )?;
        writeln!(
            text,
            "volatility       off by {filtered:.4} (root mean square); a constant by {constant:.4}"
        )?;
        writeln!(
            text,
            "squared errors   {:.2} times the filter's own variance",
            self.calibration()
        )?;
        writeln!(
            text,
            "resampled after  {} of {days} days\n",
            found.outcomes[0].resampled
        )?;
        let [on_pool, alone] = found.times.map(|time| time.as_secs_f64());
        let updates = (task.particles * days) as f64;
        writeln!(
            text,
            "on the pool      {on_pool:>8.2} s  {:>6.1} million particles moved a second",
            updates * seeds as f64 / on_pool / 1e6
        )?;
        writeln!(
            text,
            "plain, one seed  {alone:>8.2} s  {:>6.1}",
            updates / alone / 1e6
        )?;
        writeln!(text, "digest           {}", found.digest)
    }

    pub fn check(&self) -> Result<()> {
        let [_, deviation, _] = self.found.log_likelihood;
        // Both draw the same numbers and differ only in rounding: by 1e-12, unless rounding gives
        // an offspring to another particle. That effect is far below the Monte Carlo error. No
        // range contains NaN.
        if !(0.0..=0.1 * deviation + 1e-9).contains(&self.difference().abs()) {
            return Err("the log-likelihood is not that of the plain reference".into());
        }
        // Errors are correlated from day to day, but no longer than the log-variance itself.
        let phi = self.task.model.phi;
        let variance = 2.0 / self.truth.len() as f64 * (1.0 + phi) / (1.0 - phi);
        if !(0.0..1.0 + 5.0 * variance.sqrt()).contains(&self.calibration()) {
            return Err("the filter is further from the truth than chance allows".into());
        }
        Ok(())
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / count
}

/// Returns the root of the mean of squares.
fn rms(squares: impl Iterator<Item = f64>) -> f64 {
    mean(squares).sqrt()
}
