//! Tests with leftovers of crashed programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ndshm::error::SegmentError;
use ndshm::segment::Removal;
use ndshm::{HandleTable, Segment};
use serde_json::json;

use crate::living::entry;
use crate::program::{Live, Which, die_in, options, populate};
use crate::runs::{self, piped, terminal};
use crate::support::{Child, Name, Pipe, eventually, exit_at_once, is_alive};

pub fn a_crashed_program_can_be_inspected() {
    let dead = Live::named("seen").kill();
    let list = runs::json(&["ls"]);
    list.code();
    let listed = entry(&list.json(), &dead.place);
    assert_eq!(
        (&listed["seats_alive"], &listed["seats_dead"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(listed["state"], "ok");
    let shown = runs::json(&["show", &dead.place]);
    let shown = shown.ends_with(0).json();
    assert_eq!(shown["arrays"].as_array().map(Vec::len), Some(10));
    let leased = dead.array(Which::Leased);
    let mut arrays = shown["arrays"].as_array().unwrap().iter();
    let leased = arrays.find(|array| array["handle"] == leased).unwrap();
    assert_eq!(leased["writer"], shown["seats"][0]["pid"]);
    assert_eq!(shown["arrays"][0]["owner_alive"], false);
    assert_eq!(shown["verify"]["clean"], true);
    for array in dead.arrays() {
        let code = 2 * i32::from(array == dead.array(Which::Halves));
        piped(&["stat", &dead.place, &array]).ends_with(code);
        piped(&["get", &dead.place, &array]).ends_with(0);
    }
    // Setting an element would join the segment and thereby clean it up.
    let set = piped(&["set", &dead.place, &dead.array(Which::Plain), "0", "1"]);
    set.ends_with(4);
    assert!(set.err.contains("no live process"), "{}", set.err);
    let got = runs::json(&["get", &dead.place, &dead.array(Which::Plain), "0,0"]);
    assert_eq!(got.ends_with(0).json()["data"], 0.5);
    assert!(
        terminal(&["show", &dead.place], &[])
            .ends_with(0)
            .out
            .contains("dead")
    );
}

pub fn gc_removes_only_when_told() {
    let dead = Live::named("removed").kill();
    let mut live = Live::named("kept");
    let both = [dead.place.as_str(), live.place.as_str()];
    let told = runs::json(&[&["gc"], &both[..]].concat());
    let told = told.ends_with(1).json();
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told[0]["finding"], "deserted");
    assert_eq!(
        (&told[0]["action"], &told[0]["done"]),
        (&json!("remove"), &json!(false))
    );
    assert!(dead.exists(), "that was a dry run");
    let dry = piped(&["gc", &dead.place]);
    assert!(dry.ends_with(1).out.contains("--yes"), "{}", dry.out);
    // Without arguments `gc` finds it as well.
    let all = runs::json(&["gc"]);
    all.code();
    assert_eq!(entry(&all.json(), &dead.place)["finding"], "deserted");
    assert!(dead.exists());
    let done = runs::json(&[&["gc", "--yes"], &both[..]].concat());
    let done = done.ends_with(0).json();
    assert_eq!(done[0]["done"], true, "{done}");
    assert!(!dead.exists());
    live.is_undisturbed();
    piped(&["gc", "--yes", &live.place]).ends_with(0);
    live.is_undisturbed();
    piped(&["show", &live.place]).ends_with(0);
    live.leave();
}

/// Checks that a process that has entered keeps the segment and its name, while others remove
/// leftovers.
pub fn gc_keeps_what_is_being_opened() {
    let name = Name::new("raced");
    let enough = Pipe::new();
    let opener = Child::fork(|| {
        while !enough.is_sent_within(Duration::ZERO) {
            // The visitor exits like a crash: others must remove the segment.
            let visitor = Child::fork(|| {
                let table = HandleTable::join(&options().open_or_create(&name.0).unwrap()).unwrap();
                let array = table.from_elem(3, 7u8).unwrap();
                table.publish("mine", array).unwrap();
                let seen = options()
                    .observe(&name.0)
                    .expect("it exists while a process is in it");
                assert_eq!(seen.find("mine").unwrap(), array.into());
                exit_at_once(0);
            });
            visitor.join();
        }
    });
    let (mut removed, mut in_use) = (0, 0);
    eventually("10 removals, and one attempt in use", || {
        // No pause in between: the attempts must fall between any two steps of an entering process.
        for _ in 0..100 {
            match Segment::options().remove(&name.0) {
                Ok(Removal::Removed) => removed += 1,
                Ok(_) => in_use += 1,
                Err(SegmentError::NotFound { .. } | SegmentError::NotInitialized { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        (removed >= 10 && in_use > 0) || !is_alive(opener.pid())
    });
    enough.send(1);
    opener.join();
    assert!(
        removed >= 10 && in_use > 0,
        "{removed} removed, {in_use} in use"
    );
}

pub fn gc_keeps_persistent_segments() {
    let name = Name::new("persistent");
    let maker = Child::fork(|| {
        let options = options().persistent(true).pinned(true);
        let segment = options.create(&name.0).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        for handle in populate(&table) {
            table.detach(handle).unwrap();
        }
        drop((table, segment));
        exit_at_once(0);
    });
    maker.join();
    let told = runs::json(&["gc", &name.0, "--yes"]);
    let told = told.ends_with(0).json();
    assert_eq!(
        (&told[0]["finding"], &told[0]["action"]),
        (&json!("persistent"), &json!("none"))
    );
    assert!(name.exists());
    let shown = runs::json(&["show", &name.0]);
    let shown = shown.ends_with(0).json();
    assert_eq!(
        (&shown["persistent"], &shown["seats"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(shown["pinned"], json!(true));
    let text = piped(&["show", &name.0]).ends_with(0).out.clone();
    assert!(text.contains(", pinned, persistent\n"), "{text}");
    // A persistent segment may be changed although no process is in it.
    let plain = shown["arrays"][0]["handle"].as_str().unwrap();
    piped(&["set", &name.0, plain, "0,0", "4"]).ends_with(0);
    assert!(name.exists());
    let by_the_library = Segment::options().remove(&name.0).unwrap();
    assert_eq!(by_the_library, Removal::Persistent);
    assert!(name.exists());
    piped(&["gc", &name.0, "--persistent"]).ends_with(1);
    assert!(name.exists());
    // The printed command works as printed.
    for told in [piped(&["gc", &name.0]), piped(&["gc", "--yes", &name.0])] {
        told.ends_with(0);
        assert_eq!(
            told.out.lines().last(),
            Some(&*format!(
                "{0} is persistent; to remove it: ndshm gc --yes --persistent {0}",
                name.0
            ))
        );
        assert!(name.exists());
    }
    let told = piped(&["gc", &name.0]);
    let (_, typed) = told.out.trim_end().split_once(": ndshm ").unwrap();
    let typed: Vec<&str> = typed.split(' ').collect();
    piped(&typed).ends_with(0);
    assert!(!name.exists());
}

pub fn gc_reaps_the_dead_among_the_living() {
    let mut live = Live::named("reaped");
    let plain = live.array(Which::Plain);
    die_in(&live.place, &plain);
    let told = runs::json(&["gc", &live.place]);
    let told = told.ends_with(1).json();
    assert_eq!(
        (&told[0]["finding"], &told[0]["dead_seats"]),
        (&json!("dead_seats"), &json!(1))
    );
    let seats = |alive: bool| {
        let shown = runs::json(&["show", &live.place]);
        let seats = shown.ends_with(0).json()["seats"].clone();
        let seats = seats.as_array().unwrap().iter();
        seats.filter(|seat| seat["alive"] == alive).count()
    };
    assert_eq!(
        (seats(true), seats(false)),
        (1, 1),
        "a dry run reaps nobody"
    );
    piped(&["gc", "--yes", &live.place]).ends_with(0);
    assert_eq!((seats(true), seats(false)), (1, 0));
    let shown = runs::json(&["show", &live.place]).json();
    assert_eq!(shown["arrays"][0]["poisoned"], true);
    assert_eq!(
        shown["arrays"].as_array().map(Vec::len),
        Some(10),
        "the array of the dead is gone"
    );
    // A half-written array is reported and not overwritten.
    let set = piped(&["set", &live.place, &plain, "0,0", "1"]);
    set.ends_with(1);
    assert!(set.err.contains("poisoned"), "{}", set.err);
    live.is_undisturbed();
    live.leave();
}

/// Checks that the tool inspects a segment that others may write, but does not join it.
pub fn gc_leaves_segments_that_others_may_write() {
    let name = Name::new("foreign");
    let segment = options().mode(0o666).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let array = table.from_elem(3, 7u8).unwrap();
    let list = runs::json(&["ls"]);
    list.code();
    let listed = entry(&list.json(), &name.0);
    assert_eq!(
        (&listed["state"], &listed["arrays"]),
        (&json!("ok"), &json!(1))
    );
    let got = runs::json(&["get", &name.0, &array.to_string()]);
    assert_eq!(got.ends_with(0).json()["data"], json!([7, 7, 7]));
    let set = piped(&["set", &name.0, &array.to_string(), "0", "1"]);
    assert!(
        set.ends_with(4).err.contains("writable by others"),
        "{}",
        set.err
    );
    assert!(!runs::json(&["gc"]).out.contains(&name.0), "not our own");
    drop((table, segment));
}

/// A user without any privileges.
const STRANGER: u32 = 54_321;

fn become_stranger() -> bool {
    // SAFETY: changes this process's user and nothing else; it has one thread.
    let group = unsafe { libc::setgid(STRANGER) };
    // SAFETY: as above.
    let user = unsafe { libc::setuid(STRANGER) };
    (group, user) == (0, 0)
}

/// Another user makes two segments; all may read one of them. The user root inspects both, a
/// third user only that one.
pub fn segments_of_other_users_are_listed() {
    if rustix::process::geteuid().as_raw() != 0 {
        println!("  (not shown: that takes the right to act for another user)");
        return;
    }
    let (open, closed) = (Name::new("for-all"), Name::new("for-one"));
    let told = Pipe::new();
    let owner = Child::fork(|| {
        assert!(become_stranger());
        let make = |name: &Name, mode| {
            let segment = options().mode(mode).create(&name.0).unwrap();
            let table = HandleTable::join(&segment).unwrap();
            let array = table.from_elem(3, 7u8).unwrap();
            told.send(array.to_bits());
            table
        };
        let _both = (make(&open, 0o644), make(&closed, 0o600));
        std::thread::sleep(Duration::from_secs(100));
        exit_at_once(0);
    });
    let (array, _) = (ndshm::AnyHandle::from_bits(told.receive()), told.receive());
    let list = runs::json(&["ls"]);
    list.code();
    for name in [&open, &closed] {
        let listed = entry(&list.json(), &name.0);
        assert_eq!(
            (&listed["state"], &listed["arrays"], &listed["uid"]),
            (&json!("ok"), &json!(1), &json!(STRANGER))
        );
        let shown = runs::json(&["show", &name.0]);
        assert_eq!(shown.ends_with(0).json()["uid"], json!(STRANGER));
        let text = piped(&["show", &name.0]);
        assert!(
            text.ends_with(0).out.contains("of user 54321"),
            "{}",
            text.out
        );
    }
    let third = Child::fork(|| {
        // SAFETY: changes this process's user and nothing else; it has one thread.
        assert_eq!(unsafe { libc::setuid(STRANGER + 1) }, 0);
        let listed = entry(&runs::json(&["ls"]).json(), &open.0);
        assert_eq!(
            (&listed["state"], &listed["arrays"]),
            (&json!("ok"), &json!(1))
        );
        let got = runs::json(&["get", &open.0, &array.to_string()]);
        assert_eq!(got.ends_with(0).json()["data"], json!([7, 7, 7]));
        let hidden = entry(&runs::json(&["ls"]).json(), &closed.0);
        assert_eq!(
            (&hidden["state"], &hidden["arrays"], &hidden["uid"]),
            (&json!("unreadable"), &json!(null), &json!(STRANGER))
        );
        let text = piped(&["ls"]).out;
        assert!(
            text.contains("could not be opened (permission denied)"),
            "{text}"
        );
        assert!(
            text.contains("processes of other users could not be inspected"),
            "{text}"
        );
        piped(&["show", &closed.0]).ends_with(4);
    });
    third.join();
    owner.kill();
}

/// Another user truncates a file during the inspection. The list must not end, and the tool must
/// not end without a message.
pub fn a_file_truncated_meanwhile_does_not_end_the_list() {
    let name = Name::new("cut");
    let segment = options()
        .mode(0o666)
        .persistent(true)
        .create(&name.0)
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    for _ in 0..2000 {
        table.from_elem(3, 7u8).unwrap();
    }
    drop((table, segment));
    let path = format!("/dev/shm/{}", name.0);
    let whole = fs::metadata(&path).unwrap().len();
    let head = {
        use std::os::unix::fs::FileExt;
        let mut head = vec![0; 1 << 20];
        fs::File::open(&path)
            .unwrap()
            .read_exact_at(&mut head, 0)
            .unwrap();
        head
    };
    let cutter = Child::fork(|| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&path).unwrap();
        loop {
            // The header stays, so the file looks complete until the rest is touched.
            file.set_len(4096).unwrap();
            file.set_len(whole).unwrap();
            file.write_all_at(&head, 0).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    for _ in 0..40 {
        let list = runs::json(&["ls"]);
        list.code();
        let state = &entry(&list.json(), &name.0)["state"];
        assert!(state == "ok" || state == "damaged", "{state}");
        piped(&["show", &name.0]).code();
    }
    cutter.kill();
}

pub fn gc_leaves_files_of_zeros() {
    let path = |name: &Name| format!("/dev/shm/{}", name.0);
    let write = |name: &Name, bytes: &[u8]| {
        fs::write(path(name), bytes).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let (empty, zeros, other) = (Name::new("empty"), Name::new("zeros"), Name::new("other"));
    write(&empty, b"");
    write(&zeros, &[0; 8192]);
    write(&other, b"another program's");
    let all = runs::json(&["gc"]);
    all.code();
    let all = all.json();
    for name in [&empty, &zeros] {
        let entry = entry(&all, &name.0);
        assert_eq!(
            (&entry["finding"], &entry["action"]),
            (&json!("unfinished"), &json!("none"))
        );
    }
    assert!(!all.to_string().contains(&other.0));
    assert!(!runs::json(&["ls"]).out.contains(&other.0));
    let named = piped(&["gc", &empty.0, &zeros.0]);
    let named = &named.ends_with(1).out;
    let command = format!(
        "to make the changes: ndshm gc --yes {} {}\n",
        empty.0, zeros.0
    );
    assert!(named.contains(&command), "{named}");
    let text = piped(&["gc"]).out;
    for name in [&empty, &zeros] {
        let command = format!("ndshm gc --yes {}", name.0);
        assert_eq!(entry(&all, &name.0)["command"], command);
        assert!(
            text.contains(&format!("to remove it: {command}\n")),
            "{text}"
        );
    }
    assert!(empty.exists() && zeros.exists());
    piped(&["gc", "--yes", &empty.0, &zeros.0]).ends_with(0);
    assert!(!empty.exists() && !zeros.exists());
    piped(&["gc", "--yes", &other.0]).ends_with(1);
    assert_eq!(fs::read(path(&other)).unwrap(), b"another program's");
}
