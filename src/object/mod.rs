//! Objects: values that serde can serialize, stored once and read in place by any process.
//!
//! [`HandleTable::put_object`] stores a value, [`HandleTable::open_object`] opens it. [`Tensor`] is a
//! field type for arrays, which are then read without a copy.
//!
//! An object is an array of 64-byte blocks with a record type of its own. Leases, ownership,
//! reaping and checks are therefore those of arrays, and typed handles of other types are refused.
//! The first block is a header, then follow the value stream and the buffers, each from a block
//! boundary on.
//!
//! The value stream has its own format. A known compact format (postcard, bincode) would need a
//! serializer and a deserializer of the same size around it, to take tensors out of it, and none of
//! them describes itself: flattened fields, untagged enums, skipped or unknown fields, and the
//! error that names the value found need a tag before each value. With tags, a tensor is an
//! ordinary struct with its bytes in a buffer. Names of fields and variants are written once and
//! numbered; numbers in a sequence follow each other without tags.
//!
//! A value is serialized twice, once for the sizes and once into the segment. A large buffer is
//! then copied only once, directly to its final place.

mod copy;
mod de;
pub(crate) mod error;
mod format;
mod fresh;
mod handle;
mod param;
mod plain;
mod read;
mod ser;
mod tensor;
mod tensor_de;
mod tensor_ser;
#[cfg(test)]
mod tests;
mod write;

use core::fmt;
pub(crate) use error::ObjectError;

use ndarray::Ix1;
use serde::{Deserialize, Serialize};

use crate::handle::{AnyHandle, Handle};
use crate::handle_table::HandleTable;
use crate::table::error::{AllocError, LeaseError};
use crate::table::guard::ReadGuard;
pub(crate) use format::Block;
use format::{BLOCK, MAGIC, VERSION};
pub use handle::ObjectHandle;
pub use param::Value;
use read::Reader;
pub use tensor::Tensor;
use write::{Sizes, Writer};

impl HandleTable {
    /// Stores a value. Any process can [open](HandleTable::open_object) it by the handle.
    ///
    /// The object is one array of this table: it is owned, freed, detached and adopted like others.
    /// It cannot be changed; a new value is a new object.
    ///
    /// The reader gets some types in place and copies others:
    ///
    /// | in the value | is read as | copied |
    /// |---|---|---|
    /// | [`Tensor`] of any element and dimension | `Tensor` | no |
    /// | `String`, `&str` | `&str` | no |
    /// | | `String` | yes |
    /// | `&[u8]`, `Vec<u8>`, types that call `serialize_bytes` | `&[u8]` | no |
    /// | `Vec<f64>` and the like; ndarray's arrays with its feature `serde` | the same | yes, one by one |
    /// | any other | the same | yes |
    ///
    /// In a struct, serde borrows `&str` and `&[u8]` by default, and a `Tensor<'a, _, _>` or
    /// `Cow<'a, str>` if the field has `#[serde(borrow)]`.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::object::Tensor;
    /// use ndarray::{Array2, Ix2};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Model<'a> {
    ///     name: &'a str,
    ///     #[serde(borrow)]
    ///     weights: Tensor<'a, f32, Ix2>,
    /// }
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let weights = Array2::ones((1000, 1000));
    /// let handle = table.put_object(&Model { name: "first", weights: (&weights).into() })?;
    ///
    /// // In any process:
    /// let object = table.open_object(handle)?;
    /// let model: Model = object.get()?;
    /// assert_eq!(model.name, "first");
    /// assert_eq!(model.weights.sum(), 1e6);
    /// assert!(model.weights.is_borrowed());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`ObjectError::Alloc`] if the object could not be allocated.
    /// - [`ObjectError::TooDeep`] for values nested more than 128 deep.
    /// - [`ObjectError::Changed`] if the value, which is serialized twice, differs the second time.
    /// - [`ObjectError::Value`] if the value's own code returns an error.
    ///
    /// Then nothing is allocated.
    #[doc(alias("ray.put", "pickle", "serialize", "share"))]
    pub fn put_object<V: Serialize + ?Sized>(
        &self,
        value: &V,
    ) -> Result<ObjectHandle, ObjectError> {
        let sizes = write(value, Writer::counting())?;
        let too_large = || AllocError::TooLarge {
            shape: vec![sizes.stream, sizes.buffers],
            element: "object".to_owned(),
            size: 1,
        };
        let stream = format::next_block(sizes.stream).ok_or_else(too_large)?;
        let bytes = stream
            .checked_add(sizes.buffers)
            .and_then(|bytes| bytes.checked_add(BLOCK))
            .ok_or_else(too_large)?;
        let handle =
            self.core
                .filled_by::<Block, _, ObjectError>(bytes / BLOCK, |mut blocks| {
                    let damaged = ObjectError::Corrupt {
                        at: 0,
                        what: "new blocks are not next to each other",
                    };
                    let Some(blocks) = blocks.as_slice_mut() else {
                        return Err(damaged);
                    };
                    let Some((head, rest)) = blocks.split_first_mut() else {
                        return Err(damaged);
                    };
                    *head = header(sizes.stream);
                    let bytes: &mut [u8] = bytemuck::cast_slice_mut(rest);
                    let (values, buffers) = bytes.split_at_mut(stream);
                    let (values, gap) = values.split_at_mut(sizes.stream);
                    gap.fill(0);
                    let written = write(value, Writer::into_regions(values, buffers))?;
                    match written == sizes {
                        true => Ok(()),
                        false => Err(ObjectError::Changed {
                            what: "the number of its values",
                        }),
                    }
                })?;
        Ok(AnyHandle::from(handle).into())
    }

