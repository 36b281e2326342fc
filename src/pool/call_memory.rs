//! The memory of one call: its results, and parameters that are too long for the mailbox.
//!
//! Each worker writes the results of its claimed tiles, under a shared lease. The memory is
//! therefore a control array: no lease, list or copy of arrays gives access to its bytes.

use core::ptr::NonNull;
use core::slice;

use super::mailbox::{Arguments, PARAM_WORDS, ParamWords};
use super::params::Output;
use crate::descriptor::{ControlKind, Descriptor};
use crate::error::Error;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::span::Spans;
use crate::sync::{Atom, Ordering};
use crate::table::error::{AllocError, LeaseError};
use crate::table::lease::SharedLease;

/// The parent's side: allocates the memory, and frees it at the end of the call.
pub(super) struct CallMemory<'t> {
    table: &'t HandleTable,
    handle: AnyHandle,
    token: u64,
    /// Number of results that are [messages](Slot::Message).
    messages: usize,
}

/// The part of a call's memory that one result takes.
pub enum Slot {
    /// Bytes of the result itself.
    Bytes(usize),
    /// Words that name a [message](CallMemory::message) with its bytes.
    Message,
}

/// Words of a [`Slot::Message`]: the message's handle, its length in bytes, and its [state](state).
const MESSAGE_WORDS: usize = 3;

/// States of a [`Slot::Message`]. It starts as 0: there is no result.
pub(super) mod state {
    pub(in super::super) const VALUE: u64 = 1;
    /// The message is the text of an error.
    pub(in super::super) const ERROR: u64 = 2;
    /// There was no memory for the message.
    pub(in super::super) const NO_MEMORY: u64 = 3;
}

impl<'t> CallMemory<'t> {
    /// Allocates memory for `count` results of type `R`. The contents of [`Slot::Bytes`] are
    /// unspecified.
    #[track_caller]
    pub(super) fn results<R: Output<M>, M>(
        table: &'t HandleTable,
        count: usize,
    ) -> Result<Self, AllocError> {
        let (size, messages) = match R::SLOT {
            Slot::Bytes(size) => (size, 0),
            Slot::Message => (MESSAGE_WORDS * size_of::<u64>(), count),
        };
        let Some(bytes) = count.checked_mul(size) else {
            return Err(AllocError::TooLarge {
                shape: vec![count],
                element: core::any::type_name::<R>().to_owned(),
                size,
            });
        };
        match messages {
            0 => Self::allocate(table, bytes, |_, _| ()),
            messages => {
                let mut memory = Self::zeroed(table, bytes, usize::MAX)?;
                memory.messages = messages;
                Ok(memory)
            }
        }
    }

    /// Allocates the notes of a started call: `words` words, of which the first `zeroed` start as 0.
    #[track_caller]
    pub(super) fn notes(
        table: &'t HandleTable,
        (words, zeroed): (usize, usize),
    ) -> Result<Self, AllocError> {
        Self::zeroed(table, words * size_of::<u64>(), zeroed)
    }

    /// Allocates `bytes` bytes, of which the first `words` words start as 0.
    #[track_caller]
    fn zeroed(table: &'t HandleTable, bytes: usize, words: usize) -> Result<Self, AllocError> {
        Self::allocate(table, bytes, |_, all| {
            // Relaxed: the publication of the memory follows.
            for word in all.iter().take(words) {
                word.store(0, Ordering::Relaxed);
            }
        })
    }

    /// Allocates memory that holds `params`.
    #[track_caller]
    pub(super) fn params(table: &'t HandleTable, params: &[u8]) -> Result<Self, AllocError> {
        Self::allocate(table, params.len(), |place, _| {
            // SAFETY: `place` is the first of `params.len()` bytes of an extent that is RESERVED by
            // this participant (`allocate`). No other participant accesses them, and no slice
            // overlaps.
            unsafe { place.copy_from_nonoverlapping(NonNull::from(params).cast(), params.len()) };
        })
    }

    /// Allocates `bytes` bytes. `fill` writes them before any participant can open the memory: from
    /// their first byte on, or as words.
    #[track_caller]
    fn allocate(
        table: &'t HandleTable,
        bytes: usize,
        fill: impl FnOnce(NonNull<u8>, &[Atom]),
    ) -> Result<Self, AllocError> {
        let words = bytes.div_ceil(8);
        let size = words as u64 * 8;
        let reserved = table.core.reserve(size)?;
        let offset = reserved.extent.offset;
        let memory = table.segment().memory();
        let Some(place) = memory.data(offset, size) else {
            return Err(table.core.abandon_damaged(reserved));
        };
        {
            let _access = memory.track(offset, size, true);
            fill(place, memory.control(offset, words).unwrap_or(&[]));
        }
        let handle = table.core.publish_control(reserved, |descriptor| {
            Descriptor::control(ControlKind::Call, words).store(descriptor);
        });
        Ok(CallMemory {
            table,
            handle,
            token: table.core.token(),
            messages: 0,
        })
    }

