//! Serializing a tensor: as bytes into an object, as shape and elements into any other format.
//!
//! A type cannot see which serializer it meets. So a tensor wraps itself in a newtype with a
//! reserved name, which other formats ignore, and then calls the serializer's `is_human_readable`.
//! The writer of objects knows the name. If it is called before the next write, it notes the call
//! in a variable of the thread. Wrappers of serializers forward the call; other formats do not note
//! it, even if they run while an object is written.

use core::cell::Cell;

use ndarray::{ArrayView, Dimension};
use serde::ser::{Serialize, SerializeStruct, SerializeTuple, Serializer};

use super::format::{BUFFER, TENSOR};
use super::plain::{bytes_of, dtype_of};
use super::tensor::Tensor;
use crate::element::Element;

/// Bytes of a strided array that are gathered before they are written.
const PIECE: usize = 1 << 16;

thread_local! {
    /// `true` if a writer of objects that expects a tensor was called since this was reset.
    static REACHED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that the writer of objects was called while it expects a tensor.
pub(super) fn note_writer() {
    REACHED.set(true);
}

/// Returns `true` if calls of this serializer reach the writer of objects, which expects a tensor.
fn reaches_writer(serializer: &impl Serializer) -> bool {
    REACHED.set(false);
    let _ = serializer.is_human_readable();
    REACHED.take()
}

impl<T: Element + Serialize, D: Dimension> Serialize for Tensor<'_, T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(TENSOR, &Content(self.view()))
    }
}

/// The fields of a tensor, for the format that it meets.
struct Content<'a, T, D>(ArrayView<'a, T, D>);

impl<T: Element + Serialize, D: Dimension> Serialize for Content<'_, T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let array = &self.0;
        if !reaches_writer(&serializer) {
            let mut tensor = serializer.serialize_struct("Tensor", 2)?;
            tensor.serialize_field("shape", array.shape())?;
            tensor.serialize_field("data", &Elements(array.view()))?;
            return tensor.end();
        }
        let mut tensor = serializer.serialize_struct("Tensor", 4)?;
        tensor.serialize_field("dtype", dtype_of::<T>())?;
        tensor.serialize_field("shape", array.shape())?;
        let transposed = array.view().reversed_axes();
        let (order, slice) = match (array.as_slice(), transposed.as_slice()) {
            (None, Some(slice)) => ('F', Some(slice)),
            (slice, _) => ('C', slice),
        };
        tensor.serialize_field("order", &order)?;
        match slice {
            Some(slice) => tensor.serialize_field("bytes", &Buffer(Bytes(bytes_of(slice))))?,
            None => tensor.serialize_field("bytes", &Buffer(Gathered(array.view())))?,
        }
        tensor.end()
    }
}

/// The elements, one by one.
struct Elements<'a, T, D>(ArrayView<'a, T, D>);

impl<T: Serialize, D: Dimension> Serialize for Elements<'_, T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

/// Bytes that are stored as a buffer.
struct Buffer<B>(B);

impl<B: Serialize> Serialize for Buffer<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(BUFFER, &self.0)
    }
}

/// All bytes of a buffer.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// An array with elements that are not contiguous. Its buffer is written in pieces, to avoid a copy
/// of all of it.
struct Gathered<'a, T, D>(ArrayView<'a, T, D>);

impl<T: Element, D: Dimension> Serialize for Gathered<'_, T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len() * size_of::<T>())?;
        let most = (PIECE / size_of::<T>()).max(1);
        let mut piece = Vec::with_capacity(most.min(self.0.len()));
        for &element in &self.0 {
            piece.push(element);
            if piece.len() == most {
                tuple.serialize_element(&Bytes(bytes_of(&piece)))?;
                piece.clear();
            }
        }
        tuple.serialize_element(&Bytes(bytes_of(&piece)))?;
        tuple.end()
    }
}
