//! The words of a queue: its cells, its two ends, and the steps on them.
//!
//! They lie in an array of the same table whose dtype no element type matches. `README.md` beside
//! this file states the steps and argues why they suffice.

use crate::segment::Memory;
use crate::span::Extent;
use crate::sync::{Atom, Ordering, Word};
use crate::word::{CellState, CellWord, EndWord, SeatId};

/// Cells that a queue may have.
pub(crate) const MAX_CAPACITY: usize = 1 << 24;

const CAPACITY: usize = 0;
const TYPE_NAME: usize = 1;
const SIZE: usize = 2;
const ALIGN: usize = 3;
/// On a line of its own: every producer changes it.
const TAIL: usize = 16;
/// On a line of its own: every consumer changes it.
const HEAD: usize = 32;
const HEAD_WORDS: usize = 48;
const FIRST_CELL: u64 = HEAD_WORDS as u64 * 8;

/// Bytes that cells may take together if each starts on a cache line. A queue with more has cells
/// without gaps: its neighbours in the order are seldom in use at the same moment.
const SPREAD: u64 = 1 << 20;
const LINE: u64 = 64;

/// What a queue's jobs are, as every process of the segment must see them alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JobType {
    /// A hash of the type's name.
    pub(crate) name: u64,
    pub(crate) size: u64,
    pub(crate) align: u64,
}

/// Where the cells are, for a number of cells (a power of two) and a type of jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    /// log2 of the number of cells.
    shift: u32,
    stride: u64,
    /// From a cell's word to its job.
    job: u64,
}

impl Shape {
    /// `None` for what no queue has.
    fn new(capacity: u64, job: JobType) -> Option<Shape> {
        let known = capacity.is_power_of_two()
            && capacity <= MAX_CAPACITY as u64
            && job.align.is_power_of_two()
            && job.align <= LINE;
        if !known {
            return None;
        }
        let to_job = job.align.max(8);
        let dense = to_job
            .checked_add(job.size)?
            .checked_next_multiple_of(to_job)?;
        let spread = dense.checked_next_multiple_of(LINE)?;
        let fits = spread
            .checked_mul(capacity)
            .is_some_and(|all| all <= SPREAD);
        Some(Shape {
            shift: capacity.ilog2(),
            stride: if fits { spread } else { dense },
            job: to_job,
        })
    }

    fn bytes(&self) -> Option<u64> {
        self.stride
            .checked_mul(1 << self.shift)?
            .checked_add(FIRST_CELL)
    }
}

/// The words of one queue. The holder of one has a lease on their slot, or its reservation.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'m> {
    memory: &'m Memory,
    head: &'m [Atom],
    offset: u64,
    shape: Shape,
}

/// A cell that is the holder's alone: to write a job into, or to read one from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Ticket {
    position: u64,
    word: CellWord,
    /// A taken job's: the head may go on to there.
    front: u64,
}

/// Why there is no cell to push to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoCell {
    Full,
    Closed,
    UsedUp { position: u64 },
}

/// What a dead participant left in the cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Recovered {
    /// Jobs that it was taking out: they are there again.
    pub(crate) jobs: usize,
}

/// What one pass over the cells from `head` up to `tail` has seen.
struct Look {
    /// The job with the lowest position, its cell's word at that moment.
    oldest: Option<(u64, CellWord)>,
    /// Below this position no cell can be FULL any more.
    front: u64,
    /// Of the words that were seen. They only grow, so that two equal sums are of the same words.
    sum: u128,
}

impl<'m> Cells<'m> {
    /// Bytes of a queue; `None` for one that cannot be.
    pub(crate) fn bytes(capacity: usize, job: JobType) -> Option<u64> {
        Shape::new(capacity as u64, job)?.bytes()
    }

