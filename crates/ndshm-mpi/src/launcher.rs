//! The variables of a launcher in the environment of a rank.

use std::ffi::OsString;

use mpi::topology::SimpleCommunicator;
use mpi::traits::Communicator;

use crate::error::{Error, Result};

/// The variables of the number of ranks and of the own rank, as set by the launchers of Open MPI, of
/// MPICH and its relatives, and of Slurm.
const PLACES: [[&str; 2]; 3] = [
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"],
    ["PMI_SIZE", "PMI_RANK"],
    ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"],
];

/// Refuses a launcher of another MPI. A library that does not understand its launcher makes a job of
/// one rank, so the program would run once for each rank, and all would write the same files. Returns
/// the error on the first rank, and ends the others.
pub(crate) fn check() -> Result<()> {
    if SimpleCommunicator::world().size() > 1 {
        return Ok(());
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let sizes = PLACES.map(|[size, rank]| Some((size, number(size)?, number(rank)?)));
    // A launcher within another: one of them knows of a single rank.
    let mut sizes = sizes.into_iter().flatten();
    let Some((variable, started, rank)) = sizes.next() else {
        return Ok(());
    };
    if started == 1 || sizes.any(|(_, started, _)| started == 1) {
        return Ok(());
    }
    if rank != 0 {
        // It is in no job with the rank that prints the error, which so cannot end it.
        crate::together::step_aside();
        std::process::exit(1);
    }
    Err(Error::OtherLauncher {
        started,
        variable,
        library: library(),
    })
}

/// Returns the name and version of the MPI library.
fn library() -> String {
    let text = mpi::environment::library_version().unwrap_or_else(|_| "its MPI".into());
    let name = text.split([',', '\n']).next().unwrap_or_default();
    // "MPICH Version:      4.0.2"
    let words = name.split_whitespace().filter(|word| *word != "Version:");
    words.collect::<Vec<_>>().join(" ")
}

/// Removes the variables by which a launcher tells a process its rank.
pub(crate) fn forget() {
    const PREFIXES: [&str; 9] = [
        "OMPI_",
        "PMIX_",
        "PMI_",
        "PMI2_",
        "PRTE_",
        "HYDRA_",
        "MPI_LOCAL",
        "MPIR_",
        "HYDI_",
    ];
    // How a user permits root, for jobs that this rank starts.
    const KEPT: &str = "OMPI_ALLOW_RUN_AS_ROOT";
    let names = std::env::vars_os().map(|(name, _)| name);
    let is_launchers = |name: &OsString| {
        let name = name.to_string_lossy();
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with(KEPT)
    };
    for name in names.filter(is_launchers).collect::<Vec<_>>() {
        // SAFETY: threads of this program that use the environment through `std` take turns by its
        // lock. MPI's own threads have read their variables in `MPI_Init`; glibc's `unsetenv` frees
        // no text, so one that they still point to stays.
        unsafe { std::env::remove_var(name) };
    }
}
