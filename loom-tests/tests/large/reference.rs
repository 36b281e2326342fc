//! The sequential reference that histories are compared with: a table of arrays.
//!
//! A call that the documentation promises to take effect at once is one step. A lease takes two,
//! the request and the grant: in between it counts as a lease for the others, so
//! concurrent requests may all get `Busy`. Freeing and ending a lease take two as well: with the
//! first the handle is stale, or the lease over; with the second the memory is free. Leaving and
//! reaping go array by array.

use crate::history::{Reference, Step};

/// An array, as its handle names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Name {
    pub slot: usize,
    pub generation: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Creates an array of this many words, each of this value.
    Alloc {
        words: u64,
        value: u64,
    },
    Free(Name),
    /// A look without a lease.
    Attach(Name),
    Read(Name),
    /// A write lease, under which all words are set to this value.
    Write(Name, u64),
    EndRead(Name),
    EndWrite(Name),
    ClearPoison(Name),
    Leave,
    /// A call that changes nothing in the reference.
    Other,
    /// The last living participant reaps everything that all others held.
    LastReap,
}

impl Question {
    /// Returns the slot of the array that the question is about.
    fn slot(&self) -> Option<usize> {
        match self {
            Question::Free(name)
            | Question::Attach(name)
            | Question::Read(name)
            | Question::Write(name, _)
            | Question::EndRead(name)
            | Question::EndWrite(name)
            | Question::ClearPoison(name) => Some(name.slot),
            Question::Alloc { .. } | Question::Leave | Question::Other | Question::LastReap => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    Fresh(Name),
    /// The lease is granted, and all words have this value, or [`TORN`] if they differ.
    Given(u64),
    Full,
    Stale,
    Busy,
    Poisoned,
}

/// The value of words that a dead writer left half-written.
pub const TORN: u64 = u64::MAX;

type Who = u8;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Life {
    Free,
    Live,
    /// Given out in a call whose caller died: no participant has its handle.
    Unnamed,
    /// Freed, but leased.
    Retired,
}

/// The progress of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Asked,
    Refused,
    Given,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Reader {
    who: Who,
    given: u8,
    /// A further lease that is being requested.
    asking: Option<Stage>,
}

/// A slot of the table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Slot {
    words: u64,
    /// The generation of the last array in this slot, if any.
    generation: Option<u32>,
    life: Life,
    owner: Who,
    poisoned: bool,
    /// The value of all words; `None` after a writer died.
    value: Option<u64>,
    writer: Option<(Who, Stage)>,
    /// Sorted by `who`.
    readers: Vec<Reader>,
    /// Participants that freed the array, or ended a lease of it, and have not yet run the tail
    /// check. Sorted.
    owing: Vec<Who>,
}

impl Slot {
    fn is_live(&self, name: Name) -> bool {
        self.life == Life::Live && self.generation == Some(name.generation)
    }

    /// Returns `true` if a reader may have read `value` from all words.
    fn may_hold(&self, value: u64) -> bool {
        self.value.is_none_or(|known| known == value)
    }

    /// Returns the reason for refusing a lease, by the slot word alone.
    fn refusal(&self, name: Name) -> Option<Answer> {
        match self {
            _ if !self.is_live(name) => Some(Answer::Stale),
            Slot {
                writer: Some(_), ..
            } => Some(Answer::Busy),
            Slot { poisoned: true, .. } => Some(Answer::Poisoned),
            _ => None,
        }
    }

    fn reader(&self, who: Who) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.who == who)
    }

    fn change_reader(&mut self, who: Who, change: impl FnOnce(&mut Reader)) {
        let at = self.readers.partition_point(|reader| reader.who < who);
        if self.readers.get(at).is_none_or(|reader| reader.who != who) {
            let (given, asking) = (0, None);
            self.readers.insert(at, Reader { who, given, asking });
        }
        change(&mut self.readers[at]);
        if self.readers[at].given == 0 && self.readers[at].asking.is_none() {
            self.readers.remove(at);
        }
    }

    fn retire(&mut self) {
        self.life = Life::Retired;
    }

    fn owes(&self, who: Who) -> bool {
        self.owing.binary_search(&who).is_ok()
    }

    /// Records that `who` still has to run the release check.
    fn owe(&mut self, who: Who) {
        if let Err(at) = self.owing.binary_search(&who) {
            self.owing.insert(at, who);
        }
    }

    /// Runs the release check of `who`: a retired slot without a lease becomes free.
    fn settle(&mut self, who: Who) {
        self.owing.retain(|&other| other != who);
        if self.life == Life::Retired && self.writer.is_none() && self.readers.is_empty() {
            self.life = Life::Free;
            (self.owner, self.poisoned, self.value) = (0, false, None);
        }
    }

    fn is_held_by(&self, who: Who) -> bool {
        let owned = matches!(self.life, Life::Live | Life::Unnamed) && self.owner == who;
        owned || self.is_leased_by(who) || self.owes(who)
    }

    fn is_leased_by(&self, who: Who) -> bool {
        self.writer.is_some_and(|(writer, _)| writer == who) || self.reader(who).is_some()
    }
}

