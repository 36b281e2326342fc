//! Element types of numpy's files, converted to those of ndshm and back.

use core::fmt;

use super::error::HeaderError;
use super::literal::Literal;
use super::opaque;
use super::places::{Moves, Piece, Words};
use super::spelling::{Scalar, python_string, remedy, written};
use crate::element::{DType, LayoutError, RecordLayout, ScalarType};

/// The element type of a file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct FileType {
    pub(super) dtype: DType,
    /// Bytes of an element in the file.
    pub(super) size: usize,
    /// The moves of an element into the segment, if its layout differs there.
    pub(super) moves: Option<Moves>,
    /// Words of an element in the segment that the file stores in big-endian order.
    pub(super) swapped: Vec<Words>,
}

/// Cuts a name to the length that an error repeats, because a hostile name may be long.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

fn damaged(what: impl fmt::Display) -> HeaderError {
    HeaderError::Damaged(what.to_string())
}

impl FileType {
    /// Returns the type that `descr` of a header names: an opaque one if ndshm has no numbers and
    /// no record for it.
    pub(super) fn parse(descr: &Literal) -> Result<FileType, HeaderError> {
        match FileType::convert(descr) {
            Err(error @ (HeaderError::Type { .. } | HeaderError::Layout { .. })) => {
                let opaque = opaque::opaque(descr).ok_or(error)?;
                Ok(FileType {
                    size: opaque.size(),
                    dtype: opaque.into(),
                    moves: None,
                    swapped: Vec::new(),
                })
            }
            outcome => outcome,
        }
    }

    /// Returns the type of the numbers or records that `descr` names.
    fn convert(descr: &Literal) -> Result<FileType, HeaderError> {
        match descr {
            Literal::Text(name) => {
                let scalar = Scalar::parse(name).ok_or_else(|| HeaderError::Type {
                    dtype: shortened(name),
                    field: None,
                    remedy: remedy(name, None),
                })?;
                Ok(FileType {
                    size: scalar.dtype.size(),
                    dtype: scalar.dtype.into(),
                    moves: None,
                    swapped: scalar.swapped(0, 1).into_iter().collect(),
                })
            }
            Literal::Sequence(fields) => record(fields),
            _ => Err(damaged("'descr' is neither a string nor a list of fields")),
        }
    }
}

/// The largest structure with gaps in bytes. At least one such structure is read into private
/// memory. The limit exceeds real records, and a process can spare this much memory.
const MAX_GAPPED: usize = 64 << 20;

/// A field of numbers, possibly in a structure inside the record's.
struct Leaf {
    name: String,
    scalar: Scalar,
    /// The place of its numbers in the outermost structure that was read so far; `to` is not known
    /// yet.
    piece: Piece,
}

impl Leaf {
    fn new(name: &str, scalar: Scalar) -> Leaf {
        Leaf {
            name: name.to_owned(),
            piece: Piece {
                from: 0,
                to: 0,
                size: scalar.dtype.size(),
                axes: Vec::new(),
            },
            scalar,
        }
    }
}

/// Returns the record of these fields.
fn record(fields: &[Literal]) -> Result<FileType, HeaderError> {
    let (leaves, file_size) = structure(fields, None)?;
    let mut size = 0usize;
    let (mut swapped, mut pieces, mut parsed) = (Vec::new(), Vec::new(), Vec::new());
    for Leaf {
        name,
        scalar,
        mut piece,
    } in leaves
    {
        let bytes = |count: usize| count.checked_mul(piece.size)?.checked_add(size);
        let count = piece.count();
        let (Some(count), Some(end)) = (count, count.and_then(bytes)) else {
            return Err(too_large());
        };
        swapped.extend(scalar.swapped(size, count));
        piece.to = size;
        size = end;
        pieces.push(piece);
        // A record may hold any byte, and not every byte is a bool.
        let dtype = match scalar.dtype {
            ScalarType::Bool => ScalarType::U8,
            dtype => dtype,
        };
        parsed.push((name, dtype, count));
    }
    let first = match fields.first() {
        Some(Literal::Sequence(parts)) if !parsed.is_empty() => parts.first(),
        _ => None,
    };
    let layout = RecordLayout::from_fields(parsed).map_err(|error| HeaderError::Layout {
        error,
        remedy: match first {
            Some(Literal::Text(name)) => format!(
                "; save each field as an array of its own, as by `a[{}]`",
                python_string(&shortened(name))
            ),
            _ => String::new(),
        },
    })?;
    let moves = Moves::new(pieces, file_size, layout.size());
    if moves.is_some() && file_size > MAX_GAPPED {
        return Err(HeaderError::Type {
            dtype: format!("a structure of {file_size} bytes with gaps"),
            field: None,
            remedy: format!(
                "gaps are closed in structures of up to {MAX_GAPPED} bytes; pack it in numpy, as by \
                 `numpy.lib.recfunctions.repack_fields(a)`"
            ),
        });
    }
    Ok(FileType {
        moves,
        size: file_size,
        dtype: DType::Record(layout.into()),
        swapped,
    })
}

