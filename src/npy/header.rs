//! The header of a `.npy` file: type, order and shape as text before the elements.

use std::io::{self, Read};

use super::dtype::{FileType, NotInNumpy, descr_of};
use super::error::HeaderError;
use super::literal::Literal;
use crate::descriptor::bytes_of;
use crate::element::DType;
use crate::element::Order;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header text that is read, in bytes; numpy itself refuses more than 10,000 by default.
const TEXT_LIMIT: usize = 1 << 20;
/// The elements start at a multiple of this offset.
const ALIGN: usize = 64;

/// A file's description of its array.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Header {
    pub(super) of: FileType,
    pub(super) shape: Vec<usize>,
    pub(super) order: Order,
    /// Bytes before the elements.
    pub(super) len: u64,
    /// Bytes of the elements in the file.
    pub(super) bytes: u64,
}

fn damaged<T>(what: impl Into<String>) -> Result<T, HeaderError> {
    Err(HeaderError::Damaged(what.into()))
}

impl Header {
    /// Reads the header of a file that has `available` bytes from here on. Reads no byte beyond it.
    pub(super) fn read(from: &mut impl Read, available: u64) -> Result<Header, HeaderError> {
        let mut take = |bytes: &mut [u8]| match from.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                damaged("it ends within the header")
            }
            Err(error) => Err(HeaderError::Io(error)),
        };
        let mut magic = [0; 8];
        take(&mut magic)?;
        if !magic.starts_with(MAGIC) {
            return damaged("it does not start like a .npy file");
        }
        let mut bytes = [0; 4];
        let len_bytes = match (magic[6], magic[7]) {
            (1, 0) => 2,
            (2 | 3, 0) => 4,
            (major, minor) => {
                return damaged(format!("it has format {major}.{minor}, which is unknown"));
            }
        };
        take(&mut bytes[..len_bytes])?;
        let len = u32::from_le_bytes(bytes) as usize;
        let before = 8 + len_bytes as u64;
        if len > TEXT_LIMIT || before + len as u64 > available {
            return damaged(format!(
                "its header claims {len} bytes, of a file with {available}; at most \
                 {TEXT_LIMIT} are read"
            ));
        }
        let mut text = vec![0; len];
        take(&mut text)?;
        let text = match magic[6] {
            // Latin-1: each byte is a code point.
            1 | 2 => text.into_iter().map(char::from).collect(),
            _ => match String::from_utf8(text) {
                Ok(text) => text,
                Err(_) => return damaged("its header is not UTF-8"),
            },
        };
        Header::parse(&text, before + len as u64)
    }

    fn parse(text: &str, len: u64) -> Result<Header, HeaderError> {
        let items = match Literal::parse(text) {
            Ok(Literal::Dict(items)) => items,
            Ok(_) => return damaged("its header is not a dictionary"),
            Err(wrong) => return damaged(format!("its header is damaged: {wrong}")),
        };
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        for (key, value) in items {
            let place = match &key {
                Literal::Text(key) if key == "descr" => &mut descr,
                Literal::Text(key) if key == "fortran_order" => &mut fortran,
                Literal::Text(key) if key == "shape" => &mut shape,
                _ => return damaged("its header has a key besides descr, fortran_order and shape"),
            };
            *place = Some(value);
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return damaged("its header lacks descr, fortran_order or shape");
        };
        let Literal::Bool(fortran) = fortran else {
            return damaged("its header's fortran_order is neither True nor False");
        };
        let Literal::Sequence(axes) = shape else {
            return damaged("its header's shape is not a tuple: a shape of one axis is (3,)");
        };
        let axis = |axis: Literal| match axis {
            Literal::Number(length) => usize::try_from(length).ok(),
            _ => None,
        };
        let Some(shape) = axes.into_iter().map(axis).collect::<Option<Vec<_>>>() else {
            return damaged("its header's shape does not consist of numbers");
        };
        let of = FileType::parse(&descr)?;
        let lengths = shape.iter().map(|&length| length as u64);
        let Some(bytes) = bytes_of(of.size, lengths) else {
            return damaged(format!(
                "its shape {shape:.60?} takes more bytes than memory can have"
            ));
        };
        Ok(Header {
            of,
            order: if fortran { Order::F } else { Order::C },
            shape,
            len,
            bytes,
        })
    }
}