    /// Writes the words of a new queue; the slot is RESERVED by the caller.
    pub(crate) fn create(
        memory: &'m Memory,
        extent: Extent,
        capacity: usize,
        job: JobType,
    ) -> Option<()> {
        let head = memory.control(extent.offset, HEAD_WORDS)?;
        // Relaxed, here and below: published with the slot.
        for word in head {
            word.store(0, Ordering::Relaxed);
        }
        for (at, value) in [
            (CAPACITY, capacity as u64),
            (TYPE_NAME, job.name),
            (SIZE, job.size),
            (ALIGN, job.align),
        ] {
            head[at].store(value, Ordering::Relaxed);
        }
        let (cells, _) = Self::open(memory, extent)?;
        for index in 0..cells.capacity() {
            // EMPTY of lap 0.
            cells.cell(index).store(0, Ordering::Relaxed);
        }
        Some(())
    }

    /// The queue in `extent`; `None` if its words do not fit together or into the extent.
    pub(crate) fn open(memory: &'m Memory, extent: Extent) -> Option<(Cells<'m>, JobType)> {
        let head = memory.control(extent.offset, HEAD_WORDS)?;
        let get = |at: usize| head[at].load(Ordering::Relaxed);
        let job = JobType {
            name: get(TYPE_NAME),
            size: get(SIZE),
            align: get(ALIGN),
        };
        let shape = Shape::new(get(CAPACITY), job)?;
        let bytes = shape.bytes().filter(|&bytes| bytes <= extent.size())?;
        memory.data(extent.offset, bytes)?;
        let cells = Cells {
            memory,
            head,
            offset: extent.offset + FIRST_CELL,
            shape,
        };
        Some((cells, job))
    }

    pub(crate) fn capacity(&self) -> u64 {
        1 << self.shape.shift
    }

    /// Where the job of a ticket lies in the data region.
    pub(crate) fn job_offset(&self, ticket: &Ticket) -> u64 {
        self.cell_offset(ticket.position) + self.shape.job
    }

    #[inline]
    fn cell_offset(&self, position: u64) -> u64 {
        let index = position & (self.capacity() - 1);
        self.offset + index * self.shape.stride
    }

