//! Files that are truncated, changed or hostile: loading returns an error, allocates nothing, and
//! neither panics nor waits.

use std::path::{Path, PathBuf};

use ndshm::error::{AllocError, NpyError};
use ndshm::{HandleTable, Segment};
use proptest::prelude::*;

use crate::{Directory, fixtures};

/// Creates a table with little room, so memory that a failed load keeps is soon missed.
fn small_table() -> HandleTable {
    let segment = Segment::options().capacity(64 << 20).in_process().unwrap();
    HandleTable::join(&segment).unwrap()
}

/// Loads a file, and frees the loaded arrays.
fn load(table: &HandleTable, path: &Path) -> Result<(), NpyError> {
    let before = table.arrays().count();
    let loaded = match path.extension().is_some_and(|extension| extension == "npz") {
        true => table.load_npz(path).map(|arrays| {
            let handles = arrays.into_iter().map(|(_, handle)| handle);
            handles.collect::<Vec<_>>()
        }),
        false => table.load_npy(path).map(|handle| vec![handle]),
    };
    let outcome = loaded.map(|handles| {
        for handle in handles {
            std::hint::black_box(table.read_untyped(handle).unwrap().bytes().iter().max());
            table.free(handle).unwrap();
        }
    });
    assert_eq!(table.arrays().count(), before);
    if let Err(error) = &outcome {
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(error.to_string().len() < 1000, "{error}");
        // Memory that failed loads kept would be missed in the end.
        let full = matches!(
            error,
            NpyError::Alloc {
                error: AllocError::Full { .. },
                ..
            }
        );
        assert!(!full, "{error}");
    }
    outcome
}

/// Returns intact files, to be damaged.
fn whole() -> Vec<(PathBuf, Vec<u8>)> {
    [
        "c16-F-big.npy",
        "point-F.npy",
        "stored.npz",
        "compressed.npz",
    ]
    .map(|name| {
        let path = fixtures().join(name);
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    })
    .into()
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let directory = Directory::new("cut");
    let table = small_table();
    for (path, bytes) in whole() {
        let path = directory.file(path.file_name().unwrap().to_str().unwrap());
        let step = 1 + bytes.len() / 1000;
        for len in (0..bytes.len()).step_by(step) {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(load(&table, &path).is_err(), "{len} bytes of {path:?}");
        }
        std::fs::write(&path, &bytes).unwrap();
        load(&table, &path).unwrap();
    }
}

