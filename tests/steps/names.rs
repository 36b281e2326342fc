//! Operations on names of arrays: whatever a death interrupts, a name stands for one array.

use std::sync::OnceLock;

use ndarray::Ix1;
use ndshm::HandleTable;
use ndshm::error::NameError;

use crate::ground::{Ground, Vector};
use crate::operations::Operation;
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("publish", publish),
    ("find", find),
    ("replace", replace),
    ("rename", rename),
    ("publish and unpublish, in one bucket", unpublish),
    ("unpublish the only name", unpublish_last),
    ("unpublish and publish the only name", publish_again),
    ("list", list),
    ("free what has a name", free),
];

const OLD: &str = "old";
const NEW: &str = "new";

/// Returns the array with that name, if there is one.
fn look_up(table: &HandleTable, name: &str) -> Option<Vector> {
    match table.find::<u64, Ix1>(name) {
        Ok(array) => Some(array),
        Err(NameError::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Kills a victim with a seat. The third argument of `operation` is the survivor's second array.
fn named(
    run: &mut Run,
    operation: impl FnOnce(&HandleTable, &Ground, Vector),
    expect: impl Fn(&Ground, Vector),
) {
    let ground = Ground::new();
    let second = ground.table.from_elem(2, 0u64).unwrap();
    ground.table.publish(OLD, ground.array).unwrap();
    run.victim(|| {
        let table = ground.join();
        // The first allocation of a process measures the available memory, so do it before the
        // mark.
        table.zeros::<u8, _>(5000).unwrap();
        mark();
        operation(&table, &ground, second);
        mark();
    });
    expect(&ground, second);
    ground.table.reap().unwrap();
    expect(&ground, second);
    for info in ground.table.names("").unwrap() {
        ground.table.unpublish(&info.name).unwrap();
    }
    let live = ground.table.verify().unwrap().live;
    assert_eq!(live, ground.table.arrays().count(), "a record is left");
    ground.survive(run);
}

/// Asserts that the old name still names the array.
fn unchanged(ground: &Ground) {
    assert_eq!(look_up(&ground.table, OLD), Some(ground.array));
}

fn publish(run: &mut Run) {
    named(
        run,
        |table, _, second| table.publish(NEW, second).unwrap(),
        |ground, second| {
            unchanged(ground);
            let found = look_up(&ground.table, NEW);
            assert!(found.is_none_or(|found| found == second));
            is_listed(ground);
        },
    );
}

fn find(run: &mut Run) {
    named(
        run,
        |table, ground, _| assert_eq!(look_up(table, OLD), Some(ground.array)),
        |ground, _| unchanged(ground),
    );
}

fn replace(run: &mut Run) {
    named(
        run,
        |table, _, second| {
            table.replace(OLD, second).unwrap();
        },
        |ground, second| {
            let found = look_up(&ground.table, OLD).expect("the name has an array at every moment");
            assert!(found == ground.array || found == second);
        },
    );
}

fn rename(run: &mut Run) {
    named(
        run,
        |table, _, _| table.rename(OLD, NEW).unwrap(),
        |ground, _| {
            let found = [OLD, NEW].map(|name| look_up(&ground.table, name));
            let one_of_them = [None, Some(ground.array)];
            assert!(
                found == one_of_them || found == [one_of_them[1], None],
                "{found:?}"
            );
        },
    );
}

/// Returns a name in the same bucket as [`OLD`] in segments of this size.
fn neighbour() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let table = Ground::new().table;
        let array = table.zeros::<u64, _>(2).unwrap();
        table.publish(OLD, array).unwrap();
        let before = table.verify().unwrap().live;
        let shares = |name: &String| {
            table.publish(name, array).unwrap();
            let shares = table.verify().unwrap().live == before;
            table.unpublish(name).unwrap();
            shares
        };
        (0..).map(|at| at.to_string()).find(shares).unwrap()
    })
}

fn unpublish(run: &mut Run) {
    let neighbour = neighbour();
    named(
        run,
        |table, ground, _| {
            table.publish(neighbour, ground.array).unwrap();
            assert_eq!(table.unpublish(OLD).unwrap(), ground.array.into());
        },
        |ground, _| {
            let found = [OLD, neighbour].map(|name| look_up(&ground.table, name));
            let there = Some(ground.array);
            let order = [[there, None], [there, there], [None, there]];
            assert!(order.contains(&found), "{found:?}");
        },
    );
}

/// Asserts that a listing has the same names of the array as lookups.
fn is_listed(ground: &Ground) {
    let found =
        [OLD, NEW].map(|name| look_up(&ground.table, name).map(|array| (name, array.into())));
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort();
    let listed = ground.table.names("").unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|info| (&*info.name, info.handle))
        .collect();
    assert_eq!(listed, found);
}

fn unpublish_last(run: &mut Run) {
    named(
        run,
        |table, ground, _| assert_eq!(table.unpublish(OLD).unwrap(), ground.array.into()),
        |ground, _| {
            let found = look_up(&ground.table, OLD);
            assert!(found.is_none_or(|found| found == ground.array));
            is_listed(ground);
        },
    );
}

fn publish_again(run: &mut Run) {
    named(
        run,
        |table, ground, _| {
            table.unpublish(OLD).unwrap();
            table.publish(OLD, ground.array).unwrap();
        },
        |ground, _| is_listed(ground),
    );
}

fn list(run: &mut Run) {
    named(
        run,
        |table, _, _| assert_eq!(table.names("").unwrap().len(), 1),
        |ground, _| {
            unchanged(ground);
            is_listed(ground);
        },
    );
}

fn free(run: &mut Run) {
    named(
        run,
        |table, ground, _| table.free(ground.array).unwrap(),
        |ground, _| {
            let found = look_up(&ground.table, OLD);
            assert!(found.is_none_or(|found| found == ground.array));
            assert_eq!(found.is_some(), ground.table.info(ground.array).is_ok());
        },
    );
}
