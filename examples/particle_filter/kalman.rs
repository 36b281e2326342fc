//! The exact filter for the same model, for comparison.

use crate::model::Model;

/// Distribution of each level, given the observations up to it.
#[derive(Debug)]
pub struct Exact {
    pub means: Vec<f64>,
    pub variances: Vec<f64>,
    pub log_likelihood: f64,
}

/// Runs the Kalman filter of the local level model.
pub fn filter(model: &Model, observations: &[f64]) -> Exact {
    let mut exact = Exact {
        means: Vec::with_capacity(observations.len()),
        variances: Vec::with_capacity(observations.len()),
        log_likelihood: 0.0,
    };
    let (mut mean, mut variance) = (model.prior_mean, model.prior_var);
    for (index, observation) in observations.iter().enumerate() {
        if index > 0 {
            variance += model.state_var;
        }
        let innovation = observation - mean;
        let innovation_var = variance + model.obs_var;
        exact.log_likelihood -= 0.5
            * ((2.0 * std::f64::consts::PI * innovation_var).ln()
                + innovation * innovation / innovation_var);
        let gain = variance / innovation_var;
        mean += gain * innovation;
        variance *= 1.0 - gain;
        exact.means.push(mean);
        exact.variances.push(variance);
    }
    exact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Series;
    use crate::model::NILE;

    #[test]
    fn the_nile_has_its_known_log_likelihood() {
        let exact = filter(&NILE, &Series::nile().values);
        assert!((exact.log_likelihood - -640.3805).abs() < 5e-5);
    }

    /// Checks against the joint density: two observations are normal with covariance
    /// [[p + r, p], [p, p + q + r]].
    #[test]
    fn two_observations_have_their_joint_density() {
        let model = Model {
            state_var: 2.0,
            obs_var: 3.0,
            prior_mean: 1.0,
            prior_var: 5.0,
        };
        let (a, b, c) = (8.0, 5.0, 10.0);
        let (u, v) = (4.0 - 1.0, -2.0 - 1.0);
        let determinant: f64 = a * c - b * b;
        let quadratic = (c * u * u - 2.0 * b * u * v + a * v * v) / determinant;
        let density = -(2.0 * std::f64::consts::PI).ln() - 0.5 * determinant.ln() - 0.5 * quadratic;
        let exact = filter(&model, &[4.0, -2.0]);
        assert!((exact.log_likelihood - density).abs() < 1e-12);
    }
}
