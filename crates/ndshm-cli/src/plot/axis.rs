//! Ticks: round numbers along an axis, and their labels.

use super::chart::{self, place};

/// A tick.
#[derive(Clone, PartialEq, Debug)]
pub struct Tick {
    /// The place on the axis, from 0 to 1.
    pub place: f64,
    /// The number there.
    pub label: String,
}

/// The most ticks of an axis.
const MOST: usize = 20;

/// Returns about `count` ticks at round numbers from `min` to `max`; none without numbers.
pub fn ticks(min: f64, max: f64, count: usize) -> Vec<Tick> {
    if !(min.is_finite() && max.is_finite()) {
        return Vec::new();
    }
    let numbers = round_numbers(min, max, count);
    let step = match numbers[..] {
        [first, second, ..] => second - first,
        _ => 0.0,
    };
    let tick = |&number: &f64| Tick {
        place: place(number, min, max),
        label: match step > 0.0 {
            true => label(number, step, min.abs().max(max.abs())),
            false => chart::label(number),
        },
    };
    numbers.iter().map(tick).collect()
}

/// Returns ticks at whole numbers from 0 to `last`.
pub fn indices(last: usize, count: usize) -> Vec<Tick> {
    let count = count.min(last).max(1);
    ticks(0.0, last as f64, count)
}

fn round_numbers(min: f64, max: f64, count: usize) -> Vec<f64> {
    // Use halves: the distance between two finite numbers may overflow.
    let rough = (max / 2.0 - min / 2.0) / (count.max(1) as f64 / 2.0);
    let magnitude = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
    let step = steps.into_iter().find(|&step| step >= rough * 0.999_999);
    let Some(step) = step.filter(|step| step.is_normal()) else {
        return match min < max {
            true => vec![min, max],
            false => vec![min],
        };
    };
    let first = (min / step - 1e-9).ceil();
    let last = (max / step + 1e-9).floor();
    let mut numbers: Vec<f64> = Vec::new();
    for at in 0..MOST {
        let number = (first + at as f64) * step;
        let is_new = numbers.last().is_none_or(|&last| number > last);
        if first + at as f64 > last || !number.is_finite() || !is_new {
            break;
        }
        numbers.push(number.clamp(min, max));
    }
    match numbers.is_empty() {
        true => vec![min, max],
        false => numbers,
    }
}

/// Formats a tick's number with the digits that its `step` needs. `largest` is the largest number
/// of the axis.
fn label(number: f64, step: f64, largest: f64) -> String {
    let digits = |number: f64| number.abs().log10().floor() as i32;
    // The tolerance is for steps such as 0.1, whose logarithm is not exact.
    let step = step * 1.000_001;
    match largest {
        _ if number.abs() < step * 1e-6 => "0".into(),
        1e-3..1e6 => {
            let decimals = (-digits(step)).clamp(0, 12);
            format!("{number:.0$}", decimals as usize)
        }
        _ => {
            let exact = (digits(number) - digits(step)).clamp(0, 12);
            let text = format!("{number:.0$e}", exact as usize);
            match text.split_once('e') {
                Some((number, exponent)) if number.contains('.') => {
                    let number = number.trim_end_matches('0').trim_end_matches('.');
                    format!("{number}e{exponent}")
                }
                _ => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(min: f64, max: f64, count: usize) -> Vec<String> {
        let ticks = ticks(min, max, count).into_iter();
        ticks.map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_at_round_numbers() {
        assert_eq!(
            labels(0.0, 1.0, 5),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            labels(-1e-3, 1e-3, 4),
            ["-0.0010", "-0.0005", "0", "0.0005", "0.0010"]
        );
        assert_eq!(labels(1e6, 3.2e6, 3), ["1e6", "2e6", "3e6"]);
        assert_eq!(labels(1.5e-9, 2.4e-9, 2), ["1.5e-9", "2e-9"]);
        assert_eq!(labels(3.0, 3.0, 5), ["3"]);
        assert_eq!(labels(f64::NAN, f64::NAN, 5), [""; 0]);
        let whole = |last, count| -> Vec<String> {
            indices(last, count)
                .into_iter()
                .map(|tick| tick.label)
                .collect()
        };
        assert_eq!(whole(119, 6), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(whole(3, 10), ["0", "1", "2", "3"]);
        assert_eq!(whole(0, 10), ["0"]);
    }

    proptest! {
        #[test]
        fn ticks_of_any_numbers_are_on_the_axis(a in any::<f64>(), b in any::<f64>(), count in 0usize..12) {
            let ticks = ticks(a.min(b), a.max(b), count);
            prop_assert!(ticks.len() <= MOST);
            prop_assert!(ticks.iter().all(|tick| (0.0..=1.0).contains(&tick.place)), "{ticks:?}");
            prop_assert!(ticks.iter().all(|tick| tick.label.len() < 24), "{ticks:?}");
        }
    }
}
