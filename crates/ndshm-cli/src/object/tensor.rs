//! Tensors in objects.

use std::fmt;

use ndshm::element::{DType, RecordLayout, ScalarType};
use serde_json::Value as Json;

use super::Node;
use crate::index;
use crate::output::Failure;
use crate::value::Value;

/// Maximum number of axes, as in numpy. Each one is a level of recursion when it is printed.
const AXES: usize = 64;

/// An array in an object: its elements, and the steps from one to the next.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    /// The distance in bytes from one index of each axis to the next.
    strides: Vec<isize>,
    /// The place of the first element.
    first: usize,
    bytes: Vec<u8>,
}

impl Tensor {
    /// Takes a tensor out of the fields by which it is stored. Returns `None`, and leaves the
    /// fields, if they are not those of a tensor.
    pub fn of(fields: &mut [(String, Node)]) -> Option<Tensor> {
        let [
            (dtype, Node::Text(element)),
            (shape, Node::List(lengths)),
            (order, Node::Text(way)),
            (bytes, Node::Bytes(_)),
        ] = &fields[..]
        else {
            return None;
        };
        if [dtype, shape, order, bytes] != ["dtype", "shape", "order", "bytes"] {
            return None;
        }
        let dtype: DType = match ScalarType::from_name(element) {
            Some(scalar) => scalar.into(),
            None => DType::Record(RecordLayout::parse(element)?.into()),
        };
        let length = |node: &Node| match node {
            // Indices are signed: longer axes have none.
            Node::Plain(Value::Unsigned(length)) => {
                isize::try_from(*length).ok().map(isize::unsigned_abs)
            }
            _ => None,
        };
        if lengths.len() > AXES {
            return None;
        }
        let shape: Vec<usize> = lengths.iter().map(length).collect::<Option<_>>()?;
        let mut size = dtype.size();
        let mut strides = vec![0; shape.len()];
        let axes: Vec<usize> = match way.as_str() {
            "F" => (0..shape.len()).collect(),
            _ => (0..shape.len()).rev().collect(),
        };
        for axis in axes {
            strides[axis] = isize::try_from(size).ok()?;
            size = size.checked_mul(shape[axis])?;
        }
        let Node::Bytes(bytes) = &mut fields[3].1 else {
            return None;
        };
        (bytes.len() == size).then(|| Tensor {
            dtype,
            shape,
            strides,
            first: 0,
            bytes: std::mem::take(bytes),
        })
    }

