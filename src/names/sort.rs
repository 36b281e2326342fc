//! Sorting names.

use super::NameInfo;
use super::record::MAX_NAME;

/// Bytes of a text that are compared at once, as a number.
const BYTES: usize = size_of::<u64>();

/// The shortest list for which computing the numbers costs less than comparing the texts.
const LEAST: usize = 16;

/// Sorts names as [`slice::sort`] does. Comparing texts would take most of the time of a listing.
pub(crate) fn sort_names(names: &mut [NameInfo]) {
    sort_from(names, 0);
}

/// Sorts names whose texts are equal up to byte `start`.
fn sort_from(names: &mut [NameInfo], start: usize) {
    // The bound of `start` only ends the recursion for equal texts.
    if names.len() < LEAST || start > MAX_NAME {
        return names.sort_unstable();
    }
    let number = |info: &NameInfo| number_at(&info.name, start);
    names.sort_by_cached_key(number);
    for equal in names.chunk_by_mut(|a, b| number(a) == number(b)) {
        if equal.len() > 1 {
            sort_from(equal, start + BYTES);
        }
    }
}

/// Returns the bytes of a text from `start` on as a number, with zeros behind the end. If two numbers
/// differ, they are in the order of their texts.
fn number_at(text: &str, start: usize) -> u64 {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    u64::from_be_bytes(rest.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        padded
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::AnyHandle;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Returns texts of which many have a long beginning in common, or differ by trailing zeros.
    fn any_text() -> impl Strategy<Value = String> {
        let end = prop_oneof!["[ab\0]{0,3}", "[a-zé]{0,12}"];
        (0usize..20, end).prop_map(|(shared, end)| "layer/".repeat(shared / 5) + &end)
    }

    proptest! {
        #[test]
        fn names_are_sorted_as_a_slice_sorts(
            names in vec((any_text(), 0u64..3, 0u32..2), 0..100)
        ) {
            let names = names.into_iter().map(|(name, bits, pid)| NameInfo {
                name,
                handle: AnyHandle::from_bits(bits),
                pid,
            });
            let mut sorted: Vec<NameInfo> = names.collect();
            let mut expected = sorted.clone();
            expected.sort();
            sort_names(&mut sorted);
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn equal_texts_of_the_largest_length_are_sorted_by_their_handles() {
        let with = |bits| NameInfo {
            name: "x".repeat(MAX_NAME),
            handle: AnyHandle::from_bits(bits),
            pid: 1,
        };
        let mut names: Vec<NameInfo> = (0..40).rev().map(with).collect();
        sort_names(&mut names);
        assert!(names.is_sorted() && names.len() == 40);
    }
}
