//! Writing an object: small values into its stream, large buffers after it; or only counting
//! bytes.

use std::collections::HashMap;

use super::copy::copy;
use super::format::{self, MAX_DEPTH, Tag};
use crate::object::error::ObjectError;

/// The place of a change, for errors.
const PIECES: &str = "the pieces of a tensor";

/// Bytes that are written consecutively, or only counted.
struct Region<'o> {
    bytes: Option<&'o mut [u8]>,
    at: usize,
    /// The name of the region, for errors.
    what: &'static str,
}

impl Region<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        let changed = ObjectError::Changed { what: self.what };
        let Some(end) = self.at.checked_add(bytes.len()) else {
            return Err(changed);
        };
        if let Some(region) = &mut self.bytes {
            let Some(place) = region.get_mut(self.at..end) else {
                return Err(changed);
            };
            copy(place, bytes);
        }
        self.at = end;
        Ok(())
    }

    /// Writes zeros up to the next block.
    fn align(&mut self) -> Result<(), ObjectError> {
        const ZEROS: [u8; format::BLOCK] = [0; format::BLOCK];
        let gap = self.at.wrapping_neg() % format::BLOCK;
        self.put(&ZEROS[..gap])
    }
}

/// Numbers of one type that are written without tags.
struct Run {
    tag: Tag,
    count: u32,
    /// The offset of its count.
    count_at: usize,
}

/// The size of an object's values, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) stream: usize,
    /// A whole number of blocks.
    pub(crate) buffers: usize,
}

/// Writes values. The serializer is a borrow of it.
pub(crate) struct Writer<'o> {
    stream: Region<'o>,
    buffers: Region<'o>,
    /// Names that were written, with their numbers.
    names: HashMap<&'static str, u64>,
    pub(super) last_name: &'static str,
    run: Option<Run>,
    /// The next value is an element of a sequence, and may join a run.
    element: bool,
    /// The next bytes become a buffer, even if they are few.
    pub(super) to_buffer: bool,
    depth: usize,
    /// While a buffer is written in pieces: the number of bytes still to come.
    pieces: Option<usize>,
    /// The next value may be a tensor: its newtype was begun, and nothing was written since.
    pub(super) expects_tensor: bool,
}

impl<'o> Writer<'o> {
    /// Creates a writer that only counts bytes.
    pub(crate) fn counting() -> Writer<'o> {
        Writer::new(None, None)
    }

    /// Creates a writer into these bytes.
    pub(crate) fn into_regions(stream: &'o mut [u8], buffers: &'o mut [u8]) -> Writer<'o> {
        Writer::new(Some(stream), Some(buffers))
    }

    fn new(stream: Option<&'o mut [u8]>, buffers: Option<&'o mut [u8]>) -> Writer<'o> {
        let region = |bytes, what| Region { bytes, at: 0, what };
        Writer {
            stream: region(stream, "its small values"),
            buffers: region(buffers, "its large buffers"),
            names: HashMap::new(),
            last_name: "",
            run: None,
            element: false,
            to_buffer: false,
            depth: 0,
            pieces: None,
            expects_tensor: false,
        }
    }

    /// Ends the writing and returns the sizes.
    pub(crate) fn finish(mut self) -> Result<Sizes, ObjectError> {
        self.end_run()?;
        self.buffers.align()?;
        Ok(Sizes {
            stream: self.stream.at,
            buffers: self.buffers.at,
        })
    }

    /// Writes a tag. Every value starts with one, except numbers in runs.
    pub(super) fn tag(&mut self, tag: Tag) -> Result<(), ObjectError> {
        if self.pieces.is_some() {
            return Err(ObjectError::Changed { what: PIECES });
        }
        self.end_run()?;
        self.element = false;
        self.expects_tensor = false;
        self.stream.put(&[tag as u8])
    }

    /// Marks the next value as an element of a sequence.
    pub(super) fn next_element(&mut self) {
        self.element = true;
    }

    pub(super) fn number(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), ObjectError> {
        if !core::mem::take(&mut self.element) {
            return self.fixed(tag, bytes);
        }
        self.expects_tensor = false;
        match &mut self.run {
            Some(run) if run.tag == tag && run.count < u32::MAX => run.count += 1,
            _ => {
                self.end_run()?;
                self.stream.put(&[Tag::Run as u8, tag as u8])?;
                self.run = Some(Run {
                    tag,
                    count: 1,
                    count_at: self.stream.at,
                });
                self.stream.put(&[0; 4])?;
            }
        }
        self.stream.put(bytes)
    }

    /// Stores the count of the current run, which is now known.
    fn end_run(&mut self) -> Result<(), ObjectError> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let end = core::mem::replace(&mut self.stream.at, run.count_at);
        self.stream.put(&run.count.to_le_bytes())?;
        self.stream.at = end;
        Ok(())
    }

    fn length(&mut self, length: usize) -> Result<(), ObjectError> {
        let (bytes, count) = format::encode_length(length as u64);
        self.stream.put(&bytes[..count])
    }

    pub(super) fn fixed(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), ObjectError> {
        self.tag(tag)?;
        self.stream.put(bytes)
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), ObjectError> {
        self.tag(Tag::Str)?;
        self.length(text.len())?;
        self.stream.put(text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        if let Some(left) = &mut self.pieces {
            *left = left
                .checked_sub(bytes.len())
                .ok_or(ObjectError::Changed { what: PIECES })?;
            return self.buffers.put(bytes);
        }
        if core::mem::take(&mut self.to_buffer) || bytes.len() >= format::LARGE {
            self.begin_buffer(bytes.len())?;
            return self.buffers.put(bytes);
        }
        self.tag(Tag::Bytes)?;
        self.length(bytes.len())?;
        self.stream.put(bytes)
    }

    fn begin_buffer(&mut self, len: usize) -> Result<(), ObjectError> {
        self.tag(Tag::Buffer)?;
        self.length(len)?;
        self.buffers.align()
    }

    /// Starts a buffer of `len` bytes that is written in pieces.
    pub(super) fn begin_pieces(&mut self, len: usize) -> Result<(), ObjectError> {
        self.begin_buffer(len)?;
        self.pieces = Some(len);
        Ok(())
    }

    /// Checks that all pieces were written.
    pub(super) fn end_pieces(&mut self) -> Result<(), ObjectError> {
        match self.pieces.take() {
            Some(0) => Ok(()),
            _ => Err(ObjectError::Changed { what: PIECES }),
        }
    }

    /// Writes a name of the program: as text the first time, and by its number from then on.
    pub(super) fn name(&mut self, name: &'static str) -> Result<(), ObjectError> {
        self.last_name = name;
        match self.names.get(name) {
            Some(&number) => {
                self.tag(Tag::Name)?;
                self.length(number as usize)
            }
            None => {
                self.names.insert(name, self.names.len() as u64);
                self.tag(Tag::NewName)?;
                self.length(name.len())?;
                self.stream.put(name.as_bytes())
            }
        }
    }

    /// Writes `tag` and goes one level deeper.
    pub(super) fn descend(&mut self, tag: Tag) -> Result<(), ObjectError> {
        self.tag(tag)?;
        if self.depth == MAX_DEPTH {
            return Err(ObjectError::TooDeep { limit: MAX_DEPTH });
        }
        self.depth += 1;
        Ok(())
    }

    /// Goes one level up.
    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }
}
