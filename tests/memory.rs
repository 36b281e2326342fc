//! Pages ahead of time, and huge pages: on machines that grant them and on those that do not.

#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "exhaustion/own_shm.rs"]
mod own_shm;
mod support;

use std::collections::BTreeSet;

use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::segment::HugePages;
use ndshm::{Error, Grid, Handle, HandleTable, Pool, Segment};
use own_shm::own_shm_of;
use support::{Child, Name, Pipe};

const MIB: usize = 1 << 20;

fn main() {
    ndshm::become_worker();
    support::run_tests![
        prefault_makes_all_pages_present,
        prefault_refuses_leased_and_stale_arrays,
        workers_prefault_their_own_tiles,
        tiles_of_every_form_are_prefaulted,
        collapse_gives_huge_pages_or_says_why_not,
        the_option_reaches_all_workers,
        a_mount_that_grants_advice_gives_huge_pages,
        a_mount_that_refuses_advice_names_the_remedy,
        a_full_mount_refuses_and_keeps_no_pages,
        huge_pages_are_given_back,
        freeing_part_of_a_huge_page_keeps_the_rest,
        an_array_freed_while_read_elsewhere_leaves_its_place_to_the_next,
        an_array_that_was_pinned_leaves_its_place_to_the_next,
        pages_freed_by_another_process_count_as_retained,
        an_array_takes_the_place_with_the_pages_that_it_needs,
        pages_beyond_an_array_go_back_where_few_more_may_be_kept,
        only_missing_pages_are_allocated,
    ];
}

fn an_array_that_was_pinned_leaves_its_place_to_the_next() {
    for bytes in [64, 5000, 8 * MIB] {
        let table = table_of(HugePages::AsSystem);
        let places: BTreeSet<_> = (0..10)
            .map(|_| {
                let x = table.zeros::<u8, _>(bytes).unwrap();
                let place = table.pin(x).unwrap().as_ptr();
                table.free(x).unwrap();
                place
            })
            .collect();
        assert_eq!(places.len(), 1, "{bytes} bytes");
    }
}

fn an_array_freed_while_read_elsewhere_leaves_its_place_to_the_next() {
    for bytes in [5000, 100_000, 8 * MIB] {
        let table = table_of(HugePages::AsSystem);
        let (go, done) = (Pipe::new(), Pipe::new());
        let child = Child::fork(|| {
            let reader = HandleTable::join(table.segment()).unwrap();
            for _ in 0..10 {
                let x: Handle<u8, Ix1> = Handle::from_bits(go.receive());
                let reading = reader.read(x).unwrap();
                done.send(0);
                go.receive();
                assert_eq!(reading[bytes - 1], 7);
                drop(reading);
                done.send(0);
            }
        });
        let mut places = BTreeSet::new();
        for _ in 0..10 {
            let x = table.from_elem(bytes, 7u8).unwrap();
            places.insert(table.attach(x).unwrap().as_ptr());
            go.send(x.to_bits());
            done.receive();
            table.free(x).unwrap();
            go.send(0);
            done.receive();
        }
        child.join();
        assert_eq!(places.len(), 1, "places of arrays of {bytes} bytes");
    }
}

fn pages_freed_by_another_process_count_as_retained() {
    let limit = 40 * MIB;
    let options = Segment::options().capacity(8 << 30).retain(limit as u64);
    let table = HandleTable::join(&options.anonymous().unwrap()).unwrap();
    let reader = HandleTable::join(table.segment()).unwrap();
    for round in 0..3 {
        let many: Vec<_> = (0..8)
            .map(|_| table.from_elem(16 * MIB, 7u8).unwrap())
            .collect();
        let reading: Vec<_> = many.iter().map(|&x| reader.read(x).unwrap()).collect();
        for &x in &many {
            table.free(x).unwrap();
        }
        assert!(there(&table) >= 128 * MIB, "they are still read");
        drop(reading);
        let kept = there(&table);
        assert!(
            (16 * MIB..limit + MIB).contains(&kept),
            "round {round}: {kept} bytes"
        );
    }
}

fn an_array_takes_the_place_with_the_pages_that_it_needs() {
    let table = table_of(HugePages::AsSystem);
    let lengths = [600_000, 1_040_000, 800_000, 530_000];
    let arrays = lengths.map(|len| table.from_elem(len, 1u8).unwrap());
    let place = |x| table.attach(x).unwrap().as_ptr();
    let places = arrays.map(place);
    // The order of freeing differs from that of the lengths.
    for x in arrays {
        table.free(x).unwrap();
    }
    let before = there(&table);
    for len in [1_000_000, 590_000, 790_000, 529_999] {
        let x = table.from_elem(len, 2u8).unwrap();
        let nearest = (0..4).min_by_key(|&at| len.abs_diff(lengths[at])).unwrap();
        assert_eq!(place(x), places[nearest], "{len} bytes");
    }
    assert_eq!(there(&table), before, "no page was added");
}

