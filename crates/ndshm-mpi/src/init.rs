//! The start and the end of a job: every failure of one rank ends all of them.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mpi::Threading;
use mpi::topology::SimpleCommunicator;
use mpi::traits::Communicator;

use crate::error::{Error, Result};
use crate::launcher;

/// A job of MPI, of which this process is a rank: the result of [`init`].
#[derive(Debug)]
pub struct Job {
    /// MPI is used by the thread that has initialised it.
    not_send: PhantomData<*const ()>,
}

impl Job {
    /// Returns the communicator of all ranks.
    pub fn world(&self) -> SimpleCommunicator {
        SimpleCommunicator::world()
    }

    /// Sets the time that [`Node::from_comm`](crate::Node::from_comm) waits for ranks that did not
    /// call, and that nodes made by it [wait](crate::Node::set_patience); 10 minutes by default. Not
    /// collective.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// use std::time::Duration;
    ///
    /// // A rank reads its files for half an hour before.
    /// job.set_patience(Duration::from_secs(3600));
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// # let _ = node;
    /// # Ok(()) });
    /// ```
    pub fn set_patience(&self, patience: Duration) {
        *PATIENCE.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }
}

static PATIENCE: Mutex<Duration> = Mutex::new(Duration::from_secs(600));

/// Returns the time that calls wait for other ranks, where a node has no other.
pub(crate) fn patience() -> Duration {
    *PATIENCE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process that has initialised MPI. Its forked children are no ranks.
static RANK_PROCESS: OnceLock<u32> = OnceLock::new();

/// Exit code of a rank that panicked.
const PANICKED: c_int = 101;

/// Exit code of a rank in which another thread than that of `main` called `exit(0)`.
const EXITED_BESIDE_MAIN: c_int = 1;

/// Initialises MPI, such that a failure of one rank ends the job.
///
/// A rank that goes into `MPI_Finalize` waits there for all others. So a rank that fails must not
/// get there, or the job hangs. After this call
/// - a panic aborts the job, with its message and code 101, also a panic that is caught later;
/// - an error that `main` returns aborts the job after its text is printed, and so does
///   [`std::process::exit`] with a code other than 0, or in another thread than that of `main`;
/// - a `main` that ends well, or `exit(0)` in its thread, finalises MPI.
///
/// A rank that is killed calls nothing. Launchers end the job then; `srun` does it with
/// `--kill-on-bad-exit`.
///
/// # Workers
/// Workers of [`Pool::spawn`](ndshm::Pool::spawn) are the same program, started anew, and are no
/// ranks. `init` calls [`become_worker`](ndshm::become_worker) first. A program that does anything
/// before `init` calls `become_worker` itself, in the first line of `main`:
///
/// ```no_run
/// fn main() -> ndshm_mpi::Result<()> {
///     ndshm::become_worker();
///     let arguments: Vec<String> = std::env::args().collect();
///     let job = ndshm_mpi::init()?;
///     let node = ndshm_mpi::Node::from_comm(&job.world())?;
///     // ...
/// #   drop((arguments, node));
///     Ok(())
/// }
/// ```
///
/// The variables by which the launcher tells a process its rank (`OMPI_*`, `PMIX_*`, `PMI_*` and
/// their like) are removed from the environment, so no program that a rank starts joins the job by
/// mistake.
///
/// [`Pool::fork`](ndshm::Pool::fork) works before `init`, and its workers serve on after it. After
/// `init` it is refused: a network driver's registered memory does not survive a fork. Every MPI
/// has threads that make ndshm refuse, or else a thread that `init` starts does.
///
/// # Errors
/// - [`Error::NotMainThread`] in another thread than the one of `main`: MPI is finalised by the thread
///   that has initialised it, when `main` ends.
/// - [`Error::Initialized`] if MPI was initialised before.
/// - [`Error::NoThreads`] if MPI grants less than `MPI_THREAD_FUNNELED`.
/// - [`Error::OtherLauncher`] on the first rank, if the launcher started several and each is a job of
///   its own. The others end with code 1.
pub fn init() -> Result<Job> {
    ndshm::become_worker();
    if !is_main_thread() {
        return Err(Error::NotMainThread);
    }
    let (universe, granted) =
        mpi::initialize_with_threading(Threading::Funneled).ok_or(Error::Initialized)?;
    // The handler of the exit finalises MPI.
    std::mem::forget(universe);
    RANK_PROCESS.get_or_init(std::process::id);
    let launched = launcher::check();
    launcher::forget();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        abort(PANICKED);
    }));
    // SAFETY: the handler is a function of this program, and uses no argument. It is registered
    // after MPI's own handlers, and so runs before them.
    unsafe { on_exit(at_exit, std::ptr::null_mut()) };
    if granted < Threading::Funneled {
        return Err(Error::NoThreads {
            granted: format!("{granted:?}"),
        });
    }
    launched?;
    refuse_forks();
    Ok(Job {
        not_send: PhantomData,
    })
}

/// Ends all ranks of the job, if this process is one of them.
///
/// Called in any thread. `MPI_Abort` tells the launcher and ends the process: it waits for no other
/// thread, and this process makes no call of MPI after it.
fn abort(code: c_int) {
    if is_rank() && !mpi::environment::is_finalized() {
        // The launcher passes on the text of the error meanwhile. When a job aborts, MPICH's drops
        // all text that it has not read.
        std::thread::sleep(Duration::from_millis(100));
        SimpleCommunicator::world().abort(code);
    }
}

/// Returns `true` in the process that called [`init`].
pub(crate) fn is_rank() -> bool {
    RANK_PROCESS.get() == Some(&std::process::id())
}

/// Returns `true` in the thread that the process began with.
pub(crate) fn is_main_thread() -> bool {
    // SAFETY: the call has no arguments.
    let thread = unsafe { libc::gettid() };
    u32::try_from(thread) == Ok(std::process::id())
}

unsafe extern "C" {
    /// Registers a handler that is told the exit code, as `atexit` does not. Of glibc.
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

extern "C" fn at_exit(code: c_int, _: *mut c_void) {
    if !is_rank() || mpi::environment::is_finalized() {
        return;
    }
    match code {
        0 if !is_main_thread() => {
            eprintln!(
                "ndshm-mpi: another thread than that of main called exit(0), and the job ends: return \
                 from main instead"
            );
            abort(EXITED_BESIDE_MAIN);
        }
        // SAFETY: MPI is initialised and not finalised. This is the thread that has initialised it,
        // so no call of it is under way.
        0 => unsafe {
            mpi::ffi::MPI_Finalize();
        },
        code => abort(code),
    }
}

/// Starts a thread that sleeps for ever if the process has no second one: ndshm refuses to fork a
/// process with threads.
fn refuse_forks() {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads < 2 {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
}
