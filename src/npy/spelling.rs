//! The spellings of numpy's scalar types, and the remedies for types that ndshm lacks.

use super::places::Words;
use crate::element::ScalarType;

/// A scalar type as named in a file.
pub(super) struct Scalar {
    pub(super) dtype: ScalarType,
    pub(super) big_endian: bool,
}

struct Spelling {
    dtype: ScalarType,
    /// The name in files that numpy writes, without the byte order.
    written: &'static str,
    /// Bytes of the words to which the byte order applies.
    word: usize,
    /// Type characters that numpy accepts too. Those of C types have this platform's size.
    characters: &'static [&'static str],
    /// Names that numpy accepts without a preceding byte order.
    names: &'static [&'static str],
}

const fn spelling(
    dtype: ScalarType,
    written: &'static str,
    word: usize,
    characters: &'static [&'static str],
    names: &'static [&'static str],
) -> Spelling {
    Spelling {
        dtype,
        written,
        word,
        characters,
        names,
    }
}

/// From numpy 2's `numpy.dtype`, which parses the names in files. `tests/npy` compares each with
/// it.
const SPELLINGS: [Spelling; 13] = [
    spelling(ScalarType::U8, "u1", 1, &["B"], &["uint8", "ubyte"]),
    spelling(ScalarType::I8, "i1", 1, &["b"], &["int8", "byte"]),
    spelling(ScalarType::U16, "u2", 2, &["H"], &["uint16", "ushort"]),
    spelling(ScalarType::I16, "i2", 2, &["h"], &["int16", "short"]),
    spelling(ScalarType::U32, "u4", 4, &["I"], &["uint32", "uintc"]),
    spelling(ScalarType::I32, "i4", 4, &["i"], &["int32", "intc"]),
    spelling(
        ScalarType::U64,
        "u8",
        8,
        &["L", "Q", "P", "N"],
        &["uint64", "uint", "uintp", "ulong", "ulonglong"],
    ),
    spelling(
        ScalarType::I64,
        "i8",
        8,
        &["l", "q", "p", "n"],
        &["int64", "int", "int_", "intp", "long", "longlong"],
    ),
    spelling(ScalarType::F32, "f4", 4, &["f"], &["float32", "single"]),
    spelling(
        ScalarType::F64,
        "f8",
        8,
        &["d"],
        &["float64", "float", "double"],
    ),
    spelling(
        ScalarType::Complex32,
        "c8",
        4,
        &["F"],
        &["complex64", "csingle"],
    ),
    spelling(
        ScalarType::Complex64,
        "c16",
        8,
        &["D"],
        &["complex128", "complex", "cdouble"],
    ),
    spelling(ScalarType::Bool, "b1", 1, &["?"], &["bool", "bool_"]),
];

impl Scalar {
    /// Returns the scalar type that numpy reads `text` as, or `None` if ndshm lacks it.
    pub(super) fn parse(text: &str) -> Option<Scalar> {
        let (order, name) = split_order(text);
        let spelling = SPELLINGS.iter().find(|spelling| {
            spelling.written == name
                || spelling.characters.contains(&name)
                || order.is_none() && spelling.names.contains(&name)
        })?;
        Some(Scalar {
            dtype: spelling.dtype,
            big_endian: order == Some('>') && spelling.word > 1,
        })
    }

    /// Returns the words of `count` such scalars at `offset` if their bytes must be swapped.
    pub(super) fn swapped(&self, offset: usize, count: usize) -> Option<Words> {
        let spelling = spelling_of(self.dtype)?;
        self.big_endian.then_some(Words {
            offset,
            size: spelling.word,
            count: count * self.dtype.size() / spelling.word,
        })
    }
}

/// Splits off the byte order, if the text starts with one.
pub(super) fn split_order(text: &str) -> (Option<char>, &str) {
    let order = text.chars().next().filter(|c| "<>=|".contains(*c));
    (order, &text[order.map_or(0, char::len_utf8)..])
}

fn spelling_of(scalar: ScalarType) -> Option<&'static Spelling> {
    SPELLINGS.iter().find(|spelling| spelling.dtype == scalar)
}

/// Returns the name that numpy writes for a scalar type, or `None` for 128-bit integers, which it
/// lacks.
pub(super) fn written(scalar: ScalarType) -> Option<String> {
    let spelling = spelling_of(scalar)?;
    let order = if spelling.word == 1 { '|' } else { '<' };
    Some(format!("{order}{}", spelling.written))
}

/// Returns the remedy for a type that ndshm lacks, in an array or in a field of it: a text with a
/// numpy expression between backticks whose value can be saved and loaded.
pub(super) fn remedy(text: &str, field: Option<&str>) -> String {
    let array = match field {
        Some(field) => format!("a[{}]", python_string(field)),
        None => "a".to_owned(),
    };
    let (_, name) = split_order(text);
    let (what, expression) = match name.starts_with('O') {
        true => (
            "objects are pickled, and reading them may run any code; if they are numbers, convert \
             them",
            format!("{array}.astype('f8')"),
        ),
        false => (
            "take its bytes",
            format!(
                "numpy.frombuffer({array}.tobytes(), 'u1').reshape({array}.shape + \
                 ({array}.dtype.itemsize,))"
            ),
        ),
    };
    match field {
        Some(_) => format!("save that field as an array of its own, as by `{expression}`"),
        None => format!("{what} in numpy, as by `{expression}`"),
    }
}

/// Returns a string as a Python literal.
pub(super) fn python_string(text: &str) -> String {
    let mut spelled = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => spelled.extend(['\\', c]),
            c if c.is_control() => spelled += &format!("\\U{:08x}", c as u32),
            c => spelled.push(c),
        }
    }
    spelled + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_of_one_type() {
        let mut seen = std::collections::HashSet::new();
        for spelling in &SPELLINGS {
            for name in [spelling.characters, spelling.names, &[spelling.written]].concat() {
                assert!(seen.insert(name), "{name}");
                let scalar = Scalar::parse(name).unwrap();
                assert_eq!((scalar.dtype, scalar.big_endian), (spelling.dtype, false));
            }
            for name in [spelling.characters, &[spelling.written]].concat() {
                for (order, big) in [('<', false), ('=', false), ('|', false), ('>', true)] {
                    let scalar = Scalar::parse(&format!("{order}{name}")).unwrap();
                    assert_eq!(scalar.big_endian, big && spelling.word > 1, "{order}{name}");
                }
            }
            for name in spelling.names {
                assert!(Scalar::parse(&format!("<{name}")).is_none(), "<{name}");
            }
        }
        assert_eq!(SPELLINGS.len() + 2, ScalarType::ALL.len());
        for name in [
            "", "<", "f2", "<f16", "S3", "<U1", "O", "M8[s]", "é", "float128",
        ] {
            assert!(Scalar::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn python_reads_a_spelled_string_as_it_was() {
        assert_eq!(python_string("a b"), "'a b'");
        assert_eq!(python_string("it's \\ \n é"), "'it\\'s \\\\ \\U0000000a é'");
    }
}
