//! The cheapest clock of the machine, in ticks.

use std::time::{Duration, Instant};

/// Returns the time in ticks. The calls before it have ended, and those after it have not begun.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { _mm_lfence() };
    // SAFETY: every x86-64 processor has a time stamp counter, and Linux lets programs read it.
    unsafe { _rdtsc() }
}

/// Returns the time in ticks, which are nanoseconds here.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn ticks() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Returns the number of ticks in a nanosecond.
///
/// # Panics
///
/// If the ticks do not have an even length: two measurements differ by more than a hundredth.
pub fn ticks_per_ns() -> f64 {
    let rates: Vec<f64> = (0..2).map(|_| rate(Duration::from_millis(50))).collect();
    let differ = (rates[0] / rates[1] - 1.0).abs();
    assert!(differ < 0.01, "ticks of uneven length: {rates:?} in a ns");
    rates[1]
}

fn rate(window: Duration) -> f64 {
    let (start, first) = both();
    std::thread::sleep(window);
    let (end, last) = both();
    (last - first) as f64 / (end - start).as_nanos() as f64
}

/// Returns the time of both clocks, at nearly the same instant.
fn both() -> (Instant, u64) {
    let reading = |_| {
        let before = ticks();
        let time = Instant::now();
        let after = ticks();
        (after - before, (time, before))
    };
    // A reading that was interrupted is wider than another one.
    let readings = (0..32).map(reading);
    readings.min_by_key(|&(width, _)| width).expect("32").1
}
