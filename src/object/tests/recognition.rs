//! A tensor recognizes the writer of objects among all serializers.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::Ix1;
use serde::{Serialize, Serializer};

use super::{encoded, table};
use crate::HandleTable;
use crate::object::format::TENSOR;
use crate::object::{ObjectHandle, Tensor};

type Vector<'a> = Tensor<'a, f64, Ix1>;

fn tensor() -> Vector<'static> {
    vec![1.0, 2.0].into()
}

/// The form of [`tensor`] in other formats.
const JSON: &str = r#"{"shape":[2],"data":[1.0,2.0]}"#;

#[track_caller]
fn is_json<T: Serialize + ?Sized>(tensor: &T) {
    assert_eq!(serde_json::to_string(tensor).unwrap(), JSON);
}

/// Stores a text: the tensor in another format.
struct AsJson<'a>(Vector<'a>);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&serde_json::to_string(&self.0).unwrap())
    }
}

#[test]
fn another_format_inside_an_object_gets_shape_and_data() {
    let table = table();
    let value = (AsJson(tensor()), tensor(), AsJson(tensor()));
    let guard = table
        .open_object(table.put_object(&value).unwrap())
        .unwrap();
    let (before, read, after): (&str, Vector<'_>, &str) = guard.get().unwrap();
    assert_eq!((before, after), (JSON, JSON));
    assert!(read.is_borrowed());
}

/// Stores an object of its own while it is serialized, and then its handle and the tensor.
struct Nested<'a>(&'a HandleTable, Vector<'a>);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = self.0.put_object(&self.1).unwrap();
        (inner, &self.1).serialize(serializer)
    }
}

#[test]
fn an_object_inside_an_object() {
    let table = table();
    let handle = table.put_object(&Nested(&table, tensor())).unwrap();
    let guard = table.open_object(handle).unwrap();
    let (inner, outer): (ObjectHandle, Vector<'_>) = guard.get().unwrap();
    let inner = table.open_object(inner).unwrap();
    let inner: Vector<'_> = inner.get().unwrap();
    assert!(outer.is_borrowed() && inner.is_borrowed());
    assert_eq!((outer, inner), (tensor(), tensor()));
}

/// A serializer around another one, as crates for paths of errors have it.
struct Wrapper<S>(S);

/// A value with a wrapped serializer.
struct Wrapped<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // This value is written in two other places first, as a log would do.
        is_json(self.0);
        encoded(self.0).unwrap();
        self.0.serialize(Wrapper(serializer))
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*) -> $result:ident;)*) => {$(
        fn $method(self, $($argument: $type),*) -> Result<S::$result, S::Error> {
            self.0.$method($($argument),*)
        }
    )*};
}

impl<S: Serializer> Serializer for Wrapper<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = S::SerializeSeq;
    type SerializeTuple = S::SerializeTuple;
    type SerializeTupleStruct = S::SerializeTupleStruct;
    type SerializeTupleVariant = S::SerializeTupleVariant;
    type SerializeMap = S::SerializeMap;
    type SerializeStruct = S::SerializeStruct;
    type SerializeStructVariant = S::SerializeStructVariant;

    forward! {
        serialize_bool(v: bool) -> Ok;
        serialize_i8(v: i8) -> Ok;
        serialize_i16(v: i16) -> Ok;
        serialize_i32(v: i32) -> Ok;
        serialize_i64(v: i64) -> Ok;
        serialize_u8(v: u8) -> Ok;
        serialize_u16(v: u16) -> Ok;
        serialize_u32(v: u32) -> Ok;
        serialize_u64(v: u64) -> Ok;
        serialize_f32(v: f32) -> Ok;
        serialize_f64(v: f64) -> Ok;
        serialize_char(v: char) -> Ok;
        serialize_str(v: &str) -> Ok;
        serialize_bytes(v: &[u8]) -> Ok;
        serialize_none() -> Ok;
        serialize_unit() -> Ok;
        serialize_unit_struct(name: &'static str) -> Ok;
        serialize_unit_variant(name: &'static str, at: u32, variant: &'static str) -> Ok;
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, at: u32, variant: &'static str, len: usize)
            -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, at: u32, variant: &'static str, len: usize)
            -> SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Wrapped(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Wrapped(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0
            .serialize_newtype_variant(name, at, variant, &Wrapped(value))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

#[test]
fn the_writer_inside_a_wrapper_is_recognized_and_another_serializer_is_not() {
    let tensor = tensor();
    let wrapped = Wrapped(&tensor);
    assert_eq!(encoded(&wrapped).unwrap(), encoded(&tensor).unwrap());
    is_json(&wrapped);
    // The elements lie apart, so their buffer is written in pieces.
    let all = ndarray::arr1(&[1.0, 3.0, 2.0]);
    let strided = Tensor::from(all.slice(ndarray::s![..;2]));
    let (stream, buffers) = encoded(&Wrapped(&strided)).unwrap();
    assert_eq!((stream, buffers), encoded(&strided).unwrap());
}

/// A value that stands where the writer expects a tensor.
struct InPlaceOfTensor<F>(F);

impl<F: Fn(bool)> Serialize for InPlaceOfTensor<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Calls<'a, F>(&'a F);

        impl<F: Fn(bool)> Serialize for Calls<'_, F> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (self.0)(serializer.is_human_readable());
                (self.0)(serializer.is_human_readable());
                serializer.serialize_unit()
            }
        }

        serializer.serialize_newtype_struct(TENSOR, &Calls(&self.0))
    }
}

#[test]
fn an_object_is_never_human_readable() {
    let answers = RefCell::new(Vec::new());
    let value = InPlaceOfTensor(|answer| {
        answers.borrow_mut().push(answer);
        // The question before this one was not a tensor's.
        is_json(&tensor());
    });
    encoded(&value).unwrap();
    assert_eq!(answers.into_inner(), [false; 4]);
}

#[test]
fn a_panic_of_a_value_leaves_no_trace() {
    let table = table();
    let value = InPlaceOfTensor(|_| panic!("in the place of a tensor"));
    let put = catch_unwind(AssertUnwindSafe(|| table.put_object(&value)));
    assert!(put.is_err());
    is_json(&tensor());
    let guard = table
        .open_object(table.put_object(&tensor()).unwrap())
        .unwrap();
    assert!(guard.get::<Vector<'_>>().unwrap().is_borrowed());
}
