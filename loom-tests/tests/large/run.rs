//! A program's execution: its lives, and the audit at the end.

use std::sync::Arc;

use ndarray::Ix1;
use ndshm::{
    AllocError, HandleTable, LeaseError, Partition, ReadGuard, Round, RoundError, Write,
    WriteGuard, model,
};
use shuttle::thread;

use crate::history::History;
use crate::program::{Act, Life, Program};
use crate::reference::{Answer, Question, TORN, Table};
use crate::world::{Known, Notes, TILE_WORDS, TILES, Vector, WORDS, World};

/// The participant who lives to the end.
const SURVIVOR: usize = 0;

/// What an execution has left behind.
pub struct Record {
    pub start: Table,
    pub history: History<Question, Answer>,
    pub notes: Notes,
}

/// Runs a program in the schedule at hand.
pub fn run(program: &Program) -> Record {
    let (world, survivor) = World::new(program);
    for value in 0..u64::from(program.shared) {
        if let Some(handle) = alloc(&world, SURVIVOR, &survivor, WORDS[0], value) {
            world.know(handle);
        }
    }
    let world = Arc::new(world);
    let lives: Vec<_> = program
        .lives
        .iter()
        .cloned()
        .enumerate()
        .map(|(at, life)| {
            let world = world.clone();
            thread::spawn(move || live(&world, at + 1, &life))
        })
        .collect();
    for life in lives {
        life.join().expect("its panic is the execution's");
    }
    audit(&world, &survivor);
    drop(survivor);
    let Some(world) = Arc::into_inner(world) else {
        unreachable!("all lives are over");
    };
    let (start, history, notes) = world.into_notes();
    Record {
        start,
        history,
        notes,
    }
}

fn live(world: &World, who: usize, life: &Life) {
    let steps = life.death.map_or(u64::MAX, u64::from);
    let stays = || {
        let mut acts = life.acts.iter();
        while acts.len() > 0 {
            let table = world.other(who, || HandleTable::join(&world.segment));
            let table = table.expect("there is a seat for each");
            stay(world, who, &table, &mut acts);
            world.ask(who, Question::Leave, || drop(table), |()| Answer::Done);
        }
    };
    if model::mortal_guest(&world.segment, steps, stays).is_none() {
        world.notes().kills += 1;
    }
}

/// A lease that is held.
enum Lease<'t> {
    Read(ReadGuard<'t, u64, Ix1>, Known, Vec<u64>),
    Write(WriteGuard<'t, u64, Ix1>, Known),
}

type Tiles<'t> = Partition<'t, Write<u64, Ix1>>;

/// From joining to leaving.
fn stay<'a>(
    world: &World,
    who: usize,
    table: &HandleTable,
    acts: &mut impl Iterator<Item = &'a Act>,
) {
    let tiles: Tiles<'_> = world
        .other(who, || table.open_partition(world.tiles))
        .expect("the survivor owns it");
    work(world, who, table, &tiles, acts);
    world.other(who, || drop(tiles));
}

fn work<'a>(
    world: &World,
    who: usize,
    table: &HandleTable,
    tiles: &Tiles<'_>,
    acts: &mut impl Iterator<Item = &'a Act>,
) {
    let mut stamp = (who as u64) << 32;
    let mut leases = Vec::new();
    let mut round = None;
    for &act in acts {
        stamp += 1;
        match act {
            Act::Alloc { large } => {
                let words = WORDS[usize::from(large && world.has_large)];
                if let Some(handle) = alloc(world, who, table, words, stamp) {
                    world.know(handle);
                }
            }
            Act::EndLease(which) => {
                if !leases.is_empty() {
                    let at = usize::from(which) % leases.len();
                    end_lease(world, who, leases.swap_remove(at));
                }
            }
            Act::Reap => {
                world.other(who, || table.reap()).unwrap();
            }
            Act::Leave => break,
            Act::Tiles(count) => run_tiles(world, who, tiles, count),
            Act::Round => match round.take() {
                None => round = begin(world, who, table, tiles),
                Some(running) => round = finish(world, who, table, running),
            },
            Act::Free(which)
            | Act::Attach(which)
            | Act::Read(which)
            | Act::Write(which)
            | Act::ClearPoison(which) => {
                if let Some(known) = world.choose(which) {
                    leases.extend(with_array(world, who, table, act, known, stamp));
                }
            }
        }
    }
    for lease in leases {
        end_lease(world, who, lease);
    }
    if let Some(running) = round {
        let left = finish(world, who, table, running);
        world.other(who, || drop(left));
    }
}

