//! The layers of the library: a module imports only from its own layer and from those below it, few
//! files import each other, and few lines differ under the model checker.

mod imports;

use std::collections::BTreeSet;

use imports::{Graph, Source, code_of, library, paths};

/// Modules of `src/`, from the lowest layer to the highest. ARCHITECTURE.md has the same list.
const LAYERS: &[&[&str]] = &[
    &["message", "parallel", "sync"],
    &["word"],
    &["layout"],
    &["memory"],
    &["span"],
    &["element", "descriptor", "handle"],
    &["segment"],
    &["seat"],
    &["table"],
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
const UMBRELLA_FILE: &str = "error.rs";

/// The lowest layer that may name the sum of all errors.
const ERROR_USERS: &str = "handle_table";

fn layer_of(module: &str) -> Option<usize> {
    let module = match module {
        UMBRELLA => ERROR_USERS,
        module => module,
    };
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Returns the module of the library that a file belongs to.
fn module_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Returns the modules that code names as `crate::..`.
fn named_in(code: &str) -> BTreeSet<String> {
    paths(code)
        .iter()
        .filter_map(|named| named.path.strip_prefix("crate::")?.split("::").next())
        .filter(|module| layer_of(module).is_some())
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_import_points_upward() {
    let mut upward = BTreeSet::new();
    for Source { file, code } in library() {
        if ["lib.rs", UMBRELLA_FILE].contains(&file.as_str()) {
            continue;
        }
        let module = module_of(&file);
        let own = layer_of(module).unwrap_or_else(|| panic!("{file} belongs to no layer"));
        for module in named_in(&code) {
            if layer_of(&module).unwrap() > own {
                upward.insert((file.clone(), module));
            }
        }
    }
    let allowed: BTreeSet<_> = EXCEPTIONS
        .iter()
        .map(|&(file, module)| (file.to_owned(), module.to_owned()))
        .collect();
    let new: Vec<_> = upward.difference(&allowed).collect();
    assert!(new.is_empty(), "imports that point upward: {new:?}");
    let gone: Vec<_> = allowed.difference(&upward).collect();
    assert!(gone.is_empty(), "exceptions to remove: {gone:?}");
}

/// The most files that may import each other, directly or by way of others.
const LARGEST_CYCLE: usize = 5;

#[test]
fn cycles_of_imports_are_small() {
    let cycles = Graph::of(&library(), &["lib.rs", UMBRELLA_FILE]).cycles();
    let large: Vec<_> = cycles
        .iter()
        .filter(|cycle| cycle.len() > LARGEST_CYCLE)
        .collect();
    assert!(large.is_empty(), "files that import each other: {large:#?}");
}

/// The most lines of the library that differ under the model checker.
const MODEL_LINES: usize = 60;

#[test]
fn few_lines_differ_under_the_model_checker() {
    let differs = |line: &&str| line.contains("cfg") && line.contains("loom");
    let lines: usize = library()
        .iter()
        .map(|source| source.code.lines().filter(differs).count())
        .sum();
    assert!(lines <= MODEL_LINES, "{lines} lines carry cfg(loom)");
}

#[test]
fn an_upward_import_is_seen() {
    let text = "#[cfg(test)]\nmod tests;\nuse crate::{word::{Field, SeatId}, descriptor};\n\
        // crate::pool\nfn f() { crate::table::g() }\n#[cfg(test)]\nmod tests {\n\
        use crate::model;\n}\n";
    let named: Vec<_> = named_in(&code_of(text)).into_iter().collect();
    assert_eq!(named, ["descriptor", "table", "word"]);
    assert!(layer_of("table") > layer_of("word"));
    assert_eq!(module_of("segment/fork.rs"), "segment");
}

#[test]
fn a_cycle_through_a_re_export_is_seen() {
    let source = |file: &str, code: &str| Source {
        file: file.to_owned(),
        code: code.to_owned(),
    };
    let sources = [
        source("lib.rs", "mod a;\nmod b;\n"),
        source(
            "a/mod.rs",
            "mod inner;\npub(crate) use inner::Item as It;\n",
        ),
        source("a/inner.rs", "use crate::b::{f,\n    g};\n"),
        source("b.rs", "use super::a::It;\nfn f() { crate::c::h() }\n"),
        source("c.rs", "use std::fmt;\n"),
    ];
    let cycles: Vec<Vec<String>> = Graph::of(&sources, &[])
        .cycles()
        .into_iter()
        .map(|cycle| cycle.into_iter().collect())
        .collect();
    assert_eq!(cycles, [["a::inner", "b"]]);
}
