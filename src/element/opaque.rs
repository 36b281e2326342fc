//! Types of elements that Rust has no type for: a size, an alignment, and a text that says what
//! they are.

use core::fmt;
use std::sync::Arc;

use super::fields::LayoutError;
use super::schema::MAX_TEXT;
use super::{DType, MAX_ALIGN, ScalarType};

/// The first byte of the stored text. No record's text begins with it, because names escape it.
const TAG: char = '=';

/// Bytes of the longest text: those of an entry, less the tag, the size and the alignment.
const MAX_OPAQUE: usize = MAX_TEXT.saturating_sub("=9223372036854775807,64,".len());

/// An element type that Rust lacks, such as numpy's `float16`, dates, fixed strings, big-endian
/// numbers, and structures with gaps.
///
/// The text says what the elements are, in words that the programs agree on. Numpy's are its
/// `dtype.str`, or the list of fields in its `dtype.descr`: `npy` files are saved with them. Two
/// types are equal if text, size and alignment are. Arrays of such a type can be named, found,
/// leased as bytes ([`read_untyped`](crate::HandleTable::read_untyped)), sent and saved. A typed
/// handle refuses them.
///
/// ```
/// use ndshm::{HandleTable, Segment};
/// use ndshm::element::{DType, OpaqueType, Order};
/// use ndarray::Ix1;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let half = DType::from(OpaqueType::new("<f2", 2, 2)?);
/// let x = table.from_bytes(&half, &[2], Order::C, &[0x00, 0x3c, 0x00, 0x40])?; // 1.0 and 2.0
/// table.publish("halves", x)?;
///
/// let found = table.info(table.find_any("halves")?)?;
/// assert_eq!(found.dtype.to_string(), r#"opaque "<f2" of 2 bytes aligned to 2"#);
/// assert!(x.downcast::<u16, Ix1>(&table).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OpaqueType {
    text: Box<str>,
    size: usize,
    align: usize,
}

impl OpaqueType {
    /// Creates the type of elements of `size` bytes that `text` describes.
    ///
    /// `align` is a power of two up to 64 that divides the size. Structures of numpy have 1, unless
    /// they were made with `align=True`.
    ///
    /// ```
    /// use ndshm::element::OpaqueType;
    ///
    /// let date = OpaqueType::new("<M8[ns]", 8, 8)?;
    /// assert_eq!((date.text(), date.size(), date.align()), ("<M8[ns]", 8, 8));
    /// # Ok::<(), ndshm::error::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// [`LayoutError`], with the limits. [`LayoutError::Known`] if the text is that of numpy for a
    /// [`ScalarType`]: a program in Rust would not find such an array.
    pub fn new(text: &str, size: usize, align: usize) -> Result<OpaqueType, LayoutError> {
        if text.is_empty() || text.len() > MAX_OPAQUE || text.contains('\0') {
            return Err(LayoutError::OpaqueText {
                bytes: text.len(),
                limit: MAX_OPAQUE,
            });
        }
        if size == 0 || size > isize::MAX as usize {
            return Err(LayoutError::OpaqueSize { bytes: size });
        }
        if !align.is_power_of_two() || align > MAX_ALIGN || !size.is_multiple_of(align) {
            return Err(LayoutError::OpaqueAlign {
                size,
                align,
                limit: MAX_ALIGN,
            });
        }
        if let Some(scalar) = known(text) {
            return Err(LayoutError::Known {
                text: text.to_owned(),
                scalar,
            });
        }
        Ok(OpaqueType {
            text: text.into(),
            size,
            align,
        })
    }

    /// Returns the text that says what the elements are.
    ///
    /// [`new`](OpaqueType::new) has an example.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the size of one element in bytes.
    ///
    /// [`new`](OpaqueType::new) has an example.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns the alignment of an element.
    ///
    /// [`new`](OpaqueType::new) has an example.
    pub fn align(&self) -> usize {
        self.align
    }

    /// Parses a stored text. Total: returns `None` for any text that [`OpaqueType::to_text`] does
    /// not produce.
    pub(crate) fn parse(stored: &str) -> Option<OpaqueType> {
        let (size, rest) = stored.strip_prefix(TAG)?.split_once(',')?;
        let (align, text) = rest.split_once(',')?;
        let opaque = OpaqueType::new(text, size.parse().ok()?, align.parse().ok()?).ok()?;
        // This comparison refuses `+8`, `08` and any other longer spelling.
        (opaque.to_text() == stored).then_some(opaque)
    }

    /// Returns the text that the segment stores.
    pub(crate) fn to_text(&self) -> String {
        format!("{TAG}{},{},{}", self.size, self.align, self.text)
    }
}

