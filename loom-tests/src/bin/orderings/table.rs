//! `ORDERINGS.md`: the model that needs each ordering.

use std::fmt::Write;

use crate::scan::{Asked, OF_STORES, OUTSIDE};

/// An ordering, a weaker one, and the model that refuses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub file: String,
    pub function: String,
    pub operation: String,
    pub order: String,
    pub weaker: String,
    /// `file::name` of the model's test.
    pub model: String,
    /// A preemption bound that suffices.
    pub bound: usize,
}

impl Row {
    /// Returns `true` if the row is about `asked`, weakened to `weaker`.
    pub fn is_of(&self, asked: &Asked, weaker: &str) -> bool {
        self.file == asked.file
            && self.function == asked.function
            && self.operation == asked.to_string()
            && self.order == asked.order
            && self.weaker == weaker
    }
}

const HEAD: &str = "# Orderings, and the models that need them

Written by `cargo loom-orderings`; `cargo loom-orderings --check` holds it against the code. Every \
ordering above Relaxed of the code that the models run is weakened, one at a time, and the models \
that use it are run until one is refused. `load look` is the ordering of a load, `update change` \
that of a compare-and-swap loop when it succeeds, `update look` that of its first load and of its \
failures. An `AcqRel` is weakened both ways. \"Bound\" is the preemption bound with which the model \
is refused.
";

/// Formats the file.
pub fn print(rows: &[Row]) -> String {
    let mut text = format!("{HEAD}\n{} weakenings, no survivor.\n", rows.len());
    let mut file = "";
    for row in rows {
        if row.file != file {
            file = &row.file;
            let _ = write!(
                text,
                "\n## {file}\n\n| function | operation | ordering | weakened to | model | bound |\n|---|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | `{}` | {} |",
            row.function, row.operation, row.order, row.weaker, row.model, row.bound
        );
    }
    text += "\n## Not run by the models\n\n| file | what its orderings are for |\n|---|---|\n";
    for (file, what) in OUTSIDE {
        let _ = writeln!(text, "| {file} | {what} |");
    }
    text += "\n## Orders of two stores, or of loads before a store, which the model checker never exchanges\n\n\
             | file | function | what its ordering is for |\n|---|---|---|\n";
    for (file, function, what) in OF_STORES {
        let _ = writeln!(text, "| {file} | `{function}` | {what} |");
    }
    text
}

/// Parses the output of [`print`].
pub fn parse(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut file = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            file = name;
        }
        let cells: Vec<&str> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        if let ["", function, operation, order, weaker, model, bound, ""] = cells[..]
            && let Ok(bound) = bound.parse()
        {
            rows.push(Row {
                file: file.to_owned(),
                function: function.to_owned(),
                operation: operation.to_owned(),
                order: order.to_owned(),
                weaker: weaker.to_owned(),
                model: model.to_owned(),
                bound,
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed() {
        let row = Row {
            file: "src/a.rs".into(),
            function: "f".into(),
            operation: "update look (no. 2)".into(),
            order: "AcqRel".into(),
            weaker: "Release".into(),
            model: "leases::m".into(),
            bound: 2,
        };
        let other = Row {
            file: "src/b.rs".into(),
            ..row.clone()
        };
        let rows = [row, other];
        assert_eq!(parse(&print(&rows)), rows);
    }
}
