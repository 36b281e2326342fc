//! Memory that is about to be overwritten, and may have no pages yet.

use rustix::mm::Advice;
use rustix::param::page_size;

/// Returns `true` if the first whole page of `bytes` has not been allocated yet. Returns `false` if
/// the system cannot tell.
pub(crate) fn is_fresh(bytes: &mut [u8]) -> bool {
    let Some((first, _)) = whole_pages(bytes) else {
        return false;
    };
    let mut there = 1u8;
    // SAFETY: one page from `first`, which is within `bytes`, and room for the answer about one
    // page.
    let answer = unsafe { libc::mincore(first, page_size(), &mut there) };
    answer == 0 && there & 1 == 0
}

/// Allocates the pages within `bytes` in one call. If the system has no such call, each page is
/// allocated at its first touch.
pub(crate) fn make_pages(bytes: &mut [u8]) {
    if let Some((first, len)) = whole_pages(bytes) {
        // SAFETY: `len` bytes from `first` are within `bytes`, to which the caller has exclusive
        // access; the advice changes none of them. After a refusal the pages are allocated at the
        // first touch.
        let _ = unsafe { rustix::mm::madvise(first, len, Advice::LinuxPopulateWrite) };
    }
}

fn whole_pages(bytes: &mut [u8]) -> Option<(*mut std::ffi::c_void, usize)> {
    let page = page_size();
    let start = bytes.as_mut_ptr();
    let before = start.addr().next_multiple_of(page) - start.addr();
    let len = bytes.len().checked_sub(before)? / page * page;
    (len > 0).then(|| (start.wrapping_add(before).cast(), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_made_once() {
        let segment = crate::Segment::options().capacity(1 << 30).anonymous();
        let table = crate::HandleTable::join(&segment.unwrap()).unwrap();
        let x = table.uninit::<u8, _>(1 << 20).unwrap();
        let mut x = table.write(x).unwrap();
        let mut x = x.view_mut();
        let bytes = x.as_slice_mut().unwrap();
        let (page, len) = (page_size(), bytes.len());
        bytes[..10].fill(7);
        assert!(!is_fresh(bytes) && is_fresh(&mut bytes[page..]));
        make_pages(&mut bytes[page + 1..3 * page + 2]);
        assert!(is_fresh(&mut bytes[page..]), "a page in parts is nobody's");
        assert!(!is_fresh(&mut bytes[2 * page..]) && is_fresh(&mut bytes[3 * page..]));
        assert!(
            !is_fresh(&mut bytes[2 * page + 1..3 * page]),
            "no whole page"
        );
        make_pages(bytes);
        assert!(!is_fresh(&mut bytes[len - page..]));
        assert!(bytes[..10].iter().all(|&x| x == 7) && bytes[10..].iter().all(|&x| x == 0));
        let small = &mut bytes[1..page];
        make_pages(small);
        assert!(!is_fresh(small));
    }
}
