//! Record layouts as values and as text, and the conversions between them.

use core::fmt;

use super::schema::MAX_TEXT;
use super::{MAX_ALIGN, ScalarType};

/// A field of a [`RecordLayout`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct RecordField {
    /// The field's name.
    pub name: Box<str>,
    /// The type of its numbers.
    pub dtype: ScalarType,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Number of numbers.
    pub count: usize,
}

/// The layout of a struct, as a segment describes it to readers that do not have the struct.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RecordLayout {
    fields: Vec<RecordField>,
    size: usize,
    align: usize,
}

impl RecordLayout {
    /// Creates a layout. The caller has checked the fields.
    pub(super) fn new(fields: Vec<RecordField>, size: usize, align: usize) -> RecordLayout {
        RecordLayout {
            fields,
            size,
            align,
        }
    }

    /// Returns all fields, in memory order.
    ///
    /// [`parse`](RecordLayout::parse) has an example.
    pub fn fields(&self) -> &[RecordField] {
        &self.fields
    }

    /// Returns the size of one record in bytes.
    ///
    /// [`parse`](RecordLayout::parse) has an example.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns the alignment of a record.
    ///
    /// [`parse`](RecordLayout::parse) has an example.
    pub fn align(&self) -> usize {
        self.align
    }

    /// Parses the text by which segments and objects store a layout. Total: returns `None` for any
    /// other text, so a layout has one text, and a text one layout.
    ///
    /// ```
    /// use ndshm::element::RecordLayout;
    ///
    /// let layout = RecordLayout::parse("x:f64@0;pos:3*f64@8;size=32;align=8").unwrap();
    /// assert_eq!((layout.size(), layout.align()), (32, 8));
    /// assert_eq!((&*layout.fields()[1].name, layout.fields()[1].count), ("pos", 3));
    /// assert!(RecordLayout::parse("x:f64").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<RecordLayout> {
        let (rest, align) = text.rsplit_once(";align=")?;
        let (fields, size) = rest.rsplit_once(";size=")?;
        let mut end = 0;
        let fields = fields
            .split(';')
            .map(|field| {
                let field = parse_field(field).filter(|field| field.offset == end)?;
                end = field
                    .count
                    .checked_mul(field.dtype.size())?
                    .checked_add(end)?;
                Some(field)
            })
            .collect::<Option<Vec<_>>>()?;
        let layout = RecordLayout {
            fields,
            size: size.parse().ok()?,
            align: align.parse().ok()?,
        };
        let fits = layout.size == end
            && layout.size > 0
            && layout.align.is_power_of_two()
            && layout.align <= MAX_ALIGN
            && layout.size.is_multiple_of(layout.align);
        // This comparison refuses `+8`, `08`, `1*f64` and any other longer spelling.
        (fits && layout.text().as_str() == text).then_some(layout)
    }

    /// Returns the text in the form of [`Schema::text`](super::Schema::text).
    pub(crate) fn to_text(&self) -> String {
        self.text().as_str().to_owned()
    }

    pub(super) fn text(&self) -> Text {
        let mut text = Text::EMPTY;
        for field in &self.fields {
            text.field(&field.name, field.dtype, field.offset, field.count);
        }
        text.end(self.size, self.align);
        text
    }
}

fn parse_field(text: &str) -> Option<RecordField> {
    let (name, rest) = text.split_once(':')?;
    let name = unescaped(name)?;
    let (kind, offset) = rest.split_once('@')?;
    let (count, dtype) = match kind.split_once('*') {
        Some((count, dtype)) => (count.parse().ok()?, dtype),
        None => (1, kind),
    };
    Some(RecordField {
        name: name.into(),
        dtype: ScalarType::from_name(dtype)?,
        offset: offset.parse().ok()?,
        count,
    })
}

/// Returns `true` if a byte of a name represents itself in the text. All other bytes separate parts
/// of the text, and are escaped in names as `%2E`.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Returns `true` if a name is not empty and needs no escape.
pub(super) const fn is_identifier(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        if !is_plain(name[at]) {
            return false;
        }
        at += 1;
    }
    at > 0
}

/// Returns the name that an escaped text represents, or `None` if it is empty or has an escape that
/// [`Text::name`] does not write.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let code = part.get(..2)?;
        let byte = u8::from_str_radix(code, 16).ok()?;
        if !byte.is_ascii() || is_plain(byte) {
            return None;
        }
        name.push(char::from(byte));
        name.push_str(&part[2..]);
    }
    (!name.is_empty()).then_some(name)
}

impl fmt::Display for RecordLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, field) in self.fields.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let RecordField {
                name,
                dtype,
                offset,
                count,
            } = field;
            f.write_str(comma)?;
            match is_identifier(name.as_bytes()) {
                true => f.write_str(name)?,
                // Quote the name so that different layouts never look the same.
                false => write!(f, "{name:?}")?,
            }
            match count {
                1 => write!(f, ": {dtype} @{offset}")?,
                _ => write!(f, ": [{dtype}; {count}] @{offset}")?,
            }
        }
        write!(f, "}} of {} bytes", self.size)?;
        // Print the alignment where the fields do not imply it: different layouts must not look the
        // same.
        let natural = self.fields.iter().map(|field| field.dtype.align()).max();
        match natural == Some(self.align) {
            true => Ok(()),
            false => write!(f, " aligned to {}", self.align),
        }
    }
}

/// The text of a layout, written at compile time: allocating an array of records builds no string.
#[derive(Clone, Copy)]
pub(super) struct Text {
    bytes: [u8; MAX_TEXT],
    len: usize,
    /// Total bytes that were pushed, including those that did not fit.
    wanted: usize,
}