    /// Allocates memory that holds `message`, as words.
    #[track_caller]
    pub(super) fn message(table: &'t HandleTable, message: &[u8]) -> Result<Self, AllocError> {
        Self::allocate(table, message.len(), |_, words| {
            for (word, bytes) in words.iter().zip(message.chunks(8)) {
                let mut padded = [0; 8];
                padded[..bytes.len()].copy_from_slice(bytes);
                // Relaxed: the publication of the memory follows.
                word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
            }
        })
    }

    /// Returns the handle. The memory stays until [`free`] frees it, or its owner leaves.
    pub(super) fn keep(self) -> AnyHandle {
        core::mem::ManuallyDrop::new(self).handle
    }

    /// Returns the handle by which workers open the memory.
    pub(super) fn handle(&self) -> AnyHandle {
        self.handle
    }

    /// Reads the first `count` results.
    ///
    /// # Safety
    /// The call has succeeded: every write of a result happens before this.
    #[track_caller]
    pub(super) unsafe fn read_results<R: Output<M>, M>(
        &self,
        count: usize,
    ) -> Result<Vec<R>, PoolError> {
        let opened = Opened::of(self.table, self.handle)?;
        let refused = |at, message| PoolError::Results {
            result: core::any::type_name::<R>(),
            at,
            message,
        };
        let Slot::Bytes(size) = R::SLOT else {
            let read = |at| {
                let bytes = self.message_at(&opened, at)?;
                R::decode(&bytes)
            };
            return (0..count)
                .map(|at| read(at).map_err(|message| refused(at, message)))
                .collect();
        };
        let _access = opened.track(0, opened.len as u64, false);
        // SAFETY: no worker writes any more (the caller's duty).
        let bytes = unsafe { opened.bytes() };
        let results = (0..count).map(|at| {
            let bytes = bytes.get(at * size..).and_then(|rest| rest.get(..size));
            R::decode(bytes.unwrap_or(&[])).map_err(|message| refused(at, message))
        });
        results.collect()
    }

    /// Returns the message of the tile or worker `at`, or the reason why there is none.
    fn message_at(&self, opened: &Opened<'_>, at: usize) -> Result<Vec<u8>, String> {
        // Relaxed: the end of the call has acquired the words.
        let words = opened.message_words(at).map(|words| {
            let [handle, len, state] = words;
            let load = |word: &Atom| word.load(Ordering::Relaxed);
            (AnyHandle::from_bits(load(handle)), load(len), load(state))
        });
        let Some((handle, len, state)) = words else {
            return Err("the memory of the call is too short".to_owned());
        };
        if state == state::NO_MEMORY {
            return Err(
                "the segment has no memory for it; create it with a larger capacity".into(),
            );
        }
        let message = read_message(self.table, handle, len);
        match (state, message) {
            (state::VALUE, Ok(message)) => Ok(message),
            (state::ERROR, Ok(message)) => Err(String::from_utf8_lossy(&message).into_owned()),
            _ => {
                Err("its worker has died since, and the result with it; run the call again".into())
            }
        }
    }

    /// Frees the messages of results. A worker that an abandoned call has left behind may store
    /// more of them: these are freed when the worker ends.
    fn free_messages(&self) {
        let Ok(opened) = Opened::of(self.table, self.handle) else {
            return;
        };
        for at in 0..self.messages {
            // Relaxed: the handle says by itself whether it is current.
            let handle = opened
                .message_words(at)
                .map_or(0, |[handle, ..]| handle.load(Ordering::Relaxed));
            if handle != 0 {
                free(self.table, AnyHandle::from_bits(handle));
            }
        }
    }
}

impl Drop for CallMemory<'_> {
    fn drop(&mut self) {
        // In a forked child the memory belongs to the parent.
        if self.table.core.is_of(self.token) {
            if self.messages != 0 {
                self.free_messages();
            }
            // An error means that the memory is already gone.
            let _ = self.table.core.free_slot(self.handle);
        }
    }
}

/// A lease of a call's memory, and the place of that memory.
pub(super) struct Opened<'t> {
    pub(super) first: NonNull<u8>,
    pub(super) len: usize,
    pub(super) offset: u64,
    /// Keeps the bytes in place if the parent abandons the call and frees the memory while a worker
    /// is still in a tile.
    pub(super) lease: SharedLease<'t>,
}

