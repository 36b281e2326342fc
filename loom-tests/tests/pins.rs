//! Pins: an array that is freed keeps its bytes until its last pin is given back.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{
    assert_all_free, beside, beside_death, check, check_deaths, dies, join, options, segment,
    tables,
};
use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::pin::Pinned;
use ndshm::{Handle, HandleTable, Segment, model};

type Vector = Handle<u64, Ix1>;

/// Creates a segment of one array with `N` participants, the first of which creates the array.
fn one_array<const N: usize>() -> (Segment, [HandleTable; N], Vector) {
    let segment = segment(64, N.next_power_of_two() as u32, 2);
    let tables: [HandleTable; N] = tables(&segment);
    let x = tables[0].from_elem(1, 7).unwrap();
    (segment, tables, x)
}

/// Reads the element through a pin. The model refuses a write of another participant that is not
/// ordered before or after it, also one by the next owner of the slot.
fn element(pinned: &Pinned<'_>) -> u64 {
    // SAFETY: the models write an array only before they share its handle.
    unsafe { pinned.view::<u64, Ix1>() }.unwrap()[0]
}

/// Pins the array if it is live, and reads its element, which must be the array's.
fn try_pin(table: &HandleTable, x: Vector) -> bool {
    match table.pin(x) {
        Ok(pinned) => {
            assert_eq!(element(&pinned), 7, "the bytes are another array's");
            true
        }
        Err(error) => {
            assert!(matches!(error, LeaseError::Stale { .. }), "{error}");
            false
        }
    }
}

/// Frees the array and creates another, which overwrites the bytes if it gets the slot.
fn replace(table: &HandleTable, x: Vector) {
    table.free(x).unwrap();
    if let Ok(y) = table.from_elem(1, 9u64) {
        table.free(y).unwrap();
    }
}

/// Reaps, and asserts that seat 1 holds nothing and can be taken again.
fn assert_gone(survivor: &HandleTable) {
    survivor.reap().unwrap();
    let found = survivor.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    let held = (found.seats, found.in_transit, found.readers, found.pins);
    assert_eq!(held, (1, 0, 0, 0), "{found}");
    let again = join(survivor.segment());
    assert_eq!(again.seat().unwrap(), 1, "its seat can be taken");
    assert_all_free(&again, 1);
}

/// I4, I5: a pin beside a free and the next owner. The pin is refused, or the bytes stay the
/// array's until it ends. Then the slot is FREE.
#[test]
fn a_pinned_array_keeps_its_bytes() {
    check(4, || {
        let (_segment, [first, second], x) = one_array();
        let pin = move |second: &HandleTable| try_pin(second, x);
        let ((), _, _second) = beside(second, pin, || replace(&first, x));
        assert!(!try_pin(&first, x), "the handle is stale at once");
        assert_all_free(&first, 1);
    });
}

/// I4, I5: two participants pin an array that a third one frees. The last of them frees the slot.
#[test]
fn the_last_of_two_pins_frees_the_slot() {
    check(2, || {
        let (_segment, [first, second, third], x) = one_array();
        let held = second.pin(x).unwrap();
        let other = thread::spawn(move || {
            try_pin(&third, x);
            third
        });
        first.free(x).unwrap();
        assert_eq!(element(&held), 7);
        drop(held);
        let _third = other.join().unwrap();
        assert_all_free(&first, 1);
    });
}

/// I4, I5: the word is PINNED from an earlier pin that has ended. A new pin beside the free is
/// validated all the same.
#[test]
fn a_pin_of_an_array_that_was_pinned_before_is_validated() {
    check(3, || {
        let (_segment, [first, second], x) = one_array();
        assert!(try_pin(&first, x));
        let pin = move |second: &HandleTable| try_pin(second, x);
        let ((), _, _second) = beside(second, pin, || replace(&first, x));
        assert_all_free(&first, 1);
    });
}

/// I4: a pin with a handle that becomes stale while the slot passes on: the next array can be
/// pinned and freed beside it, and nothing leaks.
#[test]
fn a_late_pin_leaves_no_trace_on_the_next_array() {
    check(3, || {
        let (_segment, [first, second], x) = one_array();
        let pin = move |second: &HandleTable| try_pin(second, x);
        let ours = || {
            first.free(x).unwrap();
            if let Ok(y) = first.from_elem(1, 7u64) {
                let pinned = first.pin(y).unwrap();
                first.free(y).unwrap();
                assert_eq!(element(&pinned), 7);
            }
        };
        let ((), _, _second) = beside(second, pin, ours);
        assert_all_free(&first, 1);
        assert_eq!(first.verify().unwrap().pins, 0);
    });
}

