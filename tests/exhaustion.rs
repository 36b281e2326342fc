//! Exhausted resources: each case is an error with numbers and a remedy, and afterwards everything
//! works as before.

#[path = "exhaustion/common.rs"]
mod common;
#[path = "exhaustion/group.rs"]
mod group;
#[path = "exhaustion/limits.rs"]
mod limits;
#[path = "exhaustion/machine.rs"]
mod machine;
#[path = "exhaustion/own_shm.rs"]
mod own_shm;
#[path = "exhaustion/small_shm.rs"]
mod small_shm;
mod support;
#[path = "exhaustion/table.rs"]
mod table;

fn main() {
    let tests: Vec<_> = [
        small_shm::TESTS,
        group::TESTS,
        limits::TESTS,
        machine::TESTS,
        table::TESTS,
    ]
    .concat();
    support::run(&tests);
}
