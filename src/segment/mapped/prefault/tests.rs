//! The requests to the system, and the pages that are touched.

use std::cell::RefCell;

use super::*;
use crate::segment::SegmentOptions;
use crate::segment::huge_pages::PRIVATE;

const MIB: u64 = 1 << 20;

/// Returns the flags of the mapping that starts at an address, and its end.
fn flags_at(start: usize) -> Option<(usize, String)> {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let head = format!("{start:x}-");
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
    let end = lines.next()?.strip_prefix(&head)?.split(' ').next()?;
    let end = usize::from_str_radix(end, 16).unwrap();
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"))?;
    Some((end, format!("{flags} ")))
}

fn options(asked: HugePages) -> SegmentOptions {
    Segment::options().capacity(32 * MIB).huge_pages(asked)
}

#[test]
fn all_arrays_are_advised_and_no_table() {
    for asked in [HugePages::AsSystem, HugePages::Advise, HugePages::Collapse] {
        let segment = options(asked).anonymous().unwrap();
        let huge = &segment.inner.huge;
        let layout = segment.memory().layout();
        let base = segment.inner.mapping.base().addr().get();
        let data = flags_at(base + layout.data as usize);
        let report = segment.huge_pages();
        assert_eq!((report.asked, segment.asked_huge_pages()), (asked, asked));
        assert_eq!(
            (report.page, report.place.is_empty()),
            (huge_page_size(), false)
        );
        if asked == HugePages::AsSystem {
            assert_eq!(data, None, "one mapping, tables and all");
            assert!(huge.setting.place.is_empty(), "not asked for");
            assert!(report.advice_error.is_none());
            continue;
        }
        let Some((end, flags)) = data else {
            assert!(report.advice_error.is_some(), "{report}");
            continue;
        };
        assert!(report.advice_error.is_none(), "{report}");
        assert_eq!(end, base + layout.total as usize);
        assert!(flags.contains(" hg "), "{flags}");
        let (_, flags) = flags_at(base).unwrap();
        assert!(!flags.contains(" hg "), "{flags}");
    }
}

/// Returns the mapped bytes of the segment, before and after; `None` where the system makes huge
/// pages of such a segment's whatever is asked.
fn newly_mapped<R>(segment: &Segment, act: impl FnOnce() -> R) -> Option<(u64, R)> {
    let before = segment.huge_pages();
    let outcome = act();
    let unasked = matches!(
        before.setting.as_deref(),
        Some("always" | "force" | "within_size")
    );
    (!unasked).then(|| (segment.huge_pages().mapped - before.mapped, outcome))
}

#[test]
fn the_pages_of_a_part_are_touched_and_no_others() {
    let page = page_size() as u64;
    let ranges = [
        (0..1, page),
        (page + page * 3 / 4..2 * page, page),
        (page + page * 3 / 4..2 * page + 1, 2 * page),
        (2 * page - 1..3 * page + 1, 3 * page),
        (5 * MIB..7 * MIB, 2 * MIB),
        (32 * MIB - 1..32 * MIB, page),
        (7..7, 0),
    ];
    for asked in [HugePages::AsSystem, HugePages::Advise] {
        for (part, expected) in &ranges {
            let segment = options(asked).anonymous().unwrap();
            let whole = 0..32 * MIB;
            let Some((mapped, touched)) =
                newly_mapped(&segment, || segment.touch(part.clone(), whole))
            else {
                return;
            };
            assert_eq!(touched, Touched::default());
            assert_eq!(mapped, *expected, "{part:?}");
            // They are those of the part.
            segment.touch(part.clone(), 0..32 * MIB);
            let ends = [part.start, part.end.max(1) - 1];
            let data = segment.memory().layout().data;
            for end in ends.into_iter().filter(|_| !part.is_empty()) {
                let at = data + end - end % page;
                segment.inner.mapping.populate(at, page).unwrap();
            }
            let report = segment.huge_pages();
            let again = newly_mapped(&segment, || segment.touch(part.clone(), 0..32 * MIB));
            assert_eq!(again.map(|(mapped, _)| mapped), Some(0), "{report}");
        }
    }
}

/// Returns the requests of a walk over an array, and its result. A closure plays the system.
fn walk(
    part: Range<u64>,
    array: Range<u64>,
    huge: u64,
    answer: impl Fn(usize) -> Result<(), Errno>,
) -> Option<(Vec<u64>, u64, Touched, Option<i32>)> {
    let segment = options(HugePages::AsSystem).anonymous().unwrap();
    let asked = RefCell::new(Vec::new());
    let (mapped, touched) = newly_mapped(&segment, || {
        segment.touch_by(part, array, huge, |block| {
            asked.borrow_mut().push(block / MIB);
            answer(asked.borrow().len() - 1)
        })
    })?;
    let noted = segment.huge_pages().collapse_error;
    let noted = noted.and_then(|error| error.raw_os_error());
    Some((asked.into_inner(), mapped, touched, noted))
}

