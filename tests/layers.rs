//! The layers of the library: a module imports only from its own layer and from those below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Modules of `src/`, from the lowest layer to the highest. ARCHITECTURE.md has the same list.
const LAYERS: &[&[&str]] = &[
    &["message", "parallel", "sync"],
    &["word"],
    &["layout", "memory", "span"],
    &["element", "descriptor", "handle"],
    &["segment"],
    &["seat"],
    &["table", "array"],
    &["partition", "queue", "names", "bundle"],
    &["reclaim"],
    &["handle_table"],
    &["pool"],
    &[
        "primitives",
        "object",
        "npy",
        "arrow",
        "inspect",
        "model",
        "guide",
    ],
];

/// Imports that still point upward: a file, and a module that it names. This list may only become
/// shorter.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// The sum of all errors. It imports the errors of every module and holds nothing else. Kernels of
/// pools return it, so it may be named from [`ERROR_USERS`] upward.
const UMBRELLA: &str = "error";

/// The lowest layer that may name the sum of all errors.
const ERROR_USERS: &str = "handle_table";

fn layer_of(module: &str) -> Option<usize> {
    let module = match module {
        UMBRELLA => ERROR_USERS,
        module => module,
    };
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Calls `visit` with the path in `src/` and the text of each library file below `directory`.
fn each_file(directory: &Path, visit: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_test = ["tests", "tests.rs", "testing.rs"].contains(&name);
        if path.is_dir() {
            if !is_test {
                each_file(&path, visit);
            }
        } else if name.ends_with(".rs") && !is_test {
            let text = fs::read_to_string(&path).unwrap();
            visit(path.strip_prefix("src").unwrap().to_str().unwrap(), &text);
        }
    }
}

/// Returns the module of the library that a file belongs to.
fn module_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Returns the modules that a file's code names as `crate::..`, except in unit tests and comments.
fn named_in(text: &str) -> BTreeSet<&str> {
    // Unit tests stand at the end of a file, in a module. Other items for tests do not end the code.
    let tests = ["\nmod tests {", "\npub(crate) mod tests {"].map(|start| text.find(start));
    let code = tests.into_iter().flatten().min().unwrap_or(text.len());
    assert!(
        !text[..code].contains("crate::{"),
        "one import for each module"
    );
    text[..code]
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .filter(|module| layer_of(module).is_some())
        .collect()
}

#[test]
fn no_import_points_upward() {
    let mut upward = BTreeSet::new();
    each_file(Path::new("src"), &mut |file, text| {
        if ["lib.rs", "error.rs"].contains(&file) {
            return;
        }
        let own = layer_of(module_of(file)).unwrap_or_else(|| panic!("{file} belongs to no layer"));
        for module in named_in(text) {
            if layer_of(module).unwrap() > own {
                upward.insert((file.to_owned(), module.to_owned()));
            }
        }
    });
    let allowed: BTreeSet<_> = EXCEPTIONS
        .iter()
        .map(|&(file, module)| (file.to_owned(), module.to_owned()))
        .collect();
    let new: Vec<_> = upward.difference(&allowed).collect();
    assert!(new.is_empty(), "imports that point upward: {new:?}");
    let gone: Vec<_> = allowed.difference(&upward).collect();
    assert!(gone.is_empty(), "exceptions to remove: {gone:?}");
}

#[test]
fn an_upward_import_is_seen() {
    let text = "#[cfg(test)]\nmod tests;\nuse crate::word::Field;\n// crate::pool\n\
        fn f() { crate::table::g() }\n#[cfg(test)]\nmod tests { use crate::model; }\n";
    let named: Vec<_> = named_in(text).into_iter().collect();
    assert_eq!(named, ["table", "word"]);
    assert!(layer_of("table") > layer_of("word"));
    assert_eq!(module_of("segment/fork.rs"), "segment");
}
