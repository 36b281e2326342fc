//! What the README shows is what there is: its example is the one that CI runs.

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
