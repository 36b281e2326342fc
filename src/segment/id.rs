//! What processes tell each other about a segment: its id, and where a process has it.

use std::fmt;
use std::str::FromStr;

/// The random number of a segment, which no other segment has.
///
/// It is the same in every process, from the creation of the segment to its end, and tells whether
/// a process has opened a certain segment already. It is no secret: it opens nothing, and no handle
/// can be made from it.
///
/// ```
/// use ndshm::Segment;
/// use ndshm::segment::SegmentId;
///
/// let segment = Segment::anonymous()?;
/// let again = Segment::from_fd(segment.inheritable_fd()?)?;
/// assert_eq!(again.id(), segment.id());
/// assert_ne!(Segment::anonymous()?.id(), segment.id());
/// assert_eq!(segment.id().to_string().parse(), Ok(segment.id()));
/// assert_eq!(SegmentId::from_bits(segment.id().to_bits()), segment.id());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    bits: u64,
}

impl SegmentId {
    /// Creates an id from its bits.
    pub const fn from_bits(bits: u64) -> SegmentId {
        SegmentId { bits }
    }

    /// Returns the bits, to pass the id on.
    pub const fn to_bits(self) -> u64 {
        self.bits
    }
}

/// Writes 16 hexadecimal digits.
impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.bits)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentId({self})")
    }
}

impl FromStr for SegmentId {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<SegmentId, ParseAddressError> {
        parse_id(text).ok_or_else(|| ParseAddressError::new("segment id", text))
    }
}

/// Where a process has a segment: its pid, the number of its descriptor, and the segment's id.
///
/// [`Segment::peer_address`](crate::Segment::peer_address) returns it, and
/// [`Segment::open_peer`](crate::Segment::open_peer) opens it. It is sent as a text,
/// `PID:FD:ID`, or as three numbers.
///
/// ```
/// use ndshm::segment::PeerAddress;
///
/// let address: PeerAddress = "4711:3:00c0ffee00c0ffee".parse()?;
/// assert_eq!((address.pid(), address.fd()), (4711, 3));
/// assert_eq!(PeerAddress::new(4711, 3, address.id()), address);
/// assert_eq!(address.to_string(), "4711:3:00c0ffee00c0ffee");
/// # Ok::<(), ndshm::error::ParseAddressError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddress {
    pid: u32,
    fd: u32,
    id: SegmentId,
}

impl PeerAddress {
    /// Creates an address from its numbers. Opening it checks them.
    ///
    /// [`PeerAddress`] has an example.
    pub const fn new(pid: u32, fd: u32, id: SegmentId) -> PeerAddress {
        PeerAddress { pid, fd, id }
    }

    /// Returns the pid, as the process that made the address sees it.
    ///
    /// [`PeerAddress`] has an example.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the number of the descriptor in that process.
    ///
    /// [`PeerAddress`] has an example.
    pub const fn fd(&self) -> u32 {
        self.fd
    }

    /// Returns the segment's id.
    ///
    /// [`PeerAddress`] has an example.
    pub const fn id(&self) -> SegmentId {
        self.id
    }
}

/// Writes `PID:FD:ID`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.fd, self.id)
    }
}

impl FromStr for PeerAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<PeerAddress, ParseAddressError> {
        parse_address(text).ok_or_else(|| ParseAddressError::new("address of a segment", text))
    }
}

fn parse_id(text: &str) -> Option<SegmentId> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = digits.then(|| u64::from_str_radix(text, 16).ok())??;
    Some(SegmentId { bits })
}

fn parse_address(text: &str) -> Option<PeerAddress> {
    let mut parts = text.split(':');
    let mut part = || parts.next();
    let (pid, fd, id) = (part()?, part()?, part()?);
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let address = PeerAddress::new(number(pid)?, number(fd)?, parse_id(id)?);
    parts.next().is_none().then_some(address)
}

/// A text that is neither a segment's id nor its address.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {what} {text:?}: an id has 16 hexadecimal digits, as in 00c0ffee00c0ffee, and an \
     address is PID:FD:ID, as Segment::peer_address returns it"
)]
pub struct ParseAddressError {
    what: &'static str,
    text: String,
}

impl ParseAddressError {
    fn new(what: &'static str, text: &str) -> ParseAddressError {
        // A text from elsewhere may be of any length.
        let text = text.chars().take(64).collect();
        ParseAddressError { what, text }
    }
}

crate::message::debug_is_display!(ParseAddressError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_address_are_refused() {
        let id = "0123456789abcdef";
        for text in [
            String::new(),
            "1:2".into(),
            format!("1:2:{id}:"),
            format!("1:2:{id}0"),
            format!("-1:2:{id}"),
            format!("+1:2:{id}"),
            format!("1:4294967296:{id}"),
            format!(":2:{id}"),
            "1:2:+123456789abcdef".into(),
            "1:2:x".repeat(1000),
        ] {
            let error = text.parse::<PeerAddress>().unwrap_err();
            assert!(error.to_string().len() < 250, "{error}");
        }
        let refused = "+123456789abcdef".parse::<SegmentId>();
        assert!(refused.is_err());
        let address = PeerAddress::new(u32::MAX, 0, SegmentId::from_bits(u64::MAX));
        assert_eq!(address.to_string().parse(), Ok(address));
    }
}
