//! Spawned workers: the same program, started anew.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::Pid;

use super::child::Child;
use super::process;
use super::signals::{self, Blocked};
use super::thread::THREADS_OF_RAYON;
use crate::error::Error;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::pool::image::Image;
use crate::pool::shared::Shared;
use crate::pool::worker::WorkerLife;
use crate::segment::{HugePages, Segment};

/// The environment variable with a worker's spec.
const SPEC: &str = "NDSHM_WORKER";

/// Set once this process has become a worker. Its forked children inherit this.
static BECAME_WORKER: OnceLock<()> = OnceLock::new();

/// Returns `true` if the process runs with more rights than its parent, as a set-user-id program
/// does. It must not trust its environment and standard input then.
fn has_more_rights_than_its_parent() -> bool {
    // SAFETY: the call reads a word that the kernel has put beside the program's arguments.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The data that a worker gets through its environment.
struct WorkerSpec {
    parent: u32,
    worker: usize,
    workers: usize,
    mailbox: AnyHandle,
    huge_pages: HugePages,
    image: String,
}

impl WorkerSpec {
    fn to_text(&self) -> String {
        let mailbox = self.mailbox.to_bits();
        format!(
            "{},{},{},{mailbox:x},{},{}",
            self.parent,
            self.worker,
            self.workers,
            self.huge_pages.code(),
            self.image
        )
    }

    fn parse(text: &str) -> Option<WorkerSpec> {
        let mut fields = text.splitn(6, ',');
        let mut next = || fields.next();
        Some(WorkerSpec {
            parent: next()?.parse().ok()?,
            worker: next()?.parse().ok()?,
            workers: next()?.parse().ok()?,
            mailbox: AnyHandle::from_bits(u64::from_str_radix(next()?, 16).ok()?),
            huge_pages: HugePages::from_code(next()?.parse().ok()?),
            image: next()?.to_owned(),
        })
    }

    /// Returns the spec in the environment.
    fn of_environment() -> Option<WorkerSpec> {
        if has_more_rights_than_its_parent() {
            return None;
        }
        WorkerSpec::parse(&env::var(SPEC).ok()?)
    }

    /// Removes the spec from the environment, because the programs that this worker starts are no
    /// workers. Keeps it if the process has several threads, because another one may be reading the
    /// environment; [`refuse_unserved`] then refuses in those programs.
    fn forget() {
        if super::fork::refuse_threads().is_ok() {
            // SAFETY: this thread is the only one of the process.
            unsafe { env::remove_var(SPEC) };
        }
    }
}

/// Turns this process into a worker if a pool has [spawned](crate::Pool::spawn) it, and then does
/// not return. Otherwise does nothing.
///
/// Call this in the first line of `main`, before anything that a worker must not do: reading the
/// command line, starting threads, opening files. It reads one environment variable, and in a
/// worker removes it.
///
/// A worker trusts its parent: it runs the functions of this program that the parent names. So a
/// program with more rights than its parent, such as a set-user-id program, never becomes a worker:
/// it reads neither the variable nor its standard input.
///
/// ```no_run
/// use ndshm::{HandleTable, Pool, Segment};
///
/// fn main() -> ndshm::Result<()> {
///     ndshm::become_worker();
///     let table = HandleTable::join(&Segment::anonymous()?)?;
///     let mut pool = Pool::spawn(&table, 4)?;
///     // ...
///     Ok(())
/// }
/// ```
#[doc(alias("freeze_support", "__main__", "multiprocessing"))]
pub fn become_worker() {
    if let Some(spec) = WorkerSpec::of_environment() {
        let _ = BECAME_WORKER.set(());
        WorkerSpec::forget();
        if spec.parent != parent_id() {
            // The parent has died, or another worker that could not remove its spec started this
            // process. Continuing would run the program a second time.
            eprintln!(
                "ndshm: worker {}: process {}, which started it, is not its parent any more",
                spec.worker, spec.parent
            );
            std::process::exit(1);
        }
        match serve(&spec) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("ndshm: worker {}: {error}", spec.worker);
                std::process::exit(1);
            }
        }
    }
}