/// Returns the bytes before the elements of an array.
pub(super) fn written(dtype: &DType, shape: &[usize], order: Order) -> Result<Vec<u8>, NotInNumpy> {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let shape = match &axes[..] {
        [axis] => format!("({axis},)"),
        axes => format!("({})", axes.join(", ")),
    };
    let fortran = if order == Order::F { "True" } else { "False" };
    let descr = descr_of(dtype)?;
    let mut text = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}");
    // Version 3.0 is UTF-8; only names may need it.
    let (version, len_bytes) = match (text.is_ascii(), text.len() + ALIGN < 1 << 16) {
        (true, true) => (1, 2),
        (true, false) => (2, 4),
        (false, _) => (3, 4),
    };
    let before = MAGIC.len() + 2 + len_bytes;
    let padded = (before + text.len() + 1).next_multiple_of(ALIGN) - before;
    text.extend(std::iter::repeat_n(' ', padded - 1 - text.len()));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([version, 0]);
    bytes.extend(&(text.len() as u32).to_le_bytes()[..len_bytes]);
    bytes.extend(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{RecordLayout, ScalarType};
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Header, String> {
        Header::read(&mut &bytes[..], bytes.len() as u64).map_err(|error| match error {
            HeaderError::Io(error) => error.to_string(),
            HeaderError::Damaged(what) => what,
            error => format!("{error:?}"),
        })
    }

    fn file(version: u8, text: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        let len = (text.len() as u32).to_le_bytes();
        bytes.extend(&len[..if version == 1 { 2 } else { 4 }]);
        bytes.extend(text);
        bytes
    }

    fn dtypes() -> impl Strategy<Value = DType> {
        let numpys = ScalarType::ALL.iter().copied();
        let numpys: Vec<_> = numpys
            .filter(|s| !matches!(s, ScalarType::U128 | ScalarType::I128))
            .collect();
        let fields = (
            "[a-zé_]{1,8}|.{1,4}",
            prop::sample::select(numpys.clone()),
            0usize..9,
        );
        prop_oneof![
            prop::sample::select(numpys).prop_map(DType::from),
            prop::collection::vec(fields, 1..20)
                .prop_map(|fields| fields
                    .into_iter()
                    .filter(|field| field.1 != ScalarType::Bool))
                .prop_filter_map("no record", |fields| RecordLayout::from_fields(fields).ok())
                .prop_map(|layout| DType::Record(layout.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_written_header_is_read_back(
            dtype in dtypes(),
            shape in prop::collection::vec(0usize..1000, 0..9),
            fortran: bool,
        ) {
            let order = if fortran { Order::F } else { Order::C };
            let bytes = written(&dtype, &shape, order).unwrap();
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            prop_assert_eq!(bytes.last(), Some(&b'\n'));
            match read(&bytes) {
                Ok(header) => {
                    let size = dtype.size();
                    prop_assert_eq!(
                        header.of,
                        FileType { dtype, size, moves: None, swapped: vec![] }
                    );
                    prop_assert_eq!(header.shape, shape);
                    prop_assert_eq!(header.order, order);
                    prop_assert_eq!(header.len, bytes.len() as u64);
                }
                Err(what) => prop_assert!(what.contains("more bytes than memory"), "{}", what),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            version in 0u8..5,
            text: Vec<u8>,
        ) {
            let _ = read(&text);
            let _ = read(&file(version, &text));
        }

        #[test]
        fn a_changed_header_is_read_or_refused(
            dtype in dtypes(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = written(&dtype, &[3, 4], Order::C).unwrap();
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let _ = read(&bytes);
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = written(&ScalarType::F64.into(), &[3], Order::C).unwrap();
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }";
        let expected = format!("{text}{}\n", " ".repeat(118 - 1 - text.len()));
        assert_eq!(bytes, file(1, expected.as_bytes()));
        assert_eq!(bytes.len(), 128);
    }

    #[test]
    fn latin_1_and_utf_8_are_distinguished() {
        let text = "{'descr': [('größe', '<f8')], 'fortran_order': True, 'shape': ()}";
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        let one = read(&file(1, &latin)).unwrap();
        let three = read(&file(3, text.as_bytes())).unwrap();
        assert_eq!(one.of, three.of);
        assert_eq!(one.of.dtype.to_string(), "{größe: f64 @0} of 8 bytes");
        assert_eq!((one.order, one.bytes), (Order::F, 8));
        assert!(read(&file(3, &latin)).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn damage_is_named() {
        let whole = written(&ScalarType::F64.into(), &[3], Order::C).unwrap();
        for cut in [0, 5, 8, 9] {
            let what = read(&whole[..cut]).unwrap_err();
            assert_eq!(what, "it ends within the header");
        }
        assert!(
            read(&whole[..100])
                .unwrap_err()
                .contains("118 bytes, of a file with 100")
        );
        assert!(read(&file(4, b"")).unwrap_err().contains("format 4.0"));
        let mut huge = file(2, b"");
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&huge).unwrap_err().contains("4294967295 bytes"));
        // The same holds for a file that is large enough.
        let error = Header::read(&mut &huge[..], 1 << 40).unwrap_err();
        let HeaderError::Damaged(what) = error else {
            panic!("{error:?}");
        };
        assert!(what.ends_with("at most 1048576 are read"), "{what}");
        for (text, what) in [
            ("{}", "lacks"),
            ("[]", "not a dictionary"),
            ("{'descr': '<f8', 'shape': ()}", "lacks"),
            (
                "{'descr': '<f8', 'fortran_order': 0, 'shape': ()}",
                "fortran_order is neither True nor False",
            ),
            (
                "{'descr': '<f8', 'fortran_order': True, 'shape': (3)}",
                "shape is not a tuple",
            ),
            (
                "{'descr': '<f8', 'fortran_order': True, 'shape': ('a',)}",
                "not consist of numbers",
            ),
            (
                "{'descr': '<f8', 'more': True, 'shape': ()}",
                "a key besides",
            ),
            (
                "{'descr': '<f8', 'fortran_order': True, 'shape': (4611686018427387904, 2)}",
                "more bytes than memory",
            ),
        ] {
            let found = read(&file(1, text.as_bytes())).unwrap_err();
            assert!(found.contains(what), "{text}: {found}");
        }
    }
}
