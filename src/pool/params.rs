//! The types that calls pass to kernels and get back from them.
//!
//! A value crosses as bytes. Plain data crosses as its own bytes. A tuple or an array is written
//! value by value, without gaps, so that its padding is neither read nor written. The receiving
//! side checks the bytes of `bool` and of other types that not all bytes are a value of.
//!
//! A trait with a blanket implementation for plain data has no room for tuples: [`bytemuck`] could
//! declare them plain one day. Each trait here therefore has a parameter that names the way in which
//! a type crosses. It differs between the implementations, and calls infer it.

use core::any::type_name;
use core::marker::PhantomData;
use core::num::NonZero;
use std::borrow::Cow;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::call_memory::Slot;
use super::results::Results;
use crate::pool::error::PoolError;

/// A type that a call passes to kernels.
///
/// | type | crosses as |
/// |---|---|
/// | plain data: numbers, handles, `#[derive(Pod)]` structs, arrays of these | its bytes |
/// | `bool`, `char`, `NonZero` integers, enums with `#[derive(NoUninit, CheckedBitPattern)]` | its bytes, which the worker checks |
/// | tuples of up to six parameters | one after another |
/// | arrays of `bool`, `char`, `NonZero` integers, tuples and such arrays | one after another |
///
/// A call writes the parameters once. Each worker that takes part reads them once, and passes the
/// kernel a reference to its copy. `M` says how the type crosses: calls infer it.
///
/// Pass arrays by their handles. With the feature `serde`, `ndshm::object::Value` passes any other
/// value.
///
/// ```
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_elem(100, 3.0)?;
/// let tiles = table.partition(x.write(), Axis(0), 10)?;
/// let mut pool = Pool::threads(&table, 2)?;
///
/// let (factor, clip, mask) = (2.0, true, [(0, true), (9, false)]);
/// pool.for_each(&tiles, &(factor, clip, mask), |mut x, &(factor, clip, mask), _tile| {
///     x *= factor;
///     for (at, _) in mask.into_iter().filter(|&(_, masked)| masked) {
///         x[at] = 0.0;
///     }
///     if clip {
///         x.mapv_inplace(|x: f64| x.min(5.0));
///     }
/// })?;
/// assert_eq!(table.read(x)?.sum(), 90.0 * 5.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed to a kernel as a parameter",
    label = "not plain data",
    note = "parameters are plain data: numbers, `bool`, `char`, handles, `#[derive(Pod)]` structs, \
            and arrays and tuples of up to six of them",
    note = "pass an array by its handle: put it into the table, and read it in the kernel or in \
            the partition's group",
    note = "with the feature `serde`, `&ndshm::object::Value(x)` passes any other value"
)]
pub trait Param<M>: Sized + 'static {
    /// Returns the bytes that cross.
    #[doc(hidden)]
    fn bytes(&self) -> Result<Cow<'_, [u8]>, PoolError>;

    /// Reads a value from the bytes that have crossed.
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Result<Self, PoolError>;
}

#[diagnostic::do_not_recommend]
impl<M, T: Plain<M>> Param<M> for T {
    #[inline]
    fn bytes(&self) -> Result<Cow<'_, [u8]>, PoolError> {
        Ok(self.encoded())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, PoolError> {
        T::load(bytes).ok_or_else(|| PoolError::Params {
            params: type_name::<T>(),
            message: format!(
                "the {} bytes that arrived are not a value of it",
                bytes.len()
            ),
        })
    }
}

