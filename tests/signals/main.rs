//! Signals to a whole program, such as Ctrl-C and Ctrl-Z of a terminal. The parent determines their
//! effect; its workers go on, stop or end with it.

mod dispositions;
mod stops;
#[path = "../support/mod.rs"]
mod support;
mod whole_program;

use dispositions::dispositions;
use support::{Child, Flag, Pipe};

/// Environment variable of a pool's program: the flag to raise if a worker runs `main` as a user's
/// program.
const RAN_MAIN: &str = "NDSHM_TEST_RAN_MAIN";

fn main() {
    ndshm::become_worker();
    if let Ok(flag) = std::env::var(RAN_MAIN) {
        return Flag::raise(flag.parse().unwrap());
    }
    if std::env::args().nth(1).as_deref() == Some("--show-dispositions") {
        support::set_signals();
        return print!("{}", dispositions());
    }
    support::run_tests![
        whole_program::a_program_with_a_handler_finishes_its_step,
        whole_program::a_signal_without_a_handler_ends_parent_and_workers,
        whole_program::signals_while_workers_start_reach_the_parent_alone,
        whole_program::a_worker_whose_parent_was_killed_does_not_run_main,
        whole_program::a_name_stays_after_a_signal_until_the_next_start,
        stops::workers_stop_and_continue_with_their_group,
        stops::workers_continue_if_their_parent_did_not_stop,
        stops::a_worker_stopped_on_purpose_stays_stopped,
        dispositions::an_ignored_signal_stays_ignored_in_workers,
        dispositions::programs_that_a_kernel_starts_have_default_signals,
        dispositions::workers_have_the_mask_of_their_parent,
        dispositions::tests_set_the_signals_that_they_rely_on,
    ];
}

/// Signals that terminals, batch systems and service managers send to whole programs.
const SIGNALS: [i32; 6] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Forks a child in a process group of its own, as a shell starts a program.
fn program(life: impl FnOnce()) -> Child {
    Child::fork(|| {
        // SAFETY: no precondition.
        assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
        // SIGQUIT must leave no core file.
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the limit lives during the call.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
        assert_eq!(set, 0);
        life();
    })
}

fn signal_group(leader: u32, signal: i32) {
    // SAFETY: no precondition; the group's leader was not waited for.
    assert_eq!(unsafe { libc::kill(-(leader as i32), signal) }, 0);
}

/// The pipe to which a handler writes. Crates that run handlers on a thread do the same.
static mut HANDLED: i32 = -1;

extern "C" fn tell(signal: i32) {
    // SAFETY: the value is set before the handler is, and does not change.
    let handled = unsafe { HANDLED };
    let number = told(signal).to_le_bytes();
    // SAFETY: the eight bytes live during the call.
    unsafe { libc::write(handled, number.as_ptr().cast(), 8) };
}

/// Returns the number that a handler writes: the signal, and the handler's process.
fn told(signal: i32) -> u64 {
    told_by(std::process::id(), signal)
}

fn told_by(pid: u32, signal: i32) -> u64 {
    u64::from(pid) << 32 | signal as u64
}

fn install(signal: i32, handler: extern "C" fn(i32), pipe: &Pipe) {
    // SAFETY: there is one thread, and no handler yet.
    unsafe { HANDLED = pipe.writer() };
    // SAFETY: the handlers of this file make system calls only, which is allowed at any point.
    let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is a place for a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was made empty.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: the set was filled above.
    unsafe { set.assume_init() }
}
