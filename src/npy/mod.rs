//! Files of numpy: `.npy` for an array, `.npz` for several.
//!
//! The calls are methods of [`HandleTable`]: [`load_npy`](HandleTable::load_npy),
//! [`save_npy`](HandleTable::save_npy), [`load_npz`](HandleTable::load_npz) and others.
//!
//! The elements are copied directly between file and segment; several threads read pieces at once.
//! Nothing is mapped. A memory map would save no copy, because the bytes have to be in the segment,
//! and if another process truncated the file, a map would end this process with a SIGBUS.
//!
//! [`guide::files`](crate::guide::files) lists the supported types.
//!
//! Headers are parsed here. `npyz` 0.9.1, and `py_literal` 0.4.0 on which it is built, were tried
//! on the files of `tests/npy` and on hostile headers, and were not used:
//!
//! - `py_literal` takes four times longer for each level of nested fields. A valid header of 104
//!   bytes, with 11 levels, takes 18 s; 24 open brackets take more than 30 s. 5,000 nested tuples
//!   overflow the stack, which ends the process. Our parser refuses more than 16 levels at once.
//! - `py_literal` refuses 5 of the 8 notations of Python that `files.py dialects` writes and numpy
//!   reads: `3L`, `u'f8'`, `r'f8'`, `'''f8'''` and adjacent strings.
//! - `npyz` refuses 171 of the 209 files of `files.py dialects`, most of them for the name of the
//!   type. It also refuses titles of fields, a field's shape that is a number, and Latin-1 names in
//!   formats 1.0 and 2.0. It accepts unknown keys. It allocates what the header claims, up to
//!   4 GiB, before it reads the text.
//! - Together they are 28 packages, with a C compiler for `psm`. The parser in `literal` has 230
//!   lines and needs none.

mod archive;
mod dtype;
pub(crate) mod error;
mod header;
mod literal;
mod npz;
#[cfg(not(loom))]
mod observed;
mod opaque;
mod places;
mod spelling;
mod transfer;

use std::fs::File;
use std::path::Path;

use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::table::builder::ArrayBuilder;
use dtype::NotInNumpy;
pub(crate) use error::NpyError;
use header::Header;
pub use npz::{NpzArray, NpzMember, PartialNpz, npz_members};
use transfer::Elements;

impl HandleTable {
    /// Loads a `.npy` file into a new array. Bytes after the array are ignored.
    ///
    /// [`AnyHandle::downcast`] converts the handle to the expected type.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # use ndarray::Ix2;
    /// # let path = std::env::temp_dir().join(format!("ndshm-load-{}.npy", std::process::id()));
    /// # table.save_npy(table.from_elem((2, 3), 1.5)?, &path)?;
    /// let x = table.load_npy(&path)?.downcast::<f64, Ix2>(&table)?;
    /// assert_eq!(table.read(x)?.sum(), 9.0);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`]; then nothing is allocated.
    pub fn load_npy(&self, path: impl AsRef<Path>) -> Result<AnyHandle, NpyError> {
        let path = path.as_ref();
        let (file, len) = transfer::open(path)?;
        let name = path.display().to_string();
        let mut start = transfer::FileReader { file: &file, at: 0 };
        let header = Header::read(&mut start, len).map_err(NpyError::header(&name))?;
        let mut array = self.room_for(&header, &name, len - header.len)?;
        let elements = Elements {
            of: &header.of,
            name: &name,
        };
        elements.read(&file, header.len, array.bytes_mut())?;
        array.publish().map_err(NpyError::alloc(&name))
    }

    /// Saves an array as a `.npy` file. The file replaces `path` once it is complete.
    ///
    /// The array is leased for reading meanwhile. A process that is killed during the call leaves a
    /// hidden file beside `path`, whose name ends in `.part`.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let path = std::env::temp_dir().join(format!("ndshm-save-{}.npy", std::process::id()));
    /// let x = table.from_elem((2, 3), 1.5)?;
    /// table.save_npy(x, &path)?;                           // `numpy.load(path)` reads it
    /// assert_eq!(table.info(table.load_npy(&path)?)?.shape, [2, 3]);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NpyError`]; then `path` is unchanged.
    pub fn save_npy(
        &self,
        handle: impl Into<AnyHandle>,
        path: impl AsRef<Path>,
    ) -> Result<(), NpyError> {
        let array = self.read_untyped(handle)?;
        let header = header_of(&array)?;
        transfer::save(path.as_ref(), |file: &mut File, name: &str| {
            transfer::write(file, name, &header)?;
            transfer::write(file, name, array.bytes())
        })
    }

    /// Allocates an array for the elements. `found` is the maximal number of bytes in the file. It
    /// is checked before the allocation, because a header can claim anything.
    fn room_for(
        &self,
        header: &Header,
        name: &str,
        found: u64,
    ) -> Result<ArrayBuilder<'_>, NpyError> {
        if header.bytes > found {
            return Err(NpyError::CutOff {
                file: name.to_owned(),
                expected: header.bytes,
                found,
            });
        }
        self.core
            .builder(&header.of.dtype, &header.shape, header.order)
            .map_err(NpyError::alloc(name))
    }
}

/// Returns the bytes before the elements of an array.
fn header_of(array: &crate::untyped::UntypedReadGuard<'_>) -> Result<Vec<u8>, NpyError> {
    header::written(array.dtype(), array.shape(), array.order())
        .map_err(not_in_numpy(array.handle()))
}

fn not_in_numpy(handle: AnyHandle) -> impl FnOnce(NotInNumpy) -> NpyError {
    move |unknown| match unknown {
        NotInNumpy::Scalar { dtype, field } => NpyError::NotInNumpy {
            handle,
            dtype,
            field,
        },
        NotInNumpy::Opaque(dtype) => NpyError::OpaqueNotInNumpy { handle, dtype },
    }
}
