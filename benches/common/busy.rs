//! Competition for the processors: processes that never sleep.

use super::process::Process;

/// Processes that spin until this is dropped, also by a panic. They are not pinned, and the kernel
/// kills them if this process dies.
pub struct Busy(Vec<Process>);

impl Busy {
    /// Forks `count` processes.
    pub fn start(count: usize) -> Busy {
        Busy((0..count).map(|_| Process::busy()).collect())
    }

    /// Forks a process for each processor.
    pub fn on_each_processor() -> Busy {
        Busy::start(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // They do not read their pipes: an end by a question would never come.
        self.0.drain(..).for_each(Process::kill);
    }
}
