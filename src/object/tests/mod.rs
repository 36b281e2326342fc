//! Objects of every kind of value, in one process.

mod errors;
mod hostile;
mod recognition;
mod tensors;
mod values;

use serde::{Deserialize, Serialize};

use super::read::Reader;
use super::write::Writer;
use super::{format, write};
use crate::object::error::ObjectError;
use crate::{HandleTable, Segment};

fn table() -> HandleTable {
    let options = Segment::options().capacity(1 << 24).seats(2);
    HandleTable::join(&options.in_process().unwrap()).unwrap()
}

/// Encodes a value without a segment. Returns value stream and buffers.
fn encoded<V: Serialize + ?Sized>(value: &V) -> Result<(Vec<u8>, Vec<u8>), ObjectError> {
    let sizes = write(value, Writer::counting())?;
    let mut stream = vec![0xaa; sizes.stream];
    let mut buffers = vec![0xaa; sizes.buffers];
    let written = write(value, Writer::into_regions(&mut stream, &mut buffers))?;
    assert_eq!(written, sizes);
    assert!(buffers.len().is_multiple_of(format::BLOCK));
    Ok((stream, buffers))
}

fn decoded<'a, V: Deserialize<'a>>(stream: &'a [u8], buffers: &'a [u8]) -> Result<V, ObjectError> {
    let mut reader = Reader::new(stream, buffers);
    let value = V::deserialize(&mut reader).map_err(|error| reader.placed(error))?;
    reader.finish()?;
    Ok(value)
}

/// Stores a value in a segment and reads it again.
#[track_caller]
fn same<V>(value: V)
where
    V: Serialize + for<'de> Deserialize<'de> + PartialEq + core::fmt::Debug,
{
    let table = table();
    let handle = table.put_object(&value).unwrap();
    let guard = table.open_object(handle).unwrap();
    assert_eq!(guard.get::<V>().unwrap(), value);
    // Values that are not read are skipped.
    assert!(guard.get::<serde::de::IgnoredAny>().is_ok());
}

/// Returns the error of reading `value` as a `V`.
#[track_caller]
fn refused<V: for<'de> Deserialize<'de>>(value: impl Serialize) -> String {
    let (stream, buffers) = encoded(&value).unwrap();
    match decoded::<V>(&stream, &buffers) {
        Ok(_) => panic!("read as {}", core::any::type_name::<V>()),
        Err(error) => error.to_string(),
    }
}
