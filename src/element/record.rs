//! Structs as elements: their fields, and the compile-time checks of them.

use core::fmt;

use super::text::{RecordField, RecordLayout, Text, is_identifier};
use super::{Element, Kind, ScalarType, assert_layout};

/// A field of a [`Record`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// The type of its numbers.
    pub dtype: ScalarType,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Number of numbers: 1, or the length of an array (for nested arrays, the total).
    pub count: usize,
}

impl Field {
    /// Creates the field `name` of type `T` at `offset`; used by [`record!`](crate::record).
    pub const fn new<T: FieldType>(name: &'static str, offset: usize) -> Field {
        // Strip `r#`: in other languages a raw identifier is the same field as the plain one.
        let name = match name.as_bytes() {
            [b'r', b'#', ..] => name.split_at(2).1,
            _ => name,
        };
        Field {
            name,
            dtype: T::SCALAR,
            offset,
            count: T::COUNT,
        }
    }
}

/// A type that a field of a [`Record`] may have: a scalar, or an array of scalars.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a record in shared memory",
    note = "fields are numbers and arrays of numbers of a fixed size"
)]
pub trait FieldType {
    /// The type of its numbers.
    const SCALAR: ScalarType;
    /// Number of numbers.
    const COUNT: usize;
}

impl<T: FieldType, const N: usize> FieldType for [T; N] {
    const SCALAR: ScalarType = T::SCALAR;
    const COUNT: usize = T::COUNT * N;
}

/// A struct that arrays in shared memory may hold. Implement it with [`record!`](crate::record).
///
/// The compiler checks that the fields follow each other without a gap, as they do in a
/// [`bytemuck::Pod`] struct, that the size is not 0 and that the alignment is at most 64.
pub trait Record: bytemuck::Pod + Send + Sync {
    /// All fields, in memory order.
    const FIELDS: &'static [Field];
}

// SAFETY: `Pod` guarantees that all bytes, including zeros, are a value, and that there is no
// padding, no pointer and no cell. Kinds are equal only for equal layouts. Every record accepts any
// bytes of its size, so another record of the same layout accepts the bytes of this one.
unsafe impl<R: Record> Element for R {
    const KIND: Kind = Kind::Record(&Schema::of::<R>());
}

/// Makes a struct of numbers an element type.
///
/// Around the definition of a struct, it adds `#[repr(C)]` and derives `Clone`, `Copy`,
/// [`bytemuck::Pod`] and [`bytemuck::Zeroable`]. Nothing else is needed:
///
/// ```
/// ndshm::record! {
///     /// A point with a mass.
///     #[derive(PartialEq, Debug)]
///     pub struct Particle {
///         pub pos: [f64; 3],
///         mass: f64,
///     }
/// }
///
/// let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
/// let all = table.zeros::<Particle, _>(100)?;             // an array of them
/// let first = table.read(all)?[0];                        // they are plain data
/// assert_eq!(first, Particle { pos: [0.0; 3], mass: 0.0 });
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// A struct with a gap between its fields does not compile:
///
/// ```compile_fail
/// ndshm::record! { struct Gap { small: u8, large: u64 } }
/// ```
///
/// A struct that is defined elsewhere is `#[repr(C)]` and derives [`bytemuck::Pod`] and
/// [`bytemuck::Zeroable`] itself. List all its fields with their types, in the order of the struct;
/// a list that differs from the struct does not compile.
///
/// ```
/// use ndshm::Element;
/// use ndshm::bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[bytemuck(crate = "ndshm::bytemuck")]
/// #[repr(C)]
/// struct Particle {
///     x: f64,
///     pos: [f64; 3],
/// }
///
/// ndshm::record!(Particle { x: f64, pos: [f64; 3] });
///
/// assert_eq!(Particle::dtype().to_string(), "{x: f64 @0, pos: [f64; 3] @8} of 32 bytes");
/// ```
///
/// A missing field is a compile-time error, and so is a wrong type:
///
/// ```compile_fail
/// # use ndshm::bytemuck::{Pod, Zeroable};
/// # #[derive(Clone, Copy, Pod, Zeroable)]
/// # #[bytemuck(crate = "ndshm::bytemuck")]
/// # #[repr(C)]
/// # struct Particle { x: f64, pos: [f64; 3] }
/// ndshm::record!(Particle { x: f64 });
/// ```
///
/// ```compile_fail
/// # use ndshm::bytemuck::{Pod, Zeroable};
/// # #[derive(Clone, Copy, Pod, Zeroable)]
/// # #[bytemuck(crate = "ndshm::bytemuck")]
/// # #[repr(C)]
/// # struct Particle { x: f64, pos: [f64; 3] }
/// ndshm::record!(Particle { x: i64, pos: [f64; 3] });
/// ```
///
/// So are a wrong order, an alignment above 64, and a struct without bytes:
///
/// ```compile_fail
/// # use ndshm::bytemuck::{Pod, Zeroable};
/// # #[derive(Clone, Copy, Pod, Zeroable)]
/// # #[bytemuck(crate = "ndshm::bytemuck")]
/// # #[repr(C)]
/// # struct Particle { x: f64, pos: [f64; 3] }
/// ndshm::record!(Particle { pos: [f64; 3], x: f64 });
/// ```
///
/// ```compile_fail
/// # use ndshm::bytemuck::{Pod, Zeroable};
/// # #[derive(Clone, Copy, Pod, Zeroable)]
/// # #[bytemuck(crate = "ndshm::bytemuck")]
/// # #[repr(C, align(128))]
/// # struct Page { bytes: [u8; 128] }
/// ndshm::record!(Page { bytes: [u8; 128] });
/// ```
///
/// ```compile_fail
/// # use ndshm::bytemuck::{Pod, Zeroable};
/// # #[derive(Clone, Copy, Pod, Zeroable)]
/// # #[bytemuck(crate = "ndshm::bytemuck")]
/// # #[repr(C)]
/// # struct Nothing { none: [u8; 0] }
/// ndshm::record!(Nothing { none: [u8; 0] });
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $record:ident {
            $($(#[$of_field:meta])* $vis_of_field:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        #[derive(
            ::core::clone::Clone,
            ::core::marker::Copy,
            $crate::bytemuck::Pod,
            $crate::bytemuck::Zeroable
        )]
        #[bytemuck(crate = "ndshm::bytemuck")]
        #[repr(C)]
        $(#[$attribute])*
        $vis struct $record {
            $($(#[$of_field])* $vis_of_field $field: $type),+
        }

        $crate::record!($record { $($field: $type),+ });
    };
    ($record:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        impl $crate::element::Record for $record {
            const FIELDS: &'static [$crate::element::Field] = &[
                $($crate::element::Field::new::<$type>(
                    ::core::stringify!($field),
                    ::core::mem::offset_of!($record, $field),
                ),)+
            ];
        }

        const _: () = {
            // The pattern must name all fields. It takes the record by value because fields of a
            // packed struct cannot be borrowed.
            #[allow(dead_code)]
            fn fields_have_these_types(record: $record) {
                let $record { $($field),+ } = record;
                $(let _: $type = $field;)+
            }
            // Evaluate the layout checks here, not at the first use.
            let _ = <$record as $crate::Element>::KIND;
        };
    };
}

/// A record's layout, checked by the compiler, and the text that represents it in a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    fields: &'static [Field],
    size: usize,
    align: usize,
    text: Text,
}

