//! Checkpoints: one `.npy` file per array and node, and a restart on any number of nodes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use mpi::traits::*;
use ndarray::Dimension;
use ndshm::Element;
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::layout::{Layout, common};
use crate::node::Node;
use crate::rows::Rows;

/// The file that names the last complete checkpoint.
const LAST: &str = "step.json";

/// Bytes that are read at a time, and over which digests are computed one after the other.
const PART: usize = 1 << 20;

/// The digest of no bytes.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

const NOT_READ: &str = "cannot be read, and all nodes must see the files of all nodes";
const NOT_WRITTEN: &str = "cannot be written; the last checkpoint is still there. Make room, or pass \
                           another directory";

/// A global array that a checkpoint contains: any [`Rows`].
pub trait Saved: sealed::Saved {}

impl<T: Element + Pod, D: Dimension> Saved for Rows<T, D> {}

mod sealed {
    use super::*;

    pub trait Saved {
        fn layout_of(&self) -> Layout;
        fn width_of(&self) -> usize;
        fn id_of(&self) -> u64;
        fn is_of(&self, node: &Node) -> Result<()>;
        fn element(&self) -> (&'static str, usize);
        /// Writes this node's rows, also to the disk, and returns their digest.
        fn save(&self, node: &Node, path: &Path) -> Result<u64>;
        /// Reads this node's rows from a file that has the rows `has`, and checks all of it.
        fn load(&self, node: &Node, path: &Path, has: Range<usize>, digest: u64) -> Result<()>;
    }

    impl<T: Element + Pod, D: Dimension> Saved for Rows<T, D> {
        fn layout_of(&self) -> Layout {
            self.layout()
        }

        fn width_of(&self) -> usize {
            self.width()
        }

        fn id_of(&self) -> u64 {
            self.id
        }

        fn is_of(&self, node: &Node) -> Result<()> {
            node.has(self)
        }

        fn element(&self) -> (&'static str, usize) {
            (std::any::type_name::<T>(), size_of::<T>())
        }

        fn save(&self, node: &Node, path: &Path) -> Result<u64> {
            // Written beside the path, and renamed once it is complete.
            node.table.save_npy(self.handle(), path)?;
            (File::open(path).and_then(|file| file.sync_all()))
                .map_err(failed(path, NOT_WRITTEN))?;
            let rows = node.table.read(self.handle())?;
            let bytes: &[u8] = bytemuck::cast_slice(rows.as_slice().unwrap_or_default());
            Ok(bytes.chunks(PART).fold(EMPTY, digest_of))
        }

