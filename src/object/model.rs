//! Objects in a build for models: only their error, because a model's tables have no room for the
//! layout of their blocks.

#[path = "error.rs"]
pub(crate) mod error;
