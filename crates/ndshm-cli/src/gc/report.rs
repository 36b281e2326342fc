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
        "command": (!leftover.removed).then(|| command(leftover)),
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
        _ => {
            let mut command = "ndshm gc --yes".to_owned();
            if args.persistent {
                command.push_str(" --persistent");
            }
            command.push_str(&arguments(args.segments.iter().map(String::as_str)));
            out.line(escaped(&format!(
                "nothing was changed; to make the changes: {command}"
            )))?;
        }
    }
    let left_alone = leftovers
        .iter()
        .filter(|it| it.action(args) == Action::None);
    for leftover in left_alone {
        let reason = match leftover.finding {
            Finding::Persistent => "is persistent",
            Finding::Unfinished => "begins with zeros, and may be any program's file",
            _ => "is damaged, or of another release",
        };
        out.line(escaped(&format!(
            "{} {reason}; to remove it: {}",
            leftover.place,
            command(leftover)
        )))?;
    }
    Ok(())
}

/// Returns the command that cleans up a leftover.
fn command(leftover: &Leftover) -> String {
    let option = match leftover.finding {
        Finding::Persistent => " --persistent",
        _ => "",
    };
    let name = leftover.place.to_string();
    format!("ndshm gc --yes{option}{}", arguments([&*name].into_iter()))
}

/// Formats names as the last arguments of a command.
fn arguments<'n>(names: impl Iterator<Item = &'n str> + Clone) -> String {
    let separator = names.clone().any(|name| name.starts_with('-'));
    let names = names.map(|name| format!(" {}", quoted(name)));
    let names: String = names.collect();
    match separator {
        true => format!(" --{names}"),
        false => names,
    }
}

/// Quotes a name: a shell passes the result as one argument.
fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_a_shell_would_divide_them() {
        for name in [
            "a-b_c.0",
            "two words",
            "it's",
            "-y",
            "$HOME",
            "12:3",
            "*",
            "",
        ] {
            let echo = format!("printf %s.{}", arguments([name].into_iter()));
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
        assert_eq!(arguments(["-a", "b c"].into_iter()), " -- -a 'b c'");
        assert_eq!(arguments([].into_iter()), "");
    }
}
