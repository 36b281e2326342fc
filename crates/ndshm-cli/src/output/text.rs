//! Numbers and names in readable form.

use std::time::Duration;

use ndshm::inspect::Bytes;

/// Escapes control characters: anybody may choose the names of files and processes.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => escaped.push(char),
            char if char.is_control() => escaped.extend(char.escape_default()),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Formats a number of things, such as `1 part` and `2 parts`.
pub fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

/// Formats a number of bytes in a suitable unit.
pub fn bytes(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// Formats a time span in its largest unit.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(escaped("a\x1b[31mb\rc\u{9b}d"), "a\\u{1b}[31mb\\rc\\u{9b}d");
        assert_eq!(escaped("größe\nzwei"), "größe\nzwei");
    }

    #[test]
    fn one_is_no_plural() {
        let parts = [0, 1, 2].map(|count| counted(count, "part"));
        assert_eq!(parts, ["0 parts", "1 part", "2 parts"]);
    }

    #[test]
    fn ages_are_in_their_unit() {
        let written = [0, 59, 60, 7200, 200_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(written, ["0 s", "59 s", "1 min", "2 h", "2 d"]);
    }
}
