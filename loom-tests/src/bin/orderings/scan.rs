//! Finds the orderings in the text of the source.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An ordering, and the operation that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The file, relative to the workspace's root.
    pub file: String,
    /// The position of the operation's name: the caller's location, as the compiler reports it.
    pub line: u32,
    pub column: u32,
    /// The enclosing function.
    pub function: String,
    /// The operation's name, and its number among the operations of that name in the function, from
    /// 1.
    pub operation: String,
    pub nth: usize,
    /// `true` for the ordering of a load, or for the second ordering of an exchange.
    pub look: bool,
    pub order: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.look { "look" } else { "change" };
        write!(f, "{} {}", self.operation, part)?;
        if self.nth > 1 {
            write!(f, " (no. {})", self.nth)?;
        }
        Ok(())
    }
}

/// Files that the models cannot run, and the reason.
pub const OUTSIDE: [(&str, &str); 6] = [
    (
        "src/segment/lifecycle/initialize.rs",
        "I3: one compare-and-swap of the header, on a mapping; the segment's tests race creators",
    ),
    (
        "src/segment/mapped.rs",
        "the turn of threads at the first use after a fork, in private memory",
    ),
    (
        "src/segment/mapped/gate.rs",
        "the count of this process's seats, in private memory; `tests/passing` races joins and a leave",
    ),
    (
        "src/segment/os/fork.rs",
        "the page by which a process tells that it is a fork's child",
    ),
    (
        "src/segment/os/lock.rs",
        "bits beside the kernel's lock, of one process",
    ),
    (
        "src/table/roster.rs",
        "the tables of one process, which a model does not fork",
    ),
];

/// Orderings of two stores to one word, or of loads before a store, by file and function, and the
/// reason. The model checker gives all stores to a word the order in which it runs them, and no load
/// a later value. So it cannot refuse a weaker one.
pub const OF_STORES: [(&str, &str, &str); 2] = [
    (
        "src/pool/foreign/words.rs",
        "free",
        "the parent's reset of a report comes before the answer of the place's next occupant",
    ),
    (
        "src/pool/report.rs",
        "take",
        "the parent's reads of a failure come before the worker's next failure",
    ),
];

/// The facade itself, which passes the orderings on.
const FACADE: &str = "src/sync";

/// Returns all orderings above Relaxed below `src`, sorted by file and line.
///
/// # Errors
/// If a file cannot be read, or if the operation of an ordering is not found.
pub fn scan(root: &Path) -> io::Result<Vec<Asked>> {
    let mut files = Vec::new();
    list(&root.join("src"), &mut files)?;
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(&path);
        let name = name.to_string_lossy().into_owned();
        let outside = OUTSIDE.iter().any(|(file, _)| *file == name);
        let tests = name.contains("/tests/") || name.ends_with("tests.rs");
        if outside || tests || name.starts_with(FACADE) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        all.extend(of_file(&name, &text).map_err(io::Error::other)?);
        all.retain(|asked| {
            let place = (asked.file.as_str(), asked.function.as_str());
            OF_STORES
                .iter()
                .all(|&(file, function, _)| (file, function) != place)
        });
    }
    Ok(all)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the orderings of one file, up to its unit tests.
fn of_file(name: &str, text: &str) -> Result<Vec<Asked>, String> {
    let code = without_comments(text);
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut calls: Vec<(usize, Vec<&str>)> = Vec::new();
    let orders = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];
    for (at, token) in code.match_indices("Ordering::") {
        let rest = &code[at + token.len()..];
        let Some(order) = orders.iter().find(|order| rest.starts_with(**order)) else {
            continue;
        };
        match call_around(code, at) {
            Some(call) => match calls.last_mut() {
                Some((last, orders)) if *last == call => orders.push(order),
                _ => calls.push((call, vec![order])),
            },
            None if *order == "Relaxed" => {}
            None => {
                let line = line_of(code, at);
                return Err(format!(
                    "{name}:{line}: Ordering::{order} is not an argument of a call"
                ));
            }
        }
    }
    // The name of this operation implies its ordering.
    for (at, token) in code.match_indices(".publish_owned(") {
        calls.push((at + token.len() - "publish_owned(".len(), vec!["Release"]));
    }
    calls.sort_by_key(|(at, _)| *at);
    let mut found: Vec<Asked> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for (at, orders) in calls {
        let operation = identifier(&code[at..]).to_owned();
        let function = function_around(code, at).to_owned();
        seen.push((function.clone(), operation.clone()));
        let nth = seen
            .iter()
            .filter(|(f, o)| *f == function && *o == operation)
            .count();
        for (index, order) in orders.into_iter().enumerate() {
            if order == "Relaxed" {
                continue;
            }
            found.push(Asked {
                file: name.to_owned(),
                line: line_of(code, at),
                column: (at - code[..at].rfind('\n').map_or(0, |end| end + 1) + 1) as u32,
                function: function.clone(),
                operation: operation.clone(),
                nth,
                look: operation == "load" || index > 0,
                order: order.to_owned(),
            });
        }
    }
    Ok(found)
}

