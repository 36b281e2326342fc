//! A victim: does at random whatever a participant can do, and checks all that it sees, until it
//! is killed or asked to end.

use ndarray::{ArrayRef, Dimension, Ix1};
use ndshm::{AllocError, FreeError, Handle, HandleTable, JoinError, LeaseError, Queue, QueueError};

use super::board::{Count, Me};
use super::pattern::Pattern;
use super::process::{Child, exit_at_once};
use super::world::{CELLS, World};

pub type Array = Handle<u64, Ix1>;

/// Arrays of each kind that a victim keeps, at most.
const KEEPS: usize = 24;

/// The life of victim `place` among those at once, `incarnation` among all.
pub fn live(world: &World, place: usize, incarnation: u64) {
    let me = &mut Me::new(world.board, world.seed, incarnation);
    let mut children = Vec::new();
    while !world.board.quit() {
        match HandleTable::join(&world.segment) {
            Ok(table) => {
                me.count(Count::Joins);
                let mut sitting = Sitting::new(world, &table, me, Some(place));
                sitting.children = core::mem::take(&mut children);
                sitting.sit();
                children = core::mem::take(&mut sitting.children);
            }
            Err(JoinError::SeatsFull { .. }) => {
                me.count(Count::SeatsFull);
                me.random.nap(300);
            }
            Err(other) => me.found(format!("join: {other}")),
        }
    }
    // Nobody else may wait for one's children.
    for child in children {
        match child.ends_within(super::supervisor::PATIENCE) {
            Some(status) => expect_end(me, status),
            None => me.found(format!("grandchild {} does not end", child.pid())),
        }
    }
}

/// One's own children end well, or are killed.
pub fn expect_end(me: &Me, status: rustix::process::WaitStatus) {
    let killed = status.terminating_signal() == Some(libc::SIGKILL);
    if !killed && status.exit_status() != Some(0) {
        me.found(format!("a grandchild ended with {status:?}"));
    }
}

/// A victim on one seat.
pub struct Sitting<'w, 't> {
    pub world: &'w World,
    pub table: &'t HandleTable,
    pub me: &'w mut Me,
    /// Its number among the victims at once; none for a grandchild, which others do not wait for.
    pub place: Option<usize>,
    pub jobs: Queue<'t, u64>,
    mail: Queue<'t, u64>,
    /// Arrays that nobody else knows.
    private: Vec<(Array, Pattern)>,
    /// Arrays that it has told others of.
    published: Vec<Array>,
    pub children: Vec<Child>,
}

impl<'w, 't> Sitting<'w, 't> {
    pub fn new(
        world: &'w World,
        table: &'t HandleTable,
        me: &'w mut Me,
        place: Option<usize>,
    ) -> Self {
        let open = |handle| match table.open_queue(handle) {
            Ok(queue) => queue,
            // A child that has no seat yet on the table that it has inherited.
            Err(QueueError::Lease(LeaseError::Join(JoinError::SeatsFull { .. })))
                if place.is_none() =>
            {
                exit_at_once(0)
            }
            Err(error) => me.found(format!("open_queue: {error}")),
        };
        Sitting {
            jobs: open(world.jobs),
            mail: open(world.mail),
            private: Vec::new(),
            published: Vec::new(),
            children: Vec::new(),
            world,
            table,
            me,
            place,
        }
    }

    /// Works until it is asked to end, or wants to leave.
    fn sit(&mut self) {
        while !self.world.board.quit() && !self.me.random.one_in(800) {
            self.act();
        }
        while let Some((handle, pattern)) = self.private.pop() {
            self.check_private(handle, pattern);
            self.unshow(handle);
        }
    }

    pub fn act(&mut self) {
        match self.me.random.below(200) {
            0..30 => self.allocate(),
            30..50 => self.look_at_private(),
            50..60 => self.free_private(),
            60..75 => self.publish(),
            75..105 => self.use_anothers(),
            105..130 => self.use_lasting(),
            130..145 => self.push_job(),
            145..160 => self.pop_job(),
            160..168 => self.open_round(),
            168..180 => self.enter_round(),
            180..186 => self.use_field(),
            186..189 => self.free_published(),
            189..191 => self.scavenge(),
            191..193 => self.reap(),
            193 => self.trim(),
            194..196 => self.have_child(),
            196 if self.me.random.one_in(3) => self.exhaust(),
            197 if self.me.random.one_in(6) => self.crowd(),
            _ => {}
        }
    }

