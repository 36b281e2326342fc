//! Named segments where `/dev/shm` is small: a tmpfs of the test, in its own mount namespace.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ndshm::error::SegmentError;
use ndshm::{HandleTable, Segment};

use crate::common::{
    Bytes, KIB, MIB, assert_intact, assert_usable, fill, free_all, no_memory, report, says,
};
use crate::own_shm::{Foreign, SHM, free_bytes, own_shm};
use crate::support::{Child, Name, Pipe};

/// Creates a small named segment and joins it.
fn segment(name: &Name, capacity: usize) -> HandleTable {
    let options = Segment::options().capacity(capacity as u64).seats(8);
    HandleTable::join(&options.create(&name.0).unwrap()).unwrap()
}

/// Mounts a `/dev/shm` of this size, and joins a new segment there. Returns `None` if the test may
/// not mount.
fn segment_on_small_shm(bytes: usize, what: &str) -> Option<(Name, HandleTable)> {
    own_shm(bytes, 100).then(|| {
        let name = Name::new(what);
        let table = segment(&name, 1 << 30);
        (name, table)
    })
}

pub fn a_segment_is_created_or_refused_at_any_fill() {
    if !own_shm(2 * MIB, 100) {
        return;
    }
    let name = Name::new("any-fill");
    let options = Segment::options().capacity(MIB as u64).seats(8);
    let (mut refused, mut first_success) = (0, None);
    let mut text = String::new();
    for pages in 0..200 {
        let left = pages * 4096;
        let foreign = Foreign::leaving(left);
        match options.clone().create(&name.0) {
            Err(error) => {
                assert!(matches!(error, SegmentError::NoMemory(_)), "{error}");
                text = says(
                    &error,
                    &["need ", "/dev/shm has", "free", "--shm-size", "anonymous"],
                );
                refused += 1;
                assert_eq!(
                    first_success, None,
                    "refused with {pages} free pages, but not with fewer"
                );
            }
            Ok(segment) => {
                first_success = first_success.or(Some(pages));
                let table = HandleTable::join(&segment).unwrap();
                if let Err(error) = table.from_elem(64, 1u8) {
                    no_memory(error);
                }
            }
        }
        assert!(!name.exists(), "a name is left at {pages} pages");
        assert_eq!(free_bytes(), left, "at {pages} pages");
        drop(foreign);
    }
    let first_success = first_success.expect("200 pages are enough");
    assert_eq!(refused, first_success);
    assert_usable(&segment(&name, MIB));
    assert!(!name.exists());
    report(
        "create with 0 to 199 pages free",
        format!("{refused} refused, from {first_success} pages on made; last refusal: {text}"),
    );
}

pub fn a_mount_without_inodes_is_an_error() {
    // The root directory takes one inode.
    if !own_shm(8 * MIB, 2) {
        return;
    }
    let foreign = Foreign::leaving(4 * MIB as u64);
    let name = Name::new("inodes");
    let error = Segment::create(&name.0).unwrap_err();
    let text = says(error, &[&name.0, "/dev/shm", "inode", "remove"]);
    let error = Segment::open_or_create(&name.0).unwrap_err();
    says(error, &["inode"]);
    assert!(!name.exists());
    drop(foreign);
    assert_usable(&segment(&name, MIB));
    report("no inode left", text);
}

