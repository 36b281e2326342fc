//! Tensors: arrays that are stored as one buffer and read in place.

use core::fmt;
use core::ops::Deref;

use ndarray::{Array, ArrayBase, ArrayRef, ArrayView, CowArray, CowRepr, Data, Dimension, Ix1};

use crate::element::Element;

/// An ndarray in a value that is stored as an [object](crate::HandleTable::put_object).
///
/// Its numbers are stored as one buffer, and are not copied when the object is read: the tensor is
/// then a view of the shared memory. Like [`std::borrow::Cow`], it may own or borrow its numbers:
/// make one `from` an array, a view, a slice or a `Vec`, and use it as the [`ArrayRef`] that it
/// dereferences to.
///
/// Any array can be stored. An array in C or Fortran order, including a transposed one, is stored
/// as it lies in memory and keeps its order; all others are stored in C order.
///
/// In other formats of serde it is a struct of `shape` and `data`, the elements in C order.
///
/// ```
/// use ndshm::object::Tensor;
/// use ndarray::{Ix1, Ix2, array};
///
/// let weights = array![[1.0, 2.0], [3.0, 4.0]];
/// let tensor = Tensor::from(&weights);
/// assert_eq!(tensor.sum(), 10.0);
///
/// let json = serde_json::to_string(&tensor)?;
/// assert_eq!(json, r#"{"shape":[2,2],"data":[1.0,2.0,3.0,4.0]}"#);
/// let same: Tensor<'_, f64, Ix2> = serde_json::from_str(&json)?;
/// assert_eq!(same, tensor);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct Tensor<'a, T: Element, D: Dimension> {
    // This is a `CowArray`. With that alias, the compiler would infer an invariant lifetime.
    array: ArrayBase<CowRepr<'a, T>, D, T>,
}

impl<'a, T: Element, D: Dimension> Tensor<'a, T, D> {
    /// Returns a view that lives as long as the tensor is borrowed.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::object::Tensor;
    ///
    /// let weights = Tensor::from(array![[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(weights.view().row(1).sum(), 7.0);
    /// ```
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.array.view()
    }

    /// Returns `true` if the numbers are borrowed, as in a tensor that was read in place.
    ///
    /// [`into_owned`](Tensor::into_owned) has an example.
    pub fn is_borrowed(&self) -> bool {
        self.array.is_view()
    }

    /// Returns the array; copies its numbers if they are borrowed.
    ///
    /// ```
    /// # use ndarray::{Array1, Ix1};
    /// # use ndshm::object::Tensor;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let handle = table.put_object(&Tensor::from(Array1::from_elem(3, 1.0)))?;
    /// let object = table.open_object(handle)?;
    /// let tensor = object.get::<Tensor<f64, Ix1>>()?;
    /// assert!(tensor.is_borrowed());
    /// let array: Array1<f64> = tensor.into_owned();        // a copy, which outlives the object
    /// assert_eq!(array.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn into_owned(self) -> Array<T, D> {
        self.array.into_owned()
    }

    /// Returns the array without a copy.
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::object::Tensor;
    ///
    /// let weights = array![1.0, 2.0];
    /// let mut cow = Tensor::from(&weights).into_cow();
    /// assert!(cow.is_view());
    /// cow[0] = 5.0;                                        // copies the numbers first
    /// assert_eq!((cow[0], weights[0]), (5.0, 1.0));
    /// ```
    pub fn into_cow(self) -> CowArray<'a, T, D> {
        self.array
    }
}

impl<T: Element, D: Dimension> Deref for Tensor<'_, T, D> {
    type Target = ArrayRef<T, D>;

    fn deref(&self) -> &ArrayRef<T, D> {
        &self.array
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Tensor<'a, T, D> {
    fn from(view: ArrayView<'a, T, D>) -> Self {
        Tensor { array: view.into() }
    }
}

impl<T: Element, D: Dimension> From<Array<T, D>> for Tensor<'_, T, D> {
    fn from(array: Array<T, D>) -> Self {
        Tensor {
            array: array.into(),
        }
    }
}

impl<'a, T: Element, D: Dimension> From<CowArray<'a, T, D>> for Tensor<'a, T, D> {
    fn from(array: CowArray<'a, T, D>) -> Self {
        Tensor { array }
    }
}

impl<'a, T: Element, D: Dimension, S: Data<Elem = T>> From<&'a ArrayBase<S, D>>
    for Tensor<'a, T, D>
{
    fn from(array: &'a ArrayBase<S, D>) -> Self {
        array.view().into()
    }
}

impl<'a, T: Element> From<&'a [T]> for Tensor<'a, T, Ix1> {
    fn from(slice: &'a [T]) -> Self {
        ArrayView::from(slice).into()
    }
}

impl<T: Element> From<Vec<T>> for Tensor<'_, T, Ix1> {
    fn from(elements: Vec<T>) -> Self {
        Array::from(elements).into()
    }
}

impl<T: Element, D: Dimension> Clone for Tensor<'_, T, D> {
    fn clone(&self) -> Self {
        Tensor {
            array: self.array.clone(),
        }
    }
}

impl<T: Element + PartialEq, D: Dimension> PartialEq for Tensor<'_, T, D> {
    fn eq(&self, other: &Self) -> bool {
        self.array == other.array
    }
}

impl<T: Element + fmt::Debug, D: Dimension> fmt::Debug for Tensor<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.array, f)
    }
}
