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
    pub(super) fn parse(text: &str) -> Result<Literal, Wrong> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.spaces();
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(parser.wrong("more text after the end")),
        }
    }
}

/// The place and reason of a parse error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    at: usize,
    what: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the header's text", self.what, self.at)
    }
}

struct Parser<'t> {
    text: &'t str,
    /// The next byte; always the start of a character.
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &'static str) -> Wrong {
        Wrong { at: self.at, what }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn spaces(&mut self) {
        while self
            .peek()
            .is_some_and(|c| matches!(c, ' ' | '\n' | '\t' | '\r'))
        {
            self.at += 1;
        }
    }

    /// Skips spaces. Returns `true` and skips `sign` if it is next.
    fn passes(&mut self, sign: char) -> bool {
        self.spaces();
        let is_next = self.peek() == Some(sign);
        if is_next {
            self.at += sign.len_utf8();
        }
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Literal, Wrong> {
        if depth > DEPTH {
            return Err(self.wrong("brackets nested too deeply"));
        }
        self.spaces();
        match self.peek() {
            Some('\'' | '"') => self.strings(),
            Some('0'..='9') => self.number(),
            Some('+') => {
                self.at += 1;
                self.number()
            }
            Some('(') => self.tuple(depth),
            Some('[') => self
                .sequence(']', depth)
                .map(|(items, _)| Literal::Sequence(items)),
            Some('{') => self.dict(depth),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Literal, Wrong> {
        for (word, value) in [
            ("True", Literal::Bool(true)),
            ("False", Literal::Bool(false)),
            ("None", Literal::None),
        ] {
            let rest = self.text.get(self.at..).unwrap_or_default();
            if let Some(rest) = rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.at += word.len();
                return Ok(value);
            }
        }
        if self.is_string() {
            return self.strings();
        }
        Err(self.wrong("neither a string, a number, a bracket, True, False nor None"))
    }

    fn number(&mut self) -> Result<Literal, Wrong> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let prefix = rest.get(..2).unwrap_or_default();
        let radix = match prefix {
            "0x" | "0X" => 16,
            "0o" | "0O" => 8,
            "0b" | "0B" => 2,
            _ => 10,
        };
        if radix != 10 {
            self.at += prefix.len();
        }
        if !self.peek().is_some_and(|c| c.is_digit(radix)) {
            return Err(self.wrong("a number without a digit"));
        }
        let mut number = 0u64;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) {
            number = number
                .checked_mul(radix.into())
                .and_then(|number| number.checked_add(digit.into()))
                .ok_or_else(|| self.wrong("a number of 2^64 or more"))?;
            self.at += 1;
        }
        // Python 2 wrote long integers this way.
        if self.peek() == Some('L') {
            self.at += 1;
        }
        Ok(Literal::Number(number))
    }

    /// Returns `true` if a string is next: quotes, after `u` and `b` as Python 2 wrote them, or `r`.
    fn is_string(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.trim_start_matches(['u', 'U', 'b', 'B', 'r', 'R'])
            .starts_with(['\'', '"'])
    }

    /// Reads strings; adjacent strings are one string.
    fn strings(&mut self) -> Result<Literal, Wrong> {
        let mut text = self.string()?;
        self.spaces();
        while self.is_string() {
            text += &self.string()?;
            self.spaces();
        }
        Ok(Literal::Text(text))
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let mut raw = false;
        while let Some(prefix) = self.peek().filter(|c| !matches!(c, '\'' | '"')) {
            raw |= matches!(prefix, 'r' | 'R');
            self.at += prefix.len_utf8();
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let close = ["\'\'\'", "\"\"\"", "\'", "\""]
            .into_iter()
            .find(|quotes| rest.starts_with(quotes))
            .ok_or_else(|| self.wrong("not a string"))?;
        self.at += close.len();
        let mut string = String::new();
        loop {
            let place = self.at;
            let rest = self.text.get(place..).unwrap_or_default();
            if rest.starts_with(close) {
                self.at += close.len();
                return Ok(string);
            }
            match self.next() {
                None => return Err(self.wrong("an unterminated string")),
                Some('\n') if close.len() == 1 => {
                    return Err(self.wrong("an unterminated string"));
                }
                Some('\\') if !raw => {
                    let c = self.escaped().ok_or(Wrong {
                        at: place,
                        what: "an invalid escape",
                    })?;
                    string.push(c);
                }
                Some(c) => string.push(c),
            }
        }
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
        let text = self.text.get(self.at..self.at + digits)?;
        self.at += digits;
        let digit = |c: char| c.is_ascii_hexdigit();
        let code = text
            .chars()
            .all(digit)
            .then(|| u32::from_str_radix(text, 16).ok())??;
        char::from_u32(code)
    }

    /// Reads items up to `close`. Returns them, and `true` if a comma followed the last one.
    fn sequence(&mut self, close: char, depth: usize) -> Result<(Vec<Literal>, bool), Wrong> {
        self.at += 1;
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if self.passes(close) {
                return Ok((items, comma));
            }
            if !items.is_empty() && !comma {
                return Err(self.wrong("no comma between two items"));
            }
            items.push(self.value(depth + 1)?);
            comma = self.passes(',');
        }
    }

    /// Reads a tuple. `(3)` is the number 3, `(3,)` is a tuple.
    fn tuple(&mut self, depth: usize) -> Result<Literal, Wrong> {
        let (mut items, comma) = self.sequence(')', depth)?;
        match (items.len(), comma) {
            (1, false) => Ok(items.remove(0)),
            _ => Ok(Literal::Sequence(items)),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, Wrong> {
        self.at += 1;
        let mut items = Vec::new();
        let mut comma = true;
        loop {
            if self.passes('}') {
                return Ok(Literal::Dict(items));
            }
            if !comma {
                return Err(self.wrong("no comma between two items"));
            }
            let key = self.value(depth + 1)?;
            if !self.passes(':') {
                return Err(self.wrong("no colon after a key"));
            }
            items.push((key, self.value(depth + 1)?));
            comma = self.passes(',');
        }
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
