//! Sizes in the mailbox of a model, which has small arrays.

/// Words between contended words. A model has no cache lines.
pub(crate) const LINE: usize = 1;
/// Words of parameters that fit into the mailbox.
pub(crate) const PARAM_WORDS: usize = 2;
/// Words of a failure's message that are kept.
pub(crate) const TEXT_WORDS: usize = 2;