impl<'t> Opened<'t> {
    /// Opens the memory that `handle` names. Checks that it is memory of a call.
    pub(super) fn of(table: &'t HandleTable, handle: AnyHandle) -> Result<Self, LeaseError> {
        let lease = table.core.lease_shared(handle)?;
        let memory = table.segment().memory();
        let index = lease.slot.index;
        let place = Descriptor::load(memory.descriptor(index))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Call))
            .and_then(|descriptor| {
                let bytes = descriptor.bytes(size_of::<u64>())?;
                let extent = Spans::of(memory).extent(index)?;
                let fits = bytes <= extent.size();
                let first = memory.data(extent.offset, extent.size()).filter(|_| fits)?;
                Some((first, bytes as usize, extent.offset))
            });
        match place {
            Some((first, len, offset)) => Ok(Opened {
                first,
                len,
                offset,
                lease,
            }),
            None => Err(table
                .core
                .tables()
                .corrupt(handle, "not the memory of a call")),
        }
    }

    /// Returns the bytes.
    ///
    /// # Safety
    /// No participant writes the bytes while the result is borrowed.
    unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `first` are in the extent (`of`), which is mapped while the
        // table lives, and bytes of a mapping are initialised. The lease keeps them in place, and
        // no participant writes them (the caller's duty).
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }

    /// Returns the words of the message `at`.
    pub(super) fn message_words(&self, at: usize) -> Option<&[Atom; MESSAGE_WORDS]> {
        let memory = self.lease.table().segment().memory();
        let words = memory.control(self.offset, self.len / size_of::<u64>())?;
        let first = at.checked_mul(MESSAGE_WORDS)?;
        words.get(first..)?.first_chunk()
    }

    pub(super) fn track(&self, offset: u64, len: u64, write: bool) -> crate::memory::Access {
        let memory = self.lease.table().segment().memory();
        memory.track(self.offset + offset, len, write)
    }
}

/// Puts parameters into words of the mailbox, or into memory by `store` if they are too long.
#[track_caller]
pub(super) fn pack<M>(
    params: &[u8],
    store: impl FnOnce(&[u8]) -> Result<M, AllocError>,
) -> Result<(ParamWords, Option<M>), AllocError> {
    let mut words: ParamWords = [0; PARAM_WORDS];
    let beside: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let memory = match beside.get_mut(..params.len()) {
        Some(place) => {
            place.copy_from_slice(params);
            None
        }
        None => Some(store(params)?),
    };
    Ok((words, memory))
}

/// Returns the bytes of the parameters, if they are in the mailbox.
pub(super) fn beside<'p>(arguments: &Arguments, words: &'p ParamWords) -> Option<&'p [u8]> {
    let beside: &[u8] = bytemuck::cast_slice(words);
    beside.get(..arguments.params_len as usize)
}

/// Calls `run` with the bytes of the parameters, which are in the mailbox or in memory.
pub(super) fn unpack<R>(
    table: &HandleTable,
    arguments: &Arguments,
    words: &ParamWords,
    run: impl FnOnce(&[u8]) -> Result<R, Error>,
) -> Result<R, Error> {
    if let Some(params) = beside(arguments, words) {
        return run(params);
    }
    let handle = AnyHandle::from_bits(arguments.params);
    with_params(table, handle, arguments.params_len as usize, run)?
}

/// Calls `run` with the first `len` bytes of the parameters that `handle` names.
fn with_params<R>(
    table: &HandleTable,
    handle: AnyHandle,
    len: usize,
    run: impl FnOnce(&[u8]) -> R,
) -> Result<R, LeaseError> {
    let opened = Opened::of(table, handle)?;
    let _access = opened.track(0, opened.len as u64, false);
    // SAFETY: a call's memory is written before it is published, and by `Results::store`. That
    // function gets handles of results only: the mailbox, which only the pool writes, keeps the two
    // apart.
    let bytes = unsafe { opened.bytes() };
    let bytes = bytes.get(..len).ok_or_else(|| {
        let what = "parameters that are longer than their memory";
        table.core.tables().corrupt(handle, what)
    })?;
    Ok(run(bytes))
}

/// Frees memory that was [kept](CallMemory::keep).
pub(super) fn free(table: &HandleTable, handle: AnyHandle) {
    // An error means that the memory is already gone.
    let _ = table.core.free_slot(handle);
}

/// Reads a [message](CallMemory::message) of `len` bytes. Any bytes in the mailbox give a value or
/// an error: the words are read one by one, and may belong to any call.
pub(super) fn read_message(
    table: &HandleTable,
    handle: AnyHandle,
    len: u64,
) -> Result<Vec<u8>, LeaseError> {
    let opened = Opened::of(table, handle)?;
    let words = table
        .segment()
        .memory()
        .control(opened.offset, opened.len / size_of::<u64>());
    let needed = len.div_ceil(size_of::<u64>() as u64);
    let words = usize::try_from(needed)
        .ok()
        .and_then(|needed| words?.get(..needed))
        .ok_or_else(|| {
            let what = "a message that is longer than its memory";
            table.core.tables().corrupt(handle, what)
        })?;
    // Relaxed: the lease has acquired the words.
    let bytes = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
    Ok(bytes.take(len as usize).collect())
}
