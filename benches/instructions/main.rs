//! Counts the instructions of the hot paths: exact and repeatable, however busy the machine is.
//!
//! `cargo bench --bench instructions` prints the counts beside their ceilings in `ceilings.txt`.
//! `--json` prints one line per call. `--check` fails if a count is out of range (see
//! `ceilings.rs`). `--update` writes the counts as the new ceilings.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod ceilings;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod count;
#[path = "../../tests/support/mod.rs"]
mod support;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[allow(dead_code, reason = "its other half is for kills at an instruction")]
#[path = "../../tests/steps/tracer.rs"]
mod tracer;

fn main() {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    count::main();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    println!("single-stepping is supported on x86-64 and AArch64 only");
}
