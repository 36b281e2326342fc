//! Files of numpy: files that numpy writes are read, and numpy reads files that are saved. Damaged
//! files are refused, and no part of them is kept.
//!
//! If numpy is available (`NDSHM_PYTHON="$(.ci/numpy)"`, or a `python3` with numpy), it writes each
//! array anew and compares the results. Otherwise the files in `fixtures` are read, which `files.py
//! fixtures` has written.

mod damage;
mod dialects;
mod expected;
mod numpy;
mod saving;
#[path = "../support/signals.rs"]
mod signals;

use std::path::{Path, PathBuf};

use ndshm::error::NpyError;
use ndshm::{AnyHandle, HandleTable, Segment};

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npy/fixtures")
}

/// A directory. Drop removes it.
struct Directory(PathBuf);

impl Directory {
    fn new(what: &str) -> Directory {
        let name = format!("ndshm-test-{}-{what}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Loads and checks all arrays that numpy wrote into `directory`. Returns the names and handles of
/// the arrays in `.npy` files, and those of each `.npz` file.
#[allow(clippy::type_complexity, reason = "pairs of a name and its arrays")]
fn load_all(
    table: &HandleTable,
    directory: &Path,
) -> (
    Vec<(String, AnyHandle)>,
    Vec<(String, Vec<(String, AnyHandle)>)>,
) {
    let (mut arrays, mut archives) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // `dialects` has the structures and the archives with other members than numbers.
        let others = ["opaque", "refused-", "hostile-", "structure-", "partial"];
        if others.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        match path.extension().unwrap().to_str().unwrap() {
            "npy" => {
                let handle = table.load_npy(&path).unwrap();
                expected::check(table, &name, handle);
                arrays.push((name, handle));
            }
            "npz" => {
                let loaded = table.load_npz(&path).unwrap();
                for (name, handle) in &loaded {
                    expected::check(table, name, *handle);
                }
                archives.push((name, loaded));
            }
            other => panic!("a file with the unknown extension {other}"),
        }
    }
    (arrays, archives)
}

/// Each array that is loaded as it is, with its type.
const OPAQUE: [(&str, &str); 21] = [
    ("float16", r#"opaque "<f2" of 2 bytes aligned to 2"#),
    ("float16-big", r#"opaque ">f2" of 2 bytes aligned to 2"#),
    ("longdouble", r#"opaque "<f16" of 16 bytes aligned to 16"#),
    ("clongdouble", r#"opaque "<c32" of 32 bytes aligned to 16"#),
    ("datetime", r#"opaque "<M8[ns]" of 8 bytes aligned to 8"#),
    (
        "datetime-big",
        r#"opaque ">M8[25s]" of 8 bytes aligned to 8"#,
    ),
    ("timedelta", r#"opaque "<m8[s]" of 8 bytes aligned to 8"#),
    ("timedelta-plain", r#"opaque "<m8" of 8 bytes aligned to 8"#),
    ("bytes", r#"opaque "|S5" of 5 bytes"#),
    ("string", r#"opaque "<U5" of 20 bytes aligned to 4"#),
    ("string-big", r#"opaque ">U5" of 20 bytes aligned to 4"#),
    ("void", r#"opaque "|V5" of 5 bytes"#),
    ("empty-string", r#"opaque "<U1" of 4 bytes aligned to 4"#),
    ("scalar-string", r#"opaque "<U7" of 28 bytes aligned to 4"#),
    ("scalar-date", r#"opaque "<M8[D]" of 8 bytes aligned to 8"#),
    (
        "half-field",
        r#"opaque "[('a', '|u1'), ('h', '<f2')]" of 3 bytes"#,
    ),
    (
        "date-field",
        r#"opaque "[('it\\'s a \\\\', '<M8[s]'), ('x', '>f8')]" of 16 bytes"#,
    ),
    (
        "text-field",
        r#"opaque "[('id', '|S4'), ('x', '<f8')]" of 12 bytes"#,
    ),
    (
        "inner-text",
        r#"opaque "[('p', [('id', '<U4'), ('x', '<f8')], (2, 3)), ('on', '|b1')]" of 145 bytes"#,
    ),
    (
        "same-way",
        r#"opaque "[('p.x', '<f4'), ('p', [('x', '<f4')])]" of 8 bytes"#,
    ),
    (
        "gap-field",
        r#"opaque "[('a', '|u1'), ('', '|V1'), (('a title', 'h'), '<f2', (3,)), ('größe', '<f8')]" of 16 bytes"#,
    ),
];

/// Loads the opaque arrays of `directory`: each has its type, and the bytes of its file.
fn load_opaque(table: &HandleTable, directory: &Path) -> Vec<(String, AnyHandle)> {
    let load = |(name, dtype): &(&str, &str)| {
        let path = directory.join(format!("opaque-{name}.npy"));
        let handle = table.load_npy(&path).unwrap_or_else(|e| panic!("{e}"));
        let array = table.read_untyped(handle).unwrap();
        assert_eq!(array.dtype().to_string(), *dtype, "{name}");
        let file = std::fs::read(&path).unwrap();
        assert!(file.ends_with(array.bytes()), "{name}");
        ((*name).to_owned(), handle)
    };
    OPAQUE.iter().map(load).collect()
}

/// Each array that cannot be loaded, and a part of its error's text.
const REFUSED: [(&str, &str); 5] = [
    (
        "object",
        "elements of |O, which arrays in shared memory cannot hold: objects are pickled",
    ),
    ("object-field", "elements of |O in field \"o\""),
    (
        "many-fields",
        "save each field as an array of its own, as by `a['f0']`",
    ),
    (
        "bool-2",
        "element 2 holds the byte 0x02, but a bool is 0 or 1",
    ),
    ("nine", "an array of 9 axes: at most 8"),
];

/// Asserts that each numpy array that ndshm does not hold is refused with its name and a remedy.
fn refuse_all(table: &HandleTable, directory: &Path) {
    for (name, why) in REFUSED {
        let path = directory.join(format!("refused-{name}.npy"));
        let error = table.load_npy(&path).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(path.to_str().unwrap()), "{text}");
        assert!(text.contains(why), "{name}: {text}");
        assert!(
            matches!(
                error,
                NpyError::Type { .. }
                    | NpyError::Layout { .. }
                    | NpyError::NotBool { .. }
                    | NpyError::Alloc { .. }
            ),
            "{name}: {text}"
        );
    }
}

#[test]
fn the_files_in_the_repository_are_read() {
    let table = table();
    let (arrays, archives) = load_all(&table, &fixtures());
    let count: usize = archives.iter().map(|(_, arrays)| arrays.len()).sum();
    assert_eq!((arrays.len(), archives.len(), count), (3, 2, 33));
    let before = table.arrays().count();
    refuse_all(&table, &fixtures());
    assert_eq!(table.arrays().count(), before, "nothing stays allocated");
    load_opaque(&table, &fixtures());
}