        fn load(&self, node: &Node, path: &Path, has: Range<usize>, digest: u64) -> Result<()> {
            let here = self.range();
            let wanted = common(&here, &has);
            if wanted.is_empty() {
                return Ok(());
            }
            let row = self.width() * size_of::<T>();
            let mut to = node.table.write(self.handle())?;
            let to: &mut [u8] = bytemuck::cast_slice_mut(to.as_slice_mut().unwrap_or_default());
            let to = &mut to[(wanted.start - here.start) * row..(wanted.end - here.start) * row];
            let wanted = (wanted.start - has.start) * row..(wanted.end - has.start) * row;
            let mut file = File::open(path).map_err(failed(path, NOT_READ))?;
            let bytes = has.len() * row;
            let start = header_len(&mut file, path, bytes as u64)?;
            (file.seek(SeekFrom::Start(start))).map_err(failed(path, NOT_READ))?;
            let mut part = vec![0; PART.min(bytes)];
            let (mut found, mut at) = (EMPTY, 0);
            while at < bytes {
                let part = &mut part[..PART.min(bytes - at)];
                file.read_exact(part).map_err(failed(path, NOT_READ))?;
                found = digest_of(found, part);
                let rows = common(&wanted, &(at..at + part.len()));
                if !rows.is_empty() {
                    to[rows.start - wanted.start..rows.end - wanted.start]
                        .copy_from_slice(&part[rows.start - at..rows.end - at]);
                }
                at += part.len();
            }
            match found == digest {
                true => Ok(()),
                false => Err(Error::Checkpoint {
                    path: path.display().to_string(),
                    problem: format!(
                        "its digest is {found:016x}, and was {digest:016x} when it was written: it is \
                         damaged; begin without it, or put the file back from a copy"
                    ),
                }),
            }
        }
    }
}

impl Node {
    /// Saves arrays, each node its rows, and names the checkpoint by `step`. Collective.
    ///
    /// `directory` is one that all nodes see, and no other job uses. Each checkpoint is a directory in
    /// it, with a file `NAME-00003-of-00016.npy` for each array and node. Files are written beside their
    /// names, forced to the disk, and renamed. When all nodes have written theirs, the first rank
    /// replaces `step.json`, and removes the checkpoint before. So a job that is killed at any moment
    /// leaves a complete checkpoint, and so does a disk that is full.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// # let directory = std::env::temp_dir().join(format!("ndshm-mpi-doc-{}", std::process::id()));
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>((10_000, 3))?;
    /// let first = match node.restore(&directory, &[("x", &x)])? {
    ///     Some(step) => step + 1,
    ///     None => 0,
    /// };
    /// for step in first..100 {
    ///     // ...
    ///     if step % 50 == 49 {
    ///         node.checkpoint(&directory, step, &[("x", &x)])?;
    ///     }
    /// }
    /// assert_eq!(node.restore(&directory, &[("x", &x)])?, Some(99));
    /// # let _ = std::fs::remove_dir_all(directory);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// - [`Error::Checkpoint`] or [`Error::Ndshm`] if a file cannot be written. The last checkpoint
    ///   stays, and the job can go on.
    /// - [`Error::Argument`] if two arrays have one name, or a name is not possible for a file.
    /// - Same as [`sum`](Node::sum).
    pub fn checkpoint(
        &self,
        directory: impl AsRef<Path>,
        step: u64,
        arrays: &[(&str, &dyn Saved)],
    ) -> Result<()> {
        arrays.iter().try_for_each(|(_, array)| array.is_of(self))?;
        let directory = directory.as_ref();
        let call = Call::new(format_args!(
            "checkpoint {step} of {} in {}",
            names(arrays),
            directory.display()
        ));
        self.lead(call, |leaders| {
            self.first_alone(possible_names(call, arrays))?;
            // Beside the last checkpoint, also if that is of the same step.
            let mut take = [0u64];
            let made = match self.index {
                0 => new_part(directory, step),
                _ => Ok(0),
            };
            take[0] = *made.as_ref().unwrap_or(&0);
            leaders.settle(made)?;
            leaders
                .comm
                .process_at_rank(0)
                .broadcast_into(&mut take[..]);
            let to = part_of(directory, step, take[0]);
            let digests = leaders.settle(self.save_all(&to, arrays))?;
            let mut of_all = vec![0; digests.len() * self.count];
            leaders.comm.all_gather_into(&digests[..], &mut of_all[..]);
            leaders.settle(match self.index {
                0 => name_last(directory, step, take[0], self.count, arrays, &of_all),
                _ => Ok(()),
            })?;
            Ok([])
        })
        .map(|[]| ())
    }

    /// Saves this node's rows of all arrays, and returns their digests.
    fn save_all(&self, to: &Path, arrays: &[(&str, &dyn Saved)]) -> Result<Vec<u64>> {
        let save = |(name, array): &(&str, &dyn Saved)| {
            array.save(self, &file(to, name, self.index, self.count))
        };
        let digests = arrays.iter().map(save).collect::<Result<_>>()?;
        sync_directory(to)?;
        Ok(digests)
    }

    /// Loads the last complete checkpoint, which any number of nodes may have written, and returns its
    /// step. Returns `None` if there is none. Collective.
    ///
    /// Each node reads the files that have rows of it, and compares their digests.
    ///
    /// # Errors
    /// - [`Error::Checkpoint`] if the checkpoint lacks an array, has one of another type or shape, or is
    ///   damaged. The arrays may be partly loaded then.
    /// - Same as [`sum`](Node::sum).
    pub fn restore(
        &self,
        directory: impl AsRef<Path>,
        arrays: &[(&str, &dyn Saved)],
    ) -> Result<Option<u64>> {
        arrays.iter().try_for_each(|(_, array)| array.is_of(self))?;
        let directory = directory.as_ref();
        let call = Call::new(format_args!(
            "restore of {} from {}",
            names(arrays),
            directory.display()
        ));
        let [found, step] = self.lead(call, |leaders| {
            let path = directory.join(LAST);
            // All nodes read the file, and must find the step that the first one finds.
            let mut step = [0; 2];
            let last = leaders.settle(read_last(&path))?;
            if let Some(last) = &last {
                step = [1, number(&path, last, "step").unwrap_or(0)];
            }
            let mut of_first = step;
            leaders
                .comm
                .process_at_rank(0)
                .broadcast_into(&mut of_first[..]);
            leaders.settle(match step == of_first {
                true => Ok(()),
                false => Err(Error::Checkpoint {
                    path: path.display().to_string(),
                    problem: format!(
                        "node {} does not see the file that the first node sees: pass a directory \
                         that all nodes share",
                        self.index
                    ),
                }),
            })?;
            let Some(last) = last else {
                return Ok([0; 2]);
            };
            leaders.settle(self.load_all(directory, &path, &last, arrays))?;
            Ok(step)
        })?;
        Ok((found != 0).then_some(step))
    }

