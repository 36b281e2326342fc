//! Elements whose type is known only at run time: decoding and printing.

use std::fmt;

use ndshm::Complex;
use ndshm::bytemuck::pod_read_unaligned;
use ndshm::element::{DType, ScalarType};
use serde_json::{Value as Json, json};

/// An element.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// An element of an unsigned type.
    Unsigned(u128),
    /// An element of a signed type.
    Signed(i128),
    /// An `f32`.
    F32(f32),
    /// An `f64`.
    F64(f64),
    /// A `Complex<f32>`.
    Complex32(Complex<f32>),
    /// A `Complex<f64>`.
    Complex64(Complex<f64>),
    /// A `bool`.
    Bool(bool),
    /// A byte other than 0 and 1 in an array of `bool`.
    InvalidBool(u8),
    /// The bytes of an element that Rust has no type for.
    Opaque(Vec<u8>),
    /// A record: its fields in order. A field that is an array has several values.
    Record(Vec<(Box<str>, Vec<Value>)>),
}

impl Value {
    /// Decodes the element that starts `bytes`; `None` if there are too few bytes.
    pub fn decode(dtype: &DType, bytes: &[u8]) -> Option<Value> {
        match dtype {
            DType::Scalar(scalar) => Value::scalar(*scalar, bytes),
            DType::Record(layout) => layout
                .fields()
                .iter()
                .map(|field| {
                    let values = (0..field.count).map(|at| {
                        let offset = field.offset + at * field.dtype.size();
                        Value::scalar(field.dtype, bytes.get(offset..)?)
                    });
                    Some((field.name.clone(), values.collect::<Option<_>>()?))
                })
                .collect::<Option<_>>()
                .map(Value::Record),
            DType::Opaque(opaque) => bytes
                .get(..opaque.size())
                .map(|bytes| Value::Opaque(bytes.into())),
        }
    }

    fn scalar(scalar: ScalarType, bytes: &[u8]) -> Option<Value> {
        let bytes = bytes.get(..scalar.size())?;
        Some(match scalar {
            ScalarType::U8 => Value::Unsigned(pod_read_unaligned::<u8>(bytes).into()),
            ScalarType::I8 => Value::Signed(pod_read_unaligned::<i8>(bytes).into()),
            ScalarType::U16 => Value::Unsigned(pod_read_unaligned::<u16>(bytes).into()),
            ScalarType::I16 => Value::Signed(pod_read_unaligned::<i16>(bytes).into()),
            ScalarType::U32 => Value::Unsigned(pod_read_unaligned::<u32>(bytes).into()),
            ScalarType::I32 => Value::Signed(pod_read_unaligned::<i32>(bytes).into()),
            ScalarType::U64 => Value::Unsigned(pod_read_unaligned::<u64>(bytes).into()),
            ScalarType::I64 => Value::Signed(pod_read_unaligned::<i64>(bytes).into()),
            ScalarType::U128 => Value::Unsigned(pod_read_unaligned(bytes)),
            ScalarType::I128 => Value::Signed(pod_read_unaligned(bytes)),
            ScalarType::F32 => Value::F32(pod_read_unaligned(bytes)),
            ScalarType::F64 => Value::F64(pod_read_unaligned(bytes)),
            ScalarType::Complex32 => Value::Complex32(pod_read_unaligned(bytes)),
            ScalarType::Complex64 => Value::Complex64(pod_read_unaligned(bytes)),
            ScalarType::Bool => match bytes[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                byte => Value::InvalidBool(byte),
            },
            _ => return None,
        })
    }

