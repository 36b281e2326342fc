//! Element types: the types that arrays may have, and their descriptions at run time.
//!
//! Programs with arrays of numbers need nothing from here. [`record!`](crate::record) makes a
//! struct an [`Element`]. [`DType`], [`RecordLayout`], [`OpaqueType`] and [`Schema`] describe a
//! type to programs that learn it at run time.

mod dtype;
mod fields;
mod opaque;
mod record;
pub(crate) mod schema;
crate::message::debug_is_display!(InvalidElement);

#[cfg(test)]
pub(crate) mod testing;
mod text;

pub use dtype::{DType, ScalarType};
pub use fields::LayoutError;
pub use num_complex::Complex;
pub use opaque::OpaqueType;
pub use record::{Field, FieldType, Record, Schema};
pub use text::{RecordField, RecordLayout};

/// The code of the segment's own arrays of atomic words (claims of a partition, mailboxes of a
/// pool). No element type has this code, so no typed handle opens such an array.
pub(crate) const CONTROL: u16 = 0x101;

/// The code of every record. The schema index beside it identifies the record.
pub(crate) const RECORD: u16 = 0x100;

/// The code of every opaque type. The schema index beside it identifies the type.
pub(crate) const OPAQUE: u16 = 0x102;

/// The largest alignment of an element. Every extent starts at a multiple of it.
pub(crate) const MAX_ALIGN: usize = 64;

/// The composition of an [`Element`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number or a bool.
    Scalar(ScalarType),
    /// A struct of numbers, see [`record!`](crate::record).
    Record(&'static Schema),
}

impl Kind {
    /// Returns the code that a descriptor stores.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Kind::Scalar(scalar) => scalar.code(),
            Kind::Record(_) => RECORD,
        }
    }
}

/// A type that arrays in shared memory may hold.
///
/// Implemented for the integers from 8 to 128 bits, `f32`, `f64`, `bool`, [`Complex<f32>`](Complex)
/// and [`Complex<f64>`](Complex), and through [`record!`](crate::record) for structs of them.
/// There is rarely a reason to implement it by hand.
///
/// ```
/// use ndshm::Element;
/// use ndshm::element::{DType, ScalarType};
///
/// assert_eq!(f64::dtype(), DType::from(ScalarType::F64));
/// assert_eq!(ndshm::Complex::<f32>::dtype().to_string(), "Complex<f32>");
/// ```
///
/// # Safety
/// - Bytes that are all zero are a value of the type, because arrays start zeroed.
/// - Any bytes are a value of the type, or [`CHECKED`](Element::CHECKED) is true and
///   [`check`](Element::check) refuses every other pattern.
/// - The type has no padding, no pointer or reference, and no interior mutability: its bytes mean
///   the same in every process.
/// - [`KIND`](Element::KIND) describes the type's layout, and another type of the same kind accepts
///   every value of this one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be held by an array in shared memory",
    label = "not an element type",
    note = "elements are the integers, f32, f64, bool and Complex of them; `usize` and `isize` are \
            not (their size differs between programs)",
    note = "a struct of these becomes one by `ndshm::record!` around its definition"
)]
pub unsafe trait Element: Copy + Send + Sync + 'static {
    /// The composition of the type.
    const KIND: Kind;

    /// `true` if some bytes are not a value of the type. Shared bytes then need
    /// [`check`](Element::check).
    const CHECKED: bool = false;

    /// Returns the name and layout of the type.
    ///
    /// ```
    /// use ndshm::Element;
    ///
    /// assert_eq!(f64::dtype().to_string(), "f64");
    /// ```
    fn dtype() -> DType {
        match Self::KIND {
            Kind::Scalar(scalar) => DType::Scalar(scalar),
            Kind::Record(schema) => DType::Record(schema.layout().into()),
        }
    }

    /// Checks that all of `bytes`, a whole number of elements, are values of the type.
    ///
    /// ```
    /// use ndshm::Element;
    ///
    /// assert!(bool::check(&[0, 1]).is_ok());
    /// assert!(bool::check(&[0, 2]).is_err());
    /// ```
    ///
    /// # Errors
    /// Returns the first element that is not.
    fn check(bytes: &[u8]) -> Result<(), InvalidElement> {
        let _ = bytes;
        Ok(())
    }
}

/// The axis of an array that is contiguous in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Order {
    /// The last axis, as in C; the default of ndarray.
    #[default]
    C,
    /// The first axis, as in Fortran; `.f()` selects it.
    F,
}

