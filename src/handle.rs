//! Handles: eight bytes that name an array in every process, typed or untyped.

use core::fmt;
use core::marker::PhantomData;

use crate::word::{Field, SlotIndex};

const SLOT: Field = Field::first(32);
const GENERATION: Field = SLOT.then(32);

/// The text of a handle before its digits.
const PREFIX: &str = "ndshm:";
const DIGITS: usize = 16;

/// Names one array of elements `T` with dimension `D`, in every process that has its segment.
///
/// A handle is a plain number: copy it, send it through a pipe, keep it in a file or in another
/// array. It keeps nothing alive. After the array is freed, every use of the handle is refused,
/// even if another array has taken the slot. A handle of another segment is refused as well. Each
/// use checks that the array has elements `T` and dimension `D`, so any number may be turned into a
/// handle.
///
/// ```
/// use ndshm::{AnyHandle, Handle};
/// use ndarray::Ix2;
///
/// let handle: Handle<f64, Ix2> = "ndshm:00000007c0ffee00".parse()?;
/// assert_eq!(handle.to_bits(), 0x7_c0ff_ee00);
/// assert_eq!(handle.to_string(), "ndshm:00000007c0ffee00");
/// assert_eq!(size_of_val(&handle), 8);
///
/// let any = AnyHandle::from(handle);
/// assert_eq!(Handle::<f64, Ix2>::from_bits(any.to_bits()), handle);
/// # Ok::<(), ndshm::error::ParseHandleError>(())
/// ```
#[doc(alias("ObjectRef", "reference", "pointer"))]
#[repr(transparent)]
pub struct Handle<T, D> {
    bits: u64,
    // A function pointer: a handle owns no `T`, is `Send` and `Sync` for every `T`, and does not
    // convert between types.
    of: PhantomData<fn() -> (T, D)>,
}

impl<T, D> Handle<T, D> {
    /// Creates a handle from its bits. Its use checks if they name an array.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use ndshm::Handle;
    ///
    /// let sent: u64 = table.from_elem(3, 1.0)?.to_bits();
    /// let x: Handle<f64, Ix1> = Handle::from_bits(sent);
    /// assert_eq!(table.read(x)?.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn from_bits(bits: u64) -> Self {
        Handle {
            bits,
            of: PhantomData,
        }
    }

    /// Returns the bits, to pass the handle on.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use ndshm::Handle;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let word: u64 = x.to_bits();                         // sent in any way
    /// assert_eq!(Handle::<f64, Ix1>::from_bits(word), x);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn to_bits(self) -> u64 {
        self.bits
    }
}

/// Names one array of any type and dimension; see [`Handle`].
#[repr(transparent)]
pub struct AnyHandle {
    bits: u64,
}

impl AnyHandle {
    /// Creates a handle from its bits. Its use checks if they name an array.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::AnyHandle;
    ///
    /// let x = AnyHandle::from(table.zeros::<f64, _>(3)?);
    /// assert_eq!(AnyHandle::from_bits(x.to_bits()), x);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn from_bits(bits: u64) -> Self {
        AnyHandle { bits }
    }

    /// Returns the bits, to pass the handle on.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// assert_eq!(ndshm::AnyHandle::from(x).to_bits(), x.to_bits());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub const fn to_bits(self) -> u64 {
        self.bits
    }

    /// Packs slot 32 | generation 32, least significant first, and xors them with the segment's
    /// key. Keys are random, so in another segment the handle names a slot or a generation that
    /// does not exist.
    #[inline]
    pub(crate) const fn pack(key: u64, slot: SlotIndex, generation: u32) -> Self {
        let word = SLOT.set(0, slot.get() as u64);
        AnyHandle {
            bits: GENERATION.set(word, generation as u64) ^ key,
        }
    }

    /// Returns slot and generation. Total: any bits give some, and the segment's words decide.
    #[inline]
    pub(crate) const fn unpack(self, key: u64) -> (SlotIndex, u32) {
        let word = self.bits ^ key;
        let slot = SlotIndex::new(SLOT.get(word) as usize);
        (slot, GENERATION.get(word) as u32)
    }
}

// SAFETY: `repr(transparent)` over a `u64`; the other field is a `PhantomData` of size 0 and
// alignment 1. Zeros are a value of a `u64`, and `from_bits` takes any.
unsafe impl<T, D> bytemuck::Zeroable for Handle<T, D> {}
// SAFETY: laid out as the `u64` it wraps (see above): no padding, no pointer (the function pointer
// is a type argument and not stored), no interior mutability, and any bits are a value. `Copy`, and
// `'static` by the bounds.
unsafe impl<T: 'static, D: 'static> bytemuck::Pod for Handle<T, D> {}
// SAFETY: `repr(transparent)` over a `u64`; zeros are a value of it.
unsafe impl bytemuck::Zeroable for AnyHandle {}
// SAFETY: `repr(transparent)` over a `u64`, and any bits are a value.
unsafe impl bytemuck::Pod for AnyHandle {}

