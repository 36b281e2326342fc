//! The plot as an SVG: data, filtered level and its 90 % band.

use std::fmt::{self, Write};

use crate::data::Series;
use crate::filter::Outcome;
use crate::kalman::Exact;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 36.0;

/// Linear scales from data to the drawing.
struct Scales {
    times: [f64; 2],
    levels: [f64; 2],
}

impl Scales {
    fn x(&self, time: f64) -> f64 {
        let [low, high] = self.times;
        LEFT + (time - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, level: f64) -> f64 {
        let [low, high] = self.levels;
        HEIGHT - BOTTOM - (level - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Returns the range of the numbers, widened to round ends, and the distance of its ticks.
fn range(numbers: impl Iterator<Item = f64>) -> ([f64; 2], f64) {
    let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| {
        (low.min(number), high.max(number))
    });
    let span = (high - low).max(1e-9 * high.abs()).max(f64::MIN_POSITIVE);
    let power = 10f64.powf((span / 8.0).log10().floor());
    let tick = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|tick| span / tick <= 8.0)
        .unwrap_or(10.0 * power);
    let ends = [(low / tick).floor() * tick, (high / tick).ceil() * tick];
    match ends[0] < ends[1] {
        true => (ends, tick),
        false => ([low - tick, low + tick], tick),
    }
}

fn ticks([low, high]: [f64; 2], tick: f64) -> impl Iterator<Item = f64> {
    // Tolerate rounding of the ticks at both ends.
    let [first, last] = [(low / tick - 1e-6).ceil(), (high / tick + 1e-6).floor()];
    (0..=(last - first) as usize).map(move |i| (first + i as f64) * tick)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Draws the series with the results of the filter and of the exact filter.
pub fn svg(series: &Series, outcome: &Outcome, exact: &Exact) -> String {
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut svg, series, outcome, exact);
    svg
}

fn draw(svg: &mut String, series: &Series, outcome: &Outcome, exact: &Exact) -> fmt::Result {
    let time = |index: usize| series.first as f64 + index as f64;
    let last = series.values.len().max(2) - 1;
    let times = [time(0), time(last)];
    let (_, time_tick) = range(times.into_iter());
    let numbers = series.values.iter().chain(outcome.bands.as_flattened());
    let (levels, level_tick) = range(numbers.copied());
    let scales = Scales { times, levels };
    let point =
        |index: usize, level: f64| format!("{:.1},{:.1}", scales.x(time(index)), scales.y(level));
    let line = |levels: &[f64]| -> String {
        let points = levels.iter().enumerate().map(|(i, &level)| point(i, level));
        points.collect::<Vec<_>>().join(" ")
    };

    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">
<title>{name}</title>
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="24" font-size="15">{name}</text>
<g stroke="#ddd" fill="#555">"##,
        name = escape(&series.name)
    )?;
    for level in ticks(levels, level_tick) {
        let y = scales.y(level);
        writeln!(
            svg,
            r#"<path d="M{LEFT} {y:.1}H{:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end" stroke="none">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            label(level, level_tick)
        )?;
    }
    for time in ticks(times, time_tick) {
        let (x, y) = (scales.x(time), HEIGHT - BOTTOM);
        writeln!(
            svg,
            r#"<path d="M{x:.1} {y:.1}v6"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" stroke="none">{}</text>"#,
            y + 20.0,
            label(time, time_tick)
        )?;
    }
    writeln!(svg, "</g>")?;

    let lows = outcome.bands.iter().enumerate();
    let highs = outcome.bands.iter().enumerate().rev();
    let outline: Vec<String> = lows
        .map(|(i, band)| point(i, band[0]))
        .chain(highs.map(|(i, band)| point(i, band[1])))
        .collect();
    writeln!(
        svg,
        r##"<polygon points="{}" fill="#1f6fb4" fill-opacity="0.2"/>"##,
        outline.join(" ")
    )?;
    writeln!(
        svg,
        r##"<polyline points="{}" fill="none" stroke="#1f6fb4" stroke-width="2"/>"##,
        line(&outcome.means)
    )?;
    writeln!(
        svg,
        r##"<polyline points="{}" fill="none" stroke="#c33" stroke-dasharray="2 4"/>"##,
        line(&exact.means)
    )?;
    writeln!(svg, r##"<g fill="#333">"##)?;
    for (index, &value) in series.values.iter().enumerate() {
        let (x, y) = (scales.x(time(index)), scales.y(value));
        writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.2"/>"#)?;
    }
    writeln!(svg, "</g>")?;
    legend(svg)?;
    writeln!(svg, "</svg>")
}

fn legend(svg: &mut String) -> fmt::Result {
    let x = WIDTH - RIGHT - 460.0;
    writeln!(
        svg,
        r##"<g transform="translate({x} 20)" fill="#333">
<circle cx="6" cy="0" r="2.2"/><text x="16" y="4">data</text>
<path d="M60 0h24" stroke="#1f6fb4" stroke-width="2"/><text x="90" y="4">filtered mean</text>
<rect x="184" y="-6" width="24" height="12" fill="#1f6fb4" fill-opacity="0.2"/><text x="214" y="4">90 % band</text>
<path d="M290 0h24" stroke="#c33" stroke-dasharray="2 4"/><text x="320" y="4">exact mean (Kalman)</text>
</g>"##
    )
}

fn label(number: f64, tick: f64) -> String {
    let digits = (-tick.log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kalman;
    use crate::model::NILE;

    #[test]
    fn ranges_are_round_and_contain_the_numbers() {
        assert_eq!(range([456.0, 1370.0].into_iter()), ([400.0, 1400.0], 200.0));
        for numbers in [[3.0, 3.0], [0.0, 0.0], [-1e-3, 2e-3]] {
            let ([low, high], tick) = range(numbers.into_iter());
            assert!(low < high && low <= numbers[0] && numbers[1] <= high);
            assert!(ticks([low, high], tick).count() >= 2);
        }
        let ticks: Vec<f64> = ticks([1871.0, 1970.0], 20.0).collect();
        assert_eq!(ticks, [1880.0, 1900.0, 1920.0, 1940.0, 1960.0]);
    }

    #[test]
    fn all_observations_are_drawn_and_names_are_escaped() {
        let mut series = Series::nile();
        series.name = "a<b".into();
        let exact = kalman::filter(&NILE, &series.values);
        let outcome = Outcome {
            means: exact.means.clone(),
            bands: exact.means.iter().map(|m| [m - 50.0, m + 50.0]).collect(),
            ..Outcome::default()
        };
        let svg = svg(&series, &outcome, &exact);
        // 100 observations, and one circle in the legend.
        assert_eq!(svg.matches("<circle").count(), 101);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(!svg.contains("NaN") && svg.trim_end().ends_with("</svg>"));
    }
}
