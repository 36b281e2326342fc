//! The harness of the models: runs one to its end, counts its executions, and says so.
//!
//! A model explores every interleaving within its preemption bound, and every value that the memory
//! model lets a load return. One that is cut off proves nothing, so that here it fails.

#[cfg(all(loom, not(shuttle)))]
mod harness;
#[cfg(all(loom, not(shuttle)))]
pub mod steer;
#[cfg(all(loom, not(shuttle)))]
pub use harness::{
    assert_all_free, check, check_deaths, dies, is_busy, must_race, options, segment,
};