impl Text {
    pub(super) const EMPTY: Text = Text {
        bytes: [0; MAX_TEXT],
        len: 0,
        wanted: 0,
    };

    const fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// Appends all of `text`, or nothing if it does not fit.
    const fn push_bytes(&mut self, text: &[u8]) {
        self.wanted += text.len();
        if text.len() > MAX_TEXT - self.len {
            return;
        }
        let mut at = 0;
        while at < text.len() {
            self.bytes[self.len] = text[at];
            self.len += 1;
            at += 1;
        }
    }

    /// Appends a field's name. Escapes the characters that separate parts of the text.
    const fn name(&mut self, name: &str) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        if is_identifier(name.as_bytes()) {
            return self.push(name);
        }
        let name = name.as_bytes();
        let mut at = 0;
        while at < name.len() {
            let byte = name[at];
            match is_plain(byte) {
                true => self.push_bytes(&[byte]),
                false => {
                    self.push_bytes(&[b'%', HEX[byte as usize / 16], HEX[byte as usize % 16]]);
                }
            }
            at += 1;
        }
    }

    const fn number(&mut self, number: usize) {
        if number >= 10 {
            self.number(number / 10);
        }
        let digits = "0123456789".split_at(number % 10).1;
        self.push(digits.split_at(1).0);
    }

    pub(super) const fn field(
        &mut self,
        name: &str,
        dtype: ScalarType,
        offset: usize,
        count: usize,
    ) {
        self.name(name);
        self.push(":");
        if count != 1 {
            self.number(count);
            self.push("*");
        }
        self.push(dtype.name());
        self.push("@");
        self.number(offset);
        self.push(";");
    }

    pub(super) const fn end(&mut self, size: usize, align: usize) {
        self.push("size=");
        self.number(size);
        self.push(";align=");
        self.number(align);
    }

    /// Returns `true` if the text was too long for an entry of the segment.
    pub(super) const fn is_cut(&self) -> bool {
        self.wanted > self.len
    }

    /// Returns the length of the full text in bytes, even if it was cut.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    pub(super) fn as_str(&self) -> &str {
        // Names and signs are pushed whole, so the bytes are UTF-8 if the text was not cut.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str() && self.wanted == other.wanted
    }
}

impl Eq for Text {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_spellings_and_impossible_layouts_are_refused() {
        for text in [
            "",
            "size=0;align=1",
            ";size=8;align=8",
            "x:f64@0;size=8;align=+8",
            "x:f64@0;size=08;align=8",
            "x:1*f64@0;size=8;align=8",
            "x:f64@0;size=8;align=3",
            "x:f64@0;size=8;align=128",
            "x:f64@0;size=16;align=8",
            "x:f64@8;size=16;align=8",
            "x:f64@0;y:u8@8;size=9;align=8",
            "x:f80@0;size=10;align=1",
            "a b:f64@0;size=8;align=8",
            "%:f64@0;size=8;align=8",
            "%2:f64@0;size=8;align=8",
            "%+E:f64@0;size=8;align=8",
            "a%2eb:f64@0;size=8;align=8",
            "a%41:f64@0;size=8;align=8",
            "a%FF:f64@0;size=8;align=8",
            "a%é0:f64@0;size=8;align=8",
            ":f64@0;size=8;align=8",
            "x:2305843009213693953*f64@0;size=8;align=8",
            "x:f64@0;size=8;align=8;",
        ] {
            assert_eq!(RecordLayout::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_too_long_is_marked() {
        let mut text = Text::EMPTY;
        text.push(&"x".repeat(MAX_TEXT));
        assert!(!text.is_cut() && text.as_str().len() == MAX_TEXT);
        text.push("y");
        assert!(text.is_cut() && text.as_str().len() == MAX_TEXT);
    }

    fn layouts() -> impl Strategy<Value = RecordLayout> {
        let field = (
            "[a-zA-Z0-9_é]{1,12}",
            prop::sample::select(ScalarType::ALL),
            0usize..50,
        );
        prop::collection::vec(field, 1..20)
            .prop_map(|fields| {
                let mut size = 0;
                let fields = fields
                    .into_iter()
                    .map(|(name, dtype, count)| {
                        let offset = size;
                        size += count * dtype.size();
                        RecordField {
                            name: name.into(),
                            dtype,
                            offset,
                            count,
                        }
                    })
                    .collect();
                RecordLayout {
                    fields,
                    size,
                    align: 1,
                }
            })
            .prop_filter("a record has bytes", |layout| layout.size > 0)
    }

    proptest! {
        #[test]
        fn layouts_round_trip(layout in layouts()) {
            let text = layout.text();
            prop_assert!(!text.is_cut());
            prop_assert_eq!(RecordLayout::parse(text.as_str()), Some(layout));
        }

        #[test]
        fn parsing_is_total(text: String) {
            prop_assert_eq!(RecordLayout::parse(&text), None);
        }

        #[test]
        fn a_changed_text_is_another_layout_or_none(layout in layouts(), at: prop::sample::Index, to: char) {
            let text = layout.text();
            let mut changed: Vec<char> = text.as_str().chars().collect();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != to);
            changed[at] = to;
            let changed: String = changed.into_iter().collect();
            let parsed = RecordLayout::parse(&changed);
            if let Some(parsed) = &parsed {
                prop_assert_eq!(parsed.text().as_str().to_owned(), changed);
            }
            prop_assert_ne!(parsed, Some(layout));
        }
    }
}
