//! Compares texts with files, after replacing the parts that differ from run to run.

use std::path::PathBuf;

/// Compares `text` with the snapshot of this name, or writes the snapshot if `UPDATE_SNAPSHOTS` is
/// set.
#[track_caller]
pub fn compare(name: &str, text: &str, replaced: &[(&str, &str)]) {
    let text = even(text, replaced);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tool/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs (UPDATE_SNAPSHOTS=1 renews it); it was\n{expected}\nand is\n{text}",
        path.display()
    );
}

/// Replaces the given texts, numbers the handles in order of appearance, and evens out runs of
/// spaces: the width of a column depends on the pids in it.
fn even(text: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replaced {
        text = with_word_replaced(&text, from, to);
    }
    let mut handles: Vec<String> = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("ndshm:") {
        let handle: String = rest[at..].chars().take(22).collect();
        let digits = handle.chars().skip(6).all(|char| char.is_ascii_hexdigit());
        if handle.len() == 22 && digits && !handles.contains(&handle) {
            handles.push(handle);
        }
        rest = &rest[at + 6..];
    }
    for (at, handle) in handles.iter().enumerate() {
        text = text.replace(handle, &format!("HANDLE{at}"));
    }
    let lines = text.lines().map(|line| {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let words: Vec<&str> = trimmed.split("  ").map(str::trim).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        // The indent of a column of numbers depends on its longest number.
        let indent = if words.len() > 1 { "" } else { indent };
        format!("{indent}{}\n", words.join("  "))
    });
    lines.collect()
}

/// Replaces `from` where it is a word: the digits of a pid may occur within a longer number.
fn with_word_replaced(text: &str, from: &str, to: &str) -> String {
    let is_apart = |neighbour: Option<char>| neighbour.is_none_or(|char| !char.is_alphanumeric());
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(from) {
        let after = &rest[at + from.len()..];
        let before = rest[..at]
            .chars()
            .next_back()
            .or(replaced.chars().next_back());
        let is_word = is_apart(before) && is_apart(after.chars().next());
        replaced += &rest[..at];
        replaced += if is_word { to } else { from };
        rest = after;
    }
    replaced + rest
}
