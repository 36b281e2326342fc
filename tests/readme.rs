//! The README and the guide show current code: their examples are the ones that CI runs.

const README: &str = include_str!("../README.md");

#[test]
fn the_first_example_is_a_file_that_runs() {
    let example = include_str!("../examples/two_processes.rs");
    let code: Vec<&str> = example
        .lines()
        .skip_while(|line| line.starts_with("//!") || line.is_empty())
        .collect();
    assert!(README.contains(&code.join("\n")));
}

#[test]
fn the_examples_and_commands_of_the_readme_exist() {
    let named = |example: &str| README.contains(&format!("| `{example}` |"));
    let mut examples = 0;
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        let example = path.file_stem().unwrap().to_str().unwrap();
        let is_example = path.extension().is_some_and(|kind| kind == "rs")
            || path.join("main.rs").exists()
            || path.join("Cargo.toml").exists();
        if is_example {
            assert!(named(example), "the README's table lacks {example}");
            examples += 1;
        }
    }
    let rows = README
        .lines()
        .skip_while(|line| !line.starts_with("| program |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with("| `"));
    assert_eq!(
        rows.count(),
        examples,
        "the README names an example that is gone"
    );
    let config = include_str!("../.cargo/config.toml");
    assert!(README.contains("cargo loom") && config.contains("loom = ["));
}

#[test]
fn the_model_of_the_guide_is_a_file_that_runs() {
    let guide = include_str!("../src/guide/model_check.md");
    let model = include_str!("../examples/model_check/tests/model.rs");
    let shown = guide
        .split("```ignore\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let mut blocks = 0;
    for block in shown {
        assert!(model.contains(block), "{block}");
        blocks += 1;
    }
    assert_eq!(blocks, 2);
}

/// Returns the names between backticks in the last cell of a table row.
fn tests_of(row: &str) -> impl Iterator<Item = &str> {
    let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    last.split('`').skip(1).step_by(2)
}

fn sources_of(target: &str) -> String {
    let folder = format!("tests/{target}");
    let mut paths = vec![format!("tests/{target}.rs").into()];
    if let Ok(entries) = std::fs::read_dir(folder) {
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let sources = paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    sources.collect()
}

#[test]
fn the_tests_that_the_guide_names_exist() {
    let guide = include_str!("../src/guide/faults.md");
    let steps = sources_of("steps");
    let mut named = 0;
    for row in guide.lines().filter(|line| line.starts_with("| ")) {
        let mut target = String::new();
        for test in tests_of(row) {
            if test == "steps" || test.contains([' ', '/']) {
                continue;
            }
            let (program, path) = test.split_once("::").unwrap_or((&target, test));
            let program = program.to_owned();
            let module = format!("tests/{program}/{}.rs", path.trim_end_matches("::*"));
            let function = format!("fn {}(", path.rsplit("::").next().unwrap());
            let is_there =
                sources_of(&program).contains(&function) || std::path::Path::new(&module).exists();
            assert!(is_there, "{test}: {row}");
            target = program;
            named += 1;
        }
        if let Some((_, operations)) = row.split_once("`steps`: ") {
            let end = operations.find([';', '|']).unwrap();
            for operation in operations[..end].trim().split(", ") {
                let start = format!("(\"{}", operation.trim_end_matches(" .."));
                assert!(steps.contains(&start), "steps: {operation}");
                named += 1;
            }
        }
    }
    assert!(named > 30, "{named}");
}