fn too_large() -> HeaderError {
    HeaderError::Layout {
        error: LayoutError::Size { bytes: None },
        remedy: String::new(),
    }
}

/// Returns the number fields of a structure, including those of inner structures, and the
/// structure's size in bytes. `outer` is the outermost field that contains it.
fn structure(fields: &[Literal], outer: Option<&str>) -> Result<(Vec<Leaf>, usize), HeaderError> {
    let mut leaves = Vec::new();
    let mut end = 0usize;
    for field in fields {
        let (name, dtype, shape) = parts(field)?;
        let outer = outer.unwrap_or(name);
        let (inner, size) = match dtype {
            Literal::Text(dtype) => match padding(name, dtype) {
                Some(bytes) => (Vec::new(), bytes),
                None => {
                    let scalar = Scalar::parse(dtype).ok_or_else(|| HeaderError::Type {
                        dtype: shortened(dtype),
                        field: Some(shortened(outer)),
                        remedy: remedy(dtype, Some(&shortened(outer))),
                    })?;
                    let size = scalar.dtype.size();
                    (vec![Leaf::new(name, scalar)], size)
                }
            },
            Literal::Sequence(fields) => {
                let (mut leaves, size) = structure(fields, Some(outer))?;
                for leaf in &mut leaves {
                    leaf.name = format!("{name}.{}", leaf.name);
                }
                (leaves, size)
            }
            _ => return Err(damaged(format_args!("field {name:?} has no type"))),
        };
        let axes = lengths(shape)
            .ok_or_else(|| damaged(format_args!("field {name:?} has no such shape")))?;
        // Compute the strides of the axes; the last axis is the innermost.
        let mut strides = vec![0; axes.len()];
        let mut bytes = size;
        for (stride, length) in strides.iter_mut().zip(&axes).rev() {
            *stride = bytes;
            bytes = bytes.checked_mul(*length).ok_or_else(too_large)?;
        }
        for mut leaf in inner {
            let outer_axes = axes.iter().copied().zip(strides.iter().copied());
            leaf.piece.axes.splice(0..0, outer_axes);
            leaf.piece.from += end;
            leaves.push(leaf);
        }
        end = end.checked_add(bytes).ok_or_else(too_large)?;
    }
    Ok((leaves, end))
}

/// Returns the name, the type and the shape of a field.
fn parts(field: &Literal) -> Result<(&str, &Literal, Option<&Literal>), HeaderError> {
    let Literal::Sequence(parts) = field else {
        return Err(damaged("a field of 'descr' is not a tuple"));
    };
    let (name, dtype, shape) = match &parts[..] {
        [name, dtype] => (name, dtype, None),
        [name, dtype, shape] => (name, dtype, Some(shape)),
        _ => {
            return Err(damaged(
                "a field of 'descr' does not have two or three parts",
            ));
        }
    };
    // A title may precede the name; numpy uses it only for display.
    let name = match name {
        Literal::Sequence(names) if names.len() == 2 => &names[1],
        name => name,
    };
    match name {
        Literal::Text(name) => Ok((name, dtype, shape)),
        _ => Err(damaged("a field's name is not a string")),
    }
}

/// Returns the bytes of a gap. numpy writes a gap as a field without a name.
fn padding(name: &str, dtype: &str) -> Option<usize> {
    let bytes = dtype.trim_start_matches('|').strip_prefix('V')?;
    name.is_empty().then(|| bytes.parse().ok())?
}

/// Returns the lengths of the axes of a field's shape.
fn lengths(shape: Option<&Literal>) -> Option<Vec<usize>> {
    let length = |axis: &Literal| match axis {
        Literal::Number(length) => usize::try_from(*length).ok(),
        _ => None,
    };
    match shape {
        None => Some(Vec::new()),
        Some(Literal::Sequence(axes)) => axes.iter().map(length).collect(),
        Some(one) => Some(vec![length(one)?]),
    }
}

