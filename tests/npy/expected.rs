//! The contents of the arrays that files.py writes, by their names.

use ndarray::{ArrayD, Dimension, IxDyn};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::element::Order;
use ndshm::{AnyHandle, Complex, Element, HandleTable};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Point {
    pub id: u32,
    pub parts: [u16; 2],
    pub at: [f64; 2],
}
ndshm::record!(Point {
    id: u32,
    parts: [u16; 2],
    at: [f64; 2]
});

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, packed)]
pub struct Mixed {
    pub größe: i16,
    pub z: [Complex<f32>; 3],
    pub flag: u8,
    pub t: f64,
}
ndshm::record!(Mixed {
    größe: i16,
    z: [Complex<f32>; 3],
    flag: u8,
    t: f64
});

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, packed)]
struct Titled {
    x: f64,
    grid: [[i16; 3]; 2],
}
ndshm::record!(Titled {
    x: f64,
    grid: [[i16; 3]; 2]
});

/// An element by its index in C order, from 0.
pub trait Value: Element + PartialEq + core::fmt::Debug {
    fn of(index: usize) -> Self;
}

macro_rules! values {
    ($($type:ty: $k:ident => $value:expr;)*) => {$(
        impl Value for $type {
            fn of(index: usize) -> Self {
                let $k = index as u64 + 1;
                $value
            }
        }
    )*};
}

fn bits(k: u64) -> u64 {
    k.wrapping_mul(0x0123_4567_89ab_cdef)
}

values! {
    u8: k => bits(k) as u8;
    i8: k => bits(k) as i8;
    u16: k => bits(k) as u16;
    i16: k => bits(k) as i16;
    u32: k => bits(k) as u32;
    i32: k => bits(k) as i32;
    u64: k => bits(k);
    i64: k => bits(k) as i64;
    f32: k => (k as f64 * 0.1) as f32;
    f64: k => k as f64 * 0.1;
    Complex<f32>: k => Complex::new((k as f64 * 0.1) as f32, -(k as f64 * 0.25) as f32);
    Complex<f64>: k => Complex::new(k as f64 * 0.1, -(k as f64 * 0.25));
    bool: k => k.is_multiple_of(3);
    Point: k => {
        let index = k as usize - 1;
        Point {
            id: u32::of(index),
            parts: core::array::from_fn(|at| u16::of(2 * index + at)),
            at: core::array::from_fn(|at| f64::of(2 * index + at)),
        }
    };
    Mixed: k => {
        let index = k as usize - 1;
        Mixed {
            größe: i16::of(index),
            z: core::array::from_fn(|at| Complex::of(3 * index + at)),
            flag: u8::of(index),
            t: f64::of(index),
        }
    };
    Titled: k => {
        let index = k as usize - 1;
        Titled {
            x: f64::of(index),
            grid: core::array::from_fn(|row| {
                core::array::from_fn(|column| i16::of(6 * index + 3 * row + column))
            }),
        }
    };
}

fn is<T: Value>(table: &HandleTable, name: &str, handle: AnyHandle, shape: &[usize], order: Order) {
    let info = table.info(handle).unwrap();
    assert_eq!(info.order, order, "{name}");
    let handle = handle
        .downcast::<T, IxDyn>(table)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let guard = table.read(handle).unwrap();
    let index = |at: IxDyn| {
        at.slice()
            .iter()
            .zip(shape)
            .fold(0, |index, (at, length)| index * length + at)
    };
    let expected = ArrayD::from_shape_fn(IxDyn(shape), |at| T::of(index(at)));
    assert!(guard.view() == expected, "{name}: {guard:?}");
}

/// Asserts that the array has the contents that files.py gives to this name.
pub fn check(table: &HandleTable, name: &str, handle: AnyHandle) {
    use Order::{C, F};
    let check = |is: fn(&HandleTable, &str, AnyHandle, &[usize], Order), shape: &[usize], order| {
        is(table, name, handle, shape, order)
    };
    let parts: Vec<&str> = name.split('-').collect();
    let order = if parts[1..].contains(&"F") { F } else { C };
    match parts[..] {
        ["f8", "none"] => check(is::<f64>, &[], C),
        ["f8", "empty"] => check(is::<f64>, &[0], C),
        ["f8", "hollow"] => check(is::<f64>, &[3, 0, 2], C),
        ["f8", "eight"] => check(is::<f64>, &[2, 1, 2, 1, 2, 1, 2, 1], C),
        ["f8", "large"] => check(is::<f64>, &[1300, 1001], F),
        ["point", _] => check(is::<Point>, &[3, 2], order),
        ["mixed"] => check(is::<Mixed>, &[5], C),
        ["mixed", "large"] => check(is::<Mixed>, &[400_000], C),
        ["titled"] => check(is::<Titled>, &[2, 2], C),
        [dtype, "C" | "F", "little" | "big"] => {
            let is = match dtype {
                "u1" => is::<u8>,
                "i1" => is::<i8>,
                "u2" => is::<u16>,
                "i2" => is::<i16>,
                "u4" => is::<u32>,
                "i4" => is::<i32>,
                "u8" => is::<u64>,
                "i8" => is::<i64>,
                "f4" => is::<f32>,
                "f8" => is::<f64>,
                "c8" => is::<Complex<f32>>,
                "c16" => is::<Complex<f64>>,
                "b1" => is::<bool>,
                _ => panic!("no such type: {name}"),
            };
            check(is, &[2, 3, 4], order)
        }
        _ => panic!("no such array: {name}"),
    }
}
