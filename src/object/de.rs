//! The deserializer: serde's view of a [`Reader`].

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Unexpected, Visitor};

use super::format::Tag;
use super::read::Reader;
use crate::object::error::ObjectError;

type Result<T> = core::result::Result<T, ObjectError>;

impl<'de> Reader<'de> {
    /// Reads the next value, of any type.
    fn next_value<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let tag = self.tag()?;
        self.value(tag, visitor)
    }

    /// Reads the value of a tag that was read.
    fn value<V: Visitor<'de>>(&mut self, tag: Tag, visitor: V) -> Result<V::Value> {
        macro_rules! number {
            ($visit:ident, $type:ty) => {
                visitor.$visit(<$type>::from_le_bytes(self.array()?))
            };
        }
        match tag {
            Tag::Unit => visitor.visit_unit(),
            Tag::False => visitor.visit_bool(false),
            Tag::True => visitor.visit_bool(true),
            Tag::None => visitor.visit_none(),
            Tag::Some => self.nested(|reader| visitor.visit_some(reader)),
            Tag::Char => {
                let code = u32::from_le_bytes(self.array()?);
                let char = char::from_u32(code);
                visitor.visit_char(char.ok_or_else(|| self.corrupt("a number that is not a char"))?)
            }
            Tag::Str => visitor.visit_borrowed_str(self.text()?),
            Tag::Bytes => visitor.visit_borrowed_bytes(self.bytes()?),
            Tag::Buffer => visitor.visit_borrowed_bytes(self.buffer()?),
            Tag::Seq => self.items(|items| visitor.visit_seq(items), Reader::has_element),
            Tag::Map => self.items(|items| visitor.visit_map(items), Reader::has_entry),
            Tag::NewName | Tag::Name => visitor.visit_borrowed_str(self.name_of(tag)?),
            Tag::UnitVariant => visitor.visit_borrowed_str(self.name()?),
            Tag::Variant => self.nested(|reader| {
                let name = Some(reader.name()?);
                let mut read = false;
                let value = visitor.visit_map(OneEntry {
                    reader,
                    name,
                    read: &mut read,
                })?;
                match read {
                    true => Ok(value),
                    false => Err(de::Error::custom("the value of a variant was not read")),
                }
            }),
            Tag::U8 => number!(visit_u8, u8),
            Tag::I8 => number!(visit_i8, i8),
            Tag::U16 => number!(visit_u16, u16),
            Tag::I16 => number!(visit_i16, i16),
            Tag::U32 => number!(visit_u32, u32),
            Tag::I32 => number!(visit_i32, i32),
            Tag::U64 => number!(visit_u64, u64),
            Tag::I64 => number!(visit_i64, i64),
            Tag::U128 => number!(visit_u128, u128),
            Tag::I128 => number!(visit_i128, i128),
            Tag::F32 => number!(visit_f32, f32),
            Tag::F64 => number!(visit_f64, f64),
            Tag::End => Err(self.corrupt("an end where a value belongs")),
            Tag::Run => Err(self.corrupt("numbers without tags outside of a sequence")),
        }
    }

    /// Reads a sequence or a map, and checks that the visitor has read all of it.
    fn items<R>(
        &mut self,
        read: impl FnOnce(Items<'_, 'de>) -> Result<R>,
        goes_on: impl FnOnce(&mut Self) -> Result<bool>,
    ) -> Result<R> {
        self.nested(|reader| {
            let mut ended = false;
            let value = read(Items {
                reader,
                ended: &mut ended,
            })?;
            match ended || !goes_on(reader)? {
                true => Ok(value),
                false => Err(de::Error::custom(
                    "there are more elements than the type can hold",
                )),
            }
        })
    }

    /// Creates the error of a value that is not of the type that the visitor expects.
    fn unexpected<V: Visitor<'de>>(&self, tag: Tag, visitor: &V) -> ObjectError {
        de::Error::invalid_type(Unexpected::Other(tag.name()), visitor)
    }

    /// Reads a value that has one of `tags`.
    fn expect_tag<V: Visitor<'de>>(&mut self, tags: &[Tag], visitor: V) -> Result<V::Value> {
        let tag = self.tag()?;
        match tags.contains(&tag) {
            true => self.value(tag, visitor),
            false => Err(self.unexpected(tag, &visitor)),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = ObjectError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        // serde's buffered values (of flattened and untagged types) cannot hold 128-bit integers:
        // pass them as 64-bit ones where they fit.
        match self.peek()? {
            Tag::U128 => {
                self.tag()?;
                let number = u128::from_le_bytes(self.array()?);
                match u64::try_from(number) {
                    Ok(number) => visitor.visit_u64(number),
                    Err(_) => visitor.visit_u128(number),
                }
            }
            Tag::I128 => {
                self.tag()?;
                let number = i128::from_le_bytes(self.array()?);
                match i64::try_from(number) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => visitor.visit_i128(number),
                }
            }
            _ => self.next_value(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.expect_tag(&[Tag::F32], visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.expect_tag(&[Tag::F64, Tag::F32], visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.expect_tag(&[Tag::Str, Tag::NewName, Tag::Name], visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let tag = self.tag()?;
        if tag != Tag::Seq {
            return match tag {
                Tag::Bytes | Tag::Buffer => self.value(tag, visitor),
                _ => Err(self.unexpected(tag, &visitor)),
            };
        }
        // serde writes `&[u8]` as a sequence, and reads it as bytes.
        if !self.has_element()? {
            return visitor.visit_borrowed_bytes(&[]);
        }
        match self.bytes_of_sequence()? {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => Err(self.unexpected(tag, &visitor)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            Tag::None | Tag::Some | Tag::Unit => self.next_value(visitor),
            // The field has become optional since it was written.
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.expect_tag(&[Tag::Map], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.expect_tag(&[Tag::Map], visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.tag()? {
            Tag::UnitVariant => {
                let name = self.name()?;
                visitor.visit_enum(UnitVariant { name })
            }
            Tag::Variant => self.nested(|reader| visitor.visit_enum(Variant { reader })),
            Tag::Str => {
                let name = self.text()?;
                visitor.visit_enum(UnitVariant { name })
            }
            tag => Err(self.unexpected(tag, &visitor)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char unit unit_struct seq tuple
        tuple_struct identifier ignored_any
    }
}

/// The elements of a sequence, or the entries of a map.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    /// The end was read.
    ended: &'r mut bool,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = ObjectError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if *self.ended || !self.reader.has_element()? {
            *self.ended = true;
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        match *self.ended {
            true => Some(0),
            false => self.reader.elements_ahead(),
        }
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = ObjectError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if *self.ended || !self.reader.has_entry()? {
            *self.ended = true;
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant without a value.
struct UnitVariant<'de> {
    name: &'de str,
}

impl<'de> de::EnumAccess<'de> for UnitVariant<'de> {
    type Error = ObjectError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let name = BorrowedStrDeserializer::<ObjectError>::new(self.name);
        Ok((seed.deserialize(name)?, self))
    }
}

impl UnitVariant<'_> {
    fn mismatch(&self, expected: &str) -> ObjectError {
        de::Error::custom(format_args!(
            "invalid type: variant {:?} without a value, expected a {expected} variant",
            self.name
        ))
    }
}

impl<'de> de::VariantAccess<'de> for UnitVariant<'de> {
    type Error = ObjectError;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value> {
        Err(self.mismatch("newtype"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value> {
        Err(self.mismatch("tuple"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value> {
        Err(self.mismatch("struct"))
    }
}

/// A variant, followed by its value.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = ObjectError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let name = BorrowedStrDeserializer::<ObjectError>::new(self.reader.name()?);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = ObjectError;

    fn unit_variant(self) -> Result<()> {
        let found = self.reader.peek()?.name();
        Err(de::Error::custom(format_args!(
            "invalid type: a variant with {found}, expected a unit variant"
        )))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.reader.expect_tag(&[Tag::Seq], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.reader.expect_tag(&[Tag::Map], visitor)
    }
}

/// A variant with a value, for a visitor that does not expect an enum: a map of one entry.
struct OneEntry<'r, 'de> {
    reader: &'r mut Reader<'de>,
    name: Option<&'de str>,
    /// The value was read.
    read: &'r mut bool,
}

impl<'de> de::MapAccess<'de> for OneEntry<'_, 'de> {
    type Error = ObjectError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(name) = self.name.take() else {
            return Ok(None);
        };
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        *self.read = true;
        seed.deserialize(&mut *self.reader)
    }
}