pub fn an_array_larger_than_the_rest_is_refused() {
    let Some((_name, table)) = segment_on_small_shm(64 * MIB, "more") else {
        return;
    };
    let kept: Bytes = table.from_elem(20 * MIB, 7).unwrap();
    // A commit proceeds in steps of 16 MiB: this one completes two of them.
    table.free(table.zeros::<u8, _>(64).unwrap()).unwrap();
    let before = free_bytes();
    assert!(before > 40 * MIB as u64 && before < 44 * MIB as u64);
    let mut lost = Vec::new();
    for _ in 0..3 {
        let refused = no_memory(table.zeros::<u8, _>(48 * MIB).unwrap_err());
        assert_eq!(refused.need, 48 * MIB as u64);
        assert_eq!(refused.what, "/dev/shm");
        lost.push(before - free_bytes());
        assert!(refused.have <= before);
    }
    // The first time, the words of the requested slots take a few pages.
    assert!(lost.iter().all(|&bytes| bytes <= 16 << 10), "{lost:?}");
    let refused = no_memory(table.zeros::<u8, _>(48 * MIB).unwrap_err());
    assert!(
        before - refused.have <= 16 << 10,
        "the error counts the refused call's own memory as used: {refused}"
    );
    assert!(table.read(kept).unwrap().iter().all(|&byte| byte == 7));
    let fits: Bytes = table.from_elem(40 * MIB, 1).unwrap();
    table.free(fits).unwrap();
    assert_usable(&table);
    report(
        "more than is left",
        format!("{} KiB taken by a refused 48 MiB; {refused}", lost[0] >> 10),
    );
}

pub fn small_arrays_are_refused_on_a_full_mount() {
    let Some((_name, table)) = segment_on_small_shm(4 * MIB, "many") else {
        return;
    };
    let mut seen = Vec::new();
    // The words of slots stay when their arrays are freed, so the sizes with many slots come last.
    for bytes in [300 * KIB, 20 * KIB, 4 * KIB, 100, 50] {
        let (arrays, error) = fill(&table, bytes);
        let refused = no_memory(error);
        assert_eq!(refused.what, "/dev/shm");
        assert_intact(&table, &arrays);
        // Allocate again, before and after some arrays are freed.
        no_memory(table.zeros::<u8, _>(bytes).unwrap_err());
        let count = arrays.len();
        for &array in &arrays[count / 2..] {
            table.free(array).unwrap();
        }
        assert_intact(&table, &arrays[..count / 2]);
        let (more, error) = fill(&table, bytes);
        no_memory(error);
        assert!(count / 2 + more.len() >= count, "{} of {count}", more.len());
        free_all(&table, arrays[..count / 2].to_vec());
        free_all(&table, more);
        let (again, error) = fill(&table, bytes);
        no_memory(error);
        assert!(
            again.len() >= count,
            "{} of {count} of {bytes}",
            again.len()
        );
        assert_intact(&table, &again);
        free_all(&table, again);
        table.trim().unwrap();
        assert_usable(&table);
        table.trim().unwrap();
        seen.push(format!("{count} of {bytes} B"));
    }
    report(
        "filled by small arrays, freed, filled again",
        seen.join(", "),
    );
}

pub fn the_last_pages_can_be_allocated() {
    let Some((_name, table)) = segment_on_small_shm(4 * MIB, "last") else {
        return;
    };
    // The class now has a span, and the span's first extents are committed.
    let first: Bytes = table.from_elem(8 * KIB, 0).unwrap();
    let (many, _) = fill(&table, 8 * KIB);
    let left = free_bytes();
    assert!(left < 40 << 10, "arrays of 8 KiB cannot use {left} bytes");
    report("left when 8 KiB are refused", format!("{left} bytes"));
    free_all(&table, many);
    table.free(first).unwrap();
    assert_usable(&table);
}

pub fn a_foreign_file_takes_no_promised_pages() {
    let Some((_name, table)) = segment_on_small_shm(4 * MIB, "foreign") else {
        return;
    };
    let early: Vec<Bytes> = (0..8)
        .map(|at| table.from_elem(64 * KIB, at).unwrap())
        .collect();
    let foreign = Foreign::leaving(400 << 10);
    let refused = no_memory(table.zeros::<u8, _>(MIB).unwrap_err());
    assert!(refused.have <= 400 << 10, "{refused}");
    let (late, error) = fill(&table, 64 * KIB);
    no_memory(error);
    assert!((2..=10).contains(&late.len()), "{}", late.len());
    // All promised memory can be written, although no page is free.
    for &array in early.iter().chain(&late) {
        table.write(array).unwrap().fill(9);
    }
    // Freed extents can be reused while the file system is full.
    table.free(early[3]).unwrap();
    let reused: Bytes = table.from_elem(64 * KIB, 3).unwrap();
    assert!(table.read(early[4]).unwrap().iter().all(|&byte| byte == 9));
    drop(foreign);
    let fits: Bytes = table.from_elem(MIB, 1).unwrap();
    for array in [reused, fits] {
        table.free(array).unwrap();
    }
    assert_usable(&table);
    report(
        "a foreign file takes all",
        format!("{} more arrays of 64 KiB; {refused}", late.len()),
    );
}

