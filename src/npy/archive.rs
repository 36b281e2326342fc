//! The zip archive of a `.npz` file: its list of members, and the reading of each member.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::dtype::shortened;
use super::error::NpyError;
use super::header::Header;
use super::transfer;

/// The ending that follows an array's name in the archive.
pub(super) const EXTENSION: &str = ".npy";
/// The largest expansion of DEFLATE: 258 bytes for two bits.
const INFLATION: u64 = 1032;

/// Converts an error of the zip library.
pub(super) fn zip_error(name: &str, what: &'static str) -> impl FnOnce(ZipError) -> NpyError {
    move |error| match error {
        ZipError::Io(error) => NpyError::io(name, what)(error),
        error => NpyError::damaged(name, format!("{error}")),
    }
}

/// An open `.npz` file.
pub(super) struct NpzFile {
    file: File,
    len: u64,
    pub(super) path: String,
}

impl NpzFile {
    pub(super) fn open(path: &Path) -> Result<NpzFile, NpyError> {
        let (file, len) = transfer::open(path)?;
        let path = path.display().to_string();
        Ok(NpzFile { file, len, path })
    }

    pub(super) fn archive(&self) -> Result<Archive<'_>, NpyError> {
        let archive = ZipArchive::new(BufReader::new(&self.file))
            .map_err(zip_error(&self.path, "read its list of arrays"))?;
        Ok(Archive {
            archive,
            file: &self.file,
            path: &self.path,
            unclaimed: self.len,
        })
    }
}

/// The archive in a file.
pub(super) struct Archive<'f> {
    archive: ZipArchive<BufReader<&'f File>>,
    pub(super) file: &'f File,
    path: &'f str,
    /// Bytes of the file that no member has claimed yet.
    unclaimed: u64,
}

impl Archive<'_> {
    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.archive.len()
    }

    /// Returns the index of the member with this name, with or without the ending.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let with_ending = format!("{name}{EXTENSION}");
        [with_ending.as_str(), name]
            .into_iter()
            .find_map(|name| self.archive.index_for_name(name))
    }

    /// Subtracts the bytes of a member from those of the file. The list of a hostile archive may
    /// claim anything, even that all its members are the same bytes.
    pub(super) fn claim(&mut self, member: &Member) -> Result<(), NpyError> {
        self.unclaimed = self.unclaimed.checked_sub(member.stored).ok_or_else(|| {
            let problem = "its arrays take more bytes than the file has";
            NpyError::damaged(&member.place, problem)
        })?;
        Ok(())
    }

    /// Returns the archive's description of a member.
    pub(super) fn member(&mut self, index: usize) -> Result<Member, NpyError> {
        let path = self.path;
        let member = self
            .archive
            .by_index_raw(index)
            .map_err(zip_error(path, "find its arrays"))?;
        let full = match member.name() {
            Ok(name) => name.into_owned(),
            Err(error) => return Err(zip_error(path, "read the name of an array")(error)),
        };
        let name = full.strip_suffix(EXTENSION).unwrap_or(&full);
        Ok(Member {
            place: format!("{path}[{}]", shortened(name)),
            name: name.to_owned(),
            is_npy: name.len() < full.len(),
            encrypted: member.encrypted(),
            compression: member.compression(),
            index,
            start: member.data_start(),
            stored: member.compressed_size(),
            size: member.size(),
            sum: member.crc32(),
        })
    }

    /// Reads the header of a member.
    pub(super) fn header(&mut self, member: &Member) -> Result<Header, NpyError> {
        let header = match member.method()? {
            Method::Stored => {
                let at = member.start()?;
                let mut from = transfer::FileReader {
                    file: self.file,
                    at,
                };
                Header::read(&mut from, member.size)
            }
            Method::Deflated => Header::read(&mut self.inflate(member)?, member.most()),
        };
        header.map_err(NpyError::header(&member.place))
    }

    /// Returns the bytes of a compressed member.
    pub(super) fn inflate(&mut self, member: &Member) -> Result<impl Read, NpyError> {
        self.archive
            .by_index(member.index)
            .map_err(zip_error(&member.place, "read it"))
    }
}

/// The way to read the bytes of a member.
pub(super) enum Method {
    Stored,
    Deflated,
}

/// The archive's description of a member.
pub(super) struct Member {
    /// The array's name, without the ending.
    pub(super) name: String,
    /// The place for error messages.
    pub(super) place: String,
    /// `true` if the name has the ending of an array.
    is_npy: bool,
    encrypted: bool,
    compression: CompressionMethod,
    index: usize,
    start: Option<u64>,
    /// Bytes in the file.
    pub(super) stored: u64,
    /// Bytes of the uncompressed member.
    pub(super) size: u64,
    pub(super) sum: u32,
}

impl Member {
    /// Returns the way to read the member, or an error if it cannot be read.
    pub(super) fn method(&self) -> Result<Method, NpyError> {
        let problem = |problem: String| NpyError::damaged(&self.place, problem);
        if !self.is_npy {
            return Err(problem(format!(
                "its name does not end in {EXTENSION}: remove it from the archive, or load the \
                 arrays with load_npz_partial"
            )));
        }
        if self.encrypted {
            return Err(problem(
                "it is encrypted: write it without encryption".to_owned(),
            ));
        }
        match self.compression {
            CompressionMethod::Stored => Ok(Method::Stored),
            CompressionMethod::Deflated => Ok(Method::Deflated),
            other => Err(problem(format!(
                "it is compressed by {other}: write the archive again, as by \
                 `numpy.savez(new, **numpy.load(old))`"
            ))),
        }
    }

    /// Returns the offset of the member's bytes in the file.
    pub(super) fn start(&self) -> Result<u64, NpyError> {
        self.start
            .ok_or_else(|| NpyError::damaged(&self.place, "it has no position in the file"))
    }

    /// Returns the maximal length of the uncompressed bytes. The size in the archive is only a
    /// claim.
    pub(super) fn most(&self) -> u64 {
        let most = self.stored.saturating_mul(INFLATION);
        self.size.min(most.saturating_add(INFLATION))
    }

    /// Checks that nothing follows the elements, because the checksum covers the whole member.
    pub(super) fn is_whole(&self, header: &Header) -> Result<(), NpyError> {
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

/// A stream that computes the checksum of the bytes read.
pub(super) struct ChecksumReader<R> {
    pub(super) from: R,
    pub(super) sum: crc32fast::Hasher,
}

impl<R: Read> Read for ChecksumReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}
