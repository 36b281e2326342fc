//! Hostile bytes in a segment. The long run beside this folder and the fuzzer in `fuzz` use them.

pub mod changes;
mod names;
mod populate;
pub mod world;
