//! Other participants: the owner of an array, whether a participant lives, and a wait for an end.

use core::time::Duration;
use std::thread;

use super::HandleTable;
use crate::handle::AnyHandle;
use crate::names::NameError;
use crate::seat::{self, JoinError, Peer};
use crate::sync::time::Instant;
use crate::table::error::LeaseError;
use crate::word::SeatId;

/// The pause between two looks at what is watched.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl HandleTable {
    /// Returns this participant, as others see it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let me = table.peer()?;
    /// assert_eq!(me.pid(), std::process::id());
    /// assert_eq!(me.seat(), table.seat()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError`] in a forked child for which no seat is free.
    pub fn peer(&self) -> Result<Peer, JoinError> {
        let me = self.core.enter()?;
        let memory = self.segment().memory();
        // Its own seat is taken as long as it lives.
        Ok(Peer::of(memory, me).unwrap_or(bytemuck::Zeroable::zeroed()))
    }

    /// Returns the living participants, this one too, in the order of their seats.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let peers = table.peers()?;
    /// assert_eq!(peers, [table.peer()?]);
    /// assert_eq!(peers[0].pid(), std::process::id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`peer`](HandleTable::peer).
    #[doc(alias("members", "processes", "ranks"))]
    pub fn peers(&self) -> Result<Vec<Peer>, JoinError> {
        let me = self.core.enter()?;
        let memory = self.segment().memory();
        let seats = 0..memory.layout().geometry.seats as usize;
        let taken = seats.filter_map(|index| Peer::of(memory, SeatId::from_index(index)));
        Ok(taken.filter(|peer| self.lives(me, *peer)).collect())
    }

    /// Returns the owner of an array, or of whatever has a handle. Returns `None` if it is
    /// [detached](HandleTable::detach), or belongs to a bundle.
    ///
    /// The owner may have died: [`is_alive`](HandleTable::is_alive) tells. Its arrays live until
    /// the next [`reap`](HandleTable::reap).
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let (ours, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// let x = other.zeros::<f64, _>(3)?;
    /// let owner = ours.owner(x)?.expect("it is not detached");
    /// assert_eq!(owner, other.peer()?);
    /// assert!(ours.is_alive(owner)?);
    ///
    /// other.detach(x)?;
    /// assert_eq!(ours.owner(x)?, None);
    /// drop(other);
    /// assert!(!ours.is_alive(owner)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the array was freed, [`LeaseError::Join`] as for
    /// [`peer`](HandleTable::peer).
    pub fn owner(&self, handle: impl Into<AnyHandle>) -> Result<Option<Peer>, LeaseError> {
        self.core.enter()?;
        self.core.owner(handle.into())
    }

    /// Returns `true` while the participant lives: it has not left its seat, and its process has
    /// not ended.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// let other = HandleTable::join(&segment)?;
    /// let peer = other.peer()?;
    /// assert!(table.is_alive(peer)?);
    /// drop(other);
    /// assert!(!table.is_alive(peer)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`peer`](HandleTable::peer).
    pub fn is_alive(&self, peer: Peer) -> Result<bool, JoinError> {
        let me = self.core.enter()?;
        Ok(self.lives(me, peer))
    }

    fn lives(&self, me: SeatId, peer: Peer) -> bool {
        peer.parts().is_some_and(|(seat, epoch)| {
            seat::is_alive(self.segment(), me, seat, |now| now == epoch)
        })
    }

    /// Returns `true` if the participant is dead, and what it held was taken back or cannot be.
    fn is_over(&self, me: SeatId, peer: Peer) -> bool {
        let seat = peer.parts().map(|(seat, _)| seat);
        let memory = self.segment().memory();
        match seat.and_then(|seat| Peer::of(memory, seat)) {
            Some(holder) if holder == peer => {
                // A process outside the crate that locks the seat keeps every reaper out.
                self.segment().is_foreign_locked(peer.seat()) && !self.lives(me, peer)
            }
            _ => true,
        }
    }

    /// Creates a list of what is to be watched. See [`Watch`].
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use std::time::Duration;
    ///
    /// table.publish("server", table.zeros::<u8, _>(1)?)?;
    /// let mut watch = table.watch();
    /// watch.name("server")?;
    /// assert!(watch.wait(Duration::ZERO)?.is_none());      // still there
    /// table.unpublish("server")?;
    /// assert!(watch.wait(Duration::from_secs(5))?.is_some());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("monitor", "notify"))]
    pub fn watch(&self) -> Watch<'_> {
        Watch {
            table: self,
            peers: Vec::new(),
            names: Vec::new(),
        }
    }
}