fn pages_beyond_an_array_go_back_where_few_more_may_be_kept() {
    let (long, short) = (8 * MIB, 5 * MIB + 1);
    // The bytes that stay of the long array's pages, if so many may be retained.
    let kept = |retain: usize, huge_pages| {
        let options = Segment::options().capacity(1 << 30).huge_pages(huge_pages);
        let segment = options.retain(retain as u64).anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(long, 1u8).unwrap();
        // The first lease touches a page of the tables.
        drop(table.read(x).unwrap());
        let before = there(&table);
        table.free(x).unwrap();
        let x = table.from_elem(short, 2u8).unwrap();
        let kept = long + there(&table) - before;
        assert!(table.read(x).unwrap().iter().all(|&byte| byte == 2));
        // The pages that went back read as zeros, and the next array gets new ones.
        table.free(x).unwrap();
        let x = table.zeros::<u8, _>(long).unwrap();
        assert!(table.read(x).unwrap().iter().all(|&byte| byte == 0));
        table.write(x).unwrap().fill(3);
        assert_eq!(there(&table), before);
        kept
    };
    let page = rustix::param::page_size();
    let small = HugePages::AsSystem;
    assert_eq!(kept(8 * MIB, small), short.next_multiple_of(page));
    assert_eq!(kept(80 * MIB, small), long, "much more may be kept");
    // The huge page that the array ends in stays whole, whether or not it is huge.
    assert_eq!(kept(8 * MIB, HugePages::Collapse), 6 * MIB);
}

fn only_missing_pages_are_allocated() {
    let name = Name::new("missing");
    let Ok(segment) = Segment::options().capacity(64 << 20).create(&name.0) else {
        return println!("  skipped: /dev/shm has no room");
    };
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(5 * MIB, 1u8).unwrap();
    let before = there(&table);
    table.free(x).unwrap();
    let x = table.uninit::<u8, _>(8 * MIB).unwrap();
    assert_eq!(there(&table), before + 3 * MIB, "all of it is allocated");
    let view = table.read(x).unwrap();
    assert!(view.iter().take(5 * MIB).all(|&byte| byte == 1));
    assert!(view.iter().skip(5 * MIB).all(|&byte| byte == 0));
}

fn table_of(huge_pages: HugePages) -> HandleTable {
    let options = Segment::options().capacity(1 << 30).huge_pages(huge_pages);
    HandleTable::join(&options.anonymous().unwrap()).unwrap()
}

/// Returns the bytes of the segment's file that have pages.
fn there(table: &HandleTable) -> usize {
    let fd = table.segment().fd().unwrap();
    rustix::fs::fstat(fd).unwrap().st_blocks as usize * 512
}

fn mapped(segment: &Segment) -> usize {
    segment.huge_pages().mapped as usize
}

/// Asserts that some page is huge, or that the report states a remedy.
#[track_caller]
fn granted_or_explained(segment: &Segment, asked: HugePages) -> bool {
    let report = segment.huge_pages();
    assert_eq!(report.asked, asked);
    assert!(report.mapped_huge <= report.mapped, "{report}");
    assert_eq!(report.remedy().is_none(), report.is_granted(), "{report}");
    println!("  {report}");
    report.is_granted()
}

fn prefault_makes_all_pages_present() {
    for huge_pages in [HugePages::AsSystem, HugePages::Advise, HugePages::Collapse] {
        let table = table_of(huge_pages);
        let segment = table.segment().clone();
        let bytes = 5 * MIB + 12_345;
        let x = table.zeros::<u8, _>(bytes).unwrap();
        table.write(x).unwrap()[bytes - 1] = 7;
        let (file, own) = (there(&table), mapped(&segment));
        assert!(own < 4 * MIB, "{own} bytes before anything was touched");
        table.prefault(x).unwrap();
        assert!(there(&table) >= bytes && there(&table) > file);
        assert!(mapped(&segment) >= bytes);
        assert_eq!(table.read(x).unwrap()[bytes - 1], 7);
        assert_eq!(
            table
                .read(x)
                .unwrap()
                .iter()
                .map(|&x| x as u64)
                .sum::<u64>(),
            7
        );
        // With the pages present, a second call changes nothing.
        let file = there(&table);
        table.prefault(x).unwrap();
        assert_eq!(there(&table), file);
    }
    let segment = Segment::options().huge_pages(HugePages::Collapse);
    let segment = segment.in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u8, _>(4 * MIB).unwrap();
    table.prefault(x).unwrap();
    assert!(mapped(&segment) >= 4 * MIB);
    granted_or_explained(&segment, HugePages::Collapse);
}