    #[inline]
    fn cell(&self, position: u64) -> &'m Atom {
        let word = self.memory.control(self.cell_offset(position), 1);
        // `open` has seen that all cells are inside the data region, and they start on words.
        &word.expect("a cell of an opened queue")[0]
    }

    /// Acquire: pairs with the Release of `publish`, `release` and every other change of the cell.
    #[inline]
    fn word(&self, position: u64) -> CellWord {
        CellWord::from_bits(self.cell(position).load(Ordering::Acquire))
    }

    #[inline]
    fn lap(&self, position: u64) -> u64 {
        position >> self.shape.shift
    }

    /// The position of the cell of `position` in another lap.
    #[inline]
    fn in_lap(&self, position: u64, lap: u64) -> u64 {
        // The bound is for damaged words: no position comes so far.
        let lap = lap.min(EndWord::LAST_POSITION >> self.shape.shift);
        lap << self.shape.shift | position & (self.capacity() - 1)
    }

    /// Acquire: pairs with the Release of whoever has moved that end.
    #[inline]
    fn end(&self, end: usize) -> EndWord {
        EndWord::from_bits(self.head[end].load(Ordering::Acquire))
    }

    /// Moves an end to `position`, unless it is there already, and wakes those who sleep on it.
    ///
    /// A read-modify-write also where nothing is to be changed: it comes before a sleeper's `doze`
    /// in the word's order, and then the sleeper finds what the caller has done before, or after
    /// it, and then the caller sees the flag.
    #[inline]
    fn reach(&self, end: usize, position: u64) {
        // Release: publishes what the caller has done to the cell. Acquire: who reads the new word
        // has seen all that was done before the ones it replaces.
        let moved = self.head[end].update(Ordering::AcqRel, Ordering::Acquire, |word| {
            Some(EndWord::from_bits(word).reach(position).bits())
        });
        self.wake(end, moved);
    }

    #[inline]
    fn wake(&self, end: usize, changed: Result<(u64, u64), u64>) {
        if let Ok((before, _)) = changed
            && EndWord::from_bits(before).is_awaited()
        {
            #[cfg(not(loom))]
            self.head[end].wake_all();
            #[cfg(loom)]
            let _ = end;
        }
    }

    // ---- pushing ----------------------------------------------------------------------------

    /// Claims a cell for a job of `me`, at the tail or as soon after it as there is one.
    #[inline]
    pub(crate) fn claim(&self, me: SeatId) -> Result<Ticket, NoCell> {
        let mut before = None;
        'again: loop {
            let tail = self.end(TAIL);
            if tail.is_closed() {
                return Err(NoCell::Closed);
            }
            let start = tail.position();
            let last_lap = CellWord::CLAIM_LIMIT.min(EndWord::LAST_POSITION >> self.shape.shift);
            if self.lap(start) + 2 >= last_lap {
                return Err(NoCell::UsedUp { position: start });
            }
            let mut sum = 0;
            let mut later = None;
            for position in start..start + self.capacity() {
                match self.claim_in(position, self.lap(position), me) {
                    Ok(ticket) => return Ok(ticket),
                    Err(word) if word.is_claimable() => {
                        // Its cell is at a later lap: the tail has moved, or the death of a
                        // producer has ended this lap.
                        if self.end(TAIL) != tail {
                            before = None;
                            continue 'again;
                        }
                        let _ = later.get_or_insert((position, word.lap()));
                    }
                    Err(word) => sum += u128::from(word.bits()),
                }
            }
            if let Some((position, lap)) = later {
                match self.claim_in(position, lap, me) {
                    Ok(ticket) => return Ok(ticket),
                    Err(_) => continue,
                }
            }
            // Twice the same words, none of them EMPTY: so it was between the two passes.
            if before == Some(sum) {
                return Err(NoCell::Full);
            }
            before = Some(sum);
        }
    }

    /// EMPTY of `lap` or an earlier one → WRITING by `me` in `lap`; or the word that was there.
    #[inline]
    fn claim_in(&self, position: u64, lap: u64, me: SeatId) -> Result<Ticket, CellWord> {
        // Acquire: pairs with the Release in `release`: the last job was read before this one is
        // written. Release: pairs with the Acquire in `word`: who sees WRITING here sees the cells
        // that became free before it, and so does not find the queue full.
        self.change(position, Ordering::AcqRel, |word| word.claim(lap, me))
            .map(|word| Ticket {
                position: self.in_lap(position, lap),
                word,
                front: 0,
            })
    }

    /// WRITING by `me` → FULL, and the tail beyond it. Whether the job is pushed: not if the queue
    /// was closed meanwhile, unless somebody took the job before it could be withdrawn.
    #[inline]
    pub(crate) fn publish(&self, ticket: Ticket, me: SeatId) -> bool {
        let Some(full) = ticket.word.publish(me) else {
            return false;
        };
        // Release: pairs with the Acquire in `take_at`; the job happens before it is read.
        self.cell(ticket.position)
            .publish_owned(ticket.word.bits(), full.bits());
        let moved = self.head[TAIL].update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let tail = EndWord::from_bits(word);
            (!tail.is_closed()).then(|| tail.reach(ticket.position + 1).bits())
        });
        self.wake(TAIL, moved);
        // FULL → EMPTY of the next lap, if nobody has the job.
        moved.is_ok()
            || self
                .change(ticket.position, Ordering::AcqRel, |word| {
                    (word == full).then(|| word.withdraw()).flatten()
                })
                .is_err()
    }

    // ---- popping ----------------------------------------------------------------------------

    /// Takes the oldest job out of the order; `None` if there was a moment without any.
    #[inline]
    pub(crate) fn take(&self, me: SeatId) -> Option<Ticket> {
        let mut before = None;
        loop {
            // In this order: jobs lie at or above the head of any earlier moment, and below the
            // tail of this one.
            let head = self.end(HEAD).position();
            let tail = self.end(TAIL).position();
            if head >= tail {
                return None;
            }
            let look = self.look(head, tail);
            if let Some((position, word)) = look.oldest {
                match self.take_at(position, word, me) {
                    Some(word) => {
                        return Some(Ticket {
                            position,
                            word,
                            front: match look.front == position {
                                true => position + 1,
                                false => look.front,
                            },
                        });
                    }
                    // Somebody else has it.
                    None => {
                        before = None;
                        continue;
                    }
                }
            }
            if look.front > head {
                self.reach(HEAD, look.front);
                before = None;
                continue;
            }
            // Twice the same, and no job: so it was between the two passes.
            let now = (head, tail, look.sum);
            if before == Some(now) {
                return None;
            }
            before = Some(now);
        }
    }

    /// FULL as it was seen → TAKING by `me`.
    #[inline]
    fn take_at(&self, position: u64, full: CellWord, me: SeatId) -> Option<CellWord> {
        let taking = full.take(me)?;
        // Acquire: pairs with the Release in `publish`, through the reaper's where it put the job
        // back. Release: pairs with the Acquire in `word`: who sees TAKING here sees the jobs that
        // were pushed before it, and so does not find the queue empty.
        self.cell(position)
            .compare_exchange(
                full.bits(),
                taking.bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .ok()
            .map(|_| taking)
    }

    /// TAKING by `me` → EMPTY of the next lap, and the head as far as it may go.
    #[inline]
    pub(crate) fn release(&self, ticket: Ticket, me: SeatId) {
        if let Some(empty) = ticket.word.release(me) {
            // Release: pairs with the Acquire in `claim_in`.
            self.cell(ticket.position)
                .publish_owned(ticket.word.bits(), empty.bits());
        }
        self.reach(HEAD, ticket.front);
    }

    /// Looks at the cells whose positions lie from `head` up to `tail`, until one holds the job
    /// that is the oldest for certain.
    #[inline]
    fn look(&self, head: u64, tail: u64) -> Look {
        let mut look = Look {
            oldest: None,
            front: tail,
            sum: 0,
        };
        for position in head..tail.min(head + self.capacity()) {
            let mut word = self.word(position);
            let mut next = self.in_lap(position, word.next_full());
            // EMPTY, and nothing before it that could hold the head back: nobody is to push there
            // any more, so that the head may go on.
            while look.front > next && word.is_claimable() {
                // The first one in which the cell's position is not below the tail.
                let lap = self.lap(position) + self.lap(tail - 1 - position) + 1;
                match self.change(position, Ordering::AcqRel, |now| {
                    (now == word).then(|| now.pass_over(lap)).flatten()
                }) {
                    Ok(passed) => word = passed,
                    Err(now) if now == word => break,
                    Err(now) => word = now,
                }
                next = self.in_lap(position, word.next_full());
            }
            look.sum += u128::from(word.bits());
            look.front = look.front.min(next);
            if word.is_full() && next < tail {
                if look.oldest.is_none_or(|(oldest, _)| next < oldest) {
                    look.oldest = Some((next, word));
                }
                if next <= position {
                    break;
                }
            }
        }
        look
    }

    #[inline]
    fn change(
        &self,
        position: u64,
        order: Ordering,
        mut next: impl FnMut(CellWord) -> Option<CellWord>,
    ) -> Result<CellWord, CellWord> {
        self.cell(position)
            .update(order, Ordering::Acquire, |word| {
                next(CellWord::from_bits(word)).map(Word::bits)
            })
            .map(|(_, new)| CellWord::from_bits(new))
            .map_err(CellWord::from_bits)
    }

    // ---- closing, hints, waiting ------------------------------------------------------------

    /// From here on no push succeeds that has not moved the tail yet.
    pub(crate) fn close(&self) {
        let closed = self.head[TAIL].update(Ordering::AcqRel, Ordering::Acquire, |tail| {
            Some(EndWord::from_bits(tail).close().bits())
        });
        self.wake(TAIL, closed);
        self.reach(HEAD, 0);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.end(TAIL).is_closed()
    }

    /// Whether the queue is closed and no job will come out of it any more: none is there, and none
    /// is being taken by somebody whose death would put it back.
    pub(crate) fn is_drained(&self) -> bool {
        let tail = self.end(TAIL);
        tail.is_closed()
            && (0..self.capacity()).all(|index| {
                let word = self.word(index);
                match word.state() {
                    CellState::Full => self.in_lap(index, word.lap()) >= tail.position(),
                    CellState::Taking => false,
                    _ => true,
                }
            })
    }

    /// Jobs between the ends, at most: some may be on their way in or out.
    pub(crate) fn len(&self) -> u64 {
        let head = self.end(HEAD).position();
        let tail = self.end(TAIL).position();
        tail.saturating_sub(head).min(self.capacity())
    }

    /// Whether there was a moment without a job.
    pub(crate) fn is_empty(&self) -> bool {
        let mut before = None;
        loop {
            let head = self.end(HEAD).position();
            let tail = self.end(TAIL).position();
            if head >= tail {
                return true;
            }
            let look = self.look(head, tail);
            if look.oldest.is_some() {
                return false;
            }
            let now = (head, tail, look.sum);
            if before == Some(now) {
                return true;
            }
            before = Some(now);
        }
    }

    // ---- deaths -----------------------------------------------------------------------------

    /// Undoes what `seat` had begun, for whoever has its lock. May be repeated at any time.
    pub(crate) fn recover(&self, seat: SeatId) -> Recovered {
        let mut recovered = Recovered::default();
        for index in 0..self.capacity() {
            let word = self.word(index);
            let Some(undone) = word.undo(seat) else {
                // A producer that died between FULL and moving the tail: its job is pushed, unless
                // the queue is closed, and then it is nobody's.
                if word.is_full() && !self.is_closed() {
                    self.reach(TAIL, self.in_lap(index, word.lap()) + 1);
                }
                continue;
            };
            if undone.is_full() {
                // The tail first: a reaper that dies after putting the job back has done all.
                self.reach(TAIL, self.in_lap(index, undone.lap()) + 1);
            }
            // Release: the dead's accesses happen before those of the next holder.
            let done = self.change(index, Ordering::AcqRel, |now| {
                (now == word).then_some(undone)
            });
            recovered.jobs += usize::from(done.is_ok() && undone.is_full());
        }
        // Wakes those whom the dead did not wake any more, or who wait for what was undone.
        self.reach(TAIL, 0);
        self.reach(HEAD, 0);
        recovered
    }
}