    /// Opens the object of that name for reading.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// table.publish("settings", table.put_object(&("nile", 1.5))?)?;
    ///
    /// // In any process:
    /// let settings = table.find_object("settings")?;
    /// assert_eq!(settings.get::<(&str, f64)>()?, ("nile", 1.5));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`ObjectError::Name`] if nothing has the name.
    /// - See [`open_object`](HandleTable::open_object).
    pub fn find_object(&self, name: &str) -> Result<ObjectGuard<'_>, ObjectError> {
        self.core.find_with(name, |handle| self.open_object(handle))
    }

    /// Opens an object for reading. Its bytes stay until the guard is dropped, even if another
    /// participant frees the object.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let handle = table.put_object(&vec![("a", 1), ("b", 2)])?;
    ///
    /// // In any process:
    /// let object = table.open_object(handle)?;
    /// assert_eq!(object.get::<Vec<(&str, i32)>>()?[1], ("b", 2));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`ObjectError::Lease`] with [`WrongKind`](LeaseError::WrongKind) if the handle names
    ///   something else, [`ObjectError::Version`] if the object is of another version of this
    ///   crate.
    /// - [`ObjectError::Lease`] as for [`read`](HandleTable::read). After the object is freed, its
    ///   handle is stale.
    /// - [`ObjectError::Corrupt`] if the header is not that of an object.
    #[doc(alias("ray.get", "unpickle", "deserialize"))]
    pub fn open_object(
        &self,
        handle: impl Into<ObjectHandle>,
    ) -> Result<ObjectGuard<'_>, ObjectError> {
        let handle = AnyHandle::from(handle.into());
        let blocks = match self.read::<Block, Ix1>(Handle::from_bits(handle.to_bits())) {
            Ok(blocks) => blocks,
            Err(LeaseError::WrongKind(mut wrong)) => {
                wrong.expected = "an object".to_owned();
                return Err(LeaseError::WrongKind(wrong).into());
            }
            Err(error) => return Err(error.into()),
        };
        let guard = ObjectGuard { blocks };
        parts_of(guard.blocks()?, handle)?;
        Ok(guard)
    }
}

/// Serializes a value. Returns the sizes written.
fn write<V: Serialize + ?Sized>(value: &V, mut writer: Writer<'_>) -> Result<Sizes, ObjectError> {
    match value.serialize(&mut writer) {
        Ok(()) => writer.finish(),
        Err(ObjectError::Value { message, at, .. }) => Err(ObjectError::Value {
            message,
            at,
            name: writer.last_name.to_owned(),
        }),
        Err(error) => Err(error),
    }
}

/// Returns the first block of an object with a value stream of this length.
fn header(stream: usize) -> Block {
    let mut bytes = [0; BLOCK];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&(stream as u64).to_le_bytes());
    Block {
        ndshm_object: bytes,
    }
}