fn alloc(
    world: &World,
    who: usize,
    table: &HandleTable,
    words: usize,
    value: u64,
) -> Option<Vector> {
    let question = Question::Alloc {
        words: words as u64,
        value,
    };
    let answer = |made: &Result<Vector, AllocError>| match made {
        Ok(handle) => Answer::Fresh(world.name(*handle)),
        Err(AllocError::Full { .. }) => Answer::Full,
        Err(error) => panic!("{error}"),
    };
    let made = world.ask(who, question, || table.from_elem(words, value), answer);
    made.ok()
}

fn refusal(error: &LeaseError) -> Answer {
    match error {
        LeaseError::Stale { .. } => Answer::Stale,
        LeaseError::Busy { .. } => Answer::Busy,
        LeaseError::Poisoned { .. } => Answer::Poisoned,
        error => panic!("{error}"),
    }
}

/// What all words are, or [`TORN`].
fn common(words: &[u64]) -> u64 {
    match words.iter().all(|word| *word == words[0]) {
        true => words[0],
        false => TORN,
    }
}

/// A call about one array; the lease, if it gave one.
fn with_array<'t>(
    world: &World,
    who: usize,
    table: &'t HandleTable,
    act: Act,
    known: Known,
    stamp: u64,
) -> Option<Lease<'t>> {
    let Known { handle, name } = known;
    let refusal = |error: &LeaseError| {
        let answer = refusal(error);
        if answer == Answer::Stale {
            world.forget(name);
        }
        answer
    };
    let done = |result: &Result<(), LeaseError>| match result {
        Ok(()) => Answer::Done,
        Err(error) => refusal(error),
    };
    match act {
        Act::Free(_) => {
            let stale =
                |freed: &Result<_, _>| [Answer::Stale, Answer::Done][usize::from(freed.is_ok())];
            let _ = world.ask(who, Question::Free(name), || table.free(handle), stale);
            world.forget(name);
        }
        Act::Attach(_) => attach(world, who, table, known),
        Act::ClearPoison(_) => {
            let clear = || table.clear_poison(handle);
            let _ = world.ask(who, Question::ClearPoison(name), clear, done);
        }
        Act::Read(_) => {
            let answer = |read: &Result<ReadGuard<'_, _, _>, _>| match read {
                Ok(array) => Answer::Given(common(&array.to_vec())),
                Err(error) => refusal(error),
            };
            let read = world.ask(who, Question::Read(name), || table.read(handle), answer);
            return read.ok().map(|array| {
                let seen = array.to_vec();
                Lease::Read(array, known, seen)
            });
        }
        Act::Write(_) => {
            let answer = |write: &Result<WriteGuard<'_, _, _>, _>| match write {
                Ok(array) => Answer::Given(common(&array.to_vec())),
                Err(error) => refusal(error),
            };
            let question = Question::Write(name, stamp);
            let write = world.ask(who, question, || table.write(handle), answer);
            return write.ok().map(|mut array| {
                array[0] = stamp;
                // Any operation on a shared word is a place to die between two words.
                world.other(who, || table.segment().is_persistent());
                array.fill(stamp);
                Lease::Write(array, known)
            });
        }
        _ => unreachable!("not about one array"),
    }
    None
}

fn attach(world: &World, who: usize, table: &HandleTable, known: Known) {
    let look = || table.attach(known.handle).map(|array| array.shape()[0]);
    let answer = |seen: &Result<usize, LeaseError>| match seen {
        Ok(len) => {
            assert!(WORDS.contains(len), "a shape that nobody asked for");
            Answer::Done
        }
        Err(error) => refusal(error),
    };
    let _ = world.ask(who, Question::Attach(known.name), look, answer);
}

fn end_lease(world: &World, who: usize, lease: Lease<'_>) {
    match lease {
        Lease::Read(array, known, seen) => {
            assert_eq!(array.to_vec(), seen, "changed under a read lease");
            world.ask(
                who,
                Question::EndRead(known.name),
                || drop(array),
                |()| Answer::Done,
            );
        }
        Lease::Write(array, known) => {
            assert_ne!(common(&array.to_vec()), TORN, "changed under a write lease");
            world.ask(
                who,
                Question::EndWrite(known.name),
                || drop(array),
                |()| Answer::Done,
            );
        }
    }
}

// ---- rounds ---------------------------------------------------------------------------------