#[cfg(not(loom))]
mod wait {
    //! Sleeping until an end moves.

    use core::time::Duration;

    use super::{Cells, HEAD, TAIL};
    use crate::sync::{Ordering, Word};
    use crate::word::EndWord;

    /// Which change somebody waits for.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Event {
        /// A job was pushed.
        Pushed,
        /// A job was popped.
        Popped,
    }

    impl Event {
        fn end(self) -> usize {
            match self {
                Event::Pushed => TAIL,
                Event::Popped => HEAD,
            }
        }
    }

    impl Cells<'_> {
        /// The word that changes with the event.
        pub(crate) fn now(&self, event: Event) -> EndWord {
            self.end(event.end())
        }

        /// Announces a sleeper. The caller looks once more, and then calls [`Cells::sleep`].
        pub(crate) fn doze(&self, event: Event) -> EndWord {
            // AcqRel: see `reach`.
            let word = &self.head[event.end()];
            let dozed = word.update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some(EndWord::from_bits(word).doze().bits())
            });
            EndWord::from_bits(dozed.map_or_else(|now| now, |(_, now)| now))
        }

        /// Sleeps while the word's low half is that of `seen`, at most for `timeout`.
        pub(crate) fn sleep(&self, event: Event, seen: EndWord, timeout: Duration) {
            self.head[event.end()].wait(seen.bits() as u32, timeout);
        }
    }
}
#[cfg(not(loom))]
pub(crate) use wait::Event;
