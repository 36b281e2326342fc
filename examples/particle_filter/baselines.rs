//! The same filter without shared memory: one process, threads, and workers that receive copies.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Result;
use crate::filter::Engine;
use crate::model::{self, Partial, Step, Stretch, TILE};

/// Particles of a variant, in the memory of this process.
struct Buffers {
    x: Vec<f64>,
    next: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Buffers {
    fn new(particles: usize) -> Buffers {
        let zeros = || vec![0.0; particles];
        Buffers {
            x: zeros(),
            next: zeros(),
            cumulative: zeros(),
        }
    }
}

/// A plain loop over the tiles.
pub struct OneProcess(Buffers);

impl OneProcess {
    pub fn new(particles: usize) -> OneProcess {
        OneProcess(Buffers::new(particles))
    }
}

impl Engine for OneProcess {
    fn propagate(&mut self, step: &Step) -> Result<Vec<Partial>> {
        let Buffers { x, cumulative, .. } = &mut self.0;
        Ok(model::propagate_all(step, x, cumulative))
    }

    fn resample(&mut self, plan: &[Stretch]) -> Result<()> {
        let Buffers {
            x,
            next,
            cumulative,
        } = &mut self.0;
        model::resample_all(plan, x, cumulative, next);
        std::mem::swap(x, next);
        Ok(())
    }

    fn inspect(&self, look: &mut dyn FnMut(&[f64])) -> Result<()> {
        look(&self.0.x);
        Ok(())
    }
}

/// Rayon threads in one process.
pub struct Threads {
    buffers: Buffers,
    threads: ThreadPool,
}

impl Threads {
    pub fn new(particles: usize, threads: usize) -> Result<Threads> {
        Ok(Threads {
            buffers: Buffers::new(particles),
            threads: ThreadPoolBuilder::new().num_threads(threads).build()?,
        })
    }
}

impl Engine for Threads {
    fn propagate(&mut self, step: &Step) -> Result<Vec<Partial>> {
        let Buffers { x, cumulative, .. } = &mut self.buffers;
        let tiles = x
            .par_chunks_mut(TILE)
            .zip(cumulative.par_chunks_mut(TILE))
            .enumerate();
        let partial = |(tile, (x, cumulative)): (usize, (&mut [f64], &mut [f64]))| {
            model::propagate(step, tile, x, cumulative)
        };
        Ok(self.threads.install(|| tiles.map(partial).collect()))
    }

    fn resample(&mut self, plan: &[Stretch]) -> Result<()> {
        let Buffers {
            x,
            next,
            cumulative,
        } = &mut self.buffers;
        let tiles = next.par_chunks_mut(TILE).enumerate();
        self.threads.install(|| {
            tiles.for_each(|(tile, next)| {
                let start = tile * TILE;
                model::resample(plan, x, cumulative, start..start + next.len(), next);
            });
        });
        std::mem::swap(x, next);
        Ok(())
    }

    fn inspect(&self, look: &mut dyn FnMut(&[f64])) -> Result<()> {
        look(&self.buffers.x);
        Ok(())
    }
}

/// Header of a tile's particles in a request to a worker.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    step: Step,
    tile: u64,
    len: u64,
}

/// Worker processes that receive particles through a pipe and return them, with the weights,
/// through another one.
///
/// This process resamples, because it has all particles: sending them a second time would only
/// take longer.
pub struct Copies {
    buffers: Buffers,
    workers: Vec<Worker>,
}

struct Worker {
    child: Child,
    /// `None` only while the worker is being ended.
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Copies {
    pub fn new(particles: usize, workers: usize) -> Result<Copies> {
        Ok(Copies {
            buffers: Buffers::new(particles),
            workers: (0..workers)
                .map(|_| Worker::start())
                .collect::<Result<_>>()?,
        })
    }
}

impl Engine for Copies {
    fn propagate(&mut self, step: &Step) -> Result<Vec<Partial>> {
        let Buffers { x, cumulative, .. } = &mut self.buffers;
        let mut partials = vec![Partial::default(); x.len().div_ceil(TILE)];
        let share = partials.len().div_ceil(self.workers.len());
        // One thread per worker: no worker waits while another one is served.
        std::thread::scope(|scope| {
            let shares = partials
                .chunks_mut(share)
                .zip(x.chunks_mut(share * TILE))
                .zip(cumulative.chunks_mut(share * TILE));
            let threads: Vec<_> = shares
                .zip(&mut self.workers)
                .enumerate()
                .map(|(index, (((partials, x), cumulative), worker))| {
                    let first = index * share;
                    scope.spawn(move || worker.serve(step, first, partials, x, cumulative))
                })
                .collect();
            for thread in threads {
                thread.join().expect("serving a worker does not panic")?;
            }
            Ok::<(), io::Error>(())
        })
        .map_err(|error| format!("a worker that receives copies failed: {error}"))?;
        Ok(partials)
    }

    fn resample(&mut self, plan: &[Stretch]) -> Result<()> {
        let Buffers {
            x,
            next,
            cumulative,
        } = &mut self.buffers;
        model::resample_all(plan, x, cumulative, next);
        std::mem::swap(x, next);
        Ok(())
    }

    fn inspect(&self, look: &mut dyn FnMut(&[f64])) -> Result<()> {
        look(&self.buffers.x);
        Ok(())
    }
}

impl Worker {
    fn start() -> Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--copy-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().expect("stdout was asked to be a pipe");
        Ok(Worker {
            child,
            requests,
            answers,
        })
    }

    /// Sends the tiles from `first` on to the worker, and receives them moved and weighed.
    fn serve(
        &mut self,
        step: &Step,
        first: usize,
        partials: &mut [Partial],
        x: &mut [f64],
        cumulative: &mut [f64],
    ) -> io::Result<()> {
        let Some(requests) = &mut self.requests else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let tiles = x.chunks_mut(TILE).zip(cumulative.chunks_mut(TILE));
        for ((tile, partial), (x, cumulative)) in (first..).zip(partials).zip(tiles) {
            let request = Request {
                step: *step,
                tile: tile as u64,
                len: x.len() as u64,
            };
            requests.write_all(bytemuck::bytes_of(&request))?;
            requests.write_all(bytemuck::cast_slice(x))?;
            self.answers.read_exact(bytemuck::bytes_of_mut(partial))?;
            self.answers.read_exact(bytemuck::cast_slice_mut(x))?;
            self.answers
                .read_exact(bytemuck::cast_slice_mut(cumulative))?;
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}

/// Serves requests in a worker that receives copies, until its input ends.
pub fn serve_copies() -> Result<()> {
    // Use files: the buffers of the standard streams would cost another copy.
    let mut requests = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut request = Request::zeroed();
    let (mut x, mut cumulative) = (Vec::new(), Vec::new());
    loop {
        match requests.read_exact(bytemuck::bytes_of_mut(&mut request)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let len = usize::try_from(request.len)?.min(TILE);
        x.resize(len, 0.0);
        cumulative.resize(len, 0.0);
        requests.read_exact(bytemuck::cast_slice_mut(&mut x))?;
        let partial = model::propagate(
            &request.step,
            request.tile as usize,
            &mut x,
            &mut cumulative,
        );
        answers.write_all(bytemuck::bytes_of(&partial))?;
        answers.write_all(bytemuck::cast_slice(&x))?;
        answers.write_all(bytemuck::cast_slice(&cumulative))?;
    }
}
