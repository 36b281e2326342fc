//! Names of arrays in error texts, from their handles.

use super::buckets::Buckets;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::table::core::Core;

impl Core {
    /// Returns a name of the array, if it has one that can be read at this moment.
    ///
    /// The descriptor notes one bucket, which may be out of date. Then this returns `None`, and
    /// also on an error: the name is only for people to read.
    #[cold]
    pub(crate) fn name_of(&self, handle: AnyHandle) -> Option<String> {
        // Models of leases skip names: reading records would add steps to each refusal.
        if cfg!(loom) {
            return None;
        }
        let (slot, _) = self.tables().live(handle).ok()?;
        // Records are NAMED too, but they have no name.
        if !slot.word().is_named() || self.tables().usable(handle).is_err() {
            return None;
        }
        let buckets = Buckets { table: self };
        let bucket = Descriptor::named_in(self.segment().memory().descriptor(slot.index));
        if bucket.get() >= buckets.count() {
            return None;
        }
        let names = buckets.read(bucket).ok()?.contents.names;
        let mut names = names
            .iter()
            // An arrival may never become a name.
            .filter(|(_, value)| value.handle == handle && value.arrival.is_none());
        names.next().map(|(name, _)| name.text())
    }
}