/// Replaces comments, strings and non-ASCII characters by blanks, byte for byte.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut in_text = false;
    for line in text.split_inclusive('\n') {
        let mut bytes = line.char_indices().peekable();
        let mut comment = false;
        while let Some((at, character)) = bytes.next() {
            comment |= !in_text && line[at..].starts_with("//");
            if character == '\n' {
                code.push('\n');
            } else if comment {
                code.extend(std::iter::repeat_n(' ', character.len_utf8()));
            } else if in_text && character == '\\' {
                code.push(' ');
                if let Some((_, next)) = bytes.next_if(|(_, next)| *next != '\n') {
                    code.extend(std::iter::repeat_n(' ', next.len_utf8()));
                }
            } else if character == '"' && !line[..at].ends_with('\'') {
                in_text = !in_text;
                code.push(' ');
            } else if in_text || !character.is_ascii() {
                code.extend(std::iter::repeat_n(' ', character.len_utf8()));
            } else {
                code.push(character);
            }
        }
    }
    code
}

/// Returns the position of the name of the call that has the byte `at` among its arguments.
fn call_around(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (position, byte) in code.bytes().enumerate().take(at).rev() {
        match byte {
            b')' | b']' | b'}' => depth += 1,
            b'(' | b'[' | b'{' if depth > 0 => depth -= 1,
            b'(' => {
                let name = code[..position]
                    .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .map_or(0, |before| before + 1);
                return (name < position).then_some(name);
            }
            b'[' | b'{' => return None,
            _ => {}
        }
    }
    None
}

/// Returns the name of the last function that begins before `at`.
fn function_around(code: &str, at: usize) -> &str {
    code[..at]
        .rfind("fn ")
        .map_or("", |start| identifier(&code[start + 3..]))
}

fn identifier(code: &str) -> &str {
    let end = code.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    &code[..end.unwrap_or(code.len())]
}

fn line_of(code: &str, at: usize) -> u32 {
    code[..at].matches('\n').count() as u32 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_with_their_orderings() {
        let text = r#"
/// Ordering::SeqCst in a comment, and "Ordering::AcqRel in a text".
fn one(&self) {
    let seen = self.word.load(Ordering::Acquire);
    self.words[f(1)]
        .update(Ordering::AcqRel, Ordering::Acquire, |_| None);
    self.word.load(Ordering::Relaxed);
    self.word.load(Ordering::Acquire);
}
fn two() {
    word.publish_owned(a, b);
}
#[cfg(test)]
mod tests { fn x() { word.load(Ordering::Acquire); } }
"#;
        let found = of_file("src/x.rs", text).unwrap();
        let brief: Vec<_> = found
            .iter()
            .map(|a| format!("{}:{}:{} {a} {}", a.line, a.column, a.function, a.order))
            .collect();
        assert_eq!(
            brief,
            [
                "4:26:one load look Acquire",
                "6:10:one update change AcqRel",
                "6:10:one update look Acquire",
                "8:15:one load look (no. 3) Acquire",
                "11:10:two publish_owned change Release",
            ]
        );
        let stray = of_file("src/x.rs", "fn one() { let order = Ordering::Acquire; }");
        assert!(stray.unwrap_err().contains("src/x.rs:1"));
    }
}