/// Joins the segment, takes its descriptor from the standard input, and serves the pool.
fn serve(spec: &WorkerSpec) -> Result<core::convert::Infallible, Error> {
    process::end_with_parent(spec.parent);
    signals::leave_to_parent(None);
    let refused = |what| move |error: io::Error| PoolError::System { what, error };
    let image = Image::of_this_process().map_err(refused("read /proc/self/maps"))?;
    if image.identity().map(ToString::to_string).as_ref() != Some(&spec.image) {
        return Err(PoolError::OtherProgram.into());
    }
    let segment = take_standard_input().map_err(refused("take the segment's descriptor"))?;
    let segment = Segment::options()
        .huge_pages(spec.huge_pages)
        .from_fd(segment)?;
    let table = HandleTable::join(&segment)?;
    let life = WorkerLife {
        table: &table,
        shared: Shared {
            mailbox: spec.mailbox,
            workers: spec.workers,
        },
        worker: spec.worker,
        parent: Some(process::parent(spec.parent)),
    };
    process::live(&life, true)
}

/// Moves the descriptor away from the standard input, and puts /dev/null there.
fn take_standard_input() -> io::Result<OwnedFd> {
    let segment = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(nothing)?;
    Ok(segment)
}

/// Returns an error if this process, or the one it comes from, was started as a worker and has not
/// become one: its own workers would do the same, without end. Also returns an error if no worker
/// would trust this process.
pub(super) fn refuse_unserved() -> Result<(), PoolError> {
    if has_more_rights_than_its_parent() {
        return Err(PoolError::SetUserId);
    }
    match BECAME_WORKER.get().is_none() && env::var_os(SPEC).is_some() {
        true => Err(PoolError::NotAWorker),
        false => Ok(()),
    }
}

/// Starts this program anew as a worker.
pub(super) fn spawn(life: &WorkerLife<'_>, image: &Image) -> Result<Child, PoolError> {
    let refused = |error| PoolError::System {
        what: "start this program anew as a worker",
        error,
    };
    let identity = image
        .identity()
        .ok_or_else(|| refused(io::Error::other("its code is in no file")))?;
    let spec = WorkerSpec {
        parent: std::process::id(),
        worker: life.worker,
        workers: life.shared.workers,
        mailbox: life.shared.mailbox,
        huge_pages: life.table.segment().asked_huge_pages(),
        image: identity.to_string(),
    };
    let segment = life.table.segment().fd().ok_or(PoolError::InProcess)?;
    let segment = segment.try_clone_to_owned().map_err(refused)?;
    // The running file, even if the program's path has changed.
    let mut command = Command::new("/proc/self/exe");
    let name = env::args_os().next();
    command
        .arg0(name.unwrap_or_else(|| OsString::from("ndshm-worker")))
        .env(SPEC, spec.to_text())
        // The one descriptor that a child gets without a window in which another thread's child
        // could inherit it too.
        .stdin(Stdio::from(segment));
    if env::var_os(THREADS_OF_RAYON).is_none() {
        command.env(
            THREADS_OF_RAYON,
            super::thread::share(life.shared.workers).to_string(),
        );
    }
    // The worker inherits this mask, and unblocks the signals once they do nothing.
    let blocked = Blocked::left_to_parent();
    let child = command.spawn().map_err(refused)?;
    drop(blocked);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.map(Child::new)
        .ok_or_else(|| refused(io::Error::other("the system returned no pid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_cross_as_text() {
        let spec = WorkerSpec {
            parent: 12,
            worker: 3,
            workers: 4,
            mailbox: AnyHandle::from_bits(0xfeed),
            huge_pages: HugePages::Collapse,
            image: "08:01/77/1a0".to_owned(),
        };
        let text = spec.to_text();
        let back = WorkerSpec::parse(&text).unwrap();
        assert_eq!(back.to_text(), text);
        assert_eq!(
            (back.mailbox.to_bits(), back.huge_pages, &*back.image),
            (0xfeed, HugePages::Collapse, "08:01/77/1a0")
        );
        assert!(WorkerSpec::parse("12,3,4").is_none());
    }
}
