//! A victim: takes random actions of a participant, and checks all that it sees, until it is killed
//! or asked to end.

use ndarray::Ix1;
use ndshm::error::{JoinError, LeaseError, QueueError};
use ndshm::{Handle, HandleTable, Queue};

use super::board::{Count, Me};
use super::pattern::Pattern;
use super::process::{Child, exit_at_once};
use super::world::World;

pub type Array = Handle<u64, Ix1>;

/// Maximum number of arrays of each kind that a victim keeps.
pub const KEEPS: usize = 24;

/// Runs a victim: number `place` among the current ones, `incarnation` among all.
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
    // Only the parent can wait for its children.
    for child in children {
        match child.ends_within(super::supervisor::PATIENCE) {
            Some(status) => expect_end(me, status),
            None => me.found(format!("grandchild {} does not end", child.pid())),
        }
    }
}

/// Checks the status of a child of this victim: it ended normally, or was killed.
pub fn expect_end(me: &Me, status: rustix::process::WaitStatus) {
    let killed = status.terminating_signal() == Some(libc::SIGKILL);
    if !killed && status.exit_status() != Some(0) {
        me.found(format!("a grandchild ended with {status:?}"));
    }
}

/// A victim with its seat.
pub struct Sitting<'w, 't> {
    pub world: &'w World,
    pub table: &'t HandleTable,
    pub me: &'w mut Me,
    /// Its number among the current victims. `None` for a grandchild, which forks no children.
    pub place: Option<usize>,
    pub jobs: Queue<'t, u64>,
    pub mail: Queue<'t, u64>,
    /// Arrays that no other process knows.
    pub private: Vec<(Array, Pattern)>,
    /// Arrays that it has passed on to others.
    pub published: Vec<Array>,
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
            // A child on the inherited table has no seat yet, and finds none.
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

    /// Acts until it is asked to end, or decides to leave its seat.
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
            0..28 => self.allocate(),
            28..48 => self.look_at_private(),
            48..57 => self.free_private(),
            57..72 => self.publish(),
            72..102 => self.use_anothers(),
            102..125 => self.use_lasting(),
            125..135 => self.push_job(),
            135..145 => self.pop_job(),
            145..153 => self.open_round(),
            153..165 => self.enter_round(),
            165..171 => self.use_field(),
            171..174 => self.free_published(),
            174..176 => self.scavenge(),
            176..178 => self.reap(),
            178 => self.trim(),
            179..181 => self.have_child(),
            181 if self.me.random.one_in(3) => self.exhaust(),
            182 if self.me.random.one_in(6) => self.crowd(),
            // Many short calls in a row: most kills should hit these.
            183..188 => self.crowd_around(),
            188..193 => self.churn(),
            193..198 => self.pass_jobs(),
            198 => self.use_names(),
            199 => self.use_bundle(),
            _ => {}
        }
    }

    /// Handles a refused join. A forked child may find no seat at its first use of the table. For
    /// any other process it is a finding.
    pub fn join_refused(&mut self, error: JoinError) {
        match error {
            JoinError::SeatsFull { .. } if self.place.is_none() => exit_at_once(0),
            other => self.me.found(format!("lost its seat: {other}")),
        }
    }

    /// Counts an ordinary refusal. Returns `true` if the array is poisoned.
    pub fn refused(&mut self, error: LeaseError) -> bool {
        match error {
            LeaseError::Busy { .. } => self.me.count(Count::Busy),
            LeaseError::Owned { .. } => self.me.count(Count::Owned),
            LeaseError::Stale { handle } if self.world.lasts(handle) => {
                self.me.found(format!("{handle} is stale, but should last"))
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

    pub fn queue_refused(&mut self, error: QueueError) {
        match error {
            QueueError::Lease(LeaseError::Join(error)) | QueueError::Join(error) => {
                self.join_refused(error);
            }
            other => self.me.found(format!("queue: {other}")),
        }
    }
}
