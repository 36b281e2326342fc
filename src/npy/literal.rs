//! A total parser of Python literals, limited to those in the headers of numpy's files.

use core::fmt;

/// Maximal nesting of lists and tuples; numpy's own headers reach five.
const DEPTH: usize = 16;

/// A Python value.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Literal {
    Text(String),
    Number(u64),
    Bool(bool),
    None,
    /// A tuple or a list.
    Sequence(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Parses `text`, ignoring spaces around it. Returns the problem and its place if it is not a
    /// literal.
    pub(super) fn parse(text: &str) -> Result<Literal, ParseError> {
        let mut parser = Parser {
            rest: text,
            len: text.len(),
        };
        let value = parser.value(0)?;
        parser.skip_spaces();
        match parser.rest {
            "" => Ok(value),
            _ => Err(parser.error("more text after the end")),
        }
    }
}

/// The reason and place of a parse error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ParseError {
    at: usize,
    what: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the header's text", self.what, self.at)
    }
}

struct Parser<'t> {
    /// The text that has not been read yet.
    rest: &'t str,
    /// Bytes of the whole text.
    len: usize,
}

impl Parser<'_> {
    /// Creates an error at the current place.
    fn error(&self, what: &'static str) -> ParseError {
        ParseError {
            at: self.len - self.rest.len(),
            what,
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t', '\r']);
    }

    /// Skips `prefix` if it is next. Returns `true` if it was.
    fn skip(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips spaces, and then `sign` if it is next. Returns `true` if it was.
    fn skip_sign(&mut self, sign: &str) -> bool {
        self.skip_spaces();
        self.skip(sign)
    }

    fn value(&mut self, depth: usize) -> Result<Literal, ParseError> {
        if depth > DEPTH {
            return Err(self.error("brackets nested too deeply"));
        }
        let inner = |parser: &mut Self| parser.value(depth + 1);
        if self.skip_sign("(") {
            let (mut items, comma) = self.items(")", inner)?;
            // `(3)` is the number 3, `(3,)` is a tuple.
            return Ok(match items.len() {
                1 if !comma => items.remove(0),
                _ => Literal::Sequence(items),
            });
        }
        if self.skip("[") {
            return Ok(Literal::Sequence(self.items("]", inner)?.0));
        }
        if self.skip("{") {
            let entry = |parser: &mut Self| {
                let key = inner(parser)?;
                match parser.skip_sign(":") {
                    true => Ok((key, inner(parser)?)),
                    false => Err(parser.error("no colon after a key")),
                }
            };
            return Ok(Literal::Dict(self.items("}", entry)?.0));
        }
        if let Some(b'+' | b'0'..=b'9') = self.rest.bytes().next() {
            return self.number().map(Literal::Number);
        }
        let Some(mut text) = self.string()? else {
            return self.word();
        };
        // Adjacent strings are one string.
        self.skip_spaces();
        while let Some(more) = self.string()? {
            text += &more;
            self.skip_spaces();
        }
        Ok(Literal::Text(text))
    }

    /// Reads items up to `close`. Returns them, and `true` if a comma followed the last one.
    fn items<T>(
        &mut self,
        close: &str,
        item: impl Fn(&mut Self) -> Result<T, ParseError>,
    ) -> Result<(Vec<T>, bool), ParseError> {
        let mut items = Vec::new();
        let mut comma = true;
        while !self.skip_sign(close) {
            if !comma {
                return Err(self.error("no comma between two items"));
            }
            items.push(item(self)?);
            comma = self.skip_sign(",");
        }
        Ok((items, comma))
    }

    fn word(&mut self) -> Result<Literal, ParseError> {
        for (word, value) in [
            ("True", Literal::Bool(true)),
            ("False", Literal::Bool(false)),
            ("None", Literal::None),
        ] {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.error("neither a string, a number, a bracket, True, False nor None"))
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        self.skip("+");
        let radix = match self.rest.get(..2) {
            Some("0x" | "0X") => 16,
            Some("0o" | "0O") => 8,
            Some("0b" | "0B") => 2,
            _ => 10,
        };
        if radix != 10 {
            self.rest = &self.rest[2..];
        }
        let rest = self.rest.trim_start_matches(|c: char| c.is_digit(radix));
        let digits = &self.rest[..self.rest.len() - rest.len()];
        if digits.is_empty() {
            return Err(self.error("a number without a digit"));
        }
        let number = u64::from_str_radix(digits, radix)
            .map_err(|_| self.error("a number of 2^64 or more"))?;
        self.rest = rest;
        // Python 2 wrote long integers this way.
        self.skip("L");
        Ok(number)
    }

    /// Reads a string: quotes, after `u` and `b` as Python 2 wrote them, or `r`. Returns `None` if
    /// something else is next.
    fn string(&mut self) -> Result<Option<String>, ParseError> {
        let quoted = self.rest.trim_start_matches(['u', 'U', 'b', 'B', 'r', 'R']);
        let mut quotes = ["\'\'\'", "\"\"\"", "\'", "\""].into_iter();
        let Some(close) = quotes.find(|quotes| quoted.starts_with(quotes)) else {
            return Ok(None);
        };
        let raw = self.rest[..self.rest.len() - quoted.len()].contains(['r', 'R']);
        self.rest = &quoted[close.len()..];
        let mut string = String::new();
        while !self.skip(close) {
            let invalid = self.error("an invalid escape");
            match self.next() {
                Some('\\') if !raw => string.push(self.escaped().ok_or(invalid)?),
                Some(c) if c != '\n' || close.len() > 1 => string.push(c),
                _ => return Err(self.error("an unterminated string")),
            }
        }
        Ok(Some(string))
    }

    fn escaped(&mut self) -> Option<char> {
        let digits = match self.next()? {
            'n' => return Some('\n'),
            't' => return Some('\t'),
            'r' => return Some('\r'),
            c @ ('\\' | '\'' | '"') => return Some(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let (text, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        // `from_str_radix` accepts a sign.
        let is_hex = text.chars().all(|c| c.is_ascii_hexdigit());
        char::from_u32(is_hex.then(|| u32::from_str_radix(text, 16).ok())??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    #[test]
    fn a_header_of_numpy_is_parsed() {
        let header = "{'descr': [('a', '<f8', (3,)), ('b\\xad', '|u1')], 'fortran_order': False, \
                      'shape': (2, 3L), }   \n";
        let sequence = Literal::Sequence;
        let descr = sequence(vec![
            sequence(vec![
                text("a"),
                text("<f8"),
                sequence(vec![Literal::Number(3)]),
            ]),
            sequence(vec![text("b\u{ad}"), text("|u1")]),
        ]);
        let shape = sequence(vec![Literal::Number(2), Literal::Number(3)]);
        let expected = Literal::Dict(vec![
            (text("descr"), descr),
            (text("fortran_order"), Literal::Bool(false)),
            (text("shape"), shape),
        ]);
        assert_eq!(Literal::parse(header), Ok(expected));
    }

    #[test]
    fn other_spellings_of_python_are_read() {
        for (spelled, is) in [
            ("'<' 'f8'", "<f8"),
            ("'<'\n\"f8\"", "<f8"),
            ("'''<f8'''", "<f8"),
            ("\"\"\"a'b\nc\"\"\"", "a'b\nc"),
            ("r'a\\b'", "a\\b"),
            ("U'' b'x'", "x"),
        ] {
            assert_eq!(Literal::parse(spelled), Ok(text(is)), "{spelled}");
        }
        for (spelled, is) in [
            ("0x1F", 31),
            ("0o17", 15),
            ("0B101", 5),
            ("+3", 3),
            ("007", 7),
        ] {
            assert_eq!(
                Literal::parse(spelled),
                Ok(Literal::Number(is)),
                "{spelled}"
            );
        }
    }

    #[test]
    fn brackets_around_one_value_are_not_a_tuple() {
        assert_eq!(Literal::parse("(3)"), Ok(Literal::Number(3)));
        assert_eq!(Literal::parse("()"), Ok(Literal::Sequence(vec![])));
        let three = Literal::Sequence(vec![Literal::Number(3)]);
        assert_eq!(Literal::parse("( 3 , )"), Ok(three));
    }

    #[test]
    fn invalid_literals_are_refused_with_their_place() {
        for (wrong, what) in [
            ("", "neither a string"),
            ("(1 2)", "no comma between two items at byte 3"),
            ("{'a' 1}", "no colon after a key at byte 5"),
            ("{'a': 1 'b': 2}", "no comma between two items at byte 8"),
            ("'a", "an unterminated string"),
            ("'''a''", "an unterminated string"),
            ("0x", "a number without a digit at byte 2"),
            ("+", "a number without a digit at byte 1"),
            ("'\\q'", "an invalid escape at byte 1"),
            ("'\\ud800'", "an invalid escape"),
            ("'\\x+1'", "an invalid escape"),
            ("18446744073709551616", "a number of 2^64 or more"),
            ("-1", "neither a string"),
            ("Truely", "neither a string"),
            ("1 1", "more text after the end at byte 2"),
            ("__import__('os')", "neither a string"),
            (&"[".repeat(100_000), "brackets nested too deeply"),
        ] {
            let error = Literal::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(what), "{wrong:.20}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total(text: String) {
            let _ = Literal::parse(&text);
        }

        #[test]
        fn parsing_texts_of_these_signs_is_total(text in "[\\[\\](){}',:\\\\xuU0-9aé ]{0,64}") {
            let _ = Literal::parse(&text);
        }
    }
}
