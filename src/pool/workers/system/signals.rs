//! Signals in worker processes: the parent acts on them, and the workers follow the parent.
//!
//! A terminal, a batch system or `kill -- -PGID` signals every process of a program at once. If
//! each process acted on it, the workers would be gone before the parent's handler could let the
//! step finish. So such signals do nothing in a worker. If the parent dies of one, the system ends
//! its workers (`process::end_with_parent`).

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr;

use libc::{c_int, sigaction, sigset_t};

/// Signals that ask a whole program to end or to save its state.
const LEFT_TO_PARENT: [c_int; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Signals that a process causes itself. An inherited handler for them (such as the runtime's
/// report of a stack overflow) is right in a worker too.
const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// Signals that by default are ignored or stop the process.
const HARMLESS: [c_int; 7] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Does nothing. Unlike an ignored signal, a handler ends at an exec, so a program that a kernel
/// starts has the default actions.
extern "C" fn nothing(_: c_int) {}

/// Blocks signals in this thread until it is dropped.
pub(super) struct Blocked {
    before: sigset_t,
    /// Not `Send`: a mask belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Blocked {
    /// Blocks all signals, because a forked child could run its parent's handlers for a moment.
    pub(super) fn all() -> Blocked {
        let mut all = MaybeUninit::<sigset_t>::zeroed();
        // SAFETY: `all` is valid memory for a set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: a set is an array of integers, for which zeros are a valid value too.
        Blocked::these(&unsafe { all.assume_init() })
    }

    /// Blocks the signals that a worker leaves to its parent. A program that is started meanwhile
    /// inherits the mask.
    pub(super) fn left_to_parent() -> Blocked {
        Blocked::these(&set_of(&LEFT_TO_PARENT))
    }

    fn these(signals: &sigset_t) -> Blocked {
        let mut before = set_of(&[]);
        // SAFETY: both sets live during the call.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, signals, &raw mut before) };
        Blocked {
            before,
            _thread: PhantomData,
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set lives during the call; the old one is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}

/// Sets this process's signal actions for a worker, then unblocks the signals.
///
/// - Signals in [`LEFT_TO_PARENT`] do nothing, unless they were already ignored.
/// - Handlers of the parent do not run here, except those for faults: a handler might write to a
///   pipe or change a file that the parent shares.
pub(super) fn leave_to_parent(blocked: Option<Blocked>) {
    for signal in 1..=libc::SIGRTMAX() {
        let Some(inherited) = action_of(signal) else {
            continue;
        };
        let has_handler = inherited != libc::SIG_DFL && inherited != libc::SIG_IGN;
        let is_left = LEFT_TO_PARENT.contains(&signal) && inherited != libc::SIG_IGN;
        if is_left || has_handler && !FAULTS.contains(&signal) {
            set_action(
                signal,
                match HARMLESS.contains(&signal) {
                    true => libc::SIG_DFL,
                    false => nothing as extern "C" fn(c_int) as libc::sighandler_t,
                },
            );
        }
    }
    drop(blocked);
    let left = set_of(&LEFT_TO_PARENT);
    // SAFETY: the set lives during the call; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const left, ptr::null_mut()) };
}

/// Returns the action of a signal, or `None` if the system or its library reserves the signal.
fn action_of(signal: c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: `action` is valid memory for the answer, and nothing is changed.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: `action` was filled, or consists of zeros, which are valid for each of its fields.
    let action = unsafe { action.assume_init() };
    (asked == 0).then_some(action.sa_sigaction)
}

fn set_action(signal: c_int, handler: libc::sighandler_t) {
    let action = sigaction {
        sa_sigaction: handler,
        sa_mask: set_of(&[]),
        sa_flags: libc::SA_RESTART,
        sa_restorer: None,
    };
    // SAFETY: the handler is the default action or a function that does nothing, which is allowed
    // at any point of a program. The system refuses SIGKILL and SIGSTOP and keeps their actions.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

fn set_of(signals: &[c_int]) -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: `set` is valid memory for a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: the set was made empty above, and the number is that of a signal.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: `set` was filled above.
    unsafe { set.assume_init() }
}
