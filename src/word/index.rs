//! Numbers of entries of the tables, each with a type of its own.

/// The number of a bucket of names: one of the table's, or that of the bundle in a slot.
///
/// `BucketIndex::of_bundle` and its inverse are in `memory`, which knows the size of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub(crate) struct BucketIndex(usize);

impl BucketIndex {
    pub(crate) const fn new(index: usize) -> BucketIndex {
        BucketIndex(index)
    }

    pub(crate) const fn get(self) -> usize {
        self.0
    }
}
