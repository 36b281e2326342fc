//! Refused values: of another type, too deep, different the second time, or failing in their own
//! code.

use std::cell::Cell;
use std::collections::HashMap;

use serde::{Deserialize, Serialize, Serializer};

use super::values::{Adjacent, Inner, Shape, Unit};
use super::{encoded, refused, table};
use crate::handle::{AnyHandle, Handle};
use crate::object::error::ObjectError;
use crate::object::format::MAX_DEPTH;

#[test]
fn another_type_is_an_error_that_names_both() {
    let says = |message: String, parts: &[&str]| {
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    says(
        refused::<String>(3_u8),
        &["invalid type: a u8", "expected a string"],
    );
    says(refused::<f64>(3_u64), &["a u64", "expected f64"]);
    says(refused::<f32>(3.0_f64), &["an f64", "expected f32"]);
    says(
        refused::<u8>(300_u16),
        &["invalid value: integer `300`", "u8"],
    );
    says(refused::<u8>(1.0), &["floating point", "u8"]);
    says(refused::<Vec<f64>>(vec![1_u64, 2]), &["a u64", "f64"]);
    says(
        refused::<Vec<u8>>(HashMap::from([(1, 2)])),
        &["map", "expected a sequence"],
    );
    says(
        refused::<Inner>((1, 2)),
        &["a sequence", "expected struct Inner"],
    );
    says(
        refused::<(u8, u8)>((1, 2, 3)),
        &["more elements than the type can hold"],
    );
    says(
        refused::<(u8, u8)>((1,)),
        &["invalid length 1", "tuple of size 2"],
    );
    says(
        refused::<Inner>(HashMap::from([("y", 2)])),
        &["missing field `x`"],
    );
    says(refused::<Shape>(Unit), &["a unit", "expected enum Shape"]);
    says(refused::<Shape>(Adjacent::Unit), &["a map or struct"]);
    says(
        refused::<HashMap<String, f64>>(Shape::Circle(1.0)),
        &["variant of an enum", "a map"],
    );
    let inner = HashMap::from([("x", "three")]);
    #[derive(Deserialize)]
    struct Outer {
        #[serde(rename = "field")]
        _field: Inner,
    }
    #[derive(Serialize)]
    struct Other<'a> {
        field: HashMap<&'a str, &'a str>,
    }
    says(
        refused::<Outer>(Other { field: inner }),
        &[
            "string \"three\"",
            "expected u8",
            "at byte",
            "in or after the field \"field\"",
        ],
    );
    #[derive(Serialize)]
    enum Near {
        Circle,
        Square(f64),
        Nothing(u8),
    }
    says(
        refused::<Shape>(Near::Circle),
        &["\"Circle\" without a value", "newtype variant"],
    );
    says(
        refused::<Shape>(Near::Square(1.0)),
        &["unknown variant `Square`", "`Circle`"],
    );
    says(
        refused::<Shape>(Near::Nothing(1)),
        &["with a u8", "expected a unit variant"],
    );
}

#[test]
fn other_handles_are_refused_both_ways() {
    let table = table();
    let array = table.zeros::<u8, _>((64, 2)).unwrap();
    let error = table.open_object(AnyHandle::from(array)).unwrap_err();
    let expected = format!("{array} names an array of u8 with 2 axes, not an object: ");
    assert!(error.to_string().starts_with(&expected), "{error}");

    let object = table.put_object(&1).unwrap();
    let bytes = Handle::<u8, ndarray::Ix1>::from_bits(object.to_bits());
    assert!(
        table
            .read(bytes)
            .unwrap_err()
            .to_string()
            .contains("ndshm_object")
    );
    assert_eq!(table.info(object).unwrap().bytes, 128);

    table.free(object).unwrap();
    let error = table.open_object(object).unwrap_err();
    assert!(matches!(
        error,
        ObjectError::Lease(crate::error::LeaseError::Stale { .. })
    ));
}

/// A chain of the given length.
struct Chain(usize);

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.serialize_unit(),
            left => serializer.serialize_some(&Chain(left - 1)),
        }
    }
}

#[test]
fn nesting_has_a_limit() {
    assert!(encoded(&Chain(MAX_DEPTH)).is_ok());
    for length in [MAX_DEPTH + 1, 1_000_000] {
        let error = encoded(&Chain(length)).unwrap_err();
        assert!(matches!(error, ObjectError::TooDeep { limit: MAX_DEPTH }));
    }
}

/// Serializes as another value each time.
struct Fickle<F>(Cell<usize>, F);

impl<F: Fn(usize) -> String> Serialize for Fickle<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let round = self.0.get();
        self.0.set(round + 1);
        serializer.serialize_str(&(self.1)(round))
    }
}

#[test]
fn a_value_that_changes_is_refused_and_nothing_is_kept() {
    let table = table();
    let grows = Fickle(Cell::new(0), |round| "x".repeat(10 * round));
    let shrinks = Fickle(Cell::new(0), |round| "x".repeat(10 - 10 * round));
    for outcome in [table.put_object(&grows), table.put_object(&shrinks)] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ObjectError::Changed { .. }), "{error}");
    }
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.reserved), (0, 0));
}

#[test]
fn a_value_that_refuses_or_panics_leaves_nothing() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    #[derive(Serialize)]
    struct Outer<T> {
        reluctant: T,
    }
    let table = table();
    let error = table.put_object(&Outer { reluctant: Refuses }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not today, in or after the field \"reluctant\""
    );

    let panics = Fickle(Cell::new(0), |round| {
        assert!(round == 0, "the second time");
        String::new()
    });
    let put = std::panic::AssertUnwindSafe(|| table.put_object(&panics));
    assert!(std::panic::catch_unwind(put).is_err());
    let found = table.verify().unwrap();
    assert_eq!((found.live, found.reserved), (0, 0));
    assert!(table.put_object(&1).is_ok());
}
