//! Deserializing a tensor: from bytes in place, or from shape and elements.

use core::fmt;
use core::marker::PhantomData;

use ndarray::{Array, ArrayView, Dimension, ShapeBuilder};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::format::TENSOR;
use super::plain::{Elements, ElementsError, dtype_of, elements_of};
use super::tensor::Tensor;
use crate::element::Element;

impl<'a, 'de: 'a, T: Element + Deserialize<'de>, D: Dimension> Deserialize<'de>
    for Tensor<'a, T, D>
{
    fn deserialize<S: Deserializer<'de>>(deserializer: S) -> Result<Self, S::Error> {
        deserializer.deserialize_newtype_struct(TENSOR, TensorVisitor(PhantomData))
    }
}

struct TensorVisitor<T, D>(PhantomData<(T, D)>);

/// The fields in other formats; an object has partly different ones.
const FIELDS: &[&str] = &["shape", "data"];

impl<'de, T: Element + Deserialize<'de>, D: Dimension> Visitor<'de> for TensorVisitor<T, D> {
    type Value = Tensor<'de, T, D>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a tensor of {}", T::dtype())
    }

    fn visit_newtype_struct<S: Deserializer<'de>>(self, inner: S) -> Result<Self::Value, S::Error> {
        inner.deserialize_struct("Tensor", FIELDS, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let missing = |at| de::Error::invalid_length(at, &"a shape and elements");
        let shape: Vec<usize> = parts.next_element()?.ok_or_else(|| missing(0))?;
        let data = parts.next_element()?.ok_or_else(|| missing(1))?;
        tensor(&shape, false, Elements::Owned(data))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut shape, mut fortran, mut data, mut dtype) = (None, false, None, None);
        let mut bytes = None;
        while let Some(key) = fields.next_key()? {
            match key {
                Key::Shape => shape = Some(fields.next_value::<Vec<usize>>()?),
                Key::Data => data = Some(fields.next_value::<Vec<T>>()?),
                Key::Dtype => dtype = Some(fields.next_value::<&str>()?),
                Key::Order => {
                    fortran = match fields.next_value()? {
                        'C' => false,
                        'F' => true,
                        other => {
                            let found = de::Unexpected::Char(other);
                            return Err(de::Error::invalid_value(found, &"the order C or F"));
                        }
                    }
                }
                Key::Bytes => bytes = Some(fields.next_value::<&[u8]>()?),
                Key::Other => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        let shape = shape.ok_or_else(|| de::Error::missing_field("shape"))?;
        if let Some(data) = data {
            return tensor(&shape, false, Elements::Owned(data));
        }
        let (Some(dtype), Some(bytes)) = (dtype, bytes) else {
            return Err(de::Error::missing_field("data"));
        };
        if dtype != dtype_of::<T>() {
            return Err(de::Error::custom(format_args!(
                "invalid type: a tensor of {dtype} with shape {shape:?}, expected a tensor of {}",
                dtype_of::<T>()
            )));
        }
        let elements = elements_of(bytes).map_err(|error| match error {
            ElementsError::Length => de::Error::custom(format_args!(
                "a tensor of {dtype} has {} bytes, which are not a whole number of elements",
                bytes.len()
            )),
            ElementsError::Invalid(error) => de::Error::custom(error),
        })?;
        tensor(&shape, fortran, elements)
    }
}

/// Returns a tensor of this shape, or an error if the number of elements does not match it.
fn tensor<'de, T: Element, D: Dimension, E: de::Error>(
    shape: &[usize],
    fortran: bool,
    elements: Elements<'de, T>,
) -> Result<Tensor<'de, T, D>, E> {
    if let Some(axes) = D::NDIM
        && axes != shape.len()
    {
        return Err(E::custom(format_args!(
            "invalid type: a tensor of {} with {} axes, expected one with {axes}",
            T::dtype(),
            shape.len()
        )));
    }
    let mut dim = D::zeros(shape.len());
    dim.slice_mut().copy_from_slice(shape);
    let dim = dim.set_f(fortran);
    let count = match &elements {
        Elements::Borrowed(elements) => elements.len(),
        Elements::Owned(elements) => elements.len(),
    };
    // Check the count here: ndarray accepts a view with fewer elements than the slice has.
    let wanted = shape
        .iter()
        .try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    let refused = || {
        E::custom(format_args!(
            "a tensor of shape {shape:?} has {count} elements: store it again"
        ))
    };
    if wanted != Some(count) {
        return Err(refused());
    }
    match elements {
        Elements::Borrowed(elements) => ArrayView::from_shape(dim, elements).map(Tensor::from),
        Elements::Owned(elements) => Array::from_shape_vec(dim, elements).map(Tensor::from),
    }
    .map_err(|_| refused())
}

/// A field of a tensor.
enum Key {
    Shape,
    Data,
    Dtype,
    Order,
    Bytes,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<S: Deserializer<'de>>(deserializer: S) -> Result<Key, S::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a tensor's field")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "shape" => Key::Shape,
                    "data" => Key::Data,
                    "dtype" => Key::Dtype,
                    "order" => Key::Order,
                    "bytes" => Key::Bytes,
                    _ => Key::Other,
                })
            }
        }

        deserializer.deserialize_identifier(KeyVisitor)
    }
}