/// A wait for the end of participants and names, created by [`HandleTable::watch`].
///
/// An end is noticed within 10 ms. What a dead participant held is taken back first, so its names
/// are gone and its arrays are freed when the wait reports it.
///
/// ```
/// use ndshm::{Gone, HandleTable, Segment};
/// use std::time::Duration;
///
/// let segment = Segment::anonymous()?;
/// let table = HandleTable::join(&segment)?;
/// let server = HandleTable::join(&segment)?;
/// let x = server.zeros::<f64, _>(3)?;
/// server.publish("weights", x)?;
///
/// let mut watch = table.watch();
/// watch.peer(server.peer()?);
/// watch.name("weights")?;
/// assert_eq!(watch.wait(Duration::ZERO)?, None);
/// drop(server);
/// // Both are reported, each once.
/// let gone = [watch.wait(Duration::from_secs(1))?, watch.wait(Duration::from_secs(1))?];
/// assert!(matches!(&gone[0], Some(Gone::Peer(_))));
/// assert!(matches!(&gone[1], Some(Gone::Name { name, .. }) if name == "weights"));
/// assert!(watch.is_empty());
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct Watch<'t> {
    table: &'t HandleTable,
    peers: Vec<Peer>,
    names: Vec<(String, AnyHandle)>,
}

/// What has ended; see [`Watch::wait`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Gone {
    /// The participant has left, or its process has ended.
    Peer(Peer),
    /// The name was removed, or something else has it now.
    Name {
        /// The name.
        name: String,
        /// The handle that had the name.
        handle: AnyHandle,
    },
}

impl Watch<'_> {
    /// Adds a participant.
    pub fn peer(&mut self, peer: Peer) -> &mut Self {
        self.peers.push(peer);
        self
    }

    /// Adds a name, and returns the handle that has it.
    ///
    /// # Errors
    /// [`NameError::NotFound`] if nothing has the name: there is nothing to watch.
    pub fn name(&mut self, name: &str) -> Result<AnyHandle, NameError> {
        let handle = self.table.find_any(name)?;
        self.names.push((name.into(), handle));
        Ok(handle)
    }

    /// Returns `true` if nothing is watched any more.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.names.is_empty()
    }

    /// Waits for at most `timeout` until something of the list ends, and removes it from the list.
    /// Returns `None` if nothing has ended, and at once if the list is empty.
    ///
    /// Participants are reported before the names that ended with them. With a timeout of zero it
    /// looks once.
    ///
    /// # Errors
    /// [`NameError::Join`] in a forked child for which no seat is free; [`NameError::Corrupt`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Gone>, NameError> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            if let Some(gone) = self.look()? {
                return Ok(Some(gone));
            }
            if left.is_zero() || self.is_empty() {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY.min(left));
        }
    }

    fn look(&mut self) -> Result<Option<Gone>, NameError> {
        let table = self.table;
        let me = table.core.enter()?;
        if self.peers.iter().any(|peer| !table.lives(me, *peer)) {
            table.reap()?;
        }
        // It is reported after its arrays and names are gone: another participant may be about to
        // take them back.
        if let Some(at) = self.peers.iter().position(|peer| table.is_over(me, *peer)) {
            return Ok(Some(Gone::Peer(self.peers.swap_remove(at))));
        }
        if self.names.is_empty() {
            return Ok(None);
        }
        table.reap()?;
        for at in 0..self.names.len() {
            let (name, handle) = &self.names[at];
            match table.find_any(name) {
                Ok(now) if now == *handle => {}
                Ok(_) | Err(NameError::NotFound { .. }) => {
                    let (name, handle) = self.names.swap_remove(at);
                    return Ok(Some(Gone::Name { name, handle }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl core::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch")
            .field("peers", &self.peers)
            .field("names", &self.names)
            .finish()
    }
}
