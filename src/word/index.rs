//! Numbers of entries of the tables, each with a type of its own.

/// Declares a type for the number of an entry, from 0.
macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(usize);

        impl $name {
            pub(crate) const fn new(index: usize) -> $name {
                $name(index)
            }

            pub(crate) const fn get(self) -> usize {
                self.0
            }
        }
    };
}

index_type! {
    /// The number of a slot.
    SlotIndex
}

index_type! {
    /// The number of a span.
    SpanIndex
}

index_type! {
    /// The number of a bucket of names: one of the table's, or that of the bundle in a slot.
    ///
    /// `BucketIndex::of_bundle` and its inverse are in `memory`, which knows the size of the table.
    BucketIndex
}
