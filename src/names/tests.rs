//! Names as a program sees them, in one process. `loom-tests` and `tests/` have the races and
//! deaths.

use std::sync::Barrier;
use std::time::Duration;

use ndarray::{Array2, Axis, Ix1, Ix2};

use crate::bundle::BundleError;
use crate::descriptor::Descriptor;
use crate::layout::SCALE;
use crate::names::error::NameError;
use crate::queue::QueueError;
use crate::sync::{Atom, Ordering};
use crate::table::error::LeaseError;
use crate::word::{BucketWord, SlotIndex};
use crate::{HandleTable, Observer, Segment, Write};

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

/// Returns the number of live control arrays of the segment: here the records of names.
fn records(table: &HandleTable) -> usize {
    table.verify().unwrap().live - table.arrays().count()
}

#[test]
fn a_name_leads_to_its_array_in_every_table_of_the_segment() {
    let segment = Segment::in_process().unwrap();
    let (ours, theirs) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let x = ours.zeros::<f64, _>((2, 3)).unwrap();
    ours.publish("positions", x).unwrap();
    assert_eq!(theirs.find::<f64, Ix2>("positions").unwrap(), x);
    let error = theirs.find::<f32, Ix2>("positions").unwrap_err();
    assert!(
        matches!(error, NameError::Lease(LeaseError::WrongKind(_))),
        "{error}"
    );
    assert!(matches!(
        theirs.find::<f64, Ix2>("position"),
        Err(NameError::NotFound { .. })
    ));
}

#[test]
fn a_taken_name_is_reported_with_its_array_and_process() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    let y = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    let Err(NameError::Taken { name, handle, pid }) = table.publish("x", y) else {
        panic!("it is taken");
    };
    assert_eq!(
        (name.as_str(), handle, pid),
        ("x", x.into(), std::process::id())
    );
    assert_eq!(table.unpublish("x").unwrap(), x.into());
    table.publish("x", y).unwrap();
    assert_eq!(table.find::<f64, Ix1>("x").unwrap(), y);
}

#[test]
fn a_name_goes_with_its_array_and_leaves_nothing() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    assert_eq!(records(&table), 1);
    table.free(x).unwrap();
    assert!(matches!(
        table.find_any("x"),
        Err(NameError::NotFound { .. })
    ));
    assert_eq!(records(&table), 0);
    assert!(matches!(
        table.publish("x", x),
        Err(NameError::Lease(LeaseError::Stale { .. }))
    ));
    assert_eq!(records(&table), 0);
}

#[test]
fn names_of_a_participant_go_with_it_and_those_of_detached_arrays_stay() {
    let segment = Segment::in_process().unwrap();
    let survivor = HandleTable::join(&segment).unwrap();
    let leaver = HandleTable::join(&segment).unwrap();
    let (own, kept) = (
        leaver.zeros::<u8, _>(3).unwrap(),
        leaver.zeros::<u8, _>(3).unwrap(),
    );
    leaver.publish("own", own).unwrap();
    leaver.publish("kept", kept).unwrap();
    leaver.detach(kept).unwrap();
    drop(leaver);
    let names = survivor.names("").unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(
        (names[0].name.as_str(), names[0].handle),
        ("kept", kept.into())
    );
    assert_eq!(records(&survivor), 1);
}

#[test]
fn replacing_returns_what_had_the_name() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    let y = table.zeros::<f64, _>(3).unwrap();
    assert_eq!(table.replace("x", x).unwrap(), None);
    assert_eq!(table.replace("x", y).unwrap(), Some(x.into()));
    assert_eq!(table.find::<f64, Ix1>("x").unwrap(), y);
    assert!(table.read(x).is_ok(), "the old array is not freed");
    table.free(y).unwrap();
    assert_eq!(
        table.replace("x", x).unwrap(),
        None,
        "a freed array has no name"
    );
}

