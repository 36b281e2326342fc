//! Reading an object's bytes, which may be anything: each read is checked, and none allocates.

use super::format::{self, MAX_DEPTH, Tag};
use crate::object::error::ObjectError;

/// Numbers of a sequence that are read without tags.
#[derive(Clone, Copy)]
struct Run {
    tag: Tag,
    left: u32,
}

/// A position in an object's values. The deserializer is a borrow of it.
///
/// Values are read in the order in which they were written, and none is skipped without being read.
/// So all numbered names are known, and the next buffer too.
pub(crate) struct Reader<'de> {
    stream: &'de [u8],
    at: usize,
    buffers: &'de [u8],
    next_buffer: usize,
    names: Vec<&'de str>,
    last_name: &'de str,
    run: Option<Run>,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(stream: &'de [u8], buffers: &'de [u8]) -> Reader<'de> {
        Reader {
            stream,
            at: 0,
            buffers,
            next_buffer: 0,
            names: Vec::new(),
            last_name: "",
            run: None,
            depth: 0,
        }
    }

    /// Checks that everything was read.
    pub(crate) fn finish(&self) -> Result<(), ObjectError> {
        match self.at == self.stream.len() && self.run.is_none() {
            true => Ok(()),
            false => Err(self.corrupt("there are bytes after the value")),
        }
    }

    /// Adds the current position to the error.
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
        let rest = self.stream.get(self.at..).unwrap_or_default();
        let Some((taken, _)) = rest.split_at_checked(len) else {
            return Err(self.corrupt("a value is longer than the rest"));
        };
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ObjectError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Returns the tag of the next value without advancing.
    pub(super) fn peek(&self) -> Result<Tag, ObjectError> {
        if let Some(run) = self.run {
            return Ok(run.tag);
        }
        let byte = self.stream.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.corrupt("a value is missing"))?;
        Tag::of(byte).ok_or_else(|| self.corrupt("a byte that is not a tag"))
    }

    /// Reads the tag of the next value.
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

    /// Returns `true` if a sequence has another element. Enters a run, or reads the end.
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
                    return Err(self.corrupt("a run of something other than numbers"));
                };
                let left = u32::from_le_bytes(self.array()?);
                let rest = self.stream.len() - self.at;
                match (left as usize).checked_mul(size) {
                    Some(bytes) if left > 0 && bytes <= rest => {
                        self.run = Some(Run { tag, left });
                        Ok(true)
                    }
                    _ => Err(self.corrupt("a run of no numbers, or longer than the rest")),
                }
            }
            _ => Ok(true),
        }
    }

    /// Returns `true` if a map has another entry. Otherwise reads its end.
    pub(super) fn has_entry(&mut self) -> Result<bool, ObjectError> {
        match self.peek()? {
            Tag::End => {
                self.at += 1;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Returns the number of elements that are known to follow in a sequence; at most the number of
    /// bytes left.
    pub(super) fn elements_ahead(&self) -> Option<usize> {
        if let Some(run) = self.run {
            return Some(run.left as usize);
        }
        let rest = self.stream.get(self.at..)?;
        match rest {
            [tag, _, count @ ..] if Tag::of(*tag) == Some(Tag::Run) => {
                let count = u32::from_le_bytes(*count.first_chunk()?);
                Some((count as usize).min(rest.len()))
            }
            _ => None,
        }
    }

    /// Reads the rest of a sequence of bytes and its end. Returns `None` if the next values are not
    /// bytes.
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
                // On every supported target `usize` has 64 bits.
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

    /// Reads the next buffer. Each buffer is read once, so a small object cannot expand to a large
    /// value.
    pub(super) fn buffer(&mut self) -> Result<&'de [u8], ObjectError> {
        let len = self.length()?;
        let range = format::next_block(self.next_buffer)
            .and_then(|start| Some(start..start.checked_add(len)?));
        let buffer = range
            .clone()
            .and_then(|range| self.buffers.get(range))
            .ok_or_else(|| self.corrupt("a buffer is longer than the rest"))?;
        self.next_buffer = range.map_or(0, |range| range.end);
        Ok(buffer)
    }

    /// Reads the name that a name tag introduces.
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
                name.ok_or_else(|| self.corrupt("the number of a name that does not exist"))?
            }
            _ => return Err(self.corrupt("something other than a name where a name belongs")),
        };
        self.last_name = name;
        Ok(name)
    }

    pub(super) fn name(&mut self) -> Result<&'de str, ObjectError> {
        let tag = self.tag()?;
        self.name_of(tag)
    }

    /// Reads a value one level deeper.
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
