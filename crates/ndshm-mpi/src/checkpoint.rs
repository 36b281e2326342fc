//! Checkpoints: one `.npy` file per array and node, and a restart on any number of nodes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
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
        fn save(&self, node: &Node, path: &Path) -> Result<()>;
        /// Reads `rows` of the global array from a file that has the rows `has`.
        fn load(&self, node: &Node, path: &Path, has: Range<usize>) -> Result<()>;
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

        fn save(&self, node: &Node, path: &Path) -> Result<()> {
            // Written beside the path, and renamed once it is complete.
            Ok(node.table.save_npy(self.handle(), path)?)
        }

        fn load(&self, node: &Node, path: &Path, has: Range<usize>) -> Result<()> {
            let here = self.range();
            let wanted = common(&here, &has);
            if wanted.is_empty() {
                return Ok(());
            }
            let row = self.width() * size_of::<T>();
            let mut to = node.table.write(self.handle())?;
            let to: &mut [u8] = bytemuck::cast_slice_mut(to.as_slice_mut().unwrap_or_default());
            let to = &mut to[(wanted.start - here.start) * row..(wanted.end - here.start) * row];
            let mut file = File::open(path).map_err(failed(path, "cannot be opened"))?;
            let start = header_len(&mut file, path, (has.len() * row) as u64)?;
            file.seek(SeekFrom::Start(
                start + ((wanted.start - has.start) * row) as u64,
            ))
            .and_then(|_| file.read_exact(to))
            .map_err(failed(path, "cannot be read"))
        }
    }
}

impl Node {
    /// Saves arrays, each node its rows, and names the checkpoint by `step`. Collective.
    ///
    /// `directory` is one that all nodes see. Each checkpoint is a directory in it, with a file
    /// `NAME-00003-of-00016.npy` for each array and node. Files are written beside their names and
    /// renamed. When all nodes have written theirs, the first rank replaces `step.json`, and removes the
    /// checkpoint before. So a job that is killed at any moment leaves a complete checkpoint.
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
    ///   stays.
    /// - Same as [`sum`](Node::sum).
    pub fn checkpoint(
        &self,
        directory: impl AsRef<Path>,
        step: u64,
        arrays: &[(&str, &dyn Saved)],
    ) -> Result<()> {
        arrays.iter().try_for_each(|(_, array)| array.is_of(self))?;
        let directory = directory.as_ref();
        let to = directory.join(format!("step-{step:010}"));
        let call = Call::new(format_args!(
            "checkpoint {step} of {} in {}",
            names(arrays),
            directory.display()
        ));
        self.lead(call, |_| {
            fs::create_dir_all(&to).map_err(failed(&to, "cannot be made"))?;
            for (name, array) in arrays {
                array.save(self, &file(&to, name, self.index, self.count))?;
            }
            Ok([])
        })
        .map(|[]| ())?;
        // All nodes have written when the leaders agree on this call.
        self.lead(
            Call::new(format_args!("checkpoint {step}, written")),
            |_| {
                if self.index > 0 {
                    return Ok([]);
                }
                let last = directory.join(LAST);
                let before = read_last(&last)?;
                let of_array = |(name, array): &(&str, &dyn Saved)| {
                    let layout = array.layout_of();
                    json!({
                        "name": name,
                        "type": array.element().0,
                        "rows": layout.rows(),
                        "tile": layout.tile(),
                        "width": array.width_of(),
                    })
                };
                let text = json!({
                    "step": step,
                    "nodes": self.count,
                    "arrays": arrays.iter().map(of_array).collect::<Vec<_>>(),
                });
                let beside = directory.join(format!(".{LAST}.part"));
                fs::write(&beside, format!("{text:#}\n"))
                    .and_then(|()| File::open(&beside)?.sync_all())
                    .and_then(|()| fs::rename(&beside, &last))
                    .map_err(failed(&last, "cannot be written"))?;
                if let Some(before) = before.and_then(|before| before["step"].as_u64())
                    && before != step
                {
                    // What cannot be removed is only in the way of the disk's space.
                    let _ = fs::remove_dir_all(directory.join(format!("step-{before:010}")));
                }
                Ok([])
            },
        )
        .map(|[]| ())
    }

    /// Loads the last complete checkpoint, which any number of nodes may have written, and returns its
    /// step. Returns `None` if there is none. Collective.
    ///
    /// Each node reads its rows alone.
    ///
    /// # Errors
    /// - [`Error::Checkpoint`] if the checkpoint lacks an array, or has one of another type or shape.
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
        let [found, step] = self.lead(call, |_| {
            let path = directory.join(LAST);
            let Some(last) = self.first_alone(read_last(&path))? else {
                return Ok([0; 2]);
            };
            let number = |value: &Value, name: &str| {
                value[name].as_u64().ok_or_else(|| Error::Checkpoint {
                    path: path.display().to_string(),
                    problem: format!("it has no number {name:?}: it is not of ndshm-mpi"),
                })
            };
            let step = self.first_alone(number(&last, "step"))?;
            let nodes = self.first_alone(number(&last, "nodes"))? as usize;
            let from = directory.join(format!("step-{step:010}"));
            for (name, array) in arrays {
                let layout = self.first_alone(saved_layout(&path, &last, nodes, name, *array))?;
                for node in 0..nodes {
                    array.load(self, &file(&from, name, node, nodes), layout.rows_of(node))?;
                }
            }
            Ok([1, step])
        })?;
        Ok((found != 0).then_some(step))
    }
}

/// Checks a saved array, and returns its division among the nodes that wrote it.
fn saved_layout(
    path: &Path,
    last: &Value,
    nodes: usize,
    name: &str,
    array: &dyn Saved,
) -> Result<Layout> {
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
    Layout::new(array.layout_of().rows(), tile, nodes)
}

/// Reads the file that names the last checkpoint. `None` if there is none.
fn read_last(path: &Path) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "cannot be read")(error)),
    };
    let value = serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
        path: path.display().to_string(),
        problem: format!("it is not a JSON text: {error}"),
    })?;
    Ok(Some(value))
}

/// Returns where the elements of a `.npy` file begin. Nothing may follow them.
fn header_len(file: &mut File, path: &Path, elements: u64) -> Result<u64> {
    let mut start = [0u8; 12];
    let len = (file.read_exact(&mut start).and_then(|()| file.metadata()))
        .map_err(failed(path, "cannot be read"))?
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
                 or cut off after it was written"
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