/// A type that kernels return.
///
/// The types are those of [`Param`], and with the feature `serde` `ndshm::object::Value`. Each worker writes the result of its tile into memory that the
/// parent reads at the end of the call. `M` says how the type crosses: calls infer it.
///
/// ```
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_shape_fn(100, |i| i as f64)?;
/// let tiles = table.partition(x.read(), Axis(0), 25)?;
/// let mut pool = Pool::threads(&table, 2)?;
///
/// // Of each tile: the sum, and whether any of its numbers is above a limit.
/// let parts = pool.map_collect(&tiles, &70.0, |x, &limit, _tile| {
///     (x.sum(), x.iter().any(|&x| x > limit))
/// })?;
/// assert_eq!(parts, [(300.0, false), (925.0, false), (1550.0, true), (2175.0, true)]);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a kernel",
    label = "not plain data",
    note = "results are plain data: `()`, numbers, `bool`, `char`, handles, `#[derive(Pod)]` \
            structs, and arrays and tuples of up to six of them",
    note = "write results of any length into an array: let the partition's group have `.write()` \
            of it",
    note = "with the feature `serde`, `ndshm::object::Value(x)` returns any other value"
)]
pub trait Output<M>: Sized + 'static {
    /// The bytes that a result has in the memory of its call.
    #[doc(hidden)]
    const SLOT: Slot;

    /// Stores the result of the tile or worker `at`, which the caller has claimed.
    #[doc(hidden)]
    fn store(&self, results: &mut Results<'_>, at: usize);

    /// Reads a result. Returns the reason if `bytes` is not the encoding of any.
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

#[diagnostic::do_not_recommend]
impl<M, T: Plain<M>> Output<M> for T {
    const SLOT: Slot = Slot::Bytes(T::SIZE);

    #[inline]
    #[track_caller]
    fn store(&self, results: &mut Results<'_>, at: usize) {
        results.store(at, T::SIZE, |bytes| Plain::store(self, bytes));
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        T::load(bytes).ok_or_else(|| format!("its {} bytes are not a value of it", bytes.len()))
    }
}

/// A function that a pool runs: a `fn` item, or a closure without captures.
///
/// Implemented for every function that could be one. The call checks in addition that the function
/// has size zero. The compiler has no sizes before it builds a program: `cargo build` reports a
/// captured number, with the line of the call, and `cargo check` does not. Around a closure,
/// `const { .. }` makes `cargo check` and editors report it too, with the line of the capture.
///
/// ```compile_fail,E0435
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.zeros::<f64, _>(100)?;
/// # let tiles = table.partition(x.write(), ndarray::Axis(0), 10)?;
/// # let mut pool = Pool::threads(&table, 2)?;
/// let factor = 2.0;
/// pool.for_each(&tiles, &(), const { |mut x, (), _tile| x *= factor })?;
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// As a parameter the number crosses:
///
/// ```
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.from_elem(100, 1.0)?;
/// # let tiles = table.partition(x.write(), ndarray::Axis(0), 10)?;
/// # let mut pool = Pool::threads(&table, 2)?;
/// let factor = 2.0;
/// pool.for_each(&tiles, &factor, const { |mut x, &factor, _tile| x *= factor })?;
/// assert_eq!(table.read(x)?.sum(), 200.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a kernel: pass captured values as parameters",
    label = "captures values",
    note = "workers are other processes: a kernel is a `fn` item or a closure without captures",
    note = "write `pool.for_each(&tiles, &(a, b), |views, &(a, b), tile| ..)` in place of a closure \
            that captures `a` and `b`; pass arrays as handles"
)]
pub trait Kernel: Copy + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + 'static> Kernel for F {}

/// A type whose values have an encoding of fixed length.
pub trait Plain<M>: Sized + 'static {
    /// Length of the encoding, in bytes.
    #[doc(hidden)]
    const SIZE: usize;

    /// Writes the encoding to `bytes`, which has [`SIZE`](Plain::SIZE) bytes.
    #[doc(hidden)]
    fn store(&self, bytes: &mut [u8]);

    /// Reads a value. Returns `None` if `bytes` is not the encoding of any.
    #[doc(hidden)]
    fn load(bytes: &[u8]) -> Option<Self>;

    /// Returns the encoding.
    #[doc(hidden)]
    fn encoded(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; Self::SIZE];
        self.store(&mut bytes);
        Cow::Owned(bytes)
    }
}

/// The way of plain data: the encoding of a value is its bytes.
#[derive(Debug)]
pub enum Bytes {}

#[diagnostic::do_not_recommend]
impl<T: NoUninit + CheckedBitPattern> Plain<Bytes> for T {
    const SIZE: usize = size_of::<T>();

    #[inline]
    fn store(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(bytemuck::bytes_of(self));
    }

    #[inline]
    fn load(bytes: &[u8]) -> Option<Self> {
        bytemuck::checked::try_pod_read_unaligned(bytes).ok()
    }

    fn encoded(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::bytes_of(self))
    }
}

/// A type whose arrays are not plain data, so that an array of it has one way to cross.
pub trait Item<M>: Plain<M> {}

macro_rules! items {
    ($($type:ty),+) => {$(
        impl Item<Bytes> for $type {}
    )+};
}

