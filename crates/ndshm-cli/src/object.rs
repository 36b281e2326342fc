//! Objects: values that programs have stored, printed as JSON.

mod node;
mod pickled;
mod tensor;
mod text;

use ndshm::Observer;
use ndshm::inspect::ArrayInfo;
use ndshm::object::ObjectHandle;
use serde_json::{Value as Json, json};

use crate::output::{Failure, bytes};
pub use node::Node;
pub use pickled::Pickled;

/// The largest object that the tool copies.
const MOST: u64 = 1 << 30;

/// Reads the value of an object.
pub fn read(observer: &Observer, info: &ArrayInfo) -> Result<Node, Failure> {
    if info.bytes > MOST {
        return Err(Failure::refused(format_args!(
            "{} is an object of {}, and the tool copies at most {}: open it in a program",
            info.handle,
            bytes(info.bytes),
            bytes(MOST)
        )));
    }
    Ok(observer.object(ObjectHandle::from_bits(info.handle.to_bits()))?)
}

/// Selects the part of an object that a path and an index lead to.
pub fn select(node: Node, path: &[String], index: &str) -> Result<Node, Failure> {
    let found = node.part(path)?;
    match (&found, index.trim()) {
        (_, "") => Ok(found),
        (Node::Tensor(tensor), index) => Ok(Node::Tensor(tensor.select(index)?)),
        _ => Err(Failure::usage(format_args!(
            "the index {index:?} is for a tensor, and this is {}: use a path, such as name/key/0",
            found.kind()
        ))),
    }
}

/// Formats a value as JSON on several lines. Long lists are shortened unless `all`.
pub fn print(node: &Node, all: bool) -> String {
    text::print(node, all)
}

/// Returns the document that `get` prints for an object.
pub fn document(info: &ArrayInfo, node: &Node) -> Result<Json, Failure> {
    Ok(json!({
        "handle": info.handle.to_string(),
        "kind": "object",
        "bytes": info.bytes,
        "data": node.json()?,
    }))
}
