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
pub use node::{MOST as VALUES, Node};
pub use pickled::Pickled;

/// The largest object that the tool copies.
const MOST: u64 = 256 << 20;
/// The remedy for an object that is too large for the tool.
const REMEDY: &str = "open it in a Rust program, with HandleTable::open_object";

/// Reads the value of an object.
pub fn read(observer: &Observer, info: &ArrayInfo) -> Result<Node, Failure> {
    if info.bytes > MOST {
        return Err(Failure::refused(format_args!(
            "{} is an object of {}, and the tool copies at most {}: {REMEDY}",
            info.handle,
            bytes(info.bytes),
            bytes(MOST)
        )));
    }
    let handle = ObjectHandle::from_bits(info.handle.to_bits());
    match node::limited(|| observer.object(handle)) {
        (_, true) => Err(Failure::refused(format_args!(
            "{} is an object of more than {VALUES} values, and the tool reads no more: {REMEDY}; \
             numbers that are stored as a tensor count as one value",
            info.handle
        ))),
        (node, false) => Ok(node?),
    }
}

/// Selects the part of an object that a path and an index lead to.
pub fn select(node: Node, path: &[String], index: &str) -> Result<Node, Failure> {
    let found = node.part(path)?;
    match (found, index.trim()) {
        (found, "") => Ok(found),
        (Node::Tensor(tensor), index) => Ok(Node::Tensor(tensor.select(index)?.into())),
        (found, _) => Err(Failure::usage(format_args!(
            "the index {index:?} is for a tensor, and this is {}: use a path, such as name/key/0",
            found.kind()
        ))),
    }
}

/// Formats a value as JSON on several lines. Long lists are shortened unless `all`.
pub fn print(node: &Node, all: bool) -> Result<String, Failure> {
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
