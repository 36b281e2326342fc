//! The name of an array whose handle is known, for error texts.

use super::buckets::Buckets;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::table::HandleTable;

impl HandleTable {
    /// Returns a name that the array was given, if it has one and it can be read at this moment.
    ///
    /// The descriptor notes one bucket, which may be out of date: then there is no name. It is for
    /// people to read, so that an error here is no name either.
    #[cold]
    pub(crate) fn name_of(&self, handle: AnyHandle) -> Option<String> {
        // Models of leases do not look at names, whose records would add steps to each refusal.
        if cfg!(loom) {
            return None;
        }
        let (slot, _) = self.look().live(handle).ok()?;
        // A record is named by its flags, and is in no bucket itself.
        if !slot.word().is_named() || self.look().usable(handle).is_err() {
            return None;
        }
        let buckets = Buckets { table: self };
        let noted = Descriptor::named_in(self.segment().memory().descriptor(slot.index));
        let bucket = usize::try_from(noted).ok()?;
        if bucket >= buckets.count() {
            return None;
        }
        let names = buckets.read(bucket).ok()?.contents.names;
        let mut names = names
            .iter()
            // One that has not arrived yet may never do so.
            .filter(|(_, value)| value.handle == handle && value.arrival.is_none());
        names.next().map(|(name, _)| name.text())
    }
}
