//! A filter on a ring: a local ensemble Kalman filter on the Lorenz-96 model.
//!
//! **The problem.** 40 variables on a ring stand for the weather along a circle of latitude (E. N.
//! Lorenz, "Predictability: a problem partly solved", 1996). The model is chaotic, and each variable
//! is observed every six hours with an error of 1. The filter follows the weather by an ensemble of
//! states. A *forecast* moves each member on by itself. An *analysis* then corrects each place of
//! the ring by the observations near it, for all members together (the square root filter of J. S.
//! Whitaker and T. M. Hamill, 2002; observations count less with their distance, as in B. R. Hunt,
//! E. J. Kostelich and I. Szunyogh, 2007).
//!
//! **The role of ndshm.** Forecasts cut the ensemble by members and analyses cut the same arrays by
//! places, so nothing is transposed or sent. `tile.around` finds a tile's places and their
//! neighbours on the ring. The whole filter then runs again on `Pool::serial`, and must agree to the
//! last bit.
//!
//! ```sh
//! cargo run --release --example lorenz96 -- --members 40
//! ```

#[path = "common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each example uses its own part")]
mod common;

use std::path::PathBuf;

use clap::Parser;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, Slice, s};
use ndshm::partition::{Block, Edge};
use ndshm::pool::TileRng;
use ndshm::rand_core::SeedableRng;
use ndshm::{HandleTable, Pool, Segment, TileContext};
use rand_distr::{Distribution, StandardNormal};

use common::{Crew, Digest, Result, count};

const PLACES: usize = 40;
const FORCING: f64 = 8.0;
/// Six hours.
const STEP: f64 = 0.05;
/// Steps after which a state has forgotten its start.
const SPIN_UP: usize = 400;
/// Standard deviation of the observations' errors.
const NOISE: f64 = 1.0;
/// Observations count up to this distance along the ring.
const REACH: usize = 6;
/// Distance at which an observation's weight is `exp(-1/2)`.
const LENGTH: f64 = 2.5;
/// Makes up for the spread that an ensemble of finite size lacks.
const INFLATION: f64 = 1.03;

/// A filter on the Lorenz-96 model, which workers step by members and by places.
#[derive(Parser)]
#[command(name = "lorenz96")]
struct Options {
    #[command(flatten)]
    crew: Crew,

    /// Number of members of the ensemble
    #[arg(long, value_name = "N", default_value = "20", value_parser = members)]
    members: usize,

    /// Number of observation times
    #[arg(long, value_name = "N", default_value = "500", value_parser = times)]
    times: usize,

    /// Seed of the weather, the observations and the ensemble
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Save the errors of each time to this file, for numpy or `ndshm plot`
    #[arg(long, value_name = "FILE.npy")]
    errors: Option<PathBuf>,
}

fn members(text: &str) -> std::result::Result<usize, String> {
    count(text, 2..=100_000)
}

fn times(text: &str) -> std::result::Result<usize, String> {
    count(text, 100..=1_000_000)
}

fn main() -> Result<()> {
    ndshm::become_worker();
    let options = Options::parse();
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = options.crew.start(&table)?;
    let weather = Weather::new(options.times, options.seed);
    pool.set_seed(options.seed);
    let filtered = filter(&table, &mut pool, &weather, options.members)?;
    println!(
        "{} members, {} times, {}, seed {}",
        options.members,
        options.times,
        options.crew.describe(&pool),
        options.seed
    );
    let mut serial = Pool::builder().seed(options.seed).serial(&table)?;
    let alone = filter(&table, &mut serial, &weather, options.members)?;
    if filtered.digest != alone.digest {
        return Err("the pool and the serial pool differ".into());
    }
    println!("digest {}, the same without workers", filtered.digest);

    if let Some(path) = &options.errors {
        let errors = table.owned(table.from_array(&filtered.errors)?);
        table.save_npy(errors.handle(), path)?;
        println!(
            "errors, spread and errors of the observations: {}",
            path.display()
        );
    }
    // The filter needs some days to find the weather.
    let settled = filtered.errors.slice(s![options.times / 5.., ..]);
    let mean = settled
        .mean_axis(Axis(0))
        .expect("there are 100 times or more");
    let [error, spread, noise] = [mean[0], mean[1], mean[2]];
    println!("mean error {error:.3}, spread {spread:.3}; of the observations {noise:.3}");
    println!("the weather varies by {:.2}", weather.truth.std(0.0));
    match error < 0.5 * noise {
        true => Ok(()),
        false => Err("the filter has lost the weather; try more members".into()),
    }
}