    fn allocate(&mut self) {
        if self.private.len() >= KEEPS {
            return self.free_private();
        }
        let len = match self.me.random.below(10) {
            0..4 => 8 + self.me.random.below(9),
            4..8 => 8 + self.me.random.below(505),
            8 => 8 + self.me.random.below(4000),
            _ => 8 + self.me.random.below(13_000),
        };
        let fill = self.me.random.any();
        let (made, first, step) = match self.me.random.below(4) {
            0 => (self.table.zeros(len), Some(0), 0),
            1 => (self.table.from_elem(len, fill), Some(fill), 0),
            2 => {
                let made = self.table.from_shape_fn(len, |index| index as u64);
                (made, Some(0), 1)
            }
            _ => (self.table.uninit(len), None, 0),
        };
        let handle: Array = match made {
            Ok(handle) => handle,
            Err(error) => return self.alloc_refused(error),
        };
        self.me.count(Count::Allocs);
        match (self.table.read(handle), first) {
            (Ok(x), Some(first)) => {
                let wrong = (first..)
                    .step_by(step.max(1))
                    .zip(&*x)
                    .position(|(next, &element)| element != if step == 0 { first } else { next });
                if x.len() != len || wrong.is_some() {
                    let found = wrong.map(|index| x[index]);
                    self.me.found(format!(
                        "{handle} is new, of {len} elements from {first} by {step}: it has {}, the \
                         first wrong one at {wrong:?}, {found:x?}",
                        x.len()
                    ));
                }
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.me.found(format!("read of a new array: {error}")),
        }
        let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
        match self.table.write(handle) {
            Ok(mut x) => pattern.write(x.view_mut()),
            // Somebody who was slow with a stale handle of the same slot, and will be gone.
            Err(LeaseError::Busy { .. }) => {
                self.me.count(Count::Busy);
                return self.free_own(handle);
            }
            Err(error) => self.me.found(format!("write of a new array: {error}")),
        }
        self.private.push((handle, pattern));
        self.show();
    }

    pub fn alloc_refused(&mut self, error: AllocError) {
        match error {
            AllocError::Full { .. } | AllocError::NoMemory(_) => self.me.count(Count::Full),
            AllocError::Join(error) => self.join_refused(error),
            other => self.me.found(format!("alloc: {other}")),
        }
    }

    /// A child of a fork may find no seat at its first use of the table; nobody else asks for one.
    pub fn join_refused(&mut self, error: JoinError) {
        match error {
            JoinError::SeatsFull { .. } if self.place.is_none() => exit_at_once(0),
            other => self.me.found(format!("no seat any more: {other}")),
        }
    }

    /// An ordinary refusal is counted. Whether the array was found poisoned.
    pub fn refused(&mut self, error: LeaseError) -> bool {
        match error {
            LeaseError::Busy { .. } => self.me.count(Count::Busy),
            LeaseError::Stale { handle } if self.world.lasts(handle) => {
                self.me.found(format!("{handle} is stale, and lasts"))
            }
            LeaseError::Stale { .. } => self.me.count(Count::Stale),
            LeaseError::Poisoned { .. } => {
                self.me.count(Count::Poisoned);
                return true;
            }
            LeaseError::Join(error) => self.join_refused(error),
            other => self.me.found(format!("lease: {other}")),
        }
        false
    }

    /// Lets the supervisor know one private array, if it knows none.
    fn show(&mut self) {
        if let (Some(place), Some((handle, _))) = (self.place, self.private.first()) {
            self.world.board.show_private(place, handle.to_bits());
        }
    }

    /// Before a private array is private no more.
    fn unshow(&mut self, handle: Array) {
        if let Some(place) = self.place
            && self.world.board.private(place) == handle.to_bits()
        {
            self.world.board.show_private(place, 0);
        }
    }

    fn take_private(&mut self) -> Option<Array> {
        if self.private.is_empty() {
            return None;
        }
        let index = self.me.random.below(self.private.len());
        let (handle, pattern) = self.private.swap_remove(index);
        self.check_private(handle, pattern);
        self.unshow(handle);
        Some(handle)
    }

    /// Nobody else knows it: it is there, and as it was left.
    fn check_private(&mut self, handle: Array, pattern: Pattern) {
        match self
            .table
            .read(handle)
            .map(|x| Pattern::read(handle.to_bits(), x.view()))
        {
            Ok(Ok(found)) if found == pattern => self.me.count(Count::Reads),
            Ok(Ok(found)) => self
                .me
                .found(format!("own {handle} has {found:?} for {pattern:?}")),
            Ok(Err(torn)) => self.me.found(format!("own {handle}: {torn}")),
            Err(error) => self.me.found(format!("own array: {error}")),
        }
    }

    fn look_at_private(&mut self) {
        if !self.private.is_empty() {
            let index = self.me.random.below(self.private.len());
            let (handle, pattern) = self.private[index];
            self.check_private(handle, pattern);
            if self.me.random.one_in(2)
                && let Ok(written) = self.write(handle, None)
            {
                self.private[index].1 = written;
            }
        }
    }

    fn free_private(&mut self) {
        if let Some(handle) = self.take_private() {
            self.free_own(handle);
        }
    }

    pub fn free_own(&mut self, handle: Array) {
        match self.table.free(handle) {
            Ok(()) => self.me.count(Count::Frees),
            Err(error) => self.me.found(format!("free of an own array: {error}")),
        }
    }

    pub fn free_known(&mut self, handle: Array) {
        match self.table.free(handle) {
            Ok(()) => self.me.count(Count::Frees),
            Err(FreeError::Stale { .. }) => self.me.count(Count::Stale),
            Err(FreeError::Join(error)) => self.join_refused(error),
            Err(other) => self.me.found(format!("free: {other}")),
        }
    }

    fn free_published(&mut self) {
        if !self.published.is_empty() {
            let index = self.me.random.below(self.published.len());
            let handle = self.published.swap_remove(index);
            self.free_known(handle);
        }
    }

    /// Tells others of an array, through the queue or through the array of handles.
    fn publish(&mut self) {
        if self.published.len() >= KEEPS {
            return self.free_published();
        }
        let Some(handle) = self.take_private() else {
            return;
        };
        self.published.push(handle);
        if self.me.random.one_in(2) {
            match self.mail.push(handle.to_bits()) {
                Ok(()) => self.me.count(Count::Pushes),
                Err(refused) if refused.is_full() => {}
                Err(refused) => self.queue_refused(refused.into()),
            }
            return;
        }
        let cell = self.me.random.below(CELLS);
        match self.table.write(self.world.exchange) {
            Ok(mut cells) => cells[cell] = handle.to_bits(),
            Err(error) => self.exchange_refused(error),
        }
    }

    /// Its words are written whole, so that what a dead writer has left is good.
    fn exchange_refused(&mut self, error: LeaseError) {
        if self.refused(error)
            && let Err(error) = self.table.clear_poison(self.world.exchange)
        {
            self.refused(error);
        }
    }

    pub fn queue_refused(&mut self, error: QueueError) {
        match error {
            QueueError::Lease(LeaseError::Join(error)) | QueueError::Join(error) => {
                self.join_refused(error);
            }
            other => self.me.found(format!("queue: {other}")),
        }
    }

    /// An array that others know, too.
    fn known(&mut self) -> Option<Array> {
        let bits = match self.me.random.below(3) {
            0 => match self.mail.pop() {
                Ok(bits) => bits,
                Err(error) => {
                    self.queue_refused(error);
                    None
                }
            },
            1 => {
                let cell = self.me.random.below(CELLS);
                match self
                    .table
                    .read(self.world.exchange)
                    .map(|cells| cells[cell])
                {
                    Ok(bits) => (bits != 0).then_some(bits),
                    Err(error) => {
                        self.exchange_refused(error);
                        None
                    }
                }
            }
            _ if self.published.is_empty() => None,
            _ => {
                let index = self.me.random.below(self.published.len());
                Some(self.published[index].to_bits())
            }
        };
        bits.map(Handle::from_bits)
    }

    fn use_anothers(&mut self) {
        if let Some(handle) = self.known() {
            self.use_known(handle);
        }
    }

    pub fn use_known(&mut self, handle: Array) {
        let poisoned = match self.me.random.below(16) {
            0..6 => self.read(handle, None).err() == Some(true),
            6..11 => self.write(handle, None).err() == Some(true),
            11 => self.free_while_leased(handle),
            12 => match self.table.attach(handle) {
                Ok(place) => {
                    self.me.count(Count::Attaches);
                    if !(8..13_008).contains(&place.dim()) {
                        self.me
                            .found(format!("{handle} has {} elements", place.dim()));
                    }
                    false
                }
                Err(error) => self.refused(error),
            },
            13 => match self.table.adopt(handle) {
                Ok(()) => {
                    self.me.count(Count::Adopts);
                    self.published.push(handle);
                    false
                }
                Err(error) => self.refused(error),
            },
            14 => match self.table.detach(handle) {
                Ok(()) => {
                    self.me.count(Count::Detaches);
                    false
                }
                Err(error) => self.refused(error),
            },
            _ => {
                self.free_known(handle);
                false
            }
        };
        if poisoned {
            // Others may free it at any moment, so that nobody could overwrite it in place.
            self.free_known(handle);
        }
    }

    /// Frees it, or has it freed, between two looks under the same lease.
    fn free_while_leased(&mut self, handle: Array) -> bool {
        match self.table.read(handle) {
            Ok(x) => {
                self.check(handle.to_bits(), &x, None);
                self.free_known(handle);
                self.me.count(Count::FreesLeased);
                self.allocate();
                self.check(handle.to_bits(), &x, None);
                false
            }
            Err(error) => self.refused(error),
        }
    }

    /// Half-written is what nobody sees, but for a lasting array on the way of being healed.
    pub fn check<D: Dimension>(
        &mut self,
        place: u64,
        x: &ArrayRef<u64, D>,
        healing: Option<usize>,
    ) -> Option<Pattern> {
        match Pattern::read(place, x.view()) {
            Ok(pattern) => Some(pattern),
            Err(_) if healing.is_some_and(|index| self.world.board.is_healing(index)) => {
                self.me.count(Count::Tolerated);
                None
            }
            Err(torn) => self.me.found(torn),
        }
    }

    /// Reads it, and looks again at the end of the lease. `Err` says whether it is poisoned.
    pub fn read(&mut self, handle: Array, healing: Option<usize>) -> Result<(), bool> {
        let x = self
            .table
            .read(handle)
            .map_err(|error| self.refused(error))?;
        self.me.count(Count::Reads);
        let before = self.check(handle.to_bits(), &x, healing);
        if self.me.random.one_in(8) {
            self.me.random.nap(200);
        }
        if self.me.random.one_in(8) {
            // A second lease of the same seat, which outlives the first or not.
            match self.table.read(handle) {
                Ok(_second) => self.me.count(Count::Reads),
                Err(LeaseError::Poisoned { .. }) => self
                    .me
                    .found(format!("{handle} was poisoned while it was read")),
                Err(error) => {
                    let _ = self.refused(error);
                }
            }
        }
        let after = self.check(handle.to_bits(), &x, healing);
        if before != after {
            self.me.found(format!(
                "{handle} changed while it was read: {before:?}, then {after:?}"
            ));
        }
        Ok(())
    }

    /// Overwrites it, after a look, and looks again. `Err` says whether it is poisoned.
    pub fn write(&mut self, handle: Array, healing: Option<usize>) -> Result<Pattern, bool> {
        let mut x = self
            .table
            .write(handle)
            .map_err(|error| self.refused(error))?;
        self.me.count(Count::Writes);
        self.check(handle.to_bits(), &x, healing);
        let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
        pattern.write(x.view_mut());
        if self.me.random.one_in(8) {
            self.me.random.nap(200);
        }
        match Pattern::read(handle.to_bits(), x.view()) {
            Ok(found) if found == pattern => {}
            Ok(found) => self.me.found(format!(
                "{handle}: wrote {pattern:?}, and under the same lease there is {found:?}"
            )),
            Err(torn) => self.me.found(format!(
                "{handle}: wrote {pattern:?}, and under the same lease there is {torn}"
            )),
        }
        if let Some(index) = healing {
            self.world.board.end_healing(index);
        }
        Ok(pattern)
    }
}
