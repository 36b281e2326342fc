//! Bundles as seen by observers: which there are, and their parts.

use super::Observer;
use crate::bundle::{BundleError, BundleHandle};
use crate::descriptor::{Descriptor, WrongKind};
use crate::handle::AnyHandle;
use crate::names::NameInfo;
use crate::seat::ParticipantInfo;
use crate::table::error::LeaseError;
use crate::table::locate::TableView;
use crate::table::slot::Slot;
use crate::word::{BucketIndex, SlotWord};

/// The state of a live bundle, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BundleInfo {
    /// The bundle's handle.
    pub handle: BundleHandle,
    /// The process that owns it; `None` if it is detached.
    pub owner: Option<u32>,
    /// Nobody can insert or remove parts any more.
    pub frozen: bool,
    /// Its parts, sorted by name.
    pub parts: Vec<NameInfo>,
}

impl Observer {
    /// Returns all live bundles, in the order of their slots. Leaves out a bundle with an invalid
    /// list of parts, which [`verify`](Observer::verify) reports.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let model = table.bundle()?;
    /// model.insert("w", table.zeros::<f64, _>(3)?)?;
    /// assert_eq!(observer.bundles()[0].handle, model.handle());
    /// assert_eq!(observer.bundles()[0].parts[0].name, "w");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bundles(&self) -> Vec<BundleInfo> {
        self.seen(|look| {
            let live = Slot::all(look.memory).filter_map(|(slot, _)| {
                let (word, words) = (slot.word(), look.memory.descriptor(slot.index));
                let live = word.is_live(word.generation()) && Descriptor::is_bundle(words);
                live.then(|| AnyHandle::pack(look.key, slot.index, word.generation()))
            });
            live.filter_map(|handle| self.bundle_by(look, handle).ok())
                .collect()
        })
    }

    /// Returns the state and the parts of the bundle that a handle names.
    ///
    /// ```
    /// use ndshm::{HandleTable, Observer, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let model = table.bundle()?;
    /// model.insert("step", table.from_elem((), 17_u64)?)?;
    ///
    /// let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let seen = observer.bundle(model.handle())?;
    /// assert_eq!(seen.parts[0].name, "step");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::Lease`] with [`WrongKind`](LeaseError::WrongKind) if the handle names
    ///   something else, and with [`Stale`](LeaseError::Stale) if the bundle was freed.
    /// - [`BundleError::Name`] if the list of parts is damaged.
    pub fn bundle(&self, handle: impl Into<BundleHandle>) -> Result<BundleInfo, BundleError> {
        let handle = AnyHandle::from(handle.into());
        self.found(|look| self.bundle_by(look, handle))
    }

    fn bundle_by(&self, look: TableView<'_>, handle: AnyHandle) -> Result<BundleInfo, BundleError> {
        let (slot, generation) = look.live(handle)?;
        let words = look.memory.descriptor(slot.index);
        if !Descriptor::is_bundle(words) {
            let wrong = WrongKind::found_in(handle, words, look.memory, "a bundle");
            return Err(LeaseError::from(wrong).into());
        }
        let bucket = BucketIndex::of_bundle(look.memory, slot.index);
        let contents = self.at_names(look).parts(bucket);
        let word: SlotWord = slot.word();
        // Check the word again: if it is unchanged, the bucket was this bundle's until now.
        if !word.is_live(generation) {
            return Err(LeaseError::Stale { handle }.into());
        }
        let (frozen, parts) = contents?;
        let owner = word.owner();
        let owned = !word.is_detached() && !owner.is_none();
        Ok(BundleInfo {
            handle: BundleHandle::from_bits(handle.to_bits()),
            owner: owned.then(|| ParticipantInfo::of(look.memory, owner).pid),
            frozen,
            parts,
        })
    }
}
