//! Files in the form of other programs than numpy, structures that become records of another form,
//! and archives with members that are not numbers.

use std::path::Path;

use ndarray::Ix1;
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::error::NpyError;
use ndshm::npy::npz_members;

use crate::numpy::{python, script};
use crate::{Directory, REFUSED, fixtures, table};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, packed)]
struct Gap {
    a: u8,
    b: f64,
}
ndshm::record!(Gap { a: u8, b: f64 });

#[test]
fn structures_become_records_without_gaps() {
    let table = table();
    for (name, dtype) in [
        ("gap", "{a: u8 @0, b: f64 @1} of 9 bytes aligned to 1"),
        ("gap-end", "{a: f64 @0, b: u8 @8} of 9 bytes aligned to 1"),
        ("flags", "{a: u8 @0, on: u8 @1, off: [u8; 3] @2} of 5 bytes"),
        (
            "names",
            "{\"a b\": u8 @0, \"pos.x\": f32 @1, \"v (m/s)\": f64 @5, \"it's\": i8 @13} of 14 bytes \
             aligned to 1",
        ),
        (
            "inner",
            "{a: u8 @0, \"in.x\": [i16; 6] @1, \"in.y\": [f32; 6] @13} of 37 bytes aligned to 1",
        ),
        (
            "deep",
            "{\"p.x\": i16 @0, \"p.y\": f32 @2, \"q.r.x\": [i16; 2] @6, \"q.r.y\": [f32; 2] @10, \
             \"q.n\": u8 @18} of 19 bytes aligned to 1",
        ),
    ] {
        let path = fixtures().join(format!("structure-{name}.npy"));
        let handle = table.load_npy(&path).unwrap();
        assert_eq!(
            table.info(handle).unwrap().dtype.to_string(),
            dtype,
            "{name}"
        );
    }
    let gap = table
        .load_npy(fixtures().join("structure-gap.npy"))
        .unwrap();
    let gap = gap.downcast::<Gap, Ix1>(&table).unwrap();
    let numbers = |k: u64| Gap {
        a: k.wrapping_mul(0x0123_4567_89ab_cdef) as u8,
        b: k as f64 * 0.1,
    };
    assert_eq!(table.read(gap).unwrap().to_vec(), [1, 2, 3].map(numbers));
}

/// The names of an archive's members; `true` if the member is loaded.
const MIXED: [(&str, bool); 10] = [
    ("format", true),
    ("gender", true),
    ("when", true),
    ("info", false),
    ("flags", false),
    ("data", true),
    ("indices", true),
    ("gap", true),
    ("meta.json", false),
    ("cut", false),
];

