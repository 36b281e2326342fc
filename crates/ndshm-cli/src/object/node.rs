//! A value of an object: a tree.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::Value as Json;

use super::tensor::Tensor;
use crate::output::Failure;
use crate::value::Value;

/// Maximum number of values in one object. The memory of a value is up to 32 times as large as its
/// bytes in the segment.
pub const MOST: usize = 1 << 22;

thread_local! {
    /// The number of values that may still be read. A `Deserialize` has no other place for it.
    static LEFT: Cell<usize> = const { Cell::new(MOST) };
}

/// Runs `read`, which may read [`MOST`] values. Returns also `true` if there were more.
pub fn limited<T>(read: impl FnOnce() -> T) -> (T, bool) {
    LEFT.set(MOST);
    let value = read();
    (value, LEFT.get() == 0)
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Node {
    /// Nothing: a unit, or an absent value.
    Null,
    /// A number or a bool.
    Plain(Value),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Node>),
    /// Values by keys: a map or a struct.
    Map(Vec<(String, Node)>),
    /// An array. In a box: the other values are small, and there are many of them.
    Tensor(Box<Tensor>),
}

impl Node {
    /// Returns the value as JSON.
    pub fn json(&self) -> Result<Json, Failure> {
        Ok(match self {
            Node::Null => Json::Null,
            Node::Plain(value) => value.json(),
            Node::Text(text) => text.as_str().into(),
            Node::Bytes(bytes) => Value::Opaque(bytes.clone()).json(),
            Node::List(nodes) => nodes.iter().map(Node::json).collect::<Result<_, _>>()?,
            Node::Map(entries) => {
                let entries = entries.iter();
                let fields = entries.map(|(key, node)| Ok((key.clone(), node.json()?)));
                Json::Object(fields.collect::<Result<_, Failure>>()?)
            }
            Node::Tensor(tensor) => tensor.json()?,
        })
    }

    /// Returns the part that a path leads to.
    pub fn part(self, path: &[String]) -> Result<Node, Failure> {
        let Some((step, _)) = path.split_first() else {
            return Ok(self);
        };
        // A slash at the end leads nowhere, unless there is an empty key.
        let ends = path.iter().all(String::is_empty);
        match self {
            Node::Map(mut entries) => {
                // A key may contain slashes: try the longest first.
                let found = (1..=path.len()).rev().find_map(|steps| {
                    let key = path[..steps].join("/");
                    let at = entries.iter().position(|(name, _)| *name == key)?;
                    Some((at, steps))
                });
                match found {
                    Some((at, steps)) => entries.swap_remove(at).1.part(&path[steps..]),
                    None if ends => Ok(Node::Map(entries)),
                    None => Err(Failure::not_found(format_args!(
                        "there is no key {step:?}; there are {:?}",
                        entries
                            .iter()
                            .take(20)
                            .map(|(key, _)| key)
                            .collect::<Vec<_>>()
                    ))),
                }
            }
            node if ends => Ok(node),
            Node::List(mut nodes) => {
                let at = step.parse::<i64>().ok();
                let at = at.map(|at| if at < 0 { at + nodes.len() as i64 } else { at });
                let at = at.and_then(|at| usize::try_from(at).ok());
                match at.filter(|&at| at < nodes.len()) {
                    Some(at) => nodes.swap_remove(at).part(&path[1..]),
                    None => Err(Failure::not_found(format_args!(
                        "there is no element {step:?} in a list of {}",
                        nodes.len()
                    ))),
                }
            }
            Node::Tensor(tensor) => match path.iter().find(|step| !is_index(step)) {
                Some(step) => Err(Failure::not_found(format_args!(
                    "there is no part {step:?} in a tensor {tensor}: its elements are selected by \
                     indices, such as 0 or 1:3"
                ))),
                None => Ok(Node::Tensor(tensor.select(&path.join(","))?.into())),
            },
            node => Err(Failure::not_found(format_args!(
                "there is no part {step:?} in {}",
                node.kind()
            ))),
        }
    }

    /// Returns a description of the kind of value.
    pub fn kind(&self) -> String {
        match self {
            Node::Null => "null".into(),
            Node::Plain(Value::Bool(_)) => "a bool".into(),
            Node::Plain(_) => "a number".into(),
            Node::Text(_) => "a text".into(),
            Node::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Node::List(nodes) => format!("a list of {}", nodes.len()),
            Node::Map(entries) => format!("a map of {}", entries.len()),
            Node::Tensor(tensor) => format!("a tensor {tensor}"),
        }
    }

    /// Returns the key under which a map has a value of this key.
    fn into_key(self) -> String {
        match self {
            Node::Text(text) => text,
            node => node
                .json()
                .map_or_else(|_| node.kind(), |key| key.to_string()),
        }
    }
}

/// Returns `true` if a step is made of the characters of an index.
fn is_index(step: &str) -> bool {
    step.chars()
        .all(|char| char.is_ascii_digit() || "+-:., []".contains(char))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        match LEFT.get() {
            0 | 1 => {
                LEFT.set(0);
                return Err(D::Error::custom(format_args!("more than {MOST} values")));
            }
            left => LEFT.set(left - 1),
        }
        deserializer.deserialize_any(Any)
    }
}

/// Takes any value.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Plain(Value::Signed(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.visit_u128(value.into())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Plain(Value::Unsigned(value)))
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<Node, E> {
        Ok(Node::Plain(Value::F32(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(Value::F64(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.into()))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Node, E> {
        Ok(Node::Bytes(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = items.next_entry::<Node, Node>()? {
            entries.push((key.into_key(), node));
        }
        Ok(match Tensor::of(&mut entries) {
            Some(tensor) => Node::Tensor(tensor.into()),
            None => Node::Map(entries),
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<Node, A::Error> {
        let (name, value) = variant.variant::<String>()?;
        let value = value.newtype_variant()?;
        Ok(Node::Map(vec![(name, value)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn paths_lead_through_maps_and_lists() {
        const TREE: &str = r#"{"a": [1, {"b/c": "x", "b": {"c": 2}}, null], "n": -1.5}"#;
        let tree = || node(TREE);
        let part = |path: &str| {
            let steps: Vec<String> = path.split('/').map(str::to_owned).collect();
            tree().part(&steps)
        };
        assert_eq!(part("a/0").unwrap(), node("1"));
        assert_eq!(part("a/1/b/c").unwrap(), node("\"x\""), "the longest key");
        assert_eq!(part("a/-1").unwrap(), Node::Null);
        assert_eq!(part("n").unwrap().json().unwrap(), serde_json::json!(-1.5));
        assert_eq!(part("a/1/").unwrap(), part("a/1").unwrap());
        let odd = || node(r#"{"": 1, "k//z": 2, "c/": {"": 3}, "c": 4}"#);
        for (steps, value) in [
            (&[""][..], "1"),
            (&["k", "", "z"], "2"),
            (&["c", "", ""], "3"),
            (&["c"], "4"),
        ] {
            let steps: Vec<String> = steps.iter().map(|&step| step.into()).collect();
            assert_eq!(odd().part(&steps).unwrap(), node(value), "{steps:?}");
        }
        for (path, told) in [
            ("z", r#"no key "z"; there are ["a", "n"]"#),
            ("a/3", "in a list of 3"),
            ("a/x", "in a list of 3"),
            ("n/0", "in a number"),
        ] {
            let failure = part(path).unwrap_err().to_string();
            assert!(failure.contains(told), "{path}: {failure}");
        }
        let same = serde_json::from_str::<Json>(TREE).unwrap();
        assert_eq!(tree().json().unwrap(), same);
    }
}
