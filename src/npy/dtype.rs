//! Element types as numpy's files name them, and where words lie whose bytes are to be swapped.

use core::fmt;

use super::literal::Literal;
use crate::element::{DType, LayoutError, RecordLayout, ScalarType};

/// Words of equal size in each element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Words {
    /// Bytes from the element's start.
    pub(super) offset: usize,
    /// Bytes of a word: 2, 4 or 8.
    pub(super) size: usize,
    pub(super) count: usize,
}

/// The element type of a file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct FileType {
    pub(super) dtype: DType,
    /// Words that the file has in big-endian order.
    pub(super) swapped: Vec<Words>,
}

/// Why an element type of numpy is none of ndshm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// No type at all.
    Damaged(String),
    /// A type that ndshm does not have.
    Type {
        dtype: String,
        field: Option<String>,
        remedy: &'static str,
    },
    Layout(LayoutError),
}

/// A scalar's name in numpy.
struct Scalar {
    dtype: ScalarType,
    big_endian: bool,
}

/// Names in numpy's files without the order of bytes, and the sizes of the words that have one.
const SCALARS: [(ScalarType, &str, usize); 13] = [
    (ScalarType::U8, "u1", 1),
    (ScalarType::I8, "i1", 1),
    (ScalarType::U16, "u2", 2),
    (ScalarType::I16, "i2", 2),
    (ScalarType::U32, "u4", 4),
    (ScalarType::I32, "i4", 4),
    (ScalarType::U64, "u8", 8),
    (ScalarType::I64, "i8", 8),
    (ScalarType::F32, "f4", 4),
    (ScalarType::F64, "f8", 8),
    (ScalarType::Complex32, "c8", 4),
    (ScalarType::Complex64, "c16", 8),
    (ScalarType::Bool, "b1", 1),
];

impl Scalar {
    fn parse(name: &str) -> Option<Scalar> {
        let (order, name) = name.split_at_checked(1)?;
        let &(dtype, _, word) = SCALARS.iter().find(|(_, known, _)| *known == name)?;
        let big_endian = match order {
            ">" => word > 1,
            "<" | "=" => false,
            "|" if word == 1 => false,
            _ => return None,
        };
        Some(Scalar { dtype, big_endian })
    }

    /// The words of `count` of them at `offset`, if they are to be swapped.
    fn swapped(&self, offset: usize, count: usize) -> Option<Words> {
        let &(.., size) = SCALARS.iter().find(|(dtype, ..)| *dtype == self.dtype)?;
        self.big_endian.then_some(Words {
            offset,
            size,
            count: count * self.dtype.size() / size,
        })
    }
}

/// What to do with a type that is refused.
fn remedy(name: &str) -> &'static str {
    let kind = name.trim_start_matches(['<', '>', '|', '=']);
    match kind.chars().next() {
        Some('f') => "convert it in numpy, as by a.astype(numpy.float64)",
        Some('c') => "convert it in numpy, as by a.astype(numpy.complex128)",
        Some('M' | 'm') => "take its numbers in numpy, by a.view('i8')",
        Some('S' | 'U' | 'a') => "take its bytes in numpy, by a.view('u1')",
        Some('O') => {
            "objects are pickled, and reading them may run any code: convert it in numpy, as by \
             a.astype(float)"
        }
        Some('V') => "take its bytes in numpy, by a.view('u1')",
        _ => "convert it in numpy to integers, floats, complex numbers or bools",
    }
}

/// How much of a hostile name is repeated in an error.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

impl FileType {
    /// The type that a header's `descr` names.
    pub(super) fn parse(descr: &Literal) -> Result<FileType, Refused> {
        match descr {
            Literal::Text(name) => {
                let scalar = Scalar::parse(name).ok_or_else(|| Refused::Type {
                    dtype: shortened(name),
                    field: None,
                    remedy: remedy(name),
                })?;
                Ok(FileType {
                    dtype: scalar.dtype.into(),
                    swapped: scalar.swapped(0, 1).into_iter().collect(),
                })
            }
            Literal::Sequence(fields) => parse_fields(fields),
            _ => Err(damaged("'descr' is neither a string nor a list of fields")),
        }
    }
}

fn damaged(what: impl fmt::Display) -> Refused {
    Refused::Damaged(what.to_string())
}

