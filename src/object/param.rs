//! Values of any type as parameters and results of kernels.

use core::any::type_name;
use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ObjectError;
use super::read::Reader;
use super::write;
use super::write::Writer;
use crate::pool::{Output, Param, PoolError, Results, Slot};

/// A parameter or result of kernels that serde serializes: a `String`, a `Vec`, a map, a struct of
/// them.
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
/// `Deserialize` does.
///
/// # Results
/// A worker puts the bytes of a result into memory of its own, and the parent frees them at the end
/// of the call. If a worker dies after a tile and before the end of the call, the results of its
/// tiles are lost, also under [`OnFailure::RunAgain`](crate::OnFailure::RunAgain). The call then
/// returns [`PoolError::Results`](crate::error::PoolError::Results), as it does if there is no
/// memory for a result, or if serde fails. [Plain data](Output) is stored in the parent's memory,
/// and survives.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::object::Value;
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_shape_fn(6, |i| i as u64)?;
/// let tiles = table.partition(x.read(), Axis(0), 3)?;
/// let mut pool = Pool::threads(&table, 2)?;
/// let odd = pool.map_collect(&tiles, &(), |x, (), _tile| {
///     Value(x.iter().copied().filter(|x| x % 2 == 1).collect::<Vec<u64>>())
/// })?;
/// assert_eq!(odd, [Value(vec![1]), Value(vec![3, 5])]);
/// # Ok::<(), ndshm::Error>(())
/// ```
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

impl<T: Serialize + DeserializeOwned + 'static> Output<Serialized> for Value<T> {
    const SLOT: Slot = Slot::Message;

    fn store(&self, results: &mut Results<'_>, at: usize) {
        match encode(&self.0) {
            Ok(bytes) => results.store_message(at, Ok(&bytes)),
            Err(error) => results.store_message(at, Err(&error.to_string())),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        decode(bytes).map(Value).map_err(|error| error.to_string())
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

    #[test]
    fn a_result_without_memory_is_reported() {
        let small = crate::Segment::options().capacity(1 << 20).anonymous();
        let table = crate::HandleTable::join(&small.unwrap()).unwrap();
        let x = table.zeros::<u8, _>(4).unwrap();
        let tiles = table.partition(x.read(), ndarray::Axis(0), 1).unwrap();
        let mut pool = crate::Pool::threads(&table, 1).unwrap();
        let refused = pool.map_collect(&tiles, &(), |_, (), tile| {
            Value(vec![0u8; if tile.index() == 2 { 4 << 20 } else { 0 }])
        });
        let Err(PoolError::Results { at: 2, message, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(message.contains("no memory"), "{message}");
    }
}
