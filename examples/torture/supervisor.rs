//! The supervisor: starts, kills, stops and replaces victims. It never dies itself.

use std::time::{Duration, Instant};

use ndshm::{AnyHandle, HandleTable};
use rustix::process::{Signal, WaitStatus};

use super::audit::Auditor;
use super::board::{Count, FOUND};
use super::numbers::Numbers;
use super::process::{self, Child};
use super::victim;
use super::world::{Kept, World};

/// Time in which a process must end after a request or a kill.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Parameters of the run.
#[derive(Clone, Copy)]
pub struct Plan {
    pub processes: usize,
    pub seconds: u64,
    pub kills: Option<u64>,
    pub audit_every: u64,
}

struct Victim {
    child: Child,
    stopped: bool,
}

pub struct Supervisor<'a, 't> {
    world: &'a World,
    table: &'t HandleTable,
    plan: Plan,
    random: Numbers,
    victims: Vec<Victim>,
    incarnations: u64,
}

impl<'a, 't> Supervisor<'a, 't> {
    pub fn new(world: &'a World, table: &'t HandleTable, plan: Plan) -> Self {
        Supervisor {
            world,
            table,
            plan,
            random: Numbers::new(world.seed, 0),
            victims: Vec::new(),
            incarnations: 0,
        }
    }

    /// Runs until the time or the kills are used up, or there is a finding.
    pub fn run(&mut self, kept: &Kept<'t>, auditor: &Auditor) {
        let board = self.world.board;
        let start = Instant::now();
        let mut over = false;
        while !over {
            let audit_at = board.get(Count::Kills) + self.plan.audit_every;
            for place in 0..self.plan.processes {
                let victim = self.give_birth(place);
                self.victims.push(victim);
            }
            while !over && board.get(Count::Kills) < audit_at {
                self.act();
                over = self.is_over(start);
            }
            self.settle();
            if board.findings() == 0 {
                auditor.audit(self.world, self.table, kept);
                board.count(Count::Audits);
            }
        }
    }

    fn is_over(&self, start: Instant) -> bool {
        let board = self.world.board;
        let enough = |kills| board.get(Count::Kills) >= kills;
        start.elapsed() >= Duration::from_secs(self.plan.seconds)
            || self.plan.kills.is_some_and(enough)
            || board.findings() > 0
    }

    fn give_birth(&mut self, place: usize) -> Victim {
        self.incarnations += 1;
        let (world, number) = (self.world, self.incarnations);
        world.board.show_private(place, 0);
        let me = rustix::process::getpid();
        Victim {
            child: Child::fork(world.board, || {
                process::end_with(Some(me));
                victim::live(world, place, number);
            }),
            stopped: false,
        }
    }

    fn act(&mut self) {
        self.collect();
        self.random.nap(1500);
        let place = self.random.below(self.victims.len());
        match self.random.below(20) {
            0..14 => self.kill(place),
            14..16 => self.stop(place),
            16..19 => self.resume(),
            _ => {
                self.reap();
            }
        }
    }

    /// Collects processes that ended by themselves. A victim must have a finding, and is replaced;
    /// all others are grandchildren.
    fn collect(&mut self) {
        while let Some((child, status)) = process::any_ended() {
            match self.victims.iter().position(|victim| victim.child == child) {
                Some(place) => {
                    self.unexpected(child, status);
                    self.victims[place] = self.give_birth(place);
                }
                None => self.orphan(child, status),
            }
        }
    }

    /// Checks the status of an orphaned grandchild: it ended normally, or was killed by its parent.
    fn orphan(&self, child: Child, status: WaitStatus) {
        let killed = status.terminating_signal() == Some(libc::SIGKILL);
        if !killed && status.exit_status() != Some(0) {
            self.unexpected(child, status);
        }
    }

    fn unexpected(&self, child: Child, status: WaitStatus) {
        // A process with a finding has recorded it.
        if status.exit_status() != Some(FOUND) {
            self.found(format!("process {} ended with {status:?}", child.pid()));
        }
    }

    fn found(&self, what: String) {
        self.world.board.find(&format!("supervisor: {what}"));
    }

    fn kill(&mut self, place: usize) {
        let child = self.victims[place].child;
        child.signal(Signal::KILL);
        self.world.board.count(Count::Kills);
        match child.ends_within(PATIENCE) {
            Some(status) if status.terminating_signal() == Some(libc::SIGKILL) => {}
            Some(status) => self.unexpected(child, status),
            None => self.found(format!("process {} was killed, but lives", child.pid())),
        }
        self.victims[place] = self.give_birth(place);
    }

    /// Stops a victim, reaps, and checks that the victim keeps its arrays.
    fn stop(&mut self, place: usize) {
        let running = self.victims.iter().filter(|victim| !victim.stopped).count();
        if self.victims[place].stopped || running < 2 {
            return;
        }
        let child = self.victims[place].child;
        if let Err(status) = child.stop() {
            self.unexpected(child, status);
            self.victims[place] = self.give_birth(place);
            return;
        }
        self.world.board.count(Count::Stops);
        self.victims[place].stopped = true;
        self.reap();
        self.look_at_stopped(place);
    }

    /// Checks that a stopped victim still owns the array that it has shown, which no other process
    /// knows.
    fn look_at_stopped(&self, place: usize) {
        let bits = self.world.board.private(place);
        if bits == 0 {
            return;
        }
        let pid = self.victims[place].child.pid();
        match self.table.info(AnyHandle::from_bits(bits)) {
            Ok(info) if info.owner == Some(pid) => {}
            Ok(info) => self.found(format!("array lost by the stopped process {pid}: {info:?}")),
            Err(error) => self.found(format!("an array of the stopped process {pid}: {error}")),
        }
    }

    /// Continues a stopped victim.
    fn resume(&mut self) {
        if let Some(place) = self.victims.iter().position(|victim| victim.stopped) {
            self.look_at_stopped(place);
            self.victims[place].child.signal(Signal::CONT);
            self.victims[place].stopped = false;
        }
    }

    fn reap(&self) {
        match self.table.reap() {
            Ok(report) => {
                self.world.board.count(Count::Reaps);
                self.world.board.add(Count::Reaped, report.seats);
            }
            Err(error) => self.found(format!("reap: {error}")),
        }
    }

    /// Asks all victims to end, and waits for them and for their children.
    fn settle(&mut self) {
        let board = self.world.board;
        board.set_quit(true);
        while self.victims.iter().any(|victim| victim.stopped) {
            self.resume();
        }
        for victim in core::mem::take(&mut self.victims) {
            let child = victim.child;
            match child.ends_within(PATIENCE) {
                Some(status) if status.exit_status() == Some(0) => board.count(Count::Quits),
                Some(status) => self.unexpected(child, status),
                None => {
                    self.found(format!("process {} hangs", child.pid()));
                    child.signal(Signal::KILL);
                    child.ends_within(PATIENCE);
                }
            }
        }
        let start = Instant::now();
        while process::has_children() {
            match process::any_ended() {
                Some((child, status)) => self.orphan(child, status),
                None if start.elapsed() > PATIENCE => {
                    return self.found("a grandchild hangs".into());
                }
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
        board.set_quit(false);
    }
}
