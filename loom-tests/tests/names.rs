//! Names: published, replaced, renamed and unpublished by several participants at once, some of
//! which die meanwhile.
#![cfg(all(loom, not(shuttle)))]

use std::collections::BTreeSet;

use loom::thread;
use loom_tests::{check, check_deaths, dies, options};
use ndarray::Ix1;
use ndshm::error::{LeaseError, NameError};
use ndshm::{AnyHandle, Handle, HandleTable, Segment, model};

type Vector = Handle<u64, Ix1>;

/// Two names in one bucket, and a name in the other.
const HERE: &str = "c";
const BESIDE: &str = "d";
const THERE: &str = "a";

/// Creates a segment with room for two arrays and the records that names need meanwhile.
fn segment(seats: u32) -> Segment {
    let options = options().capacity(640).seats(seats).arrays(10);
    let segment = options.in_process().expect("a model's segment");
    let bucket = |name| model::bucket(&segment, name);
    assert!(bucket(HERE) == bucket(BESIDE) && bucket(HERE) != bucket(THERE));
    segment
}

fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).expect("a seat is free")
}

/// Returns the array of this name, or `None` if it has none.
#[track_caller]
fn find(table: &HandleTable, name: &str) -> Option<AnyHandle> {
    match table.find_any(name) {
        Ok(handle) => Some(handle),
        Err(NameError::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that exactly `names` exist, and that nothing else is left of any name. Unpublishes them.
#[track_caller]
fn assert_only(table: &HandleTable, names: &[(&str, Vector)]) {
    // Count before `names`, which tidies up.
    let records = table.verify().unwrap().live - table.arrays().count();
    let buckets = names
        .iter()
        .map(|(name, _)| model::bucket(table.segment(), name));
    let buckets: BTreeSet<_> = buckets.collect();
    assert_eq!(records, buckets.len(), "a record is left");
    let listed = table.names("").unwrap();
    let mut expected: Vec<(&str, AnyHandle)> =
        names.iter().map(|&(name, x)| (name, x.into())).collect();
    expected.sort();
    let listed: Vec<_> = listed
        .iter()
        .map(|info| (info.name.as_str(), info.handle))
        .collect();
    assert_eq!(listed, expected);
    for (name, _) in listed {
        table.unpublish(name).unwrap();
    }
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.in_transit, found.retired), (0, 0), "{found}");
    assert_eq!(
        found.live,
        table.arrays().count(),
        "a record is left: {found}"
    );
}

/// I1: two participants publish one name: one succeeds, and the other learns which array has it.
#[test]
fn two_who_publish_one_name() {
    check("two_who_publish_one_name", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        let y = second.from_elem(1, 2u64).unwrap();
        let publish = |table: &HandleTable, x: Vector| match table.publish(HERE, x) {
            Ok(()) => x.into(),
            Err(NameError::Taken { handle, .. }) => handle,
            Err(error) => panic!("{error}"),
        };
        let other = thread::spawn(move || (publish(&second, y), second));
        let ours = publish(&first, x);
        let (theirs, second) = other.join().unwrap();
        assert_eq!(ours, theirs, "both see the same winner");
        let winner = if ours == x.into() { x } else { y };
        assert_only(&second, &[(HERE, winner)]);
    });
}

/// I1: a lookup of a name that is being replaced finds the old array or the new one, and whole.
#[test]
fn a_name_that_is_replaced() {
    check("a_name_that_is_replaced", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || {
            let y = second.from_elem(1, 2u64).unwrap();
            assert_eq!(second.replace(HERE, y).unwrap(), Some(x.into()));
            (second, y)
        });
        let found = first
            .find::<u64, Ix1>(HERE)
            .expect("the name has an array at every moment");
        let expected = if found == x { 1 } else { 2 };
        assert_eq!(first.read(found).unwrap()[0], expected);
        let (second, y) = other.join().unwrap();
        assert_only(&second, &[(HERE, y)]);
    });
}

/// I4: the name of an array that is freed meanwhile leads to nothing in the end, and leaves
/// nothing.
#[test]
fn a_name_for_what_is_freed() {
    check("a_name_for_what_is_freed", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        let other = thread::spawn(move || {
            second.free(x).unwrap();
            second
        });
        match first.publish(HERE, x) {
            Ok(()) | Err(NameError::Lease(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let second = other.join().unwrap();
        assert_eq!(find(&second, HERE), None);
        assert_only(&second, &[]);
    });
}

/// I1: an array that is renamed has one of its two names at every moment.
#[test]
fn a_name_that_moves() {
    check("a_name_that_moves", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || {
            second.rename(HERE, THERE).unwrap();
            second
        });
        match find(&first, HERE) {
            Some(found) => assert_eq!(found, x.into()),
            None => assert_eq!(find(&first, THERE), Some(x.into()), "neither name exists"),
        }
        let second = other.join().unwrap();
        assert_only(&second, &[(THERE, x)]);
    });
}

