//! The beginning and the end of a program, run by the surviving participant.

use ndshm::HandleTable;

use crate::participant::Participant;
use crate::program::Act;
use crate::reference::{Answer, Question};
use crate::world::{TILES, WORDS};

impl Participant<'_> {
    /// Creates arrays for all participants.
    pub fn share(&self, table: &HandleTable, arrays: u8) {
        for value in 0..u64::from(arrays) {
            if let Some(handle) = self.alloc(table, WORDS[0], value) {
                self.world.know(handle);
            }
        }
    }

    /// Reaps everything that the other participants held, and checks that live arrays are live for
    /// every participant and that no slot is missing. The answers go into the history.
    pub fn audit(&self, table: &HandleTable) {
        self.ask(Question::LastReap, || table.reap(), |_| Answer::Done)
            .unwrap();
        for known in self.world.all_known() {
            self.attach(table, known);
        }
        for known in self.world.all_fresh() {
            for act in [Act::ClearPoison(0), Act::Write(0), Act::Read(0)] {
                let lease = self.with_array(table, act, known, u64::from(u32::MAX));
                if let Some(lease) = lease {
                    self.end_lease(lease);
                }
            }
            self.with_array(table, Act::Free(0), known, 0);
        }
        let words = [WORDS[1], WORDS[0]];
        for words in words.into_iter().skip(usize::from(!self.world.has_large)) {
            while let Some(handle) = self.alloc(table, words, 0) {
                self.world.know(handle);
            }
        }
        self.last_round(table);
    }

    /// Checks that one more round is possible, whatever happened in the rounds before.
    fn last_round(&self, table: &HandleTable) {
        self.look(table);
        self.heal(table);
        let tiles = table.open_partition(self.world.tiles).unwrap();
        let round = self.begin(table, &tiles).expect("no round is open");
        self.run_tiles(table, &tiles, TILES as u8);
        assert!(self.finish(table, round).is_none(), "all tiles are done");
    }
}
