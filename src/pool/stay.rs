//! A worker's stay in a kept round: its participation from job to job, without its group's type.

use core::any::TypeId;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::error::Error;
use crate::handle_table::HandleTable;
use crate::partition::{Group, PartitionHandle, RoundMember};

/// The round that a worker enters, and the worker's place in it.
pub(super) struct Place<'a> {
    pub(super) table: &'a HandleTable,
    /// The partition's handle.
    pub(super) partition: u64,
    pub(super) worker: usize,
    pub(super) workers: usize,
}

/// The code that enters a round of a typed partition: [`enter`].
pub(super) type Entry = fn(&Place<'_>, &dyn Fn(KeptMember<'_>)) -> Result<(), Error>;

/// Enters the running round of a partition, and calls `jobs` with the participant. Does not call it if no
/// round runs.
pub(super) fn enter<G: Group>(
    place: &Place<'_>,
    jobs: &dyn Fn(KeptMember<'_>),
) -> Result<(), Error> {
    let handle = PartitionHandle::<G>::from_bits(place.partition);
    let partition = place.table.open_partition(handle)?;
    if let Some(mut part) = partition.enter_at(place.worker, place.workers)? {
        jobs(KeptMember::new(&mut part));
    }
    Ok(())
}

/// A participant of a round, whose group only the code of a kernel knows.
pub(super) struct KeptMember<'a> {
    member: NonNull<()>,
    group: TypeId,
    borrow: PhantomData<&'a mut ()>,
}

impl<'a> KeptMember<'a> {
    fn new<G: Group>(member: &'a mut RoundMember<'_, '_, G>) -> KeptMember<'a> {
        KeptMember {
            member: NonNull::from(member).cast(),
            group: TypeId::of::<G>(),
            borrow: PhantomData,
        }
    }

    /// Borrows the participant for one job.
    pub(super) fn reborrow(&mut self) -> KeptMember<'_> {
        KeptMember {
            borrow: PhantomData,
            ..*self
        }
    }

    /// Calls `run` with the participant, if it is one of a group `G`.
    pub(super) fn with<G: Group, R>(
        self,
        run: impl FnOnce(&mut RoundMember<'_, '_, G>) -> R,
    ) -> Option<R> {
        if self.group != TypeId::of::<G>() {
            return None;
        }
        let mut member = self.member.cast::<RoundMember<'_, '_, G>>();
        // SAFETY: `new` made the pointer of a `&'a mut RoundMember` of this group, and `'a` goes on.
        // This value has the borrow alone: it is not `Clone`, and a reborrow borrows it mutably. The
        // lifetimes of the participant's own borrows are lost, but `run` takes any, so it can neither
        // put in a value with shorter ones nor take one out.
        let member = unsafe { member.as_mut() };
        Some(run(member))
    }
}
