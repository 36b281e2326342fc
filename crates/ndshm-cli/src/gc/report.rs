//! What `gc` found and did, as JSON and as text.

use serde_json::{Value, json};

use super::{Action, Args, Finding, Leftover};
use crate::output::{Align, Failure, Output, Style, Table, bytes, escaped};

/// Returns a leftover as JSON.
pub(super) fn document(leftover: &Leftover, args: &Args) -> Value {
    json!({
        "segment": leftover.place.to_string(),
        "finding": leftover.finding.name(),
        "dead_seats": leftover.dead,
        "resident": leftover.resident,
        "action": match leftover.action(args) {
            Action::Remove => "remove",
            Action::Reap => "reap",
            Action::None => "none",
        },
        "done": leftover.removed,
        "problem": leftover.problem,
    })
}

/// Prints the leftovers, and how to clean up those that are left.
pub(super) fn print(leftovers: &[Leftover], args: &Args, out: &Output) -> Result<(), Failure> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("SEGMENT", Left),
        ("RESIDENT", Right),
        ("DEAD", Right),
        ("ACTION", Left),
        ("FINDING", Left),
    ]);
    for leftover in leftovers {
        let action = match (leftover.action(args), leftover.removed) {
            (Action::None, _) => ("left alone".into(), Style::Dim),
            (Action::Remove, true) => ("removed".into(), Style::Good),
            (Action::Reap, true) => ("reaped".into(), Style::Good),
            _ if leftover.problem.is_some() => ("failed".into(), Style::Bad),
            (Action::Remove, false) => ("would be removed".into(), Style::Warn),
            (Action::Reap, false) => ("would be reaped".into(), Style::Warn),
        };
        table.styled([
            (escaped(&leftover.place.to_string()), Style::Plain),
            (bytes(leftover.resident), Style::Plain),
            (leftover.dead.to_string(), Style::Plain),
            action,
            (leftover.finding.text().into(), Style::Plain),
        ]);
    }
    table.print(out)?;
    for leftover in leftovers {
        if let Some(problem) = &leftover.problem {
            out.line(escaped(&format!("{}: {problem}", leftover.place)))?;
        }
    }
    let to_do = leftovers
        .iter()
        .filter(|it| it.action(args) != Action::None)
        .count();
    match to_do {
        0 if leftovers.is_empty() => out.line("nothing is left behind")?,
        0 => out.line("nothing to do")?,
        _ if args.yes => {}
        _ => out.line("nothing was changed: --yes makes the changes")?,
    }
    let left_alone = || {
        leftovers
            .iter()
            .filter(|it| it.action(args) == Action::None)
    };
    for leftover in left_alone().filter(|it| it.finding == Finding::Persistent) {
        let name = leftover.place.to_string();
        out.line(escaped(&format!(
            "{name} is persistent; to remove it: ndshm gc --yes --persistent {}",
            argument(&name)
        )))?;
    }
    match left_alone().any(|it| it.finding != Finding::Persistent) {
        true => out.line(
            "a segment that is damaged or begins with zeros is removed only by name: \
             ndshm gc --yes NAME",
        ),
        false => Ok(()),
    }
}

/// Quotes the name: a shell passes the result as one argument that is not an option.
fn argument(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    let quoted = match name.bytes().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    };
    match name.starts_with('-') {
        true => format!("-- {quoted}"),
        false => quoted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_shell_would_divide_them() {
        for name in ["a-b_c.0", "two words", "it's", "-y", "$HOME", "12:3", "*"] {
            let echo = format!("printf %s. {}", argument(name));
            let shell = std::process::Command::new("sh")
                .args(["-c", &echo])
                .output();
            let printed = String::from_utf8(shell.unwrap().stdout).unwrap();
            match name.strip_prefix('-') {
                // printf takes this `--` for an argument: its options come before the format.
                Some(_) => assert_eq!(printed, format!("--.{name}.")),
                None => assert_eq!(printed, format!("{name}.")),
            }
        }
    }
}
