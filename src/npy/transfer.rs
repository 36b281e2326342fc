//! Bytes between files and segments, without a copy between; read by several threads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::dtype::FileType;
use super::error::NpyError;
use crate::element::{DType, Element, InvalidElement, ScalarType};
use crate::parallel::{self, PIECE};

/// Opens a regular file to be read; its length.
pub(super) fn open(path: &Path) -> Result<(File, u64), NpyError> {
    let name = path.display().to_string();
    let file = OpenOptions::new()
        .read(true)
        // A pipe that nobody writes to would be waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(NpyError::io(&name, "open it"))?;
    let about = file.metadata().map_err(NpyError::io(&name, "look at it"))?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err(NpyError::NotAFile { file: name }),
    }
}

/// A file as a stream from some place on, without moving a place that others share.
pub(super) struct From<'f> {
    pub(super) file: &'f File,
    pub(super) at: u64,
}

impl io::Read for From<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Bytes of elements that are read before their numbers are moved to their places: few enough to
/// stay in a cache in between.
const MOVED: usize = 256 << 10;

/// Elements of one file type, on their way into a segment.
pub(super) struct Elements<'a> {
    pub(super) of: &'a FileType,
    /// The file's name for errors.
    pub(super) name: &'a str,
}

impl Elements<'_> {
    /// Reads all of `bytes` from `at` of the file on.
    pub(super) fn read(&self, file: &File, at: u64, bytes: &mut [u8]) -> Result<(), NpyError> {
        let parts = self.parts(bytes).collect();
        parallel::for_each(parts, usize::MAX, |(first, part)| {
            self.read_part(file, at, first, part, |_| ())
        })
    }

    /// As [`read`](Elements::read). Returns the checksum of the file's bytes, which continues `before`.
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

    /// Reads elements one after another by `take`, which fills what it is given from the file.
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

    /// Returns parts of whole elements, and the index of the first of each.
    fn parts<'b>(&self, bytes: &'b mut [u8]) -> impl Iterator<Item = (u64, &'b mut [u8])> {
        let size = self.of.dtype.size();
        let count = (PIECE / size).max(1);
        bytes
            .chunks_mut(count * size)
            .enumerate()
            .map(move |(index, part)| (index as u64 * count as u64, part))
    }

    /// Reads the elements of a part, of which element `first` of the file is the first one, and gives
    /// the bytes to `each` as they are in the file.
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
            // A file that somebody shortens meanwhile is an error here. Through a memory map it
            // would be a SIGBUS.
            file.read_exact_at(bytes, at)
                .map_err(NpyError::io(self.name, "read its elements"))?;
            at += bytes.len() as u64;
            each(bytes);
            Ok(())
        })?;
        self.finish(first, part)
    }

    /// Fills a part with elements that `take` reads, each at its place in the segment.
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

    /// Brings the elements of a part into the machine's order of bytes, and checks them. `first` is
    /// the index of the first of them.
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

/// Writes `bytes` to the end of what was written. One thread does it: the kernel locks a file while
/// it is written, and a second one would only wait.
pub(super) fn write(file: &mut File, name: &str, bytes: &[u8]) -> Result<(), NpyError> {
    file.write_all(bytes)
        .map_err(NpyError::io(name, "write to it"))
}

/// Makes a file by `fill`, and puts it at `path` when it is whole: nobody ever sees a part of it,
/// and after an error what was there is there still.
pub(super) fn save(
    path: &Path,
    fill: impl FnOnce(&mut File, &str) -> Result<(), NpyError>,
) -> Result<(), NpyError> {
    let name = path.display().to_string();
    // Through links: the file is replaced that they lead to.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = fs::metadata(&target).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return Err(NpyError::NotAFile { file: name });
    }
    let (mut file, mut part) = Part::beside(&target).map_err(NpyError::io(&name, "create it"))?;
    fill(&mut file, &name)?;
    if let Some(before) = before {
        file.set_permissions(before.permissions())
            .map_err(NpyError::io(&name, "set its permissions"))?;
    }
    fs::rename(&part.path, &target).map_err(NpyError::io(&name, "put it in its place"))?;
    part.left = false;
    Ok(())
}

/// A file that is not whole yet, removed unless it gets its place.
struct Part {
    path: PathBuf,
    left: bool,
}

impl Part {
    fn beside(target: &Path) -> io::Result<(File, Part)> {
        // Other threads of this process may save to the same directory.
        for attempt in 0..1000 {
            let path =
                target.with_file_name(format!(".ndshm-{}-{attempt}.part", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Part { path, left: true })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "1000 files that end in .part are beside it already: remove them",
        ))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.left {
            let _ = fs::remove_file(&self.path);
        }
    }
}