#[test]
fn a_name_moves_and_leaves_no_trace() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    let y = table.zeros::<f64, _>(3).unwrap();
    table.publish("0", x).unwrap();
    for step in 0..100 {
        let (old, new) = (step.to_string(), (step + 1).to_string());
        table.rename(&old, &new).unwrap();
        assert!(matches!(
            table.find_any(&old),
            Err(NameError::NotFound { .. })
        ));
        assert_eq!(table.find::<f64, Ix1>(&new).unwrap(), x);
        assert_eq!(records(&table), 1);
    }
    table.publish("other", y).unwrap();
    assert!(matches!(
        table.rename("100", "other"),
        Err(NameError::Taken { .. })
    ));
    assert!(matches!(
        table.rename("99", "98"),
        Err(NameError::NotFound { .. })
    ));
    table.rename("100", "100").unwrap();
    assert_eq!(table.find::<f64, Ix1>("100").unwrap(), x);
}

#[test]
fn many_names_share_buckets_and_are_listed_by_prefix() {
    // 65,536 slots are 2,048 buckets.
    let segment = Segment::options().arrays(1).in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let buckets = segment.memory().names().len();
    let count = 3 * buckets;
    let x = table.zeros::<u8, _>(1).unwrap();
    for at in 0..count {
        table.publish(&format!("{}/{at}", at % 2), x).unwrap();
    }
    for at in 0..count {
        assert_eq!(
            table.find_any(&format!("{}/{at}", at % 2)).unwrap(),
            x.into()
        );
    }
    let odd = table.names("1/").unwrap();
    let found = table.verify().unwrap();
    assert!(found.is_clean() && found.in_transit == 0, "{found}");
    assert_eq!(odd.len(), count / 2);
    assert!(
        odd.iter()
            .all(|info| info.name.starts_with("1/") && info.handle == x.into())
    );
    assert_eq!(
        table.names("1/1").unwrap().len(),
        odd.iter().filter(|n| n.name.starts_with("1/1")).count()
    );
    for at in (0..count).step_by(3) {
        table
            .rename(&format!("{}/{at}", at % 2), &format!("moved/{at}"))
            .unwrap();
    }
    assert_eq!(table.names("moved/").unwrap().len(), count.div_ceil(3));
    for info in table.names("").unwrap() {
        table.unpublish(&info.name).unwrap();
    }
    assert_eq!(records(&table), 0);
    assert!(table.verify().unwrap().is_clean());
}

#[test]
fn queues_partitions_and_bundles_are_opened_by_their_names() {
    let table = table();
    let x = table.zeros::<u32, _>(6).unwrap();
    let queue = table.queue::<u64>(8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    let bundle = table.bundle().unwrap();
    table.publish("jobs", queue.handle()).unwrap();
    table.publish("tiles", tiles.handle()).unwrap();
    table.publish("model", bundle.handle()).unwrap();
    table.publish("x", x).unwrap();

    table.find_queue("jobs").unwrap().push(7_u64).unwrap();
    assert_eq!(queue.pop().unwrap(), Some(7));
    let found = table.find_partition::<Write<u32, Ix1>>("tiles").unwrap();
    assert_eq!((found.tiles(), found.handle()), (3, tiles.handle()));
    assert_eq!(
        table.find_bundle("model").unwrap().handle(),
        bundle.handle()
    );

    let wrong = table.find_queue::<u64>("x").err().unwrap();
    assert!(
        matches!(wrong, QueueError::Lease(LeaseError::WrongKind(_))),
        "{wrong}"
    );
    let none = table.find_bundle("jobbs").err().unwrap();
    assert!(
        matches!(none, BundleError::Name(NameError::NotFound { .. })),
        "{none}"
    );
}

#[test]
fn a_name_that_changes_while_its_array_is_opened_is_looked_up_again() {
    let table = table();
    let (x, y) = (
        table.zeros::<u8, _>(1).unwrap(),
        table.zeros::<u8, _>(1).unwrap(),
    );
    table.publish("x", x).unwrap();
    let mut opened = vec![];
    let found = table.core.find_with("x", |handle| {
        // The first array is freed between the lookup and this line.
        if handle == x.into() {
            table.replace("x", y).unwrap();
            table.free(x).unwrap();
        }
        table
            .core
            .downcast::<u8, Ix1>(handle)
            .map_err(NameError::from)
    });
    assert_eq!(found.unwrap(), y);
    let failed = table.core.find_with("x", |handle| {
        opened.push(handle);
        Err::<(), _>(NameError::Crowded { names: 1 })
    });
    assert!(failed.is_err());
    assert_eq!(opened, [y.into()]);
}

#[test]
fn a_wait_ends_with_the_name_or_with_an_error() {
    let segment = Segment::in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let waited = Duration::from_millis(1);
    for error in [
        table.find_wait::<u8, Ix1>("x", waited).unwrap_err(),
        table.find_any_wait("x", waited).unwrap_err(),
    ] {
        let NameError::NotGiven { name, waited: told } = error else {
            panic!("{error}");
        };
        assert_eq!((name.as_str(), told), ("x", waited));
    }
    let x = std::thread::scope(|threads| {
        let waits = threads.spawn(|| {
            let table = HandleTable::join(&segment).unwrap();
            table.find_wait::<u8, Ix1>("x", Duration::from_secs(60))
        });
        std::thread::sleep(Duration::from_millis(2));
        let x = table.zeros::<u8, _>(1).unwrap();
        table.publish("x", x).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), x);
        x
    });
    // Longer than time can be counted.
    assert_eq!(table.find_any_wait("x", Duration::MAX).unwrap(), x.into());
    let wrong = table.find_wait::<f32, Ix1>("x", Duration::MAX).unwrap_err();
    assert!(matches!(wrong, NameError::Lease(LeaseError::WrongKind(_))));
}

