//! Element types of numpy that Rust lacks: their sizes, and the one text that stands for each.
//!
//! The text is what numpy writes in the headers of its files: `dtype.str` of a plain type, the list
//! of fields of a structure.

use std::collections::BTreeSet;

use super::literal::Literal;
use super::spelling::{Scalar, python_string, split_order, written};
use crate::element::OpaqueType;

/// An element type of numpy, as numpy writes it.
struct Described {
    text: String,
    size: usize,
    align: usize,
}

/// Returns the opaque type that stands for `descr`. Returns `None` if numpy would not read it, if
/// its elements are pickled objects or have no bytes, and if its text is too long for a segment.
pub(super) fn opaque(descr: &Literal) -> Option<OpaqueType> {
    let Described { text, size, align } = match descr {
        Literal::Text(name) => plain(name)?,
        Literal::Sequence(fields) => structure(fields)?,
        _ => return None,
    };
    OpaqueType::new(&text, size, align).ok()
}

/// Returns the type as a Python literal, or `None` if the text is no type of numpy with elements of
/// this size.
pub(super) fn descr_of(opaque: &OpaqueType) -> Option<String> {
    let (described, literal) = match opaque.text().starts_with('[') {
        true => {
            let Ok(Literal::Sequence(fields)) = Literal::parse(opaque.text()) else {
                return None;
            };
            let described = structure(&fields)?;
            let literal = described.text.clone();
            (described, literal)
        }
        false => {
            let described = plain(opaque.text())?;
            let literal = python_string(&described.text);
            (described, literal)
        }
    };
    (described.size == opaque.size()).then_some(literal)
}

/// The floats that Rust lacks: the name in files, its characters, the names without a preceding
/// byte order, and the size.
const FLOATS: [(&str, &str, &[&str], usize); 3] = [
    ("f2", "e", &["float16", "half"], 2),
    ("f16", "g", &["longdouble", "float128"], 16),
    ("c32", "G", &["clongdouble", "complex256"], 32),
];

/// Returns the type of a name without fields.
fn plain(name: &str) -> Option<Described> {
    if let Some(scalar) = Scalar::parse(name) {
        let text = written(scalar.dtype)?;
        return Some(Described {
            text: match scalar.big_endian {
                true => text.replacen('<', ">", 1),
                false => text,
            },
            size: scalar.dtype.size(),
            align: scalar.dtype.align(),
        });
    }
    let (order, name) = split_order(name);
    let order_of = |order| if order == Some('>') { '>' } else { '<' };
    let float = |(written, character, names, _): &(&str, &str, &[&str], usize)| {
        *written == name || *character == name || order.is_none() && names.contains(&name)
    };
    if let Some(&(written, _, _, size)) = FLOATS.iter().find(|row| float(row)) {
        return Some(Described {
            text: format!("{}{written}", order_of(order)),
            size,
            align: size.min(16),
        });
    }
    let full = [("datetime64", 'M'), ("timedelta64", 'm')].into_iter();
    let date = full
        .filter(|_| order.is_none())
        .find_map(|(full, short)| Some((short, name.strip_prefix(full)?)))
        .or_else(|| Some(('M', name.strip_prefix("M8")?)))
        .or_else(|| Some(('m', name.strip_prefix("m8")?)));
    if let Some((kind, unit)) = date {
        return is_unit(unit).then(|| Described {
            text: format!("{}{kind}8{unit}", order_of(order)),
            size: 8,
            align: 8,
        });
    }
    let kind = name.chars().next()?;
    let count = number(name.strip_prefix(kind)?)?;
    let (order, width) = match kind {
        'S' | 'V' => ('|', 1),
        'U' => (order_of(order), 4),
        _ => return None,
    };
    Some(Described {
        text: format!("{order}{kind}{count}"),
        size: count.checked_mul(width)?,
        align: width,
    })
}

/// Returns the number that decimal digits, without leading zeros, spell.
fn number(digits: &str) -> Option<usize> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    is_plain.then(|| digits.parse().ok())?
}

/// Returns `true` if `text` is empty or a unit of time with its multiple, as `[25s]`.
fn is_unit(text: &str) -> bool {
    const UNITS: [&str; 13] = [
        "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as",
    ];
    if text.is_empty() {
        return true;
    }
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    else {
        return false;
    };
    let unit = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    let multiple = &inner[..inner.len() - unit.len()];
    // numpy writes no multiple of 1, and multiples are 32-bit integers.
    let fits = || number(multiple).is_some_and(|count| (2..1 << 31).contains(&count));
    UNITS.contains(&unit) && (multiple.is_empty() || fits())
}

