//! Leases without a lifetime, for programs that cannot keep a borrow of the table: languages with
//! garbage collection, and tables behind a lock.

use core::fmt;
use core::ptr::NonNull;

use super::builder::Address;
use super::core::Core;
use super::locate::Located;
use super::slot::Slot;
use super::untyped::ArrayKind;
use crate::descriptor::{HalfWritten, PoisonNote};
use ndarray::Dimension;

use crate::element::{DType, Element, Order};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::table::error::LeaseError;
use crate::word::{Purpose, SeatId, SlotIndex};

/// The kind of a lease that [`lock`](crate::HandleTable::lock) takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Shared with other readers; as [`read`](crate::HandleTable::read).
    Read,
    /// Exclusive; as [`write`](crate::HandleTable::write).
    Write,
    /// Exclusive, also if the array is poisoned; as [`recover`](crate::HandleTable::recover).
    /// Unlocking it without `poison` declares the contents good.
    Recover,
}

/// One stay of one participant in a segment.
///
/// A seat is taken again only in another epoch, of which there are 2^63. So no later table is taken
/// for the one that leased.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stay {
    /// The process.
    token: u64,
    /// The mapping. Its segment's key would not do: a copy of the file has the same one.
    mapping: u64,
    seat: SeatId,
    epoch: u64,
}

/// The record of a lease that does not borrow its table.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    slot: SlotIndex,
    handle: AnyHandle,
    mode: Mode,
    /// The participant that leased.
    stay: Stay,
}

impl Ticket {
    /// Returns the lease, to be released with a clearing of the poison.
    pub(crate) fn repaired(self) -> Ticket {
        Ticket {
            mode: Mode::Recover,
            ..self
        }
    }

    /// Returns the process that leased.
    pub(crate) fn token(&self) -> u64 {
        self.stay.token
    }

    pub(crate) fn handle(&self) -> AnyHandle {
        self.handle
    }

    /// Returns the lease, to be released without a clearing of the poison.
    pub(crate) fn unrepaired(self) -> Ticket {
        let mode = match self.mode {
            Mode::Recover => Mode::Write,
            mode => mode,
        };
        Ticket { mode, ..self }
    }
}

const TWICE: &str = "it was given back before";
const FORKED: &str = "the parent of this process took it before the fork: the parent gives it back, \
     and the child drops the value";
const OTHER: &str = "another table took it, or this one has left the segment since: pass it to the \
     table that returned it";

impl Core {
    /// Takes a lease that lasts until [`release`](Core::release).
    pub(crate) fn take(&self, handle: AnyHandle, mode: Mode) -> Result<Ticket, LeaseError> {
        let slot = match mode {
            Mode::Read => {
                let lease = self.lease_shared(handle)?;
                let slot = lease.slot.index;
                core::mem::forget(lease);
                slot
            }
            Mode::Write => self.take_exclusive(handle, Purpose::Write)?.index,
            Mode::Recover => self.take_exclusive(handle, Purpose::Recover)?.index,
        };
        Ok(self.ticket_of(slot, handle, mode))
    }

    /// Returns the record of a lease that was taken.
    pub(super) fn ticket_of(&self, slot: SlotIndex, handle: AnyHandle, mode: Mode) -> Ticket {
        Ticket {
            slot,
            handle,
            mode,
            stay: self.stay(),
        }
    }

    /// Returns the record of this participant.
    pub(super) fn stay(&self) -> Stay {
        Stay {
            token: self.token(),
            mapping: self.segment.mapping_number(),
            seat: self.own_seat(),
            epoch: self.epoch(),
        }
    }

    /// Checks that this participant took a lease or a pin, and has not given it back.
    pub(super) fn check_held(
        &self,
        handle: AnyHandle,
        stay: Stay,
        held: bool,
    ) -> Result<(), LeaseError> {
        let why = if !held {
            TWICE
        } else if !self.is_process(stay.token) {
            FORKED
        } else if !self.is_of(stay.token) || stay != self.stay() {
            OTHER
        } else {
            return Ok(());
        };
        Err(LeaseError::NotHeld { handle, why })
    }

