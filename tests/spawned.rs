//! Programs that are started as workers: some become workers, others must not.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use ndarray::Axis;
use ndshm::error::PoolError;
use ndshm::{Pool, Segment};
use support::{Child, table};

/// Environment variable: the role that this program plays instead of running the tests.
const ROLE: &str = "NDSHM_TEST_ROLE";

/// The variable that carries a worker's specification.
const ORDER: &str = "NDSHM_WORKER";

/// The number of programs of this kind that have started each other. It stops them if nothing else
/// does.
const GENERATION: &str = "NDSHM_TEST_GENERATION";
const LAST_GENERATION: u32 = 3;

/// Exit codes of the roles.
const REFUSED: i32 = 7;
const STARTED: i32 = 8;
const OTHER: i32 = 9;

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("forks first") => forks_first(false),
        Ok("forks first, then asks") => forks_first(true),
        Ok("has more rights") => has_more_rights(),
        _ => {}
    }
    ndshm::become_worker();
    if std::env::var(ROLE).as_deref() == Ok("is started by a worker") {
        support::exit_at_once(outcome(Pool::spawn(&table(), 1).map(drop)));
    }
    support::run_tests![
        spawn_refuses_in_a_program_that_forks_before_it_becomes_a_worker,
        a_program_started_by_a_worker_may_have_workers,
        a_set_user_id_program_does_not_become_a_worker,
    ];
}

fn outcome(started: Result<(), PoolError>) -> i32 {
    match started {
        Err(PoolError::NotAWorker | PoolError::SetUserId) => REFUSED,
        Ok(()) => STARTED,
        Err(error) => {
            eprintln!("{error}");
            OTHER
        }
    }
}

/// Runs as a program that forks in `main` before it becomes a worker, if it ever does. Without a
/// refusal its own workers would do the same, and theirs.
fn forks_first(asks: bool) -> ! {
    let generation = std::env::var(GENERATION).map_or(0, |number| number.parse().unwrap());
    if generation == LAST_GENERATION {
        support::exit_at_once(OTHER);
    }
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var(GENERATION, (generation + 1).to_string()) };
    let child = Child::fork(|| {
        if asks {
            ndshm::become_worker();
        }
        support::exit_at_once(outcome(Pool::spawn(&table(), 1).map(drop)));
    });
    let status = child.wait_within(support::DEADLINE);
    support::exit_at_once(status.and_then(|status| status.code()).unwrap_or(OTHER))
}

fn spawn_refuses_in_a_program_that_forks_before_it_becomes_a_worker() {
    let table = table();
    // A process that asks without having been started as a worker by its parent ends at once.
    for (role, ends_with) in [("forks first", REFUSED), ("forks first, then asks", 1)] {
        // SAFETY: this test's process has one thread.
        unsafe { std::env::set_var(ROLE, role) };
        match Pool::spawn(&table, 1).unwrap_err() {
            PoolError::WorkerNotStarted { code, .. } => assert_eq!(code, Some(ends_with), "{role}"),
            other => panic!("{role}: {other}"),
        }
    }
}

/// Checks a program that a worker starts: it is no worker, and may have workers.
fn a_program_started_by_a_worker_may_have_workers() {
    let table = table();
    let x = table.zeros::<u64, _>(1).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::spawn(&table, 1).unwrap();
    let codes = pool
        .map_collect(&tiles, &(), |_, (), _| {
            assert!(std::env::var_os(ORDER).is_none());
            let program = std::env::current_exe().unwrap();
            let status = Command::new(program)
                .env(ROLE, "is started by a worker")
                .status();
            status.unwrap().code().unwrap_or(OTHER)
        })
        .unwrap();
    assert_eq!(codes, [STARTED]);
}

/// Runs as a set-user-id program that received a worker's specification and standard input from a
/// user.
fn has_more_rights() -> ! {
    // SAFETY: the call has no precondition.
    if unsafe { libc::getauxval(libc::AT_SECURE) } == 0 {
        support::exit_at_once(OTHER);
    }
    // Does not return if it trusts the specification.
    ndshm::become_worker();
    support::exit_at_once(outcome(Pool::spawn(&table(), 1).map(drop)))
}

/// A file. Drop removes it.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn a_set_user_id_program_does_not_become_a_worker() {
    const NOBODY: u32 = 65534;
    // SAFETY: the call has no precondition.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can make a program that runs with root's rights");
        return;
    }
    let name = format!("ndshm-test-setuid-{}", std::process::id());
    let copy = Copy(std::env::temp_dir().join(name));
    std::fs::copy("/proc/self/exe", &copy.0).unwrap();
    std::fs::set_permissions(&copy.0, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let segment = Segment::anonymous().unwrap();
    let order = format!("{},0,1,1,0,08:01/77/1a0", std::process::id());
    let status = Command::new(&copy.0)
        .uid(NOBODY)
        .gid(NOBODY)
        .env(ROLE, "has more rights")
        .env(ORDER, order)
        .stdin(segment.inheritable_fd().unwrap())
        .status()
        .unwrap();
    if status.code() == Some(OTHER) {
        println!(
            "skipped: programs in {:?} get no other rights",
            copy.0.parent()
        );
        return;
    }
    assert_eq!(status.code(), Some(REFUSED), "{status}");
}