    /// Returns the elements that an index selects.
    pub fn select(self, index: &str) -> Result<Tensor, Failure> {
        let picks = index::parse(index, &self.shape)?;
        let strides = self.strides;
        let mut selected = Tensor {
            shape: Vec::new(),
            strides: Vec::new(),
            ..self
        };
        for (pick, &stride) in picks.iter().zip(&strides) {
            // No overflow: the places are within the bytes.
            let moved = pick.index(0) as isize * stride;
            selected.first = (selected.first as isize + moved) as usize;
            if pick.kept {
                selected.shape.push(pick.count);
                selected.strides.push(stride * pick.step);
            }
        }
        Ok(selected)
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> &DType {
        &self.dtype
    }

    /// Returns the length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of bytes of the elements that are stored.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns the element at a place, which has an index for each axis.
    pub fn element(&self, place: &[usize]) -> Option<Value> {
        let steps = place.iter().zip(&self.strides);
        let offset: isize = steps.map(|(&at, stride)| at as isize * stride).sum();
        let bytes = self.bytes.get(self.first.checked_add_signed(offset)?..)?;
        Value::decode(&self.dtype, bytes)
    }

    /// Returns the elements as nested lists.
    pub fn json(&self) -> Result<Json, Failure> {
        self.fits(usize::MAX)?;
        Ok(self.nested(&mut Vec::new()))
    }

    /// Checks that the nested lists are not too many to be printed, of which each has at most
    /// `longest` elements.
    pub fn fits(&self, longest: usize) -> Result<(), Failure> {
        match index::fits(self.shape.iter().map(|&len| len.min(longest))) {
            true => Ok(()),
            false => Err(Failure::usage(format_args!(
                "a tensor has more than {} elements or lists: {:?}; select a part by a path and an \
                 index",
                index::MOST,
                self.shape
            ))),
        }
    }

    fn nested(&self, place: &mut Vec<usize>) -> Json {
        let Some(&len) = self.shape.get(place.len()) else {
            return self.element(place).map_or(Json::Null, |value| value.json());
        };
        let inner = |at| {
            place.push(at);
            let inner = self.nested(place);
            place.pop();
            inner
        };
        (0..len).map(inner).collect()
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(order: &str, shape: &[u64], bytes: usize) -> Vec<(String, Node)> {
        let lengths = shape.iter().map(|&len| Value::Unsigned(len.into()));
        vec![
            ("dtype".into(), Node::Text("u8".into())),
            (
                "shape".into(),
                Node::List(lengths.map(Node::Plain).collect()),
            ),
            ("order".into(), Node::Text(order.into())),
            ("bytes".into(), Node::Bytes((0..bytes as u8).collect())),
        ]
    }

    #[test]
    fn elements_come_in_their_order() {
        let json = |order: &str, index: &str| {
            let tensor = Tensor::of(&mut fields(order, &[2, 3], 6)).unwrap();
            tensor.select(index).unwrap().json().unwrap().to_string()
        };
        assert_eq!(json("C", ""), "[[0,1,2],[3,4,5]]");
        assert_eq!(json("F", ""), "[[0,2,4],[1,3,5]]");
        assert_eq!(json("C", "::-1,-1"), "[5,2]");
        assert_eq!(json("F", "1,2"), "5");
        assert_eq!(json("C", "0,1:1"), "[]");
        let tensor = Tensor::of(&mut fields("C", &[2, 3], 6)).unwrap();
        assert!(tensor.clone().select("2").is_err());
        let row = tensor.select("1").unwrap();
        assert_eq!(
            row.select("::2").unwrap().json().unwrap().to_string(),
            "[3,5]"
        );
    }

    #[test]
    fn lists_without_elements_count_too() {
        let tensor = |shape: &[u64]| Tensor::of(&mut fields("C", shape, 0)).unwrap();
        assert_eq!(tensor(&[2, 0]).json().unwrap(), serde_json::json!([[], []]));
        for shape in [&[1 << 40, 0][..], &[3_000, 3_000, 0], &[0, 1 << 40]] {
            let failure = tensor(shape).json().unwrap_err().to_string();
            assert!(failure.contains("select a part"), "{failure}");
        }
        assert!(tensor(&[1 << 40, 0]).fits(11).is_ok());
        assert!(
            tensor(&[[12; 10].as_slice(), &[0]].concat())
                .fits(11)
                .is_err()
        );
        let few = tensor(&[1 << 40, 0]).select("-2:").unwrap();
        assert_eq!(few.json().unwrap(), serde_json::json!([[], []]));
    }

    #[test]
    fn other_fields_are_no_tensor_and_stay() {
        let mut short = fields("C", &[2, 3], 5);
        assert_eq!(Tensor::of(&mut short), None);
        assert_eq!(short[3].1, Node::Bytes((0..5).collect()));
        assert_eq!(Tensor::of(&mut fields("C", &[u64::MAX, 3], 5)), None);
        assert_eq!(Tensor::of(&mut fields("C", &[u64::MAX, 0], 0)), None);
        assert_eq!(Tensor::of(&mut fields("C", &[1; AXES + 1], 1)), None);
        assert!(Tensor::of(&mut fields("C", &[1; AXES], 1)).is_some());
        let mut renamed = fields("C", &[1], 1);
        renamed[0].0 = "type".into();
        assert_eq!(Tensor::of(&mut renamed), None);
    }
}