/// The weather and its observations, a row for each time.
struct Weather {
    truth: Array2<f64>,
    observed: Array2<f64>,
}

impl Weather {
    fn new(times: usize, seed: u64) -> Weather {
        let mut rng = TileRng::seed_from_u64(seed);
        let mut now = some_weather(&mut rng);
        let mut truth = Array2::zeros((times, PLACES));
        for mut row in truth.rows_mut() {
            now = later(now.view());
            row.assign(&now);
        }
        let observed = truth.mapv(|x| x + NOISE * noise(&mut rng));
        Weather { truth, observed }
    }
}

struct Filtered {
    /// At each time the error of the mean, the spread, and the error of the observations.
    errors: Array2<f64>,
    digest: Digest,
}

fn filter(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    weather: &Weather,
    members: usize,
) -> Result<Filtered> {
    let forecast = table.owned(table.zeros::<f64, _>((members, PLACES))?);
    let analysis = table.owned(table.zeros::<f64, _>((members, PLACES))?);
    let observed = table.owned(table.from_array(&weather.observed)?);
    let (forecast, analysis, observed) = (forecast.handle(), analysis.handle(), observed.handle());
    let by_member = table.partition((analysis.read(), forecast.write()), Axis(0), 1)?;
    let by_place = (forecast.whole(), observed.whole(), analysis.write());
    let by_place = table.partition(by_place, Axis(1), 5)?;

    // Every member begins with weather of its own.
    let start = table.partition(analysis.write(), Axis(0), 1)?;
    pool.for_each(&start, &(), |mut x, (), tile| {
        x.row_mut(0).assign(&some_weather(&mut tile.rng()));
    })?;
    let mut errors = Array2::zeros((weather.truth.nrows(), 3));
    let mut digest = Digest::EMPTY;
    for (time, mut errors) in errors.rows_mut().into_iter().enumerate() {
        pool.for_each(&by_member, &(), |(now, mut next), (), _| {
            next.row_mut(0).assign(&later(now.row(0)));
        })?;
        pool.for_each(&by_place, &time, analyse)?;

        let ensemble = table.read(analysis)?;
        let mean = ensemble.mean_axis(Axis(0)).expect("there are members");
        let variance = ensemble.var_axis(Axis(0), 1.0).mean();
        let truth = weather.truth.row(time);
        errors[0] = rms(&mean - &truth);
        errors[1] = variance.expect("there are places").sqrt();
        errors[2] = rms(&weather.observed.row(time) - &truth);
        ensemble.iter().for_each(|x| digest.add(x.to_bits()));
    }
    Ok(Filtered { errors, digest })
}

/// Corrects the places of a tile by the observations of a time. This is the kernel.
fn analyse(
    (forecast, observed, mut analysis): (
        ArrayView2<'_, f64>,
        ArrayView2<'_, f64>,
        ArrayViewMut2<'_, f64>,
    ),
    &time: &usize,
    tile: &TileContext<'_>,
) {
    // The tile's places, and `REACH` more on both sides. The other axes are there as a whole.
    let around = |x| tile.around(x, [0, REACH], Edge::Periodic);
    let forecast = around(&forecast).expect("the ring is longer").to_cow();
    let observed = around(&observed).expect("the ring is longer").to_cow();
    for (place, mut corrected) in analysis.columns_mut().into_iter().enumerate() {
        let near = place..=place + 2 * REACH;
        let forecast = forecast.slice(s![.., near.clone()]);
        let ensemble = assimilate(forecast, observed.slice(s![time, near]));
        corrected.assign(&ensemble.column(REACH));
    }
}

