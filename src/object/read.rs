//! Reading an object's bytes, whatever they are: each read is checked, and none allocates.

use super::format::{self, MAX_DEPTH, Tag};
use crate::error::ObjectError;

/// Numbers of a sequence that are being read without tags.
#[derive(Clone, Copy)]
struct Run {
    tag: Tag,
    left: u32,
}

/// A place in an object's values; the deserialiser is a borrow of it.
///
/// Values are read in the order in which they were written, and none is passed over unread: so the
/// names that were numbered are known, and so is which of the buffers is next.
pub(crate) struct Reader<'de> {
    skeleton: &'de [u8],
    at: usize,
    buffers: &'de [u8],
    next_buffer: usize,
    names: Vec<&'de str>,
    last_name: &'de str,
    run: Option<Run>,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(skeleton: &'de [u8], buffers: &'de [u8]) -> Reader<'de> {
        Reader {
            skeleton,
            at: 0,
            buffers,
            next_buffer: 0,
            names: Vec::new(),
            last_name: "",
            run: None,
            depth: 0,
        }
    }

    /// Sees to it that all was read.
    pub(crate) fn finish(&self) -> Result<(), ObjectError> {
        match self.at == self.skeleton.len() && self.run.is_none() {
            true => Ok(()),
            false => Err(self.corrupt("more follows where the value ends")),
        }
    }

    /// The error, with the place that was come to.
    pub(crate) fn placed(&self, error: ObjectError) -> ObjectError {
        match error {
            ObjectError::Value { message, .. } => ObjectError::Value {
                message,
                at: Some(self.at),
                name: self.last_name.chars().take(64).collect(),
            },
            other => other,
        }
    }

    pub(super) fn corrupt(&self, what: &'static str) -> ObjectError {
        ObjectError::Corrupt { at: self.at, what }
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], ObjectError> {
        let rest = self.skeleton.get(self.at..).unwrap_or_default();
        let Some((taken, _)) = rest.split_at_checked(len) else {
            return Err(self.corrupt("a value is longer than what is left"));
        };
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ObjectError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The tag of the next value, without going past it.
    pub(super) fn peek(&self) -> Result<Tag, ObjectError> {
        if let Some(run) = self.run {
            return Ok(run.tag);
        }
        let byte = self.skeleton.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.corrupt("a value is missing"))?;
        Tag::of(byte).ok_or_else(|| self.corrupt("a byte that is no tag"))
    }

    /// The tag of the next value; what belongs to it is next.
    pub(super) fn tag(&mut self) -> Result<Tag, ObjectError> {
        if let Some(run) = &mut self.run {
            let tag = run.tag;
            run.left -= 1;
            if run.left == 0 {
                self.run = None;
            }
            return Ok(tag);
        }
        let tag = self.peek()?;
        self.at += 1;
        Ok(tag)
    }

    /// Whether a sequence goes on; goes past its end if it does not, and into a run.
    pub(super) fn has_element(&mut self) -> Result<bool, ObjectError> {
        if self.run.is_some() {
            return Ok(true);
        }
        match self.peek()? {
            Tag::End => {
                self.at += 1;
                Ok(false)
            }
            Tag::Run => {
                self.at += 1;
                let tag = Tag::of(self.array::<1>()?[0]);
                let size = tag.and_then(Tag::size);
                let (Some(tag), Some(size)) = (tag, size) else {
                    return Err(self.corrupt("a run of what is no number"));
                };
                let left = u32::from_le_bytes(self.array()?);
                let rest = self.skeleton.len() - self.at;
                match (left as usize).checked_mul(size) {
                    Some(bytes) if left > 0 && bytes <= rest => {
                        self.run = Some(Run { tag, left });
                        Ok(true)
                    }
                    _ => Err(self.corrupt("a run of no numbers, or of more than are left")),
                }
            }
            _ => Ok(true),
        }
    }

    /// Whether a map goes on; goes past its end if it does not.
    pub(super) fn has_entry(&mut self) -> Result<bool, ObjectError> {
        match self.peek()? {
            Tag::End => {
                self.at += 1;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Elements that are known to follow in a sequence; at most as many as there are bytes left.
    pub(super) fn elements_ahead(&self) -> Option<usize> {
        if let Some(run) = self.run {
            return Some(run.left as usize);
        }
        let rest = self.skeleton.get(self.at..)?;
        match rest {
            [tag, _, count @ ..] if Tag::of(*tag) == Some(Tag::Run) => {
                let count = u32::from_le_bytes(*count.first_chunk()?);
                Some((count as usize).min(rest.len()))
            }
            _ => None,
        }
    }

    /// The rest of a sequence of bytes, if it is one: its end is gone past then.
    pub(super) fn bytes_of_sequence(&mut self) -> Result<Option<&'de [u8]>, ObjectError> {
        let bytes = match self.run {
            Some(Run { tag: Tag::U8, left }) => {
                self.run = None;
                self.take(left as usize)?
            }
            _ => return Ok(None),
        };
        match self.has_entry()? {
            false => Ok(Some(bytes)),
            true => Err(self.corrupt("bytes in several runs: read them as a Vec")),
        }
    }

    fn length(&mut self) -> Result<usize, ObjectError> {
        let mut length = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            length |= bits << shift;
            if byte & 0x80 == 0 {
                // On the 64-bit targets that there are.
                return Ok(length as usize);
            }
        }
        Err(self.corrupt("a length of more than 64 bits"))
    }

    pub(super) fn text(&mut self) -> Result<&'de str, ObjectError> {
        let len = self.length()?;
        let bytes = self.take(len)?;
        core::str::from_utf8(bytes).map_err(|_| self.corrupt("a string that is not UTF-8"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'de [u8], ObjectError> {
        let len = self.length()?;
        self.take(len)
    }

    /// The next buffer. Each is read once, so that few bytes cannot stand for many.
    pub(super) fn buffer(&mut self) -> Result<&'de [u8], ObjectError> {
        let len = self.length()?;
        let range = format::next_block(self.next_buffer)
            .and_then(|start| Some(start..start.checked_add(len)?));
        let buffer = range
            .clone()
            .and_then(|range| self.buffers.get(range))
            .ok_or_else(|| self.corrupt("a buffer is longer than what is left"))?;
        self.next_buffer = range.map_or(0, |range| range.end);
        Ok(buffer)
    }

    /// The name that a tag of names stands for.
    pub(super) fn name_of(&mut self, tag: Tag) -> Result<&'de str, ObjectError> {
        let name = match tag {
            Tag::NewName => {
                let name = self.text()?;
                self.names.push(name);
                name
            }
            Tag::Name => {
                let number = self.length()?;
                let name = self.names.get(number).copied();
                name.ok_or_else(|| self.corrupt("a name by a number that none has"))?
            }
            _ => return Err(self.corrupt("no name where one belongs")),
        };
        self.last_name = name;
        Ok(name)
    }

    pub(super) fn name(&mut self) -> Result<&'de str, ObjectError> {
        let tag = self.tag()?;
        self.name_of(tag)
    }

    /// Reads what is one level deeper.
    pub(super) fn nested<R>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<R, ObjectError>,
    ) -> Result<R, ObjectError> {
        if self.depth == MAX_DEPTH {
            return Err(ObjectError::TooDeep { limit: MAX_DEPTH });
        }
        self.depth += 1;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }
}
