//! Other participants: the owner of an array, whether a participant lives, and a wait for an end.

use super::HandleTable;
use super::watch::Watch;
use crate::handle::AnyHandle;
use crate::seat::{JoinError, Peer};
use crate::table::error::LeaseError;

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
        self.core.peer()
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
        Ok(Peer::all(self.segment(), me))
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
        Ok(peer.is_alive(self.segment(), me))
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
    pub fn watch(&self) -> Watch<&HandleTable> {
        Watch::new(self, self.segment())
    }
}
