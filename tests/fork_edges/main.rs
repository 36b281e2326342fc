//! Edge cases of fork and exec: which participants count as alive, and which parts of the parent's
//! state a child has. The rules are those of the chapter `guide::faults`.

mod exec;
mod forks;
mod liveness;
#[path = "../support/mod.rs"]
mod support;

use exec::list_descriptors;
use ndarray::Ix1;
use ndshm::Handle;

type Vector = Handle<u64, Ix1>;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--list-descriptors") {
        return list_descriptors();
    }
    support::run_tests![
        liveness::a_killed_parent_is_dead_to_its_children,
        liveness::a_child_that_crashes_is_reaped,
        liveness::an_idle_child_keeps_its_parent_alive,
        liveness::a_name_outlives_its_last_killed_process,
        liveness::a_zombie_is_dead,
        liveness::a_pid_of_another_namespace_is_ignored,
        liveness::a_child_keeps_the_name_that_its_parent_leaves,
        exec::a_started_program_inherits_nothing,
        exec::a_started_program_keeps_nobody_alive,
        exec::exec_ends_a_participant,
        exec::a_participant_works_after_its_descriptor_was_closed,
        exec::a_program_started_by_a_child_inherits_nothing,
        forks::an_array_under_construction_belongs_to_the_parent,
        forks::threads_of_a_child_use_what_it_inherited,
        forks::a_thread_may_fork_a_child_that_uses_the_tables,
        forks::a_child_waits_for_no_lock_of_other_threads,
        forks::a_child_counts_only_its_own_leases,
    ];
}