#[test]
fn one_of_many_participants_creates_an_array() {
    let segment = Segment::in_process().unwrap();
    for turn in 0..50 {
        let start = Barrier::new(4);
        let create = || {
            let table = HandleTable::join(&segment).unwrap();
            start.wait();
            let (x, is_new) = table
                .get_or_create("x", (2, 3), |mut x| {
                    x.fill(turn);
                    // Others look for the name meanwhile.
                    std::thread::sleep(Duration::from_millis(1));
                })
                .unwrap();
            assert_eq!(
                table.read(x).unwrap().view(),
                Array2::from_elem((2, 3), turn)
            );
            start.wait();
            // Those that came too late have freed theirs.
            assert_eq!(table.arrays().count(), 1);
            // The owner frees it at the end.
            start.wait();
            (x, is_new)
        };
        let found = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..4).map(|_| threads.spawn(create)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(found.iter().all(|(x, _)| *x == found[0].0));
        assert_eq!(found.iter().filter(|(_, is_new)| *is_new).count(), 1);
    }
}

#[test]
fn an_array_that_is_there_must_fit() {
    let table = table();
    let init = |_: ndarray::ArrayViewMut1<'_, u8>| panic!("it is there");
    let x = table.zeros::<u8, _>(3).unwrap();
    table.publish("x", x).unwrap();
    assert_eq!(table.get_or_create("x", 3, init).unwrap(), (x, false));
    let error = table.get_or_create("x", 4, init).unwrap_err();
    assert!(
        matches!(&error, NameError::Shape { found, expected, .. }
            if (found.as_slice(), expected.as_slice()) == (&[3][..], &[4][..])),
        "{error}"
    );
    let error = table
        .get_or_create("x", (3, 1), |_: ndarray::ArrayViewMut2<'_, u8>| ())
        .unwrap_err();
    assert!(matches!(error, NameError::Lease(LeaseError::WrongKind(_))));
    let before = table.arrays().count();
    let error = table
        .get_or_create(&"y".repeat(256), 1, |_: ndarray::ArrayViewMut1<'_, u8>| ())
        .unwrap_err();
    assert!(matches!(error, NameError::Length { .. }));
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        table.get_or_create("y", 1, |_: ndarray::ArrayViewMut1<'_, u8>| {
            panic!("a mistake")
        })
    }));
    assert!(failed.is_err() && table.find_any("y").is_err());
    assert_eq!(table.arrays().count(), before);
}

#[test]
fn texts_that_are_no_names_are_refused() {
    let table = table();
    let x = table.zeros::<u8, _>(1).unwrap();
    for text in [String::new(), "x".repeat(256)] {
        let error = table.publish(&text, x).unwrap_err();
        assert!(
            matches!(error, NameError::Length { length, .. } if length == text.len()),
            "{error}"
        );
        assert!(matches!(
            table.find_any(&text),
            Err(NameError::Length { .. })
        ));
    }
    let longest = "é".repeat(127);
    table.publish(&longest, x).unwrap();
    assert_eq!(table.find_any(&longest).unwrap(), x.into());
}

