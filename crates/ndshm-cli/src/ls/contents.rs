//! The contents of one segment as a tree: arrays, bundles with their parts, objects with theirs.

use std::collections::{HashMap, HashSet};

use ndshm::inspect::ArrayInfo;
use ndshm::{AnyHandle, Observer};
use serde_json::{Value as Json, json};

use crate::object::{self, Node};
use crate::output::{Align, Failure, Output, Table, bytes, escaped};
use crate::path::Kind;

/// The largest object whose parts are listed: listing them copies it.
const LARGEST: u64 = 16 << 20;
/// The most parts of an object that are listed as text.
const MANY: usize = 20;

/// An entry of the list.
struct Entry {
    /// The path from the segment.
    path: String,
    /// The last piece of the path.
    name: String,
    handle: Option<AnyHandle>,
    kind: &'static str,
    /// The type of the elements, or a description of the value.
    dtype: Option<String>,
    shape: Option<Vec<usize>>,
    bytes: Option<u64>,
    parts: Vec<Entry>,
}

/// Prints the contents of a segment.
pub fn print(observer: &Observer, out: &Output) -> Result<(), Failure> {
    use Align::{Left, Right};
    let entries = entries(observer)?;
    if out.json() {
        return out.document(&entries.iter().map(Entry::document).collect());
    }
    let mut table = Table::new(&[
        ("PATH", Left),
        ("KIND", Left),
        ("SHAPE", Left),
        ("BYTES", Right),
    ]);
    for entry in &entries {
        entry.rows(0, &mut table);
    }
    match entries.is_empty() {
        true => out.line("the segment has no arrays"),
        false => table.print(out),
    }
}

/// Returns the entries, sorted by name; those without a name come last.
fn entries(observer: &Observer) -> Result<Vec<Entry>, Failure> {
    let mut names = HashMap::<u64, Vec<String>>::new();
    for info in observer.names("")? {
        let of = names.entry(info.handle.to_bits()).or_default();
        of.push(info.name);
    }
    // Lists what has several names under the first, which leads to it as the others do.
    let path = |handle: AnyHandle| match names.get(&handle.to_bits()) {
        Some(names) => names[0].clone(),
        None => handle.to_string(),
    };
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for bundle in observer.bundles() {
        let handle = AnyHandle::from(bundle.handle);
        let path = path(handle);
        let part = |part: &ndshm::inspect::NameInfo| {
            seen.insert(part.handle.to_bits());
            // A part that is freed meanwhile is left out.
            let info = observer.info(part.handle).ok()?;
            let path = format!("{path}/{}", part.name);
            Some(Entry::of(observer, &info, path, part.name.clone()))
        };
        let parts: Vec<Entry> = bundle.parts.iter().filter_map(part).collect();
        entries.push(Entry {
            name: path.clone(),
            handle: Some(handle),
            kind: "bundle",
            dtype: None,
            shape: None,
            bytes: Some(parts.iter().filter_map(|part| part.bytes).sum()),
            parts,
            path,
        });
    }
    for info in observer.arrays() {
        if !seen.contains(&info.handle.to_bits()) {
            let path = path(info.handle);
            entries.push(Entry::of(observer, &info, path.clone(), path));
        }
    }
    let is_named = |entry: &Entry| {
        let handle = entry.handle.map(AnyHandle::to_bits);
        handle.is_some_and(|handle| names.contains_key(&handle))
    };
    entries.sort_by_cached_key(|entry| (!is_named(entry), entry.path.clone()));
    Ok(entries)
}

impl Entry {
    fn of(observer: &Observer, info: &ArrayInfo, path: String, name: String) -> Entry {
        let kind = Kind::of(&info.dtype);
        let node = match kind {
            Kind::Object if info.bytes <= LARGEST => object::read(observer, info).ok(),
            _ => None,
        };
        Entry {
            name,
            handle: Some(info.handle),
            kind: kind.name(),
            dtype: (kind == Kind::Array).then(|| info.dtype.to_string()),
            shape: (kind == Kind::Array).then(|| info.shape.clone()),
            bytes: Some(info.bytes),
            parts: node.map_or(Vec::new(), |node| parts(&node, &path)),
            path,
        }
    }

    fn document(&self) -> Json {
        json!({
            "path": self.path,
            "handle": self.handle.map(|handle| handle.to_string()),
            "kind": self.kind,
            "dtype": self.dtype,
            "shape": self.shape,
            "bytes": self.bytes,
            "parts": self.parts.iter().map(Entry::document).collect::<Json>(),
        })
    }

    fn rows(&self, depth: usize, table: &mut Table) {
        let kind = match (self.kind, &self.dtype) {
            ("python", _) => "Python object",
            (kind, None) => kind,
            (_, Some(dtype)) => dtype,
        };
        let shape = match (&self.shape, self.kind) {
            (Some(shape), _) => format!("{shape:?}"),
            (None, "bundle") => format!("{} parts", self.parts.len()),
            (None, _) => "-".into(),
        };
        let indent = "  ".repeat(depth);
        table.row([
            format!("{indent}{}", escaped(&self.name)),
            escaped(kind),
            shape,
            self.bytes.map_or("-".into(), bytes),
        ]);
        let shown = match self.kind {
            "bundle" => self.parts.len(),
            _ => MANY,
        };
        for part in self.parts.iter().take(shown) {
            part.rows(depth + 1, table);
        }
        if self.parts.len() > shown {
            let more = format!("{indent}  ... and {} more", self.parts.len() - shown);
            table.row([more, "-".into(), "-".into(), "-".into()]);
        }
    }
}

/// Returns the parts of an object's value: keys of a map, tensors and other values of a list.
fn parts(node: &Node, path: &str) -> Vec<Entry> {
    let entry = |(name, node): (String, &Node)| {
        let path = format!("{path}/{name}");
        let (kind, dtype, shape, bytes) = match node {
            Node::Tensor(tensor) => (
                "tensor",
                tensor.dtype().to_string(),
                Some(tensor.shape().to_vec()),
                Some(tensor.size()),
            ),
            Node::Map(_) => ("map", node.kind(), None, None),
            Node::List(_) => ("list", node.kind(), None, None),
            _ => ("value", node.kind(), None, None),
        };
        Entry {
            path,
            name,
            handle: None,
            kind,
            dtype: Some(dtype),
            shape,
            bytes,
            parts: Vec::new(),
        }
    };
    match node {
        Node::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| (key.clone(), node));
            entries.map(entry).collect()
        }
        Node::List(nodes) => {
            let nodes = nodes.iter().enumerate();
            nodes
                .map(|(at, node)| entry((at.to_string(), node)))
                .collect()
        }
        _ => Vec::new(),
    }
}
