//! Curves: times of operations by one number.

use std::path::Path;

use crate::common::{Bench, Subject, time};
use crate::plot;

/// A plot's lines, which all have the same horizontal axis.
pub struct Curve<'a> {
    bench: &'a Bench,
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    lines: Vec<Line>,
}

pub struct Line {
    pub label: String,
    /// For a competitor: the label of our line.
    pub peer_of: Option<String>,
    pub points: Vec<Point>,
}

/// A point of a line; times in nanoseconds.
pub struct Point {
    pub x: usize,
    pub min: f64,
    pub median: f64,
}

impl<'a> Curve<'a> {
    /// Returns a curve without points, or `None` if the command line does not select it.
    pub fn new(
        bench: &'a Bench,
        name: &'static str,
        title: &'static str,
        axis: &'static str,
    ) -> Option<Curve<'a>> {
        bench.wants(&format!("growth/{name}")).then(|| Curve {
            bench,
            name,
            title,
            axis,
            lines: Vec::new(),
        })
    }

    /// Measures the subjects in turns, and adds a point to the line of each. A name with a `/` is
    /// that of a competitor: the label of our line, and its own.
    pub fn measure(&mut self, x: usize, subjects: Vec<Subject<'_>>) {
        for (name, [min, median]) in self.bench.measure(subjects) {
            if self.bench.is_json() {
                println!(
                    r#"{{"name": "growth/{}/{name}", "x": {x}, "median_ns": {median:.1}, "min_ns": {min:.1}}}"#,
                    self.name
                );
            }
            let (label, peer_of) = match name.split_once('/') {
                Some((ours, peer)) => (peer.to_owned(), Some(ours.to_owned())),
                None => (name, None),
            };
            let lines = &mut self.lines;
            let known = lines.iter().position(|line| line.label == label);
            let at = known.unwrap_or_else(|| {
                let points = Vec::new();
                lines.push(Line {
                    label,
                    peer_of,
                    points,
                });
                lines.len() - 1
            });
            lines[at].points.push(Point { x, min, median });
        }
    }

    /// Prints the points, and draws them if the command line names a directory for it.
    pub fn finish(self) {
        if !self.bench.is_json() {
            self.print();
        }
        if let Some(directory) = self.bench.value("--plot") {
            // cargo runs a bench in the directory of its package.
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
            let directory = root.expect("the workspace").join(directory);
            std::fs::create_dir_all(&directory).expect("a directory for the plots");
            let path = directory.join(format!("{}.svg", self.name));
            plot::draw(&path, self.title, self.axis, &self.lines)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    fn print(&self) {
        println!("\ngrowth/{}: {}", self.name, self.title);
        for line in &self.lines {
            let label = match &line.peer_of {
                Some(ours) => format!("{ours}/{}", line.label),
                None => line.label.clone(),
            };
            println!("{:>24}{:>12}{:>12}  {label}", self.axis, "min", "median");
            for point in &line.points {
                println!(
                    "{:>24}{:>12}{:>12}",
                    point.x,
                    time(point.min),
                    time(point.median)
                );
            }
        }
    }
}
