//! The text of a collective call, by which ranks compare their calls.

use std::fmt::{self, Write};

use bytemuck::{Pod, Zeroable};

/// A call with its arguments, as a text of fixed size. A longer text is cut, but its hash has all of
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Call {
    hash: u64,
    len: u64,
    text: [u8; 96],
}

impl Call {
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Call {
        let mut call = Call {
            hash: 0xcbf2_9ce4_8422_2325,
            len: 0,
            text: [0; 96],
        };
        // Writing into the call never fails.
        let _ = call.write_fmt(text);
        call
    }

    pub(crate) fn text(&self) -> String {
        let len = (self.len as usize).min(self.text.len());
        String::from_utf8_lossy(&self.text[..len]).into_owned()
    }

    /// Returns the hash of this call after the calls with the hash `before`.
    pub(crate) fn after(&self, before: u64) -> u64 {
        (before.rotate_left(5) ^ self.hash).wrapping_mul(0x0000_0100_0000_01b3)
    }
}

impl fmt::Write for Call {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for &byte in part.as_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let at = self.len as usize;
        let room = self.text.len() - at;
        let mut fits = part.len().min(room);
        while !part.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text[at..at + fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_beyond_the_text_count() {
        let long = |last| Call::new(format_args!("{:>200}{last}", ""));
        assert!(long(1) != long(2) && long(1).text() == long(2).text());
        assert_eq!(Call::new(format_args!("sum of {}", 3)).text(), "sum of 3");
        assert_ne!(long(1).after(0), long(1).after(1));
    }
}