fn parse_fields(fields: &[Literal]) -> Result<FileType, Refused> {
    let mut parsed: Vec<(String, ScalarType, usize)> = Vec::new();
    let mut swapped = Vec::new();
    let mut offset = 0usize;
    for field in fields {
        let Literal::Sequence(parts) = field else {
            return Err(damaged("a field of 'descr' is no tuple"));
        };
        let (name, dtype, shape) = match &parts[..] {
            [name, dtype] => (name, dtype, None),
            [name, dtype, shape] => (name, dtype, Some(shape)),
            _ => return Err(damaged("a field of 'descr' has not two or three parts")),
        };
        let name = match name {
            Literal::Text(name) => name,
            // A title and the name; the title is for people.
            Literal::Sequence(names) => match &names[..] {
                [_, Literal::Text(name)] => name,
                _ => return Err(damaged("a field's name is no string")),
            },
            _ => return Err(damaged("a field's name is no string")),
        };
        let dtype = match dtype {
            Literal::Text(dtype) => dtype,
            Literal::Sequence(_) => {
                return Err(Refused::Type {
                    dtype: "a structure".to_owned(),
                    field: Some(shortened(name)),
                    remedy: "fields are numbers and arrays of numbers: put the inner fields into \
                             the outer structure",
                });
            }
            _ => return Err(damaged(format_args!("field {name:?} has no type"))),
        };
        if name.is_empty() && dtype.starts_with("|V") {
            let before = parsed.last().map(|(name, ..)| name.as_str());
            return Err(Refused::Type {
                dtype: format!(
                    "padding of {} bytes after field {:?}",
                    shortened(&dtype[2..]),
                    before.unwrap_or("(none)"),
                ),
                field: None,
                remedy: "records have no padding: pack it in numpy, by \
                         numpy.lib.recfunctions.repack_fields(a)",
            });
        }
        let refused = |remedy| Refused::Type {
            dtype: shortened(dtype),
            field: Some(shortened(name)),
            remedy,
        };
        let scalar = Scalar::parse(dtype).ok_or_else(|| refused(remedy(dtype)))?;
        if scalar.dtype == ScalarType::Bool {
            return Err(refused(
                "a record's bytes may be any, and not every byte is a bool: make the field one of \
                 'u1' in numpy",
            ));
        }
        let count = match shape {
            None => 1,
            Some(shape) => parse_count(shape)
                .ok_or_else(|| damaged(format_args!("field {name:?} has no such shape")))?,
        };
        let end = count
            .checked_mul(scalar.dtype.size())
            .and_then(|bytes| bytes.checked_add(offset))
            .ok_or(Refused::Layout(LayoutError::Size { bytes: None }))?;
        swapped.extend(scalar.swapped(offset, count));
        parsed.push((name.clone(), scalar.dtype, count));
        offset = end;
    }
    let layout = RecordLayout::from_fields(parsed).map_err(Refused::Layout)?;
    Ok(FileType {
        dtype: DType::Record(layout.into()),
        swapped,
    })
}

/// How many numbers a field of that shape has.
fn parse_count(shape: &Literal) -> Option<usize> {
    let axis = |axis: &Literal| match axis {
        Literal::Number(length) => usize::try_from(*length).ok(),
        _ => None,
    };
    match shape {
        Literal::Sequence(axes) => axes
            .iter()
            .try_fold(1usize, |count, length| count.checked_mul(axis(length)?)),
        one => axis(one),
    }
}

/// A type's name in numpy's files, as a Python literal; `Err` with the part of it that numpy has
/// not: 128-bit integers.
pub(super) fn descr_of(dtype: &DType) -> Result<String, Unknown> {
    match dtype {
        DType::Scalar(scalar) => match scalar_name(*scalar) {
            Some(name) => Ok(format!("'{name}'")),
            None => Err(Unknown {
                dtype: *scalar,
                field: None,
            }),
        },
        DType::Record(layout) => {
            let fields = layout.fields().iter().map(|field| {
                let name = scalar_name(field.dtype).ok_or_else(|| Unknown {
                    dtype: field.dtype,
                    field: Some(field.name.clone().into()),
                })?;
                // Letters, digits and underscores: nothing that would need an escape.
                Ok(match field.count {
                    1 => format!("('{}', '{name}')", field.name),
                    count => format!("('{}', '{name}', ({count},))", field.name),
                })
            });
            Ok(format!(
                "[{}]",
                fields.collect::<Result<Vec<_>, _>>()?.join(", ")
            ))
        }
    }
}