/// Returns the type of a structure with these fields.
fn structure(fields: &[Literal]) -> Option<Described> {
    let mut texts = Vec::new();
    let mut names = BTreeSet::new();
    let mut size = 0usize;
    for field in fields {
        let Literal::Sequence(parts) = field else {
            return None;
        };
        let (name, descr, shape) = match &parts[..] {
            [name, descr] => (name, descr, None),
            [name, descr, shape] => (name, descr, Some(shape)),
            _ => return None,
        };
        // A title may precede the name. numpy looks fields up by it, too.
        let own = match name {
            Literal::Text(name) => vec![name.as_str()],
            Literal::Sequence(both) => match &both[..] {
                [Literal::Text(title), Literal::Text(name)] => vec![title.as_str(), name.as_str()],
                _ => return None,
            },
            _ => return None,
        };
        let spelled = match &own[..] {
            [name] => python_string(name),
            both => {
                let both: Vec<String> = both.iter().map(|text| python_string(text)).collect();
                format!("({})", both.join(", "))
            }
        };
        // A void without a name is a gap, as numpy writes it.
        let is_void = |text: &String| text.trim_start_matches('|').starts_with('V');
        let is_gap = matches!(descr, Literal::Text(text) if is_void(text));
        let repeats = |name: &str| match name {
            "" if is_gap => false,
            name => !names.insert(name.to_owned()),
        };
        if own.into_iter().any(repeats) {
            return None;
        }
        let (text, bytes) = match descr {
            Literal::Text(name) => {
                let described = plain(name)?;
                (python_string(&described.text), described.size)
            }
            Literal::Sequence(fields) => {
                let described = structure(fields)?;
                (described.text, described.size)
            }
            _ => return None,
        };
        let axes = match shape {
            None => Vec::new(),
            Some(Literal::Sequence(axes)) => axes.iter().map(length).collect::<Option<_>>()?,
            Some(one) => vec![length(one)?],
        };
        let bytes = axes
            .iter()
            .try_fold(bytes, |bytes, axis| bytes.checked_mul(*axis))?;
        size = size.checked_add(bytes)?;
        let axes: Vec<String> = axes.iter().map(usize::to_string).collect();
        texts.push(match &axes[..] {
            [] => format!("({spelled}, {text})"),
            [axis] => format!("({spelled}, {text}, ({axis},))"),
            axes => format!("({spelled}, {text}, ({}))", axes.join(", ")),
        });
    }
    Some(Described {
        text: format!("[{}]", texts.join(", ")),
        size,
        align: 1,
    })
}