#[test]
fn huge_pages_that_begin_in_a_part_are_made() {
    let page = page_size() as u64;
    let made = |part: Range<u64>, array: Range<u64>| {
        let walked = walk(part, array, 2 * MIB, |_| Ok(()));
        walked.map(|(asked, mapped, touched, noted)| {
            assert_eq!((touched, noted), (Touched::default(), None));
            (asked, mapped)
        })
    };
    if made(0..1, 0..MIB).is_none() {
        return;
    }
    // One page for each, and the pages before and after them.
    let cases = [
        (0..6 * MIB, 0..6 * MIB, vec![0, 2, 4], 3 * page),
        (2 * MIB..4 * MIB, 0..8 * MIB, vec![2], page),
        (MIB..5 * MIB, 0..32 * MIB, vec![2, 4], MIB + 2 * page),
        (MIB..5 * MIB, MIB..5 * MIB, vec![2], 2 * MIB + page),
        (
            0..6 * MIB - 1,
            0..6 * MIB - 1,
            vec![0, 2],
            2 * MIB + 2 * page,
        ),
        (MIB..2 * MIB, 0..32 * MIB, vec![], MIB),
        (4 * MIB..4 * MIB, 0..32 * MIB, vec![], 0),
    ];
    for (part, array, blocks, mapped) in cases {
        let text = format!("{part:?} of {array:?}");
        assert_eq!(made(part, array), Some((blocks, mapped)), "{text}");
    }
}

#[test]
fn no_huge_page_is_made_where_there_are_none() {
    let refused = |_| -> Result<(), Errno> { panic!("no page to ask for") };
    let walked = walk(0..4 * MIB, 0..4 * MIB, 0, refused);
    let none = (vec![], 4 * MIB, Touched::default(), None);
    assert!(walked.is_none_or(|walked| walked == none));
}

#[test]
fn a_busy_huge_page_is_tried_twice_and_a_refusal_ends_it() {
    let small = |errno: Errno| Touched {
        missing: 0,
        small: errno.raw_os_error(),
    };
    let page = page_size() as u64;
    let walked = |answers: [Result<(), Errno>; 4]| {
        walk(0..4 * MIB, 0..4 * MIB, 2 * MIB, move |call| answers[call])
    };
    for busy in [Errno::AGAIN, Errno::BUSY] {
        let once = walked([Err(busy), Ok(()), Ok(()), Ok(())]);
        let Some(once) = once else { return };
        let fine = Touched::default();
        assert_eq!(once, (vec![0, 0, 2], 2 * page, fine, None));
        // The next one is made, and the pages of this one are small.
        let twice = walked([Err(busy), Err(busy), Ok(()), Ok(())]);
        let noted = Some(busy.raw_os_error());
        let (asked, mapped) = (vec![0, 0, 2], 2 * MIB + page);
        assert_eq!(twice, Some((asked, mapped, small(busy), noted)));
    }
    let refused = walked([Err(Errno::NOMEM), Ok(()), Ok(()), Ok(())]);
    let noted = Some(Errno::NOMEM.raw_os_error());
    assert_eq!(
        refused,
        Some((vec![0], 4 * MIB, small(Errno::NOMEM), noted))
    );
}

#[test]
fn huge_pages_of_a_part_are_made_by_the_system_or_it_says_why_not() {
    let segment = options(HugePages::Collapse).anonymous().unwrap();
    let part = 0..2 * huge_page_size();
    segment.touch(part.clone(), part.clone());
    let layout = segment.memory().layout();
    let base = segment.inner.mapping.base().addr().get();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let data = base + layout.data as usize..base + layout.total as usize;
    let (_, made) = pages_in(&smaps, data);
    let report = segment.huge_pages();
    let error = report.collapse_error.as_ref();
    assert!(made == part.end || error.is_some(), "{report}");
    // A refusal for good here is also one for the second page of the part.
    let error = error.and_then(io::Error::raw_os_error);
    if error == Some(Errno::INVAL.raw_os_error()) {
        let second = layout.data + huge_page_size();
        segment.touch(part.clone(), 0..0);
        let outcome = segment.inner.mapping.collapse(second, huge_page_size());
        assert_eq!(outcome, Err(Errno::INVAL), "{report}");
    }
}

#[test]
fn a_report_of_private_memory_names_its_setting() {
    for asked in [HugePages::AsSystem, HugePages::Advise] {
        let segment = options(asked).in_process().unwrap();
        assert_eq!(segment.huge_pages().place, PRIVATE);
        segment.touch(0..MIB, 0..MIB);
        assert!(segment.huge_pages().mapped >= MIB);
    }
}
