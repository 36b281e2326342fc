//! Creating, describing and freeing arrays.

use core::mem::MaybeUninit;
use core::ops::Deref;

use ndarray::{ArrayRef, Dimension, ShapeBuilder};

use super::{SharedBuilder, SharedTable};
use crate::element::{self, DType, Element, Order, ScalarType};
use crate::handle::{AnyHandle, Handle};
use crate::table::create::fill;
use crate::table::error::{AllocError, LeaseError};
use crate::table::info::{ArrayInfo, live_arrays};
use crate::table::untyped::{check_length, copy_bytes};

impl SharedTable {
    /// Creates an array of zeros. See [`HandleTable::zeros`](crate::HandleTable::zeros).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((100, 3))?;
    /// // Any thread uses it.
    /// let sum = std::thread::scope(|threads| threads.spawn(|| table.read(x).map(|x| x.sum())).join());
    /// assert_eq!(sum.unwrap()?, 0.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError`], with the numbers and the remedy.
    pub fn zeros<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.create::<T, Sh>(shape, |array| array.zero())
    }

    /// Creates an array with all elements `elem`.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem((2, 3), 0.5)?;
    /// assert_eq!(table.read(x)?.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](SharedTable::zeros).
    pub fn from_elem<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        elem: T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let shape = shape.into_shape_with_order();
        self.create::<T, _>(shape.clone(), |array| {
            array.slots::<T, _>(shape).fill(MaybeUninit::new(elem));
        })
    }

    /// Creates an array with the element `f(i)` at index `i`. `f` may use the table.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let squares = table.from_shape_fn(5, |i| (i * i) as u64)?;
    /// assert_eq!(table.read(squares)?.to_vec(), [0, 1, 4, 9, 16]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](SharedTable::zeros). If `f` panics, nothing is allocated. If `f` forks, the
    /// child gets [`AllocError::Forked`], and the array belongs to the parent.
    pub fn from_shape_fn<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        mut f: impl FnMut(<Sh::Dim as Dimension>::Pattern) -> T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        let shape = shape.into_shape_with_order();
        self.create::<T, _>(shape.clone(), |array| {
            for (index, slot) in array.slots::<T, _>(shape).indexed_iter_mut() {
                slot.write(f(index));
            }
        })
    }

    /// Creates a copy of `source`. See [`HandleTable::from_array`](crate::HandleTable::from_array).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_array(&ndarray::array![[1, 2], [3, 4]])?;
    /// assert_eq!(table.read(x)?[[1, 0]], 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](SharedTable::zeros).
    pub fn from_array<T: Element, D: Dimension>(
        &self,
        source: &impl Deref<Target = ArrayRef<T, D>>,
    ) -> Result<Handle<T, D>, AllocError> {
        let source = source.view();
        let fortran = !source.is_standard_layout() && source.t().is_standard_layout();
        let shape = source.raw_dim().set_f(fortran);
        self.create::<T, _>(shape.clone(), |array| {
            fill(array.slots(shape), source, fortran);
        })
    }

    /// Creates an array of unspecified contents: zeros, or the bytes of an earlier array. An array
    /// of `bool` holds zeros.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.uninit::<f64, _>(1000)?;
    /// table.write(x)?.fill(1.0);                           // before the first read
    /// assert_eq!(table.read(x)?.sum(), 1000.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](SharedTable::zeros).
    pub fn uninit<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.create::<T, Sh>(shape, |array| {
            if T::CHECKED {
                array.zero();
            }
        })
    }

    /// Frees an array. Its handle is stale at once, in every process. See
    /// [`HandleTable::free`](crate::HandleTable::free).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let guard = table.read(x)?;
    /// table.free(x)?;
    /// assert!(table.read(x).is_err());                     // stale at once
    /// assert_eq!(guard.sum(), 0.0);                        // a guard keeps the bytes
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::free`](crate::HandleTable::free).
    pub fn free(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        self.with(|core| core.free(handle))?
    }

    /// Makes an array outlive its owner: it lives until a participant frees it.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.detach(x)?;
    /// assert_eq!(table.owner(x)?, None);
    /// table.free(x)?;                                      // any participant may
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::detach`](crate::HandleTable::detach).
    pub fn detach(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        self.with(|core| core.detach(handle))?
    }

    /// Makes this process's shared table the owner of an array.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.detach(x)?;
    /// table.adopt(x)?;
    /// assert_eq!(table.owner(x)?, Some(table.peer()?));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::adopt`](crate::HandleTable::adopt).
    pub fn adopt(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        self.with(|core| core.adopt(handle))?
    }

    /// Returns the type, shape and state of the array that a handle names.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((10, 3))?;
    /// let _guard = table.read(x)?;
    /// let info = table.info(x)?;
    /// assert_eq!((info.shape, info.readers.len()), (vec![10, 3], 1));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::info`](crate::HandleTable::info).
    pub fn info(&self, handle: impl Into<AnyHandle>) -> Result<ArrayInfo, LeaseError> {
        let handle = handle.into();
        self.with(|core| core.info(handle))?
    }

    /// Returns all live arrays, in the order of their slots. See
    /// [`HandleTable::arrays`](crate::HandleTable::arrays).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let found: Vec<_> = table.arrays().map(|info| info.handle).collect();
    /// assert_eq!(found, [x.into()]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn arrays(&self) -> impl Iterator<Item = ArrayInfo> + '_ {
        live_arrays(self.segment())
    }

    /// Creates an array of zeros of an element type that is a value. See
    /// [`HandleTable::zeros_untyped`](crate::HandleTable::zeros_untyped).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let x = table.zeros_untyped(&DType::Scalar(ScalarType::F64), &[10, 3], Order::C)?;
    /// assert_eq!(table.info(x)?.shape, [10, 3]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError`], with the numbers and the remedy.
    pub fn zeros_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        let mut array = self.builder(dtype, shape, order)?;
        array.zero();
        array.publish()
    }

    /// Creates an array of unspecified contents, of an element type that is a value. An array of
    /// bools holds zeros.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let x = table.uninit_untyped(&DType::Scalar(ScalarType::U8), &[16], Order::C)?;
    /// table.write_untyped(x)?.bytes_mut().fill(7);         // before the first read
    /// assert_eq!(table.read_untyped(x)?.bytes(), [7; 16]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros_untyped`](SharedTable::zeros_untyped).
    pub fn uninit_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        let mut array = self.builder(dtype, shape, order)?;
        if *dtype == DType::Scalar(ScalarType::Bool) {
            array.zero();
        }
        array.publish()
    }

    /// Creates an array with these bytes, of an element type that is a value. See
    /// [`HandleTable::from_bytes`](crate::HandleTable::from_bytes).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let u8s = DType::Scalar(ScalarType::U8);
    /// let x = table.from_bytes(&u8s, &[2, 2], Order::C, &[1, 2, 3, 4])?;
    /// assert_eq!(table.read_untyped(x)?.bytes(), [1, 2, 3, 4]);
    /// assert!(table.from_bytes(&u8s, &[2, 2], Order::C, &[1, 2, 3]).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError::WrongLength`] if the shape needs another number of bytes. Otherwise as
    /// [`zeros_untyped`](SharedTable::zeros_untyped).
    pub fn from_bytes(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
        bytes: &[u8],
    ) -> Result<AnyHandle, AllocError> {
        check_length(dtype, shape, bytes)?;
        let mut array = self.builder(dtype, shape, order)?;
        copy_bytes(array.bytes_mut(), bytes);
        array.publish()
    }

    /// Creates an array that `fill` writes without the lock.
    fn create<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        fill: impl FnOnce(&mut SharedBuilder),
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        const { element::assert_layout::<T>() };
        let shape = shape.into_shape_with_order();
        let mut array = self.builder(&T::dtype(), shape.raw_dim().slice(), Order::C)?;
        // Sets the order.
        let _ = array.slots::<T, _>(shape);
        fill(&mut array);
        Ok(Handle::from_bits(array.publish()?.to_bits()))
    }
}