fn loads_in_part(path: &Path) {
    let table = table();
    let members = npz_members(path).unwrap();
    let listed: Vec<_> = members
        .iter()
        .map(|m| (m.name.as_str(), m.array.is_ok()))
        .collect();
    // A header does not reveal that a byte of a bool is invalid.
    let expected = MIXED.map(|(name, loaded)| (name, loaded || name == "flags"));
    assert_eq!(listed, expected);
    let data = members[5].array.as_ref().unwrap();
    assert_eq!(
        (data.dtype.to_string().as_str(), &data.shape[..]),
        ("f64", &[4][..])
    );

    let npz = table.load_npz_partial(path).unwrap();
    let names = |loaded| MIXED.iter().filter(move |m| m.1 == loaded).map(|m| m.0);
    assert!(
        npz.loaded
            .iter()
            .map(|(name, _)| name.as_str())
            .eq(names(true))
    );
    assert!(
        npz.refused
            .iter()
            .map(|(name, _)| name.as_str())
            .eq(names(false))
    );
    for (name, why) in &npz.refused {
        assert!(why.to_string().contains(&format!("[{name}]")), "{why}");
    }
    let text = table.read_untyped(npz.loaded[0].1).unwrap();
    assert_eq!(
        (text.dtype().to_string().as_str(), text.bytes()),
        (r#"opaque "|S3" of 3 bytes"#, &b"csr"[..])
    );
    drop(text);
    let data = npz.loaded[3].1.downcast::<f64, Ix1>(&table).unwrap();
    assert_eq!(table.read(data).unwrap().to_vec(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(table.arrays().count(), 6);

    let one = table.load_npz_array(path, "indices").unwrap();
    let one = one.downcast::<i32, Ix1>(&table).unwrap();
    assert_eq!(table.read(one).unwrap().sum(), 6);
    let error = table.load_npz_array(path, "info").unwrap_err();
    assert!(matches!(error, NpyError::Type { .. }), "{error}");
    let error = table.load_npz_array(path, "meta.json").unwrap_err();
    assert!(error.to_string().contains("load_npz_partial"), "{error}");
    let error = table.load_npz_array(path, "none").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no array \"none\": it has \"format\", \"gender\","),
        "{error}"
    );
    assert!(matches!(table.load_npz(path), Err(NpyError::Type { .. })));
    assert_eq!(table.arrays().count(), 7, "a failed load keeps no array");
}

#[test]
fn an_archive_of_more_than_numbers_is_loaded_in_part() {
    loads_in_part(&fixtures().join("partial.npz"));
}

#[test]
fn element_types_are_read_as_numpy_reads_them() {
    let Some(python) = python() else { return };
    let (theirs, ours) = (Directory::new("dialects"), Directory::new("judged"));
    script(&python, &["dialects", theirs.0.to_str().unwrap()]);
    let table = table();
    let mut count = 0;
    for name in theirs.names().iter().filter(|name| name.ends_with(".npy")) {
        let handle = table
            .load_npy(theirs.file(name))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        table.save_npy(handle, ours.file(name)).unwrap();
        count += 1;
    }
    let judged = script(
        &python,
        &[
            "judge",
            theirs.0.to_str().unwrap(),
            ours.0.to_str().unwrap(),
        ],
    );
    assert_eq!(judged.trim(), count.to_string());
    // 32 names and characters with each of 5 orders, 33 names without one. numpy 2 has all of them.
    assert!(count > 150, "{count} files");
    for name in ["partial.npz", "partial-compressed.npz"] {
        loads_in_part(&theirs.file(name));
    }
}

/// Runs each expression that an error proposes in numpy, and loads the result.
#[test]
fn remedies_work_as_printed() {
    let Some(python) = python() else { return };
    let (theirs, mended) = (Directory::new("refused"), Directory::new("mended"));
    script(&python, &["write", theirs.0.to_str().unwrap()]);
    script(&python, &["dialects", theirs.0.to_str().unwrap()]);
    let table = table();
    let npy = REFUSED
        .iter()
        .map(|(name, _)| format!("refused-{name}.npy"));
    let npz = ["refused-bzip2.npz", "refused-lzma.npz"].map(str::to_owned);
    let (mut lines, mut names) = (String::new(), Vec::new());
    for name in npy.chain(npz) {
        let path = theirs.file(&name);
        let error = match name.ends_with(".npz") {
            true => table.load_npz(&path).unwrap_err(),
            false => table.load_npy(&path).unwrap_err(),
        };
        let text = error.to_string();
        let Some(expression) = text.split('`').nth(1) else {
            // The remedy for nine axes depends on their meaning.
            assert!(name == "refused-nine.npy", "{text}");
            continue;
        };
        let (old, new) = (path.display(), mended.file(&name));
        lines += &format!("{old}\t{}\t{expression}\n", new.display());
        names.push(name);
    }
    let list = mended.file("list");
    std::fs::write(&list, lines).unwrap();
    script(&python, &["remedies", list.to_str().unwrap()]);
    for name in names {
        let path = mended.file(&name);
        let loaded = match name.ends_with(".npz") {
            true => table.load_npz(&path).map(|arrays| arrays.len()),
            false => table.load_npy(&path).map(|_| 1),
        };
        assert_eq!(loaded.unwrap_or_else(|error| panic!("{name}: {error}")), 1);
    }
}
