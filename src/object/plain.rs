//! Elements as bytes, and bytes as elements.

use core::slice;

use crate::element::{Element, InvalidElement, Kind};

/// Returns the name of an element type as a tensor stores it; for a record, its layout.
pub(super) fn dtype_of<T: Element>() -> &'static str {
    match T::KIND {
        Kind::Scalar(scalar) => scalar.name(),
        Kind::Record(layout) => layout.text(),
    }
}

/// Returns the bytes of elements.
pub(super) fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    let bytes = size_of_val(elements);
    // SAFETY: an element has no padding and no cell (the contract of `Element`), so all `bytes` are
    // initialised and do not change while they are borrowed. A byte is aligned anywhere.
    unsafe { slice::from_raw_parts(elements.as_ptr().cast::<u8>(), bytes) }
}

/// Reason why bytes are not elements.
#[derive(Debug)]
pub(super) enum ElementsError {
    /// The length is not a whole number of elements.
    Length,
    /// Some bytes are not a value of the type.
    Invalid(InvalidElement),
}

/// Returns the elements that the bytes represent, or a copy of them if the bytes are not aligned
/// for the type.
pub(super) fn elements_of<T: Element>(bytes: &[u8]) -> Result<Elements<'_, T>, ElementsError> {
    if !bytes.len().is_multiple_of(size_of::<T>().max(1)) {
        return Err(ElementsError::Length);
    }
    T::check(bytes).map_err(ElementsError::Invalid)?;
    let count = bytes.len() / size_of::<T>().max(1);
    let first = bytes.as_ptr().cast::<T>();
    if first.is_aligned() {
        // SAFETY: the bytes are borrowed, initialised and have the length of `count` elements. The
        // pointer is aligned. Each element is a value of `T`: `check` accepted it, or any bytes are
        // a value.
        return Ok(Elements::Borrowed(unsafe {
            slice::from_raw_parts(first, count)
        }));
    }
    let read = |at| {
        let element = bytes[at * size_of::<T>()..].as_ptr().cast::<T>();
        // SAFETY: the index keeps the slice in bounds, and it holds the rest of `count` elements,
        // including this one. They are values of `T` as above. The read needs no alignment.
        unsafe { element.read_unaligned() }
    };
    Ok(Elements::Owned((0..count).map(read).collect()))
}

/// Elements in place, or copied.
#[derive(Debug)]
pub(super) enum Elements<'a, T> {
    Borrowed(&'a [T]),
    Owned(Vec<T>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_elements_aligned_or_not() {
        let words = [0x0102_0304_0506_0708_u64, 7];
        let bytes = bytes_of(&words);
        assert_eq!(bytes.len(), 16);
        assert!(matches!(elements_of::<u64>(bytes), Ok(Elements::Borrowed(same)) if same == words));

        // Either the first or the last eight of nine consecutive bytes are not aligned.
        let mut shifted = [0_u8; 17];
        let at = usize::from(shifted.as_ptr().cast::<u64>().is_aligned());
        shifted[at..at + 16].copy_from_slice(bytes);
        let copied = elements_of::<u64>(&shifted[at..at + 16]);
        assert!(matches!(copied, Ok(Elements::Owned(same)) if same == words));

        assert!(matches!(
            elements_of::<u64>(&bytes[1..]),
            Err(ElementsError::Length)
        ));
        assert!(matches!(
            elements_of::<bool>(&[0, 1, 2]),
            Err(ElementsError::Invalid(InvalidElement {
                index: 2,
                value: 2
            }))
        ));
        assert!(matches!(
            elements_of::<bool>(&[0, 1]),
            Ok(Elements::Borrowed([false, true]))
        ));
    }
}
