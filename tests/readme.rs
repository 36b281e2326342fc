//! What the README and the guide show is what there is: their examples are those that CI runs.

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
fn its_commands_name_what_exists() {
    for example in ["particle_filter", "two_processes", "raw_array_manager"] {
        let in_file = format!("examples/{example}.rs");
        let in_folder = format!("examples/{example}/main.rs");
        let exists = |path: &str| std::path::Path::new(path).exists();
        assert!(exists(&in_file) || exists(&in_folder), "{example}");
    }
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
