//! Tests of the words against bit patterns that are written out here, independent of the fields and
//! constructors under test.

use super::*;
use crate::sync::Word;

const ME: SeatId = SeatId::from_index(6);
const OTHER: SeatId = SeatId::from_index(7);
const ORPHAN: u64 = 0xfff;

const FREE: u64 = 0;
const RESERVED: u64 = 1;
const LIVE: u64 = 2;
const RETIRED: u64 = 3;
const EXHAUSTED: u64 = 4;
const INVALID: u64 = 5;
const PINNED: u64 = 4;

const POISONED: u64 = 1 << 3;
const DETACHED: u64 = 1 << 4;
const CLEAN: u64 = 1 << 5;
const CONTROL: u64 = CLEAN;
const WAITED: u64 = CLEAN;
const ROUND: u64 = 1 << 6;
const NAMED: u64 = 1 << 7;
const LAST: u64 = u32::MAX as u64;

/// Returns the slot word of these bits: lifecycle and flags, writer, owner, generation.
fn slot(low: u64, writer: u64, owner: u64, generation: u64) -> SlotWord {
    SlotWord::from_bits(low | writer << 8 | owner << 20 | generation << 32)
}

#[test]
fn words_of_transitions_are_no_faults() {
    for word in [
        slot(FREE, 0, 0, 0),
        slot(FREE, 0, 0, 5),
        slot(FREE | CLEAN, 0, 0, 5),
        slot(RESERVED, 0, 7, 5),
        slot(LIVE, 0, 7, 5),
        slot(LIVE | POISONED | NAMED | CONTROL, 0, 7, 5),
        slot(LIVE | DETACHED, 0, 0, 5),
        // In a queue, pushed by seat 6.
        slot(LIVE | DETACHED, 0, 7, 5),
        slot(LIVE, 8, 7, 5),
        slot(LIVE | ROUND, 8, 7, 5),
        slot(LIVE | ROUND, ORPHAN, 7, 5),
        slot(LIVE | WAITED, 8, 7, 5),
        slot(LIVE | WAITED | ROUND, ORPHAN, 7, 5),
        slot(RETIRED | WAITED | PINNED, 8, 7, 5),
        slot(RETIRED, 0, 7, 5),
        slot(RETIRED | DETACHED | ROUND | NAMED | POISONED, 8, 7, 5),
        slot(LIVE | PINNED | POISONED | ROUND, ORPHAN, 7, 5),
        slot(RETIRED | PINNED | DETACHED, 8, 7, 5),
        slot(EXHAUSTED, 0, 0, LAST),
    ] {
        assert_eq!(word.fault(), None, "{word:?}");
    }
}

#[test]
fn words_of_no_transition_are_faults() {
    let flags = [POISONED, DETACHED, ROUND, NAMED];
    let mut faulty = vec![
        slot(FREE, 0, 7, 5),
        slot(FREE, 8, 0, 5),
        slot(RESERVED, 0, 0, 5),
        slot(RESERVED, 8, 7, 5),
        slot(RESERVED | CLEAN, 0, 7, 5),
        // An owner or DETACHED is required.
        slot(LIVE, 0, 0, 5),
        // A round has a writer, and only a round can be orphaned.
        slot(LIVE | ROUND, 0, 7, 5),
        slot(LIVE, ORPHAN, 7, 5),
        slot(RETIRED, 0, 0, 5),
        // Nobody is the owner ORPHAN.
        slot(LIVE, 0, ORPHAN, 5),
        slot(RETIRED | WAITED | ROUND, ORPHAN, ORPHAN, LAST),
        // No control array is pinned.
        slot(LIVE | PINNED | CONTROL, 0, 7, 5),
        slot(RETIRED | PINNED | CONTROL, 0, 7, 5),
        slot(EXHAUSTED, 0, 7, LAST),
        slot(EXHAUSTED, 8, 0, LAST),
        slot(EXHAUSTED, 0, 0, LAST - 1),
    ];
    for flag in flags {
        faulty.push(slot(FREE | flag, 0, 0, 5));
        faulty.push(slot(RESERVED | flag, 0, 7, 5));
        faulty.push(slot(EXHAUSTED | flag, 0, 0, LAST));
    }
    for word in faulty {
        assert_eq!(
            word.fault(),
            Some("the fields of the slot contradict each other"),
            "{word:?}"
        );
    }
    let word = slot(INVALID, 0, 0, 0);
    assert_eq!(word.fault(), Some("the state of the slot is invalid"));
}