/// I1: a participant that sees the new name does not see the old one after it.
#[test]
fn a_name_that_has_moved() {
    check("a_name_that_has_moved", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || {
            second.rename(HERE, THERE).unwrap();
            second
        });
        if find(&first, THERE).is_some() {
            assert_eq!(find(&first, HERE), None, "both names exist");
        }
        drop(other.join().unwrap());
    });
}

/// I1: two participants rename one array: one succeeds, and the other finds no such name.
#[test]
fn two_who_rename() {
    check("two_who_rename", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || (second.rename(HERE, THERE), second));
        let ours = first.rename(HERE, BESIDE);
        let (theirs, second) = other.join().unwrap();
        let winner = match (ours, theirs) {
            (Ok(()), Err(NameError::NotFound { .. })) => BESIDE,
            (Err(NameError::NotFound { .. }), Ok(())) => THERE,
            other => panic!("{other:?}"),
        };
        assert_only(&second, &[(winner, x)]);
    });
}

/// I1: two participants rename one array to the same name. One succeeds, and the other finds the
/// old name gone. It could find the new name taken only if both names had existed at once.
#[test]
fn two_who_rename_alike() {
    check("two_who_rename_alike", 1, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || (second.rename(HERE, THERE), second));
        let ours = first.rename(HERE, THERE);
        let (theirs, second) = other.join().unwrap();
        match (ours, theirs) {
            (Ok(()), Err(NameError::NotFound { .. }))
            | (Err(NameError::NotFound { .. }), Ok(())) => {}
            other => panic!("{other:?}"),
        }
        assert_only(&second, &[(THERE, x)]);
    });
}

/// I1: a rename and a publication compete for one name: exactly one succeeds.
#[test]
fn a_rename_beside_a_publication() {
    check("a_rename_beside_a_publication", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        let y = first.from_elem(1, 2u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || (second.rename(HERE, THERE), second));
        let ours = first.publish(THERE, y);
        let (theirs, second) = other.join().unwrap();
        match (ours, theirs) {
            (Ok(()), Err(NameError::Taken { handle, .. })) => {
                assert_eq!(handle, y.into());
                assert_only(&second, &[(HERE, x), (THERE, y)]);
            }
            (Err(NameError::Taken { handle, .. }), Ok(())) => {
                assert_eq!(handle, x.into());
                assert_only(&second, &[(THERE, x)]);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// I1: a rename and an unpublication of one name compete: exactly one succeeds, and the other finds
/// no such name.
#[test]
fn a_rename_beside_its_end() {
    check("a_rename_beside_its_end", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let other = thread::spawn(move || (second.rename(HERE, THERE), second));
        let ended = first.unpublish(HERE);
        let (moved, second) = other.join().unwrap();
        match (ended, moved) {
            (Ok(_), Err(NameError::NotFound { .. })) => assert_only(&second, &[]),
            (Err(NameError::NotFound { .. }), Ok(())) => assert_only(&second, &[(THERE, x)]),
            other => panic!("{other:?}"),
        }
    });
}

/// A check of the whole table beside a publication, a rename and an unpublication reports no
/// damage.
#[test]
fn a_check_beside_names() {
    check("a_check_beside_names", 1, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        let other = thread::spawn(move || {
            second.publish(HERE, x).unwrap();
            second.rename(HERE, THERE).unwrap();
            second.unpublish(THERE).unwrap();
            second
        });
        let found = first.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        assert_only(&other.join().unwrap(), &[]);
    });
}

/// I1, I7: death between any two steps of a publication, beside a lookup. The name is published or
/// not, and no record is left.
#[test]
fn death_while_publishing() {
    check_deaths("death_while_publishing", 1, |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
        let x = survivor.from_elem(1, 1u64).unwrap();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                second.publish(HERE, x).unwrap();
            })
        });
        let during = find(&survivor, HERE);
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        let after = find(&survivor, HERE);
        assert!(during.is_none() || after.is_some(), "a name is lost");
        assert!(died || after.is_some());
        let names = [(HERE, x)];
        assert_only(&survivor, &names[..usize::from(after.is_some())]);
        died
    });
}