    /// Returns the value as JSON. Values that JSON numbers cannot express become strings.
    pub fn json(&self) -> Json {
        match self {
            Value::Unsigned(value) => unsigned(*value),
            Value::Signed(value) => signed(*value),
            Value::F32(value) => match value.is_finite() {
                // The shortest text of the `f32` itself, not of the equal `f64`.
                true => value.to_string().parse().map_or(Json::Null, float),
                false => float((*value).into()),
            },
            Value::F64(value) => float(*value),
            Value::Complex32(value) => {
                json!([Value::F32(value.re).json(), Value::F32(value.im).json()])
            }
            Value::Complex64(value) => json!([float(value.re), float(value.im)]),
            Value::Bool(value) => json!(value),
            Value::InvalidBool(byte) => json!(invalid_bool(*byte)),
            Value::Opaque(bytes) => json!(hex(bytes)),
            Value::Record(fields) => fields
                .iter()
                .map(|(name, values)| {
                    let value = match &values[..] {
                        [one] => one.json(),
                        many => many.iter().map(Value::json).collect(),
                    };
                    (name.to_string(), value)
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

fn invalid_bool(byte: u8) -> String {
    format!("invalid bool: {byte:#04x}")
}

/// Returns bytes in memory order, as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a float as JSON.
pub fn float(value: f64) -> Json {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if value > 0.0 => json!("inf"),
        _ => json!("-inf"),
    }
}

/// Returns an integer as JSON; a string beyond 64 bits.
pub fn unsigned(value: u128) -> Json {
    u64::try_from(value).map_or_else(|_| json!(value.to_string()), |value| json!(value))
}

/// Returns an integer as JSON, like [`unsigned`].
pub fn signed(value: i128) -> Json {
    i64::try_from(value).map_or_else(
        |_| u128::try_from(value).map_or_else(|_| json!(value.to_string()), unsigned),
        |value| json!(value),
    )
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(value) => value.fmt(f),
            Value::Signed(value) => value.fmt(f),
            Value::F32(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
            Value::Complex32(value) => value.fmt(f),
            Value::Complex64(value) => value.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::InvalidBool(byte) => f.write_str(&invalid_bool(*byte)),
            Value::Opaque(bytes) => f.write_str(&hex(bytes)),
            Value::Record(fields) => {
                f.write_str("{")?;
                for (at, (name, values)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: ", if at > 0 { ", " } else { "" })?;
                    match &values[..] {
                        [one] => one.fmt(f)?,
                        many => {
                            for (at, value) in many.iter().enumerate() {
                                f.write_str(if at > 0 { ", " } else { "[" })?;
                                value.fmt(f)?;
                            }
                            f.write_str("]")?;
                        }
                    }
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndshm::element::OpaqueType;

    #[test]
    fn every_scalar_is_decoded_and_printed_as_itself() {
        let bytes = [0xff; 16];
        let printed: Vec<String> = ScalarType::ALL
            .iter()
            .map(|&scalar| Value::decode(&scalar.into(), &bytes).unwrap().to_string())
            .collect();
        let max = u128::MAX.to_string();
        let expected = [
            "255",
            "-1",
            "65535",
            "-1",
            "4294967295",
            "-1",
            "18446744073709551615",
            "-1",
            &max,
            "-1",
            "NaN",
            "NaN",
            "NaN+NaNi",
            "NaN+NaNi",
            "invalid bool: 0xff",
        ];
        assert_eq!(printed, expected);
        assert!(ScalarType::ALL.iter().all(|&scalar| {
            Value::decode(&scalar.into(), &bytes[..scalar.size() - 1]).is_none()
        }));
    }

    #[test]
    fn json_says_what_it_can_and_texts_the_rest() {
        let json = |value: Value| value.json().to_string();
        assert_eq!(json(Value::F32(0.1)), "0.1");
        assert_eq!(json(Value::F64(f64::NEG_INFINITY)), "\"-inf\"");
        assert_eq!(
            json(Value::Unsigned(u64::MAX.into())),
            "18446744073709551615"
        );
        assert_eq!(json(Value::Unsigned(1 << 64)), "\"18446744073709551616\"");
        assert_eq!(json(Value::Signed(i64::MIN.into())), "-9223372036854775808");
        assert_eq!(json(Value::Signed(1 << 63)), "9223372036854775808");
        assert_eq!(json(Value::Signed(-1 << 64)), "\"-18446744073709551616\"");
        assert_eq!(json(Value::Complex32(Complex::new(1.0, 0.5))), "[1.0,0.5]");
        let record = Value::Record(vec![
            ("x".into(), vec![Value::F64(1.0)]),
            ("p".into(), vec![Value::Bool(true), Value::InvalidBool(3)]),
        ]);
        assert_eq!(
            json(record.clone()),
            r#"{"p":[true,"invalid bool: 0x03"],"x":1.0}"#
        );
        assert_eq!(record.to_string(), "{x: 1, p: [true, invalid bool: 0x03]}");
        let text = OpaqueType::new("|S3", 3, 1).unwrap().into();
        let opaque = Value::decode(&text, b"a\n\0z").unwrap();
        assert_eq!(
            (opaque.to_string(), json(opaque)),
            ("610a00".into(), "\"610a00\"".into())
        );
        assert_eq!(Value::decode(&text, b"ab"), None);
    }
}