    /// Loads this node's rows of all arrays.
    fn load_all(
        &self,
        directory: &Path,
        path: &Path,
        last: &Value,
        arrays: &[(&str, &dyn Saved)],
    ) -> Result<()> {
        let step = number(path, last, "step")?;
        let nodes = number(path, last, "nodes")? as usize;
        let from = part_of(directory, step, number(path, last, "part")?);
        let saved = (arrays.iter())
            .map(|(name, array)| saved_layout(path, last, nodes, name, *array))
            .collect::<Result<Vec<_>>>()?;
        for ((name, array), (layout, digests)) in arrays.iter().zip(saved) {
            for (node, digest) in digests.into_iter().enumerate() {
                let path = file(&from, name, node, nodes);
                array.load(self, &path, layout.rows_of(node), digest)?;
            }
        }
        Ok(())
    }
}

/// Returns the directory of a checkpoint. There may be two of one step, of which `step.json` names one.
fn part_of(directory: &Path, step: u64, part: u64) -> PathBuf {
    directory.join(match part {
        0 => format!("step-{step:010}"),
        _ => format!("step-{step:010}-{part}"),
    })
}

/// Makes an empty directory for a checkpoint, which is not that of the last one. Returns its part.
fn new_part(directory: &Path, step: u64) -> Result<u64> {
    let last = directory.join(LAST);
    let part = match read_last(&last)? {
        Some(last) if last["step"].as_u64() == Some(step) => {
            1 - last["part"].as_u64().unwrap_or(1).min(1)
        }
        _ => 0,
    };
    let to = part_of(directory, step, part);
    // A killed job may have left files there, of another number of nodes.
    match fs::remove_dir_all(&to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&to),
    }
    .map_err(failed(&to, NOT_WRITTEN))?;
    sync_directory(directory)?;
    Ok(part)
}

/// Replaces the file that names the last checkpoint, and removes the one before.
fn name_last(
    directory: &Path,
    step: u64,
    part: u64,
    nodes: usize,
    arrays: &[(&str, &dyn Saved)],
    digests: &[u64],
) -> Result<()> {
    let last = directory.join(LAST);
    let before = read_last(&last)?;
    let of_array = |(at, (name, array)): (usize, &(&str, &dyn Saved))| {
        let layout = array.layout_of();
        let digests = digests.iter().skip(at).step_by(arrays.len());
        json!({
            "name": name,
            "type": array.element().0,
            "rows": layout.rows(),
            "tile": layout.tile(),
            "width": array.width_of(),
            "digests": digests.map(|digest| format!("{digest:016x}")).collect::<Vec<_>>(),
        })
    };
    let text = json!({
        "step": step,
        "part": part,
        "nodes": nodes,
        "arrays": arrays.iter().enumerate().map(of_array).collect::<Vec<_>>(),
    });
    let beside = directory.join(format!(".{LAST}.part"));
    fs::write(&beside, format!("{text:#}\n"))
        .and_then(|()| File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, &last))
        .map_err(failed(&last, NOT_WRITTEN))?;
    // The name is on the disk before the old checkpoint goes.
    sync_directory(directory)?;
    let numbers = |before: Value| Some((before["step"].as_u64()?, before["part"].as_u64()?));
    if let Some(before) = before.and_then(numbers)
        && before != (step, part)
    {
        // If it cannot be removed, it only takes up room.
        let _ = fs::remove_dir_all(part_of(directory, before.0, before.1));
    }
    Ok(())
}

/// Checks that each name makes a file of its own.
fn possible_names(call: Call, arrays: &[(&str, &dyn Saved)]) -> Result<()> {
    for (at, (name, _)) in arrays.iter().enumerate() {
        let is_file = !name.is_empty() && !name.contains(['/', '\0']);
        if !is_file || arrays[..at].iter().any(|(other, _)| other == name) {
            return Err(Error::Argument {
                call: call.text(),
                problem: format!(
                    "the name {name:?} of array {at} is part of a file's name: pass different names \
                     without a slash"
                ),
            });
        }
    }
    Ok(())
}