/// Frees the record of a name's bucket without the checks. It stays in its bucket.
fn lose_record(table: &HandleTable, name: &str) {
    let memory = table.segment().memory();
    let bucket = super::checked(name).unwrap().bucket(memory.names().len());
    let (slot, generation) = super::word_of(memory, bucket).unwrap().record().unwrap();
    let record = table.core.handle_of(slot, generation);
    assert!(matches!(
        table.free(record),
        Err(LeaseError::Internal { .. })
    ));
    table.core.free_slot(record).unwrap();
}

#[test]
fn a_bucket_whose_record_was_freed_can_be_used_again() {
    let uses: [fn(&HandleTable); 6] = [
        |table| assert_eq!(table.names("").unwrap(), []),
        |table| assert!(table.find_any("x").is_err_and(is_not_found)),
        |table| assert!(table.unpublish("x").is_err_and(is_not_found)),
        |table| assert!(table.rename("x", "y").is_err_and(is_not_found)),
        |table| {
            let y = table.zeros::<f64, _>(3).unwrap();
            assert_eq!(table.replace("x", y).unwrap(), None);
            table.free(y).unwrap();
        },
        |table| drop(table.reap().unwrap()),
    ];
    for heal in uses {
        let segment = Segment::anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x = table.zeros::<f64, _>(3).unwrap();
        table.publish("x", x).unwrap();
        lose_record(&table, "x");
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        assert_eq!(observer.names("").unwrap(), []);
        assert!(observer.find("x").is_err_and(is_not_found));
        assert!(!table.verify().unwrap().is_clean());

        // A participant with an empty cache.
        let other = HandleTable::join(&segment).unwrap();
        heal(&other);
        other.publish("x", x).unwrap();
        assert_eq!(table.find::<f64, Ix1>("x").unwrap(), x);
        assert_eq!(table.names("").unwrap().len(), 1);
        let found = table.verify().unwrap();
        assert!(found.is_clean(), "{found}");
    }
}

fn is_not_found(error: NameError) -> bool {
    matches!(error, NameError::NotFound { .. })
}

#[test]
fn a_bucket_that_names_no_record_is_still_damage() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    let memory = table.segment().memory();
    let bucket = super::checked("x").unwrap().bucket(memory.names().len());
    let good = super::word_of(memory, bucket).unwrap();
    let (slot, generation) = good.record().unwrap();
    let nowhere = SlotIndex::new(memory.slots().len());
    for word in [
        BucketWord::of(slot, generation + 1),
        BucketWord::of(nowhere, 0),
    ] {
        memory.names()[bucket.get()].store(word, Ordering::Relaxed);
        for error in [table.names("").map(drop), table.publish("x", x)] {
            assert!(matches!(error, Err(NameError::Corrupt { .. })), "{error:?}");
        }
        let now = super::word_of(memory, bucket).unwrap();
        assert_eq!(now, word, "an unknown word is left unchanged");
    }
    memory.names()[bucket.get()].store(good, Ordering::Relaxed);
    assert_eq!(table.names("").unwrap().len(), 1);
}

/// Returns the number of buckets with a record in each group, and the groups' counters.
fn in_use(table: &HandleTable) -> (Vec<u64>, Vec<u64>) {
    let memory = table.segment().memory();
    let filled = |group: &[Atom<BucketWord>]| {
        let filled = group
            .iter()
            .filter(|word| !word.load(Ordering::Relaxed).is_empty());
        filled.count() as u64
    };
    let groups = memory.names().chunks(SCALE.bucket_group);
    let counts = memory.name_counts().iter();
    (
        groups.map(filled).collect(),
        counts.map(|count| count.load(Ordering::Relaxed)).collect(),
    )
}

