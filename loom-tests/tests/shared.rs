//! A participant that several threads of a process share: what they do at once beside each other
//! and beside another participant.
#![cfg(all(loom, not(shuttle)))]

use core::time::Duration;

use loom::thread;
use loom_tests::{assert_all_free, check, is_busy, options, segment, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::partition::{AccessMode, Entered, OwnedMember, UntypedGroup};
use ndshm::{Grid, Handle, HandleTable, Segment, SharedTable, model};

type Vector = Handle<u64, Ix1>;

/// Joins a segment as a shared table and another participant. The other has made one array.
fn one_array(segment: &Segment) -> (SharedTable, HandleTable, Vector) {
    let [first, second] = tables(segment);
    let x = second.from_elem(1, 0).unwrap();
    (SharedTable::new(first), second, x)
}

/// Runs `act` on another thread that shares the table.
fn thread<R: 'static>(
    table: &SharedTable,
    act: impl FnOnce(&SharedTable) -> R + 'static,
) -> thread::JoinHandle<R> {
    let table = table.clone();
    thread::spawn(move || act(&table))
}

/// I5, I6: two threads with one seat exclude each other as two participants do, and neither loses
/// the other's work.
#[test]
fn writers_of_two_threads_lose_no_addition() {
    check(4, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let add = move |table: &SharedTable| {
            let added = table.write(x).map(|mut x| x[0] += 1);
            assert!(added.is_ok() || is_busy(&added), "{added:?}");
            u64::from(added.is_ok())
        };
        let beside = thread(&table, add);
        let added = add(&table) + beside.join().unwrap();
        assert!(added >= 1, "both were refused");
        assert_eq!(other.read(x).unwrap()[0], added);
    });
}

/// I5: a writer of another participant is refused until the readers of both threads have ended,
/// although they have one bit.
#[test]
fn readers_of_two_threads_keep_a_writer_out() {
    check(2, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let read = move |table: &SharedTable| {
            let seen = table.read(x).map(|x| x[0]);
            assert!(matches!(seen, Ok(0 | 1)) || is_busy(&seen), "{seen:?}");
        };
        let beside = thread(&table, read);
        let writer = thread::spawn(move || {
            let added = other.write(x).map(|mut x| x[0] += 1);
            assert!(added.is_ok() || is_busy(&added), "{added:?}");
            other
        });
        read(&table);
        beside.join().unwrap();
        let other = writer.join().unwrap();
        other.write(x).unwrap()[0] += 1;
    });
}

/// I1, I4: one thread fills an array without the lock while the other frees one and makes one. The
/// three arrays have bytes of their own, and nothing leaks.
#[test]
fn an_array_is_filled_beside_the_calls_of_another_thread() {
    check(4, || {
        let (table, other, x) = one_array(&segment(128, 2, 2));
        let beside = thread(&table, move |table| {
            table.free(x).unwrap();
            table.from_elem(1, 5u64)
        });
        let y = table.from_elem(1, 7u64);
        let z = beside.join().unwrap();
        for (made, value) in [(y, 7), (z, 5)] {
            // There are two slots, and `x` may still have one of them.
            if let Ok(made) = made {
                assert_eq!(table.read(made).unwrap()[0], value);
                table.free(made).unwrap();
            }
        }
        drop(table);
        assert_all_free(&other, 2);
    });
}

/// I6: pages are given back without the lock, while another thread and another participant look for
/// a slot. The slot passes on after that.
#[test]
fn a_slot_passes_on_after_its_pages_are_given_back_without_the_lock() {
    check(3, || {
        let segment = options(128, 2, 2).retain(0).in_process().unwrap();
        let [first, second] = tables(&segment);
        let table = SharedTable::new(first);
        let x: Vector = table.from_elem(16, 0).unwrap();
        let beside = thread(&table, |table| {
            if let Ok(y) = table.from_elem(16, 1u64) {
                assert_eq!(table.read(y).unwrap()[15], 1);
                table.free(y).unwrap();
            }
        });
        table.free(x).unwrap();
        beside.join().unwrap();
        drop(table);
        second.from_elem(16, 2u64).expect("nothing leaks");
    });
}