/// Returns the scalar for which numpy writes this text, in the byte order of this machine.
fn known(text: &str) -> Option<ScalarType> {
    use ScalarType::*;
    let name = text.strip_prefix(['<', '=', '|']).unwrap_or(text);
    Some(match name {
        "u1" => U8,
        "i1" => I8,
        "u2" => U16,
        "i2" => I16,
        "u4" => U32,
        "i4" => I32,
        "u8" => U64,
        "i8" => I64,
        "f4" => F32,
        "f8" => F64,
        "c8" => Complex32,
        "c16" => Complex64,
        "b1" => Bool,
        _ => return None,
    })
}

impl From<OpaqueType> for DType {
    fn from(opaque: OpaqueType) -> DType {
        DType::Opaque(Arc::new(opaque))
    }
}

impl fmt::Display for OpaqueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpaqueType { text, size, align } = self;
        let bytes = if *size == 1 { "byte" } else { "bytes" };
        write!(f, "opaque {text:?} of {size} {bytes}")?;
        match align {
            1 => Ok(()),
            _ => write!(f, " aligned to {align}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::RecordLayout;
    use proptest::prelude::*;

    #[test]
    fn types_beyond_the_limits_are_refused_with_numbers() {
        let refused = |text: &str, size, align| {
            let error = OpaqueType::new(text, size, align).unwrap_err();
            error.to_string()
        };
        assert!(refused("", 2, 2).contains("0 bytes is invalid: it has 1 to 2008"));
        let long = "x".repeat(MAX_OPAQUE);
        assert!(OpaqueType::new(&long, isize::MAX as usize, 1).is_ok());
        assert!(refused(&(long + "x"), 2, 2).contains("2009 bytes is invalid"));
        assert!(refused("a\0b", 2, 2).contains("no NUL"));
        assert!(refused("<f2", 0, 1).contains("0 bytes: it has 1 to 9223372036854775807"));
        assert!(refused("<f2", usize::MAX, 1).contains("18446744073709551615 bytes"));
        for (size, align) in [(2, 0), (6, 4), (96, 3), (128, 128)] {
            let text = refused("x", size, align);
            let expected = format!("{size} bytes cannot have the alignment {align}");
            assert!(text.contains(&expected), "{text}");
            assert!(text.contains("at most 64"), "{text}");
        }
    }

    #[test]
    fn a_type_that_rust_has_does_not_become_opaque() {
        for (text, scalar) in [
            ("<f8", ScalarType::F64),
            ("|b1", ScalarType::Bool),
            ("|u1", ScalarType::U8),
            ("=c16", ScalarType::Complex64),
            ("i4", ScalarType::I32),
        ] {
            let error = OpaqueType::new(text, scalar.size(), 1).unwrap_err();
            let text = text.to_owned();
            assert_eq!(error, LayoutError::Known { text, scalar });
        }
        for text in [">f8", "<f2", "<M8[ns]", "|S8", "<f", "<<f8"] {
            assert!(OpaqueType::new(text, 8, 8).is_ok(), "{text}");
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[^\0]{1,12}", "[<>|][a-zA-Z][0-9]{1,3}", "[=,0-9;:@]{1,9}"]
    }

    proptest! {
        #[test]
        fn a_type_round_trips_as_text_and_is_no_record(
            text in texts(),
            size in prop_oneof![1usize..70, Just(isize::MAX as usize)],
            align in 0u32..7,
        ) {
            if let Ok(opaque) = OpaqueType::new(&text, size, 1 << align) {
                let stored = opaque.to_text();
                prop_assert_eq!(RecordLayout::parse(&stored), None);
                prop_assert!(stored.len() <= MAX_TEXT);
                prop_assert_eq!(OpaqueType::parse(&stored), Some(opaque));
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "=[0-9+ ]{0,3},[0-9]{0,2},.{0,6}|.{0,12}") {
            if let Some(opaque) = OpaqueType::parse(&text) {
                prop_assert_eq!(opaque.to_text(), text);
                prop_assert!(opaque.size() > 0 && opaque.size().is_multiple_of(opaque.align()));
            }
        }

        #[test]
        fn different_types_are_printed_differently(
            one in ("[a\"\\\\ ]{1,3}", 1usize..20, 0u32..3),
            two in ("[a\"\\\\ ]{1,3}", 1usize..20, 0u32..3),
        ) {
            let make = |(text, size, align): (String, usize, u32)| {
                OpaqueType::new(&text, size, 1 << align)
            };
            if let (Ok(one), Ok(two)) = (make(one), make(two)) {
                prop_assert_eq!(one == two, one.to_string() == two.to_string());
            }
        }
    }
}