#[test]
fn groups_count_their_buckets_with_names() {
    let segment = Segment::in_process().unwrap();
    let go = Barrier::new(3);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (segment, go) = (&segment, &go);
            scope.spawn(move || {
                let table = HandleTable::join(segment).unwrap();
                let x = table.zeros::<u8, _>(1).unwrap();
                go.wait();
                for at in 0..300 {
                    // Common buckets, but no common names.
                    let at = at % 20;
                    table.publish(&format!("{thread}/{at}"), x).unwrap();
                    if at % 2 == 0 {
                        let new = format!("{thread}/{at}/moved");
                        table.rename(&format!("{thread}/{at}"), &new).unwrap();
                        table.unpublish(&new).unwrap();
                    } else {
                        table.unpublish(&format!("{thread}/{at}")).unwrap();
                    }
                }
                table.publish(&format!("left/{thread}"), x).unwrap();
                table.detach(x).unwrap();
            });
        }
    });
    let table = HandleTable::join(&segment).unwrap();
    let (filled, counts) = in_use(&table);
    assert_eq!(filled, counts);
    let listed = table.names("").unwrap();
    let listed: Vec<_> = listed.iter().map(|info| &*info.name).collect();
    assert_eq!(listed, ["left/0", "left/1", "left/2"]);
    for name in listed {
        table.unpublish(name).unwrap();
    }
    let (filled, counts) = in_use(&table);
    assert_eq!(filled, counts);
    assert!(counts.iter().all(|&count| count == 0));
}

#[test]
fn a_lost_record_is_counted_no_longer() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    lose_record(&table, "x");
    assert_eq!(in_use(&table).1.iter().sum::<u64>(), 1);
    assert_eq!(table.names("").unwrap(), []);
    assert!(in_use(&table).1.iter().all(|&count| count == 0));
}

#[test]
fn a_bucket_that_is_not_counted_is_damage() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    let memory = table.segment().memory();
    let bucket = super::checked("x").unwrap().bucket(memory.names().len());
    let count = &memory.name_counts()[bucket.get() / SCALE.bucket_group];
    count.store(0, Ordering::Relaxed);
    let found = table.verify().unwrap();
    assert_eq!(found.damage.len(), 1, "{found}");
    assert!(found.damage[0].what.contains("not counted"), "{found}");
    // Too low by one, it counts all the same, and a count that is too high only costs time.
    table.unpublish("x").unwrap();
    assert_eq!(count.load(Ordering::Relaxed), u64::MAX);
    table.publish("y", x).unwrap();
    assert_eq!(table.names("").unwrap().len(), 1);
}

#[test]
fn names_of_every_length_are_found_and_listed() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    let names: Vec<String> = (1..=255).map(|length| "n".repeat(length)).collect();
    for (at, name) in names.iter().enumerate() {
        table.publish(name, x).unwrap();
        // Alone, the first time; the second lookup is by the name cache.
        assert_eq!(table.find_any(name).unwrap(), x.into());
        assert_eq!(table.find_any(name).unwrap(), x.into());
        assert_eq!(table.names("").unwrap().len(), at + 1);
    }
    assert!(table.find_any("m").is_err_and(is_not_found));
    assert!(table.verify().unwrap().is_clean());
}

#[test]
fn a_copy_of_a_name_that_differs_from_its_record_is_damage() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("weights", x).unwrap();
    let memory = table.segment().memory();
    let bucket = super::checked("weights")
        .unwrap()
        .bucket(memory.names().len());
    let (slot, _) = super::word_of(memory, bucket).unwrap().record().unwrap();
    assert!(table.verify().unwrap().is_clean());
    let words = memory.descriptor(slot);
    let mut copy: [u64; 5] = core::array::from_fn(|at| Descriptor::name_word(words, at));
    let good = copy;
    // Without a copy, the record itself is read. It is damage all the same: verify looks at records
    // closely.
    Descriptor::store_name(words, [0; 5]);
    assert_eq!(table.find_any("weights").unwrap(), x.into());
    assert!(!table.verify().unwrap().is_clean());
    // Another text: the lookup misses the name, and does not fail.
    copy[2] ^= 1;
    Descriptor::store_name(words, copy);
    assert!(!table.verify().unwrap().is_clean());
    Descriptor::store_name(words, good);
    assert!(table.verify().unwrap().is_clean());
}
