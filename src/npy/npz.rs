//! Several arrays in one file: a zip archive of `.npy` files, as written by `numpy.savez`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::archive::{Archive, ChecksumReader, EXTENSION, Member, Method, NpzFile, zip_error};
use super::dtype::shortened;
use super::error::NpyError;
use super::header::Header;
use super::header_of;
use super::transfer::{self, Elements};
use crate::element::DType;
use crate::element::Order;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::table::builder::ArrayBuilder;
use crate::table::error::AllocError;
use crate::table::untyped::UntypedReadGuard;

/// Bytes of the longest name. An archive allows 65,535, but other tools have lower limits.
const NAME_LIMIT: usize = 4096;
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

impl HandleTable {
    /// Loads all arrays of a `.npz` file, as written by `numpy.savez` or `numpy.savez_compressed`,
    /// in the order of the file.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let path = std::env::temp_dir().join(format!("ndshm-load-{}.npz", std::process::id()));
    /// # table.save_npz(&path, [("w", table.zeros::<f64, _>(3)?.into())])?;
    /// for (name, array) in table.load_npz(&path)? {
    ///     table.publish(&name, array)?;
    /// }
    /// assert_eq!(table.info(table.find_any("w")?)?.shape, [3]);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`]; then none of the arrays is allocated. Checksums are verified. A file with a
    /// member that cannot be loaded is refused: see
    /// [`load_npz_partial`](HandleTable::load_npz_partial).
    pub fn load_npz(&self, path: impl AsRef<Path>) -> Result<Vec<(String, AnyHandle)>, NpyError> {
        let file = NpzFile::open(path.as_ref())?;
        let mut archive = file.archive()?;
        // Publish only after all are loaded: dropping an unpublished array frees it.
        let arrays = (0..archive.len())
            .map(|index| {
                let member = archive.member(index)?;
                match self.load_member(&mut archive, &member) {
                    Ok(array) => Ok((member.name, array)),
                    Err(error) => Err(error.with_remedy("load_npz_partial loads the other arrays")),
                }
            })
            .collect::<Result<Vec<_>, NpyError>>()?;
        publish(&file.path, arrays)
    }

    /// Loads all arrays of a `.npz` file that can be loaded, and returns the reason for each member
    /// that cannot.
    ///
    /// Use it for archives that contain pickled objects or other files beside the arrays.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let path = std::env::temp_dir().join(format!("ndshm-doc-partial-{}.npz", std::process::id()));
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(3)?;
    /// # table.save_npz(&path, [("data", x.into())])?;
    /// let npz = table.load_npz_partial(&path)?;
    /// for (name, why) in &npz.refused {
    ///     eprintln!("left out {name}: {why}");
    /// }
    /// let (name, data) = &npz.loaded[0];
    /// assert_eq!((name.as_str(), &table.info(*data)?.shape[..]), ("data", &[3][..]));
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`] if the file is not an archive, cannot be read, or an array gets no memory; then
    /// nothing is allocated.
    pub fn load_npz_partial(&self, path: impl AsRef<Path>) -> Result<PartialNpz, NpyError> {
        let file = NpzFile::open(path.as_ref())?;
        let mut archive = file.archive()?;
        let (mut arrays, mut refused) = (Vec::new(), Vec::new());
        for index in 0..archive.len() {
            let member = archive.member(index)?;
            match self.load_member(&mut archive, &member) {
                Ok(array) => arrays.push((member.name, array)),
                Err(error) if error.is_of_the_file() => refused.push((member.name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(PartialNpz {
            loaded: publish(&file.path, arrays)?,
            refused,
        })
    }

    /// Loads one array of a `.npz` file by its name. The other members are not read.
    ///
    /// ```
    /// # use ndarray::Ix1;
    /// # use ndshm::{HandleTable, Segment};
    /// # let path = std::env::temp_dir().join(format!("ndshm-doc-member-{}.npz", std::process::id()));
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_elem(3, 1.5)?;
    /// # table.save_npz(&path, [("data", x.into())])?;
    /// let data = table.load_npz_array(&path, "data")?.downcast::<f64, Ix1>(&table)?;
    /// assert_eq!(table.read(data)?.sum(), 4.5);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError::NoMember`], with the existing names, or an error of
    /// [`load_npz`](HandleTable::load_npz).
    pub fn load_npz_array(
        &self,
        path: impl AsRef<Path>,
        name: &str,
    ) -> Result<AnyHandle, NpyError> {
        let file = NpzFile::open(path.as_ref())?;
        let mut archive = file.archive()?;
        let Some(index) = archive.find(name) else {
            let mut names = Vec::new();
            for index in 0..archive.len() {
                names.push(shortened(&archive.member(index)?.name));
            }
            return Err(NpyError::NoMember {
                file: file.path,
                name: shortened(name),
                names,
            });
        };
        let member = archive.member(index)?;
        let array = self.load_member(&mut archive, &member)?;
        array.publish().map_err(NpyError::alloc(&member.place))
    }

