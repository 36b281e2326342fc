//! Actions of a victim on the arrays that are written in rounds.

use std::time::Duration;

use ndshm::error::{LeaseError, RoundError};
use ndshm::{Partition, RoundMember};

use super::board::{Count, Me};
use super::pattern::{Pattern, place};
use super::victim::Sitting;
use super::world::{Field, Tiles, World, tile_slice, write_tiles};

/// Number of bits of a stamp below the partition's number.
const ROUND_BITS: u32 = 56;

/// Returns the stamp of a round, which patterns contain.
fn stamp(partition: usize, round: u64) -> u64 {
    (partition as u64 + 1) << ROUND_BITS | round
}

impl<'t> Sitting<'_, 't> {
    /// Returns the numbers of a random field and of one of its partitions, and opens the partition.
    fn any_partition(&mut self) -> (usize, usize, Partition<'t, Tiles>) {
        let which = self.me.random.below(self.world.fields.len());
        let field = &self.world.fields[which];
        let number = self.me.random.below(field.partitions.len());
        match self.table.open_partition(field.partitions[number]) {
            Ok(partition) => (which, number, partition),
            Err(ndshm::error::PartitionError::Lease(LeaseError::Join(error))) => {
                self.join_refused(error);
                self.me.found("a seat, but no partition")
            }
            Err(error) => self.me.found(format!("open_partition: {error}")),
        }
    }

    /// Counts an ordinary refusal of a round. Other errors are findings.
    fn round_refused(&mut self, field: usize, error: RoundError) {
        match error {
            RoundError::Running { .. } => self.me.count(Count::Busy),
            RoundError::Lease(error) => {
                let world = self.world;
                if self.refused(error) {
                    self.heal_field(&world.fields[field]);
                }
            }
            RoundError::Torn { .. } => self.me.count(Count::RoundsTorn),
            RoundError::Deadline { .. } => self.me.count(Count::RoundsLate),
            other => self.me.found(format!("round: {other}")),
        }
    }

    fn heal_field(&mut self, field: &Field) {
        self.heal_after(&field.array, |sitting| {
            sitting.overwrite_field(field);
        });
    }

    pub fn open_round(&mut self) {
        let (which, number, partition) = self.any_partition();
        let round = match partition.begin() {
            Ok(round) => round,
            Err(error) => return self.round_refused(which, error),
        };
        self.me.count(Count::Rounds);
        if self.me.random.one_in(8) {
            self.me.random.nap(200);
            return;
        }
        let most = self.how_many(&partition);
        match partition.enter() {
            Ok(Some(part)) => work(self.world, self.me, (which, number), part, most),
            Ok(None) => self.me.found("a round that its opener cannot enter"),
            // Another process is attempting to write the array that the tiles read.
            Err(error) => {
                self.me.count(Count::EntriesRefused);
                return self.round_refused(which, error);
            }
        }
        let patience = Duration::from_micros(self.me.random.below(15_000) as u64);
        let ours = round.number();
        match round.finish(patience) {
            Ok(()) => {
                self.me.count(Count::RoundsDone);
                self.look_after_round(which, number, &partition, ours);
            }
            Err(error) => self.round_refused(which, error),
        }
    }

    /// Checks after a finished round that no tile has an older stamp of this partition.
    fn look_after_round(
        &mut self,
        which: usize,
        number: usize,
        partition: &Partition<'_, Tiles>,
        round: u64,
    ) {
        let field = &self.world.fields[which];
        let x = match self.table.read(field.array.handle) {
            Ok(x) => x,
            Err(error) => {
                let _ = self.refused(error);
                return;
            }
        };
        self.me.count(Count::Reads);
        for tile in 0..partition.tiles() {
            let slices = tile_slice(partition, tile);
            let at = place(field.array.bits(), Some(tile));
            let found = self.check(at, &x.slice(slices), Some(field.array.index));
            if let Some(found) = found
                && found.stamp >> ROUND_BITS == stamp(number, 0) >> ROUND_BITS
                && found.stamp < stamp(number, round)
            {
                self.me.found(format!(
                    "round {round} of partition {number} of field {which} is finished, and tile \
                     {tile} has {found:?}"
                ));
            }
        }
    }

    pub fn enter_round(&mut self) {
        let (which, number, partition) = self.any_partition();
        let most = self.how_many(&partition);
        let worker = self.me.random.below(4);
        match partition.enter_at(worker, 4) {
            Ok(Some(part)) => {
                self.me.count(Count::Entries);
                work(self.world, self.me, (which, number), part, most);
            }
            Ok(None) => {}
            Err(error) => {
                self.me.count(Count::EntriesRefused);
                self.round_refused(which, error);
            }
        }
    }

    /// Chooses the number of tiles to claim: all, or some.
    fn how_many(&mut self, partition: &Partition<'_, Tiles>) -> usize {
        match self.me.random.below(3) {
            0 => self.me.random.below(partition.tiles()),
            _ => usize::MAX,
        }
    }

    /// Leases a field as a whole.
    pub fn use_field(&mut self) {
        let (which, _, partition) = self.any_partition();
        let field = &self.world.fields[which];
        if self.me.random.one_in(2) {
            return self.overwrite_field(field);
        }
        let x = match self.table.read(field.array.handle) {
            Ok(x) => x,
            Err(error) => {
                if self.refused(error) {
                    self.heal_field(field);
                }
                return;
            }
        };
        self.me.count(Count::Reads);
        for tile in 0..partition.tiles() {
            let slices = tile_slice(&partition, tile);
            let at = place(field.array.bits(), Some(tile));
            self.check(at, &x.slice(slices), Some(field.array.index));
        }
    }

    fn overwrite_field(&mut self, field: &Field) {
        let partition = match self.table.open_partition(field.partitions[0]) {
            Ok(partition) => partition,
            Err(error) => self.me.found(format!("open_partition: {error}")),
        };
        let mut x = match self.table.write(field.array.handle) {
            Ok(x) => x,
            Err(error) => {
                let _ = self.refused(error);
                return;
            }
        };
        self.me.count(Count::Writes);
        let author = self.me.author();
        write_tiles(x.view_mut(), &partition, field.array.bits(), author);
        for tile in 0..partition.tiles() {
            let slices = tile_slice(&partition, tile);
            let at = place(field.array.bits(), Some(tile));
            match Pattern::read(at, x.slice(slices)) {
                Ok(found) if found.author == author => {}
                Ok(found) => self.me.found(format!(
                    "tile {tile} of {which}: under the lease with which it was written there is \
                     {found:?}",
                    which = field.array.handle
                )),
                Err(torn) => self.me.found(format!("under an own lease: {torn}")),
            }
        }
        self.world.board.end_healing(field.array.index);
    }
}

