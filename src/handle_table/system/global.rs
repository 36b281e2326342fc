//! The process's default table, on an anonymous segment that forked workers inherit.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;

use crate::error::Error;
use crate::handle_table::HandleTable;
use crate::segment::Segment;

static SEGMENT: Mutex<Option<Segment>> = Mutex::new(None);

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
    pub fn global() -> Result<Rc<HandleTable>, Error> {
        TABLE.with(|own| {
            if let Some(table) = &*own.borrow() {
                return Ok(Rc::clone(table));
            }
            let segment = {
                // A panic of a thread here leaves either no segment or a complete one.
                let mut shared = SEGMENT
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                match &*shared {
                    Some(segment) => segment.clone(),
                    None => shared.insert(Segment::anonymous()?).clone(),
                }
            };
            let table = Rc::new(HandleTable::join(&segment)?);
            Ok(Rc::clone(own.borrow_mut().insert(table)))
        })
    }
}
