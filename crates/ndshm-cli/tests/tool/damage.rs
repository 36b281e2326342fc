//! Tests with segments whose bytes were overwritten.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ndshm::HandleTable;
use serde_json::json;

use crate::living::entry;
use crate::program::{options, populate};
use crate::runs::{self, piped, terminal};
use crate::support::{Child, Name, exit_at_once};

/// A persistent segment that no process is in.
struct Kept {
    name: Name,
    file: File,
    handles: Vec<String>,
    /// The original bytes of its tables.
    tables: Vec<u8>,
}

/// Offsets of the tables in a segment of 8 seats and 65,536 slots; the layout is fixed.
const HEADER: u64 = 0;
const SEATS: u64 = 0x1000;
const SPANS: u64 = 0x2000;
const SLOTS: u64 = 0x4000;
const READERS: u64 = SLOTS + 8 * 65_536;
const PINS: u64 = READERS + 8 * 65_536;
const DESCRIPTORS: u64 = PINS + 8 * 65_536;
/// End of the descriptors of the first 1024 slots; the spans hold fewer slots than that.
const TABLES: u64 = DESCRIPTORS + 128 * 1024;
const NAMES: u64 = DESCRIPTORS + 128 * 65_536 + 256 * 2048;
/// Number of buckets of names.
const BUCKETS: u64 = 65_536 / 32;

impl Kept {
    fn new(what: &str) -> Kept {
        let name = Name::new(what);
        let maker = Child::fork(|| {
            let segment = options().persistent(true).create(&name.0).unwrap();
            let table = HandleTable::join(&segment).unwrap();
            for handle in populate(&table) {
                table.detach(handle).unwrap();
            }
            drop((table, segment));
            exit_at_once(0);
        });
        maker.join();
        let path = format!("/dev/shm/{}", name.0);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut tables = vec![0; TABLES as usize];
        file.read_exact_at(&mut tables, 0).unwrap();
        let shown = runs::json(&["show", &name.0]);
        let shown = shown.ends_with(0).json();
        let arrays = shown["arrays"].as_array().unwrap().iter();
        let handles = arrays.map(|array| array["handle"].as_str().unwrap().to_owned());
        Kept {
            handles: handles.collect(),
            name,
            file,
            tables,
        }
    }

    fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_le_bytes(self.tables[at..at + 8].try_into().unwrap())
    }

    fn set(&self, at: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), at).unwrap();
    }

    fn restore(&self) {
        self.file.write_all_at(&self.tables, 0).unwrap();
    }

    /// Runs many commands on the segment; each must end with a documented exit code.
    fn ask_all(&self) {
        // The first small slot, the record, and the last slot, which is the large one.
        for at in [0, 4, self.handles.len() - 1] {
            piped(&["stat", &self.name.0, &self.handles[at]]).code();
            piped(&["get", &self.name.0, &self.handles[at]]).code();
        }
        piped(&["get", &self.name.0, &self.handles[0], "0,0"]).code();
        piped(&["show", &self.name.0]).code();
        piped(&["gc", &self.name.0]).code();
        piped(&["watch", &self.name.0, "--once"]).code();
        piped(&["plot", &self.name.0, &self.handles[0]]).code();
    }
}