/// The handle of the same array, without its type.
/// [`typed`](AnyHandle::downcast) is the way back.
impl<T, D> From<Handle<T, D>> for AnyHandle {
    fn from(handle: Handle<T, D>) -> AnyHandle {
        AnyHandle::from_bits(handle.bits)
    }
}

/// A text that is not a handle.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid handle {text:?}: expected {PREFIX:?} and {DIGITS} hexadecimal digits, as in ndshm:0000000700000003"
)]
pub struct ParseHandleError {
    text: String,
}

pub(crate) fn print(bits: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{PREFIX}{bits:0DIGITS$x}")
}

pub(crate) fn parse(text: &str) -> Result<u64, ParseHandleError> {
    text.strip_prefix(PREFIX)
        // `from_str_radix` alone would also accept a sign.
        .filter(|digits| digits.len() == DIGITS && digits.bytes().all(|c| c.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| ParseHandleError {
            text: text.chars().take(64).collect(),
        })
}

/// Implements the traits that all kinds of handles share. They have their own `from_bits` and
/// `to_bits`.
///
/// By hand, because a derive would require the traits of the type parameters, of which a handle
/// holds no value.
macro_rules! handle_traits {
    ($handle:ty, $name:literal $(, $T:ident)*) => {
        impl<$($T),*> Clone for $handle {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($T),*> Copy for $handle {}

        impl<$($T),*> PartialEq for $handle {
            fn eq(&self, other: &Self) -> bool {
                self.to_bits() == other.to_bits()
            }
        }

        impl<$($T),*> Eq for $handle {}

        impl<$($T),*> PartialOrd for $handle {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<$($T),*> Ord for $handle {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.to_bits().cmp(&other.to_bits())
            }
        }

        impl<$($T),*> core::hash::Hash for $handle {
            fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
                self.to_bits().hash(state);
            }
        }

        impl<$($T),*> From<$handle> for u64 {
            fn from(handle: $handle) -> u64 {
                handle.to_bits()
            }
        }

        impl<$($T),*> core::fmt::Display for $handle {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::handle::print(self.to_bits(), f)
            }
        }

        impl<$($T),*> core::fmt::Debug for $handle {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({self})", $name)
            }
        }

        impl<$($T),*> core::str::FromStr for $handle {
            type Err = $crate::handle::ParseHandleError;

            fn from_str(text: &str) -> Result<Self, $crate::handle::ParseHandleError> {
                $crate::handle::parse(text).map(Self::from_bits)
            }
        }

        // As text in human-readable formats, because readers of JSON cut integers to 53 bits.
        #[cfg(feature = "serde")]
        impl<$($T),*> serde::Serialize for $handle {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match serializer.is_human_readable() {
                    true => serializer.collect_str(self),
                    false => serializer.serialize_u64(self.to_bits()),
                }
            }
        }

        #[cfg(feature = "serde")]
        impl<'de $(, $T)*> serde::Deserialize<'de> for $handle {
            fn deserialize<S: serde::Deserializer<'de>>(deserializer: S) -> Result<Self, S::Error> {
                match deserializer.is_human_readable() {
                    true => deserializer.deserialize_str($crate::handle::Text).map(Self::from_bits),
                    false => serde::Deserialize::deserialize(deserializer).map(Self::from_bits),
                }
            }
        }
    };
}
pub(crate) use handle_traits;

/// Implements the traits of a handle that names more than one array: a queue, a partition, a
/// bundle, an object. Opening it checks what it names, so the conversion from an [`AnyHandle`] does
/// not.
macro_rules! opened_handle_traits {
    ($handle:ty, $name:literal $(, $T:ident)*) => {
        $crate::handle::handle_traits!($handle, $name $(, $T)*);

        /// The handle by which it can be freed, detached, adopted and published.
        impl<$($T),*> From<$handle> for $crate::handle::AnyHandle {
            fn from(handle: $handle) -> Self {
                $crate::handle::AnyHandle::from_bits(handle.to_bits())
            }
        }

        /// Opening the handle checks what it names.
        impl<$($T),*> From<$crate::handle::AnyHandle> for $handle {
            fn from(any: $crate::handle::AnyHandle) -> Self {
                Self::from_bits(any.to_bits())
            }
        }
    };
}
pub(crate) use opened_handle_traits;

handle_traits!(Handle<T, D>, "Handle", T, D);
handle_traits!(AnyHandle, "AnyHandle");

/// Reads a handle's text.
#[cfg(feature = "serde")]
pub(crate) struct Text;

