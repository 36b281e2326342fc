//! Record layouts that are built at run time, without a struct.

use super::schema::MAX_TEXT;
use super::text::{RecordField, RecordLayout};
use super::{MAX_ALIGN, ScalarType};

/// Error of building a record layout or an opaque type, or of entering it in a segment.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The name of a field is empty.
    #[error("field {at} has no name: give it a name of at least one character")]
    Name {
        /// The index of the field, from 0.
        at: usize,
    },
    /// Two fields have the same name.
    #[error("two fields are called {name:?}: rename one of them")]
    Twice {
        /// The name.
        name: String,
    },
    /// A field is a bool. Not every byte is a bool, but a record may hold any bytes.
    #[error("field {name:?} is a bool, which a record cannot hold: use u8")]
    Bool {
        /// The field.
        name: String,
    },
    /// The fields have 0 bytes, or more than memory has.
    #[error(
        "the fields take {} bytes: a record has at least 1, and at most {}",
        .bytes.map_or("2^64 or more".to_owned(), |bytes| bytes.to_string()),
        isize::MAX
    )]
    Size {
        /// Bytes of all fields; `None` if the sum overflows.
        bytes: Option<usize>,
    },
    /// The text of the layout is too long for an entry.
    #[error(
        "the record's layout takes {bytes} bytes as text, a segment keeps at most {limit}: \
         use fewer fields or shorter names"
    )]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes that an entry holds.
        limit: usize,
    },
    /// The segment's table of layouts is full.
    #[error(
        "the segment already has {limit} record layouts and opaque types, and they are never \
         removed: use a new segment, or fewer kinds of elements in this one"
    )]
    TooMany {
        /// Layouts that a segment can have.
        limit: usize,
    },
    /// The text of an opaque type is empty, too long, or has a NUL.
    #[error(
        "an opaque type's text of {bytes} bytes is invalid: it has 1 to {limit} bytes and no NUL, \
         such as numpy's dtype.str"
    )]
    OpaqueText {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes of the longest text.
        limit: usize,
    },
    /// An opaque type has elements of 0 bytes, or of more than memory has.
    #[error("an opaque element of {bytes} bytes: it has 1 to {} bytes", isize::MAX)]
    OpaqueSize {
        /// Bytes asked for.
        bytes: usize,
    },
    /// An opaque type's alignment is none of its size.
    #[error(
        "opaque elements of {size} bytes cannot have the alignment {align}: it is a power of two, \
         at most {limit}, that divides the size; 1 always does"
    )]
    OpaqueAlign {
        /// Bytes of an element.
        size: usize,
        /// The alignment asked for.
        align: usize,
        /// The largest alignment.
        limit: usize,
    },
    /// The text of an opaque type names a type that Rust has.
    #[error(
        "{text:?} is numpy's name of {scalar}, which is not opaque: use \
         DType::from(ScalarType::{scalar:?})"
    )]
    Known {
        /// The text.
        text: String,
        /// The type that it names.
        scalar: ScalarType,
    },
}