pub fn damage_is_named() {
    let kept = Kept::new("damaged");
    let name = kept.name.0.as_str();
    let slot = (0..1024)
        .map(|at| SLOTS + 8 * at)
        .find(|&at| kept.word(at) & 7 == 2)
        .expect("there are live arrays");
    let descriptor = DESCRIPTORS + (slot - SLOTS) * 16;
    let damages = [
        // No state has this number.
        ("slot", slot, kept.word(slot) & !7 | 5),
        ("slot", slot, u64::MAX),
        ("descriptor", descriptor, u64::MAX),
        ("descriptor", descriptor + 8, u64::MAX / 16),
        ("reader", READERS + (slot - SLOTS), 1 << 60),
        ("span", SPANS, u64::MAX),
        ("span", SPANS + 8, 1),
        ("persistent", HEADER + 24, 77),
    ];
    for (what, at, word) in damages {
        kept.set(at, word);
        let shown = runs::json(&["show", name]);
        assert_eq!(shown.code(), 1, "{what} at {at:#x}: {}", shown.out);
        let document = shown.json();
        let damage = document["verify"]["damage"].as_array().unwrap();
        assert!(!damage.is_empty(), "{what} at {at:#x}: {document}");
        let text = terminal(&["show", name], &[]);
        assert!(
            text.ends_with(1).out.contains("at byte 0x"),
            "{what}: {}",
            text.out
        );
        let list = runs::json(&["ls"]);
        list.ends_with(1);
        assert_eq!(
            entry(&list.json(), name)["state"],
            "damaged",
            "{what} at {at:#x}"
        );
        kept.ask_all();
        kept.restore();
        runs::json(&["show", name]).ends_with(0);
    }
    // A bucket of the names holds a wrong word.
    let mut names = vec![0; 8 * BUCKETS as usize];
    kept.file.read_exact_at(&mut names, NAMES).unwrap();
    let used = names.chunks(8).position(|bucket| bucket != [0; 8]);
    let used = NAMES + 8 * used.expect("there are names") as u64;
    for word in [u64::MAX, 1, kept.word(slot)] {
        kept.set(used, word);
        let shown = runs::json(&["show", name]);
        assert_eq!(shown.code(), 1, "{word:#x}: {}", shown.out);
        assert!(shown.json()["names"].is_null(), "{word:#x}: {}", shown.out);
        kept.ask_all();
        for array in ["layer/plain", "also plain", "none"] {
            piped(&["get", name, array]).code();
        }
        kept.file.write_all_at(&names, NAMES).unwrap();
        runs::json(&["show", name]).ends_with(0);
    }
    // The header is damaged: the segment cannot be opened at all.
    for (word, listed) in [
        (kept.word(HEADER) ^ 1 << 30, Some("damaged")),
        (kept.word(HEADER) ^ 1 << 16, Some("version")),
        (kept.word(HEADER) | u64::MAX << 24, Some("damaged")),
        (kept.word(HEADER) ^ 1, None),
    ] {
        kept.set(HEADER, word);
        let shown = piped(&["show", name]);
        assert!(shown.ends_with(1).err.contains(name), "{}", shown.err);
        let list = runs::json(&["ls"]).json();
        match listed {
            Some(state) => assert_eq!(entry(&list, name)["state"], state),
            None => assert!(!list.to_string().contains(name)),
        }
        kept.ask_all();
        // `gc` leaves it alone unless it is named.
        let told = runs::json(&["gc"]).json();
        match listed {
            Some(_) => assert_eq!(entry(&told, name)["action"], json!("none")),
            None => assert!(!told.to_string().contains(name)),
        }
        kept.restore();
    }
    kept.set(HEADER, kept.word(HEADER) ^ 1 << 30);
    piped(&["gc", name, "--yes", "--persistent"]).ends_with(0);
    assert!(!kept.name.exists());
}

pub fn a_truncated_file_is_refused() {
    let kept = Kept::new("cut");
    let name = kept.name.0.as_str();
    for len in [SLOTS, SEATS, 4096, 100, 8] {
        kept.file.set_len(len).unwrap();
        let shown = piped(&["show", name]);
        assert!(
            shown.ends_with(1).err.contains("its size is not"),
            "{}",
            shown.err
        );
        assert_eq!(entry(&runs::json(&["ls"]).json(), name)["state"], "damaged");
        kept.ask_all();
    }
    for len in [7, 1, 0] {
        kept.file.set_len(len).unwrap();
        piped(&["show", name]).ends_with(1);
        kept.ask_all();
    }
}

pub fn no_bytes_crash_the_tool() {
    let kept = Kept::new("anything");
    let name = kept.name.0.as_str();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let used: Vec<u64> = (0..TABLES / 8)
        .map(|at| 8 * at)
        .filter(|&at| kept.word(at) != 0)
        .collect();
    let mut damaged = 0;
    for _ in 0..25 {
        for _ in 0..1 + next() % 4 {
            let at = used[next() as usize % used.len()];
            let word = match next() % 3 {
                0 => next(),
                1 => kept.word(at) ^ 1 << (next() % 64),
                _ => kept.word(used[next() as usize % used.len()]),
            };
            kept.set(at, word);
        }
        let shown = runs::json(&["show", name]);
        damaged += usize::from(shown.code() == 1);
        let handle = &kept.handles[next() as usize % kept.handles.len()];
        piped(&["stat", name, handle]).code();
        piped(&["get", name, handle, "--json"]).code();
        piped(&["ls", name]).code();
        piped(&["get", name, "layer/plain/0"]).code();
        kept.restore();
    }
    assert!(damaged > 5, "{damaged} of 25 were found damaged");
    piped(&["show", name]).ends_with(0);
}
