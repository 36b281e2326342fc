//! Random programs: operations, the participants that perform them, and their arrays.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::sample::KINDS;

/// Participants of a program.
pub const TABLES: usize = 3;

/// The way in which an array is created.
#[derive(Clone, Copy, Debug)]
pub enum Make {
    Zeros,
    Elem,
    ShapeFn,
    Array,
    /// From a view with gaps, in reverse.
    SlicedView,
    Uninit,
    /// By a guard that frees it at once.
    Owned,
}

/// The shape of a new array.
#[derive(Clone, Debug)]
pub struct Form {
    pub shape: Vec<usize>,
    pub fortran: bool,
    /// If `true`, its dimension is dynamic, although ndarray has a type for this number of axes.
    pub dynamic: bool,
}

/// A round on one array, with steps that are performed while it runs.
#[derive(Clone, Debug)]
pub struct RoundPlan {
    pub opener: usize,
    pub array: Index,
    /// An array of the same type that each tile sees as a whole.
    pub partner: Option<Index>,
    pub axis: usize,
    pub tile_len: usize,
    /// The participants.
    pub players: Vec<usize>,
    pub during: Vec<Step>,
    /// If `true`, the first player tears its tile.
    pub torn: bool,
    /// If `true`, the round is dropped instead of finished.
    pub given_up: bool,
    pub seed: u64,
}

/// One step. A `usize` selects a table; an `Index` selects one of all arrays so far, or a lease.
#[derive(Clone, Debug)]
pub enum Step {
    Make(usize, Make, usize, Form, u64),
    Read(usize, Index),
    Write(usize, Index),
    /// Fills the array of a write lease.
    Fill(Index, u64),
    /// Compares the elements that a lease shows.
    Look(Index),
    Release(Index),
    Free(usize, Index),
    Detach(usize, Index),
    Adopt(usize, Index),
    /// Panics while writing.
    Panic(usize, Index, u64),
    ClearPoison(usize, Index),
    Round(Box<RoundPlan>),
    /// Joins, makes two arrays, detaches one, adopts an array of the others, and leaves.
    Visit(Index, u64),
    WrongType(usize, Index),
    List(usize),
    Reap(usize),
    Trim(usize),
}

fn form() -> impl Strategy<Value = Form> {
    let shape = prop_oneof![
        6 => prop::collection::vec(0usize..5, 0..4),
        2 => prop::collection::vec(1usize..4, 4..=8),
        1 => (1usize..6000).prop_map(|len| vec![len]),
        1 => (1usize..300, 1usize..40).prop_map(|(rows, columns)| vec![rows, columns]),
    ];
    (shape, any::<bool>(), any::<bool>()).prop_map(|(shape, fortran, dynamic)| Form {
        shape,
        fortran,
        dynamic,
    })
}

fn make() -> impl Strategy<Value = Make> {
    prop::sample::select(vec![
        Make::Zeros,
        Make::Elem,
        Make::ShapeFn,
        Make::Array,
        Make::SlicedView,
        Make::Uninit,
        Make::Owned,
    ])
}

fn simple_step() -> impl Strategy<Value = Step> {
    let table = || 0..TABLES;
    let index = any::<Index>;
    prop_oneof![
        6 => (table(), make(), 0..KINDS, form(), any::<u64>())
            .prop_map(|(table, how, kind, form, seed)| Step::Make(table, how, kind, form, seed)),
        5 => (table(), index()).prop_map(|(table, array)| Step::Read(table, array)),
        5 => (table(), index()).prop_map(|(table, array)| Step::Write(table, array)),
        4 => (index(), any::<u64>()).prop_map(|(lease, seed)| Step::Fill(lease, seed)),
        2 => index().prop_map(Step::Look),
        8 => index().prop_map(Step::Release),
        4 => (table(), index()).prop_map(|(table, array)| Step::Free(table, array)),
        1 => (table(), index()).prop_map(|(table, array)| Step::Detach(table, array)),
        1 => (table(), index()).prop_map(|(table, array)| Step::Adopt(table, array)),
        1 => (table(), index(), any::<u64>())
            .prop_map(|(table, array, seed)| Step::Panic(table, array, seed)),
        2 => (table(), index()).prop_map(|(table, array)| Step::ClearPoison(table, array)),
        1 => (index(), any::<u64>()).prop_map(|(array, seed)| Step::Visit(array, seed)),
        1 => (table(), index()).prop_map(|(table, array)| Step::WrongType(table, array)),
        2 => table().prop_map(Step::List),
        1 => table().prop_map(Step::Reap),
        1 => table().prop_map(Step::Trim),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // A round may contain a round on other arrays.
    simple_step().prop_recursive(2, 16, 6, |inner| {
        let players = prop::collection::vec(0..TABLES, 0..5);
        let round = (
            (0..TABLES, any::<Index>(), any::<Option<Index>>()),
            (0usize..3, 1usize..6, players),
            prop::collection::vec(inner.clone(), 0..6),
            (
                prop::bool::weighted(0.2),
                prop::bool::weighted(0.2),
                any::<u64>(),
            ),
        );
        let round = round.prop_map(|(arrays, tiles, during, end)| {
            Step::Round(Box::new(RoundPlan {
                opener: arrays.0,
                array: arrays.1,
                partner: arrays.2,
                axis: tiles.0,
                tile_len: tiles.1,
                players: tiles.2,
                during,
                torn: end.0,
                given_up: end.1,
                seed: end.2,
            }))
        });
        prop_oneof![6 => inner, 1 => round]
    })
}

/// Returns programs, most of which begin by creating arrays.
pub fn programs() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..80)
}
