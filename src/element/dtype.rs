//! Names, sizes and stored codes of element types.

use core::fmt;
use std::sync::Arc;

use super::{Complex, OpaqueType, RecordLayout};

macro_rules! scalar_types {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $type:ty, $name:literal;)*) => {
        /// A number or a bool: the parts that elements consist of.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ScalarType {
            $($(#[$doc])* $variant = $code,)*
        }

        impl ScalarType {
            /// Every scalar type.
            pub const ALL: &'static [ScalarType] = &[$(ScalarType::$variant),*];

            /// Returns the name of the type in Rust.
            ///
            /// ```
            /// use ndshm::element::ScalarType;
            ///
            /// assert_eq!(ScalarType::F32.name(), "f32");
            /// ```
            pub const fn name(self) -> &'static str {
                match self {
                    $(ScalarType::$variant => $name,)*
                }
            }

            /// Returns the size of one value in bytes.
            ///
            /// ```
            /// use ndshm::element::ScalarType;
            ///
            /// assert_eq!(ScalarType::F32.size(), 4);
            /// ```
            pub const fn size(self) -> usize {
                match self {
                    $(ScalarType::$variant => size_of::<$type>(),)*
                }
            }

            /// Returns the alignment of a value.
            ///
            /// ```
            /// use ndshm::element::ScalarType;
            ///
            /// assert_eq!(ScalarType::F32.align(), 4);
            /// ```
            pub const fn align(self) -> usize {
                match self {
                    $(ScalarType::$variant => align_of::<$type>(),)*
                }
            }

            /// Returns the code that segments store. It is a part of the layout version.
            pub(crate) const fn code(self) -> u16 {
                self as u16
            }

            /// Returns the scalar of a stored code, or `None` for any other number.
            pub(crate) const fn from_code(code: u16) -> Option<ScalarType> {
                match code {
                    $($code => Some(ScalarType::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

scalar_types! {
    /// `u8`
    U8 = 1, u8, "u8";
    /// `i8`
    I8 = 2, i8, "i8";
    /// `u16`
    U16 = 3, u16, "u16";
    /// `i16`
    I16 = 4, i16, "i16";
    /// `u32`
    U32 = 5, u32, "u32";
    /// `i32`
    I32 = 6, i32, "i32";
    /// `u64`
    U64 = 7, u64, "u64";
    /// `i64`
    I64 = 8, i64, "i64";
    /// `u128`
    U128 = 9, u128, "u128";
    /// `i128`
    I128 = 10, i128, "i128";
    /// `f32`
    F32 = 11, f32, "f32";
    /// `f64`
    F64 = 12, f64, "f64";
    /// `Complex<f32>`: real part, then imaginary part
    Complex32 = 13, Complex<f32>, "Complex<f32>";
    /// `Complex<f64>`: real part, then imaginary part
    Complex64 = 14, Complex<f64>, "Complex<f64>";
    /// `bool`: a byte, 0 or 1
    Bool = 15, bool, "bool";
}

impl ScalarType {
    /// Returns the scalar with this [`name`](ScalarType::name).
    ///
    /// ```
    /// use ndshm::element::ScalarType;
    ///
    /// assert_eq!(ScalarType::from_name("u16"), Some(ScalarType::U16));
    /// assert_eq!(ScalarType::from_name("half"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<ScalarType> {
        Self::ALL
            .iter()
            .copied()
            .find(|scalar| scalar.name() == name)
    }
}

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The type of an array's elements, as the segment records it.
///
/// A record is identified by its layout, not by the name of the program's struct.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// A number or a bool.
    Scalar(ScalarType),
    /// A struct, identified by the layout of its fields.
    Record(Arc<RecordLayout>),
    /// A type that Rust lacks, identified by its size, its alignment and a text.
    Opaque(Arc<OpaqueType>),
}

impl DType {
    /// Returns the size of one element in bytes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let info = table.info(table.zeros::<f64, _>((3, 4))?)?;
    /// assert_eq!(info.bytes, 12 * info.dtype.size() as u64);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn size(&self) -> usize {
        match self {
            DType::Scalar(scalar) => scalar.size(),
            DType::Record(layout) => layout.size(),
            DType::Opaque(opaque) => opaque.size(),
        }
    }

    /// Returns the alignment of an element.
    ///
    /// ```
    /// use ndshm::Element;
    ///
    /// assert_eq!(f64::dtype().align(), 8);
    /// ```
    pub fn align(&self) -> usize {
        match self {
            DType::Scalar(scalar) => scalar.align(),
            DType::Record(layout) => layout.align(),
            DType::Opaque(opaque) => opaque.align(),
        }
    }
}

impl From<ScalarType> for DType {
    fn from(scalar: ScalarType) -> DType {
        DType::Scalar(scalar)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Scalar(scalar) => scalar.fmt(f),
            DType::Record(layout) => layout.fmt(f),
            DType::Opaque(opaque) => opaque.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_codes() {
        let codes: Vec<_> = ScalarType::ALL
            .iter()
            .map(|scalar| (scalar.code(), scalar.name(), scalar.size()))
            .collect();
        let golden = [
            (1, "u8", 1),
            (2, "i8", 1),
            (3, "u16", 2),
            (4, "i16", 2),
            (5, "u32", 4),
            (6, "i32", 4),
            (7, "u64", 8),
            (8, "i64", 8),
            (9, "u128", 16),
            (10, "i128", 16),
            (11, "f32", 4),
            (12, "f64", 8),
            (13, "Complex<f32>", 8),
            (14, "Complex<f64>", 16),
            (15, "bool", 1),
        ];
        assert_eq!(
            codes, golden,
            "segments of this layout version hold these codes"
        );
    }

    #[test]
    fn codes_and_names_round_trip_and_other_codes_are_refused() {
        for code in 0..=u16::MAX {
            match ScalarType::from_code(code) {
                Some(scalar) => {
                    assert_eq!(scalar.code(), code);
                    assert_eq!(ScalarType::from_name(scalar.name()), Some(scalar));
                }
                None => assert!(ScalarType::ALL.iter().all(|scalar| scalar.code() != code)),
            }
        }
        assert_eq!(ScalarType::from_name("usize"), None);
    }
}
