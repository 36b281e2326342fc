//! Several arrays in one file: a zip archive of `.npy` files, as `numpy.savez` writes it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::dtype::shortened;
use super::error::NpyError;
use super::header::Header;
use super::header_of;
use super::transfer::{self, Elements};
use crate::handle::AnyHandle;
use crate::table::{HandleTable, NewBytes, UntypedReadGuard};

/// What follows an array's name in the archive.
const EXTENSION: &str = ".npy";
/// Bytes of the longest name. An archive's could have 65,535, but other tools have lower limits.
const NAME_LIMIT: usize = 4096;
/// The most that DEFLATE makes of a byte: 258 bytes for two bits.
const INFLATION: u64 = 1032;
/// Bytes that are inflated at a time.
const INFLATED: usize = 1 << 20;

/// A name, its header, and its elements.
type Leased<'t> = (String, Vec<u8>, UntypedReadGuard<'t>);

fn write_all(
    archive: &mut ZipWriter<&mut File>,
    path: &str,
    leased: &[Leased<'_>],
) -> Result<(), NpyError> {
    for (name, header, array) in leased {
        let place = format!("{path}[{}]", shortened(name));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file((header.len() + array.bytes().len()) as u64 >= u32::MAX.into());
        archive
            .start_file(format!("{name}{EXTENSION}"), options)
            .map_err(zip_error(&place, "begin it"))?;
        archive
            .write_all(header)
            .and_then(|()| archive.write_all(array.bytes()))
            .map_err(NpyError::io(&place, "write it"))?;
    }
    Ok(())
}

/// The error of what the zip library found.
fn zip_error(name: &str, what: &'static str) -> impl FnOnce(ZipError) -> NpyError {
    move |error| match error {
        ZipError::Io(error) => NpyError::io(name, what)(error),
        error => NpyError::damaged(name, format!("{error}")),
    }
}

impl HandleTable {
    /// Loads all arrays of a `.npz` file, as `numpy.savez` or `numpy.savez_compressed` writes it, in
    /// the order of the file.
    ///
    /// # Errors
    /// [`NpyError`]; nothing is allocated then, of all of them. Checksums are compared.
    pub fn load_npz(&self, path: impl AsRef<Path>) -> Result<Vec<(String, AnyHandle)>, NpyError> {
        let path = path.as_ref();
        let (file, len) = transfer::open(path)?;
        let name = path.display().to_string();
        let mut archive = ZipArchive::new(BufReader::new(&file))
            .map_err(zip_error(&name, "read its list of arrays"))?;
        let mut source = Source {
            file: &file,
            path: &name,
            left: len,
        };
        // Published when all are there: what is dropped before is given back.
        let arrays = (0..archive.len())
            .map(|index| self.load_member(&mut source, &mut archive, index))
            .collect::<Result<Vec<_>, _>>()?;
        let publish = |(name, array): (String, NewBytes<'_>)| (name, array.publish());
        Ok(arrays.into_iter().map(publish).collect())
    }

    /// Saves arrays as a `.npz` file, by name, not compressed. It replaces what is at `path` when
    /// it is whole.
    ///
    /// All of the arrays are leased for reading until the last one is written: the file is of one
    /// moment.
    ///
    /// # Errors
    /// [`NpyError`]; what was at `path` is there still.
    pub fn save_npz<N: AsRef<str>>(
        &self,
        path: impl AsRef<Path>,
        arrays: impl IntoIterator<Item = (N, AnyHandle)>,
    ) -> Result<(), NpyError> {
        let mut names = HashSet::new();
        let mut leased = Vec::new();
        for (name, handle) in arrays {
            let name = name.as_ref().to_owned();
            let twice = !names.insert(name.clone());
            if twice || name.is_empty() || name.len() > NAME_LIMIT {
                return Err(NpyError::Name {
                    name: shortened(&name),
                    twice,
                    limit: NAME_LIMIT,
                });
            }
            let array = self.read_untyped(handle)?;
            let header = header_of(&array)?;
            leased.push((name, header, array));
        }
        transfer::save(path.as_ref(), |file, path| {
            let mut archive = ZipWriter::new(file);
            let outcome = write_all(&mut archive, path, &leased);
            match outcome {
                Ok(()) => archive
                    .finish()
                    .map(drop)
                    .map_err(zip_error(path, "write its list of arrays")),
                Err(error) => {
                    // Dropped, it would try to write its list of arrays, and print that it cannot.
                    core::mem::forget(archive);
                    Err(error)
                }
            }
        })
    }

    /// The array at `index` of the archive, and its name.
    fn load_member(
        &self,
        source: &mut Source<'_>,
        archive: &mut ZipArchive<BufReader<&File>>,
        index: usize,
    ) -> Result<(String, NewBytes<'_>), NpyError> {
        let path = source.path;
        let member = archive
            .by_index_raw(index)
            .map_err(zip_error(path, "find its arrays"))?;
        let full = match member.name() {
            Ok(name) => name.into_owned(),
            Err(error) => return Err(zip_error(path, "read the name of an array")(error)),
        };
        let about = Member {
            place: format!(
                "{path}[{}]",
                shortened(full.strip_suffix(EXTENSION).unwrap_or(&full))
            ),
            start: member.data_start(),
            stored: member.compressed_size(),
            size: member.size(),
            sum: member.crc32(),
        };
        let (method, encrypted) = (member.compression(), member.encrypted());
        drop(member);
        let problem = |problem: String| NpyError::damaged(&about.place, problem);
        let Some(name) = full.strip_suffix(EXTENSION) else {
            return Err(problem(format!(
                "its name does not end in {EXTENSION}: take it out of the archive"
            )));
        };
        if encrypted {
            return Err(problem("it is encrypted: write it without".to_owned()));
        }
        // The list of an archive may say anything, also that all its members are the same bytes.
        source.left = source
            .left
            .checked_sub(about.stored)
            .ok_or_else(|| problem("its arrays take more bytes than the file has".to_owned()))?;
        let array = match method {
            CompressionMethod::Stored => self.load_stored(source.file, &about)?,
            CompressionMethod::Deflated => {
                let mut from = archive
                    .by_index(index)
                    .map_err(zip_error(&about.place, "read it"))?;
                self.load_deflated(&mut from, &about)?
            }
            other => {
                return Err(problem(format!(
                    "it is compressed by {other}; those of numpy.savez and \
                     numpy.savez_compressed are read"
                )));
            }
        };
        Ok((name.to_owned(), array))
    }

    fn load_stored(&self, file: &File, member: &Member) -> Result<NewBytes<'_>, NpyError> {
        let place = &member.place;
        let damaged = |problem: &str| NpyError::damaged(place, problem);
        let start = member.start.ok_or_else(|| damaged("it has no place"))?;
        if member.stored != member.size {
            return Err(damaged("it is stored, but with two different sizes"));
        }
        let mut sums = Summed {
            from: transfer::From { file, at: start },
            sum: crc32fast::Hasher::new(),
        };
        let header = Header::read(&mut sums, member.size).map_err(NpyError::header(place))?;
        let mut array = self.room_for(&header, place, member.size - header.len)?;
        member.is_whole(&header)?;
        let elements = Elements {
            of: &header.of,
            name: place,
        };
        let at = start + header.len;
        let sum = elements.read_checked(file, at, array.bytes_mut(), sums.sum)?;
        match sum.finalize() == member.sum {
            true => Ok(array),
            false => Err(damaged("its checksum is wrong")),
        }
    }

    /// `from` compares the checksum at its end.
    fn load_deflated(
        &self,
        from: &mut impl Read,
        member: &Member,
    ) -> Result<NewBytes<'_>, NpyError> {
        let place = &member.place;
        let inflating = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => NpyError::damaged(place, "it ends too early"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                NpyError::damaged(place, error.to_string())
            }
            _ => NpyError::io(place, "read its elements")(error),
        };
        // The size is only said; what so many bytes can become at most is known.
        let most = member
            .stored
            .saturating_mul(INFLATION)
            .saturating_add(INFLATION);
        let size = member.size.min(most);
        let header = Header::read(from, size).map_err(NpyError::header(place))?;
        let mut array = self.room_for(&header, place, size - header.len)?;
        member.is_whole(&header)?;
        for piece in array.bytes_mut().chunks_mut(INFLATED) {
            from.read_exact(piece).map_err(inflating)?;
        }
        if from.read(&mut [0]).map_err(inflating)? != 0 {
            return Err(NpyError::damaged(place, "it goes on after its elements"));
        }
        let elements = Elements {
            of: &header.of,
            name: place,
        };
        elements.finish_all(array.bytes_mut())?;
        Ok(array)
    }
}

/// An archive's file.
struct Source<'f> {
    file: &'f File,
    path: &'f str,
    /// Bytes that may still be those of members.
    left: u64,
}

/// What the archive says of a member.
struct Member {
    /// For errors.
    place: String,
    start: Option<u64>,
    /// Bytes in the file.
    stored: u64,
    /// Bytes that it stands for.
    size: u64,
    sum: u32,
}

impl Member {
    /// The checksum is of the whole member, so that nothing may follow the elements.
    fn is_whole(&self, header: &Header) -> Result<(), NpyError> {
        match header.len + header.bytes == self.size {
            true => Ok(()),
            false => Err(NpyError::damaged(
                &self.place,
                format!(
                    "it has {} bytes, of which header and elements are {}",
                    self.size,
                    header.len + header.bytes
                ),
            )),
        }
    }
}

/// A stream whose checksum is taken.
struct Summed<R> {
    from: R,
    sum: crc32fast::Hasher,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}
