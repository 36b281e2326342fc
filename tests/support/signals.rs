//! The signals that tests rely on.

/// Resets all signals to the state of a program in the foreground of a terminal. Shells start
/// background jobs with SIGINT ignored, and other programs ignore SIGCHLD, which loses the exit
/// status of children. Each program that forks for its tests calls this first.
pub fn set_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `action` is a place for the answer, and nothing is changed.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
        // SAFETY: it was filled, or is made of zeros, which are a value of each of its fields.
        let action = unsafe { action.assume_init() };
        if asked == 0 && action.sa_sigaction == libc::SIG_IGN {
            // SAFETY: the default action is a valid one.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // The state that Rust's runtime sets.
    // SAFETY: ignoring is a valid action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `none` is a place for a set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was made above; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}
