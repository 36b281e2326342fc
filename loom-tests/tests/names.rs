//! Names: published, replaced, renamed and unpublished by several participants at once, some of
//! which die meanwhile.
#![cfg(all(loom, not(shuttle)))]

use std::collections::BTreeSet;

use loom::thread;
use loom_tests::{beside, beside_death, check, check_deaths, dies, tables};
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
    let segment = loom_tests::segment(640, seats, 10);
    let bucket = |name| model::bucket(&segment, name);
    assert!(bucket(HERE) == bucket(BESIDE) && bucket(HERE) != bucket(THERE));
    segment
}

/// Joins a segment as `N` participants, the first of which creates an array.
fn one_array<const N: usize>() -> ([HandleTable; N], Vector) {
    let tables: [HandleTable; N] = tables(&segment(N.next_power_of_two() as u32));
    let x = tables[0].from_elem(1, 1u64).unwrap();
    (tables, x)
}

/// Joins a segment as two participants, the first of which has published an array as [`HERE`].
fn one_name() -> ([HandleTable; 2], Vector) {
    let (tables, x) = one_array();
    tables[0].publish(HERE, x).unwrap();
    (tables, x)
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
fn one_of_two_publications_succeeds() {
    check(3, || {
        let ([first, second], x) = one_array();
        let y = second.from_elem(1, 2u64).unwrap();
        let publish = |table: &HandleTable, x: Vector| match table.publish(HERE, x) {
            Ok(()) => x.into(),
            Err(NameError::Taken { handle, .. }) => handle,
            Err(error) => panic!("{error}"),
        };
        let (ours, theirs, second) = beside(
            second,
            move |second| publish(second, y),
            || publish(&first, x),
        );
        assert_eq!(ours, theirs, "both see the same winner");
        let winner = if ours == x.into() { x } else { y };
        assert_only(&second, &[(HERE, winner)]);
    });
}

/// I1: a lookup of a name that is being replaced finds the old array or the new one, and whole.
#[test]
fn a_replaced_name_always_has_an_array() {
    check(2, || replaced(&[]));
}

/// I1: the same in a record of two names, which the lookup reads under a lease.
#[test]
fn a_replaced_name_among_others_always_has_an_array() {
    check(2, || replaced(&[BESIDE]));
}

fn replaced(others: &[&'static str]) {
    let ([first, second], x) = one_name();
    for other in others {
        first.publish(other, x).unwrap();
    }
    let replace = move |second: &HandleTable| {
        let y = second.from_elem(1, 2u64).unwrap();
        assert_eq!(second.replace(HERE, y).unwrap(), Some(x.into()));
        y
    };
    let ((), y, second) = beside(second, replace, || {
        let found = first
            .find::<u64, Ix1>(HERE)
            .expect("the name has an array at every moment");
        let expected = if found == x { 1 } else { 2 };
        assert_eq!(first.read(found).unwrap()[0], expected);
    });
    let others = others.iter().map(|&other| (other, x));
    let names: Vec<_> = others.chain([(HERE, y)]).collect();
    assert_only(&second, &names);
}

/// I4: the name of an array that is freed meanwhile leads to nothing in the end, and leaves
/// nothing.
#[test]
fn a_name_of_a_freed_array_leaves_nothing() {
    check(2, || {
        let ([first, second], x) = one_array();
        let free = move |second: &HandleTable| second.free(x).unwrap();
        let (published, (), second) = beside(second, free, || first.publish(HERE, x));
        match published {
            Ok(()) | Err(NameError::Lease(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(find(&second, HERE), None);
        assert_only(&second, &[]);
    });
}

/// Renames the array from [`HERE`] to [`THERE`].
fn rename(table: &HandleTable) -> Result<(), NameError> {
    table.rename(HERE, THERE)
}

/// I1: an array that is renamed has one of its two names at every moment.
#[test]
fn a_renamed_array_always_has_a_name() {
    check(2, || {
        let ([first, second], x) = one_name();
        let ((), moved, second) = beside(second, rename, || match find(&first, HERE) {
            Some(found) => assert_eq!(found, x.into()),
            None => assert_eq!(find(&first, THERE), Some(x.into()), "neither name exists"),
        });
        moved.unwrap();
        assert_only(&second, &[(THERE, x)]);
    });
}

/// I1: a participant that sees the new name does not see the old one after it.
#[test]
fn a_renamed_array_never_has_both_names() {
    check(2, || {
        let ([first, second], _) = one_name();
        let ((), moved, _second) = beside(second, rename, || {
            if find(&first, THERE).is_some() {
                assert_eq!(find(&first, HERE), None, "both names exist");
            }
        });
        moved.unwrap();
    });
}

/// Asserts that a listing has the name, and that it stands for `x`.
#[track_caller]
fn assert_listed(table: &HandleTable, name: &str, x: impl Into<AnyHandle>) {
    let listed = table.names("").unwrap();
    let found = listed.iter().find(|info| info.name == name);
    assert_eq!(found.map(|info| info.handle), Some(x.into()), "{name}");
}

/// A name that a participant has found is in its next listing: its bucket is counted before the
/// name is in it.
#[test]
fn a_name_that_was_found_is_listed() {
    check(2, || {
        let ([first, second], x) = one_array();
        let publish = move |second: &HandleTable| second.publish(HERE, x).unwrap();
        let ((), (), second) = beside(second, publish, || {
            if find(&first, HERE).is_some() {
                assert_listed(&first, HERE, x);
            }
        });
        assert_only(&second, &[(HERE, x)]);
    });
}

/// A published name is in the next listing, while another participant removes another name of the
/// bucket. If that empties the bucket, the publication fills it again.
#[test]
fn a_published_name_is_listed_beside_an_unpublication() {
    check(1, || {
        let ([first, second], x) = one_array();
        second.publish(BESIDE, x).unwrap();
        let unpublish = move |second: &HandleTable| second.unpublish(BESIDE).unwrap();
        let ((), _, second) = beside(second, unpublish, || {
            first.publish(HERE, x).unwrap();
            assert_listed(&first, HERE, x);
        });
        assert_only(&second, &[(HERE, x)]);
        assert!(
            model::counts(second.segment())
                .iter()
                .all(|&count| count == 0)
        );
    });
}

/// Two participants fill one bucket at once. The one that fails takes its count back, so the bucket
/// is counted once.
#[test]
fn a_bucket_that_two_participants_fill_is_counted_once() {
    check(1, || {
        let ([first, second], x) = one_array();
        let publish = move |second: &HandleTable| second.publish(BESIDE, x).unwrap();
        let ((), (), second) = beside(second, publish, || {
            first.publish(HERE, x).unwrap();
            assert_listed(&first, HERE, x);
        });
        assert_eq!(model::counts(second.segment()).iter().sum::<u64>(), 1);
        assert_only(&second, &[(HERE, x), (BESIDE, x)]);
        assert_eq!(model::counts(second.segment()).iter().sum::<u64>(), 0);
    });
}

/// A listing beside a rename from a bucket to a later one has the old name or the new one: a
/// listing that finds no bucket counted where the old name was sees the new one counted.
#[test]
fn a_name_that_moves_on_is_listed() {
    check(1, || {
        let ([first, second], x) = one_array();
        let (old, new) = later(&first);
        first.publish(old, x).unwrap();
        let rename = move |second: &HandleTable| second.rename(old, new).unwrap();
        let ((), (), second) = beside(second, rename, || {
            assert_ne!(first.names("").unwrap(), [], "neither name is listed");
        });
        assert_only(&second, &[(new, x)]);
    });
}

/// I1: a lookup reads a record while its slot gets another one: it finds the old array or none, and
/// never that of the other name.
#[test]
fn a_lookup_beside_a_reuse_of_the_record_finds_no_other_array() {
    check(1, || {
        let ([first, second], x) = one_array();
        let y = second.from_elem(1, 2u64).unwrap();
        second.publish(HERE, x).unwrap();
        let change = move |second: &HandleTable| {
            second.unpublish(HERE).unwrap();
            second.publish(BESIDE, y).unwrap();
        };
        let (found, (), second) = beside(second, change, || find(&first, HERE));
        assert!(found.is_none_or(|found| found == x.into()), "{found:?}");
        assert_only(&second, &[(BESIDE, y)]);
    });
}

/// Returns a name, and one in a later bucket.
fn later(table: &HandleTable) -> (&'static str, &'static str) {
    let bucket = |name| model::bucket(table.segment(), name);
    match bucket(HERE) < bucket(THERE) {
        true => (HERE, THERE),
        false => (THERE, HERE),
    }
}

/// Renames one array to [`THERE`] in one participant and to `new` in the other. One succeeds, and
/// the other finds no such name.
fn two_renames(new: &'static str) {
    let ([first, second], x) = one_name();
    let (ours, theirs, second) = beside(second, rename, || first.rename(HERE, new));
    let winner = match (ours, theirs) {
        (Ok(()), Err(NameError::NotFound { .. })) => new,
        (Err(NameError::NotFound { .. }), Ok(())) => THERE,
        other => panic!("{other:?}"),
    };
    assert_only(&second, &[(winner, x)]);
}

/// I1: two participants rename one array: one succeeds, and the other finds no such name.
#[test]
fn one_of_two_renames_succeeds() {
    check(2, || two_renames(BESIDE));
}

/// I1: two participants rename one array to the same name. One succeeds, and the other finds the
/// old name gone. It could find the new name taken only if both names had existed at once.
#[test]
fn one_of_two_equal_renames_succeeds() {
    check(1, || two_renames(THERE));
}

/// Asserts the result of a publication of `y` as [`THERE`] beside a rename of `x` to that name:
/// exactly one of them succeeded. Returns `true` if that was the publication.
#[track_caller]
fn assert_one_has_it(
    table: &HandleTable,
    x: Vector,
    y: Vector,
    ours: Result<(), NameError>,
) -> bool {
    match ours {
        Ok(()) => assert_only(table, &[(HERE, x), (THERE, y)]),
        Err(NameError::Taken { handle, .. }) => {
            assert_eq!(handle, x.into());
            assert_only(table, &[(THERE, x)]);
            return false;
        }
        Err(error) => panic!("{error}"),
    }
    true
}

/// I1: a rename and a publication compete for one name: exactly one succeeds.
#[test]
fn one_of_a_rename_and_a_publication_succeeds() {
    check(2, || {
        let ([first, second], x) = one_array();
        let y = first.from_elem(1, 2u64).unwrap();
        first.publish(HERE, x).unwrap();
        let (ours, theirs, second) = beside(second, rename, || first.publish(THERE, y));
        match theirs {
            Ok(()) => assert!(!assert_one_has_it(&second, x, y, ours)),
            Err(NameError::Taken { handle, .. }) => {
                assert_eq!(handle, y.into());
                assert!(assert_one_has_it(&second, x, y, ours));
            }
            Err(error) => panic!("{error}"),
        }
    });
}

/// I1: a rename and an unpublication of one name compete: exactly one succeeds, and the other finds
/// no such name.
#[test]
fn one_of_a_rename_and_an_unpublication_succeeds() {
    check(2, || {
        let ([first, second], x) = one_name();
        let (ended, moved, second) = beside(second, rename, || first.unpublish(HERE));
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
fn verify_beside_changes_of_names_reports_no_damage() {
    check(1, || {
        let ([first, second], x) = one_array();
        let changes = move |second: &HandleTable| {
            second.publish(HERE, x).unwrap();
            second.rename(HERE, THERE).unwrap();
            second.unpublish(THERE).unwrap();
        };
        let ((), (), second) = beside(second, changes, || {
            let found = first.verify().unwrap();
            assert!(found.is_clean(), "{found}");
        });
        assert_only(&second, &[]);
    });
}

/// A check of the whole table may have the last lease of a record that is freed. The record's slot
/// becomes FREE all the same.
#[test]
fn verify_beside_an_unpublication_leaves_no_record() {
    check(2, || {
        let ([first, second], x) = one_array();
        second.publish(HERE, x).unwrap();
        let ((), (), second) = beside(
            second,
            move |second: &HandleTable| assert_eq!(second.unpublish(HERE).unwrap(), x.into()),
            || {
                let found = first.verify().unwrap();
                assert!(found.is_clean(), "{found}");
            },
        );
        assert_only(&second, &[]);
    });
}

/// I1, I7: death between any two steps of a publication, beside a lookup. The name is published or
/// not, and no record is left.
#[test]
fn death_while_publishing() {
    check_deaths(1, |steps| {
        let ([survivor, second], x) = one_array();
        let publish = move |second: &HandleTable| second.publish(HERE, x).unwrap();
        let (during, died) =
            beside_death(&survivor, second, steps, publish, || find(&survivor, HERE));
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
    check_deaths(1, |steps| {
        let ([survivor, second], x) = one_array();
        let y = survivor.from_elem(1, 2u64).unwrap();
        survivor.publish(HERE, x).unwrap();
        let replace = move |second: &HandleTable| {
            second.replace(HERE, y).unwrap();
        };
        let (found, died) =
            beside_death(&survivor, second, steps, replace, || find(&survivor, HERE));
        found.expect("the name has an array at every moment");
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
    check_deaths(1, |steps| {
        let ([survivor, second], x) = one_array();
        let y = survivor.from_elem(1, 2u64).unwrap();
        survivor.publish(HERE, x).unwrap();
        let move_it = |second: &HandleTable| {
            let moved = rename(second);
            assert!(
                matches!(moved, Ok(()) | Err(NameError::Taken { .. })),
                "{moved:?}"
            );
        };
        let (ours, died) = beside_death(&survivor, second, steps, move_it, || {
            survivor.publish(THERE, y)
        });
        assert_one_has_it(&survivor, x, y, ours);
        died
    });
}

/// Publishes an array while another participant does `act`, dies before its operation number
/// `steps`, and is reaped by a third one. Calls `after` at the end. Returns `true` after a death.
fn death_beside_a_publication(
    steps: u64,
    act: impl FnOnce(&HandleTable, Vector) + 'static,
    after: impl FnOnce(&HandleTable, Vector),
) -> bool {
    let ([survivor, second, third], x) = one_array();
    let other = thread::spawn(move || {
        let died = dies(second, steps, |second| act(second, x));
        third.reap().unwrap();
        (died, third)
    });
    survivor.publish(HERE, x).unwrap();
    let (died, third) = other.join().unwrap();
    drop(third);
    survivor.reap().unwrap();
    after(&survivor, x);
    died
}

/// I1, I7: a participant dies between writing a new record into a bucket and freeing the previous
/// one. The previous record is found, even if its creator has not given it to the bucket yet.
#[test]
fn death_while_replacing_a_new_record_leaves_none() {
    check_deaths(1, |steps| {
        let unpublish = |second: &HandleTable, _| drop(second.unpublish(HERE));
        death_beside_a_publication(steps, unpublish, |survivor, x| {
            let names = [(HERE, x)];
            let there = find(survivor, HERE).is_some();
            assert_only(survivor, &names[..usize::from(there)]);
        })
    });
}

/// I1, I7: like above, but no participant removes the name: a published name stays, although
/// another participant replaces its record and dies.
#[test]
fn death_beside_a_published_name_keeps_it() {
    check_deaths(1, |steps| {
        let publish = |second: &HandleTable, x| drop(second.publish(BESIDE, x));
        death_beside_a_publication(steps, publish, |survivor, _| {
            assert!(find(survivor, HERE).is_some(), "the name was published");
        })
    });
}

/// I1: each participant that meets a bucket whose record was freed heals it. No name that is
/// published meanwhile is lost, neither to another healer nor to a list of names.
#[test]
fn a_bucket_without_its_record_is_healed() {
    check(2, || {
        let ([first, second], x) = one_name();
        assert!(model::lose_record(&first, HERE));
        let list = |second: &HandleTable| second.names("").unwrap().len();
        let ((), listed, second) = beside(second, list, || first.publish(BESIDE, x).unwrap());
        assert!(listed <= 1, "the lost name does not come back");
        assert_only(&second, &[(BESIDE, x)]);
    });
}

/// I5: a write lease by a forged handle of a record is refused at once, and does not keep out a
/// lookup of the name. The record has two names, so the lookup takes a lease.
#[test]
fn a_forged_writer_of_a_record_is_refused() {
    check(2, || {
        let ([first, second], x) = one_name();
        first.publish(BESIDE, x).unwrap();
        let record = model::record(&first, HERE).unwrap();
        let write = move |second: &HandleTable| {
            let refused = second.write(Vector::from_bits(record.to_bits()));
            assert!(matches!(refused, Err(LeaseError::WrongKind(_))));
        };
        let (found, (), second) = beside(second, write, || find(&first, HERE));
        assert_eq!(found, Some(x.into()));
        assert_only(&second, &[(HERE, x), (BESIDE, x)]);
    });
}
