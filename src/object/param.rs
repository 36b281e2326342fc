//! Values of any type as parameters of kernels.

use core::any::type_name;
use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ObjectError;
use super::read::Reader;
use super::write;
use super::write::Writer;
use crate::pool::{Param, PoolError};

/// A parameter of kernels that serde serializes: a `String`, a `Vec`, a map, a struct of them.
///
/// The call serializes the value once, and frees the bytes at its end. Each worker that takes part
/// deserializes them once, and passes the kernel a reference to its copy. Plain data and tuples of
/// it need no wrapper and take less time: see [`Param`]. For a large array, pass a handle and let
/// kernels read the array in place.
///
/// ```
/// use ndarray::Axis;
/// use ndshm::object::Value;
/// use ndshm::{HandleTable, Pool, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<u64, _>(4)?;
/// let tiles = table.partition(x.write(), Axis(0), 1)?;
/// let mut pool = Pool::threads(&table, 2)?;
///
/// let words = Value(vec!["a".to_owned(), "of".to_owned(), "any".to_owned(), "size".to_owned()]);
/// pool.for_each(&tiles, &words, |mut x, Value(words), tile| {
///     x.fill(words[tile.index()].len() as u64);
/// })?;
/// assert_eq!(table.read(x)?.to_vec(), [1, 2, 3, 4]);
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// A call returns [`PoolError::Params`](crate::error::PoolError::Params) if the value's `Serialize`
/// fails, and [`PoolError::WorkerFailed`](crate::error::PoolError::WorkerFailed) if its
/// `Deserialize` does. Results of kernels are plain data: see [`Output`](crate::pool::Output).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Value<T>(pub T);

/// The way of values that serde serializes.
#[derive(Debug)]
pub enum Serialized {}

/// Length of the number before the values.
const HEAD: usize = size_of::<u64>();

impl<T: Serialize + DeserializeOwned + 'static> Param<Serialized> for Value<T> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>, PoolError> {
        match encode(&self.0) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(error) => Err(refused::<T>(&error)),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, PoolError> {
        decode(bytes)
            .map(Value)
            .map_err(|error| refused::<T>(&error))
    }
}

fn refused<T>(error: &ObjectError) -> PoolError {
    PoolError::Params {
        params: type_name::<T>(),
        message: error.to_string(),
    }
}

/// Returns the length of the value stream, the stream and the buffers, one after another.
fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ObjectError> {
    let sizes = write(value, Writer::counting())?;
    let mut bytes = vec![0; HEAD + sizes.stream + sizes.buffers];
    let (head, rest) = bytes.split_at_mut(HEAD);
    head.copy_from_slice(&(sizes.stream as u64).to_le_bytes());
    let (stream, buffers) = rest.split_at_mut(sizes.stream);
    match write(value, Writer::into_regions(stream, buffers))? == sizes {
        true => Ok(bytes),
        false => Err(ObjectError::Changed {
            what: "the number of its values",
        }),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ObjectError> {
    let parts = bytes.split_first_chunk().and_then(|(head, rest)| {
        let stream = usize::try_from(u64::from_le_bytes(*head)).ok()?;
        rest.split_at_checked(stream)
    });
    let Some((stream, buffers)) = parts else {
        return Err(ObjectError::Corrupt {
            at: 0,
            what: "the value stream is longer than the parameters",
        });
    };
    let mut reader = Reader::new(stream, buffers);
    let value = T::deserialize(&mut reader).map_err(|error| reader.placed(error))?;
    reader.finish()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_value_or_an_error() {
        type Pairs = Vec<(String, f64)>;
        let value = Value(vec![
            ("a long enough text".repeat(9), 1.0),
            ("b".to_owned(), 2.0),
        ]);
        let bytes = value.bytes().unwrap().into_owned();
        assert_eq!(<Value<Pairs>>::from_bytes(&bytes).unwrap(), value);
        for end in 0..bytes.len() {
            let said = <Value<Pairs>>::from_bytes(&bytes[..end]);
            assert!(said.is_err(), "{end} of {}", bytes.len());
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            let _ = <Value<Pairs>>::from_bytes(&bytes);
        }
        let error = <Value<u8>>::from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("parameters of type u8"), "{error}");
    }
}
