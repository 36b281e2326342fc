//! The contents of one segment as a tree: arrays, bundles with their parts, objects with theirs.

use std::collections::{HashMap, HashSet};

use ndshm::inspect::ArrayInfo;
use ndshm::{AnyHandle, Observer};
use serde_json::{Value as Json, json};

use crate::object::{self, Node};
use crate::output::{Align, Failure, Output, Table, bytes, counted, escaped};
use crate::path::{self, Kind};

/// The largest object whose parts are listed: listing them copies it.
const LARGEST: u64 = 16 << 20;
/// The most parts of an object that are listed.
const MOST: usize = 1000;
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
    /// The number of parts that are not listed.
    more: usize,
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
    // A path leads to the longest name that it begins with, and in a bundle to such a part.
    let taken: HashSet<String> = names.values().flatten().cloned().collect();
    let mut all = taken.clone();
    let bundles = observer.bundles();
    for bundle in &bundles {
        let path = path(bundle.handle.into());
        let parts = bundle.parts.iter();
        all.extend(parts.map(|part| format!("{path}/{}", part.name)));
    }
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for bundle in bundles {
        let handle = AnyHandle::from(bundle.handle);
        let path = path(handle);
        let part = |part: &ndshm::inspect::NameInfo| {
            seen.insert(part.handle.to_bits());
            // A part that is freed meanwhile is left out.
            let info = observer.info(part.handle).ok()?;
            let other = || part.handle.to_string();
            let (path, name) = below(&path, &part.name, &taken, other);
            Some(Entry::of(observer, &info, path, name, &all))
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
            more: 0,
            path,
        });
    }
    for info in observer.arrays() {
        if !seen.contains(&info.handle.to_bits()) {
            let path = path(info.handle);
            entries.push(Entry::of(observer, &info, path.clone(), path, &all));
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
    /// Returns the entry of an array or an object. The paths in `taken` lead to something else than
    /// a part of it.
    fn of(
        observer: &Observer,
        info: &ArrayInfo,
        path: String,
        name: String,
        taken: &HashSet<String>,
    ) -> Entry {
        let kind = Kind::of(&info.dtype);
        let node = match kind {
            Kind::Object if info.bytes <= LARGEST => object::read(observer, info).ok(),
            _ => None,
        };
        let place = |key: &str| below(&path, key, taken, || format!("{}/{key}", info.handle));
        Entry {
            name,
            handle: Some(info.handle),
            kind: kind.name(),
            dtype: (kind == Kind::Array).then(|| info.dtype.to_string()),
            shape: (kind == Kind::Array).then(|| info.shape.clone()),
            bytes: Some(info.bytes),
            more: node
                .as_ref()
                .map_or(0, |node| count(node).saturating_sub(MOST)),
            parts: node.map_or(Vec::new(), |node| parts(&node, &place)),
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
            "more": self.more,
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
            (None, "bundle") => counted(self.parts.len(), "part"),
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
        let more = self.parts.len().saturating_sub(shown) + self.more;
        if more > 0 {
            let more = format!("{indent}  ... and {more} more");
            table.row([more, "-".into(), "-".into(), "-".into()]);
        }
    }
}

/// Returns the path and the name of a part of `parent`. If the path leads to something else, which
/// is in `taken`, returns the other path, and shows it in the name.
fn below(
    parent: &str,
    name: &str,
    taken: &HashSet<String>,
    other: impl FnOnce() -> String,
) -> (String, String) {
    let path = format!("{parent}/{name}");
    match path::is_shadowed(&path, parent, |start| taken.contains(start)) {
        true => {
            let other = other();
            let name = format!("{name} ({other})");
            (other, name)
        }
        false => (path, name.to_owned()),
    }
}

/// Returns the number of parts of an object's value.
fn count(node: &Node) -> usize {
    match node {
        Node::Map(entries) => entries.len(),
        Node::List(nodes) => nodes.len(),
        _ => 0,
    }
}

/// Returns the first parts of an object's value: keys of a map, tensors and other values of a list.
/// `place` returns the path and the name of each.
fn parts(node: &Node, place: &dyn Fn(&str) -> (String, String)) -> Vec<Entry> {
    let entry = |(key, node): (String, &Node)| {
        let (path, name) = place(&key);
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
            more: 0,
        }
    };
    match node {
        Node::Map(entries) => {
            let entries = entries.iter().take(MOST);
            let entries = entries.map(|(key, node)| (key.clone(), node));
            entries.map(entry).collect()
        }
        Node::List(nodes) => {
            let nodes = nodes.iter().take(MOST).enumerate();
            nodes
                .map(|(at, node)| entry((at.to_string(), node)))
                .collect()
        }
        _ => Vec::new(),
    }
}
