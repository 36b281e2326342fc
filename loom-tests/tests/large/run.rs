//! The execution of a program: its lives, all at once, between its beginning and its end.

use std::sync::Arc;

use ndshm::model;
use shuttle::thread;

use crate::history::History;
use crate::participant::Participant;
use crate::program::{Death, Life, Program};
use crate::reference::{Answer, Question, Table};
use crate::world::{Notes, World};

/// The participant that lives to the end.
const SURVIVOR: usize = 0;

/// The history and the notes of an execution.
pub struct Record {
    pub start: Table,
    pub history: History<Question, Answer>,
    pub notes: Notes,
}

/// Runs a program in the current schedule.
pub fn run(program: &Program) -> Record {
    let (world, table) = World::new(program);
    let world = Arc::new(world);
    let survivor = Participant::new(&world, SURVIVOR, None);
    survivor.share(&table, program.shared);
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
        life.join().expect("a panic fails the execution");
    }
    survivor.audit(&table);
    drop(table);
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
    let steps = match life.death {
        Some(Death::Operation(steps)) => u64::from(steps),
        _ => u64::MAX,
    };
    let participant = Participant::new(world, who, life.death);
    if model::mortal_guest(&world.segment, steps, || participant.live(life)).is_none() {
        world.notes().kills += 1;
    }
}
