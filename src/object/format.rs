//! The bytes of an object: blocks, header, tags, and lengths of variable size.

use bytemuck::{Pod, Zeroable};

/// The element of an object's array. The name of its field prevents typed handles of other arrays
/// from opening an object, and object handles from opening other arrays.
#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "bytemuck")]
#[repr(C, align(64))]
pub(crate) struct Block {
    pub(crate) ndshm_object: [u8; BLOCK],
}

crate::record!(Block {
    ndshm_object: [u8; 64]
});

/// Buffers start at multiples of this, like arrays.
pub(crate) const BLOCK: usize = 64;

/// The first block: magic 8 bytes | format version u32 | 4 zeros | length of the skeleton u64.
pub(crate) const MAGIC: [u8; 8] = *b"ndshmobj";
pub(crate) const VERSION: u32 = 1;

/// Maximal nesting of values, for writer and reader: an ordinary stack is large enough for it.
pub(crate) const MAX_DEPTH: usize = 128;

/// Byte strings of at least this length are stored among the buffers.
pub(crate) const LARGE: usize = 4096;

/// The name of the newtype by which a [`Tensor`](super::Tensor) detects the serializer of objects.
pub(crate) const TENSOR: &str = "ndshm::Tensor";
/// The name of the newtype whose bytes become a buffer.
pub(crate) const BUFFER: &str = "ndshm::Tensor::bytes";

/// The byte before a value. Part of the format: the numbers must not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Tag {
    /// Closes a sequence or a map.
    End = 0,
    Unit = 1,
    False = 2,
    True = 3,
    None = 4,
    /// A value follows.
    Some = 5,
    /// Four bytes.
    Char = 6,
    /// Length, then text.
    Str = 7,
    /// Length, then bytes.
    Bytes = 8,
    /// Length; the bytes are the next buffer.
    Buffer = 9,
    /// Values up to `End`.
    Seq = 10,
    /// Keys and values up to `End`.
    Map = 11,
    /// The first occurrence of a name: length, then text.
    NewName = 12,
    /// A later occurrence of a name: its number.
    Name = 13,
    /// A name follows.
    UnitVariant = 14,
    /// A name follows, then a value.
    Variant = 15,
    /// In a sequence: the tag of a number, a count of four bytes, then that many numbers without
    /// tags.
    Run = 16,
    U8 = 32,
    I8 = 33,
    U16 = 34,
    I16 = 35,
    U32 = 36,
    I32 = 37,
    U64 = 38,
    I64 = 39,
    U128 = 40,
    I128 = 41,
    F32 = 42,
    F64 = 43,
}

impl Tag {
    /// Returns the tag of a byte, or `None` if the byte is not a tag.
    pub(crate) const fn of(byte: u8) -> Option<Tag> {
        Some(match byte {
            0 => Tag::End,
            1 => Tag::Unit,
            2 => Tag::False,
            3 => Tag::True,
            4 => Tag::None,
            5 => Tag::Some,
            6 => Tag::Char,
            7 => Tag::Str,
            8 => Tag::Bytes,
            9 => Tag::Buffer,
            10 => Tag::Seq,
            11 => Tag::Map,
            12 => Tag::NewName,
            13 => Tag::Name,
            14 => Tag::UnitVariant,
            15 => Tag::Variant,
            16 => Tag::Run,
            32 => Tag::U8,
            33 => Tag::I8,
            34 => Tag::U16,
            35 => Tag::I16,
            36 => Tag::U32,
            37 => Tag::I32,
            38 => Tag::U64,
            39 => Tag::I64,
            40 => Tag::U128,
            41 => Tag::I128,
            42 => Tag::F32,
            43 => Tag::F64,
            _ => return None,
        })
    }

    /// Returns the size of the number that follows, or `None` if the tag is not that of a number.
    pub(crate) const fn size(self) -> Option<usize> {
        Some(match self {
            Tag::U8 | Tag::I8 => 1,
            Tag::U16 | Tag::I16 => 2,
            Tag::U32 | Tag::I32 | Tag::F32 => 4,
            Tag::U64 | Tag::I64 | Tag::F64 => 8,
            Tag::U128 | Tag::I128 => 16,
            _ => return None,
        })
    }

    /// Returns the description of a value with this tag, for errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Tag::End => "the end of a sequence or map",
            Tag::Unit => "a unit",
            Tag::False | Tag::True => "a bool",
            Tag::None | Tag::Some => "an option",
            Tag::Char => "a char",
            Tag::Str => "a string",
            Tag::Bytes | Tag::Buffer => "bytes",
            Tag::Seq => "a sequence",
            Tag::Map => "a map or struct",
            Tag::NewName | Tag::Name => "a field's name",
            Tag::UnitVariant | Tag::Variant => "a variant of an enum",
            Tag::Run => "numbers of a sequence",
            Tag::U8 => "a u8",
            Tag::I8 => "an i8",
            Tag::U16 => "a u16",
            Tag::I16 => "an i16",
            Tag::U32 => "a u32",
            Tag::I32 => "an i32",
            Tag::U64 => "a u64",
            Tag::I64 => "an i64",
            Tag::U128 => "a u128",
            Tag::I128 => "an i128",
            Tag::F32 => "an f32",
            Tag::F64 => "an f64",
        }
    }
}

/// Returns the start of the next block, or `None` if it overflows.
pub(crate) fn next_block(at: usize) -> Option<usize> {
    at.checked_next_multiple_of(BLOCK)
}

/// Encodes a length, seven bits per byte, the lowest first. The eighth bit is set if more bytes
/// follow.
pub(crate) fn encode_length(mut length: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut count = 0;
    loop {
        let more = length > 0x7f;
        bytes[count] = (length & 0x7f) as u8 | u8::from(more) << 7;
        count += 1;
        length >>= 7;
        if !more {
            return (bytes, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_round_trips_and_other_bytes_are_not_tags() {
        let tags = (0..=u8::MAX)
            .filter_map(|byte| Tag::of(byte).map(|tag| (byte, tag)))
            .inspect(|&(byte, tag)| assert_eq!(tag as u8, byte, "{tag:?}"));
        assert_eq!(tags.count(), 29);
    }

    #[test]
    fn golden_lengths() {
        let encoded = |length| {
            let (bytes, count) = encode_length(length);
            bytes[..count].to_vec()
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [127]);
        assert_eq!(encoded(128), [0x80, 1]);
        assert_eq!(encoded(300), [0xac, 2]);
        assert_eq!(encoded(u64::MAX).len(), 10);
    }
}
