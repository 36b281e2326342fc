//! The serializer: serde's view of a [`Writer`].

use serde::ser::{self, Serialize, Serializer};

use super::format::{BUFFER, TENSOR, Tag};
use super::tensor_ser;
use super::write::Writer;
use crate::object::error::ObjectError;

macro_rules! numbers {
    ($($method:ident: $type:ty => $tag:ident;)*) => {$(
        fn $method(self, number: $type) -> Result<(), ObjectError> {
            self.number(Tag::$tag, &number.to_le_bytes())
        }
    )*};
}

impl<'w, 'o> Serializer for &'w mut Writer<'o> {
    type Ok = ();
    type Error = ObjectError;
    type SerializeSeq = Compound<'w, 'o>;
    type SerializeTuple = Compound<'w, 'o>;
    type SerializeTupleStruct = Compound<'w, 'o>;
    type SerializeTupleVariant = Compound<'w, 'o>;
    type SerializeMap = Compound<'w, 'o>;
    type SerializeStruct = Compound<'w, 'o>;
    type SerializeStructVariant = Compound<'w, 'o>;

    numbers! {
        serialize_u8: u8 => U8;
        serialize_i8: i8 => I8;
        serialize_u16: u16 => U16;
        serialize_i16: i16 => I16;
        serialize_u32: u32 => U32;
        serialize_i32: i32 => I32;
        serialize_u64: u64 => U64;
        serialize_i64: i64 => I64;
        serialize_u128: u128 => U128;
        serialize_i128: i128 => I128;
        serialize_f32: f32 => F32;
        serialize_f64: f64 => F64;
    }

    fn is_human_readable(&self) -> bool {
        if self.expects_tensor {
            tensor_ser::note_writer();
        }
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), ObjectError> {
        self.tag(if value { Tag::True } else { Tag::False })
    }

    fn serialize_char(self, value: char) -> Result<(), ObjectError> {
        self.fixed(Tag::Char, &u32::from(value).to_le_bytes())
    }

    fn serialize_str(self, value: &str) -> Result<(), ObjectError> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), ObjectError> {
        self.bytes(value)
    }

    fn serialize_none(self) -> Result<(), ObjectError> {
        self.tag(Tag::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), ObjectError> {
        self.descend(Tag::Some)?;
        value.serialize(&mut *self)?;
        self.ascend();
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), ObjectError> {
        self.tag(Tag::Unit)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), ObjectError> {
        self.tag(Tag::Unit)
    }

    fn serialize_unit_variant(
        self,
        _enum: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), ObjectError> {
        self.tag(Tag::UnitVariant)?;
        self.name(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ObjectError> {
        match name {
            TENSOR => self.expects_tensor = true,
            BUFFER => self.to_buffer = true,
            _ => {}
        }
        value.serialize(&mut *self)?;
        self.expects_tensor = false;
        self.to_buffer = false;
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _enum: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), ObjectError> {
        self.descend(Tag::Variant)?;
        self.name(variant)?;
        value.serialize(&mut *self)?;
        self.ascend();
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Seq, None, true)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'w, 'o>, ObjectError> {
        if core::mem::take(&mut self.to_buffer) {
            self.begin_pieces(len)?;
            return Ok(Compound {
                writer: self,
                kind: Kind::Pieces,
            });
        }
        Compound::open(self, Tag::Seq, None, len >= MANY)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Seq, None, len >= MANY)
    }

    fn serialize_tuple_variant(
        self,
        _enum: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Seq, Some(variant), len >= MANY)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Map, None, false)
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Map, None, false)
    }

    fn serialize_struct_variant(
        self,
        _enum: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'w, 'o>, ObjectError> {
        Compound::open(self, Tag::Map, Some(variant), false)
    }
}

/// Tuples and arrays with at least this many elements write their numbers as runs.
const MANY: usize = 8;

/// A sequence, tuple, map or struct that is being written.
pub(crate) struct Compound<'w, 'o> {
    writer: &'w mut Writer<'o>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Values up to an end; with `runs`, numbers among them are written in runs.
    Values { runs: bool, variant: bool },
    /// Pieces of one buffer.
    Pieces,
}

impl<'w, 'o> Compound<'w, 'o> {
    fn open(
        writer: &'w mut Writer<'o>,
        tag: Tag,
        variant: Option<&'static str>,
        runs: bool,
    ) -> Result<Self, ObjectError> {
        if let Some(variant) = variant {
            writer.descend(Tag::Variant)?;
            writer.name(variant)?;
        }
        writer.descend(tag)?;
        let kind = Kind::Values {
            runs,
            variant: variant.is_some(),
        };
        Ok(Compound { writer, kind })
    }

    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ObjectError> {
        if let Kind::Values { runs: true, .. } = self.kind {
            self.writer.next_element();
        }
        value.serialize(&mut *self.writer)
    }

    fn close(self) -> Result<(), ObjectError> {
        match self.kind {
            Kind::Values { variant, .. } => {
                self.writer.tag(Tag::End)?;
                self.writer.ascend();
                if variant {
                    self.writer.ascend();
                }
                Ok(())
            }
            Kind::Pieces => self.writer.end_pieces(),
        }
    }
}

macro_rules! compounds {
    ($($trait:ident: $($method:ident($($name:ident)?)),+;)*) => {$(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = ObjectError;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), ObjectError> {
                $(self.writer.name($name)?;)?
                self.part(value)
            })+

            fn end(self) -> Result<(), ObjectError> {
                self.close()
            }
        }
    )*};
}

compounds! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(name);
    SerializeStructVariant: serialize_field(name);
}