#[test]
fn a_missing_element_is_counted() {
    let directory = Directory::new("short");
    let table = small_table();
    let path = directory.file("x.npy");
    let bytes = std::fs::read(fixtures().join("point-F.npy")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = load(&table, &path).unwrap_err();
    assert!(
        matches!(
            error,
            NpyError::CutOff {
                expected: 144,
                found: 143,
                ..
            }
        ),
        "{error}"
    );
    // Bytes after the array are ignored, as by numpy.
    let longer = [&bytes[..], b"and more"].concat();
    std::fs::write(&path, longer).unwrap();
    load(&table, &path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_changed_file_is_loaded_or_refused(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local! {
            static TABLE: HandleTable = small_table();
        }
        let directory = Directory::new(&format!("changed-{:?}", std::thread::current().id()));
        let (path, mut bytes) = whole().swap_remove(which);
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let path = directory.file(path.file_name().unwrap().to_str().unwrap());
        std::fs::write(&path, &bytes).unwrap();
        let _ = TABLE.with(|table| load(table, &path));
    }
}

#[test]
fn a_change_of_any_element_of_an_archive_is_found() {
    let directory = Directory::new("sums");
    let table = small_table();
    let (path, mut bytes) = whole().swap_remove(2);
    // The elements of the first member follow its `.npy` header of 128 bytes, which begins at
    // `text`.
    let text = bytes
        .windows(7)
        .position(|window| window == b"\x93NUMPY\x01")
        .unwrap();
    let path = directory.file(path.file_name().unwrap().to_str().unwrap());
    for at in text + 128..text + 128 + 48 {
        bytes[at] ^= 4;
        std::fs::write(&path, &bytes).unwrap();
        let error = load(&table, &path).unwrap_err().to_string();
        assert!(error.contains("[u2-C-big] is damaged"), "{error}");
        assert!(error.contains("checksum"), "{error}");
        bytes[at] ^= 4;
    }
}

/// Returns the beginning of the entries of an archive's directory, and the beginning of its end
/// record.
fn list_of(bytes: &[u8]) -> (usize, usize) {
    let end = bytes.len() - 22;
    let begin = u32::from_le_bytes(bytes[end + 16..end + 20].try_into().unwrap());
    (begin as usize, end)
}

#[test]
fn an_archive_whose_arrays_are_the_same_bytes_many_times_over_is_refused() {
    let directory = Directory::new("bomb");
    let table = small_table();
    let path = directory.file("x.npz");
    let x = table.zeros::<u8, _>(1 << 20).unwrap();
    table.save_npz(&path, [("aaa", x.into())]).unwrap();
    table.free(x).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (begin, end) = list_of(&bytes);
    let entry = &bytes[begin..end];
    // Entries of other names that all lead to one array: 200 MiB from a file of one.
    let mut bomb = bytes[..begin].to_vec();
    for index in 0..200 {
        let mut entry = entry.to_vec();
        entry[46..49].copy_from_slice(format!("{index:03}").as_bytes());
        bomb.extend(entry);
    }
    let list = (bomb.len() - begin) as u32;
    let mut last = bytes[end..].to_vec();
    last[8..10].copy_from_slice(&200u16.to_le_bytes());
    last[10..12].copy_from_slice(&200u16.to_le_bytes());
    last[12..16].copy_from_slice(&list.to_le_bytes());
    bomb.extend(last);
    std::fs::write(&path, bomb).unwrap();
    let error = load(&table, &path).unwrap_err();
    assert!(
        error.to_string().contains("more bytes than the file has"),
        "{error}"
    );
}

#[test]
fn a_size_that_compressed_bytes_cannot_have_is_refused_before_memory_is_taken() {
    // Directory and header agree on 4 GB, but the file has only some hundred bytes of them.
    let path = fixtures().join("hostile-claim.npz");
    let error = load(&small_table(), &path).unwrap_err();
    assert!(
        matches!(error, NpyError::CutOff { expected, found, .. }
            if expected > 4_000_000_000 && found < 1_000_000),
        "{error}"
    );
}

#[test]
fn sizes_and_checksums_that_are_not_the_arrays_are_refused() {
    let directory = Directory::new("sizes");
    let table = small_table();
    let path = directory.file("x.npz");
    for which in [2, 3] {
        let (_, whole) = whole().swap_remove(which);
        let (begin, _) = list_of(&whole);
        let size = u32::from_le_bytes(whole[begin + 24..begin + 28].try_into().unwrap());
        for size in [0, 1, 127, size - 1, size + 1, u32::MAX - 1] {
            let mut bytes = whole.clone();
            bytes[begin + 24..begin + 28].copy_from_slice(&size.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
            assert!(load(&table, &path).is_err(), "{size} bytes");
        }
        let mut bytes = whole.clone();
        bytes[begin + 16] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = load(&table, &path).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("checksum"), "{error}");
    }
}

#[test]
fn an_encrypted_array_is_refused() {
    let directory = Directory::new("encrypted");
    let path = directory.file("x.npz");
    let (_, mut bytes) = whole().swap_remove(2);
    let (begin, _) = list_of(&bytes);
    bytes[6] |= 1;
    bytes[begin + 8] |= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = load(&small_table(), &path).unwrap_err().to_string();
    assert!(
        error.contains("[u2-C-big] is damaged, or not a numpy file: it is encrypted"),
        "{error}"
    );
}

#[test]
fn an_invalid_bool_is_refused_with_its_place() {
    let directory = Directory::new("bools");
    let table = small_table();
    let path = directory.file("x.npy");
    let flags = table.from_elem(9 << 20, true).unwrap();
    table.save_npy(flags, &path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 10;
    bytes[at] = 7;
    std::fs::write(&path, bytes).unwrap();
    let place = (9 << 20) - 10;
    // Load more often than there is room: a load that fails half-way must keep nothing.
    for _ in 0..16 {
        let error = load(&table, &path).unwrap_err();
        assert!(
            matches!(&error, NpyError::NotBool { error, .. } if error.index == place && error.value == 7),
            "{error}"
        );
    }
}

#[test]
fn a_path_that_is_no_regular_file_is_refused() {
    let directory = Directory::new("pipes");
    let table = small_table();
    let pipe = directory.file("pipe.npy");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the name ends with a NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let x = table.zeros::<u8, _>(3).unwrap();
    for path in [&pipe, &directory.0] {
        for error in [
            table.load_npy(path).unwrap_err(),
            table.load_npz(path).unwrap_err(),
            table.save_npy(x, path).unwrap_err(),
        ] {
            assert!(matches!(error, NpyError::NotAFile { .. }), "{error}");
        }
    }
    let error = table.load_npy(directory.file("none.npy")).unwrap_err();
    assert!(error.to_string().contains("could not open it"), "{error}");
    let error = table
        .save_npy(x, directory.file("none/x.npy"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("could not create it"), "{error}");
}
