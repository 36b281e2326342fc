//! Bytes that no writer produces: they must give an error or a value, without a panic, in short
//! time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ndarray::{Ix1, Ix2, IxDyn};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::values::{Value, values};
use super::{decoded, encoded, table};
use crate::object::format::{BLOCK, Block, MAGIC, Tag};
use crate::object::{ObjectHandle, Tensor};
use crate::{AnyHandle, Handle};

#[derive(Deserialize)]
#[serde(untagged)]
enum Any<'a> {
    #[serde(borrow)]
    Tensor(Tensor<'a, f32, IxDyn>),
    Other(serde_json::Value),
}

#[derive(Deserialize)]
struct Flat<'a> {
    #[serde(flatten, borrow)]
    rest: HashMap<&'a str, Any<'a>>,
}

/// Reads the bytes as many types. Returns how many of them succeed.
fn read_as_anything(stream: &[u8], buffers: &[u8]) -> usize {
    let start = Instant::now();
    macro_rules! read {
        ($($type:ty),*) => { [$(decoded::<$type>(stream, buffers).is_ok()),*] };
    }
    let read = read![
        IgnoredAny,
        Value,
        serde_json::Value,
        Tensor<'_, f64, Ix1>,
        Tensor<'_, bool, IxDyn>,
        HashMap<String, Tensor<'_, u8, Ix2>>,
        Vec<Option<Any<'_>>>,
        Flat<'_>,
        (u8, f64, &str, Option<i128>),
        Vec<u128>,
        &[u8],
        String,
        Option<Box<Value>>
    ];
    for value in decoded::<Flat<'_>>(stream, buffers).map_or(HashMap::new(), |flat| flat.rest) {
        match value.1 {
            Any::Tensor(tensor) => drop(tensor.into_owned()),
            Any::Other(value) => drop(value),
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "that took too long"
    );
    read.iter().filter(|&&read| read).count()
}

#[test]
fn deep_nesting_is_an_error() {
    for tag in [Tag::Some, Tag::Seq, Tag::Map] {
        let stream = vec![tag as u8; 1 << 20];
        let error = decoded::<IgnoredAny>(&stream, &[]).unwrap_err().to_string();
        assert!(error.contains("nested more than 128 deep"), "{error}");
        assert_eq!(read_as_anything(&stream, &[]), 0);
    }
    let mut variants = vec![Tag::Variant as u8, Tag::NewName as u8, 4];
    variants.extend(b"List");
    for _ in 0..10_000 {
        variants.extend([Tag::Seq as u8, Tag::Variant as u8, Tag::Name as u8, 0]);
    }
    let error = decoded::<Value>(&variants, &[]).unwrap_err().to_string();
    assert!(error.contains("nested more than 128 deep"), "{error}");
}

#[test]
fn lengths_beyond_the_end_are_errors() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for tag in [Tag::Str, Tag::Bytes, Tag::Buffer, Tag::NewName, Tag::Name] {
        let mut stream = vec![tag as u8];
        stream.extend(huge);
        let error = decoded::<IgnoredAny>(&stream, &[0; 64]).unwrap_err();
        assert!(
            error.to_string().contains("damaged at byte"),
            "{tag:?}: {error}"
        );
        stream[10] = 0x7f;
        let error = decoded::<IgnoredAny>(&stream, &[0; 64]).unwrap_err();
        assert!(
            error.to_string().contains("more than 64 bits"),
            "{tag:?}: {error}"
        );
    }
    let mut run = vec![Tag::Seq as u8, Tag::Run as u8, Tag::U128 as u8];
    run.extend(u32::MAX.to_le_bytes());
    run.extend([0; 160]);
    assert_eq!(read_as_anything(&run, &[]), 0);
}

#[test]
fn a_buffer_is_read_once() {
    let (mut stream, buffers) = encoded(&vec![Tensor::from(vec![1_u8; 64])]).unwrap();
    assert!(decoded::<Vec<Tensor<'_, u8, Ix1>>>(&stream, &buffers).is_ok());
    assert!(decoded::<Vec<Tensor<'_, u8, Ix1>>>(&stream, &buffers[..63]).is_err());
    // The same tensor a second time.
    let end = stream.pop().unwrap();
    let again = stream[1..].to_vec();
    stream.extend(again);
    stream.push(end);
    let error = decoded::<IgnoredAny>(&stream, &buffers).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a buffer is longer than the rest"),
        "{error}"
    );
}

#[test]
fn a_byte_that_is_no_bool_is_refused() {
    let (stream, mut buffers) = encoded(&Tensor::from(vec![true, false])).unwrap();
    buffers[1] = 2;
    let error = decoded::<Tensor<'_, bool, Ix1>>(&stream, &buffers).unwrap_err();
    assert!(
        error.to_string().contains("element 1 holds the byte 0x02"),
        "{error}"
    );
}

#[test]
fn headers_are_checked() {
    let table = table();
    let handle = table.put_object("some text").unwrap();
    let blocks = Handle::<Block, Ix1>::from_bits(handle.to_bits());
    let error_with = |at: usize, byte: u8| {
        let old = table.read(blocks).unwrap()[0].ndshm_object[at];
        table.write(blocks).unwrap()[0].ndshm_object[at] = byte;
        let error = table
            .open_object(handle)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        table.write(blocks).unwrap()[0].ndshm_object[at] = old;
        error
    };
    assert!(error_with(0, b'x').contains("the header is not that of an object"));
    assert!(error_with(8, 2).contains("format 2, and this program reads format 1"));
    assert!(error_with(16, 200).contains("longer than the object"));
    assert!(error_with(23, 0xff).contains("longer than the object"));
    assert_eq!(
        table.open_object(handle).unwrap().get::<&str>().unwrap(),
        "some text"
    );
    assert_eq!(table.read(blocks).unwrap()[0].ndshm_object[..8], MAGIC);

    let empty = table.zeros::<Block, _>(0).unwrap();
    let empty = ObjectHandle::from(AnyHandle::from(empty));
    let error = table
        .open_object(empty)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no header"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(
        stream in prop::collection::vec(prop_oneof![0_u8..48, any::<u8>()], 0..300),
        buffers in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        read_as_anything(&stream, &buffers);
    }

    #[test]
    fn mutated_bytes(
        value in values(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let tensor = Tensor::from(ndarray::Array2::<u8>::zeros((3, 3)));
        let mut flags = HashMap::new();
        flags.insert("a", &tensor);
        let (mut stream, mut buffers) = encoded(&(&value, flags)).unwrap();
        for (at, byte) in changes {
            let at = at.index(stream.len() + buffers.len());
            match at.checked_sub(stream.len()) {
                None => stream[at] ^= byte,
                Some(at) => buffers[at] ^= byte,
            }
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        read_as_anything(&stream, &buffers);
        let _ = decoded::<(Value, HashMap<&str, Tensor<'_, u8, Ix2>>)>(&stream, &buffers);
        prop_assert!(buffers.len().is_multiple_of(BLOCK));
    }
}