impl RecordLayout {
    /// Creates the layout of a record from its fields: name, number type and count of each. The
    /// fields are placed in this order without gaps. A name may contain any characters; field names
    /// of a struct of [`record!`](crate::record) are identifiers.
    ///
    /// The alignment is that of `#[repr(C)]` if such a struct has the same offsets, and otherwise
    /// 1, as of `#[repr(C, packed)]`. It is a part of the layout: a typed handle requires the same
    /// alignment.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::element::{DType, Order, RecordLayout, ScalarType};
    ///
    /// let fields = [("id", ScalarType::U64, 1), ("at", ScalarType::F64, 3)];
    /// let layout = RecordLayout::from_fields(fields)?;
    /// assert_eq!((layout.size(), layout.align()), (32, 8));
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros_untyped(&DType::Record(layout.into()), &[100], Order::C)?;
    /// assert_eq!(table.info(x)?.bytes, 3200);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LayoutError`], with the field.
    pub fn from_fields<N: Into<String>>(
        fields: impl IntoIterator<Item = (N, ScalarType, usize)>,
    ) -> Result<RecordLayout, LayoutError> {
        let mut made: Vec<RecordField> = Vec::new();
        let mut end = 0usize;
        for (name, dtype, count) in fields {
            let name = name.into();
            if name.is_empty() {
                return Err(LayoutError::Name { at: made.len() });
            }
            if made.iter().any(|field| *field.name == *name) {
                return Err(LayoutError::Twice { name });
            }
            if dtype == ScalarType::Bool {
                return Err(LayoutError::Bool { name });
            }
            made.push(RecordField {
                name: name.into(),
                dtype,
                offset: end,
                count,
            });
            end = count
                .checked_mul(dtype.size())
                .and_then(|bytes| bytes.checked_add(end))
                .filter(|&end| end <= isize::MAX as usize)
                .ok_or(LayoutError::Size { bytes: None })?;
        }
        if end == 0 {
            return Err(LayoutError::Size { bytes: Some(0) });
        }
        let natural = made.iter().map(|field| field.dtype.align()).max();
        let natural = natural.filter(|&align| {
            end.is_multiple_of(align)
                && align <= MAX_ALIGN
                && made
                    .iter()
                    .all(|field| field.offset % field.dtype.align() == 0)
        });
        let layout = RecordLayout::new(made, end, natural.unwrap_or(1));
        match layout.overlong() {
            None => Ok(layout),
            Some(error) => Err(error),
        }
    }

    /// Returns an error if the layout's text is too long for a segment.
    fn overlong(&self) -> Option<LayoutError> {
        let text = self.text();
        text.is_cut().then_some(LayoutError::TooLong {
            bytes: text.wanted(),
            limit: MAX_TEXT,
        })
    }
}

crate::message::debug_is_display!(LayoutError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_alignment_is_that_of_a_c_struct_where_it_fits() {
        let layout = |fields: &[(&str, ScalarType, usize)]| {
            let layout = RecordLayout::from_fields(fields.iter().copied()).unwrap();
            (layout.size(), layout.align())
        };
        use ScalarType::*;
        assert_eq!(layout(&[("a", U32, 2), ("b", F64, 1)]), (16, 8));
        assert_eq!(layout(&[("a", U32, 1), ("b", F64, 1)]), (12, 1));
        assert_eq!(layout(&[("a", F64, 1), ("b", U32, 1)]), (12, 1));
        assert_eq!(layout(&[("a", U128, 1), ("b", U64, 2)]), (32, 16));
        assert_eq!(layout(&[("größe", Complex64, 1)]), (16, 8));
    }

    #[test]
    fn invalid_fields_are_refused_by_name() {
        let refused = |fields: &[(&str, ScalarType, usize)]| {
            RecordLayout::from_fields(fields.iter().copied())
                .unwrap_err()
                .to_string()
        };
        use ScalarType::*;
        assert!(refused(&[("a", U8, 1), ("", U8, 1)]).starts_with("field 1 has no name"));
        assert!(refused(&[("a", U8, 1), ("a", I8, 1)]).starts_with("two fields are called \"a\""));
        assert!(refused(&[("a", Bool, 1)]).starts_with("field \"a\" is a bool"));
        assert!(refused(&[]).starts_with("the fields take 0 bytes"));
        assert!(refused(&[("a", U64, 0)]).starts_with("the fields take 0 bytes"));
        assert!(refused(&[("a", U64, usize::MAX)]).starts_with("the fields take 2^64 or more"));
        let name = "x".repeat(3000);
        assert!(
            refused(&[(&name, U8, 1)])
                .contains("takes 3020 bytes as text, a segment keeps at most 2032")
        );
    }

    proptest! {
        #[test]
        fn a_layout_made_of_fields_round_trips_as_text(
            fields in prop::collection::vec(
                (".{0,4}|[a-zé_0-9]{1,4}|[:;@*=%.]{1,4}", prop::sample::select(ScalarType::ALL), 0usize..5),
                0..12,
            ),
        ) {
            if let Ok(layout) = RecordLayout::from_fields(fields) {
                prop_assert_eq!(RecordLayout::parse(&layout.to_text()), Some(layout));
            }
        }
    }
}
