//! Large copies on several threads: one core does not fill the memory's bandwidth.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::Pid;

/// Bytes that one thread takes at a time; from twice as many on there is a second thread. Copying
/// them takes about a millisecond, ten times as long as starting a thread.
pub(crate) const PIECE: usize = 8 << 20;

/// The longest time for which an ended thread may still be listed in the process.
const LISTED: Duration = Duration::from_millis(100);

/// Runs `work` for every part, on as many threads as there are cores and at most `most`, including
/// this one. After an error no further part is taken, and an error is returned. When the call
/// returns, the system lists none of the other threads any more, so a fork right after it finds one
/// thread.
pub(crate) fn for_each<P: Send, E: Send>(
    parts: Vec<P>,
    most: usize,
    work: impl Fn(P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = cores.min(most).min(parts.len()).saturating_sub(1);
    if helpers == 0 {
        return parts.into_iter().try_for_each(work);
    }
    let parts = Mutex::new(parts.into_iter());
    let run = || {
        // A closure of its own: the lock is not held during the work.
        let next = || lock(&parts).next();
        while let Some(part) = next() {
            if let Err(error) = work(part) {
                lock(&parts).by_ref().for_each(drop);
                return Err(error);
            }
        }
        Ok(())
    };
    let (outcome, ended) = thread::scope(|scope| {
        let helper = || (run(), rustix::thread::gettid());
        // Do without threads that cannot be started.
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, helper).ok())
            .collect();
        let mut outcome = run();
        let mut ended = Vec::new();
        for helper in helpers {
            match helper.join() {
                Ok((of_helper, id)) => {
                    outcome = outcome.and(of_helper);
                    ended.push(id);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (outcome, ended)
    });
    wait_until_unlisted(&ended);
    outcome
}

/// Waits until the system lists none of these threads, at most [`LISTED`]. The caller has joined
/// them.
///
/// A joined thread may be listed for some microseconds more, and a pool that is about to fork would
/// refuse because of it.
fn wait_until_unlisted(ended: &[Pid]) {
    let start = Instant::now();
    for id in ended {
        let listed = PathBuf::from(format!("/proc/self/task/{}", id.as_raw_nonzero()));
        while listed.exists() && start.elapsed() < LISTED {
            thread::yield_now();
        }
    }
}

/// Locks the remaining parts, also after a panic of another thread.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_part_is_done_once() {
        let mut done = vec![0u8; 1000];
        let parts: Vec<&mut [u8]> = done.chunks_mut(7).collect();
        let outcome = for_each(parts, usize::MAX, |part| {
            part.iter_mut().for_each(|byte| *byte += 1);
            Ok::<(), ()>(())
        });
        assert_eq!(outcome, Ok(()));
        assert!(done.iter().all(|&byte| byte == 1));
        assert_eq!(for_each(Vec::<u8>::new(), 2, Err), Ok(()));
    }

    #[test]
    fn a_thread_is_gone_when_the_call_returns() {
        for _ in 0..500 {
            let threads = Mutex::new(HashSet::new());
            let outcome = for_each(vec![(); 8], 4, |()| {
                lock(&threads).insert(rustix::thread::gettid());
                thread::yield_now();
                Ok::<(), ()>(())
            });
            assert_eq!(outcome, Ok(()));
            let me = rustix::thread::gettid();
            for thread in lock(&threads).iter().filter(|&&thread| thread != me) {
                let listed = format!("/proc/self/task/{}", thread.as_raw_nonzero());
                assert!(!PathBuf::from(&listed).exists(), "{listed}");
            }
        }
    }

    /// Uses a thread that ends slowly, as if it had lost its processor on the way.
    #[test]
    fn a_listed_thread_is_waited_for() {
        let (tell, told) = std::sync::mpsc::channel();
        let ending = thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            thread::sleep(LISTED / 5);
        });
        let id = told.recv().unwrap();
        wait_until_unlisted(&[id]);
        assert!(ending.is_finished());
    }

    #[test]
    fn after_an_error_no_part_is_begun() {
        let begun = Mutex::new(HashSet::new());
        let outcome = for_each((0..10_000).collect(), 8, |part| {
            begun.lock().unwrap().insert(part);
            if part == 3 { Err(part) } else { Ok(()) }
        });
        assert_eq!(outcome, Err(3));
        let begun = begun.lock().unwrap().len();
        assert!(begun < 10_000, "all were begun");
    }
}