/// An element type that numpy has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unknown {
    pub(super) dtype: ScalarType,
    pub(super) field: Option<String>,
}

fn scalar_name(scalar: ScalarType) -> Option<String> {
    let (_, name, word) = SCALARS.iter().find(|(dtype, ..)| *dtype == scalar)?;
    let order = if *word == 1 { '|' } else { '<' };
    Some(format!("{order}{name}"))
}

impl Words {
    /// Swaps the bytes of these words in each element of `size` bytes. `bytes` are whole elements.
    pub(super) fn swap(self, bytes: &mut [u8], size: usize) {
        let Words {
            offset,
            size: word,
            count,
        } = self;
        let end = offset + word * count;
        if offset == 0 && end == size {
            return swap_all(bytes, word);
        }
        for element in bytes.chunks_exact_mut(size) {
            swap_all(&mut element[offset..end], word);
        }
    }
}

fn swap_all(bytes: &mut [u8], word: usize) {
    match word {
        2 => bytes
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .for_each(|word| word.reverse()),
        4 => bytes
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .for_each(|word| word.reverse()),
        _ => bytes
            .as_chunks_mut::<8>()
            .0
            .iter_mut()
            .for_each(|word| word.reverse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(descr: &str) -> Result<FileType, Refused> {
        FileType::parse(&Literal::parse(descr).unwrap())
    }

    #[test]
    fn every_name_leads_back_to_its_type() {
        for &(scalar, name, word) in &SCALARS {
            let dtype = DType::from(scalar);
            let descr = descr_of(&dtype).unwrap();
            let little = FileType {
                dtype: dtype.clone(),
                swapped: vec![],
            };
            assert_eq!(parse(&descr), Ok(little), "{descr}");
            let big = parse(&format!("'>{name}'")).unwrap();
            assert_eq!(big.dtype, dtype);
            let words: Vec<_> = big
                .swapped
                .iter()
                .map(|w| (w.offset, w.size * w.count))
                .collect();
            let expected = if word == 1 {
                vec![]
            } else {
                vec![(0, scalar.size())]
            };
            assert_eq!(words, expected, "{name}");
        }
        for scalar in [ScalarType::U128, ScalarType::I128] {
            let unknown = descr_of(&scalar.into()).unwrap_err();
            assert_eq!((unknown.dtype, unknown.field), (scalar, None));
        }
        assert_eq!(SCALARS.len() + 2, ScalarType::ALL.len());
    }

    #[test]
    fn fields_become_a_record_and_back() {
        let descr = "[('id', '<u4'), ('pos', '<f4', (3,)), ('größe', '<c16')]";
        let file = parse(descr).unwrap();
        assert_eq!(descr_of(&file.dtype).unwrap(), descr);
        assert_eq!(
            file.dtype.to_string(),
            "{id: u32 @0, pos: [f32; 3] @4, größe: Complex<f64> @16} of 32 bytes"
        );
        let file =
            parse("[(('a title', 'x'), '>i2', (2, 3)), ('y', '|u1'), ('z', '>c8')]").unwrap();
        let words = |offset, size, count| Words {
            offset,
            size,
            count,
        };
        assert_eq!(file.swapped, [words(0, 2, 6), words(13, 4, 2)]);
        assert_eq!(file.dtype.size(), 21);
    }

    #[test]
    fn words_are_swapped_where_they_are() {
        let mut bytes: Vec<u8> = (0..12).collect();
        let words = Words {
            offset: 1,
            size: 2,
            count: 2,
        };
        words.swap(&mut bytes, 6);
        assert_eq!(bytes, [0, 2, 1, 4, 3, 5, 6, 8, 7, 10, 9, 11]);
        for word in [2, 4, 8] {
            let mut bytes: Vec<u8> = (0..16).collect();
            let words = Words {
                offset: 0,
                size: word,
                count: 1,
            };
            words.swap(&mut bytes, word);
            let expected: Vec<u8> = (0..16)
                .map(|at| (at / word * word + (word - 1 - at % word)) as u8)
                .collect();
            assert_eq!(bytes, expected);
        }
    }
}
