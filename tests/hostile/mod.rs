//! Hostile bytes in a segment, for the long run beside this folder and for the fuzzer in `fuzz`.

pub mod changes;
mod names;
mod populate;
pub mod world;
