//! Environment variables by which `cargo loom-orderings` steers the models that it runs.

use core::sync::atomic::Ordering;
use std::fmt::Write;
use std::sync::LazyLock;

use ndshm::model::{OrderingSite, Part, record_sites, sites, weaken};

/// The ordering that replaces the one in the source: a line of [`print()`].
pub const WEAKEN: &str = "NDSHM_WEAKEN";
/// The file into which a model writes the orderings that it used, a line of [`print()`] each.
pub const SITES: &str = "NDSHM_SITES";
/// The highest preemption bound.
pub const BOUND: &str = "NDSHM_BOUND";

/// Formats an ordering as `file line column part ordering`.
pub fn print(site: &OrderingSite, order: Ordering) -> String {
    let OrderingSite {
        file,
        line,
        column,
        part,
    } = site;
    format!("{file} {line} {column} {part:?} {order:?}")
}

/// Parses a line of [`print()`].
pub fn parse(text: &str) -> Option<(OrderingSite, Ordering)> {
    let mut words = text.split(' ');
    let site = OrderingSite {
        file: words.next()?.to_owned(),
        line: words.next()?.parse().ok()?,
        column: words.next()?.parse().ok()?,
        part: match words.next()? {
            "Look" => Part::Look,
            "Change" => Part::Change,
            _ => return None,
        },
    };
    let order = match words.next()? {
        "Relaxed" => Ordering::Relaxed,
        "Acquire" => Ordering::Acquire,
        "Release" => Ordering::Release,
        "AcqRel" => Ordering::AcqRel,
        _ => return None,
    };
    Some((site, order))
}

struct Steer {
    sites: Option<String>,
    bound: usize,
}

static STEER: LazyLock<Steer> = LazyLock::new(|| {
    if let Ok(text) = std::env::var(WEAKEN) {
        let (site, order) = parse(&text).unwrap_or_else(|| panic!("{WEAKEN}: invalid {text:?}"));
        weaken(site, order).expect("only one ordering is weakened");
    }
    let sites = std::env::var(SITES).ok();
    if sites.is_some() {
        record_sites();
    }
    let bound = std::env::var(BOUND).map_or(usize::MAX, |bound| {
        bound
            .parse()
            .unwrap_or_else(|_| panic!("{BOUND}: {bound:?} is not a number"))
    });
    Steer { sites, bound }
});

/// Returns the bound of an exploration. Call it before the exploration.
pub(crate) fn begin(bound: usize) -> usize {
    bound.min(STEER.bound)
}

/// Writes the used orderings to the file in [`SITES`]. Call it when a model has passed.
pub(crate) fn end() {
    let Some(path) = &STEER.sites else { return };
    let mut text = String::new();
    for (site, order) in sites() {
        let _ = writeln!(text, "{}", print(&site, order));
    }
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{SITES}: {path}: {error}"));
}