/// I4, I5: a thread frees an array under the lease of the other. The bytes stay until that ends,
/// and then the slot is FREE.
#[test]
fn free_under_the_lease_of_another_thread() {
    check(4, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let beside = thread(&table, move |table| match table.read(x) {
            Ok(guard) => assert_eq!(guard[0], 0, "a reader sees another array's bytes"),
            Err(error) => assert!(matches!(error, LeaseError::Stale { .. }), "{error}"),
        });
        table.free(x).unwrap();
        if let Ok(y) = table.from_elem(1, 7u64) {
            assert_eq!(table.read(y).unwrap()[0], 7);
            table.free(y).unwrap();
        }
        beside.join().unwrap();
        drop(table);
        assert_all_free(&other, 1);
    });
}

/// Creates a segment with room for a vector and the words of its partition.
fn room_for_tiles() -> Segment {
    segment(576, 2, 4)
}

/// Claims a tile of `x`, if one is left, and writes it.
fn run_tile(member: &mut OwnedMember, table: &SharedTable, x: Vector) -> usize {
    let Some(token) = member.claim(table).unwrap() else {
        return 0;
    };
    let at = token.tile();
    drop(model::access(table, x, at..at + 1, true).unwrap());
    member.done(table, token).unwrap();
    1
}

/// I6, I7: one thread waits for a round and for its end, while the other opens it and ends it with
/// the same table. The waiting thread holds no lock, and is woken.
#[test]
fn a_thread_waits_while_the_other_runs_the_round() {
    check(2, || {
        let [first, _second] = tables(&room_for_tiles());
        let table = SharedTable::new(first);
        let x: Vector = table.from_elem(2, 0).unwrap();
        let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
        let grid = Grid::blocks([(Axis(0), 2)]);
        let mut tiles = table.partition_untyped(group, &grid).unwrap();
        let name = tiles.handle();
        let waiting = thread(&table, move |table| {
            let mut tiles = table.open_untyped(name).unwrap();
            let ran = match tiles.enter_next(table, 0, Duration::MAX).unwrap() {
                Entered::Member(mut member) => {
                    let ran = run_tile(&mut member, table, x);
                    member.leave(table).unwrap();
                    ran
                }
                Entered::Over { .. } => 0,
                _ => panic!("the partition is live"),
            };
            tiles.wait_finished(table, 1, Duration::MAX).unwrap();
            ran
        });
        let mut round = tiles.begin(&table).unwrap();
        let mut ran = 0;
        if let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO).unwrap() {
            ran = run_tile(&mut member, &table, x);
            member.leave(&table).unwrap();
        }
        while !round.try_finish(&table).unwrap() {
            thread::yield_now();
        }
        assert_eq!(ran + waiting.join().unwrap(), 1, "the tile is run once");
    });
}

/// I5, I6: two threads take part in the round of another participant by one seat, and the round is
/// given up. One of them leaves while the other writes its tile: that does not open the array.
#[test]
fn two_threads_in_a_round_leave_one_by_one() {
    check(2, || {
        let [first, other] = tables(&room_for_tiles());
        let table = SharedTable::new(first);
        let x: Vector = other.from_elem(2, 0).unwrap();
        let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
        let grid = Grid::blocks([(Axis(0), 1)]);
        let mut tiles = other.partition_untyped(group, &grid).unwrap();
        let round = tiles.begin(&other).unwrap();
        let mut ours = table.open_untyped(tiles.handle()).unwrap();
        let [mut member, leaving] =
            [(); 2].map(|()| match ours.enter_next(&table, 0, Duration::ZERO) {
                Ok(Entered::Member(member)) => member,
                other => panic!("{other:?}"),
            });
        let token = member.claim(&table).unwrap().unwrap();
        let beside = thread(&table, move |table| leaving.leave(table).unwrap());
        let opener = thread::spawn(move || {
            round.give_up(&other).unwrap();
            let written = other.write(x).map(|mut x| x.fill(1));
            assert!(written.is_ok() || is_busy(&written), "{written:?}");
            (tiles, other)
        });
        drop(model::access(&table, x, 0..1, true).unwrap());
        member.done(&table, token).unwrap();
        member.leave(&table).unwrap();
        beside.join().unwrap();
        let (_tiles, other) = opener.join().unwrap();
        other.write(x).unwrap().fill(2);
    });
}
