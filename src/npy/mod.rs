//! Files of numpy: `.npy` for an array, `.npz` for several.
//!
//! The elements are copied directly between file and segment; several threads read pieces at once.
//! Nothing is mapped. A memory map would save no copy, because the bytes have to be in the segment,
//! and if another process truncated the file, a map would end this process with a SIGBUS.
//!
//! [`guide::files`](crate::guide::files) lists the supported types.

mod archive;
mod dtype;
mod error;
mod header;
mod literal;
mod npz;
#[cfg(not(loom))]
mod observed;
mod places;
mod spelling;
mod transfer;

use std::fs::File;
use std::path::Path;

use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::table::untyped::NewBytes;
pub use error::NpyError;
use header::Header;
pub use npz::{NpzArray, NpzMember, PartialNpz, npz_members};
use transfer::Elements;

impl HandleTable {
    /// Loads a `.npy` file into a new array. Bytes after the array are ignored.
    ///
    /// [`AnyHandle::typed`] converts the handle to the expected type.
    ///
    /// # Errors
    /// [`NpyError`]; then nothing is allocated.
    pub fn load_npy(&self, path: impl AsRef<Path>) -> Result<AnyHandle, NpyError> {
        let path = path.as_ref();
        let (file, len) = transfer::open(path)?;
        let name = path.display().to_string();
        let mut start = transfer::From { file: &file, at: 0 };
        let header = Header::read(&mut start, len).map_err(NpyError::header(&name))?;
        let mut array = self.room_for(&header, &name, len - header.len)?;
        let elements = Elements {
            of: &header.of,
            name: &name,
        };
        elements.read(&file, header.len, array.bytes_mut())?;
        Ok(array.publish())
    }

    /// Saves an array as a `.npy` file. The file replaces `path` once it is complete.
    ///
    /// The array is leased for reading meanwhile. A process that is killed during the call leaves a
    /// hidden file beside `path`, whose name ends in `.part`.
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
    fn room_for(&self, header: &Header, name: &str, found: u64) -> Result<NewBytes<'_>, NpyError> {
        if header.bytes > found {
            return Err(NpyError::CutOff {
                file: name.to_owned(),
                expected: header.bytes,
                found,
            });
        }
        self.core
            .reserve_untyped(&header.of.dtype, &header.shape, header.order)
            .map_err(NpyError::alloc(name))
    }
}

/// Returns the bytes before the elements of an array.
fn header_of(array: &crate::UntypedReadGuard<'_>) -> Result<Vec<u8>, NpyError> {
    header::written(array.dtype(), array.shape(), array.order())
        .map_err(not_in_numpy(array.handle()))
}

fn not_in_numpy(handle: AnyHandle) -> impl FnOnce(dtype::Unknown) -> NpyError {
    move |unknown| NpyError::NotInNumpy {
        handle,
        dtype: unknown.dtype,
        field: unknown.field,
    }
}