pub fn no_pages_for_the_tables_of_a_span_is_an_error() {
    let Some((_name, table)) = segment_on_small_shm(4 * MIB, "tables") else {
        return;
    };
    let mut refused = 0;
    // Each class has its own span. The span's words need pages of their own.
    for pages in 0..16u64 {
        let kept: Bytes = table.from_elem(100 << (pages / 2), 1).unwrap();
        let foreign = Foreign::leaving(pages * 4096);
        let got = table.from_elem::<u8, _>(192 << (pages / 2), 2);
        drop(foreign);
        match got {
            Ok(array) => {
                assert!(table.read(array).unwrap().iter().all(|&byte| byte == 2));
                table.free(array).unwrap();
            }
            Err(error) => {
                no_memory(error);
                refused += 1;
            }
        }
        assert!(table.read(kept).unwrap().iter().all(|&byte| byte == 1));
        table.free(kept).unwrap();
        let after: Bytes = table.from_elem(192 << (pages / 2), 3).unwrap();
        table.free(after).unwrap();
    }
    assert!((1..16).contains(&refused), "{refused}");
    assert_usable(&table);
    report(
        "a new span with 0 to 15 pages free",
        format!("{refused} of 16 refused"),
    );
}

pub fn freed_pages_serve_any_array() {
    let Some((name, table)) = segment_on_small_shm(16 * MIB, "freed") else {
        return;
    };
    let other = HandleTable::join(&Segment::open(&name.0).unwrap()).unwrap();
    let (large, _) = fill(&table, MIB);
    let count = large.len();
    free_all(&table, large);
    // The freed arrays' pages are retained; arrays of another class need them.
    let (small, error) = fill(&other, 16 * KIB);
    no_memory(error);
    report(
        "freed pages serve another class",
        format!("{count} MiB freed, {} arrays of 16 KiB had", small.len()),
    );
    // A participant keeps its own cache: the other one gets the rest.
    free_all(&other, small);
    let (small, error) = fill(&table, 16 * KIB);
    no_memory(error);
    assert!(
        small.len() >= 60 * count,
        "{} after {count} MiB",
        small.len()
    );
    free_all(&table, small);
    assert_usable(&table);
}

pub fn a_full_segment_can_be_opened_read_and_written() {
    let Some((name, table)) = segment_on_small_shm(4 * MIB, "open-full") else {
        return;
    };
    let (arrays, error) = fill(&table, 20 * KIB);
    no_memory(error);
    let foreign = Foreign::leaving(0);
    Child::fork(|| {
        let table = HandleTable::join(&Segment::open(&name.0).unwrap()).unwrap();
        assert_intact(&table, &arrays);
        for (number, &array) in arrays.iter().enumerate() {
            let mut view = table.write(array).unwrap();
            view.fill(0);
            view.fill(number as u8);
        }
        // Another class needs a span or takes a larger extent. Either way no process dies.
        if let Err(error) = table.zeros::<u8, _>(100) {
            no_memory(error);
        }
        table.free(arrays[0]).unwrap();
    })
    .join();
    for (number, &array) in arrays.iter().enumerate().skip(1) {
        let view = table.read(array).unwrap();
        assert!(view.iter().all(|&byte| byte == number as u8), "{number}");
    }
    drop(foreign);
    free_all(&table, arrays[1..].to_vec());
    assert_usable(&table);
    report(
        "opened, read, written and freed while full",
        format!("{} arrays", arrays.len()),
    );
}