/// Returns a type's name in numpy's files, as a Python literal. Returns the part of it that numpy
/// lacks as `Err`: 128-bit integers, and opaque types with another text than numpy's.
pub(super) fn descr_of(dtype: &DType) -> Result<String, NotInNumpy> {
    match dtype {
        DType::Scalar(scalar) => match written(*scalar) {
            Some(name) => Ok(format!("'{name}'")),
            None => Err(NotInNumpy::Scalar {
                dtype: *scalar,
                field: None,
            }),
        },
        DType::Opaque(opaque) => {
            opaque::descr_of(opaque).ok_or_else(|| NotInNumpy::Opaque(dtype.clone()))
        }
        DType::Record(layout) => {
            let fields = layout.fields().iter().map(|field| {
                let dtype = written(field.dtype).ok_or_else(|| NotInNumpy::Scalar {
                    dtype: field.dtype,
                    field: Some(field.name.clone().into()),
                })?;
                let name = python_string(&field.name);
                Ok(match field.count {
                    1 => format!("({name}, '{dtype}')"),
                    count => format!("({name}, '{dtype}', ({count},))"),
                })
            });
            Ok(format!(
                "[{}]",
                fields.collect::<Result<Vec<_>, _>>()?.join(", ")
            ))
        }
    }
}

/// An element type that numpy lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NotInNumpy {
    Scalar {
        dtype: ScalarType,
        field: Option<String>,
    },
    Opaque(DType),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(descr: &str) -> Result<FileType, HeaderError> {
        FileType::parse(&Literal::parse(descr).unwrap())
    }

    #[test]
    fn every_written_name_parses_to_its_type() {
        for &scalar in ScalarType::ALL {
            let dtype = DType::from(scalar);
            let Ok(descr) = descr_of(&dtype) else {
                assert!(matches!(scalar, ScalarType::U128 | ScalarType::I128));
                continue;
            };
            let little = parse(&descr).unwrap();
            assert_eq!((little.dtype, little.size), (dtype, scalar.size()));
            assert_eq!((little.moves, little.swapped), (None, vec![]), "{descr}");
        }
    }

    #[test]
    fn fields_become_a_record_and_back() {
        let descr = "[('id', '<u4'), ('pos', '<f4', (3,)), ('größe (m/s)', '<c16')]";
        let file = parse(descr).unwrap();
        assert_eq!(descr_of(&file.dtype).unwrap(), descr);
        assert_eq!(
            file.dtype.to_string(),
            "{id: u32 @0, pos: [f32; 3] @4, \"größe (m/s)\": Complex<f64> @16} of 32 bytes"
        );
        let file =
            parse("[(('a title', 'x'), '>i2', (2, 3)), ('y', '|u1'), ('z', '>c8')]").unwrap();
        let words = |offset, size, count| Words {
            offset,
            size,
            count,
        };
        assert_eq!(file.swapped, [words(0, 2, 6), words(13, 4, 2)]);
        assert_eq!((file.dtype.size(), file.size, file.moves), (21, 21, None));
    }

    #[test]
    fn gaps_close_and_inner_fields_are_named_by_their_path() {
        let file = parse("[('flag', '?'), ('', '|V7'), ('x', '>f8')]").unwrap();
        assert_eq!(
            file.dtype.to_string(),
            "{flag: u8 @0, x: f64 @1} of 9 bytes aligned to 1"
        );
        assert_eq!(file.size, 16);
        let from: Vec<u8> = (0..16).collect();
        let mut to = [0; 9];
        file.moves.unwrap().apply(&from, &mut to);
        assert_eq!(to, [0, 8, 9, 10, 11, 12, 13, 14, 15]);

        let inner = "[('x', '<i2'), ('', '|V2'), ('deep', [('y', '|u1', (2,))])]";
        let file = parse(&format!("[('p', {inner}, (2,)), ('m', '|u1')]")).unwrap();
        assert_eq!(
            file.dtype.to_string(),
            "{\"p.x\": [i16; 2] @0, \"p.deep.y\": [u8; 4] @4, m: u8 @8} of 9 bytes aligned to 1"
        );
        assert_eq!(file.size, 13);
        let mut to = [0; 9];
        file.moves.unwrap().apply(&from, &mut to);
        assert_eq!(to, [0, 1, 6, 7, 4, 5, 10, 11, 12]);
        // Too large for a copy in private memory.
        let large = "[('a', '|u1'), ('', '|V67108864'), ('b', '|u1')]";
        let file = parse(large).unwrap();
        assert_eq!((file.size, file.moves), (67_108_866, None));
        assert_eq!(descr_of(&file.dtype).unwrap(), large);
    }

    #[test]
    fn sizes_beyond_counting_are_errors() {
        for descr in [
            "[('a', '<f8', (4611686018427387904, 4))]",
            "[('a', [('b', '<f8', (4611686018427387904,))], (4,))]",
            "[('a', '<f8', (2305843009213693951,)), ('b', '<f8', (2305843009213693951,))]",
            "[('', '|V18446744073709551615'), ('b', '<f8')]",
            "[('a', '<f8', (4611686018427387904, 0, 4))]",
            "[]",
        ] {
            assert!(
                matches!(parse(descr), Err(HeaderError::Layout { .. })),
                "{descr}: {:?}",
                parse(descr)
            );
        }
    }
}