#[test]
fn flags_of_a_slot_are_single_bits() {
    let plain = slot(LIVE, 0, 7, 5);
    assert!(!plain.is_detached() && !plain.is_named() && !plain.is_never_used());
    assert!(slot(LIVE | DETACHED, 0, 0, 5).is_detached());
    assert!(slot(LIVE | NAMED, 0, 7, 5).is_named());
    assert!(slot(0, 0, 0, 0).is_never_used());
    assert!(!slot(FREE, 0, 0, 1).is_never_used());
    assert_eq!(plain.owner(), ME);
    assert_eq!(slot(LIVE, 8, 7, 5).writer(), OTHER);
}

#[test]
fn only_the_owner_of_a_reservation_ends_it() {
    let reserved = slot(RESERVED, 0, 7, 5);
    assert_eq!(reserved.publish(OTHER), None);
    assert_eq!(reserved.abandon(OTHER, false), None);
    assert_eq!(reserved.publish(ME), Some(slot(LIVE, 0, 7, 5)));
    assert_eq!(reserved.abandon(ME, true), Some(slot(CLEAN, 0, 0, 6)));
    let live = slot(LIVE, 0, 7, 5);
    assert_eq!((live.publish(ME), live.abandon(ME, false)), (None, None));
}

#[test]
fn a_live_slot_changes_only_in_its_generation() {
    let live = slot(LIVE, 0, 7, 5);
    assert_eq!(live.name(5), Some(slot(LIVE | NAMED, 0, 7, 5)));
    assert_eq!(live.poison(5), Some(slot(LIVE | POISONED, 0, 7, 5)));
    assert_eq!(live.adopt(5, ME, OTHER), Some(slot(LIVE, 0, 8, 5)));
    let detached = slot(LIVE | DETACHED, 0, 0, 5);
    assert_eq!(live.detach(5, ME), Some(detached));
    assert_eq!(detached.adopt(5, SeatId::NONE, ME), Some(live));
    assert_eq!((live.name(4), live.poison(4)), (None, None));
    assert_eq!(live.adopt(6, ME, OTHER), None);
    let poisoned = slot(LIVE | POISONED, 0, 7, 5);
    assert_eq!(poisoned.clear_poison(5), Some(live));
    assert_eq!(poisoned.clear_poison(4), None);
    let written = slot(LIVE | POISONED, 8, 7, 5);
    assert_eq!(written.clear_poison(5), None);
}

#[test]
fn an_array_in_a_queue_is_detached_and_says_who_pushed_it() {
    let live = slot(LIVE | POISONED, 8, 7, 5);
    let queued = slot(LIVE | POISONED | DETACHED, 8, 7, 5);
    assert_eq!(live.enqueue(5, ME), Some(queued));
    assert_eq!(queued.withdraw(5, ME), Some(live));
    let popped = slot(LIVE | POISONED, 8, 8, 5);
    assert_eq!(queued.dequeue(5, OTHER), Some(popped));
    assert!(queued.is_queued_by(ME) && !queued.is_queued_by(OTHER));
    assert!(!slot(RETIRED | DETACHED, 0, 7, 5).is_queued());
}

#[test]
fn the_last_lease_frees_a_retired_slot_and_closes_an_orphaned_round() {
    let retired = slot(RETIRED | NAMED, 0, 7, 5);
    assert_eq!(retired.after_leases(), Some(slot(FREE, 0, 0, 6)));
    assert_eq!(slot(RETIRED, 8, 7, 5).after_leases(), None);
    let orphaned = slot(LIVE | ROUND | POISONED, ORPHAN, 7, 5);
    let closed = slot(LIVE | POISONED, 0, 7, 5);
    assert_eq!(orphaned.after_leases(), Some(closed));
    assert_eq!(slot(LIVE | ROUND, 8, 7, 5).after_leases(), None);
    assert_eq!(slot(FREE, 0, 0, 5).after_leases(), None);
    assert_eq!(slot(RESERVED, 0, 7, 5).after_leases(), None);
}

#[test]
fn only_a_word_with_a_writer_is_waited_for() {
    let written = slot(LIVE | PINNED, 8, 7, 5);
    let waited = slot(LIVE | PINNED | WAITED, 8, 7, 5);
    assert_eq!(written.wait(5), Some(waited));
    assert_eq!(waited.wait(5), Some(waited));
    assert!(waited.is_waited() && !waited.is_control() && !written.is_waited());
    let control = slot(LIVE | CONTROL, 0, 7, 5);
    assert!(control.is_control() && !control.is_waited());
    assert_eq!((written.wait(4), control.wait(5)), (None, None));
    assert_eq!(slot(RETIRED, 8, 7, 5).wait(5), None);
    assert_eq!(
        waited.unlock(OTHER, false),
        Some(slot(LIVE | PINNED, 0, 7, 5))
    );
    assert_eq!(waited.pin(5), Some(waited));
    let round = slot(LIVE | WAITED | ROUND, 8, 7, 5);
    let orphan = slot(LIVE | WAITED | ROUND, ORPHAN, 7, 5);
    assert_eq!(round.orphan(OTHER, false), Some(orphan));
    assert_eq!(orphan.after_leases(), Some(slot(LIVE, 0, 7, 5)));
    let retired = slot(RETIRED | WAITED | PINNED, 8, 7, 5);
    assert_eq!(waited.retire(5, ME), Some(retired));
    assert!(retired.is_waited() && !retired.is_control());
}