/// Returns the ensemble of an odd number of places, corrected by their observations one after the
/// other. They count less with their distance from the place in the middle.
fn assimilate(forecast: ArrayView2<'_, f64>, observed: ArrayView1<'_, f64>) -> Array2<f64> {
    let mut mean = forecast.mean_axis(Axis(0)).expect("there are members");
    let mut apart = (&forecast - &mean) * INFLATION;
    let freedom = forecast.nrows() as f64 - 1.0;
    for (place, &observed) in observed.iter().enumerate() {
        let distance = (place as f64 - (mean.len() / 2) as f64) / LENGTH;
        let error = NOISE * NOISE * f64::exp(distance * distance / 2.0);
        let here = apart.column(place).to_owned();
        let total = here.dot(&here) / freedom + error;
        let gain = here.dot(&apart) / freedom / total;
        let surprise = observed - mean[place];
        mean.scaled_add(surprise, &gain);
        let share = 1.0 / (1.0 + f64::sqrt(error / total));
        for (mut member, here) in apart.rows_mut().into_iter().zip(&here) {
            member.scaled_add(-share * here, &gain);
        }
    }
    apart + mean
}

/// Returns the state one step later, by the method of Runge and Kutta.
fn later(x: ArrayView1<'_, f64>) -> Array1<f64> {
    let a = slope(x);
    let b = slope((&x + &a * (STEP / 2.0)).view());
    let c = slope((&x + &b * (STEP / 2.0)).view());
    let d = slope((&x + &c * STEP).view());
    (a + d + (b + c) * 2.0) * (STEP / 6.0) + x
}

/// Returns the derivatives: `(x[i + 1] - x[i - 2]) x[i - 1] - x[i] + F`.
fn slope(x: ArrayView1<'_, f64>) -> Array1<f64> {
    let ring = Block::of_array([x.len()]).around(&x, [2], Edge::Periodic);
    let ring = ring.expect("the ring is longer").to_array();
    let at = |offset: usize| ring.slice_axis(Axis(0), Slice::from(offset..offset + x.len()));
    (&at(3) - &at(0)) * at(1) - x + FORCING
}

/// Returns a state of the model after a start at random.
fn some_weather(rng: &mut TileRng) -> Array1<f64> {
    let mut x = Array1::from_shape_fn(PLACES, |_| FORCING + noise(rng));
    for _ in 0..SPIN_UP {
        x = later(x.view());
    }
    x
}

fn noise(rng: &mut TileRng) -> f64 {
    StandardNormal.sample(rng)
}

/// Returns the root of the mean square.
fn rms(x: Array1<f64>) -> f64 {
    (x.dot(&x) / x.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// One observation of one place: the filter's mean and variance are those of Kalman.
    #[test]
    fn a_single_observation_is_weighed_as_by_kalman() {
        let forecast = array![[1.0], [2.0], [4.0], [5.0]];
        let corrected = assimilate(forecast.view(), array![7.0].view());
        let before = forecast.var(1.0) * INFLATION * INFLATION;
        let gain = before / (before + NOISE * NOISE);
        assert!((corrected.mean().unwrap() - (3.0 + gain * (7.0 - 3.0))).abs() < 1e-12);
        assert!((corrected.var(1.0) - (1.0 - gain) * before).abs() < 1e-12);
    }

    /// Neighbours without covariance are left alone, and far observations count less.
    #[test]
    fn observations_act_by_covariance_and_distance() {
        let forecast = array![[1.0, 3.0, 0.0], [-1.0, 3.0, 0.0]];
        let surprise = |place: usize| {
            let mut observed = array![0.0, 3.0, 0.0];
            observed[place] += 1.0;
            let corrected = assimilate(forecast.view(), observed.view());
            corrected.mean_axis(Axis(0)).unwrap()
        };
        assert_eq!(surprise(1), array![0.0, 3.0, 0.0]);
        assert!(surprise(0)[0] > 0.5 && surprise(0)[0] < 1.0);
    }

    #[test]
    fn the_model_is_at_rest_at_the_forcing_and_chaotic_elsewhere() {
        let rest = Array1::from_elem(PLACES, FORCING);
        assert!(
            (&later(rest.view()) - &rest)
                .iter()
                .all(|x| x.abs() < 1e-12)
        );
        let mut one = some_weather(&mut TileRng::seed_from_u64(1));
        let mut other = one.clone();
        other[0] += 1e-6;
        for _ in 0..SPIN_UP {
            (one, other) = (later(one.view()), later(other.view()));
        }
        assert!(rms(one - other) > 1.0);
    }
}
