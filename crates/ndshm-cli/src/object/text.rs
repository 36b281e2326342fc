//! Values as JSON on several lines: a list of numbers takes one line.

use super::Node;
use super::tensor::Tensor;
use crate::output::Failure;

/// Elements at each end of a list that is shortened.
const ENDS: usize = 5;
/// Elements of the longest list that is not shortened.
const WHOLE: usize = 2 * ENDS + 1;
/// Bytes that are printed of a byte string that is shortened.
const BYTES: usize = 32;

/// Formats a value. Long lists are shortened unless `all`; the text is then no JSON any more.
pub fn print(node: &Node, all: bool) -> Result<String, Failure> {
    let mut text = String::new();
    Printer { all }.node(node, 0, &mut text)?;
    Ok(text)
}

struct Printer {
    all: bool,
}

impl Printer {
    fn node(&self, node: &Node, depth: usize, text: &mut String) -> Result<(), Failure> {
        match node {
            Node::List(nodes) => {
                let inline = nodes.iter().all(is_plain);
                self.list(nodes.len(), inline, depth, text, |at, text| {
                    self.node(&nodes[at], depth + 1, text)
                })?;
            }
            Node::Map(entries) if entries.is_empty() => text.push_str("{}"),
            Node::Map(entries) => {
                text.push('{');
                for (at, (key, node)) in entries.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    line(depth + 1, text);
                    text.push_str(&serde_json::Value::from(key.as_str()).to_string());
                    text.push_str(": ");
                    self.node(node, depth + 1, text)?;
                }
                line(depth, text);
                text.push('}');
            }
            Node::Tensor(tensor) => {
                tensor.fits(if self.all { usize::MAX } else { WHOLE })?;
                self.tensor(tensor, &mut Vec::new(), depth, text)?;
            }
            Node::Bytes(bytes) if !self.all && bytes.len() > BYTES => {
                let start = Node::Bytes(bytes[..BYTES].into());
                self.node(&start, depth, text)?;
                text.push_str(&format!("... ({} bytes)", bytes.len()));
            }
            // Without tensors there is no limit that could be exceeded.
            plain => text.push_str(&plain.json().unwrap_or_default().to_string()),
        }
        Ok(())
    }

    fn tensor(
        &self,
        tensor: &Tensor,
        place: &mut Vec<usize>,
        depth: usize,
        text: &mut String,
    ) -> Result<(), Failure> {
        let Some(&len) = tensor.shape().get(place.len()) else {
            let element = tensor.element(place).map(|value| value.json());
            text.push_str(&element.unwrap_or_default().to_string());
            return Ok(());
        };
        let inline = place.len() + 1 == tensor.shape().len();
        self.list(len, inline, depth, text, |at, text| {
            place.push(at);
            self.tensor(tensor, place, depth + 1, text)?;
            place.pop();
            Ok(())
        })
    }

    fn list(
        &self,
        len: usize,
        inline: bool,
        depth: usize,
        text: &mut String,
        mut element: impl FnMut(usize, &mut String) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let short = !self.all && len > WHOLE;
        // The dots stand for the elements from the first range to the second.
        let (start, end) = match short {
            true => (0..ENDS + 1, len - ENDS..len),
            false => (0..len, 0..0),
        };
        text.push('[');
        for at in start.chain(end) {
            text.push_str(if at > 0 { "," } else { "" });
            match inline {
                true => text.push_str(if at > 0 { " " } else { "" }),
                false => line(depth + 1, text),
            }
            match short && at == ENDS {
                true => text.push_str("..."),
                false => element(at, text)?,
            }
        }
        if !inline && len > 0 {
            line(depth, text);
        }
        text.push(']');
        Ok(())
    }
}

fn is_plain(node: &Node) -> bool {
    !matches!(node, Node::List(_) | Node::Map(_) | Node::Tensor(_))
}

fn line(depth: usize, text: &mut String) {
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_json_until_it_is_shortened() {
        let source = r#"{"a":[1,2],"b":[[1],{"c":null}],"d":{},"e":[]}"#;
        let node: Node = serde_json::from_str(source).unwrap();
        let text = print(&node, false).unwrap();
        let expected = "{\n  \"a\": [1, 2],\n  \"b\": [\n    [1],\n    {\n      \"c\": null\n    }\n  \
                        ],\n  \"d\": {},\n  \"e\": []\n}";
        assert_eq!(text, expected);
        let long: Node = serde_json::from_str(&format!("{:?}", Vec::from_iter(0..12))).unwrap();
        let short = print(&long, false).unwrap();
        assert_eq!(short, "[0, 1, 2, 3, 4, ..., 7, 8, 9, 10, 11]");
        assert_eq!(print(&long, true).unwrap().len(), 38);
    }
}
