//! The walk that takes back everything that a seat holds, and the frees that reach beyond the
//! table. Each step of the walk may be repeated.

#[cfg(test)]
mod tests;

use core::ops::Range;

use crate::descriptor::{ControlKind, Descriptor, HalfWritten, PoisonNote};
use crate::handle::AnyHandle;
use crate::memory::Memory;
use crate::names;
use crate::partition::control::Control;
use crate::queue::{self, cells::Cells};
use crate::seat::{Footprint, ParticipantInfo, ReapReport, Reclaim, TornTile};
use crate::segment::Segment;
use crate::span::{Extent, Span, Spans};
use crate::table::above::{Above, AfterFree};
use crate::table::alloc::{add_retained, hint_with_pages};
use crate::table::core::Core;
use crate::table::slot::Slot;
use crate::word::{SeatId, SlotIndex, SlotWord};

/// The layers above the table, as the table reaches them.
pub(crate) struct Reclaimer;

impl Reclaim for Reclaimer {
    fn reclaim(&self, segment: &Segment, seat: SeatId, leaving: Option<&Footprint>) -> ReapReport {
        reclaim(segment, seat, leaving)
    }
}

impl Above for Reclaimer {
    fn owns_arrays(&self, memory: &Memory, slot: Slot<'_>) -> bool {
        queue::owns_arrays(memory, slot)
    }

    fn free_queued(&self, core: &Core, slot: Slot<'_>, seat: SeatId) {
        queue::free_arrays(core.segment(), slot, seat);
    }

    fn finish_free(&self, core: &Core, after: AfterFree<'_>) {
        core.forget_names(after.name);
        if let Some(freed) = after.bundle {
            core.free_parts(freed.bucket, freed.word);
            drop(freed.kept);
        }
    }

    fn forget_dead_names(&self, core: &Core) {
        core.forget_all_dead();
    }

    fn forget_own_names(&self, core: &Core) {
        core.forget_own_names();
    }

    fn name_of(&self, core: &Core, handle: AnyHandle) -> Option<String> {
        core.name_of(handle)
    }

    fn torn_rows(&self, core: &Core, partition: SlotIndex, handle: AnyHandle) -> Vec<Range<usize>> {
        core.torn_rows(partition, handle)
    }
}

