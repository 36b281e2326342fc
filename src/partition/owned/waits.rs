//! The steps of waiting for a round to open, and for its end: looks with the table, and pauses
//! without it.
//!
//! The table may be behind a lock of the process. Each look is made under that lock and returns the
//! round word on which it was based. The pause is made without the lock, on that word: a change that
//! comes between the two ends the pause at once.

use core::time::Duration;

use super::super::control::Control;
use super::super::{Entered, Look, Next, Partition, UntypedGroup, Wait};
use super::{OwnedMember, OwnedPartition, damaged};
use crate::partition::error::RoundError;
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::word::RoundWord;

impl OwnedPartition {
    /// Looks for a round later than `after`, and enters it.
    pub(crate) fn look_for_round(
        &mut self,
        core: &Core,
        after: u64,
    ) -> Result<Look<Entered<OwnedMember>>, RoundError> {
        self.look(core, |partition, _, now| {
            if now.round() <= after {
                return Ok(None);
            }
            let own = match partition.twin() {
                Ok(own) => own,
                // The partition was freed: the look tells it.
                Err(LeaseError::Stale { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let member = match own.enter_after(now, 0, after)? {
                Some(Entered::Member(member)) => member,
                Some(Entered::Over { round }) => return Ok(Some(Entered::Over { round })),
                Some(Entered::Freed) => return Ok(Some(Entered::Freed)),
                None => return Ok(None),
            };
            let (round, member) = (member.round(), member.part());
            let member = OwnedMember::new(core, round, own.part(), member);
            Ok(Some(Entered::Member(member)))
        })
    }

    /// Looks for the outcome of `round`.
    pub(crate) fn look_for_end(
        &mut self,
        core: &Core,
        round: u64,
    ) -> Result<Look<Result<(), RoundError>>, RoundError> {
        self.look(core, |_, control, now| Ok(control.outcome(round, now)))
    }

    fn look<R>(
        &mut self,
        core: &Core,
        attempt: impl FnOnce(
            &Partition<'_, UntypedGroup>,
            &Control<'_>,
            RoundWord,
        ) -> Result<Option<R>, RoundError>,
    ) -> Result<Look<R>, RoundError> {
        let handle = self.handle;
        self.with(core, |partition| {
            let control = partition.own_words();
            let control = control.ok_or_else(|| damaged(core, handle.into()))?;
            let look = partition.look(&control, |control, now| attempt(partition, control, now))?;
            if let Look::NotYet(seen) = look
                && !seen.is_running()
                && seen.is_held_by(core.own_seat())
            {
                // Another thread has dropped the round since this call emptied the inbox. Only this
                // table settles it, which changes the word and so ends the pause.
                core.empty_inbox();
            }
            Ok(look)
        })
    }

    /// Pauses after a look that has read the word `seen`. Uses no table.
    pub(crate) fn pause(&self, wait: &mut Wait, seen: RoundWord) -> Next {
        let slot = self.kept.parts.as_ref().map(|parts| parts.lease.slot());
        // The lease of this value keeps the words in place meanwhile.
        let control = slot.and_then(|slot| Control::of(self.kept.segment.memory(), slot));
        match control {
            Some(control) => wait.pause(&control, seen),
            // The next look returns an error.
            None => Next::Look,
        }
    }

    /// Returns the error of a wait for the end of `round` that has ended after `timeout`.
    pub(crate) fn not_over(
        &mut self,
        core: &Core,
        round: u64,
        timeout: Duration,
    ) -> Result<(), RoundError> {
        self.with(core, |partition| Err(partition.not_over(round, timeout)))
    }
}
