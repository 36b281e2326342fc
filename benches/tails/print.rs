//! Prints the rows of the table.

use crate::common::{Bench, time};
use crate::record::{CAUSES, Tail};

pub fn head(bench: &Bench) {
    match (bench.is_json(), bench.has("--markdown")) {
        (true, _) => {}
        (_, true) => println!(
            "| figure | calls | p50 | p99 | p99.9 | worst | preempted | faults | slow calls and their causes |\n\
             |---|---|---|---|---|---|---|---|---|"
        ),
        _ => println!(
            "{:<36}{:>9}{:>11}{:>11}{:>11}{:>11}{:>11}{:>8}",
            "", "calls", "p50", "p99", "p99.9", "worst", "preempted", "faults"
        ),
    }
}

/// Prints a figure. The mark `!` and the causes of its slow calls follow if its p99.9 is more than 100
/// times its median.
pub fn tail(bench: &Bench, name: &str, tail: &Tail) {
    let Tail { calls, slow, .. } = tail;
    let faults = tail.counts.faults;
    let preempted = tail.counts.preempted + tail.counts.workers;
    let mark = if tail.is_long() { " !" } else { "" };
    let times = [tail.p50, tail.p99, tail.p999, tail.worst];
    let worst_by = tail.worst_by.map_or("", |cause| CAUSES[cause]);
    if bench.is_json() {
        let [p50, p99, p999, worst] = times;
        println!(
            r#"{{"name": "{name}", "calls": {calls}, "p50_ns": {p50:.1}, "p99_ns": {p99:.1}, "p99_9_ns": {p999:.1}, "worst_ns": {worst:.1}, "worst_by": "{worst_by}", "preempted": {preempted}, "faults": {faults}, "slow_from_ns": {slow:.1}, "slow": {:?}}}"#,
            tail.causes
        );
        return;
    }
    let [p50, p99, p999, worst] = times.map(time);
    let causes = causes(tail);
    if bench.has("--markdown") {
        println!(
            "| {name}{mark} | {calls} | {p50} | {p99} | {p999} | {worst} {worst_by} | {preempted} | {faults} | {causes} |"
        );
    } else {
        println!(
            "{name:<36}{calls:>9}{p50:>11}{p99:>11}{p999:>11}{worst:>11}{preempted:>11}{faults:>8}{mark}"
        );
        if tail.is_long() {
            println!("    {causes}; the worst: {worst_by}");
        }
    }
}

/// Returns the number of slow calls by cause.
fn causes(tail: &Tail) -> String {
    let counts = tail.causes.iter().zip(CAUSES);
    let parts: Vec<String> = counts
        .filter(|(count, _)| **count > 0)
        .map(|(count, cause)| format!("{count} {cause}"))
        .collect();
    match parts[..] {
        [] => "none".into(),
        _ => format!("over {}: {}", time(tail.slow), parts.join(", ")),
    }
}
