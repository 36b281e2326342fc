//! The output of the program: text, or one JSON object.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::data::Series;
use crate::filter::Outcome;
use crate::kalman::Exact;
use crate::machine::Disturbance;

/// Median time of a step of each variant that ran, in nanoseconds.
#[derive(Debug, Default)]
pub struct Times {
    pub fork: f64,
    pub one_process: Option<f64>,
    pub rayon: Option<f64>,
    pub copies: Option<f64>,
}

/// All results.
pub struct Report<'a> {
    pub series: &'a Series,
    pub particles: usize,
    pub workers: usize,
    pub seed: u64,
    pub outcome: Outcome,
    pub exact: Exact,
    pub monte_carlo_error: f64,
    pub times: Times,
    /// The use of the machine by others, if it has made the times longer.
    pub disturbance: Option<Disturbance>,
    pub plot: PathBuf,
}

impl Report<'_> {
    fn difference(&self) -> f64 {
        self.outcome.log_likelihood - self.exact.log_likelihood
    }

    pub fn json(&self) -> Value {
        let per_particle = |time: Option<f64>| time.map(|time| time / self.particles as f64);
        let [lows, highs] = [0, 1]
            .map(|end| -> Vec<f64> { self.outcome.bands.iter().map(|band| band[end]).collect() });
        json!({
            "data": self.series.name,
            "observations": self.series.values.len(),
            "particles": self.particles,
            "workers": self.workers,
            "seed": self.seed,
            "log_likelihood": self.outcome.log_likelihood,
            "exact_log_likelihood": self.exact.log_likelihood,
            "difference": self.difference(),
            "monte_carlo_error": self.monte_carlo_error,
            "effective_particles": self.outcome.effective,
            "filtered_mean": self.outcome.means,
            "filtered_5_percent": lows,
            "filtered_95_percent": highs,
            "exact_mean": self.exact.means,
            "exact_variance": self.exact.variances,
            "ns_per_particle_step": {
                "fork": per_particle(Some(self.times.fork)),
                "one_process": per_particle(self.times.one_process),
                "rayon": per_particle(self.times.rayon),
                "copies": per_particle(self.times.copies),
            },
            "machine": self.disturbance.map(|by| json!({
                "other_programs": by.others,
                "stolen": by.stolen,
                "load_at_start": by.load,
            })),
            "digest": format!("{:016x}", self.outcome.digest),
            "plot": self.plot.display().to_string(),
        })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        let count = self.series.values.len();
        writeln!(text, "{}: {count} observations", self.series.name)?;
        writeln!(
            text,
            "{} particles (at the worst step as good as {:.0} equal ones), {} workers, seed {}\n",
            self.particles, self.outcome.effective, self.workers, self.seed
        )?;

        writeln!(
            text,
            "  time  observed  filtered level  90 % band            exact"
        )?;
        let every = count.div_ceil(12);
        let shown = (0..count).filter(|i| i % every == 0 || i + 1 == count);
        for i in shown {
            let [low, high] = self.outcome.bands[i];
            writeln!(
                text,
                "{:>6}  {:>8.1}  {:>14.2}  {low:>8.2} {high:>9.2}  {:>9.2}",
                self.series.first + i as i64,
                self.series.values[i],
                self.outcome.means[i],
                self.exact.means[i],
            )?;
        }

        let difference = self.difference();
        writeln!(text)?;
        writeln!(
            text,
            "log-likelihood   {:>12.4}",
            self.outcome.log_likelihood
        )?;
        writeln!(text, "exact (Kalman)   {:>12.4}", self.exact.log_likelihood)?;
        writeln!(
            text,
            "difference       {difference:>12.4}   ({:.1} Monte Carlo standard errors of {:.4})",
            difference.abs() / self.monte_carlo_error,
            self.monte_carlo_error
        )?;
        writeln!(text)?;
        self.write_times(text)?;
        if let Some(disturbance) = &self.disturbance {
            writeln!(text, "note: {disturbance}")?;
        }
        writeln!(text)?;
        let compared = match self.times.one_process {
            Some(_) => "   (all variants end with the same bits)",
            None => "",
        };
        writeln!(text, "digest  {:016x}{compared}", self.outcome.digest)?;
        writeln!(text, "plot    {}", self.plot.display())
    }

    fn write_times(&self, text: &mut String) -> std::fmt::Result {
        let one = self.times.one_process;
        writeln!(
            text,
            "time per step (median)    ms    ns a particle{}",
            match one {
                Some(_) => "    speed-up",
                None => "",
            }
        )?;
        let variants = [
            ("forked workers, shared", Some(self.times.fork)),
            ("one process", one),
            ("rayon threads", self.times.rayon),
            ("workers sent copies", self.times.copies),
        ];
        for (name, time) in variants {
            let Some(time) = time else { continue };
            write!(
                text,
                "{name:<22} {:>8.3}  {:>12.2}",
                time / 1e6,
                time / self.particles as f64
            )?;
            match one {
                Some(one) => writeln!(text, "     {:>10.2}", one / time)?,
                None => writeln!(text)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kalman;
    use crate::model::NILE;

    #[test]
    fn json_has_null_for_what_did_not_run_and_text_leaves_it_out() {
        let series = Series::nile();
        let exact = kalman::filter(&NILE, &series.values);
        let report = Report {
            particles: 1000,
            workers: 2,
            seed: 1,
            outcome: Outcome {
                log_likelihood: -640.0,
                means: exact.means.clone(),
                bands: vec![[0.0, 1.0]; 100],
                effective: 10.0,
                digest: 0xab,
            },
            exact,
            monte_carlo_error: 0.5,
            times: Times {
                fork: 2000.0,
                ..Times::default()
            },
            disturbance: None,
            plot: "plot.svg".into(),
            series: &series,
        };
        let json = report.json();
        assert_eq!(json["ns_per_particle_step"]["fork"], 2.0);
        assert!(json["ns_per_particle_step"]["rayon"].is_null());
        assert_eq!(json["digest"], "00000000000000ab");
        assert_eq!(json["filtered_mean"].as_array().unwrap().len(), 100);
        let text = report.text();
        assert!(text.contains("-640.3805") && !text.contains("rayon"));
        assert!(json["machine"].is_null() && !text.contains("note"));

        let shared = Report {
            disturbance: Some(Disturbance {
                others: 0.5,
                stolen: 0.0,
                load: None,
            }),
            ..report
        };
        assert_eq!(shared.json()["machine"]["other_programs"], 0.5);
        assert!(shared.text().contains("note: the machine was shared"));
    }
}
