//! Rounds in random programs: several participants hold tiles while other steps run.

use std::time::Duration;

use ndarray::{ArrayViewMutD, Axis, IxDyn, Slice};
use ndshm::error::{PartitionError, RoundError};
use ndshm::partition::Group;
use ndshm::{Partition, WholeArray, Write};

use crate::program::RoundPlan;
use crate::sample::{Sample, with_kind};
use crate::world::{World, typed};

/// A group in which one array is written.
trait OneWritten<T>: Group {
    fn written<'v>(views: Self::Views<'v>) -> ArrayViewMutD<'v, T>;
}

impl<T: Sample> OneWritten<T> for Write<T, IxDyn> {
    fn written<'v>(views: Self::Views<'v>) -> ArrayViewMutD<'v, T> {
        views
    }
}

impl<T: Sample> OneWritten<T> for (Write<T, IxDyn>, WholeArray<T, IxDyn>) {
    fn written<'v>((written, _): Self::Views<'v>) -> ArrayViewMutD<'v, T> {
        written
    }
}

impl World<'_> {
    pub fn round(&mut self, plan: &RoundPlan, depth: usize) {
        let array = plan.array.index(self.arrays.len());
        let kind = self.arrays[array].kind;
        let partner = plan.partner.map(|index| index.index(self.arrays.len()));
        let partner = partner.filter(|&partner| self.arrays[partner].kind == kind);
        with_kind!(kind, T => {
            let written = typed::<T>(self.arrays[array].handle).write();
            match partner {
                None => self.round_of::<T, _>(plan, depth, array, None, written),
                Some(other) => {
                    let group = (written, typed::<T>(self.arrays[other].handle).whole());
                    self.round_of::<T, _>(plan, depth, array, partner, group);
                }
            }
        });
    }

    fn round_of<T: Sample, G: OneWritten<T>>(
        &mut self,
        plan: &RoundPlan,
        depth: usize,
        array: usize,
        partner: Option<usize>,
        group: G,
    ) {
        let tables = self.tables;
        let len = self.arrays[array].contents.shape().get(plan.axis).copied();
        let stale = self.arrays[array].freed || partner.is_some_and(|at| self.arrays[at].freed);
        let made = tables[plan.opener].partition(group, Axis(plan.axis), plan.tile_len);
        let tiles = match made {
            Ok(tiles) => tiles,
            Err(error) => {
                assert!(match error {
                    PartitionError::Lease(_) => stale,
                    PartitionError::NoSuchAxis { .. } => len.is_none(),
                    PartitionError::Overlap { .. } => partner == Some(array),
                    _ => false,
                });
                return;
            }
        };
        assert!(!stale && partner != Some(array));
        assert_eq!(tiles.tiles(), len.unwrap().div_ceil(plan.tile_len));
        assert!(tiles.enter().unwrap().is_none(), "no round yet");
        let grantable = self.arrays[array].is_writable()
            && partner.is_none_or(|partner| self.arrays[partner].is_readable());
        match tiles.begin() {
            Err(RoundError::Lease(_)) => assert!(!grantable),
            Err(other) => panic!("{other}"),
            Ok(round) => {
                assert!(grantable);
                let running = tiles.begin().unwrap_err();
                assert!(matches!(running, RoundError::Running { round: 1, .. }));
                self.arrays[array].writer = Some(Some(plan.opener));
                self.reads(partner, plan.opener, true);
                let torn = self.play::<T, G>(plan, depth, array, partner, &tiles, round);
                self.arrays[array].poisoned |= torn && !self.arrays[array].freed;
            }
        }
    }

    fn reads(&mut self, array: Option<usize>, table: usize, comes: bool) {
        if let Some(array) = array {
            match comes {
                true => self.arrays[array].readers[table] += 1,
                false => self.arrays[array].readers[table] -= 1,
            }
        }
    }

    /// Runs the round. Returns `true` if a tile was torn.
    fn play<'t, T: Sample, G: OneWritten<T>>(
        &mut self,
        plan: &RoundPlan,
        depth: usize,
        array: usize,
        partner: Option<usize>,
        tiles: &Partition<'t, G>,
        round: ndshm::Round<'_, 't, G>,
    ) -> bool {
        let tables = self.tables;
        let opened: Vec<Partition<'_, G>> = plan
            .players
            .iter()
            .map(|&player| tables[player].open_partition(tiles.handle()).unwrap())
            .collect();
        let mut parts: Vec<_> = opened
            .iter()
            .map(|tiles| tiles.enter().unwrap().expect("the round runs"))
            .collect();
        for &player in &plan.players {
            self.reads(Some(array), player, true);
            self.reads(partner, player, true);
        }
        let mut held: Vec<_> = parts
            .iter_mut()
            .filter_map(|part| part.claim().unwrap())
            .collect();
        let mut rows: Vec<_> = held.iter().map(|tile| tile.range()).collect();
        if depth < 2 {
            self.run(&plan.during, depth + 1);
        }
        let mut round = Some(round);
        if plan.given_up {
            drop(round.take());
            let orphaned = !plan.players.is_empty();
            self.arrays[array].writer = orphaned.then_some(None);
            self.reads(partner, plan.opener, false);
            self.list(plan.opener);
        }
        let write = |world: &mut Self, view: G::Views<'_>, rows: std::ops::Range<usize>| {
            let slice = Slice::from(rows.clone());
            let contents = &mut world.arrays[array].contents;
            let mut expected = contents.slice_axis_mut(Axis(plan.axis), slice);
            let mut view = G::written(view);
            assert_eq!(view.mapv(T::number), expected);
            let element = T::of(plan.seed.wrapping_add(rows.start as u64));
            view.fill(element);
            expected.fill(element.number());
        };
        let mut torn = None;
        for (at, mut tile) in held.drain(..).enumerate() {
            let rows = tile.range();
            write(self, tile.views(), rows.clone());
            if plan.torn && at == 0 {
                tile.tear();
                torn = Some(rows);
            }
        }
        drop(held);
        let Some(round) = round else {
            drop(parts);
            self.leave(plan, array, partner);
            self.arrays[array].writer = None;
            return torn.is_some();
        };
        // The players claim the remaining tiles in turns.
        loop {
            let before = rows.len();
            for part in &mut parts {
                if let Some(mut tile) = part.claim().unwrap() {
                    rows.push(tile.range());
                    let own = tile.range();
                    write(self, tile.views(), own);
                }
            }
            if rows.len() == before {
                break;
            }
        }
        drop(parts);
        self.leave(plan, array, partner);
        let outcome = match plan.players.is_empty() {
            true => round.finish(Duration::ZERO),
            false => round.finish(Duration::from_secs(10)),
        };
        self.arrays[array].writer = None;
        self.reads(partner, plan.opener, false);
        rows.sort_by_key(|rows| rows.start);
        if !plan.players.is_empty() || tiles.tiles() == 0 {
            let all: Vec<_> = (0..tiles.tiles()).map(|tile| tiles.range(tile)).collect();
            assert_eq!(rows, all, "each tile was handed out once");
        }
        match (outcome, &torn) {
            (Ok(()), None) => {}
            (Err(RoundError::Torn { rows, round: 1, .. }), Some(torn)) => {
                assert_eq!(rows, std::slice::from_ref(torn));
            }
            (Err(RoundError::Deadline { done: 0, .. }), None) => {
                assert!(plan.players.is_empty() && tiles.tiles() > 0);
            }
            (outcome, _) => panic!("{outcome:?}"),
        }
        torn.is_some()
    }

    fn leave(&mut self, plan: &RoundPlan, array: usize, partner: Option<usize>) {
        for &player in &plan.players {
            self.reads(Some(array), player, false);
            self.reads(partner, player, false);
        }
    }
}