pub fn two_processes_fill_the_mount_at_once() {
    let Some((name, table)) = segment_on_small_shm(16 * MIB, "two") else {
        return;
    };
    let mut sums = Vec::new();
    for _ in 0..5 {
        let (told, go) = (Pipe::new(), Pipe::new());
        let fillers: Vec<Child> = (0..2)
            .map(|_| {
                Child::fork(|| {
                    let table = HandleTable::join(&Segment::open(&name.0).unwrap()).unwrap();
                    go.receive();
                    let (arrays, error) = fill(&table, 20 * KIB);
                    no_memory(error);
                    assert_intact(&table, &arrays);
                    told.send(arrays.len() as u64);
                    go.receive();
                    free_all(&table, arrays);
                })
            })
            .collect();
        for _ in 0..2 {
            go.send(0);
        }
        let sum = told.receive() + told.receive();
        for _ in 0..2 {
            go.send(0);
        }
        for filler in fillers {
            filler.join();
        }
        assert_eq!(table.arrays().count(), 0);
        sums.push(sum);
        assert_usable(&table);
    }
    let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
    // A filler may be refused while the other process holds a commit that then fails.
    assert!(*least * 10 >= *most * 9, "{sums:?}");
    report(
        "two processes fill at once",
        format!("{sums:?} arrays of 20 KiB"),
    );
}

pub fn a_trim_by_another_is_noticed() {
    if !own_shm(4 * MIB, 100) {
        return;
    }
    let name = Name::new("trim");
    let mut seen = Vec::new();
    for bytes in [50, 3 * KIB, 20 * KIB, 100 * KIB] {
        let table = segment(&name, 1 << 30);
        let other = HandleTable::join(&Segment::open(&name.0).unwrap()).unwrap();
        // The pages of the next extents are allocated along with those of the first.
        let first: Bytes = table.from_elem(bytes, 1).unwrap();
        table.free(first).unwrap();
        // The other participant gives all of them back, and a foreign file takes them.
        let trimmed = other.trim().unwrap();
        let foreign = Foreign::leaving(0);
        // Neither the freed slot nor the next ones are backed any more. A signal would end this
        // process.
        let mut had = 0;
        for _ in 0..4 {
            match table.from_elem(bytes, 2u8) {
                Ok(_) => had += 1,
                Err(error) => drop(no_memory(error)),
            }
        }
        drop(foreign);
        assert_usable(&table);
        seen.push(format!(
            "{trimmed} B trimmed, {had} of 4 arrays of {bytes} B created"
        ));
    }
    report("pages that another gave back", seen.join(", "));
}

pub fn an_uninitialized_segment_on_a_full_mount_is_an_error() {
    if !own_shm(4 * MIB, 100) {
        return;
    }
    // The file of a creator that dies before it has touched anything.
    let size = {
        let name = Name::new("model");
        let _table = segment(&name, MIB);
        fs::metadata(Path::new(SHM).join(&name.0)).unwrap().len()
    };
    let name = Name::new("unborn");
    let file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(Path::new(SHM).join(&name.0))
        .unwrap();
    file.set_len(size).unwrap();
    let foreign = Foreign::leaving(4096);
    let options = Segment::options().capacity(MIB as u64).seats(8);
    let error = options.clone().open(&name.0).unwrap_err();
    assert!(matches!(error, SegmentError::NoMemory(_)), "{error}");
    let text = says(error, &["need ", "/dev/shm has", "free"]);
    assert_eq!(free_bytes(), 4096, "its memory was given back");
    drop(foreign);
    let table = HandleTable::join(&options.open_or_create(&name.0).unwrap()).unwrap();
    assert_usable(&table);
    report("opening where the tables have no room", text);
}
