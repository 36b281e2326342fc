/// Bytes in a segment's tables that no participant writes: another program, or a fault of this one,
/// has changed them.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the segment is damaged at byte {offset:#x}: {what}")]
pub struct Corrupt {
    /// The place of the damage, in bytes from the start of the segment.
    pub offset: u64,
    /// The check that failed.
    pub what: &'static str,
}

crate::message::debug_is_display!(Corrupt);