fn prefault_refuses_leased_and_stale_arrays() {
    let table = table_of(HugePages::AsSystem);
    let x = table.zeros::<u8, _>(4 * MIB).unwrap();
    let writing = table.write(x).unwrap();
    let before = there(&table);
    let busy = table.prefault(x);
    assert!(
        matches!(busy, Err(Error::Lease(LeaseError::Busy { .. }))),
        "{busy:?}"
    );
    drop(writing);
    let reading = table.read(x).unwrap();
    table.prefault(x).unwrap();
    drop(reading);
    assert!(there(&table) >= before + 4 * MIB);
    table.free(x).unwrap();
    let stale = table.prefault(x);
    assert!(
        matches!(stale, Err(Error::Lease(LeaseError::Stale { .. }))),
        "{stale:?}"
    );
    let empty = table.zeros::<u64, _>((0, 5)).unwrap();
    table.prefault(empty).unwrap();
}

fn workers_prefault_their_own_tiles() {
    let table = table_of(HugePages::AsSystem);
    let bytes = 16 * MIB;
    let x = table.zeros::<u64, _>(bytes / 8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10_000).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let in_workers = |pool: &mut Pool<'_>| -> usize {
        let mapped = pool.broadcast(&(), |worker, ()| mapped(worker.table().segment()) as u64);
        mapped.unwrap().into_iter().sum::<u64>() as usize
    };
    let before = in_workers(&mut pool);
    pool.prefault(&tiles).unwrap();
    let own = mapped(table.segment());
    assert!(in_workers(&mut pool) >= before + bytes);
    assert!(there(&table) >= bytes);
    assert!(
        own < bytes,
        "this process mapped the pages, not the workers: {own}"
    );
    assert_eq!(table.read(x).unwrap().sum(), 0);
    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), bytes as u64 / 8);
    // A leased array cannot have a round.
    let reading = table.read(x).unwrap();
    let refused = pool.prefault(&tiles).unwrap_err();
    drop(reading);
    assert!(refused.to_string().contains("is leased by"), "{refused}");
    pool.prefault(&tiles).unwrap();
}

fn tiles_of_every_form_are_prefaulted() {
    let table = table_of(HugePages::Collapse);
    let shape = (3000, 1500);
    let x = table.zeros::<f64, _>(shape).unwrap();
    let y = table.zeros::<bool, _>(shape).unwrap();
    let z = table.zeros::<f32, _>(1 << 20).unwrap();
    let group = (x.write(), y.read(), z.whole());
    let blocks = Grid::blocks([(Axis(0), 700), (Axis(1), 400)]);
    let blocks = table.partition_by(group, &blocks).unwrap();
    let columns = table.partition(x.write(), Axis(1), 1).unwrap();
    let before = there(&table);
    let mut pool = Pool::threads(&table, 2).unwrap();
    pool.prefault(&blocks).unwrap();
    let blocks_made = there(&table) - before;
    let both = 3000 * 1500 * 9;
    assert!(blocks_made >= both, "{blocks_made} of {both}");
    assert!(
        blocks_made < both + 3 * MIB,
        "the array that is read whole was left out"
    );
    pool.prefault(&columns).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 0.0);
    granted_or_explained(table.segment(), HugePages::Collapse);
}

fn collapse_gives_huge_pages_or_says_why_not() {
    let table = table_of(HugePages::Collapse);
    let bytes = 9 * MIB;
    let x = table.from_shape_fn(bytes / 8, |i| i as u64).unwrap();
    table.prefault(x).unwrap();
    let here = granted_or_explained(table.segment(), HugePages::Collapse);
    let report = table.segment().huge_pages();
    if report.collapse_error.is_none() {
        assert!(here && report.mapped_huge >= 8 * MIB as u64, "{report}");
    }
    let intact = || {
        table
            .read(x)
            .unwrap()
            .indexed_iter()
            .all(|(i, &x)| x == i as u64)
    };
    assert!(intact());
    // Huge pages are huge for all processes.
    let (to_parent, from_child) = (Pipe::new(), &Pipe::new());
    let child = Child::fork(|| {
        assert!(intact());
        let report = table.segment().huge_pages();
        assert_eq!(report.asked, HugePages::Collapse);
        to_parent.send(report.mapped_huge);
        from_child.receive();
    });
    let there = to_parent.receive();
    assert_eq!(there > 0, here, "{there} bytes in the child");
    from_child.send(0);
    child.join();
}