impl Schema {
    const fn of<R: Record>() -> Schema {
        assert_layout::<R>();
        let fields = R::FIELDS;
        let mut text = Text::EMPTY;
        let mut end = 0;
        let mut at = 0;
        while at < fields.len() {
            let Field {
                name,
                dtype,
                offset,
                count,
            } = fields[at];
            assert!(
                is_identifier(name.as_bytes()),
                "a field's name must consist of letters, digits and underscores"
            );
            assert!(
                offset == end,
                "the fields of a record must be listed in the order of the struct, without a gap"
            );
            end = offset + count * dtype.size();
            text.field(name, dtype, offset, count);
            at += 1;
        }
        assert!(
            end == size_of::<R>(),
            "the fields of a record must make up the whole struct"
        );
        text.end(size_of::<R>(), align_of::<R>());
        assert!(
            !text.is_cut(),
            "a record's layout must fit in 2032 bytes of text: use fewer fields or shorter names"
        );
        Schema {
            fields,
            size: size_of::<R>(),
            align: align_of::<R>(),
            text,
        }
    }

    /// Returns the layout in the form that segments store: `x:f64@0;pos:3*f64@8;size=32;align=8`.
    ///
    /// ```
    /// use ndshm::bytemuck::{Pod, Zeroable};
    /// use ndshm::element::{Element, Kind};
    ///
    /// #[derive(Clone, Copy, Pod, Zeroable)]
    /// # #[bytemuck(crate = "ndshm::bytemuck")]
    /// #[repr(C)]
    /// struct Particle {
    ///     x: f64,
    ///     pos: [f64; 3],
    /// }
    /// ndshm::record!(Particle { x: f64, pos: [f64; 3] });
    ///
    /// let Kind::Record(schema) = Particle::KIND else { unreachable!() };
    /// assert_eq!(schema.text(), "x:f64@0;pos:3*f64@8;size=32;align=8");
    /// assert_eq!(&*schema.layout().fields()[1].name, "pos");
    /// ```
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// Returns the layout as a value, for inspection of its fields.
    ///
    /// [`text`](Schema::text) has an example.
    pub fn layout(&self) -> RecordLayout {
        let fields = self.fields.iter().map(|field| RecordField {
            name: field.name.into(),
            dtype: field.dtype,
            offset: field.offset,
            count: field.count,
        });
        RecordLayout::new(fields.collect(), self.size, self.align)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::{Pod, Zeroable};

    #[derive(Clone, Copy, Pod, Zeroable)]
    #[repr(C)]
    struct Particle {
        x: f64,
        pos: [f64; 3],
    }
    record!(Particle {
        x: f64,
        pos: [f64; 3]
    });

    #[derive(Clone, Copy, Pod, Zeroable)]
    #[repr(C, packed)]
    struct Packed {
        r#type: u8,
        grid: [[i16; 2]; 3],
        größe: u128,
    }
    record!(Packed {
        r#type: u8,
        grid: [[i16; 2]; 3],
        größe: u128
    });

    fn schema<T: Element>() -> &'static Schema {
        match T::KIND {
            Kind::Record(schema) => schema,
            Kind::Scalar(scalar) => panic!("expected a record, found {scalar}"),
        }
    }

    #[test]
    fn golden_text() {
        let text = schema::<Particle>().text();
        assert_eq!(text, "x:f64@0;pos:3*f64@8;size=32;align=8");
        let text = schema::<Packed>().text();
        assert_eq!(text, "type:u8@0;grid:6*i16@1;größe:u128@13;size=29;align=1");
    }

    #[test]
    fn the_text_parses_to_the_layout() {
        for schema in [schema::<Particle>(), schema::<Packed>()] {
            assert_eq!(RecordLayout::parse(schema.text()), Some(schema.layout()));
        }
        assert_eq!(
            Packed::dtype().to_string(),
            "{type: u8 @0, grid: [i16; 6] @1, größe: u128 @13} of 29 bytes aligned to 1"
        );
        assert_eq!(Particle::dtype().size(), size_of::<Particle>());
        assert_eq!(Packed::dtype().align(), 1);
    }
}
