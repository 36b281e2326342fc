//! Histories of calls, and the search for a sequential order that explains a history.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A moment of an execution. All events are totally ordered.
pub type Moment = u32;

/// A call of a participant. A call in which the participant died has no answer.
#[derive(Clone, Debug)]
pub struct Call<Q, A> {
    pub asked: Moment,
    pub what: Q,
    pub answered: Option<(Moment, A)>,
}

/// The calls of each participant, in order. Only the last call of a participant may lack an answer.
pub type History<Q, A> = Vec<Vec<Call<Q, A>>>;

/// A step of a call.
pub enum Step<S> {
    /// A step that others can notice, with more steps to come.
    Part(S),
    /// The last step of the call.
    Whole(S),
}

/// The sequential object that a history is compared with: its state determines the possible steps
/// of a call.
pub trait Reference: Clone + Eq + Hash + Debug {
    type Question: Debug;
    type Answer: Debug;

    /// Returns the possible steps of a call by participant `who` that gets this answer, or never an
    /// answer.
    fn steps(
        &self,
        who: usize,
        question: &Self::Question,
        answer: Option<&Self::Answer>,
    ) -> Vec<Step<Self>>;

    /// Performs one step of reaping a dead participant. Returns `None` if nothing is left to reap.
    fn bury(&self, who: usize) -> Option<Self>;
}

/// The number of states after which the search gives up.
const MOST_STATES: usize = 2_000_000;

/// The progress of an explanation: the number of placed calls of each participant.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Front<S> {
    placed: Vec<u16>,
    state: S,
}

/// Searches an order of the calls in which each takes effect between question and answer, as the
/// reference allows. Calls of the dead may take effect in part, wholly, or not at all.
///
/// Searches depth first, tries the call that was answered first before the others, and visits each
/// front once (the method of Wing and Gong with Lowe's memory). Returns the number of visited
/// fronts.
///
/// # Errors
/// If no order explains the history, with the furthest front and the calls that it could not place;
/// or if the search gives up.
pub fn explain<S: Reference>(
    start: S,
    history: &History<S::Question, S::Answer>,
) -> Result<usize, String> {
    let first = Front {
        placed: vec![0; history.len()],
        state: start,
    };
    let mut furthest = first.clone();
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(front) = open.pop() {
        if is_explained(&front, history) {
            return Ok(seen.len());
        }
        if placed(&front) > placed(&furthest) {
            furthest = front.clone();
        }
        if seen.len() > MOST_STATES {
            return Err(format!("undecided after {MOST_STATES} states"));
        }
        for next in followers(&front, history) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Err(stuck(&furthest, history))
}

fn placed<S>(front: &Front<S>) -> usize {
    front.placed.iter().map(|&placed| usize::from(placed)).sum()
}

fn next_call<'h, S, Q, A>(
    front: &Front<S>,
    history: &'h History<Q, A>,
    who: usize,
) -> Option<&'h Call<Q, A>> {
    history[who].get(usize::from(front.placed[who]))
}

fn is_explained<S, Q, A>(front: &Front<S>, history: &History<Q, A>) -> bool {
    (0..history.len())
        .all(|who| next_call(front, history, who).is_none_or(|call| call.answered.is_none()))
}

/// Returns the fronts that one more step leads to, the most promising last.
fn followers<S: Reference>(
    front: &Front<S>,
    history: &History<S::Question, S::Answer>,
) -> Vec<Front<S>> {
    let answered = |call: &Call<_, _>| call.answered.as_ref().map_or(Moment::MAX, |(at, _)| *at);
    let mut calls: Vec<_> = (0..history.len())
        .filter_map(|who| next_call(front, history, who).map(|call| (who, call)))
        .collect();
    calls.sort_by_key(|(_, call)| std::cmp::Reverse(answered(call)));
    // No call is placed after the answer of a call that is not placed yet.
    let limit = calls.last().map_or(Moment::MAX, |(_, call)| answered(call));
    let with = |who: usize, state, whole: bool| {
        let mut next = Front {
            placed: front.placed.clone(),
            state,
        };
        next.placed[who] += u16::from(whole);
        next
    };
    let mut next = Vec::new();
    for (who, calls) in history.iter().enumerate() {
        let is_dead = || calls.last().is_some_and(|call| call.answered.is_none());
        let in_last = usize::from(front.placed[who]) + 1 >= calls.len();
        if in_last
            && is_dead()
            && let Some(state) = front.state.bury(who)
        {
            next.push(with(who, state, false));
        }
    }
    for (who, call) in calls {
        if call.asked > limit {
            continue;
        }
        let answer = call.answered.as_ref().map(|(_, answer)| answer);
        let (mut parts, mut wholes) = (Vec::new(), Vec::new());
        for step in front.state.steps(who, &call.what, answer) {
            match step {
                Step::Part(state) => parts.push(with(who, state, false)),
                Step::Whole(state) => wholes.push(with(who, state, true)),
            }
        }
        next.append(&mut parts);
        next.append(&mut wholes);
    }
    next
}

fn stuck<S: Reference>(front: &Front<S>, history: &History<S::Question, S::Answer>) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "no order explains this history; the furthest places {} calls and reaches\n  {:?}\nNext:\n",
        placed(front),
        front.state
    );
    for (who, calls) in history.iter().enumerate() {
        let _ = match next_call(front, history, who) {
            Some(call) => writeln!(text, "  {who}: {call:?}"),
            None => Ok(()),
        };
        let from = usize::from(front.placed[who]).saturating_sub(3);
        for call in &calls[from..usize::from(front.placed[who])] {
            let _ = writeln!(text, "     {who} before: {call:?}");
        }
    }
    text
}