/// Claims tiles, and checks and writes each.
fn work(
    world: &World,
    me: &mut Me,
    (which, number): (usize, usize),
    mut part: RoundMember<'_, '_, Tiles>,
    most: usize,
) {
    let field = &world.fields[which];
    let round = part.round();
    let ours = stamp(number, round);
    let seen = &world.lasting[field.whole];
    for _ in 0..most {
        let mut tile = match part.claim() {
            Ok(Some(tile)) => tile,
            Ok(None) => return,
            Err(error) => me.found(format!("claim: {error}")),
        };
        let index = tile.index();
        let at = place(field.array.bits(), Some(index));
        let (mut x, whole) = tile.views();
        match Pattern::read(at, x.view()) {
            Ok(found) if found.stamp >> ROUND_BITS == ours >> ROUND_BITS && found.stamp >= ours => {
                me.found(format!(
                    "tile {index} of partition {number} of field {which} is claimed in round \
                     {round}, and has {found:?}"
                ))
            }
            Ok(_) => {}
            Err(_) if world.board.is_healing(field.array.index) => me.count(Count::Tolerated),
            Err(torn) => me.found(format!(
                "tile {index} of field {which}, round {round} of partition {number}: {torn}"
            )),
        }
        let pattern = Pattern::new(at, me.author(), ours);
        if me.random.one_in(3000) {
            // Leave the tile half-written: new elements first, old ones after them.
            x.slice_mut(ndarray::s![..1, ..]).fill(1);
            me.count(Count::TilesTorn);
            tile.tear();
            continue;
        }
        if me.random.one_in(60) {
            // Stay half-written long enough to be killed, stopped, or abandoned by the opener.
            x.slice_mut(ndarray::s![..1, ..]).fill(1);
            me.random.nap(300);
        }
        pattern.write(x.view_mut());
        match Pattern::read(at, x.view()) {
            Ok(found) if found == pattern => me.count(Count::Tiles),
            Ok(found) => me.found(format!(
                "tile {index} of field {which}: wrote {pattern:?}, but read {found:?}"
            )),
            Err(torn) => me.found(format!(
                "tile {index} of field {which}: wrote {pattern:?}, but read: {torn}"
            )),
        }
        // No process writes the whole array while the round runs.
        if let Err(torn) = Pattern::read(seen.bits(), whole)
            && !world.board.is_healing(seen.index)
        {
            me.found(format!("lasting array {} in a round: {torn}", field.whole));
        }
    }
}
