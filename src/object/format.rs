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

/// The first block: magic 8 bytes | format version u32 | 4 zeros | length of the value stream u64.
pub(crate) const MAGIC: [u8; 8] = *b"ndshmobj";
pub(crate) const VERSION: u32 = 1;

/// Maximal nesting of values, for writer and reader: an ordinary stack is large enough for it.
pub(crate) const MAX_DEPTH: usize = 128;

/// Byte strings of at least this length are stored among the buffers.
pub(crate) const LARGE: usize = 4096;

/// The name of the newtype by which a [`Tensor`](super::Tensor) detects the serializer of objects.
pub(crate) const TENSOR: &str = "ndshm::object::Tensor";
/// The name of the newtype that marks bytes of a buffer.
pub(crate) const BUFFER: &str = "ndshm::object::Tensor::bytes";

macro_rules! tags {
    ($($(#[$doc:meta])* $tag:ident = $byte:literal, $name:literal;)*) => {
        /// The byte before a value. Part of the format: the numbers must not change.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(crate) enum Tag {
            $($(#[$doc])* $tag = $byte,)*
        }

        impl Tag {
            /// Returns the tag of a byte, or `None` if the byte is not a tag.
            pub(crate) const fn of(byte: u8) -> Option<Tag> {
                match byte {
                    $($byte => Some(Tag::$tag),)*
                    _ => None,
                }
            }

            /// Returns the description of a value with this tag, for errors.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Tag::$tag => $name,)*
                }
            }
        }
    };
}

tags! {
    /// Closes a sequence or a map.
    End = 0, "the end of a sequence or map";
    Unit = 1, "a unit";
    False = 2, "a bool";
    True = 3, "a bool";
    None = 4, "an option";
    /// A value follows.
    Some = 5, "an option";
    /// Four bytes.
    Char = 6, "a char";
    /// Length, then text.
    Str = 7, "a string";
    /// Length, then bytes.
    Bytes = 8, "bytes";
    /// Length; the bytes are the next buffer.
    Buffer = 9, "bytes";
    /// Values up to `End`.
    Seq = 10, "a sequence";
    /// Keys and values up to `End`.
    Map = 11, "a map or struct";
    /// The first occurrence of a name: length, then text.
    NewName = 12, "a field's name";
    /// A later occurrence of a name: its number.
    Name = 13, "a field's name";
    /// A name follows.
    UnitVariant = 14, "a variant of an enum";
    /// A name follows, then a value.
    Variant = 15, "a variant of an enum";
    /// In a sequence: the tag of a number, a count of four bytes, then that many numbers without
    /// tags.
    Run = 16, "numbers of a sequence";
    U8 = 32, "a u8";
    I8 = 33, "an i8";
    U16 = 34, "a u16";
    I16 = 35, "an i16";
    U32 = 36, "a u32";
    I32 = 37, "an i32";
    U64 = 38, "a u64";
    I64 = 39, "an i64";
    U128 = 40, "a u128";
    I128 = 41, "an i128";
    F32 = 42, "an f32";
    F64 = 43, "an f64";
}

impl Tag {
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