items!(bool, char);
items!(
    NonZero<u8>,
    NonZero<u16>,
    NonZero<u32>,
    NonZero<u64>,
    NonZero<u128>,
    NonZero<usize>
);
items!(
    NonZero<i8>,
    NonZero<i16>,
    NonZero<i32>,
    NonZero<i64>,
    NonZero<i128>,
    NonZero<isize>
);

/// The way of arrays whose items cross by `M`.
#[derive(Debug)]
pub struct Items<M>(PhantomData<M>);

impl<M, T: Item<M>, const N: usize> Item<Items<M>> for [T; N] {}

#[diagnostic::do_not_recommend]
impl<M, T: Item<M>, const N: usize> Plain<Items<M>> for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn store(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        for item in self {
            let (place, after) = rest.split_at_mut(T::SIZE);
            item.store(place);
            rest = after;
        }
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::SIZE {
            return None;
        }
        let items = (0..N).map(|at| T::load(bytes.get(at * T::SIZE..)?.get(..T::SIZE)?));
        items.collect::<Option<Vec<T>>>()?.try_into().ok()
    }
}

/// Implements the traits for tuples. A tuple crosses by the tuple of its members' ways.
macro_rules! tuples {
    ($($($type:ident $by:ident $at:tt),+;)+) => {$(
        impl<$($by, $type: Plain<$by>),+> Item<($($by,)+)> for ($($type,)+) {}

        #[diagnostic::do_not_recommend]
        impl<$($by, $type: Plain<$by>),+> Plain<($($by,)+)> for ($($type,)+) {
            const SIZE: usize = 0 $(+ $type::SIZE)+;

            fn store(&self, bytes: &mut [u8]) {
                let rest = bytes;
                $(
                    let (place, rest) = rest.split_at_mut($type::SIZE);
                    self.$at.store(place);
                )+
                debug_assert!(rest.is_empty());
            }

            fn load(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                let value = ($({
                    let (bytes, after) = rest.split_at_checked($type::SIZE)?;
                    rest = after;
                    $type::load(bytes)?
                },)+);
                rest.is_empty().then_some(value)
            }
        }
    )+};
}

tuples! {
    A MA 0;
    A MA 0, B MB 1;
    A MA 0, B MB 1, C MC 2;
    A MA 0, B MB 1, C MC 2, D MD 3;
    A MA 0, B MB 1, C MC 2, D MD 3, E ME 4;
    A MA 0, B MB 1, C MC 2, D MD 3, E ME 4, F MF 5;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a value, reads it back, and returns its bytes.
    fn crosses<M, T: Plain<M> + PartialEq + core::fmt::Debug>(value: T) -> Vec<u8> {
        let bytes = value.encoded().into_owned();
        assert_eq!(bytes.len(), T::SIZE);
        assert_eq!(T::load(&bytes).as_ref(), Some(&value));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(T::load(&longer), None, "{value:?}");
        if let [shorter @ .., _] = &bytes[..] {
            assert_eq!(T::load(shorter), None, "{value:?}");
        }
        bytes
    }

    #[test]
    fn values_follow_each_other_without_gaps() {
        assert_eq!(crosses(0x0102u16), [2, 1]);
        assert_eq!(crosses(true), [1]);
        assert_eq!(crosses((1u8, 2u32, true)), [1, 2, 0, 0, 0, 1]);
        assert_eq!(crosses([(1u8, 2u16), (3, 4)]), [1, 2, 0, 3, 4, 0]);
        assert_eq!(crosses([[true, false], [false, true]]), [1, 0, 0, 1]);
        assert_eq!(crosses(((true,), [1.0f64; 2], 'a')).len(), 21);
        assert_eq!(
            crosses((1u8, 2u8, 3u8, 4u8, 5u8, NonZero::<u8>::MAX)).len(),
            6
        );
        assert!(crosses(()).is_empty());
        assert!(crosses([((), [true; 0]); 3]).is_empty());
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        assert_eq!(bool::load(&[2]), None);
        assert_eq!(char::load(&0xd800u32.to_ne_bytes()), None);
        assert_eq!(<(u8, bool)>::load(&[9, 255]), None);
        assert_eq!(<[bool; 3]>::load(&[0, 1, 2]), None);
        assert_eq!(<[(bool, u8); 2]>::load(&[0, 9, 3, 9]), None);
        assert_eq!(<[NonZero<u8>; 2]>::load(&[1, 0]), None);
    }
}
