//! Objects of the Python package: a pickle and its buffers. The tool runs no pickle, and tells only
//! the sizes.

use std::fmt;

use ndshm::Observer;
use ndshm::inspect::ArrayInfo;
use serde_json::{Value as Json, json};

use crate::output::{Failure, bytes};

/// The version of the layout: see `layout.rs` of the Python package.
const VERSION: u64 = 1;
/// The bytes of a number.
const WORD: u64 = 8;
/// The numbers before the lengths of the buffers: version, length of the pickle, number of buffers.
const FIXED: usize = 3;
/// The most buffers whose sizes the tool reads.
const MOST: u64 = 1 << 20;
/// Buffers start on multiples of this.
const ALIGN: u64 = 64;

/// The sizes of an object.
#[derive(PartialEq, Eq, Debug)]
pub struct Pickled {
    bytes: u64,
    pickle: u64,
    buffers: Vec<u64>,
}

impl Pickled {
    /// Reads the sizes of an object.
    pub fn read(observer: &Observer, info: &ArrayInfo) -> Result<Pickled, Failure> {
        let damaged = || {
            Failure::damaged(format_args!(
                "the Python object {} is damaged, or of another version of ndshm",
                info.handle
            ))
        };
        let words = |first: u64, count: usize| -> Result<Vec<u64>, Failure> {
            let mut words = vec![0u64; count];
            let bytes = ndshm::bytemuck::cast_slice_mut(&mut words);
            observer.copy_bytes(info.handle, first * WORD, bytes)?;
            Ok(words)
        };
        if info.bytes < FIXED as u64 * WORD {
            return Err(damaged());
        }
        let head = words(0, FIXED)?;
        if head[0] != VERSION || head[2] > info.bytes / WORD - FIXED as u64 {
            return Err(damaged());
        }
        if head[2] > MOST {
            return Err(Failure::refused(format_args!(
                "the Python object {} has {} buffers, and the tool reads the sizes of at most \
                 {MOST}: open it in Python",
                info.handle, head[2]
            )));
        }
        let buffers = words(FIXED as u64, head[2] as usize)?;
        Pickled::of(info.bytes, head[1], buffers).ok_or_else(damaged)
    }

    /// Returns the sizes, or `None` if the parts do not end where the object ends.
    fn of(bytes: u64, pickle: u64, buffers: Vec<u64>) -> Option<Pickled> {
        let header = (FIXED + buffers.len()) as u64 * WORD;
        let end = buffers
            .iter()
            .try_fold(header.checked_add(pickle)?, |end, len| {
                end.checked_next_multiple_of(ALIGN)?.checked_add(*len)
            });
        (end == Some(bytes)).then_some(Pickled {
            bytes,
            pickle,
            buffers,
        })
    }

    /// Returns the document that `get` prints.
    pub fn document(&self, info: &ArrayInfo) -> Json {
        json!({
            "handle": info.handle.to_string(),
            "kind": "python",
            "bytes": self.bytes,
            "pickle": self.pickle,
            "buffers": self.buffers,
        })
    }
}

impl fmt::Display for Pickled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers: u64 = self.buffers.iter().sum();
        let count = match self.buffers.len() {
            0 => "no buffers".into(),
            1 => format!("1 buffer of {}", bytes(buffers)),
            count => format!("{count} buffers of {} in all", bytes(buffers)),
        };
        write!(
            f,
            "a Python object, {}: a pickle of {}, {count}",
            bytes(self.bytes),
            bytes(self.pickle)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_must_add_up() {
        let one = Pickled::of(64 + 100, 10, vec![100]).unwrap();
        assert_eq!(
            one.to_string(),
            "a Python object, 164 bytes: a pickle of 10 bytes, 1 buffer of 100 bytes"
        );
        let none = Pickled::of(34, 10, vec![]).unwrap();
        assert!(none.to_string().ends_with("no buffers"), "{none}");
        assert_eq!(Pickled::of(163, 10, vec![100]), None);
        assert_eq!(Pickled::of(8, u64::MAX, vec![1]), None);
        assert_eq!(Pickled::of(8, 1, vec![u64::MAX, u64::MAX]), None);
    }
}