/// I1, I7: death between any two steps of a replacement: the old array or the new one has the name.
#[test]
fn death_while_replacing() {
    check_deaths("death_while_replacing", 1, |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
        let x = survivor.from_elem(1, 1u64).unwrap();
        let y = survivor.from_elem(1, 2u64).unwrap();
        survivor.publish(HERE, x).unwrap();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                second.replace(HERE, y).unwrap();
            })
        });
        find(&survivor, HERE).expect("the name has an array at every moment");
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        let after = survivor.find::<u64, Ix1>(HERE).expect("a name is lost");
        assert!(died || after == y);
        assert_only(&survivor, &[(HERE, after)]);
        died
    });
}

/// I1, I7: death between any two steps of a rename, while another participant publishes the new
/// name. In the end each name has one array, and no trace is left.
#[test]
fn death_while_renaming() {
    check_deaths("death_while_renaming", 1, |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
        let x = survivor.from_elem(1, 1u64).unwrap();
        let y = survivor.from_elem(1, 2u64).unwrap();
        survivor.publish(HERE, x).unwrap();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                let moved = second.rename(HERE, THERE);
                assert!(
                    matches!(moved, Ok(()) | Err(NameError::Taken { .. })),
                    "{moved:?}"
                );
            })
        });
        let ours = survivor.publish(THERE, y);
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        match ours {
            Ok(()) => assert_only(&survivor, &[(HERE, x), (THERE, y)]),
            Err(NameError::Taken { handle, .. }) => {
                assert_eq!(handle, x.into());
                assert_only(&survivor, &[(THERE, x)]);
            }
            Err(error) => panic!("{error}"),
        }
        died
    });
}

/// I1, I7: a participant dies between writing a new record into a bucket and freeing the previous
/// one. The previous record is found, even if its creator has not given it to the bucket yet.
#[test]
fn death_of_who_replaces_a_record_at_once() {
    check_deaths("death_of_who_replaces_a_record_at_once", 1, |steps| {
        let segment = segment(4);
        let (survivor, second, third) = (join(&segment), join(&segment), join(&segment));
        let x = survivor.from_elem(1, 1u64).unwrap();
        let other = thread::spawn(move || {
            let died = dies(second, steps, |second| {
                let _ = second.unpublish(HERE);
            });
            third.reap().unwrap();
            (died, third)
        });
        survivor.publish(HERE, x).unwrap();
        let (died, third) = other.join().unwrap();
        drop(third);
        survivor.reap().unwrap();
        let names = [(HERE, x)];
        let there = find(&survivor, HERE).is_some();
        assert_only(&survivor, &names[..usize::from(there)]);
        died
    });
}

/// I1, I7: like above, but no participant removes the name: a published name stays, although
/// another participant replaces its record and dies.
#[test]
fn death_of_who_names_something_beside() {
    check_deaths("death_of_who_names_something_beside", 1, |steps| {
        let segment = segment(4);
        let (survivor, second, third) = (join(&segment), join(&segment), join(&segment));
        let x = survivor.from_elem(1, 1u64).unwrap();
        let other = thread::spawn(move || {
            let died = dies(second, steps, |second| {
                let _ = second.publish(BESIDE, x);
            });
            third.reap().unwrap();
            (died, third)
        });
        survivor.publish(HERE, x).unwrap();
        let (died, third) = other.join().unwrap();
        drop(third);
        survivor.reap().unwrap();
        assert!(find(&survivor, HERE).is_some(), "the name was published");
        died
    });
}

/// I1: each participant that meets a bucket whose record was freed heals it. No name that is
/// published meanwhile is lost, neither to another healer nor to a list of names.
#[test]
fn a_bucket_whose_record_is_lost() {
    check("a_bucket_whose_record_is_lost", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        assert!(model::lose_record(&first, HERE));
        let other = thread::spawn(move || {
            let listed = second.names("").unwrap();
            assert!(listed.len() <= 1, "the lost name does not come back");
            second
        });
        first.publish(BESIDE, x).unwrap();
        let second = other.join().unwrap();
        assert_only(&second, &[(BESIDE, x)]);
    });
}

/// I5: a write lease by a forged handle of a record is refused at once, and does not keep out a
/// lookup of the name.
#[test]
fn a_made_up_writer_of_a_record() {
    check("a_made_up_writer_of_a_record", 2, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let x = first.from_elem(1, 1u64).unwrap();
        first.publish(HERE, x).unwrap();
        let record = model::record(&first, HERE).unwrap();
        let other = thread::spawn(move || {
            let refused = second.write(Vector::from_bits(record.to_bits()));
            assert!(matches!(refused, Err(LeaseError::WrongKind(_))));
            drop(refused);
            second
        });
        assert_eq!(find(&first, HERE), Some(x.into()));
        let second = other.join().unwrap();
        assert_only(&second, &[(HERE, x)]);
    });
}