#[cfg(feature = "serde")]
impl serde::de::Visitor<'_> for Text {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a handle, {PREFIX:?} and {DIGITS} hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }
}

crate::message::debug_is_display!(ParseHandleError);

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hash;
    use ndarray::Ix2;
    use proptest::prelude::*;

    type Matrix = Handle<f64, Ix2>;

    #[test]
    fn fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[SLOT, GENERATION]);
        assert_eq!(SLOT.mask() | GENERATION.mask(), u64::MAX);
    }

    #[test]
    fn golden_bits_and_texts() {
        let handle = AnyHandle::pack(0xffff_0000_0000_ffff, SlotIndex::new(3), 7);
        assert_eq!(handle.to_bits(), 0xffff_0007_0000_fffc);
        assert_eq!(handle.to_string(), "ndshm:ffff00070000fffc");
        assert_eq!(format!("{handle:?}"), "AnyHandle(ndshm:ffff00070000fffc)");
        assert_eq!(
            format!("{:?}", Matrix::from_bits(1)),
            "Handle(ndshm:0000000000000001)"
        );
    }

    #[test]
    fn a_handle_crosses_threads_whatever_it_names() {
        fn crosses<T: Copy + Send + Sync + Ord + Hash + bytemuck::Pod>() {}
        crosses::<Handle<std::rc::Rc<u8>, Ix2>>();
        crosses::<AnyHandle>();
        assert_eq!(
            (size_of::<Matrix>(), size_of::<Option<AnyHandle>>()),
            (8, 16)
        );
    }

    #[test]
    fn errors_name_the_text_and_the_expected_form() {
        for text in [
            "",
            "ndshm:",
            "0000000000000001",
            "ndshm:000000000000001",
            "ndshm:00000000000000001",
            "ndshm:+000000000000001",
            "ndshm:000000000000000g",
            " ndshm:0000000000000001",
        ] {
            let message = text.parse::<Matrix>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("invalid handle {text:?}")),
                "{message}"
            );
            assert!(
                message.contains("\"ndshm:\" and 16 hexadecimal digits"),
                "{message}"
            );
        }
        let long = "x".repeat(1 << 20).parse::<AnyHandle>().unwrap_err();
        assert!(long.to_string().len() < 256);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_writes_text_for_people_and_a_number_otherwise() {
        let handle = Matrix::from_bits(u64::MAX - 1);
        let json = serde_json::to_string(&handle).unwrap();
        assert_eq!(json, "\"ndshm:fffffffffffffffe\"");
        assert_eq!(serde_json::from_str::<Matrix>(&json).unwrap(), handle);
        assert_eq!(
            serde_json::from_str::<AnyHandle>(&json).unwrap(),
            handle.into()
        );
        let error = serde_json::from_str::<Matrix>("\"7\"").unwrap_err();
        assert!(
            error.to_string().contains("invalid handle \"7\""),
            "{error}"
        );
        let error = serde_json::from_str::<Matrix>("7").unwrap_err();
        assert!(error.to_string().contains("hexadecimal digits"), "{error}");
    }

    proptest! {
        #[test]
        fn slot_and_generation_round_trip(key: u64, slot: u32, generation: u32) {
            let slot = SlotIndex::new(slot as usize);
            let handle = AnyHandle::pack(key, slot, generation);
            prop_assert_eq!(handle.unpack(key), (slot, generation));
        }

        #[test]
        fn another_key_gives_another_name(key: u64, other: u64, slot: u32, generation: u32) {
            prop_assume!(key != other);
            let slot = SlotIndex::new(slot as usize);
            let handle = AnyHandle::pack(key, slot, generation);
            prop_assert_ne!(handle.unpack(other), (slot, generation));
        }

        #[test]
        fn any_bits_are_a_handle_in_every_form(bits: u64) {
            let handle = Matrix::from_bits(bits);
            prop_assert_eq!(u64::from(handle), bits);
            prop_assert_eq!(handle.to_string().parse::<Matrix>(), Ok(handle));
            prop_assert_eq!(AnyHandle::from(handle).to_string().parse(), Ok(handle));
            prop_assert_eq!(bytemuck::cast::<Matrix, u64>(handle), bits);
            prop_assert_eq!(bytemuck::cast::<AnyHandle, u64>(handle.into()), bits);
        }

        #[test]
        fn parsing_is_total(text: String) {
            prop_assert!(text.parse::<AnyHandle>().is_err());
        }

        #[test]
        fn a_parsed_handle_prints_as_its_text(text in "ndshm:[0-9a-f+]{15,17}") {
            match text.parse::<AnyHandle>() {
                Ok(handle) => prop_assert_eq!(handle.to_string(), text),
                Err(_) => prop_assert!(text.len() != 22 || text.contains('+')),
            }
        }
    }
}