/// The table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    slots: Vec<Slot>,
}

impl Table {
    /// Creates a table of free slots. Each item is the number of words that fit into a slot, and
    /// its last generation. Slots with room for no words are always in use by others.
    pub fn new(slots: impl IntoIterator<Item = (u64, Option<u32>)>) -> Table {
        let slot = |(words, generation)| Slot {
            words,
            generation,
            life: Life::Free,
            owner: 0,
            poisoned: false,
            value: None,
            writer: None,
            readers: Vec::new(),
            owing: Vec::new(),
        };
        Table {
            slots: slots.into_iter().map(slot).collect(),
        }
    }

    fn with(&self, slot: usize, change: impl FnOnce(&mut Slot)) -> Table {
        let mut table = self.clone();
        change(&mut table.slots[slot]);
        table
    }

    fn alloc(&self, who: Who, words: u64, value: u64, answer: Option<&Answer>) -> Vec<Step<Table>> {
        let fits = |slot: &Slot| slot.words >= words;
        let take = |at: usize, life, generation| {
            Step::Whole(self.with(at, |slot| {
                (slot.life, slot.generation) = (life, generation);
                (slot.owner, slot.value) = (who, Some(value));
            }))
        };
        match answer {
            Some(Answer::Full) => {
                let full = self
                    .slots
                    .iter()
                    .all(|slot| !fits(slot) || slot.life != Life::Free);
                full.then(|| Step::Whole(self.clone()))
                    .into_iter()
                    .collect()
            }
            Some(Answer::Fresh(name)) => {
                let slot = &self.slots[name.slot];
                let fresh = slot.life == Life::Free && slot.generation < Some(name.generation);
                (fits(slot) && fresh)
                    .then(|| take(name.slot, Life::Live, Some(name.generation)))
                    .into_iter()
                    .collect()
            }
            Some(_) => Vec::new(),
            None => (0..self.slots.len())
                .filter(|&at| fits(&self.slots[at]) && self.slots[at].life == Life::Free)
                .map(|at| take(at, Life::Unnamed, self.slots[at].generation))
                .collect(),
        }
    }

    fn read(&self, who: Who, name: Name, answer: Option<&Answer>) -> Vec<Step<Table>> {
        let slot = &self.slots[name.slot];
        let asking = slot.reader(who).and_then(|reader| reader.asking);
        let stage = |stage| {
            Step::Part(self.with(name.slot, |slot| {
                slot.change_reader(who, |reader| reader.asking = Some(stage));
            }))
        };
        let refusal = slot.refusal(name);
        match asking {
            None => {
                let mut steps = Vec::new();
                match refusal {
                    None => steps.push(stage(Stage::Asked)),
                    refusal if refusal.as_ref() == answer => steps.push(Step::Whole(self.clone())),
                    Some(_) => {}
                }
                steps
            }
            Some(Stage::Asked) => match (refusal, answer) {
                (None, Some(Answer::Given(value))) if slot.may_hold(*value) => self.give(who, name),
                (None, None) => self.give(who, name),
                (Some(refusal), _) if answer.is_none_or(|&answer| answer == refusal) => {
                    vec![stage(Stage::Refused)]
                }
                _ => Vec::new(),
            },
            Some(_) => self.give_back(who, name, |slot| {
                slot.change_reader(who, |reader| reader.asking = None);
            }),
        }
    }

    /// Gives something back, after which the caller still has to run the release check.
    fn give_back(&self, who: Who, name: Name, change: impl FnOnce(&mut Slot)) -> Vec<Step<Table>> {
        vec![Step::Part(self.with(name.slot, |slot| {
            change(slot);
            slot.owe(who);
        }))]
    }

    fn give(&self, who: Who, name: Name) -> Vec<Step<Table>> {
        vec![Step::Whole(self.with(name.slot, |slot| {
            slot.change_reader(who, |reader| {
                (reader.asking, reader.given) = (None, reader.given + 1);
            });
        }))]
    }

