//! Other participants, as the threads of a process see them.

use super::super::watch::Watch;
use super::SharedTable;
use crate::handle::AnyHandle;
use crate::seat::{JoinError, Peer};
use crate::table::core::Core;
use crate::table::error::LeaseError;

impl SharedTable {
    /// Returns the participant that the threads of this process share, as others see it.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let me = table.peer()?;
    /// assert_eq!(me.pid(), std::process::id());
    /// let same = std::thread::scope(|threads| threads.spawn(|| table.peer()).join().unwrap())?;
    /// assert_eq!(same, me);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError`] in a forked child for which no seat is free.
    pub fn peer(&self) -> Result<Peer, JoinError> {
        self.with(Core::peer)?
    }

    /// Returns the living participants, this one too, in the order of their seats. See
    /// [`HandleTable::peers`](crate::HandleTable::peers).
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment, SharedTable};
    /// # let segment = Segment::anonymous()?;
    /// let table = SharedTable::of(&segment)?;
    /// let other = HandleTable::join(&segment)?;
    /// assert_eq!(table.peers()?, [table.peer()?, other.peer()?]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`peer`](SharedTable::peer).
    #[doc(alias("members", "processes", "ranks"))]
    pub fn peers(&self) -> Result<Vec<Peer>, JoinError> {
        let me = self.with(Core::enter)??;
        Ok(Peer::all(self.segment(), me))
    }

    /// Returns the owner of an array, or of whatever has a handle. Returns `None` if it is
    /// [detached](SharedTable::detach), or belongs to a bundle. See
    /// [`HandleTable::owner`](crate::HandleTable::owner).
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment, SharedTable};
    /// # let segment = Segment::anonymous()?;
    /// let table = SharedTable::of(&segment)?;
    /// let other = HandleTable::join(&segment)?;
    /// let (x, y) = (table.zeros::<f64, _>(3)?, other.zeros::<f64, _>(3)?);
    /// assert_eq!(table.owner(x)?, Some(table.peer()?));
    /// assert_eq!(table.owner(y)?, Some(other.peer()?));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::owner`](crate::HandleTable::owner).
    pub fn owner(&self, handle: impl Into<AnyHandle>) -> Result<Option<Peer>, LeaseError> {
        let handle = handle.into();
        self.with(|core| core.owner(handle))?
    }

    /// Returns `true` while the participant lives: it has not left its seat, and its process has
    /// not ended.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment, SharedTable};
    /// # let segment = Segment::anonymous()?;
    /// # let table = SharedTable::of(&segment)?;
    /// let other = HandleTable::join(&segment)?;
    /// let peer = other.peer()?;
    /// assert!(table.is_alive(peer)?);
    /// drop(other);
    /// assert!(!table.is_alive(peer)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`peer`](SharedTable::peer).
    pub fn is_alive(&self, peer: Peer) -> Result<bool, JoinError> {
        let me = self.with(Core::enter)??;
        Ok(peer.is_alive(self.segment(), me))
    }

    /// Creates a list of what is to be watched. It borrows nothing: a thread may keep it and wait,
    /// while others use the table.
    ///
    /// ```
    /// use ndshm::{Gone, HandleTable, Segment, SharedTable};
    /// use std::time::Duration;
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = SharedTable::of(&segment)?;
    /// let server = HandleTable::join(&segment)?;
    /// let peer = server.peer()?;
    /// let mut watch = table.watch();
    /// watch.peer(peer);
    /// let watcher = std::thread::spawn(move || watch.wait(Duration::from_secs(10)));
    /// table.zeros::<f64, _>(3)?;                           // the table is free meanwhile
    /// drop(server);
    /// assert_eq!(watcher.join().unwrap()?, Some(Gone::Peer(peer)));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("monitor", "notify"))]
    pub fn watch(&self) -> Watch<SharedTable> {
        Watch::new(self.clone(), self.segment())
    }
}
