//! Kills after each instruction: each operation runs in a child that is killed after exactly k of
//! its instructions, for every k. Then a survivor must find everything in order.
//!
//! `cargo test --test steps` kills at some of them, spread evenly; `cargo test --release --test
//! steps -- --all` at each one, and within each system call. `--only TEXT` selects one operation,
//! `--deaths N` the number of kills of each, `--at K` one place.

#[path = "../support/mod.rs"]
mod support;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod arrays;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod bundles;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod foreign;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod ground;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod names;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod operations;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod participants;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod pools;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod queues;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rounds;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod run;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod segments;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod shared;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod table;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tracer;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod waiting;

fn main() {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    table::main();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    println!("skipped: single steps are implemented for x86-64 and AArch64 only");
}