fn the_option_reaches_all_workers() {
    let table = table_of(HugePages::Collapse);
    let here = table.segment().huge_pages().advice_error.is_some();
    for start in [Pool::fork, Pool::spawn, Pool::threads] {
        let mut pool = start(&table, 2).unwrap();
        let asked = pool.broadcast(&(), |worker, ()| {
            let report = worker.table().segment().huge_pages();
            let collapse = report.asked == HugePages::Collapse;
            [u8::from(collapse), u8::from(report.advice_error.is_some())]
        });
        assert_eq!(asked.unwrap(), [[1, u8::from(here)]; 2]);
    }
}

/// Creates a named segment on the test's own mount.
fn named(name: &Name, huge_pages: HugePages) -> HandleTable {
    let options = Segment::options().capacity(1 << 30).huge_pages(huge_pages);
    HandleTable::join(&options.create(&name.0).unwrap()).unwrap()
}

fn a_mount_that_grants_advice_gives_huge_pages() {
    if !own_shm_of("size=64m,huge=advise") {
        return;
    }
    let name = Name::new("huge-advice");
    let table = named(&name, HugePages::Advise);
    let report = table.segment().huge_pages();
    assert_eq!(report.setting.as_deref(), Some("advise"), "{report}");
    assert!(report.place.contains("/dev/shm"), "{report}");
    let x = table.zeros::<u8, _>(10 * MIB).unwrap();
    assert!(there(&table) >= 10 * MIB, "allocated before it is touched");
    table.write(x).unwrap().fill(1);
    granted_or_explained(table.segment(), HugePages::Advise);
    // A process that does not ask gets small pages where none exist yet.
    let modest = Segment::open(&name.0).unwrap();
    assert_eq!(modest.huge_pages().setting.as_deref(), Some("advise"));
    let modest = HandleTable::join(&modest).unwrap();
    assert_eq!(
        modest
            .read(x)
            .unwrap()
            .iter()
            .map(|&x| x as u64)
            .sum::<u64>(),
        10 << 20
    );
}

fn a_mount_that_refuses_advice_names_the_remedy() {
    if !own_shm_of("size=64m,huge=never") {
        return;
    }
    let name = Name::new("huge-refused");
    let table = named(&name, HugePages::Advise);
    let x = table.zeros::<u8, _>(10 * MIB).unwrap();
    table.prefault(x).unwrap();
    let report = table.segment().huge_pages();
    assert_eq!(report.setting.as_deref(), Some("never"), "{report}");
    assert!(!report.is_granted(), "{report}");
    assert!(
        report.to_string().contains("remount,huge=advise"),
        "{report}"
    );
}

fn a_full_mount_refuses_and_keeps_no_pages() {
    if !own_shm_of("size=24m,huge=advise") {
        return;
    }
    let name = Name::new("huge-full");
    let table = named(&name, HugePages::Collapse);
    let x = table.zeros::<u8, _>(8 * MIB).unwrap();
    let before = there(&table);
    let refused = table.zeros::<u8, _>(30 * MIB).unwrap_err();
    assert!(refused.to_string().contains("/dev/shm"), "{refused}");
    let kept = there(&table).saturating_sub(before);
    assert!(kept < MIB, "the refused call kept more than tables: {kept}");
    let y = table.zeros::<u8, _>(8 * MIB).unwrap();
    table.write(y).unwrap().fill(2);
    table.prefault(x).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 0);
}

fn huge_pages_are_given_back() {
    let table = table_of(HugePages::Collapse);
    let before = there(&table);
    for turn in 0..3 {
        let x = table.zeros::<u8, _>(12 * MIB).unwrap();
        assert!(table.read(x).unwrap().iter().all(|&x| x == 0), "{turn}");
        table.prefault(x).unwrap();
        table.write(x).unwrap().fill(9);
        assert!(there(&table) >= 12 * MIB);
        table.free(x).unwrap();
        table.trim().unwrap();
        assert!(there(&table) < before + MIB, "{} bytes stay", there(&table));
    }
}

/// Checks two arrays in one huge page: one is freed, the other stays as it is.
fn freeing_part_of_a_huge_page_keeps_the_rest() {
    if !own_shm_of("size=64m,huge=always") {
        return;
    }
    let name = Name::new("huge-part");
    let table = named(&name, HugePages::Advise);
    let arrays: Vec<_> = (0..16)
        .map(|i| table.from_elem(MIB / 2, i as u8).unwrap())
        .collect();
    for pair in arrays.chunks(2) {
        table.free(pair[0]).unwrap();
    }
    table.trim().unwrap();
    for (i, &array) in arrays.iter().enumerate().skip(1).step_by(2) {
        assert!(table.read(array).unwrap().iter().all(|&x| x == i as u8));
    }
    let fresh = table.zeros::<u8, _>(MIB / 2).unwrap();
    assert!(table.read(fresh).unwrap().iter().all(|&x| x == 0));
}
