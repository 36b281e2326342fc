//! Element types, and leases of arrays of each of them.

use ndarray::{ArrayD, IxDyn};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::{Complex, Element, ReadGuard, WriteGuard};

/// An element type with values that are made of numbers.
pub trait Sample: Element {
    fn of(number: u64) -> Self;
    /// Returns the number that the element still holds of the one that it was made of.
    fn number(self) -> u64;
}

macro_rules! samples {
    ($($type:ty: $of:expr, $number:expr;)*) => {
        $(impl Sample for $type {
            fn of(number: u64) -> Self {
                let of: fn(u64) -> Self = $of;
                of(number)
            }
            fn number(self) -> u64 {
                let number: fn(Self) -> u64 = $number;
                number(self)
            }
        })*
    };
}

/// A struct as an element.
#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "ndshm::bytemuck")]
#[repr(C)]
pub struct Point {
    at: [f32; 3],
    id: u32,
}

ndshm::record!(Point {
    at: [f32; 3],
    id: u32
});

samples! {
    u8: |n| n as u8, u64::from;
    bool: |n| n & 1 == 1, u64::from;
    i64: |n| n as i64, |x| x as u64;
    f32: |n| (n & 0xff_ffff) as f32, |x| x as u64;
    Complex<f64>:
        |n| Complex::new((n & 0xffff) as f64, (n >> 16 & 0xffff) as f64),
        |x| x.re as u64 | (x.im as u64) << 16;
    Point:
        |n| Point { at: [(n & 0xff) as f32; 3], id: (n >> 8) as u32 },
        |x| {
            assert_eq!(x.at, [x.at[0]; 3]);
            x.at[0] as u64 | u64::from(x.id) << 8
        };
}

/// The number of types.
pub const KINDS: usize = 6;

/// Runs the code with `$T` as the type with this number.
macro_rules! with_kind {
    ($kind:expr, $T:ident => $body:expr) => {
        match $kind {
            0 => {
                type $T = u8;
                $body
            }
            1 => {
                type $T = bool;
                $body
            }
            2 => {
                type $T = i64;
                $body
            }
            3 => {
                type $T = f32;
                $body
            }
            4 => {
                type $T = ndshm::Complex<f64>;
                $body
            }
            _ => {
                type $T = $crate::sample::Point;
                $body
            }
        }
    };
}
pub(crate) use with_kind;

/// Returns the numbers of which elements are made, derived from their place: all different if the
/// type is wide enough.
pub fn numbers<T: Sample>(shape: &[usize], seed: u64) -> ArrayD<u64> {
    let mut place = 0;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        place += 1;
        T::of(seed.wrapping_add(place)).number()
    })
}

/// A lease of an array of any of the types.
pub trait AnyLease {
    fn numbers(&self) -> ArrayD<u64>;
    fn strides(&self) -> Vec<isize>;
    fn fill(&mut self, numbers: &ArrayD<u64>);
}

impl<T: Sample> AnyLease for ReadGuard<'_, T, IxDyn> {
    fn numbers(&self) -> ArrayD<u64> {
        self.view().mapv(T::number)
    }

    fn strides(&self) -> Vec<isize> {
        self.view().strides().to_vec()
    }

    fn fill(&mut self, _: &ArrayD<u64>) {
        panic!("a read lease cannot be filled");
    }
}

impl<T: Sample> AnyLease for WriteGuard<'_, T, IxDyn> {
    fn numbers(&self) -> ArrayD<u64> {
        self.view().mapv(T::number)
    }

    fn strides(&self) -> Vec<isize> {
        self.view().strides().to_vec()
    }

    fn fill(&mut self, numbers: &ArrayD<u64>) {
        self.zip_mut_with(numbers, |element, &number| *element = T::of(number));
    }
}
