//! Histories with a known verdict, because a checker that accepts or refuses everything would go
//! unnoticed.

use crate::history::{Call, History, explain};
use crate::reference::Answer::{Busy, Done, Fresh, Full, Given, Poisoned, Stale};
use crate::reference::Question::{
    Alloc, Attach, ClearPoison, EndRead, EndWrite, Free, LastReap, Leave, Other, Read, Write,
};
use crate::reference::{Answer, Name, Question, Table};

const X: Name = Name {
    slot: 0,
    generation: 1,
};
const Y: Name = Name {
    slot: 0,
    generation: 2,
};
const ALLOC: Question = Alloc { words: 2, value: 7 };

/// A call: the participant, the moments of question and answer, the question, and the answer. The
/// answer is `None` if the participant died in the call.
type Line = (usize, u32, u32, Question, Option<Answer>);

fn call(who: usize, asked: u32, answered: u32, what: Question, answer: Answer) -> Line {
    (who, asked, answered, what, Some(answer))
}

fn death(who: usize, asked: u32, what: Question) -> Line {
    (who, asked, 0, what, None)
}

fn is_explained(lines: &[Line]) -> bool {
    let mut history: History<Question, Answer> = vec![Vec::new(); 4];
    for &(who, asked, answered, what, answer) in lines {
        let answered = answer.map(|answer| (answered, answer));
        history[who].push(Call {
            asked,
            what,
            answered,
        });
    }
    // One slot.
    explain(Table::new([(8, None)]), &history).is_ok()
}

/// Asserts the known verdicts.
///
/// # Panics
/// If a verdict differs.
pub fn check() {
    let made = call(1, 1, 2, ALLOC, Fresh(X));
    let accepted: [&[Line]; 11] = [
        &[made, call(2, 3, 4, ALLOC, Full)],
        &[
            made,
            call(1, 3, 4, Free(X), Done),
            call(2, 5, 6, ALLOC, Fresh(Y)),
        ],
        // Of two concurrent calls either may be first.
        &[
            made,
            call(1, 3, 6, Free(X), Done),
            call(2, 4, 5, Attach(X), Done),
        ],
        &[
            made,
            call(1, 3, 6, Free(X), Done),
            call(2, 4, 5, Attach(X), Stale),
        ],
        // The handle becomes stale before the memory is free.
        &[
            made,
            call(1, 3, 8, Free(X), Done),
            call(2, 4, 5, Attach(X), Stale),
            call(2, 6, 7, ALLOC, Full),
        ],
        // Both calls are concurrent, and both are refused.
        &[
            made,
            call(1, 3, 6, Read(X), Busy),
            call(2, 4, 5, Write(X, 8), Busy),
        ],
        &[
            made,
            call(2, 3, 4, Write(X, 8), Given(7)),
            call(2, 5, 6, EndWrite(X), Done),
            call(1, 7, 8, Read(X), Given(8)),
        ],
        // Death in a call, with or without an effect.
        &[made, death(2, 3, Free(X)), call(1, 4, 5, Attach(X), Done)],
        &[made, death(2, 3, Free(X)), call(1, 4, 5, Attach(X), Stale)],
        &[
            death(1, 1, ALLOC),
            call(2, 2, 3, ALLOC, Full),
            call(0, 4, 5, LastReap, Done),
            call(2, 6, 7, ALLOC, Fresh(Y)),
        ],
        &[
            made,
            call(2, 3, 4, Write(X, 8), Given(7)),
            death(2, 5, Other),
            call(1, 6, 7, Read(X), Poisoned),
            call(1, 8, 9, ClearPoison(X), Done),
        ],
    ];
    for lines in accepted {
        assert!(is_explained(lines), "refused: {lines:?}");
    }
    let refused: [&[Line]; 15] = [
        // `Full` although a slot is free; a slot given out twice; a handle reused; an array that is
        // live after its free.
        &[call(1, 1, 2, ALLOC, Full)],
        &[made, call(2, 3, 4, ALLOC, Fresh(Y))],
        &[
            made,
            call(1, 3, 4, Free(X), Done),
            call(2, 5, 6, ALLOC, Fresh(X)),
        ],
        &[
            made,
            call(1, 3, 4, Free(X), Done),
            call(2, 5, 6, Attach(X), Done),
        ],
        &[
            made,
            call(1, 3, 4, Free(X), Done),
            call(2, 5, 6, Free(X), Done),
        ],
        &[
            made,
            call(1, 3, 4, Free(X), Done),
            call(2, 5, 6, ALLOC, Full),
        ],
        // Leases that overlap, `Busy` without a holder, and reads of an old value.
        &[
            made,
            call(1, 3, 4, Read(X), Given(7)),
            call(2, 5, 6, Write(X, 8), Given(7)),
        ],
        &[
            made,
            call(1, 3, 4, Write(X, 8), Given(7)),
            call(2, 5, 6, Write(X, 9), Given(8)),
        ],
        &[made, call(2, 3, 4, Read(X), Busy)],
        &[made, call(2, 3, 4, Read(X), Given(8))],
        &[
            made,
            call(1, 3, 4, Read(X), Given(7)),
            call(2, 5, 6, Read(X), Busy),
        ],
        // Memory that is given out under a reader.
        &[
            made,
            call(2, 3, 4, Read(X), Given(7)),
            call(1, 5, 6, Free(X), Done),
            call(1, 7, 8, ALLOC, Fresh(Y)),
            call(2, 9, 10, EndRead(X), Done),
        ],
        // Arrays and values that the dead and the departed leave behind.
        &[
            made,
            call(1, 3, 4, Leave, Done),
            call(2, 5, 6, Attach(X), Done),
        ],
        &[
            made,
            death(1, 3, Other),
            call(0, 4, 5, LastReap, Done),
            call(2, 6, 7, Attach(X), Done),
        ],
        &[
            made,
            call(2, 3, 4, Write(X, 8), Given(7)),
            death(2, 5, Other),
            call(0, 6, 7, Other, Done),
            call(1, 8, 9, Read(X), Given(8)),
        ],
    ];
    for lines in refused {
        assert!(!is_explained(lines), "accepted: {lines:?}");
    }
}