    /// Saves arrays as a `.npz` file, by name and uncompressed. The file replaces `path` once it is
    /// complete.
    ///
    /// All arrays are leased for reading until the last one is written, so the file shows a single
    /// moment.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let path = std::env::temp_dir().join(format!("ndshm-save-{}.npz", std::process::id()));
    /// let (w, b) = (table.zeros::<f64, _>((3, 4))?, table.zeros::<f32, _>(4)?);
    /// table.save_npz(&path, [("w", w.into()), ("b", b.into())])?;
    /// assert_eq!(table.load_npz(&path)?[1].0, "b");
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`]; then `path` is unchanged.
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
                    // Do not drop it: `drop` would try to write the list of arrays, and print its
                    // failure.
                    core::mem::forget(archive);
                    Err(error)
                }
            }
        })
    }

    /// Reads the elements of a member into a new array.
    fn load_member(
        &self,
        archive: &mut Archive<'_>,
        member: &Member,
    ) -> Result<ArrayBuilder<'_>, NpyError> {
        archive.claim(member)?;
        match member.method()? {
            Method::Stored => self.load_stored(archive.file, member),
            Method::Deflated => self.load_deflated(&mut archive.inflate(member)?, member),
        }
    }

    fn load_stored(&self, file: &File, member: &Member) -> Result<ArrayBuilder<'_>, NpyError> {
        let place = &member.place;
        let damaged = |problem: &str| NpyError::damaged(place, problem);
        let start = member.start()?;
        if member.stored != member.size {
            return Err(damaged("it is stored, but with two different sizes"));
        }
        let mut sums = ChecksumReader {
            from: transfer::FileReader { file, at: start },
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

    /// Reads a compressed member. `from` verifies the checksum at its end.
    fn load_deflated(
        &self,
        from: &mut impl Read,
        member: &Member,
    ) -> Result<ArrayBuilder<'_>, NpyError> {
        let place = &member.place;
        let inflating = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => NpyError::damaged(place, "it ends too early"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                NpyError::damaged(place, error.to_string())
            }
            _ => NpyError::io(place, "read its elements")(error),
        };
        let size = member.most();
        let header = Header::read(from, size).map_err(NpyError::header(place))?;
        let mut array = self.room_for(&header, place, size - header.len)?;
        member.is_whole(&header)?;
        let elements = Elements {
            of: &header.of,
            name: place,
        };
        elements.read_by(array.bytes_mut(), |piece| {
            piece
                .chunks_mut(INFLATED)
                .try_for_each(|piece| from.read_exact(piece).map_err(inflating))
        })?;
        if from.read(&mut [0]).map_err(inflating)? != 0 {
            return Err(NpyError::damaged(place, "it has bytes after its elements"));
        }
        Ok(array)
    }
}

/// Publishes the arrays of a file. It fails for all of them, in a forked child, or for none.
fn publish(
    file: &str,
    arrays: Vec<(String, ArrayBuilder<'_>)>,
) -> Result<Vec<(String, AnyHandle)>, NpyError> {
    let publish = |(name, array): (String, ArrayBuilder<'_>)| Ok((name, array.publish()?));
    let arrays: Result<_, AllocError> = arrays.into_iter().map(publish).collect();
    arrays.map_err(NpyError::alloc(file))
}

/// Returns the members of a `.npz` file, in the order of the file, without loading elements.
///
/// ```
/// # use ndshm::{HandleTable, Segment};
/// # let path = std::env::temp_dir().join(format!("ndshm-doc-members-{}.npz", std::process::id()));
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # table.save_npz(&path, [("x", table.zeros::<f64, _>((3, 2))?.into())])?;
/// for member in ndshm::npy::npz_members(&path)? {
///     match member.array {
///         Ok(array) => println!("{}: {} {:?}", member.name, array.dtype, array.shape),
///         Err(why) => println!("{}: {why}", member.name),
///     }
/// }
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`NpyError`] if the file is not an archive, or cannot be read.
pub fn npz_members(path: impl AsRef<Path>) -> Result<Vec<NpzMember>, NpyError> {
    let file = NpzFile::open(path.as_ref())?;
    let mut archive = file.archive()?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let member = archive.member(index)?;
        let array = match archive.header(&member) {
            Err(error) if !error.is_of_the_file() => return Err(error),
            header => header.map(|header| NpzArray {
                dtype: header.of.dtype,
                shape: header.shape,
                order: header.order,
            }),
        };
        let name = member.name;
        members.push(NpzMember { name, array });
    }
    Ok(members)
}

/// A member of a `.npz` file; see [`npz_members`].
#[derive(Debug)]
#[non_exhaustive]
pub struct NpzMember {
    /// The name, without the ending `.npy`.
    pub name: String,
    /// The array that [`load_npz_array`](HandleTable::load_npz_array) would load, or the error that
    /// it would return.
    pub array: Result<NpzArray, NpyError>,
}

/// An array in a `.npz` file, as its header describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NpzArray {
    /// The type of its elements after loading.
    pub dtype: DType,
    /// The lengths of its axes.
    pub shape: Vec<usize>,
    /// The order of its axes.
    pub order: Order,
}

/// The outcome of [`load_npz_partial`](HandleTable::load_npz_partial).
#[derive(Debug)]
#[non_exhaustive]
pub struct PartialNpz {
    /// The arrays that were loaded, by name, in the order of the file.
    pub loaded: Vec<(String, AnyHandle)>,
    /// The other members, each with the reason and the remedy.
    pub refused: Vec<(String, NpyError)>,
}
