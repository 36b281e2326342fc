//! A wait for the end of participants and names, without a pool.

use core::time::Duration;
use std::thread;

use super::access::{Inside, TableAccess};
use crate::handle::AnyHandle;
use crate::names::NameError;
use crate::seat::{JoinError, Peer};
use crate::segment::Segment;
use crate::sync::time::Instant;
use crate::word::SeatId;

/// The pause between two looks at what is watched.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A wait for the end of participants and names, created by
/// [`HandleTable::watch`](crate::HandleTable::watch) or
/// [`SharedTable::watch`](crate::SharedTable::watch). That of a `SharedTable` borrows nothing, and
/// may be sent to another thread.
///
/// An end is noticed within 10 ms. A dead participant is reaped first, so its names
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
pub struct Watch<T: TableAccess> {
    table: T,
    segment: Segment,
    peers: Vec<Peer>,
    names: Vec<(String, AnyHandle)>,
}

/// An end that a [`Watch`] reports.
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

impl<T: TableAccess> Watch<T> {
    pub(super) fn new(table: T, segment: &Segment) -> Watch<T> {
        Watch {
            table,
            segment: segment.clone(),
            peers: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Adds a participant. One that is dead already is reported by the next wait.
    ///
    /// ```
    /// # use ndshm::{Gone, HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// let server = HandleTable::join(&segment)?;
    /// let peer = server.peer()?;
    /// let mut watch = table.watch();
    /// watch.peer(peer).peer(table.peer()?);
    /// drop(server);
    /// let gone = watch.wait(std::time::Duration::from_secs(5))?;
    /// assert_eq!(gone, Some(Gone::Peer(peer)));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn peer(&mut self, peer: Peer) -> &mut Self {
        self.peers.push(peer);
        self
    }

    /// Adds a name, and returns the handle that has it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("weights", x)?;
    /// let mut watch = table.watch();
    /// assert_eq!(watch.name("weights")?, x.into());
    /// assert!(watch.name("nothing").is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError::NotFound`] if nothing has the name: there is nothing to watch.
    pub fn name(&mut self, name: &str) -> Result<AnyHandle, NameError> {
        let handle = self.find_any(name)?;
        self.names.push((name.into(), handle));
        Ok(handle)
    }

    /// Returns `true` if nothing is watched any more.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let mut watch = table.watch();
    /// assert!(watch.is_empty());
    /// assert!(!watch.peer(table.peer()?).is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.names.is_empty()
    }

    /// Waits for at most `timeout` until something of the list ends, and removes it from the list.
    /// Returns `None` if nothing has ended, and at once if the list is empty.
    ///
    /// Participants are reported before the names that ended with them. With a timeout of zero it
    /// looks once.
    ///
    /// ```
    /// # use ndshm::{Gone, HandleTable, Segment};
    /// # use std::time::Duration;
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let server = HandleTable::join(&segment)?;
    /// let mut watch = table.watch();
    /// watch.peer(server.peer()?);
    /// # drop(server);
    /// while let Some(gone) = watch.wait(Duration::from_secs(1))? {
    ///     match gone {
    ///         Gone::Peer(peer) => println!("process {} has ended", peer.pid()),
    ///         Gone::Name { name, .. } => println!("{name} is not offered any more"),
    ///         _ => {}
    ///     }
    /// }
    /// # assert!(watch.is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
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
        let me = self.enter()?;
        if self.peers.iter().any(|it| !it.is_alive(&self.segment, me)) {
            self.table.reap(Inside)?;
        }
        // It is reported after its arrays and names are gone: another participant may be about to
        // take them back.
        let is_over = |peer: &Peer| peer.is_over(&self.segment, me);
        if let Some(at) = self.peers.iter().position(is_over) {
            return Ok(Some(Gone::Peer(self.peers.swap_remove(at))));
        }
        if self.names.is_empty() {
            return Ok(None);
        }
        self.table.reap(Inside)?;
        for at in 0..self.names.len() {
            let (name, handle) = &self.names[at];
            match self.find_any(name) {
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

    /// Returns the seat of the table.
    fn enter(&self) -> Result<SeatId, JoinError> {
        self.table.with(Inside, |table| table.core.enter())?
    }

    fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.table.with(Inside, |table| table.find_any(name))?
    }
}

impl<T: TableAccess> core::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch")
            .field("peers", &self.peers)
            .field("names", &self.names)
            .finish()
    }
}