/// Releases all that `seat` holds. The caller has the seat's lock, and so acts for the seat.
///
/// Tiles come first, and the poison of their arrays. Until then the participant's reader bits
/// protect those arrays, so nobody can lease one in between and find it half-written without an
/// error.
///
/// A participant that is leaving holds nothing outside of its footprint. A dead one may have died
/// between any two steps, in any span. Finish every possible operation on every slot, and add all
/// FREE slots to the hint trees: some may have been only in its private cache, and nothing tells
/// which.
fn reclaim(segment: &Segment, seat: SeatId, leaving: Option<&Footprint>) -> ReapReport {
    let memory = segment.memory();
    let dead = leaving.is_none();
    let slots = || spans(memory, leaving).flat_map(|span| Slot::in_span(memory, span));
    let mut report = ReapReport::default();
    for (slot, extent) in slots() {
        // The word first: most arrays are not control arrays, and the words lie closer together
        // than reader bits or descriptors.
        if slot.word().is_control() && slot.has_bit(seat) {
            leave_control(segment, slot, extent, seat, &mut report);
        }
    }
    let has_pins = ParticipantInfo::has_pins(memory, seat);
    let mut bundles = false;
    let mut retained = 0;
    for (slot, extent) in slots() {
        let word = slot.word();
        report.names |= word.is_named();
        let mut freed = release_writer(segment, slot, word, seat, &mut report);
        if let Ok(free) = slot.change(|word| word.abandon(seat, false)) {
            report.reservations += 1;
            freed |= free.is_free();
        }
        let owned = |word: SlotWord| word.is_owned_by(seat);
        // Read these before the retirement: after it the slot may be reused at once.
        let bundle =
            word.is_named() && owned(word) && Descriptor::is_bundle(memory.descriptor(slot.index));
        let arrays = word.is_named() && owned(word) && queue::owns_arrays(memory, slot);
        let had_bit = slot.has_bit(seat);
        if arrays {
            // As in `Core::free_named`: the cells stay in place until they are empty.
            let _ = slot.hold_for_retire(word.generation(), seat);
        }
        // A participant may die between clearing its bit, or retiring, and the release check. A
        // leaving participant is not in between.
        let mut unchecked = dead;
        if word.is_named() && word.is_live(word.generation()) {
            unchecked |= names::reclaim(segment, slot, word, seat, dead);
        }
        let retired = slot.change(|word| {
            owned(word)
                .then(|| word.retire(word.generation(), seat))
                .flatten()
        });
        if retired.is_ok() {
            report.arrays_freed += 1;
            bundles |= bundle;
            unchecked = true;
            if arrays {
                report.arrays_freed += queue::free_arrays(segment, slot, seat);
            }
        }
        if slot.has_bit(seat) {
            slot.clear_bit(seat);
            report.leases += usize::from(had_bit);
            unchecked = true;
        }
        if has_pins && slot.has_pin(memory, seat) {
            slot.clear_pin(memory, seat);
            report.pins += 1;
            unchecked = true;
        }
        freed |= unchecked && slot.finish_release().freed(memory, slot.index).is_some();
        if freed || dead && slot.word().is_free() {
            retained += hint_with_pages(memory, slot, extent);
        }
    }
    if bundles {
        // The members of the freed bundles have no owner now, and may be in any span.
        for (slot, extent) in Slot::all(memory) {
            let word = slot.word();
            if word.is_named() && word.is_live(word.generation()) {
                let retired = names::reclaim(segment, slot, word, seat, true);
                if retired && slot.finish_release().freed(memory, slot.index).is_some() {
                    retained += hint_with_pages(memory, slot, extent);
                }
            }
        }
    }
    if retained != 0 {
        add_retained(memory, retained);
    }
    if cfg!(test) && leaving.is_some() {
        assert_holds_nothing(memory, seat);
    }
    report
}

/// Returns the spans in which a participant may hold something: those of its footprint, or all.
fn spans(memory: &Memory, footprint: Option<&Footprint>) -> impl Iterator<Item = Span> {
    let table = Spans::of(memory);
    let known = footprint.map(|spans| spans.spans().filter_map(move |span| table.get(span)));
    let all = footprint.is_none().then(|| table.iter());
    known.into_iter().flatten().chain(all.into_iter().flatten())
}

/// Asserts that a seat holds nothing in any span.
fn assert_holds_nothing(memory: &Memory, seat: SeatId) {
    for (slot, _) in Slot::all(memory) {
        let word = slot.word();
        let holds = word.is_written_by(seat)
            || word.is_live(word.generation()) && word.is_owned_by(seat)
            || word.is_reserved_by(seat)
            || slot.has_bit(seat)
            || slot.has_pin(memory, seat);
        assert!(
            !holds,
            "{seat:?} has left, and holds slot {:?}: {word:?}",
            slot.index
        );
    }
}

/// Releases all that `seat` holds in the words of the control array at `slot`, if the slot has one.
/// The seat's own reader bit keeps the words in place.
fn leave_control(
    segment: &Segment,
    slot: Slot<'_>,
    extent: Extent,
    seat: SeatId,
    report: &mut ReapReport,
) {
    let memory = segment.memory();
    let Some(descriptor) = Descriptor::load(memory.descriptor(slot.index)) else {
        return;
    };
    if descriptor.is_control_of(ControlKind::Partition) {
        if let Some(control) = Control::open(memory, extent) {
            tear_tiles(segment, control.at(slot.index), seat, report);
        }
    } else if descriptor.is_control_of(ControlKind::Queue)
        && let Some((cells, _)) = Cells::open(memory, extent)
    {
        if cells.owns_arrays() {
            cells.bound_arrays(segment, seat, |array| {
                leave_bound(segment, array, seat, report);
            });
            cells.recover_arrays(segment, seat);
        }
        report.jobs += cells.recover(seat).jobs;
        // A read-modify-write orders us with a free of the queue: a later free sees the jobs that
        // were put back, or pushed with the reaper's help; an earlier free is seen here.
        if cells.owns_arrays() && slot.newest().is_retired() {
            report.arrays_freed += queue::free_arrays(segment, slot, seat);
        }
    }
}