#[test]
fn the_flag_of_a_pin_stays_until_the_slot_is_free() {
    let live = slot(LIVE | POISONED, 8, 7, 5);
    let pinned = slot(LIVE | POISONED | PINNED, 8, 7, 5);
    assert_eq!(live.pin(5), Some(pinned));
    assert_eq!(pinned.pin(5), Some(pinned));
    assert_eq!((live.pin(4), slot(RETIRED, 0, 7, 5).pin(5)), (None, None));
    assert_eq!(slot(LIVE | CONTROL, 0, 7, 5).pin(5), None);
    assert!(pinned.is_live(5) && !pinned.is_live(4));
    let retired = slot(RETIRED | POISONED | PINNED, 8, 7, 5);
    assert_eq!(pinned.retire(5, ME), Some(retired));
    let last = slot(RETIRED | PINNED, 0, 7, 5);
    assert_eq!(last.after_leases(), Some(slot(FREE, 0, 0, 6)));
    assert_eq!(last.recycle_reserved(ME), Some(slot(RESERVED, 0, 7, 6)));
    assert!(!slot(EXHAUSTED, 0, 0, LAST).is_pinned() && !slot(FREE, 0, 0, 5).is_pinned());
}

#[test]
fn a_retired_slot_can_be_reserved_for_cleaning() {
    let retired = slot(RETIRED, 0, 8, 5);
    assert_eq!(retired.recycle_reserved(ME), Some(slot(RESERVED, 0, 7, 6)));
    assert_eq!(slot(LIVE, 0, 8, 5).recycle_reserved(ME), None);
    assert_eq!(slot(RETIRED, 8, 8, 5).recycle_reserved(ME), None);
    assert_eq!(slot(RETIRED, 0, 8, LAST).recycle_reserved(ME), None);
}

/// Returns a claim word: state, seat, round.
fn claim(state: u64, seat: u64, round: u64) -> Claim {
    Claim::from_bits(state | seat << 4 | round << 16)
}

#[test]
fn a_tile_of_round_0_is_not_reopened() {
    assert_eq!(claim(1, 7, 0).reopen(0, ME), None);
    assert_eq!(claim(3, 7, 0).reopen(0, ME), None);
    assert_eq!(claim(1, 7, 1).reopen(1, ME), Some(claim(0, 0, 0)));
}

#[test]
fn done_tiles_are_counted() {
    let none = DoneCount::start(9);
    assert_eq!(none.bits(), 9 << 24);
    assert_eq!(none.count(), 0);
    let all = none.add(9, 3).and_then(|count| count.add(9, 4)).unwrap();
    assert_eq!((all.bits(), all.count()), (9 << 24 | 7, 7));
    assert!(!DoneCount::given_up().is_of(9));
}

const EMPTY: u64 = 0;
const WRITING: u64 = 1;
const FULL: u64 = 2;
const TAKING: u64 = 3;
const LAST_LAP: u64 = (1 << 49) - 1;

/// Returns a cell's word: state, seat, lap.
fn cell(state: u64, seat: u64, lap: u64) -> CellWord {
    CellWord::from_bits(seat | state << 12 | lap << 15)
}

#[test]
fn laps_beyond_the_limit_are_for_deaths() {
    assert_eq!(CellWord::CLAIM_LIMIT, LAST_LAP - 0xffff);
    let last = CellWord::CLAIM_LIMIT - 1;
    let empty = cell(EMPTY, 0, last);
    assert_eq!(empty.claim(last, ME), Some(cell(WRITING, 7, last)));
    assert_eq!(empty.claim(last + 1, ME), None);
    assert_eq!(empty.pass_over(last + 1), None);
}

#[test]
fn nothing_begins_after_the_last_lap() {
    assert_eq!(cell(TAKING, 7, LAST_LAP).release(ME), None);
    assert_eq!(cell(TAKING, 7, LAST_LAP).undo(ME), None);
    assert_eq!(cell(FULL, 0, LAST_LAP).withdraw(), None);
    let last = LAST_LAP - 1;
    let next = Some(cell(EMPTY, 0, LAST_LAP));
    assert_eq!(cell(TAKING, 7, last).release(ME), next);
    assert_eq!(cell(FULL, 0, last).withdraw(), next);
}

