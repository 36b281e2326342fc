//! The words of a partition, and the progress that they describe.

use super::*;
use crate::partition::grid::Grid;
use crate::segment::Segment;
use crate::span::class_of;
use ndarray::Axis;

const ME: SeatId = SeatId::from_index(6);
const OTHER: SeatId = SeatId::from_index(7);

/// Returns the words of a partition of 7 tiles, claimed 3 at a time: units of 3, 3 and 1 tile.
fn units() -> Vec<Atom> {
    let words: Vec<Atom> = (0..FIRST_CLAIM + 3 + 3).map(|_| Atom::zero()).collect();
    words[TILES].store(7, Ordering::Relaxed);
    words[UNIT].store(3, Ordering::Relaxed);
    words
}

/// Returns the claim word state 4 | seat 12 | round 48.
fn claim(state: u64, seat: SeatId, round: u64) -> u64 {
    state | seat.field() << 4 | round << 16
}

const OPEN: u64 = 0;
const HELD: u64 = 1;
const DONE_STATE: u64 = 2;
const TORN: u64 = 3;
const INVALID: u64 = 4;

#[test]
fn golden_words_of_a_partition() {
    let segment = Segment::in_process().unwrap();
    let memory = segment.memory();
    let grid = Grid::blocks([(Axis(0), 3)]).and(Grid::bounds(Axis(1), [0, 2, 5]));
    let plan = grid.plan(&[10, 5]).unwrap();
    let member = |slot, generation, mode| Member {
        slot,
        generation,
        mode,
    };
    let members = [
        member(SlotIndex::new(3), 5, AccessMode::Read),
        member(SlotIndex::new(4), 6, AccessMode::Write),
        member(SlotIndex::new(1 << 20), u32::MAX, AccessMode::Whole),
    ];
    let count = Control::words(8, &plan);
    assert_eq!(count, 64 + 8 + 3);
    let extent = Extent {
        offset: 64,
        class: class_of(count as u64 * 8).unwrap(),
    };
    let words = memory.control(64, count).unwrap();
    for word in words {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    Control::create(memory, extent, 8, &plan, &members).unwrap();
    let mut expected = vec![0; count];
    // Tiles, cuts, members, tiles of a unit.
    expected[1..5].copy_from_slice(&[8, 2, 3, 1]);
    let identities = [3 << 32 | 5, 0, 4 << 32 | 6, 1, 1 << 52 | 0xffff_ffff, 2];
    expected[32..38].copy_from_slice(&identities);
    // Axis and kind, length of the axis, pieces, length of a block.
    expected[48..56].copy_from_slice(&[0, 10, 4, 3, 1 << 8 | 2, 5, 2, 0]);
    // Behind the claims.
    expected[72..75].copy_from_slice(&[0, 2, 5]);
    let found: Vec<u64> = words.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    assert_eq!(found, expected);

    let control = Control::open(memory, extent).unwrap();
    assert_eq!(control.plan(), Some(plan));
    assert_eq!(control.members().collect::<Vec<_>>(), members);
    assert_eq!(
        control.written().collect::<Vec<_>>(),
        [(SlotIndex::new(4), 6)]
    );
    assert_eq!(
        (control.tiles(), control.unit(), control.units()),
        (8, 1, 8)
    );
    assert_eq!(control.rows(&[0, 7, 3]), [0..3, 9..10, 3..6]);

    // More claims than the extent has words.
    words[TILES].store(extent.size() / 8, Ordering::Relaxed);
    assert!(Control::open(memory, extent).is_none());
}

#[test]
fn large_partitions_are_claimed_in_units() {
    let tiles_of_a_unit = [1, 2048, 2049, 4096, 4097, 32_768, 1 << 24].map(unit_of);
    assert_eq!(tiles_of_a_unit, [1, 1, 2, 2, 3, 16, 16]);
    assert_eq!(lengths(2048, 1), (2048, 0));
    assert_eq!(lengths(2049, 2), (1025, 1025));
    let plan = Grid::blocks([(Axis(0), 1)]).plan(&[2049]).unwrap();
    assert_eq!(Control::words(2049, &plan), 64 + 1025 + 1025);

    let words = units();
    let control = Control::over(&words).unwrap();
    assert_eq!((control.unit(), control.units()), (3, 3));
    let tiles = [0, 1, 2].map(|unit| control.tiles_of(unit));
    assert_eq!(tiles, [0..3, 3..6, 6..7]);
    assert_eq!([0, 1, 2].map(|unit| control.all_of(unit)), [7, 7, 1]);
    assert!(Control::over(&words[..words.len() - 1]).is_none());
}

#[test]
fn a_record_counts_for_its_round_and_its_tiles() {
    let words = units();
    let control = Control::over(&words).unwrap();
    assert_eq!(control.ran(1, 5), 0);
    control.note(1, 5, 0b101);
    assert_eq!((control.ran(1, 5), control.ran(1, 4)), (0b101, 0));
    assert_eq!(control.missing(1, 5).collect::<Vec<_>>(), [4]);
    assert_eq!(control.missing(1, 4).collect::<Vec<_>>(), [3, 4, 5]);
    control.note(2, 5, 0b111);
    assert_eq!(control.ran(2, 5), 1, "it has one tile");
    assert_eq!(control.missing(2, 5).count(), 0);
}

#[test]
fn progress_tells_done_held_open_and_torn_tiles() {
    let words = units();
    let control = Control::over(&words).unwrap();
    let set = |unit: usize, word| words[FIRST_CLAIM + unit].store(word, Ordering::Relaxed);
    let said = |done, held, open, torn: &[usize]| Progress {
        done,
        held,
        open,
        torn: torn.to_vec(),
    };
    assert_eq!(control.progress(5), said(0, 0, 7, &[]));
    // Unit 0 is held and one of its three tiles was run. Unit 1 is torn and two were run. Unit 2 is
    // open.
    set(0, claim(HELD, ME, 5));
    control.note(0, 5, 0b001);
    set(1, claim(TORN, OTHER, 5));
    control.note(1, 5, 0b101);
    assert_eq!(control.progress(5), said(3, 2, 1, &[4]));
    // All tiles were run, but the unit was not released.
    control.note(0, 5, 0b111);
    assert_eq!(control.progress(5), said(4, 1, 1, &[4]));
    set(0, claim(DONE_STATE, ME, 5));
    assert_eq!(control.progress(5), said(5, 0, 1, &[4]));
    // In round 6 these are open, except the unit that is still held.
    assert_eq!(control.progress(6), said(0, 0, 7, &[]));
    set(1, claim(HELD, OTHER, 5));
    assert_eq!(control.progress(6), said(0, 3, 4, &[]));
    // Released half-way: open again, with a record of this round.
    set(1, claim(OPEN, SeatId::NONE, 5));
    control.note(1, 6, 0b010);
    assert_eq!(control.progress(6), said(1, 0, 6, &[]));
    // A unit of one tile that is held.
    set(2, claim(HELD, ME, 6));
    assert_eq!(control.progress(6), said(1, 1, 5, &[]));
}

/// Releases a unit, and counts its tiles.
fn release(control: &Control<'_>, unit: usize, round: u64, seat: SeatId) {
    assert!(control.release(unit, seat));
    control.count(round, control.tiles_of(unit).len() as u64);
}

#[test]
fn a_round_is_counted_once_its_opener_has_started_the_count() {
    let words = units();
    let control = Control::over(&words).unwrap();
    assert_eq!(control.begin(ME).unwrap(), 1);
    assert!(control.begin(OTHER).is_err());
    control.start_count(1);
    for unit in 0..3 {
        assert!(!control.all_counted(1));
        assert!(control.claim(unit, 1, OTHER));
        release(&control, unit, 1, OTHER);
    }
    assert!(control.all_counted(1) && !control.all_counted(2));
    let close = |seat| control.close(seat, RoundState::Whole);
    assert!(!close(OTHER));
    assert!(close(ME) && !close(ME));
    assert!(control.begin(OTHER).is_err(), "its arrays are not released");
    control.settle(OTHER);
    assert!(control.begin(OTHER).is_err());
    control.settle(ME);
    // Without a start, tiles of the next round do not add themselves.
    assert_eq!(control.begin(ME).unwrap(), 2);
    assert!(control.claim(0, 2, ME));
    release(&control, 0, 2, ME);
    assert_eq!(words[DONE].load(Ordering::Relaxed), 1 << 24 | 7);
}

#[test]
fn a_done_tile_is_taken_again_and_no_longer_counted() {
    let words = units();
    let control = Control::over(&words).unwrap();
    control.begin(ME).unwrap();
    control.start_count(1);
    assert!(!control.is_done(2, 1) && !control.retake(2, 1, ME));
    assert!(control.claim(2, 1, OTHER));
    assert!(!control.is_done(2, 1) && !control.retake(2, 1, ME));
    release(&control, 2, 1, OTHER);
    assert!(control.is_done(2, 1) && !control.is_done(2, 2));
    assert!(!control.retake(2, 2, ME));
    assert_eq!(words[DONE].load(Ordering::Relaxed), 1 << 24 | 1);
    assert!(control.retake(2, 1, ME));
    assert_eq!(words[DONE].load(Ordering::Relaxed), 0);
    assert_eq!(control.claim_word(2).bits(), claim(HELD, ME, 1));
    assert!(!control.reopen(2, 1, OTHER));
    assert!(control.reopen(2, 1, ME) && !control.reopen(2, 1, ME));
    assert!(control.claim(2, 1, OTHER));
}

#[test]
fn a_torn_unit_names_its_round() {
    let words = units();
    let control = Control::over(&words).unwrap();
    assert!(control.claim(1, 5, OTHER));
    assert!(control.is_held_by(OTHER) && !control.is_held_by(ME));
    assert_eq!((control.tear(1, ME), control.tear(0, OTHER)), (None, None));
    assert_eq!(control.tear(1, OTHER), Some(5));
    assert_eq!(control.claim_word(1).bits(), claim(TORN, OTHER, 5));
    assert!(!control.is_held_by(OTHER));
    // Only the round word is held by its opener.
    control.begin(ME).unwrap();
    assert!(control.is_held_by(ME) && !control.is_held_by(OTHER));
}

#[test]
fn faults_reports_held_and_invalid_words() {
    let words = units();
    let control = Control::over(&words).unwrap();
    let told = || {
        let mut told = Vec::new();
        control.faults(|at, bits, seat| told.push((at, bits, seat)));
        told
    };
    assert_eq!(told(), []);
    let running = claim(HELD, ME, 5);
    words[ROUND].store(running, Ordering::Relaxed);
    let bits = [
        claim(HELD, OTHER, 5),
        claim(INVALID, OTHER, 5),
        claim(DONE_STATE, OTHER, 6),
    ];
    for (at, bits) in (FIRST_CLAIM..).zip(bits) {
        words[at].store(bits, Ordering::Relaxed);
    }
    let expected = [
        (0, running, Some(ME)),
        (64, bits[0], Some(OTHER)),
        (65, bits[1], None),
        (66, bits[2], None),
    ];
    assert_eq!(told(), expected);
    for (unit, state) in [OPEN, DONE_STATE, TORN].into_iter().enumerate() {
        words[FIRST_CLAIM + unit].store(claim(state, OTHER, 5), Ordering::Relaxed);
    }
    words[ROUND].store(claim(OPEN, SeatId::NONE, 5), Ordering::Relaxed);
    assert_eq!(told(), []);
    // The opener has not released its arrays yet, or nobody runs the round.
    let ending = claim(TORN, ME, 5);
    words[ROUND].store(ending, Ordering::Relaxed);
    assert_eq!(told(), [(0, ending, Some(ME))]);
    let nobodys = claim(HELD, SeatId::NONE, 5);
    words[ROUND].store(nobodys, Ordering::Relaxed);
    assert_eq!(told(), [(0, nobodys, None)]);
}