/// An open object: a read lease. The value can be read from it, in whole or in parts.
///
/// The lease is released on drop, like that of a [`ReadGuard`].
#[must_use = "the lease is given back when the guard is dropped"]
pub struct ObjectGuard<'t> {
    blocks: ReadGuard<'t, Block, Ix1>,
}

impl ObjectGuard<'_> {
    /// Reads the value. It may borrow from the guard: see [`put_object`](HandleTable::put_object)
    /// for the types that do.
    ///
    /// The type need not be the stored one if the values fit: unknown fields are skipped, integers
    /// may have another size if the number fits, an `f32` may be read as `f64`, and a value as
    /// `Some` of it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let object = table.open_object(table.put_object(&("nile", [1120.0, 1160.0]))?)?;
    /// let (river, flow) = object.get::<(&str, [f64; 2])>()?; // `river` borrows from `object`
    /// assert_eq!((river, flow[1]), ("nile", 1160.0));
    /// assert!(object.get::<u64>().is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`ObjectError::Value`], with the value found, the value expected, and the place.
    /// - [`ObjectError::Corrupt`] and [`ObjectError::TooDeep`] for bytes that no program of this
    ///   crate has written.
    /// - [`ObjectError::Forked`] in a child of the process that opened the object.
    pub fn get<'g, V: Deserialize<'g>>(&'g self) -> Result<V, ObjectError> {
        // After a fork the lease is the parent's, which may release it at any moment.
        if !self.blocks.is_ours() {
            return Err(ObjectError::Forked);
        }
        value_of(self.blocks()?, self.blocks.handle())
    }

    /// Returns the object's handle.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let handle = table.put_object(&[1.0, 2.0])?;
    /// assert_eq!(table.open_object(handle)?.handle(), handle);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> ObjectHandle {
        self.blocks.handle().into()
    }

    /// Returns the size of the object in the segment in bytes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let object = table.open_object(table.put_object(&vec![1.0; 1000])?)?;
    /// println!("{} bytes", object.size());
    /// assert!(object.size() >= 8000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn size(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    fn blocks(&self) -> Result<&[Block], ObjectError> {
        // This slice lives as long as the guard; a slice of a view from it would not.
        let blocks = self.blocks.as_slice();
        blocks.ok_or(ObjectError::Corrupt {
            at: 0,
            what: "the blocks are not next to each other",
        })
    }
}

/// Reads the value of an object from its blocks.
pub(crate) fn value_of<'de, V: Deserialize<'de>>(
    blocks: &'de [Block],
    handle: AnyHandle,
) -> Result<V, ObjectError> {
    let (stream, buffers) = parts_of(blocks, handle)?;
    let mut reader = Reader::new(stream, buffers);
    let value = V::deserialize(&mut reader).map_err(|error| reader.placed(error))?;
    reader.finish()?;
    Ok(value)
}

/// Returns value stream and buffers of an object.
fn parts_of(blocks: &[Block], handle: AnyHandle) -> Result<(&[u8], &[u8]), ObjectError> {
    let corrupt = |what| ObjectError::Corrupt { at: 0, what };
    let Some((head, rest)) = blocks.split_first() else {
        return Err(corrupt("there is no header"));
    };
    let head = &head.ndshm_object;
    let version = head[8..12].first_chunk().map(|&v| u32::from_le_bytes(v));
    let stream = head[16..24].first_chunk().map(|&v| u64::from_le_bytes(v));
    let (Some(version), Some(stream), true) = (version, stream, head[..8] == MAGIC) else {
        return Err(corrupt("the header is not that of an object"));
    };
    if version != VERSION {
        return Err(ObjectError::Version {
            handle,
            found: version,
            expected: VERSION,
        });
    }
    let bytes: &[u8] = bytemuck::cast_slice(rest);
    // On every supported target `usize` has 64 bits.
    let stream = stream as usize;
    format::next_block(stream)
        .and_then(|start| Some((bytes.get(..stream)?, bytes.get(start..)?)))
        .ok_or_else(|| corrupt("the value stream is longer than the object"))
}

impl fmt::Debug for ObjectGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectGuard")
            .field("handle", &self.handle())
            .field("size", &self.size())
            .finish()
    }
}
