//! Changes of a segment's bytes, decoded from arbitrary bytes.

/// The change of a word.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Flip(u32),
    Zeros,
    Ones,
    Set(u64),
    Add(i8),
    /// Set to the value of another word.
    Copy(u64),
    /// Exchanged with the value of another word.
    Swap(u64),
    /// All eight words of the cache line become zero.
    ZeroLine,
}

impl What {
    /// Returns the new word; `other` looks up another word. `Swap` and `ZeroLine` change further
    /// words, which the caller does.
    pub fn of(self, old: u64, other: impl FnOnce(u64) -> u64) -> u64 {
        match self {
            What::Flip(bit) => old ^ 1 << bit,
            What::Zeros => 0,
            What::Ones => u64::MAX,
            What::Set(word) => word,
            What::Add(by) => old.wrapping_add_signed(by.into()),
            What::Copy(from) | What::Swap(from) => other(from),
            What::ZeroLine => 0,
        }
    }
}

/// A change of one word.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The distance to a word that is not zero, which `place` selects; `None`: any word of the
    /// tables.
    pub near: Option<i8>,
    pub place: u64,
    pub what: What,
}

/// A case: the changes, and the calls afterwards.
#[derive(Clone, Debug)]
pub struct Changes {
    pub list: Vec<Change>,
    /// If `true`, the segment is opened anew, and observed.
    pub open_anew: bool,
    /// The calls to make: one bit each.
    pub style: u8,
    /// `None`: names are not used. `Some(true)`: they are changed, too.
    pub names: Option<bool>,
}

impl Changes {
    /// Decodes a case from any bytes: the first two select the calls, each further eleven are a
    /// change.
    pub fn of(bytes: &[u8]) -> Changes {
        let (&first, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let (&second, rest) = rest.split_first().unwrap_or((&0, &[]));
        Changes {
            list: rest.chunks_exact(11).map(change).collect(),
            // Only one case in eight opens anew: that costs more than everything else.
            open_anew: first >> 5 == 0,
            style: first & 31,
            names: (second & 1 != 0).then_some(second & 2 != 0),
        }
    }
}

fn change(bytes: &[u8]) -> Change {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let (how, place, value) = (bytes[0], number(&bytes[1..3]), number(&bytes[3..11]));
    Change {
        near: match how >> 5 {
            0 => None,
            1 => Some((value % 5) as i8 - 2),
            _ => Some(0),
        },
        place: match how >> 5 {
            0 => value,
            _ => place,
        },
        what: match how & 15 {
            0..4 => What::Flip((value % 64) as u32),
            4 => What::Zeros,
            5 => What::Ones,
            6..8 => What::Set(value),
            8..10 => What::Add(value as i8),
            // Many fields hold small numbers.
            10 => What::Set(value % 4096),
            11 => What::ZeroLine,
            12 | 13 => What::Swap(value),
            _ => What::Copy(value),
        },
    }
}
