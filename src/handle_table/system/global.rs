//! The process's default table, on an anonymous segment that forked workers inherit.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::Error;
use crate::handle_table::HandleTable;
use crate::handle_table::shared::{PerProcess, SharedTable};
use crate::segment::{Segment, SegmentError};
use crate::sync::list::List;

/// The default segment, once this process or an ancestor has created it. A list of at most one,
/// because a child does not wait for a creation that the fork interrupted.
static SEGMENT: List<Segment> = List::new();

/// Held while the default segment is created.
static CREATING: PerProcess<()> = PerProcess::new();

/// Returns the default segment. The first call creates it.
fn segment() -> Result<Segment, SegmentError> {
    let made = || SEGMENT.iter().last().cloned();
    if let Some(segment) = made() {
        return Ok(segment);
    }
    let create = |(): &mut ()| match made() {
        Some(segment) => Ok(segment),
        None => Segment::anonymous().map(|segment| SEGMENT.push(segment).clone()),
    };
    CREATING.with(|_| Ok::<_, SegmentError>(()), create)?
}

thread_local! {
    static TABLE: RefCell<Option<Rc<HandleTable>>> = const { RefCell::new(None) };
}

impl HandleTable {
    /// Returns the process's default table. The first call creates it; later calls share it.
    ///
    /// Its segment is anonymous: children that are forked afterwards inherit it and see the same
    /// arrays. Each thread has a seat of its own in it.
    ///
    /// ```
    /// use ndshm::HandleTable;
    ///
    /// let x = HandleTable::global()?.zeros::<f32, _>(10)?;
    /// assert_eq!(HandleTable::global()?.read(x)?.len(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("default", "singleton"))]
    pub fn global() -> Result<Rc<HandleTable>, Error> {
        TABLE.with(|own| {
            if let Some(table) = &*own.borrow() {
                return Ok(Rc::clone(table));
            }
            let table = Rc::new(HandleTable::join(&segment()?)?);
            Ok(Rc::clone(own.borrow_mut().insert(table)))
        })
    }
}

impl SharedTable {
    /// Returns this process's shared table of the default segment, which is that of
    /// [`HandleTable::global`]. The first call takes a seat; later calls share it, as long as a
    /// clone or a guard is left.
    ///
    /// ```
    /// use ndshm::SharedTable;
    ///
    /// let table = SharedTable::global()?;
    /// let x = table.zeros::<f32, _>(10)?;
    /// assert_eq!(SharedTable::global()?.read(x)?.len(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn global() -> Result<SharedTable, Error> {
        Ok(SharedTable::of(&segment()?)?)
    }
}