    fn write(&self, who: Who, name: Name, value: u64, answer: Option<&Answer>) -> Vec<Step<Table>> {
        let slot = &self.slots[name.slot];
        let stage = |stage| self.with(name.slot, |slot| slot.writer = Some((who, stage)));
        match slot.writer.filter(|(writer, _)| *writer == who) {
            // The participant has a lease already, so this is a further request.
            Some((_, Stage::Given)) | None => match slot.refusal(name) {
                None => vec![Step::Part(stage(Stage::Asked))],
                refusal if refusal.as_ref() == answer => vec![Step::Whole(self.clone())],
                Some(_) => Vec::new(),
            },
            Some((_, Stage::Asked)) => match (slot.readers.is_empty(), answer) {
                (true, Some(Answer::Given(old))) if !slot.may_hold(*old) => Vec::new(),
                (true, Some(Answer::Given(_)) | None) => {
                    let mut table = stage(Stage::Given);
                    table.slots[name.slot].value = Some(value);
                    vec![Step::Whole(table)]
                }
                (false, Some(Answer::Busy) | None) => vec![Step::Part(stage(Stage::Refused))],
                _ => Vec::new(),
            },
            Some((_, Stage::Refused)) => self.give_back(who, name, |slot| slot.writer = None),
        }
    }

    /// Performs one step of taking back everything that `who` holds: first the writer, then the
    /// array, then the reader.
    fn take_back(&self, who: Who, dead: bool) -> Option<Table> {
        let at = self.slots.iter().position(|slot| slot.is_held_by(who))?;
        Some(self.with(at, |slot| {
            if slot.writer.is_some_and(|(writer, _)| writer == who) {
                slot.writer = None;
                if dead {
                    (slot.poisoned, slot.value) = (true, None);
                }
            } else if matches!(slot.life, Life::Live | Life::Unnamed) && slot.owner == who {
                slot.retire();
            } else if slot.reader(who).is_some() {
                slot.change_reader(who, |reader| (reader.given, reader.asking) = (0, None));
            } else {
                return slot.settle(who);
            }
            slot.owe(who);
        }))
    }
}

impl Reference for Table {
    type Question = Question;
    type Answer = Answer;

    fn steps(&self, who: usize, question: &Question, answer: Option<&Answer>) -> Vec<Step<Table>> {
        let me = who as Who;
        let is = |expected| answer.is_none_or(|&answer| answer == expected);
        let whole = |allowed: bool, table: &dyn Fn() -> Table| match allowed {
            true => vec![Step::Whole(table())],
            false => Vec::new(),
        };
        let unchanged = || self.clone();
        if let Some(slot) = question.slot()
            && self.slots[slot].owes(me)
        {
            return vec![Step::Whole(self.with(slot, |slot| slot.settle(me)))];
        }
        match *question {
            Question::Alloc { words, value } => self.alloc(me, words, value, answer),
            Question::Read(name) => self.read(me, name, answer),
            Question::Write(name, value) => self.write(me, name, value, answer),
            Question::Free(name) => match self.slots[name.slot].is_live(name) {
                true if is(Answer::Done) => self.give_back(me, name, Slot::retire),
                true => Vec::new(),
                false => whole(is(Answer::Stale), &unchanged),
            },
            Question::Attach(name) => {
                let live = self.slots[name.slot].is_live(name);
                let expected = [Answer::Stale, Answer::Done][usize::from(live)];
                whole(is(expected), &unchanged)
            }
            Question::ClearPoison(name) => match self.slots[name.slot].refusal(name) {
                Some(Answer::Poisoned) | None => whole(is(Answer::Done), &|| {
                    self.with(name.slot, |slot| slot.poisoned = false)
                }),
                Some(refusal) => whole(is(refusal), &unchanged),
            },
            Question::EndRead(name) => self.give_back(me, name, |slot| {
                slot.change_reader(me, |reader| reader.given -= 1);
            }),
            Question::EndWrite(name) => self.give_back(me, name, |slot| slot.writer = None),
            Question::Leave => match self.take_back(me, false) {
                Some(table) => vec![Step::Part(table)],
                None => whole(true, &unchanged),
            },
            Question::Other => whole(true, &unchanged),
            Question::LastReap => {
                let others = |slot: &Slot| {
                    let owner = matches!(slot.life, Life::Live | Life::Unnamed) && slot.owner != me;
                    owner
                        || slot.writer.is_some_and(|(writer, _)| writer != me)
                        || slot.readers.iter().any(|reader| reader.who != me)
                        || !slot.owing.is_empty()
                };
                whole(!self.slots.iter().any(others), &unchanged)
            }
        }
    }

    fn bury(&self, who: usize) -> Option<Table> {
        self.take_back(who as Who, true)
    }
}
