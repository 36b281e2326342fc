//! How many instructions the hot paths take: exact and repeatable, however busy the machine is.
//!
//! `cargo bench --bench instructions` prints them beside their ceilings, which `ceilings.txt` holds;
//! `--json` prints a line each; `--check` fails if one has left its range (see `ceilings.rs`);
//! `--update` makes what was counted the ceilings.

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
    println!("single steps are known for x86-64 and AArch64 alone");
}
