//! What one participant does in rounds.

use ndarray::Ix1;
use ndshm::{HandleTable, LeaseError, Round, RoundError, Write};

use crate::participant::{Participant, Tiles, common};
use crate::reference::TORN;
use crate::world::{TILE_WORDS, TILES};

type Running<'p, 't> = Round<'p, 't, Write<u64, Ix1>>;

impl Participant<'_> {
    /// Opens a round; heals the array if somebody died in an earlier one.
    pub fn begin<'p, 't>(
        &self,
        table: &HandleTable,
        tiles: &'p Tiles<'t>,
    ) -> Option<Running<'p, 't>> {
        match self.other(|| tiles.begin()) {
            Ok(round) => {
                let begun = &mut self.world.notes().rounds.begun;
                assert!(
                    round.number() > *begun,
                    "the number of a round is used again"
                );
                *begun = round.number();
                Some(round)
            }
            Err(RoundError::Lease(LeaseError::Poisoned { .. })) => {
                // Or somebody else has begun meanwhile.
                self.heal(table);
                None
            }
            Err(RoundError::Running { .. } | RoundError::Lease(LeaseError::Busy { .. })) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Declares the tiled array to be good, whatever is in it.
    pub fn heal(&self, table: &HandleTable) {
        // From its first step to its last: it may come late, when others have healed and written the
        // array, and a further one has died. Its word is taken for that, too.
        self.world.notes().rounds.healing.insert(self.who);
        let _ = self.other(|| table.clear_poison(self.world.tiled));
        let rounds = &mut self.world.notes().rounds;
        rounds.healing.remove(&self.who);
        rounds.healed.extend(0..TILES);
    }

    /// Looks at the tiled array: what is half-written is poisoned, or was.
    pub fn look(&self, table: &HandleTable) {
        self.other(|| match table.read(self.world.tiled) {
            // Under the lease, while nobody writes tiles, or down that they are written.
            Ok(seen) => {
                let rounds = &self.world.notes().rounds;
                for (tile, words) in seen.to_vec().chunks(TILE_WORDS).enumerate() {
                    let good = common(words) != TORN
                        || rounds.healed.contains(&tile)
                        || !rounds.healing.is_empty();
                    assert!(good, "tile {tile} is half-written, and nobody says so");
                }
            }
            Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        });
    }

    /// Takes part in the round that runs; looks at the array if none does.
    pub fn run_tiles(&self, table: &HandleTable, tiles: &Tiles<'_>, count: u8) {
        let mut part = match self.other(|| tiles.enter()) {
            Ok(Some(part)) => part,
            Ok(None) => return self.look(table),
            Err(RoundError::Lease(LeaseError::Busy { .. })) => return,
            Err(error) => panic!("{error}"),
        };
        for _ in 0..count {
            let Some(mut tile) = self.other(|| part.claim()).expect("the array lives") else {
                break;
            };
            let place = (tile.round(), tile.index());
            assert!(
                self.world.notes().rounds.claimed.insert(place),
                "tile {} is claimed twice in round {}",
                place.1,
                place.0
            );
            let mut words = tile.views();
            words[0] = place.0;
            self.half_written();
            words[1] = place.0;
            {
                let rounds = &mut self.world.notes().rounds;
                rounds.written.insert(place);
                rounds.healed.remove(&place.1);
            }
            self.other(|| drop(tile));
        }
        self.other(|| drop(part));
    }

    /// Ends a round if all of its tiles are done or torn; gives it back if not.
    pub fn finish<'p, 't>(
        &self,
        table: &HandleTable,
        round: Running<'p, 't>,
    ) -> Option<Running<'p, 't>> {
        let number = round.number();
        let torn = match self.other(|| round.try_finish().map_err(Box::new)) {
            Err(running) => return Some(*running),
            Ok(Ok(())) => Vec::new(),
            Ok(Err(RoundError::Torn { tiles, .. })) => tiles,
            Ok(Err(error)) => panic!("{error}"),
        };
        {
            let rounds = &mut self.world.notes().rounds;
            rounds.finished += 1;
            rounds.torn += u64::from(!torn.is_empty());
            for tile in (0..TILES).filter(|tile| !torn.contains(tile)) {
                let written = rounds.written.contains(&(number, tile));
                assert!(written, "round {number} is over without tile {tile}");
            }
        }
        let seen = self.other(|| table.read(self.world.tiled).map(|array| array.to_vec()));
        match seen {
            Ok(seen) if self.world.notes().rounds.begun == number && torn.is_empty() => {
                assert_eq!(
                    seen,
                    [number; TILES * TILE_WORDS],
                    "round {number} was not whole"
                );
            }
            Ok(_) => {}
            Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        None
    }
}
