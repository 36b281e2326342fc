//! The harness of the models: runs each model to its end, counts its executions and prints the
//! count.
//!
//! A model explores every interleaving within its preemption bound, and every value that the memory
//! model lets a load return. A model that is cut off proves nothing, so it fails.

#[cfg(all(loom, not(shuttle)))]
mod harness;
#[cfg(all(loom, not(shuttle)))]
pub mod steer;
#[cfg(all(loom, not(shuttle)))]
pub use harness::{
    assert_all_free, beside, beside_death, check, check_deaths, check_deaths_in_case, dies,
    is_busy, join, must_race, options, segment, tables,
};
