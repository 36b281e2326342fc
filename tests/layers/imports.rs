//! The imports between the files of the library, read from their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The code of a module's file, without comments and unit tests.
pub struct Source {
    /// The path below `src/`.
    pub file: String,
    pub code: String,
}

/// A module as its path from the root of the crate: `["table", "slot"]`.
type Module = Vec<String>;

/// Reads the library's files. Leaves out unit tests.
pub fn library() -> Vec<Source> {
    let mut sources = Vec::new();
    read(Path::new("src"), &mut sources);
    sources
}

fn read(directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["tests", "tests.rs", "testing.rs"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            read(&path, sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push(Source {
                file: path.strip_prefix("src").unwrap().to_str().unwrap().into(),
                code: code_of(&text),
            });
        }
    }
}

/// Removes comments, and modules that are written inside the file, which are for tests.
pub fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut inside = false;
    for line in text.lines() {
        let begins = line.ends_with('{')
            && ["mod ", "pub mod ", "pub(crate) mod "]
                .iter()
                .any(|start| line.starts_with(start));
        inside |= begins;
        if !inside {
            code += line.split("//").next().unwrap();
            code += "\n";
        }
        inside &= line != "}";
    }
    code
}

/// A path that a file's code names.
pub struct Named {
    /// From `crate`, `super`, `self` or a child module, without braces.
    pub path: String,
    /// The name under which it is re-exported, if it is.
    exported: Option<String>,
}

/// Returns the paths that code names.
pub fn paths(code: &str) -> Vec<Named> {
    let mut paths = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        // An import inside of an item counts by the path before its braces.
        let declaration = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find_map(|begin| Some((begin.starts_with("pub"), line.strip_prefix(begin)?)));
        let Some((exported, tree)) = declaration else {
            paths.extend(inline_paths(line).map(|path| Named {
                path,
                exported: None,
            }));
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree += lines.next().expect("a `use` ends with a semicolon");
        }
        let tree = tree.split(';').next().unwrap();
        paths.extend(expand(tree).into_iter().map(|path| {
            let (path, name) = match path.split_once(" as ") {
                Some((path, name)) => (path.to_owned(), name.to_owned()),
                None => {
                    let name = path.rsplit("::").next().unwrap().to_owned();
                    (path, name)
                }
            };
            let exported = exported.then_some(name);
            Named { path, exported }
        }));
    }
    paths
}

/// Returns the paths from `crate` or `super` in a line of code that is no import.
fn inline_paths(line: &str) -> impl Iterator<Item = String> + '_ {
    ["crate::", "super::"].into_iter().flat_map(move |root| {
        line.match_indices(root).map(move |(at, _)| {
            let rest = &line[at..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            rest[..end.unwrap_or(rest.len())]
                .trim_end_matches(':')
                .to_owned()
        })
    })
}

/// Resolves the braces of an import. Keeps `as`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.trim().split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let body = rest.strip_suffix('}').expect("braces end an import");
    let mut depth = 0;
    let separates = |c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    };
    body.split(separates)
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(part.trim()))
        .map(|part| format!("{}{part}", prefix.trim()))
        .collect()
}

/// The imports between files. An import of an item that a module re-exports leads to the file of
/// the item.
pub struct Graph {
    /// The files that each file imports from.
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    /// Builds the graph. `skipped` files are no part of it.
    pub fn of(sources: &[Source], skipped: &[&str]) -> Graph {
        let modules: BTreeMap<Module, &Source> = sources
            .iter()
            .map(|source| (module_of(&source.file), source))
            .collect();
        let mut exports: BTreeMap<(Module, String), Module> = BTreeMap::new();
        let mut imports = Vec::new();
        for (module, source) in &modules {
            for Named { path, exported } in paths(&source.code) {
                let Some(path) = absolute(module, &path, &modules) else {
                    continue;
                };
                match exported {
                    Some(name) => drop(exports.insert((module.clone(), name), path)),
                    None => imports.push((module, path)),
                }
            }
        }
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, path) in imports {
            let target = resolve(path, &modules, &exports);
            let is_part = |module: &Module| {
                !module.is_empty() && !skipped.contains(&modules[module].file.as_str())
            };
            if target != *module && is_part(module) && is_part(&target) {
                edges.entry(module.clone()).or_default().insert(target);
            }
        }
        Graph { edges }
    }

    /// Returns the sets of files that import each other, directly or by way of others.
    pub fn cycles(&self) -> BTreeSet<BTreeSet<String>> {
        let reach: BTreeMap<&Module, BTreeSet<&Module>> = self
            .edges
            .keys()
            .map(|module| (module, self.reach(module)))
            .collect();
        reach
            .iter()
            .map(|(&module, reached)| {
                let back = |other: &&&Module| reach.get(*other).is_some_and(|r| r.contains(module));
                reached
                    .iter()
                    .filter(back)
                    .map(|other| other.join("::"))
                    .collect()
            })
            .filter(|cycle: &BTreeSet<String>| cycle.len() > 1)
            .collect()
    }

    fn reach<'g>(&'g self, from: &Module) -> BTreeSet<&'g Module> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&Module> = self.edges.get(from).into_iter().flatten().collect();
        while let Some(module) = open.pop() {
            if reached.insert(module) {
                open.extend(self.edges.get(module).into_iter().flatten());
            }
        }
        reached
    }
}

/// Returns the module that a file of `src/` holds. The root of the crate is the empty path.
fn module_of(file: &str) -> Module {
    let path = file.strip_suffix(".rs").unwrap();
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if ["mod", "lib"].contains(&module.last().unwrap().as_str()) {
        module.pop();
    }
    module
}

/// Returns a path from the root of the crate, or `None` if it leads out of the crate.
fn absolute(module: &Module, path: &str, modules: &BTreeMap<Module, &Source>) -> Option<Module> {
    let mut steps = path.split("::").map(str::trim).peekable();
    let mut base = match *steps.peek()? {
        "crate" => {
            steps.next();
            Module::new()
        }
        "self" | "super" => module.clone(),
        child => {
            let mut inner = module.clone();
            inner.push(child.to_owned());
            modules.contains_key(&inner).then(|| module.clone())?
        }
    };
    for step in steps {
        match step {
            "super" => {
                base.pop();
            }
            "self" => {}
            step => base.push(step.to_owned()),
        }
    }
    Some(base)
}

/// Returns the file that a path leads to, by way of re-exports.
fn resolve(
    mut path: Module,
    modules: &BTreeMap<Module, &Source>,
    exports: &BTreeMap<(Module, String), Module>,
) -> Module {
    loop {
        let length = (0..=path.len())
            .rev()
            .find(|&length| modules.contains_key(&path[..length]))
            .unwrap();
        let item = path.get(length).cloned().unwrap_or_default();
        match exports.get(&(path[..length].to_vec(), item)) {
            Some(target) if *target != path => {
                let rest = path.split_off(length + 1);
                path = target.clone();
                path.extend(rest);
            }
            _ => return path[..length].to_vec(),
        }
    }
}