/// Bytes in shared memory that are not a value of the array's element type.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "element {index} holds the byte {value:#04x}, but a bool is 0 or 1: the array was not written \
     as bool; overwrite the element, or use u8"
)]
pub struct InvalidElement {
    /// Index of the element in memory order.
    pub index: usize,
    /// The byte that the element holds.
    pub value: u8,
}

/// Rejects, at compile time, types that an extent cannot hold.
pub(crate) const fn assert_layout<T>() {
    assert!(
        size_of::<T>() > 0,
        "an element of size 0 takes no memory: give it a field"
    );
    assert!(
        align_of::<T>() <= MAX_ALIGN,
        "an element's alignment must be at most 64: arrays start on multiples of 64 bytes"
    );
}

macro_rules! scalars {
    ($($type:ty => $scalar:ident;)*) => {$(
        // SAFETY: a number without padding. Any bytes, including all zeros, are a value. No other
        // type implements `Element` with this scalar.
        unsafe impl Element for $type {
            const KIND: Kind = Kind::Scalar(ScalarType::$scalar);
        }

        impl FieldType for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            const COUNT: usize = 1;
        }
    )*};
}

scalars! {
    u8 => U8;
    i8 => I8;
    u16 => U16;
    i16 => I16;
    u32 => U32;
    i32 => I32;
    u64 => U64;
    i64 => I64;
    u128 => U128;
    i128 => I128;
    f32 => F32;
    f64 => F64;
    // `Complex` is `repr(C)` of two numbers of one type, so it has no padding.
    Complex<f32> => Complex32;
    Complex<f64> => Complex64;
}

// SAFETY: one byte; its values are 0 and 1; all zeros is `false`; `check` refuses all other bytes.
unsafe impl Element for bool {
    const KIND: Kind = Kind::Scalar(ScalarType::Bool);
    const CHECKED: bool = true;

    fn check(bytes: &[u8]) -> Result<(), InvalidElement> {
        // Combine a block without branches. Search only a block that contains an invalid byte.
        const BLOCK: usize = 1024;
        for (at, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().fold(0, |union, byte| union | byte) <= 1 {
                continue;
            }
            if let Some(index) = block.iter().position(|&byte| byte > 1) {
                return Err(InvalidElement {
                    index: at * BLOCK + index,
                    value: block[index],
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn describes<T: Element>(name: &str) {
        let dtype = T::dtype();
        assert_eq!(dtype.to_string(), name);
        assert_eq!(dtype.size(), size_of::<T>(), "{name}");
        assert_eq!(dtype.align(), align_of::<T>(), "{name}");
        assert_ne!(T::KIND.code(), CONTROL, "{name}");
        assert_ne!(
            T::KIND.code(),
            0,
            "zeros must not describe an array of {name}"
        );
        assert_layout::<T>();
    }

    #[test]
    fn each_type_is_described_by_its_name_and_layout() {
        describes::<u8>("u8");
        describes::<i8>("i8");
        describes::<u16>("u16");
        describes::<i16>("i16");
        describes::<u32>("u32");
        describes::<i32>("i32");
        describes::<u64>("u64");
        describes::<i64>("i64");
        describes::<u128>("u128");
        describes::<i128>("i128");
        describes::<f32>("f32");
        describes::<f64>("f64");
        describes::<bool>("bool");
        describes::<Complex<f32>>("Complex<f32>");
        describes::<Complex<f64>>("Complex<f64>");
    }

    #[test]
    fn no_scalar_shares_a_code_with_records_or_control_arrays() {
        for scalar in ScalarType::ALL {
            assert!(
                ![0, RECORD, CONTROL, OPAQUE].contains(&scalar.code()),
                "{scalar}"
            );
        }
        assert_eq!((RECORD, CONTROL, OPAQUE), (0x100, 0x101, 0x102));
    }

    #[test]
    fn only_bool_needs_a_check() {
        const { assert!(bool::CHECKED && !u8::CHECKED && !f64::CHECKED) };
        assert_eq!(u8::check(&[0, 1, 2, 255]), Ok(()));
        assert_eq!(bool::check(&[]), Ok(()));
        assert_eq!(
            bool::check(&[0, 1, 2, 3]),
            Err(InvalidElement { index: 2, value: 2 })
        );
    }

    proptest! {
        #[test]
        fn the_first_byte_that_is_no_bool_is_found(
            mut bytes in prop::collection::vec(0u8..=1, 1..5000),
            bad in prop::collection::vec((any::<prop::sample::Index>(), 2u8..), 0..3),
        ) {
            for (at, value) in &bad {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let expected = bytes
                .iter()
                .position(|&byte| byte > 1)
                .map(|index| InvalidElement { index, value: bytes[index] });
            prop_assert_eq!(bool::check(&bytes).err(), expected);
        }
    }
}
