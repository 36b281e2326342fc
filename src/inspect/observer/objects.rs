//! Objects as seen by observers: copies of them, read as values.

use bytemuck::Zeroable;
use ndarray::Ix1;
use serde::de::DeserializeOwned;

use super::Observer;
use crate::element::{DType, Element, Kind};
use crate::handle::{AnyHandle, Handle};
use crate::object::{Block, ObjectError, ObjectHandle};
use crate::table::error::LeaseError;

impl Observer {
    /// Returns `true` if these are the elements of an [object](crate::HandleTable::put_object).
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// table.zeros::<f64, _>(3)?;
    /// table.put_object(&("nile", 1120.0))?;
    /// let objects = observer.arrays().filter(|array| Observer::is_object(&array.dtype));
    /// assert_eq!(objects.count(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_object(dtype: &DType) -> bool {
        match (dtype, Block::KIND) {
            (DType::Record(layout), Kind::Record(block)) => **layout == block.layout(),
            _ => false,
        }
    }

    /// Copies an object, and reads the value from the copy.
    ///
    /// The copy is as large as the object. A damaged or hostile segment may name a size that this
    /// process has no memory for: compare [`info`](Observer::info) with a limit first. An object is
    /// never changed after it was stored, so the value is whole.
    ///
    /// ```
    /// use ndshm::{HandleTable, Observer, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let handle = table.put_object(&("step", 17))?;
    ///
    /// let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let seen: (String, u64) = observer.object(handle)?;
    /// assert_eq!(seen, ("step".to_owned(), 17));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`open_object`](crate::HandleTable::open_object), of
    /// [`ObjectGuard::get`](crate::object::ObjectGuard::get), and of
    /// [`copy_bytes`](Observer::copy_bytes).
    pub fn object<V: DeserializeOwned>(
        &self,
        handle: impl Into<ObjectHandle>,
    ) -> Result<V, ObjectError> {
        let handle = AnyHandle::from(handle.into());
        let info = self.info(handle)?;
        if !Observer::is_object(&info.dtype) {
            return Err(
                match self.attach::<Block, Ix1>(Handle::from_bits(handle.to_bits())) {
                    Err(LeaseError::WrongKind(mut wrong)) => {
                        wrong.expected = "an object".to_owned();
                        LeaseError::WrongKind(wrong).into()
                    }
                    Err(error) => error.into(),
                    // Another array has taken the place meanwhile.
                    Ok(_) => LeaseError::Stale { handle }.into(),
                },
            );
        }
        let count = info.bytes as usize / size_of::<Block>();
        let mut blocks = vec![Block::zeroed(); count];
        self.copy_bytes(handle, 0, bytemuck::cast_slice_mut(&mut blocks))?;
        crate::object::value_of(&blocks, handle)
    }
}