fn length(axis: &Literal) -> Option<usize> {
    match axis {
        Literal::Number(length) => usize::try_from(*length).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(descr: &str) -> Option<(String, usize, usize)> {
        let opaque = opaque(&Literal::parse(descr).ok()?)?;
        Some((opaque.text().to_owned(), opaque.size(), opaque.align()))
    }

    #[test]
    fn each_spelling_has_the_text_that_numpy_writes() {
        for (descr, text, size, align) in [
            ("'<f2'", "<f2", 2, 2),
            ("'half'", "<f2", 2, 2),
            ("'>e'", ">f2", 2, 2),
            ("'longdouble'", "<f16", 16, 16),
            ("'>G'", ">c32", 32, 16),
            ("'M8[25s]'", "<M8[25s]", 8, 8),
            ("'datetime64[ns]'", "<M8[ns]", 8, 8),
            ("'>m8'", ">m8", 8, 8),
            ("'S3'", "|S3", 3, 1),
            ("'U5'", "<U5", 20, 4),
            ("'>U5'", ">U5", 20, 4),
            ("'V7'", "|V7", 7, 1),
            ("'>f8'", ">f8", 8, 8),
            (
                "[(('a title', 'x'), 'half', 3), ('', 'V6'), (\"it's\", '>i4', (2, 3)), \
                 ('p', [('q', 'S1')], ())]",
                "[(('a title', 'x'), '<f2', (3,)), ('', '|V6'), ('it\\'s', '>i4', (2, 3)), \
                 ('p', [('q', '|S1')])]",
                37,
                1,
            ),
        ] {
            assert_eq!(of(descr), Some((text.to_owned(), size, align)), "{descr}");
        }
    }

    #[test]
    fn a_structure_without_fields_is_a_gap() {
        let gap = "[('', '|V8')]";
        assert_eq!(of(gap), Some((gap.to_owned(), 8, 1)));
    }

    #[test]
    fn what_numpy_does_not_read_or_has_no_bytes_is_refused() {
        for descr in [
            "'O'",
            "'|O'",
            "'S0'",
            "'U'",
            "'S03'",
            "'S+3'",
            "'V'",
            "'f3'",
            "'<half'",
            "'M8[x]'",
            "'M8[0s]'",
            "'M8[1s]'",
            "'M8[4294967296s]'",
            "'M8[ns'",
            "'<datetime64[s]'",
            "'U9223372036854775807'",
            "'S99999999999999999999'",
            "''",
            "'é'",
            "3",
            "[]",
            "[('a', 'S0')]",
            "[('a', 'O'), ('b', '<f2')]",
            "[('a', 'S1'), ('a', 'S1')]",
            "[(('a', 'b'), 'S1'), ('a', 'S1')]",
            "[('a', 'S1', ('x',))]",
            "[('a', 'S9', (4611686018427387904,))]",
            "['a']",
            "[(3, 'S1')]",
            // These have types of their own.
            "'<f8'",
            "'|b1'",
        ] {
            assert_eq!(of(descr), None, "{descr}");
        }
        let many: Vec<String> = (0..300).map(|at| format!("('f{at}', 'S1')")).collect();
        assert_eq!(of(&format!("[{}]", many.join(", "))), None, "too long");
    }

    #[test]
    fn only_a_type_of_this_size_is_written() {
        let spelled = |text: &str, size| descr_of(&OpaqueType::new(text, size, 1).unwrap());
        assert_eq!(spelled("<M8[ns]", 8).as_deref(), Some("'<M8[ns]'"));
        assert_eq!(spelled(">f8", 8).as_deref(), Some("'>f8'"));
        let gap = "[('a', '<f8'), ('', '|V1')]";
        assert_eq!(spelled(gap, 9).as_deref(), Some(gap));
        for (text, size) in [
            ("<M8[ns]", 4),
            (gap, 8),
            ("a Rust type", 8),
            ("[", 8),
            ("[1]", 8),
            ("|O", 8),
            ("'<f2'", 2),
        ] {
            assert_eq!(spelled(text, size), None, "{text}");
        }
    }

    fn names() -> impl Strategy<Value = String> {
        let plain = prop::sample::select(vec![
            "<f2", ">f8", "|b1", "<u4", "g", "M8[3D]", "m8", ">U2", "S9", "V4",
        ]);
        plain.prop_map(|name| format!("'{name}'"))
    }

    fn descrs() -> impl Strategy<Value = String> {
        names().prop_recursive(3, 12, 4, |inner| {
            let shape = prop::collection::vec(0usize..4, 0..3);
            prop::collection::vec(("[a-dé' \\\\]{0,3}", inner, shape), 1..4).prop_map(|fields| {
                let fields: Vec<String> = fields
                    .into_iter()
                    .map(|(name, descr, shape)| {
                        let axes: String = shape.iter().map(|axis| format!("{axis},")).collect();
                        format!("({}, {descr}, ({axes}))", python_string(&name))
                    })
                    .collect();
                format!("[{}]", fields.join(", "))
            })
        })
    }

    proptest! {
        #[test]
        fn the_text_of_a_type_stands_for_itself(descr in descrs()) {
            let literal = Literal::parse(&descr).unwrap();
            if let Some(opaque) = opaque(&literal) {
                let spelled = descr_of(&opaque).unwrap();
                let again = super::opaque(&Literal::parse(&spelled).unwrap());
                prop_assert_eq!(again, Some(opaque));
            }
        }

        #[test]
        fn any_text_is_a_type_or_refused(text in "[\\[('<>|a-zA-Z0-9,)\\] ]{0,20}|.{0,9}") {
            if let Ok(opaque) = OpaqueType::new(&text, 8, 1) {
                let _ = descr_of(&opaque);
            }
            let _ = opaque(&Literal::Text(text));
        }
    }
}
