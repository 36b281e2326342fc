//! Values without tensors: round trips, what serde does to them, and errors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::{Deserialize, Serialize, Serializer};

use super::{decoded, encoded, same, table};
use crate::handle::{AnyHandle, Handle};
use crate::object::ObjectHandle;

#[test]
fn all_primitives() {
    same((u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX, usize::MAX));
    same((i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, isize::MIN));
    same((f32::MIN_POSITIVE, -0.0_f64, f64::INFINITY, 1.5_f32));
    same((true, false, 'ß', '\u{10ffff}', String::from("text"), ()));
    let (stream, _) = encoded(&f64::NAN).unwrap();
    assert!(decoded::<f64>(&stream, &[]).unwrap().is_nan());
    // serde's buffered values can hold small numbers of a large type.
    same((0_u128, 1_i128, i128::from(i64::MIN) - 1));
}

#[test]
fn options() {
    same((Some(3_u8), None::<u8>, Some(Some(4)), Some(None::<i32>)));
    same(Some(()));
    same(vec![Some(1.0), None, Some(2.0)]);
    // A field that has become optional.
    let (stream, _) = encoded(&7_u8).unwrap();
    assert_eq!(decoded::<Option<u8>>(&stream, &[]).unwrap(), Some(7));
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) enum Shape {
    Nothing,
    Circle(f64),
    Box(f64, f64, Option<f64>),
    Polygon {
        corners: Vec<(f64, f64)>,
        closed: bool,
    },
    Nested(Box<Shape>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
pub(super) struct Unit;
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
struct Metres(f64);
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
struct Pair(u8, i64);

fn shapes() -> Vec<Shape> {
    let corners = vec![(0.0, 1.0), (2.0, 3.0)];
    let polygon = Shape::Polygon {
        corners,
        closed: true,
    };
    vec![
        Shape::Nothing,
        Shape::Circle(1.5),
        Shape::Box(1.0, 2.0, None),
        polygon.clone(),
        Shape::Nested(Box::new(Shape::Nested(Box::new(polygon)))),
        Shape::Nested(Box::new(Shape::Nothing)),
    ]
}

#[test]
fn enums_of_every_kind_and_structs_of_every_kind() {
    same(shapes());
    same((Unit, Metres(3.0), Pair(1, -1)));
    same(Ok::<u8, String>(3));
    same(Err::<u8, String>("no".into()));
}

#[test]
fn maps_sequences_and_nothing_of_each() {
    same(HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    same(BTreeMap::from([
        ((1, 'x'), vec![Metres(1.0)]),
        ((2, 'y'), vec![]),
    ]));
    same((
        Vec::<f64>::new(),
        String::new(),
        HashMap::<u8, u8>::new(),
        [(); 0],
    ));
    same(vec![vec![vec![0_u8; 3]; 2]; 4]);
    same([[1_i16; 12]; 3]);
    same((1, 2.0, 3_u8, "4".to_owned(), '5', 6, 7, 8, 9, 10.5_f32));
    same(vec![(); 1000]);
}

#[test]
fn numbers_lie_without_tags() {
    let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
    same(numbers.clone());
    let (stream, _) = encoded(&numbers).unwrap();
    assert_eq!(stream.len(), 8000 + 8);
    let (array, _) = encoded(&[1_u16; 20]).unwrap();
    assert_eq!(array.len(), 40 + 8);
    let pairs = vec![(1.0, 2_u8); 100];
    same(pairs);
}

#[test]
fn names_are_written_once() {
    #[derive(Serialize)]
    struct Row {
        a_rather_long_name: (),
    }
    let rows = |count: usize| {
        let rows: Vec<_> = (0..count)
            .map(|_| Row {
                a_rather_long_name: (),
            })
            .collect();
        encoded(&rows).unwrap().0.len()
    };
    assert_eq!(rows(11) - rows(1), 10 * 5);
}

#[test]
fn strings_and_bytes_are_borrowed() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Texts<'a> {
        text: &'a str,
        bytes: &'a [u8],
        #[serde(borrow)]
        cow: Cow<'a, str>,
        large: &'a [u8],
        none: &'a [u8],
    }
    let value = Texts {
        text: "text",
        bytes: &[1, 2, 3],
        cow: Cow::Borrowed("cow"),
        large: &[7; 10_000],
        none: &[],
    };
    let table = table();
    let guard = table
        .open_object(table.put_object(&value).unwrap())
        .unwrap();
    let read: Texts<'_> = guard.get().unwrap();
    assert_eq!(read, value);
    let place = |at: *const u8| {
        let start = guard.blocks.as_ptr().cast::<u8>().addr();
        (start..start + guard.size()).contains(&at.addr())
    };
    assert!(place(read.text.as_ptr()) && place(read.bytes.as_ptr()));
    assert!(matches!(read.cow, Cow::Borrowed(text) if place(text.as_ptr())));
    assert!(place(read.large.as_ptr()));
}

/// Bytes as written by crates such as `serde_bytes`.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

#[test]
fn bytes_are_bytes_however_many() {
    for len in [0, 1, 4095, 4096, 4097, 100_000] {
        let (stream, buffers) = encoded(&Bytes(vec![9; len])).unwrap();
        assert_eq!(
            buffers.len(),
            if len < 4096 {
                0
            } else {
                len.next_multiple_of(64)
            }
        );
        let read: &[u8] = decoded(&stream, &buffers).unwrap();
        assert_eq!(read, vec![9; len]);
    }
}

#[test]
fn handles_inside() {
    let table = table();
    let array = table.zeros::<f64, _>(3).unwrap();
    let value = (array, AnyHandle::from(array), ObjectHandle::from_bits(5));
    let guard = table
        .open_object(table.put_object(&value).unwrap())
        .unwrap();
    type Value = (Handle<f64, ndarray::Ix1>, AnyHandle, ObjectHandle);
    assert_eq!(guard.get::<Value>().unwrap(), value);
    assert_eq!(
        serde_json::to_string(&value.2).unwrap(),
        "\"ndshm:0000000000000005\""
    );
    assert_eq!(
        format!("{:?}", value.2),
        "ObjectHandle(ndshm:0000000000000005)"
    );
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Untagged {
    Number(f64),
    Text(String),
    Pair { a: u8, b: Shape },
    Many(Vec<i32>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "kind")]
enum Internal {
    Unit,
    Struct { a: u8, shape: Shape },
    New(Inner),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "kind", content = "value")]
pub(super) enum Adjacent {
    Unit,
    Tuple(u8, Shape),
    New(Inner),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct Inner {
    pub(super) x: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    skipped: Option<String>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flat {
    name: String,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    rest: HashMap<String, Untagged>,
}

#[test]
fn types_that_need_a_self_describing_format() {
    same(vec![
        Untagged::Number(1.5),
        Untagged::Text("x".into()),
        Untagged::Many(vec![1, -2, 3]),
    ]);
    for shape in shapes() {
        same(Untagged::Pair {
            a: 1,
            b: shape.clone(),
        });
        same(Internal::Struct {
            a: 2,
            shape: shape.clone(),
        });
        same(Adjacent::Tuple(3, shape));
    }
    for skipped in [None, Some("here".to_owned())] {
        let inner = || Inner {
            x: 4,
            skipped: skipped.clone(),
        };
        same(inner());
        same((Internal::New(inner()), Internal::Unit));
        same((Adjacent::New(inner()), Adjacent::Unit));
        same(Flat {
            name: "flat".into(),
            inner: inner(),
            rest: HashMap::from([("more".into(), Untagged::Number(2.0))]),
        });
    }
}

#[test]
fn fields_may_come_and_go() {
    #[derive(Serialize)]
    struct New {
        ignored: Vec<Shape>,
        x: u8,
        also: Option<HashMap<String, i128>>,
    }
    let also = Some(HashMap::from([("a".into(), i128::MAX)]));
    let new = New {
        ignored: shapes(),
        x: 3,
        also,
    };
    let (stream, _) = encoded(&new).unwrap();
    let old: Inner = decoded(&stream, &[]).unwrap();
    assert_eq!(
        old,
        Inner {
            x: 3,
            skipped: None
        }
    );
}

/// Any JSON-like value.
#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Large(u128),
    Number(f32),
    Text(String),
    Numbers(Vec<f64>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    Pair(Box<(Value, Option<Value>)>),
    Struct { left: Box<Value>, bytes: Vec<u8> },
}

pub(super) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        any::<u128>().prop_map(Value::Large),
        (-1e9_f32..1e9).prop_map(Value::Number),
        any::<String>().prop_map(Value::Text),
        prop::collection::vec(-1e9..1e9, 0..20).prop_map(Value::Numbers),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
            prop::collection::btree_map(any::<String>(), inner.clone(), 0..8).prop_map(Value::Map),
            (inner.clone(), prop::option::of(inner.clone()))
                .prop_map(|pair| Value::Pair(Box::new(pair))),
            (inner, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(left, bytes)| {
                Value::Struct {
                    left: Box::new(left),
                    bytes,
                }
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_round_trips(value in values()) {
        let (stream, buffers) = encoded(&value).unwrap();
        prop_assert_eq!(&decoded::<Value>(&stream, &buffers).unwrap(), &value);
        // Read through serde's own buffer of values.
        #[derive(Deserialize, PartialEq, Debug)]
        #[serde(untagged)]
        enum Buffered { Value(serde_json::Value) }
        let plain = !format!("{value:?}").contains("Large");
        if plain {
            let json = serde_json::to_value(&value).unwrap();
            let (stream, buffers) = encoded(&json).unwrap();
            prop_assert_eq!(decoded::<Buffered>(&stream, &buffers).unwrap(), Buffered::Value(json));
        }
    }
}
