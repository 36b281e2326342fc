//! The calls of a participant in rounds.

use ndarray::Ix1;
use ndshm::error::{LeaseError, RoundError};
use ndshm::{HandleTable, Round, Write};

use crate::participant::{Participant, Tiles, common};
use crate::reference::TORN;
use crate::world::{TILE_WORDS, TILES};

type Running<'p, 't> = Round<'p, 't, Write<u64, Ix1>>;

impl Participant<'_> {
    /// Opens a round. Heals the array if a participant died in an earlier round.
    pub fn begin<'p, 't>(
        &self,
        table: &HandleTable,
        tiles: &'p Tiles<'t>,
    ) -> Option<Running<'p, 't>> {
        match self.other(|| tiles.begin()) {
            Ok(round) => {
                let begun = &mut self.world.notes().rounds.begun;
                assert!(round.number() > *begun, "a round number is reused");
                *begun = round.number();
                Some(round)
            }
            Err(RoundError::Lease(LeaseError::Poisoned { .. })) => {
                // Or another participant has opened a round meanwhile.
                self.heal(table);
                None
            }
            Err(RoundError::Running { .. } | RoundError::Lease(LeaseError::Busy { .. })) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Clears the poison of the tiled array, whatever it contains.
    pub fn heal(&self, table: &HandleTable) {
        // The note covers the whole call. The call may take effect late, after others have healed
        // and written the array and a further participant has died; then it clears that poison as
        // well.
        self.world.notes().rounds.healing.insert(self.who);
        let _ = self.other(|| table.clear_poison(self.world.tiled));
        let rounds = &mut self.world.notes().rounds;
        rounds.healing.remove(&self.who);
        rounds.healed.extend(0..TILES);
    }

    /// Reads the tiled array, and checks that half-written tiles are poisoned, or were.
    pub fn look(&self, table: &HandleTable) {
        self.other(|| match table.read(self.world.tiled) {
            // Check under the lease, while no participant writes tiles or notes them as written.
            Ok(seen) => {
                let rounds = &self.world.notes().rounds;
                for (tile, words) in seen.to_vec().chunks(TILE_WORDS).enumerate() {
                    let good = common(words) != TORN
                        || rounds.healed.contains(&tile)
                        || !rounds.healing.is_empty();
                    assert!(good, "tile {tile} is half-written, but not poisoned");
                }
            }
            Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        });
    }

    /// Takes part in the running round. Reads the array if no round runs.
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

    /// Ends the round if all of its tiles are done or torn; otherwise returns it.
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
