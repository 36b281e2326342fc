//! The two waits of a mailbox: a parent for an event, and a worker for a job. Both spin briefly and
//! then sleep.

use core::time::Duration;

use super::mailbox::{Job, Mailbox};
use super::spin::Spin;

/// Waits until `is_over`, an event after `seen`, or `timeout`. May return without a reason.
///
/// The caller must read `seen` before it tests its condition: later changes are then later events.
pub(super) fn sleep_after(
    mailbox: &Mailbox<'_>,
    spin: &Spin<'_>,
    seen: u64,
    timeout: Duration,
    is_over: impl Fn() -> bool,
) {
    let moved = || (is_over() || mailbox.events() != seen).then_some(());
    if spin.until(moved).is_none() {
        mailbox.wait_event(seen, timeout);
    }
}

/// Waits for an open job other than number `last`. Calls `nap` before each sleep, which returns the
/// length of the sleep, or `None` to end the wait.
pub(super) fn next_job(
    mailbox: &Mailbox<'_>,
    spin: &Spin<'_>,
    last: u64,
    mut nap: impl FnMut() -> Option<Duration>,
) -> Option<Job> {
    let is_new = |job: &Job| job.is_open() && job.number() != last;
    loop {
        let seen = mailbox.job();
        if is_new(&seen) {
            return Some(seen);
        }
        if let Some(job) = spin.until(|| Some(mailbox.job()).filter(is_new)) {
            return Some(job);
        }
        mailbox.sleep(seen, nap()?);
    }
}