/// Ends the leases of `seat` on an array that is about to come back into its queue: its next
/// consumer, which is woken then, finds it free, or poisoned. Leaves a round to the later walk,
/// because tiles come first.
fn leave_bound(segment: &Segment, array: Slot<'_>, seat: SeatId, report: &mut ReapReport) {
    let memory = segment.memory();
    let word = array.word();
    if word.is_in_round() {
        return;
    }
    let mut freed = release_writer(segment, array, word, seat, report);
    if array.has_bit(seat) {
        array.clear_bit(seat);
        report.leases += 1;
        freed |= array.finish_release().freed(memory, array.index).is_some();
    }
    if freed && let Some(extent) = Spans::of(memory).extent(array.index) {
        add_retained(memory, hint_with_pages(memory, array, extent));
    }
}

/// Tears the tiles that `seat` has claimed in a partition, and poisons their arrays.
fn tear_tiles(segment: &Segment, control: Control<'_>, seat: SeatId, report: &mut ReapReport) {
    if !control.is_held_by(seat) {
        return;
    }
    // The poison first: if a reaper dies here, the next finds the tiles still held, and poisons
    // again.
    for (slot, generation) in control.written() {
        poison(segment, (slot, generation), control.slot(), seat, report);
    }
    for unit in 0..control.units() {
        if let Some(round) = control.tear(unit, seat) {
            let tiles: Vec<usize> = control.missing(unit, round).collect();
            let rows = control.rows(&tiles);
            let torn = |(tile, rows)| TornTile { tile, rows, round };
            report.torn.extend(tiles.into_iter().zip(rows).map(torn));
        }
    }
    control.abandon(seat);
}

fn poison(
    segment: &Segment,
    (slot, generation): (SlotIndex, u32),
    partition: Option<SlotIndex>,
    seat: SeatId,
    report: &mut ReapReport,
) {
    let memory = segment.memory();
    let Some(slot) = Slot::of(memory, slot) else {
        return;
    };
    if slot.word().is_live(generation) {
        note_poison(segment, slot, seat, HalfWritten::Tiles, partition);
        if slot.change(|word| word.poison(generation)).is_ok() {
            report.add_poisoned(AnyHandle::pack(segment.key(), slot.index, generation));
        }
    }
}

/// Ends the exclusive lease of `seat`, or the round it opened, and poisons the array, unless the
/// seat was only waiting to write. Returns `true` if that made the slot FREE.
fn release_writer(
    segment: &Segment,
    slot: Slot<'_>,
    word: SlotWord,
    seat: SeatId,
    report: &mut ReapReport,
) -> bool {
    if !word.is_written_by(seat) {
        return false;
    }
    if !word.is_in_round() && slot.has_bit(seat) {
        // It was waiting for readers to leave, and has not written.
        let tail = slot.unlock_exclusive(seat, false);
        return tail.freed(segment.memory(), slot.index).is_some();
    }
    let generation = word.generation();
    let what = match word.is_in_round() {
        true => HalfWritten::Round,
        false => HalfWritten::Array,
    };
    // A writer that is poisoned already has stored its note, or writes nothing but the torn tiles
    // that the note tells.
    if word.is_in_round() || !word.is_poisoned() {
        note_poison(segment, slot, seat, what, None);
    }
    report.add_poisoned(AnyHandle::pack(segment.key(), slot.index, generation));
    let tail = match what {
        HalfWritten::Round => slot.orphan(seat, true),
        _ => slot.unlock_exclusive(seat, true),
    };
    tail.freed(segment.memory(), slot.index).is_some()
}

/// Notes the seat's holder as the process that left the array half-written.
fn note_poison(
    segment: &Segment,
    slot: Slot<'_>,
    seat: SeatId,
    what: HalfWritten,
    partition: Option<SlotIndex>,
) {
    let memory = segment.memory();
    let culprit = ParticipantInfo::of(memory, seat).pid;
    let note = PoisonNote::now(culprit, what).torn_in(partition);
    note.store(memory.descriptor(slot.index));
}