#[test]
fn a_cell_is_passed_over_into_a_later_lap_only() {
    assert_eq!(cell(EMPTY, 0, 3).pass_over(5), Some(cell(EMPTY, 0, 5)));
    assert_eq!(cell(EMPTY, 0, 3).pass_over(3), None);
    assert_eq!(cell(EMPTY, 0, 3).pass_over(2), None);
    assert_eq!(cell(FULL, 0, 3).pass_over(5), None);
}

#[test]
fn a_job_that_is_being_taken_can_come_back_in_the_next_lap() {
    assert_eq!(cell(TAKING, 7, 3).next_full(), 4);
    for state in [EMPTY, WRITING, FULL] {
        assert_eq!(cell(state, 7, 3).next_full(), 3);
    }
    assert_eq!(cell(TAKING, 7, 3).undo(ME), Some(cell(FULL, 0, 4)));
}

#[test]
fn an_end_is_open_until_it_is_closed() {
    let open = EndWord::from_bits(0);
    assert!(!open.is_closed() && !open.is_awaited());
    let closed = open.advance_to(3).close();
    assert_eq!(closed.bits(), 3 << 2 | 2);
    assert!(closed.is_closed());
    assert_eq!(open.advance_to(3).mark_sleeper().bits(), 3 << 2 | 1);
}

#[test]
fn seats_have_an_index_below_the_most_that_a_segment_has() {
    let index = |field| SeatId::from_field(field).index();
    assert_eq!(index(0), None);
    assert_eq!(index(1), Some(0));
    assert_eq!(index(2048), Some(2047));
    assert_eq!(index(2049), None);
    assert_eq!(index(ORPHAN), None);
}

#[test]
fn a_seat_is_free_in_zeroed_memory() {
    let free = SeatWord::from_bits(0);
    assert!(!free.is_taken());
    let taken = free.take().unwrap();
    assert_eq!((taken.bits(), taken.epoch()), (3, 1));
    assert_eq!(taken.leave().unwrap().bits(), 2);
}

#[test]
fn buckets_and_spans_are_empty_in_zeroed_memory() {
    assert!(BucketWord::EMPTY.is_empty() && BucketWord::EMPTY.frozen().is_empty());
    assert!(!BucketWord::of(SlotIndex::new(0), 0).is_empty());
    assert!(SpanWord::from_bits(0).is_empty());
    assert!(!SpanWord::new(0, 0).is_empty());
}

#[test]
fn words_print_what_they_say() {
    let texts = [
        (
            format!("{:?}", slot(LIVE | POISONED | ROUND, 8, 7, 5)),
            "Live generation 5, owner seat 6, writer seat 7, poisoned, in a round",
        ),
        (
            format!("{:?}", slot(FREE | CLEAN, 0, 0, 5)),
            "Free generation 5, owner nobody, writer nobody, clean",
        ),
        (
            format!("{:?}", slot(LIVE | WAITED, ORPHAN, 7, 5)),
            "Live generation 5, owner seat 6, writer orphan, waited for",
        ),
        (
            format!("{:?}", slot(FREE, 0, 0, 5)),
            "Free generation 5, owner nobody, writer nobody",
        ),
        (
            format!("{:?}", slot(RETIRED | PINNED, 0, 7, 5)),
            "Retired generation 5, owner seat 6, writer nobody, pinned",
        ),
        (format!("{:?}", claim(1, 7, 3)), "Held by seat 6 in round 3"),
        (
            format!("{:?}", UnitRecord::new(3, 5)),
            "0000000000000101 done in round 3",
        ),
        (
            format!("{:?}", DoneCount::from_bits(9 << 24 | 2)),
            "2 done in round 9",
        ),
        (
            format!("{:?}", cell(TAKING, 7, 3)),
            "Taking by seat 6 in lap 3",
        ),
        (
            format!("{:?}", EndWord::from_bits(3 << 2 | 3)),
            "at 3, closed, awaited",
        ),
        (format!("{:?}", EndWord::from_bits(3 << 2)), "at 3"),
        (format!("{:?}", SeatWord::from_bits(3)), "TAKEN epoch 1"),
        (
            format!("{:?}", BucketWord::of(SlotIndex::new(4), 2)),
            "slot 4 generation 2",
        ),
        (format!("{:?}", SpanWord::new(2, 64)), "class 2 at 0x40"),
    ];
    for (found, expected) in texts {
        assert_eq!(found, expected);
    }
}
