//! Chapters: what takes longer to tell than an item's documentation has room for.

#[doc = include_str!("model_check.md")]
pub mod model_check {}
