//! The segment of a program, and the notes of its participants.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use ndarray::{Axis, Ix1};
use ndshm::{Handle, HandleTable, PartitionHandle, Segment, Write, model};

use crate::history::{Call, History, Moment};
use crate::program::Program;
use crate::reference::{Answer, Name, Question, Table};

pub type Vector = Handle<u64, Ix1>;

/// The number of words of a small and of a large array.
pub const WORDS: [usize; 2] = [2, 16];

/// The number of tiles of the array that rounds work on, and the number of words per tile.
pub const TILES: usize = 4;
pub const TILE_WORDS: usize = 2;

/// The number of words that fit into the smallest size class, and the words of a partition.
const SMALL_ROOM: u64 = 8;
const PARTITION_ROOM: usize = 48;

/// An array that a participant created.
#[derive(Clone, Copy)]
pub struct Known {
    pub handle: Vector,
    pub name: Name,
}

/// Notes on rounds: each tile is claimed once per round.
#[derive(Default)]
pub struct Rounds {
    pub claimed: HashSet<(u64, usize)>,
    pub written: HashSet<(u64, usize)>,
    /// Tiles that were declared good although they may be half-written, and not written since.
    pub healed: HashSet<usize>,
    /// Participants that are clearing the poison of all tiles, or died doing so.
    pub healing: HashSet<usize>,
    pub begun: u64,
    pub finished: u64,
    pub torn: u64,
}

#[derive(Default)]
pub struct Notes {
    now: Moment,
    history: History<Question, Answer>,
    known: Vec<Known>,
    /// Arrays that no participant has found stale.
    fresh: Vec<Known>,
    pub rounds: Rounds,
    /// The number of participants that were killed.
    pub kills: usize,
}

/// The segment and the notes of one program. The lock of the notes is never held across an
/// operation on a shared word, so the checker need not know of it.
pub struct World {
    pub segment: Segment,
    pub tiles: PartitionHandle<Write<u64, Ix1>>,
    pub tiled: Vector,
    /// `true` if there is room for large arrays.
    pub has_large: bool,
    start: Table,
    notes: Mutex<Notes>,
}

impl World {
    /// Creates the world of a program, and the table of the surviving participant.
    pub fn new(program: &Program) -> (World, HandleTable) {
        let (small, large) = (u64::from(program.small), u64::from(program.large));
        let for_tiles = 2 * 64 + 2 * 8 * PARTITION_ROOM as u64;
        let segment = Segment::options()
            .capacity(for_tiles + 64 * small + 128 * large)
            .seats(program.lives.len() as u32 + 1)
            .arrays(4 + small + large)
            .in_process()
            .expect("a segment for a program");
        let table = HandleTable::join(&segment).expect("the first seat");
        let tiled = table.from_elem(TILES * TILE_WORDS, 0).unwrap();
        let partition = table.partition(tiled.write(), Axis(0), TILE_WORDS).unwrap();
        let tiles = partition.handle();
        // The drop of this value would free the partition. It is freed when the survivor leaves.
        std::mem::forget(partition);
        let beside = table.uninit::<u64, _>(PARTITION_ROOM).unwrap();
        assert_eq!(
            model::place(&segment, beside).0,
            3,
            "the span of the partition's words"
        );
        let mut slots = vec![(0, None), (SMALL_ROOM, None), (0, None), (0, None)];
        slots.extend((0..large).map(|_| (WORDS[1] as u64, None)));
        slots.extend((0..small).map(|_| (SMALL_ROOM, None)));
        if large > 0 {
            cut(&segment, &mut slots, program);
        }
        let world = World {
            segment,
            tiles,
            tiled,
            has_large: large > 0,
            start: Table::new(slots),
            notes: Mutex::default(),
        };
        world.notes().history = vec![Vec::new(); program.lives.len() + 1];
        (world, table)
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(|notes| notes.into_inner())
    }

    /// Performs the call of a question, and records the moments of the question and of the answer.
    pub fn ask<R>(
        &self,
        who: usize,
        what: Question,
        act: impl FnOnce() -> R,
        answer: impl FnOnce(&R) -> Answer,
    ) -> R {
        {
            let mut notes = self.notes();
            let asked = notes.tick();
            let answered = None;
            notes.history[who].push(Call {
                asked,
                what,
                answered,
            });
        }
        let result = act();
        let answer = answer(&result);
        let mut notes = self.notes();
        let now = notes.tick();
        if let Some(call) = notes.history[who].last_mut() {
            call.answered = Some((now, answer));
        }
        result
    }

    pub fn know(&self, handle: Vector) {
        let name = self.name(handle);
        let mut notes = self.notes();
        notes.known.push(Known { handle, name });
        notes.fresh.push(Known { handle, name });
    }

    /// Notes that the array was freed or found stale.
    pub fn forget(&self, name: Name) {
        self.notes().fresh.retain(|known| known.name != name);
    }

    pub fn name(&self, handle: Vector) -> Name {
        let (slot, generation) = model::place(&self.segment, handle);
        Name { slot, generation }
    }

    /// Chooses an array, most often among those that may be live.
    pub fn choose(&self, which: u8) -> Option<Known> {
        let notes = self.notes();
        let among = match which % 8 {
            0 => &notes.known,
            _ => &notes.fresh,
        };
        let which = usize::from(which / 8) % among.len().max(1);
        among.iter().nth_back(which).copied()
    }

    pub fn all_known(&self) -> Vec<Known> {
        self.notes().known.clone()
    }

    pub fn all_fresh(&self) -> Vec<Known> {
        self.notes().fresh.clone()
    }

    pub fn into_notes(self) -> (Table, History<Question, Answer>, Notes) {
        let mut notes = self
            .notes
            .into_inner()
            .unwrap_or_else(|notes| notes.into_inner());
        (self.start, std::mem::take(&mut notes.history), notes)
    }
}

impl Notes {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

/// Appends all spans and leaves, so that their slots are in the hint trees.
fn cut(segment: &Segment, slots: &mut [(u64, Option<u32>)], program: &Program) {
    let cutter = HandleTable::join(segment).expect("a seat is free");
    let counts = [(1, program.large), (0, program.small)];
    let all: Vec<Vector> = counts
        .into_iter()
        .flat_map(|(size, count)| (0..count).map(move |_| WORDS[size]))
        .map(|words| cutter.uninit(words).expect("there is room"))
        .collect();
    for handle in all {
        let (slot, generation) = model::place(segment, handle);
        slots[slot].1 = Some(generation);
        cutter.free(handle).unwrap();
    }
}
