//! Starts the test program itself under the launcher of its MPI, and collects the output of its ranks.
#![allow(dead_code, reason = "each test program uses its part")]

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The variable by which a rank knows its case.
const CASE: &str = "NDSHM_MPI_TEST_CASE";

/// No run takes longer, or it counts as hanging. Most take seconds. The waiting ranks of MPICH spin: four
/// of them on two processors, beside programs of a higher priority, needed more than a minute.
const DEADLINE: Duration = Duration::from_secs(300);

/// The outcome of a job.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Ran {
    /// Returns the values that ranks printed as `name value`, sorted and once each.
    pub fn values(&self, name: &str) -> Vec<String> {
        let mut values: Vec<String> = (self.out.lines())
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect();
        values.sort();
        values.dedup();
        values
    }

    pub fn succeeded(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Counts a text in the output of all ranks.
    pub fn count(&self, text: &str) -> usize {
        self.err.matches(text).count() + self.out.matches(text).count()
    }
}

/// Returns the case in a rank, and `None` in the process that starts the ranks.
pub fn case() -> Option<Vec<String>> {
    let case = std::env::var(CASE).ok()?;
    Some(case.split(' ').map(str::to_owned).collect())
}

pub fn is_open_mpi() -> bool {
    mpi::environment::library_version().is_ok_and(|version| version.contains("Open MPI"))
}

/// Returns the launcher: that of the variable `MPIRUN`, else that of Debian for this MPI, else `mpirun`.
fn launcher_name() -> OsString {
    let debian = match is_open_mpi() {
        true => "mpirun.openmpi",
        false => "mpiexec.mpich",
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(debian).exists());
    let found = if is_there { debian } else { "mpirun" };
    std::env::var_os("MPIRUN").unwrap_or_else(|| found.into())
}

/// Runs `case` on `ranks` ranks of this machine.
pub fn run(ranks: usize, case: &str) -> Ran {
    run_program(ranks, &std::env::current_exe().unwrap(), &[], case)
}

/// Returns the path of an example, which `cargo test` builds beside the tests.
pub fn example(name: &str) -> PathBuf {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.push("examples");
    program.push(name);
    program
}

/// Runs `case` as [`run`] does, and lets it take longer.
pub fn run_for(deadline: Duration, ranks: usize, case: &str) -> Ran {
    run_under(
        deadline,
        None,
        ranks,
        &std::env::current_exe().unwrap(),
        &[],
        case,
    )
}

/// Runs a program on `ranks` ranks of this machine.
pub fn run_program(ranks: usize, program: &Path, arguments: &[&str], case: &str) -> Ran {
    run_under(DEADLINE, None, ranks, program, arguments, case)
}

/// Runs a program by a launcher that another command starts, if there is one.
fn run_under(
    deadline: Duration,
    starter: Option<Command>,
    ranks: usize,
    program: &Path,
    arguments: &[&str],
    case: &str,
) -> Ran {
    let mut launcher = match starter {
        Some(mut starter) => {
            starter.arg(launcher_name());
            starter
        }
        None => Command::new(launcher_name()),
    };
    if is_open_mpi() {
        launcher
            .args(["--oversubscribe", "--mca", "btl", "self,vader"])
            .args(["--mca", "mpi_yield_when_idle", "1"]);
        permit_root(&mut launcher);
    }
    launcher
        .args(["-n", &ranks.to_string()])
        .arg(program)
        .args(arguments);
    wait_for(launcher, case, deadline)
}

/// Runs a command without a launcher, as a job of one rank.
pub fn run_alone(variables: &[(&str, &str)], command: &[&str], case: &str) -> Ran {
    let mut program = Command::new(command[0]);
    program.args(&command[1..]).envs(variables.iter().copied());
    permit_root(&mut program);
    wait_for(program, case, DEADLINE)
}

fn permit_root(launcher: &mut Command) {
    launcher
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
}

fn wait_for(mut command: Command, case: &str, deadline: Duration) -> Ran {
    let start = Instant::now();
    let mut job = command
        .env(CASE, case)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{:?} cannot be started: {error}; set MPIRUN to the launcher of this MPI",
                command.get_program()
            )
        });
    fn reader(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // The output up to an error counts.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let out = reader(job.stdout.take().unwrap());
    let err = reader(job.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = job.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > deadline {
            // The launcher ends its ranks when it is asked to end.
            let _ = Command::new("kill").arg(job.id().to_string()).status();
            std::thread::sleep(Duration::from_secs(2));
            let _ = job.kill();
            let _ = job.wait();
            panic!(
                "case {case:?} of {command:?} hangs: {:?} {:?}",
                out.join(),
                err.join()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = start.elapsed();
    Ran {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
        took,
    }
}

/// Returns `true` if this process may give its children a /dev/shm of their own.
fn can_have_own_shm() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Runs `case` as [`run`] does, with a /dev/shm of its own if that is possible. Returns the files
/// that it left there, without those that an MPI library leaves after a kill.
pub fn run_and_look(ranks: usize, case: &str) -> (Ran, Vec<String>) {
    const LOOK: &str = "mount -t tmpfs tmpfs /dev/shm; \"$@\"; code=$?; \
        for file in $(ls -A /dev/shm); do echo \"left $file\"; done; exit $code";
    // Open MPI 4, Open MPI 5, MPICH.
    const OTHERS: [&str; 3] = ["vader_segment", "sm_segment", "mpich"];
    let is_ours = |name: &String| !OTHERS.iter().any(|other| name.starts_with(other));
    if !can_have_own_shm() {
        println!("left out: /dev/shm is not looked into, for it has files of other programs");
        return (run(ranks, case), Vec::new());
    }
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", LOOK, "sh"]);
    let program = std::env::current_exe().unwrap();
    let ran = run_under(DEADLINE, Some(shell), ranks, &program, &[], case);
    let left = ran.values("left").into_iter().filter(is_ours).collect();
    (ran, left)
}

/// Returns the colour of a rank on `nodes` simulated nodes.
pub fn color(job: &ndshm_mpi::Job, nodes: usize) -> i32 {
    use mpi::traits::Communicator;
    let world = job.world();
    world.rank() * nodes as i32 / world.size()
}

/// Runs the tests, or those whose names contain the first argument.
pub fn main(tests: &[(&str, fn())]) {
    let filter = std::env::args().nth(1).filter(|a| !a.starts_with('-'));
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let start = Instant::now();
        test();
        println!(
            "test {name} ... ok ({:.1} s)",
            start.elapsed().as_secs_f64()
        );
    }
}
