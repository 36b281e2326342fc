//! Time of one operation against the number of what exists: arrays, names, seats, tiles, jobs,
//! segments. `--plot DIR` writes a plot of each curve into a directory of the repository.

mod arrays;
#[path = "../common/mod.rs"]
mod common;
mod curve;
mod names;
mod plot;
mod queue;
mod seats;
mod segments;
mod tiles;

use common::Bench;
use ndshm::{HandleTable, Segment};

fn main() {
    ndshm::become_worker();
    let bench = Bench::parse();
    // The curves that fork come first, while this process is small.
    seats::curve(&bench);
    tiles::curve(&bench);
    segments::curve(&bench);
    queue::curve(&bench);
    names::curve(&bench);
    arrays::curve(&bench);
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat")
}

/// Returns the numbers 1, 3, 10, 30, .. from `first` to `last`, which are both among them. A quick run
/// ends at 1000.
fn steps(bench: &Bench, first: usize, last: usize) -> Vec<usize> {
    let last = if bench.is_quick() {
        last.min(1000)
    } else {
        last
    };
    let powers = (0..9).flat_map(|power| [1, 3].map(|digit| digit * 10usize.pow(power)));
    let between = powers.filter(|&number| first < number && number < last);
    [first].into_iter().chain(between).chain([last]).collect()
}
