//! Copying of bytes between files and segments, without a copy in between. Several threads read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::dtype::FileType;
use super::error::NpyError;
use crate::element::{DType, Element, InvalidElement, ScalarType};
use crate::parallel::{self, PIECE};

/// Opens a regular file for reading. Returns the file and its length.
pub(super) fn open(path: &Path) -> Result<(File, u64), NpyError> {
    let name = path.display().to_string();
    let file = OpenOptions::new()
        .read(true)
        // Otherwise opening a pipe would wait for a writer.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(NpyError::io(&name, "open it"))?;
    let about = file.metadata().map_err(NpyError::io(&name, "look at it"))?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err(NpyError::NotAFile { file: name }),
    }
}

/// A file as a stream from an offset on. It does not move the file's own position, which is shared.
pub(super) struct FileReader<'f> {
    pub(super) file: &'f File,
    pub(super) at: u64,
}

impl io::Read for FileReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Bytes of elements that are read before their numbers are moved: few enough to stay in a cache in
/// between.
const MOVED: usize = 256 << 10;

/// Elements of one file type that are read into a segment.
pub(super) struct Elements<'a> {
    pub(super) of: &'a FileType,
    /// The file's name for errors.
    pub(super) name: &'a str,
}

impl Elements<'_> {
    /// Reads all of `bytes` from the offset `at` of the file.
    pub(super) fn read(&self, file: &File, at: u64, bytes: &mut [u8]) -> Result<(), NpyError> {
        let parts = self.parts(bytes).collect();
        parallel::for_each(parts, usize::MAX, |(first, part)| {
            self.read_part(file, at, first, part, |_| ())
        })
    }

    /// Does the same as [`read`](Elements::read), and returns the checksum of the file's bytes,
    /// continued from `before`.
    pub(super) fn read_checked(
        &self,
        file: &File,
        at: u64,
        bytes: &mut [u8],
        before: crc32fast::Hasher,
    ) -> Result<crc32fast::Hasher, NpyError> {
        let mut sums = vec![crc32fast::Hasher::new(); self.parts(bytes).count()];
        let parts = self.parts(bytes).zip(&mut sums).collect();
        parallel::for_each(parts, usize::MAX, |((first, part), sum)| {
            self.read_part(file, at, first, part, |read| sum.update(read))
        })?;
        let mut whole = before;
        sums.iter().for_each(|sum| whole.combine(sum));
        Ok(whole)
    }

    /// Reads elements in order. `take` fills the buffer that it is given from the file.
    pub(super) fn read_by(
        &self,
        bytes: &mut [u8],
        mut take: impl FnMut(&mut [u8]) -> Result<(), NpyError>,
    ) -> Result<(), NpyError> {
        for (first, part) in self.parts(bytes) {
            self.fill(part, &mut take)?;
            self.finish(first, part)?;
        }
        Ok(())
    }

    /// Returns parts of whole elements, each with the index of its first element.
    fn parts<'b>(&self, bytes: &'b mut [u8]) -> impl Iterator<Item = (u64, &'b mut [u8])> {
        let size = self.of.dtype.size();
        let count = (PIECE / size).max(1);
        bytes
            .chunks_mut(count * size)
            .enumerate()
            .map(move |(index, part)| (index as u64 * count as u64, part))
    }

    /// Reads the elements of a part that starts with element `first` of the file, and passes the
    /// bytes of the file to `each`.
    fn read_part(
        &self,
        file: &File,
        at: u64,
        first: u64,
        part: &mut [u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NpyError> {
        let mut at = at + first * self.of.size as u64;
        self.fill(part, &mut |bytes| {
            // If another process truncates the file, this is an error. A memory map would be a
            // SIGBUS.
            file.read_exact_at(bytes, at)
                .map_err(NpyError::io(self.name, "read its elements"))?;
            at += bytes.len() as u64;
            each(bytes);
            Ok(())
        })?;
        self.finish(first, part)
    }

    /// Fills a part with elements that `take` reads, in the layout of the segment.
    fn fill(
        &self,
        part: &mut [u8],
        take: &mut impl FnMut(&mut [u8]) -> Result<(), NpyError>,
    ) -> Result<(), NpyError> {
        let (size, in_file) = (self.of.dtype.size(), self.of.size);
        let Some(moves) = &self.of.moves else {
            return part.chunks_mut(PIECE).try_for_each(take);
        };
        let count = (MOVED / in_file).max(1);
        let mut buffer = vec![0; in_file * count.min(part.len() / size)];
        for part in part.chunks_mut(count * size) {
            let buffer = &mut buffer[..part.len() / size * in_file];
            take(buffer)?;
            let elements = buffer.chunks_exact(in_file);
            for (from, to) in elements.zip(part.chunks_exact_mut(size)) {
                moves.apply(from, to);
            }
        }
        Ok(())
    }

    /// Converts the elements of a part to the machine's byte order, and checks them. `first` is the
    /// index of the first element.
    fn finish(&self, first: u64, part: &mut [u8]) -> Result<(), NpyError> {
        for words in &self.of.swapped {
            words.swap(part, self.of.dtype.size());
        }
        if self.of.dtype == DType::Scalar(ScalarType::Bool) {
            bool::check(part).map_err(|error| NpyError::NotBool {
                file: self.name.to_owned(),
                error: InvalidElement {
                    index: error.index + first as usize,
                    ..error
                },
            })?;
        }
        Ok(())
    }
}

/// Appends `bytes`. Only one thread writes: the kernel locks a file during a write, so a second
/// thread would only wait.
pub(super) fn write(file: &mut File, name: &str, bytes: &[u8]) -> Result<(), NpyError> {
    file.write_all(bytes)
        .map_err(NpyError::io(name, "write to it"))
}

/// Creates a file with `fill`, and moves it to `path` once it is complete. No process ever sees a
/// part of it, and after an error `path` is unchanged.
pub(super) fn save(
    path: &Path,
    fill: impl FnOnce(&mut File, &str) -> Result<(), NpyError>,
) -> Result<(), NpyError> {
    let name = path.display().to_string();
    // Follow links: the file that they lead to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = fs::metadata(&target).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return Err(NpyError::NotAFile { file: name });
    }
    let (mut file, mut part) =
        PartialFile::beside(&target).map_err(NpyError::io(&name, "create it"))?;
    fill(&mut file, &name)?;
    if let Some(before) = before {
        file.set_permissions(before.permissions())
            .map_err(NpyError::io(&name, "set its permissions"))?;
    }
    fs::rename(&part.path, &target).map_err(NpyError::io(&name, "put it in its place"))?;
    part.incomplete = false;
    Ok(())
}

/// An incomplete file. It is removed on drop, unless it was moved to its place.
struct PartialFile {
    path: PathBuf,
    incomplete: bool,
}

impl PartialFile {
    fn beside(target: &Path) -> io::Result<(File, PartialFile)> {
        // Other threads of this process may save to the same directory.
        for attempt in 0..1000 {
            let path =
                target.with_file_name(format!(".ndshm-{}-{attempt}.part", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok((
                        file,
                        PartialFile {
                            path,
                            incomplete: true,
                        },
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "1000 files that end in .part are beside it already: remove them",
        ))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.incomplete {
            let _ = fs::remove_file(&self.path);
        }
    }
}
