//! Sizes in the mailbox.

/// Words between contended words, which puts them on separate cache lines.
pub(crate) const LINE: usize = 16;
/// Words of parameters that fit into the mailbox.
pub(crate) const PARAM_WORDS: usize = 24;
/// Words of a failure's message that are kept.
pub(crate) const TEXT_WORDS: usize = 48;
