//! Texts of the compiler's errors: what is wrong, and the remedy. A snippet for each is compiled
//! against the library.

#![cfg(not(miri))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Returns the newest build of the library. There may be one for each set of features.
///
/// Snippets name no other crate: there may be several builds of it too, and only one would fit.
fn library(deps: &Path) -> PathBuf {
    let built = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libndshm-") && name.ends_with(".rlib")
    };
    let age = |path: &PathBuf| {
        let written = fs::metadata(path).and_then(|data| data.modified());
        written.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let files = fs::read_dir(deps).unwrap();
    let libraries = files.map(|file| file.unwrap().path()).filter(built);
    libraries.max_by_key(age).unwrap()
}

/// Compiles the body of a function, as `cargo check` does, or as `cargo build` does if `builds`.
/// Returns the errors, which are empty if it compiles.
fn errors(name: &str, builds: bool, body: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let deps = program.parent().unwrap();
    let scratch = std::env::temp_dir().join(format!("ndshm-{}-{name}", std::process::id()));
    fs::create_dir(&scratch).unwrap();
    let source = scratch.join("lib.rs");
    let text = format!(
        "use ndshm::{{HandleTable, Pool}};
        #[allow(unused)]
        pub fn body(pool: &mut Pool, table: &HandleTable) -> Result<(), ndshm::Error> {{
            let x = table.zeros::<f64, _>(4)?;
            let axis = table.read(x)?.axes().next().unwrap().axis;
            let tiles = table.partition(x.write(), axis, 1)?;
            {body}
            Ok(())
        }}"
    );
    fs::write(&source, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=lib", "--crate-name=snippet"])
        .arg(if builds {
            "--emit=obj"
        } else {
            "--emit=metadata"
        })
        .arg("-o")
        .arg(scratch.join("out"))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg(format!("--extern=ndshm={}", library(deps).display()))
        .arg(&source)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    fs::remove_dir_all(&scratch).unwrap();
    match out.status.success() {
        true => String::new(),
        false => String::from_utf8(out.stderr).unwrap(),
    }
}

#[track_caller]
fn assert_says(name: &str, body: &str, expected: &[&str]) {
    let said = errors(name, false, body);
    for expected in expected {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

#[test]
fn correct_calls_compile() {
    let body = "
        pool.for_each(&tiles, &(2.0, true), const { |mut x, &(f, _), _| x *= f })?;
        pool.map_collect(&tiles, &[[true; 2]; 3], |_, _, tile| (tile.index(), 'x'))?;
        table.partition((x.write(), x.whole()), axis, 1)?;
        fn plain<P: ndshm::bytemuck::Pod>(pool: &mut Pool, params: &P) {
            let _ = pool.run(params, |_, &params| Ok(params));
        }";
    let said = errors("correct", true, body);
    assert!(said.is_empty(), "{said}");
}

#[test]
fn parameters() {
    let expected = [
        "`String` cannot be passed to a kernel as a parameter",
        "pass an array by its handle",
        "`&ndshm::object::Value(x)` passes any other value",
    ];
    let body = "pool.for_each(&tiles, &String::new(), |_, _, _| ())?;";
    assert_says("string", body, &expected);
    let body = "pool.run(&(1.0, vec![1u8]), |_, _| Ok(()))?;";
    let expected = ["`({float}, Vec<u8>)` cannot be passed to a kernel as a parameter"];
    assert_says("tuple", body, &expected);
}

#[test]
fn results() {
    let expected = [
        "`Vec<f64>` cannot be the result of a kernel",
        "write results of any length into an array",
    ];
    let body = "pool.map_collect(&tiles, &(), |x, _, _| x.to_vec())?;";
    assert_says("vec", body, &expected);
}

#[test]
fn groups() {
    let expected = [
        "does not say how tiles access the array",
        "say `.read()`, `.write()` or `.whole()`",
    ];
    assert_says("handle", "table.partition(x, axis, 1)?;", &expected);
    let body = "table.partition((x.write(), x), axis, 1)?;";
    assert_says("handles", body, &expected);
}

#[test]
fn jobs_and_elements() {
    let expected = ["`String` cannot be a job of a queue", "OwnedArray<T, D>"];
    assert_says("job", "table.queue::<String>(8)?;", &expected);
    let expected = [
        "`usize` cannot be held by an array in shared memory",
        "`ndshm::record!` around its definition",
    ];
    assert_says("element", "table.from_elem(5, 5usize)?;", &expected);
}

#[test]
fn captures() {
    let by_value = "let factor = vec![2.0];
        pool.for_each(&tiles, &(), move |mut x, (), _| x *= factor[0])?;";
    let expected = ["cannot be a kernel: pass captured values as parameters"];
    assert_says("captures", by_value, &expected);
    // The compiler itself says this, at the line of the capture.
    let in_const = "let factor = 2.0;
        pool.for_each(&tiles, &(), const { |mut x, (), _| x *= factor })?;";
    let expected = [
        "attempt to use a non-constant value in a constant",
        "x *= factor",
    ];
    assert_says("const", in_const, &expected);

    let calls = [
        "pool.for_each(&tiles, &(), move |mut x, (), _| x *= factor)?;",
        "pool.map_collect(&tiles, &(), move |_, (), _| factor)?;",
        "pool.map_reduce(&tiles, &(), move |_, (), _| factor, 0.0, |a, b| a + b)?;",
        "pool.start(&tiles, &(), move |mut x, (), _| x *= factor)?.finish()?;",
        "pool.run(&(), move |_, ()| Ok(factor))?;",
        "pool.broadcast(&(), move |_, ()| factor)?;",
    ];
    for call in calls {
        let said = errors("built", true, &format!("let factor = 2.0; {call}"));
        let expected = "a kernel must be a fn item or a closure without captures";
        assert!(said.contains(expected), "{call}: {said}");
        // The line of the call is named.
        assert!(said.contains(call.trim_end_matches("?;")), "{call}: {said}");
    }
}