/// Returns a number of `step.json`.
fn number(path: &Path, last: &Value, name: &str) -> Result<u64> {
    last[name].as_u64().ok_or_else(|| Error::Checkpoint {
        path: path.display().to_string(),
        problem: format!("it has no number {name:?}: it is not of ndshm-mpi"),
    })
}

/// Adds the bytes of a part to a digest.
fn digest_of(digest: u64, part: &[u8]) -> u64 {
    let add = |digest: u64, word: u64| {
        let mixed = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    };
    let (words, rest) = part.as_chunks::<8>();
    let digest = words
        .iter()
        .map(|&word| u64::from_le_bytes(word))
        .fold(digest, add);
    rest.iter().map(|&byte| u64::from(byte)).fold(digest, add)
}

/// Forces the names in a directory to the disk.
fn sync_directory(path: &Path) -> Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        // Some file systems cannot, and need not.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced.map_err(failed(path, NOT_WRITTEN)),
    }
}

/// Checks a saved array. Returns its division among the nodes that wrote it, and the digests of its
/// files.
fn saved_layout(
    path: &Path,
    last: &Value,
    nodes: usize,
    name: &str,
    array: &dyn Saved,
) -> Result<(Layout, Vec<u64>)> {
    let problem = |problem: String| Error::Checkpoint {
        path: path.display().to_string(),
        problem,
    };
    let saved = (last["arrays"].as_array().into_iter().flatten())
        .find(|saved| saved["name"] == name)
        .ok_or_else(|| {
            problem(format!(
                "it has no array {name:?}: pass the arrays that it has"
            ))
        })?;
    let (element, _) = array.element();
    let expected = json!([element, array.layout_of().rows(), array.width_of()]);
    let found = json!([saved["type"], saved["rows"], saved["width"]]);
    if found != expected {
        return Err(problem(format!(
            "type, rows and width of {name:?} are {found}, and the array has {expected}: pass an array \
             of the same type and shape"
        )));
    }
    let tile = saved["tile"].as_u64().unwrap_or(0) as usize;
    let digests = (saved["digests"].as_array().into_iter().flatten())
        .map_while(|digest| u64::from_str_radix(digest.as_str()?, 16).ok());
    let digests: Vec<u64> = digests.collect();
    match Layout::new(array.layout_of().rows(), tile, nodes) {
        Ok(layout) if digests.len() == nodes => Ok((layout, digests)),
        _ => Err(problem(format!(
            "its tile of {tile} rows and {} digests of {name:?} do not fit {nodes} nodes: it was \
             changed after it was written; put it back from a copy",
            digests.len()
        ))),
    }
}

/// Reads the file that names the last checkpoint. `None` if there is none.
fn read_last(path: &Path) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, NOT_READ)(error)),
    };
    let value = serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
        path: path.display().to_string(),
        problem: format!(
            "it is not a JSON text: {error}; put it back from a copy, or remove it to begin anew"
        ),
    })?;
    Ok(Some(value))
}

/// Returns where the elements of a `.npy` file begin. Nothing may follow them.
fn header_len(file: &mut File, path: &Path, elements: u64) -> Result<u64> {
    let mut start = [0u8; 12];
    let len = (file.read_exact(&mut start).and_then(|()| file.metadata()))
        .map_err(failed(path, NOT_READ))?
        .len();
    let header = match (&start[..6] == b"\x93NUMPY", start[6]) {
        (true, 1) => 10 + u64::from(u16::from_le_bytes([start[8], start[9]])),
        (true, 2 | 3) => {
            12 + u64::from(u32::from_le_bytes([
                start[8], start[9], start[10], start[11],
            ]))
        }
        _ => 0,
    };
    match header > 0 && header + elements == len {
        true => Ok(header),
        false => Err(Error::Checkpoint {
            path: path.display().to_string(),
            problem: format!(
                "{len} bytes are not a .npy file with {elements} bytes of elements: it was changed \
                 or cut off after it was written; begin without it, or put it back from a copy"
            ),
        }),
    }
}

fn file(directory: &Path, name: &str, node: usize, nodes: usize) -> PathBuf {
    directory.join(format!("{name}-{node:05}-of-{nodes:05}.npy"))
}

fn names(arrays: &[(&str, &dyn Saved)]) -> String {
    let name = |(name, array): &(&str, &dyn Saved)| format!("{name} (array {})", array.id_of());
    arrays.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Checkpoint {
        path,
        problem: format!("{what}: {error}"),
    }
}
