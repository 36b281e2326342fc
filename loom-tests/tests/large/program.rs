//! Random programs: the acts of several participants, and the places where they die.

use std::fmt;

use proptest::prelude::*;

/// An act of a participant. The numbers select an array, or a lease that the participant holds.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Creates a small or a large array.
    Alloc {
        large: bool,
    },
    Free(u8),
    Attach(u8),
    Read(u8),
    Write(u8),
    EndLease(u8),
    ClearPoison(u8),
    Reap,
    /// Leaves, and joins again if there is more to do.
    Leave,
    /// Takes part in the running round, and runs this many tiles.
    Tiles(u8),
    /// Opens a round. The next `Round` takes part in it and ends it if all tiles are done by then.
    /// The round is given up when the participant leaves.
    Round,
}

/// The life of one participant.
#[derive(Clone)]
pub struct Life {
    pub acts: Vec<Act>,
    /// The place where it is killed, if it gets there.
    pub death: Option<Death>,
}

/// A place to die.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// Before this operation on a shared word.
    Operation(u16),
    /// After this many arrays or tiles, and half of the next one.
    HalfWritten(u8),
}

impl fmt::Debug for Life {
    /// Formats the life on one line, also in a program that takes several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Life {{ acts: {:?}, death: {:?} }}",
            self.acts, self.death
        )
    }
}

/// Lives that run at once in one segment.
#[derive(Clone, Debug)]
pub struct Program {
    pub lives: Vec<Life>,
    /// The number of slots for small arrays, two per span.
    pub small: u8,
    /// The number of slots for large arrays. If it is positive, all spans are appended before the
    /// lives begin; otherwise the lives append them.
    pub large: u8,
    /// The number of arrays that the survivor creates before the lives begin, and owns to the end.
    pub shared: u8,
    /// The seed of the schedules.
    pub seed: u64,
}

/// The size of programs.
#[derive(Clone, Copy)]
pub struct Size {
    pub lives: (usize, usize),
    /// The most acts of a life.
    pub acts: usize,
    /// The approximate number of operations on shared words in a life.
    pub operations: u16,
    /// The range of the number of spans for small arrays.
    pub spans: (u8, u8),
    /// If `true`, lives only create and free arrays and leave: the table is full most of the time.
    pub crowded: bool,
}

fn crowded_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => any::<bool>().prop_map(|large| Act::Alloc { large }),
        4 => any::<u8>().prop_map(Act::Free),
        1 => Just(Act::Leave),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let which = any::<u8>;
    prop_oneof![
        6 => any::<bool>().prop_map(|large| Act::Alloc { large }),
        4 => which().prop_map(Act::Free),
        2 => which().prop_map(Act::Attach),
        5 => which().prop_map(Act::Read),
        5 => which().prop_map(Act::Write),
        7 => which().prop_map(Act::EndLease),
        2 => which().prop_map(Act::ClearPoison),
        1 => Just(Act::Reap),
        1 => Just(Act::Leave),
        4 => (0u8..5).prop_map(Act::Tiles),
        2 => Just(Act::Round),
    ]
}

fn life(size: Size) -> impl Strategy<Value = Life> {
    let act = match size.crowded {
        true => crowded_act().boxed(),
        false => act().boxed(),
    };
    let acts = prop::collection::vec(act, 0..=size.acts);
    let death = prop_oneof![
        2 => (0..size.operations).prop_map(Death::Operation),
        1 => (0u8..4).prop_map(Death::HalfWritten),
    ];
    let death = prop::option::weighted(0.4, death);
    (acts, death).prop_map(|(acts, death)| Life { acts, death })
}

/// Generates programs of about this size.
pub fn programs(size: Size) -> impl Strategy<Value = Program> {
    let lives = prop::collection::vec(life(size), size.lives.0..=size.lives.1);
    let small = (size.spans.0..=size.spans.1).prop_map(|spans| 2 * spans);
    let large = prop_oneof![2 => Just(0u8), 1 => Just(2u8)];
    let seed = any::<u64>().no_shrink();
    (lives, small, large, 0u8..3, seed).prop_map(|(lives, small, large, shared, seed)| Program {
        lives,
        small,
        large,
        shared,
        seed,
    })
}