/// I4, I5: the freeing participant gives pages back first (RETIRED → RESERVED → FREE): nothing
/// touches the bytes before the pin has ended.
#[test]
fn no_pages_are_given_back_under_a_pin() {
    check(3, || {
        let options = options(128, 2, 2).retain(0);
        let [first, second] = tables(&options.in_process().unwrap());
        let x = first.from_elem(16, 7u64).unwrap();
        let pin = move |second: &HandleTable| try_pin(second, x);
        let ours = || {
            first.free(x).unwrap();
            if let Ok(y) = first.from_elem(16, 9u64) {
                first.free(y).unwrap();
            }
            first.trim().unwrap();
        };
        let ((), _, _second) = beside(second, pin, ours);
        first.uninit::<u64, _>(16).expect("nothing leaks");
    });
}

/// I5: a writer and a pin: neither is refused. The array is then freed under both.
#[test]
fn a_pin_and_a_writer_refuse_each_other_in_no_case() {
    check(3, || {
        let (_segment, [first, second], x) = one_array();
        let pin = move |second: &HandleTable| drop(second.pin(x).expect("it excludes nobody"));
        let write = || {
            let mut writer = first.write(x).expect("a pin excludes nobody");
            writer[0] = 8;
        };
        let ((), (), second) = beside(second, pin, write);
        let pinned = second.pin(x).unwrap();
        first.free(x).unwrap();
        assert_eq!(element(&pinned), 8);
        drop(pinned);
        assert_all_free(&first, 1);
    });
}

/// I4: the array is pinned before its writer dies, is recovered, and is freed. No transition of the
/// word loses the pin.
#[test]
fn a_pin_outlasts_leases_and_recovery() {
    check(2, || {
        let (segment, [first, second, third], x) = one_array();
        let pinned = third.pin(x).unwrap();
        model::mortal(&segment, 1, u64::MAX, || {
            let _held = second.write(x).unwrap();
            model::die()
        });
        first.reap().unwrap();
        first.recover(x, |mut view| view.fill(7)).unwrap();
        let other = thread::spawn(move || {
            replace(&first, x);
            first
        });
        assert_eq!(element(&pinned), 7);
        drop(pinned);
        let first = other.join().unwrap();
        assert_all_free(&first, 1);
    });
}

/// I6: the accesses through the last pin come before those of the next owner.
#[test]
fn accesses_through_the_last_pin_come_before_the_next_owner() {
    check(2, || {
        let (_segment, [first, second, third], x) = one_array();
        let held = second.pin(x).unwrap();
        let next = thread::spawn(move || {
            let y = third.from_elem(1, 1u64);
            (y.is_ok(), third)
        });
        let free = thread::spawn(move || {
            let reader = first.read(x).map(drop);
            first.free(x).unwrap();
            (reader.is_ok(), first)
        });
        assert_eq!(element(&held), 7);
        drop(held);
        let (_, _first) = free.join().unwrap();
        let (_, _third) = next.join().unwrap();
    });
}

/// I1, I7: death between any two steps of pinning and giving back, beside a free. The slot is FREE
/// once the dead participant is reaped.
#[test]
fn death_with_a_pin() {
    check_deaths(2, |steps| {
        let (_segment, [survivor, second], x) = one_array();
        let pin = move |second: &HandleTable| {
            try_pin(second, x);
        };
        let ((), died) = beside_death(&survivor, second, steps, pin, || {
            survivor.free(x).unwrap();
        });
        assert_gone(&survivor);
        died
    });
}

/// I1, I7: the participant leaves while it pins a freed array, or dies while it leaves.
#[test]
fn death_while_leaving_with_a_pin() {
    check_deaths(1, |steps| {
        let (segment, [survivor, second], x) = one_array();
        let other = thread::spawn(move || {
            let life = || {
                let _kept = second.pin_raw(x).map(drop);
                drop(second);
            };
            model::mortal(&segment, 1, steps, life).is_none()
        });
        replace(&survivor, x);
        let died = other.join().unwrap();
        assert_gone(&survivor);
        died
    });
}

/// I7: a reaper that dies between any two steps leaves the pins of the dead to the next one.
#[test]
fn death_of_a_reaper_of_a_pin() {
    check_deaths(1, |steps| {
        let (segment, [survivor, reaper, dead, _fourth], x) = one_array();
        let gone = model::mortal(&segment, 2, u64::MAX, || {
            let dead = dead;
            let _pin = dead.pin(x).unwrap();
            model::die();
        });
        assert!(gone.is_none());
        survivor.free(x).unwrap();
        let other = thread::spawn(move || dies(reaper, steps, |reaper| drop(reaper.reap())));
        survivor.reap().unwrap();
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        assert_all_free(&survivor, 1);
        died
    });
}
