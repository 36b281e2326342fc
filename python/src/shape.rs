//! Shapes and strides of arrays, without an allocation.

use ndshm::element::Order;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// The most axes of an array in a table.
pub(crate) const MAX_AXES: usize = 8;

/// Some lengths or strides, one an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Axes {
    values: [isize; MAX_AXES],
    count: usize,
}

impl Axes {
    pub(crate) const fn none() -> Axes {
        Axes {
            values: [0; MAX_AXES],
            count: 0,
        }
    }

    /// Adds an axis.
    pub(crate) fn push(&mut self, value: isize) -> PyResult<()> {
        let Some(place) = self.values.get_mut(self.count) else {
            return Err(PyValueError::new_err(format!(
                "an array of more than {MAX_AXES} axes: a table has arrays of at most {MAX_AXES}; \
                 join some of them with reshape"
            )));
        };
        *place = value;
        self.count += 1;
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[isize] {
        &self.values[..self.count]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [isize] {
        &mut self.values[..self.count]
    }

    /// Returns lengths that were checked to be not negative.
    pub(crate) fn lengths(&self) -> ([usize; MAX_AXES], usize) {
        (self.values.map(isize::unsigned_abs), self.count)
    }

    /// Reads the `shape` argument of numpy: a number or a sequence of numbers.
    pub(crate) fn shape(shape: &Bound<'_, PyAny>) -> PyResult<Axes> {
        let mut axes = Axes::none();
        if let Ok(tuple) = shape.cast::<PyTuple>() {
            for length in tuple.iter_borrowed() {
                axes.push_length(&length)?;
            }
        } else if let Ok(list) = shape.cast::<PyList>() {
            for length in list.iter() {
                axes.push_length(&length)?;
            }
        } else if let Ok(length) = shape.extract::<isize>() {
            axes.push(checked(length)?)?;
        } else if let Ok(lengths) = shape.try_iter() {
            for length in lengths {
                axes.push_length(&length?)?;
            }
        } else {
            axes.push_length(shape)?;
        }
        Ok(axes)
    }

    fn push_length(&mut self, length: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = length.extract::<isize>().map_err(|_| {
            PyTypeError::new_err(format!(
                "a shape consists of integers below 2**63: {length:?} is none"
            ))
        })?;
        self.push(checked(number)?)
    }

    /// Returns the strides in bytes of a contiguous array of this shape.
    ///
    /// A stride never exceeds the bytes of an array, which a table has checked; for an empty array
    /// the product may wrap, and is not used.
    pub(crate) fn strides(&self, itemsize: usize, order: Order) -> Axes {
        let mut strides = *self;
        let mut next = itemsize as isize;
        let mut set = |axis: usize| {
            strides.values[axis] = next;
            next = next.wrapping_mul(self.values[axis].max(1));
        };
        match order {
            Order::F => (0..self.count).for_each(&mut set),
            _ => (0..self.count).rev().for_each(&mut set),
        }
        strides
    }
}

fn checked(length: isize) -> PyResult<isize> {
    match length {
        0.. => Ok(length),
        _ => Err(PyValueError::new_err(format!(
            "the length {length} of an axis is negative: lengths are 0 or more"
        ))),
    }
}

/// Reads the `order` argument of numpy: `"C"` or `"F"`.
pub(crate) fn order(text: Option<&str>) -> PyResult<Order> {
    match text {
        None | Some("C" | "c") => Ok(Order::C),
        Some("F" | "f") => Ok(Order::F),
        Some(text) => Err(PyValueError::new_err(format!(
            "the order {text:?} is not known: it is 'C' or 'F'"
        ))),
    }
}