    /// Returns the slot of a lease that this table holds.
    fn held(&self, ticket: &Ticket) -> Result<Slot<'_>, LeaseError> {
        self.check_held(ticket.handle, ticket.stay, true)?;
        self.slot_of(ticket)
    }

    /// Returns the slot of a lease.
    fn slot_of(&self, ticket: &Ticket) -> Result<Slot<'_>, LeaseError> {
        // Not `ok_or`: its error would be built and dropped for each lease.
        let Some(slot) = Slot::of(self.segment.memory(), ticket.slot) else {
            return Err(LeaseError::Stale {
                handle: ticket.handle,
            });
        };
        Ok(slot)
    }

    /// Releases a lease. `poison` says that the bytes may be half-written.
    pub(crate) fn release(&self, ticket: &Ticket, poison: bool) -> Result<(), LeaseError> {
        let slot = self.held(ticket)?;
        let tail = match ticket.mode {
            Mode::Read if self.release_recursive(slot.index) => return Ok(()),
            Mode::Read => slot.unlock_shared(self.own_seat()),
            Mode::Write | Mode::Recover => {
                if poison {
                    let words = self.segment.memory().descriptor(slot.index);
                    PoisonNote::now(std::process::id(), HalfWritten::Array).store(words);
                } else if ticket.mode == Mode::Recover {
                    self.heal(slot, ticket.handle);
                }
                slot.unlock_exclusive(self.own_seat(), poison)
            }
        };
        self.hint_if_freed(slot.index, tail);
        Ok(())
    }

    /// Locates the array of a lease. The caller checks the elements.
    pub(crate) fn locate_leased<T: Element, D: Dimension>(
        &self,
        ticket: &Ticket,
    ) -> Result<Located<T, D>, LeaseError> {
        Ok(self.locate(self.slot_of(ticket)?, ticket.handle)?)
    }

    /// Takes a lease of an array of any type, and finds its bytes.
    pub(crate) fn lock(&self, handle: AnyHandle, mode: Mode) -> Result<Locked, LeaseError> {
        self.locked(self.take(handle, mode)?)
    }

    /// Finds the bytes of the array of a lease. Releases the lease if that fails.
    pub(crate) fn locked(&self, ticket: Ticket) -> Result<Locked, LeaseError> {
        let (handle, mode) = (ticket.handle, ticket.mode);
        let located = self
            .slot_of(&ticket)
            .and_then(|slot| self.locate_untyped(slot, handle));
        match located {
            Ok(located) => Ok(Locked {
                access: Some(self.segment.memory().track(
                    located.offset,
                    located.len as u64,
                    mode != Mode::Read,
                )),
                address: Address(NonNull::slice_from_raw_parts(located.first, located.len)),
                kind: located.kind,
                ticket,
                held: true,
            }),
            Err(error) => {
                self.release(&ticket.unrepaired(), false)?;
                Err(error)
            }
        }
    }

    /// Releases what [`lock`](Core::lock) took.
    pub(crate) fn unlock(&self, locked: &mut Locked, poison: bool) -> Result<(), LeaseError> {
        self.check_held(locked.ticket.handle, locked.ticket.stay, locked.held)?;
        // The access ends before others can begin theirs.
        locked.access = None;
        self.release(&locked.ticket, poison)?;
        locked.held = false;
        Ok(())
    }
}

/// A lease without a lifetime, taken by [`HandleTable::lock`](crate::HandleTable::lock) or
/// [`SharedTable::lock`](crate::SharedTable::lock).
///
/// It is released by `unlock` of the same table, never by a drop: a value that is dropped without
/// that leaves the array leased until the table is dropped, or the process ends. Then an array that
/// was locked for writing is poisoned.
///
/// The value is data: it may be kept for any time, and passed to other threads. A copy of it in a
/// forked child belongs to the parent, as a guard does.
#[must_use = "the array stays leased until the value is unlocked"]
pub struct Locked {
    ticket: Ticket,
    /// Not yet unlocked.
    held: bool,
    address: Address,
    kind: ArrayKind,
    access: Option<Access>,
}

impl Locked {
    /// Returns the address and the length of the elements' bytes, in memory order.
    ///
    /// Accesses through it are unsafe. The caller ensures that meanwhile
    /// - the value is not unlocked, and the table that locked it is not dropped,
    /// - this is the process that locked it,
    /// - the bytes are only read if it was locked for reading, and
    /// - no two threads access a byte at once, unless both read it.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::untyped::Mode;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u16, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;
    /// let first = locked.bytes().cast::<u16>();
    /// // SAFETY: `x` is locked for writing, it has 3 elements, and no other thread has the address.
    /// unsafe { first.write(7) };
    /// table.unlock(&mut locked, false)?;
    /// assert_eq!(table.read(x)?[0], 7);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes(&self) -> NonNull<[u8]> {
        self.address.0
    }

    /// Returns the process that locked it.
    pub(crate) fn token(&self) -> u64 {
        self.ticket.stay.token
    }

    /// Returns the kind of the lease.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// let locked = table.lock(x, Mode::Read)?;
    /// assert_eq!(locked.mode(), Mode::Read);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn mode(&self) -> Mode {
        self.ticket.mode
    }

    /// Returns `true` until the value is unlocked. A copy in a forked child returns what the
    /// parent's returned at the fork.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// let mut locked = table.lock(x, Mode::Read)?;
    /// assert!(locked.is_held());
    /// table.unlock(&mut locked, false)?;
    /// assert!(!locked.is_held());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Returns the type of the elements.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::Element;
    /// use ndshm::untyped::Mode;
    ///
    /// let locked = table.lock(table.zeros::<f64, _>(3)?, Mode::Read)?;
    /// assert_eq!(locked.dtype(), &f64::dtype());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn dtype(&self) -> &DType {
        &self.kind.dtype
    }

    /// Returns the length of each axis.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// let locked = table.lock(x, Mode::Read)?;
    /// assert_eq!(locked.shape(), [2, 3]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        &self.kind.shape
    }

    /// Returns the order: the first or the last axis is contiguous.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::ShapeBuilder;
    /// use ndshm::element::Order;
    /// use ndshm::untyped::Mode;
    ///
    /// let locked = table.lock(table.zeros::<f64, _>((2, 3).f())?, Mode::Read)?;
    /// assert_eq!(locked.order(), Order::F);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn order(&self) -> Order {
        self.kind.order
    }

    /// Returns the array's handle.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// let locked = table.lock(x, Mode::Read)?;
    /// assert_eq!(locked.handle(), x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> AnyHandle {
        self.ticket.handle
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked")
            .field("handle", &self.handle())
            .field("mode", &self.mode())
            .field("is_held", &self.held)
            .field("dtype", self.dtype())
            .field("shape", &self.shape())
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}
