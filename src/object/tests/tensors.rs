//! Tensors: read in place, of any layout, inside other values, and in other formats.

use std::collections::HashMap;

use ndarray::{Array, Array1, Array2, ArrayD, Axis, Ix0, Ix1, Ix2, Ix3, IxDyn, arr0, array, s};
use num_complex::Complex;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{decoded, encoded, table};
use crate::object::{ObjectGuard, Tensor};

fn is_inside<T>(guard: &ObjectGuard<'_>, at: *const T) -> bool {
    let start = guard.blocks.as_ptr().cast::<u8>().addr();
    (start..start + guard.size()).contains(&at.addr())
}

/// Returns the error of reading `value` as a tensor of `T`.
#[track_caller]
fn refused<T, D>(value: impl Serialize) -> String
where
    T: crate::Element + for<'de> Deserialize<'de>,
    D: ndarray::Dimension,
{
    let (stream, buffers) = encoded(&value).unwrap();
    match decoded::<Tensor<'_, T, D>>(&stream, &buffers) {
        Ok(tensor) => panic!("read with shape {:?}", tensor.shape()),
        Err(error) => error.to_string(),
    }
}

/// Stores a tensor, reads it in place, and compares.
#[track_caller]
fn in_place<T, D>(tensor: Tensor<'_, T, D>)
where
    T: crate::Element + Serialize + for<'de> Deserialize<'de> + PartialEq + core::fmt::Debug,
    D: ndarray::Dimension,
{
    let table = table();
    // Put a value before it: otherwise it might be aligned by chance.
    let before = Tensor::from(vec![3_u8]);
    let handle = table.put_object(&(before, &tensor, "x")).unwrap();
    let guard = table.open_object(handle).unwrap();
    let (_, read, _): (Tensor<'_, u8, Ix1>, Tensor<'_, T, D>, &str) = guard.get().unwrap();
    assert_eq!(read, tensor);
    assert!(read.is_borrowed());
    assert!(read.as_ptr().addr().is_multiple_of(64));
    assert!(read.is_empty() || is_inside(&guard, read.as_ptr()));

    let json = serde_json::to_string(&tensor).unwrap();
    assert_eq!(
        serde_json::from_str::<Tensor<'_, T, D>>(&json).unwrap(),
        tensor
    );
}

#[test]
fn of_every_number_and_dimension() {
    in_place(Tensor::from(vec![1_u8, 2, 255]));
    in_place(Tensor::from(vec![-1_i8]));
    in_place(Tensor::from(vec![1_u16]));
    in_place(Tensor::from(vec![i16::MIN]));
    in_place(Tensor::from(vec![u32::MAX, 0]));
    in_place(Tensor::from(vec![i32::MIN, 0]));
    in_place(Tensor::from(vec![u64::MAX, 0]));
    in_place(Tensor::from(vec![i64::MIN, 0]));
    in_place(Tensor::from(vec![u128::MAX, 0]));
    in_place(Tensor::from(vec![i128::MIN, 0]));
    in_place(Tensor::from(vec![1.5_f32; 1000]));
    in_place(Tensor::from(vec![1.5_f64; 100_000]));
    in_place(Tensor::from(vec![true, false]));
    in_place(Tensor::from(vec![Complex::new(1.0_f32, 2.0)]));
    in_place(Tensor::from(vec![Complex::new(1.0_f64, 2.0)]));
    in_place(Tensor::<f64, Ix0>::from(arr0(3.0)));
    in_place(Tensor::<f64, Ix3>::from(Array::zeros((2, 3, 4))));
    in_place(Tensor::<f64, IxDyn>::from(ArrayD::zeros(vec![1; 9])));
    in_place(Tensor::<f64, Ix2>::from(Array2::zeros((0, 7))));
    in_place(Tensor::from(Vec::<f32>::new()));
    in_place(Tensor::from(&[1.0, 2.0][..]));
}

#[test]
fn of_every_layout() {
    let numbers = Array::from_shape_fn((5, 6, 7), |(i, j, k)| (i * 100 + j * 10 + k) as u32);
    in_place(Tensor::from(&numbers));
    in_place(Tensor::from(numbers.t()));
    in_place(Tensor::from(numbers.slice(s![1..4;2, .., ..;-1])));
    in_place(Tensor::from(numbers.index_axis(Axis(1), 2)));
    in_place(Tensor::from(numbers.view().permuted_axes([1, 2, 0])));
    in_place(Tensor::from(numbers.broadcast((2, 5, 6, 7)).unwrap()));
    // Larger than one piece.
    let long = Array1::from_iter(0..200_000_u32);
    in_place(Tensor::from(long.slice(s![..;3])));

    // A transposed array keeps its order.
    let (stream, buffers) = encoded(&Tensor::from(numbers.t())).unwrap();
    assert_eq!(buffers[4..8], 1_u32.to_le_bytes());
    let read: Tensor<'_, u32, Ix3> = decoded(&stream, &buffers).unwrap();
    assert_eq!(read.strides(), numbers.t().strides());
}

#[test]
fn of_records() {
    use bytemuck::{Pod, Zeroable};
    #[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable, Serialize, Deserialize)]
    #[repr(C)]
    struct Point {
        x: f64,
        y: f64,
    }
    crate::record!(Point { x: f64, y: f64 });
    in_place(Tensor::from(vec![Point { x: 1.0, y: 2.0 }; 7]));
    let message = refused::<f64, Ix1>(Tensor::from(vec![Point { x: 1.0, y: 2.0 }]));
    assert!(message.contains("tensor of x:f64@0;y:f64@8"), "{message}");
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Layer<'a> {
    #[serde(borrow)]
    weights: Tensor<'a, f32, Ix2>,
    #[serde(borrow)]
    bias: Tensor<'a, f32, Ix1>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Either<'a> {
    #[serde(borrow)]
    Layer(Layer<'a>),
    #[serde(borrow)]
    Vector(Tensor<'a, f64, Ix1>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flat<'a> {
    #[serde(flatten, borrow)]
    layer: Layer<'a>,
    #[serde(flatten, borrow)]
    rest: HashMap<&'a str, Either<'a>>,
}

fn layer() -> Layer<'static> {
    Layer {
        weights: Array2::from_elem((30, 40), 0.5).into(),
        bias: vec![1.0, 2.0].into(),
    }
}

#[test]
fn inside_of_other_values() {
    let table = table();
    let many: HashMap<String, Tensor<'_, f64, IxDyn>> = (0..20)
        .map(|at| {
            (
                format!("array {at}"),
                ArrayD::from_elem(vec![at, 3], at as f64).into(),
            )
        })
        .collect();
    let list = [Some(layer()), None, Some(layer())];
    let handle = table.put_object(&(&many, &list)).unwrap();
    let guard = table.open_object(handle).unwrap();
    type Read<'a> = (
        HashMap<&'a str, Tensor<'a, f64, IxDyn>>,
        Vec<Option<Layer<'a>>>,
    );
    let (read_many, read_list): Read<'_> = guard.get().unwrap();
    assert_eq!(read_list, list);
    assert_eq!(read_many.len(), 20);
    for (name, tensor) in read_many {
        assert!(tensor.is_borrowed());
        assert_eq!(tensor, many[name]);
    }
}

#[test]
fn borrowed_also_where_serde_buffers() {
    let (stream, buffers) = encoded(&Either::Vector(vec![1.0].into())).unwrap();
    let Either::Vector(vector) = decoded(&stream, &buffers).unwrap() else {
        panic!("another variant");
    };
    let vector: Tensor<'_, f64, Ix1> = vector;
    assert!(!vector.is_empty() && buffers.as_ptr_range().contains(&vector.as_ptr().cast()));

    let rest = HashMap::from([
        ("one", Either::Layer(layer())),
        ("two", Either::Vector(vec![3.0].into())),
    ]);
    let flat = Flat {
        layer: layer(),
        rest,
    };
    let table = table();
    let guard = table.open_object(table.put_object(&flat).unwrap()).unwrap();
    let read: Flat<'_> = guard.get().unwrap();
    assert_eq!(read, flat);
    assert!(read.layer.weights.is_borrowed() && is_inside(&guard, read.layer.weights.as_ptr()));
}

#[test]
fn a_tensor_that_serde_buffered_is_read_as_a_copy() {
    /// serde gathers the parts of such a variant before it writes them.
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged<'a> {
        Struct { tensor: Tensor<'a, f64, Ix2> },
    }
    #[derive(Deserialize)]
    struct Read<'a> {
        #[serde(borrow)]
        tensor: Tensor<'a, f64, Ix2>,
    }
    let tensor = Tensor::from(array![[1.0, 2.0]]);
    let (stream, buffers) = encoded(&Tagged::Struct {
        tensor: tensor.clone(),
    })
    .unwrap();
    let read: Read<'_> = decoded(&stream, &buffers).unwrap();
    assert_eq!(read.tensor, tensor);

    // The form in which another format passes it on.
    let json = serde_json::to_value(&tensor).unwrap();
    let (stream, buffers) = encoded(&json).unwrap();
    let message = decoded::<Tensor<'_, u8, Ix2>>(&stream, &buffers)
        .unwrap_err()
        .to_string();
    assert!(message.contains("u8"), "{message}");
    let read: Tensor<'_, f64, Ix2> = decoded(&stream, &buffers).unwrap();
    assert!(!read.is_borrowed());
    assert_eq!(read, tensor);
}

#[test]
fn another_tensor_is_an_error_that_names_both() {
    let tensor = || Tensor::from(array![[1.0_f64, 2.0]]);
    let message = refused::<f32, Ix2>(tensor());
    let expected = "a tensor of f64 with shape [1, 2], expected a tensor of f32";
    assert!(message.contains(expected), "{message}");
    let message = refused::<f64, Ix1>(tensor());
    assert!(
        message.contains("f64 with 2 axes, expected one with 1"),
        "{message}"
    );
    let message = super::refused::<Vec<f64>>(tensor());
    assert!(message.contains("map, expected a sequence"), "{message}");
    let message = refused::<f64, Ix1>(vec![1.0]);
    assert!(
        message.contains("a sequence, expected a tensor of f64"),
        "{message}"
    );
}

#[test]
fn bad_shapes_in_other_formats_are_refused() {
    for json in [
        r#"{"shape":[3],"data":[1.0]}"#,
        r#"{"shape":[],"data":[]}"#,
        r#"{"shape":[1,1],"data":[1.0]}"#,
        r#"{"shape":[4611686018427387904],"data":[]}"#,
        r#"{"shape":[0,9223372036854775807,9223372036854775807],"data":[]}"#,
        r#"{"shape":[1]}"#,
        r#"{"data":[1.0]}"#,
        r#"{"dtype":"f64","shape":[0],"order":"C","bytes":[]}"#,
        r#"[1.0]"#,
        "3",
    ] {
        assert!(
            serde_json::from_str::<Tensor<'_, f64, Ix1>>(json).is_err(),
            "{json}"
        );
    }
    let huge = r#"{"shape":[0,9223372036854775807,9223372036854775807],"data":[]}"#;
    assert!(serde_json::from_str::<Tensor<'_, f64, Ix3>>(huge).is_err());
    // Formats without names write the shape, then the elements.
    let pair: Tensor<'_, f64, Ix1> = serde_json::from_str("[[2],[1.0,2.0]]").unwrap();
    assert_eq!(pair, Tensor::from(vec![1.0, 2.0]));
}

#[test]
fn it_is_a_cow() {
    let numbers = array![1.0, 2.0];
    let borrowed = Tensor::from(&numbers);
    assert!(borrowed.is_borrowed() && borrowed.clone().is_borrowed());
    assert_eq!(borrowed.view().as_ptr(), numbers.as_ptr());
    assert_eq!(borrowed.clone().into_owned(), numbers);
    assert!(borrowed.clone().into_cow().is_view());
    assert!(!Tensor::from(numbers.clone()).is_borrowed());
    assert_eq!(
        Tensor::from(borrowed.into_cow()),
        Tensor::from(vec![1.0, 2.0])
    );
}

proptest! {
    #[test]
    fn any_shape_and_order(
        shape in prop::collection::vec(0_usize..5, 0..5),
        axes in any::<prop::sample::Index>(),
        step in 1_isize..3,
    ) {
        let mut count = 0_u16;
        let mut numbers = ArrayD::from_shape_simple_fn(shape.clone(), || { count += 1; count });
        let rank = shape.len();
        if rank > 0 {
            numbers.swap_axes(axes.index(rank), 0);
            let axis = Axis(rank - 1);
            let view = numbers.slice_axis(axis, ndarray::Slice::new(0, None, step));
            in_place(Tensor::from(view));
        }
        in_place(Tensor::from(&numbers));
    }
}