/// Opens a round; heals the array if somebody died in an earlier one.
fn begin<'p, 't>(
    world: &World,
    who: usize,
    table: &HandleTable,
    tiles: &'p Tiles<'t>,
) -> Option<Round<'p, 't, Write<u64, Ix1>>> {
    match world.other(who, || tiles.begin()) {
        Ok(round) => {
            let begun = &mut world.notes().rounds.begun;
            assert!(
                round.number() > *begun,
                "the number of a round is used again"
            );
            *begun = round.number();
            Some(round)
        }
        Err(RoundError::Lease(LeaseError::Poisoned { .. })) => {
            // Or somebody else has begun meanwhile.
            let _ = world.other(who, || table.clear_poison(world.tiled));
            None
        }
        Err(RoundError::Running { .. } | RoundError::Lease(LeaseError::Busy { .. })) => None,
        Err(error) => panic!("{error}"),
    }
}

fn run_tiles(world: &World, who: usize, tiles: &Tiles<'_>, count: u8) {
    let part = match world.other(who, || tiles.enter()) {
        Ok(Some(part)) => part,
        Ok(None) | Err(RoundError::Lease(LeaseError::Busy { .. })) => return,
        Err(error) => panic!("{error}"),
    };
    let mut part = part;
    for _ in 0..count {
        let Some(mut tile) = world.other(who, || part.claim()).expect("the array lives") else {
            break;
        };
        let place = (tile.round(), tile.index());
        assert!(
            world.notes().rounds.claimed.insert(place),
            "tile {} is claimed twice in round {}",
            place.1,
            place.0
        );
        let mut words = tile.views();
        words[0] = place.0;
        world.other(who, || world.segment.is_persistent());
        words[1] = place.0;
        world.notes().rounds.written.insert(place);
        world.other(who, || drop(tile));
    }
    world.other(who, || drop(part));
}

/// Ends a round if all of its tiles are done or torn; gives it back if not.
fn finish<'p, 't>(
    world: &World,
    who: usize,
    table: &HandleTable,
    round: Round<'p, 't, Write<u64, Ix1>>,
) -> Option<Round<'p, 't, Write<u64, Ix1>>> {
    let number = round.number();
    let torn = match world.other(who, || round.try_finish()) {
        Err(running) => return Some(running),
        Ok(Ok(())) => Vec::new(),
        Ok(Err(RoundError::Torn { tiles, .. })) => tiles,
        Ok(Err(error)) => panic!("{error}"),
    };
    {
        let rounds = &mut world.notes().rounds;
        rounds.finished += 1;
        for tile in (0..TILES).filter(|tile| !torn.contains(tile)) {
            let written = rounds.written.contains(&(number, tile));
            assert!(written, "round {number} is over without tile {tile}");
        }
    }
    let seen = world.other(who, || table.read(world.tiled).map(|array| array.to_vec()));
    match seen {
        Ok(seen) if world.notes().rounds.begun == number && torn.is_empty() => {
            assert_eq!(
                seen,
                [number; TILES * TILE_WORDS],
                "round {number} was not whole"
            );
        }
        Ok(_) => {}
        Err(error) => {
            refusal(&error);
        }
    }
    None
}

// ---- the end --------------------------------------------------------------------------------

/// All is taken back that the others held: what lives, lives for everybody, and the slots are all
/// there. The answers go into the history.
fn audit(world: &World, table: &HandleTable) {
    let me = SURVIVOR;
    world
        .ask(me, Question::LastReap, || table.reap(), |_| Answer::Done)
        .unwrap();
    for known in world.all_known() {
        attach(world, me, table, known);
    }
    for known in world.all_fresh() {
        for act in [Act::ClearPoison(0), Act::Write(0), Act::Read(0)] {
            let lease = with_array(world, me, table, act, known, u64::from(u32::MAX));
            if let Some(lease) = lease {
                end_lease(world, me, lease);
            }
        }
        with_array(world, me, table, Act::Free(0), known, 0);
    }
    let words = [WORDS[1], WORDS[0]];
    for words in words.into_iter().skip(usize::from(!world.has_large)) {
        while let Some(handle) = alloc(world, me, table, words, 0) {
            world.know(handle);
        }
    }
    last_round(world, table);
}

/// Whatever became of the rounds before, one more is possible.
fn last_round(world: &World, table: &HandleTable) {
    let me = SURVIVOR;
    let _ = table.clear_poison(world.tiled);
    let tiles = table.open_partition(world.tiles).unwrap();
    let round = begin(world, me, table, &tiles).expect("nobody is in a round");
    run_tiles(world, me, &tiles, TILES as u8);
    assert!(
        finish(world, me, table, round).is_none(),
        "all tiles are done"
    );
}
