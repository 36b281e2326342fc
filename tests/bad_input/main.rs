//! Bad input: each refusal is an error, and its text holds the value, the limit and the remedy.

mod segments;

use std::fmt::Display;
use std::process;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2, IxDyn};
use ndshm::error::{AllocError, LeaseError, PartitionError, RoundError};
use ndshm::{AnyHandle, Handle, HandleTable, Segment};
use proptest::prelude::*;

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

/// Asserts that the error's text holds each part: the value, the limit, the remedy.
#[track_caller]
fn says(error: impl Display, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing from: {text}");
    }
}

// ---- shapes ---------------------------------------------------------------------------------

#[test]
fn shapes_whose_size_overflows_name_the_shape_and_the_limit() {
    let table = table();
    let error = table.zeros::<f64, _>((usize::MAX, 2)).unwrap_err();
    assert!(matches!(error, AllocError::TooLarge { size: 8, .. }));
    says(
        error,
        &[
            &usize::MAX.to_string(),
            "f64",
            "8 bytes each",
            "less than 8 EiB",
        ],
    );

    // The number of elements is representable, the number of bytes is not.
    let error = table.zeros::<f64, _>(1 << 60).unwrap_err();
    says(error, &[&(1usize << 60).to_string(), "less than 8 EiB"]);

    // A length of 0 does not hide the overflow of the other axes: ndarray cannot index them.
    let error = table.zeros::<u8, _>((0, usize::MAX, 2)).unwrap_err();
    says(error, &[&usize::MAX.to_string(), "less than 8 EiB"]);

    for refused in [
        table.from_elem((usize::MAX, 2), 1u8).map(|_| ()),
        table.uninit::<i32, _>((usize::MAX, 2)).map(|_| ()),
        table
            .from_shape_fn((usize::MAX, 2), |_| -> bool {
                panic!("the shape is refused before it is filled")
            })
            .map(|_| ()),
    ] {
        assert!(matches!(refused, Err(AllocError::TooLarge { .. })));
    }
    assert_eq!(table.arrays().count(), 0);
}

#[test]
fn nine_axes_name_the_limit_of_eight() {
    let table = table();
    assert!(table.zeros::<u8, _>(IxDyn(&[1; 8])).is_ok());
    let error = table.zeros::<u8, _>(IxDyn(&[1; 9])).unwrap_err();
    assert!(matches!(error, AllocError::TooManyAxes { axes: 9 }));
    says(error, &["9 axes", "at most 8", "join some"]);
}

// ---- memory --------------------------------------------------------------------------------

#[test]
fn a_full_capacity_names_the_option_to_raise() {
    let segment = Segment::options().capacity(1 << 20).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let error = table.zeros::<u8, _>(2 << 20).unwrap_err();
    assert!(matches!(
        error,
        AllocError::Full {
            capacity: 0x10_0000,
            ..
        }
    ));
    says(
        error,
        &[
            "2 MiB",
            "capacity 1 MiB",
            "address space",
            "SegmentOptions::capacity",
        ],
    );
    let mut handles = Vec::new();
    let error = loop {
        match table.zeros::<u8, _>(64 << 10) {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
    };
    assert!(!handles.is_empty() && handles.len() <= 16);
    says(error, &["64 KiB", "capacity 1 MiB", "free arrays"]);
    table.free(handles[0]).unwrap();
    assert!(
        table.zeros::<u8, _>(64 << 10).is_ok(),
        "the refused call kept no memory"
    );
}

#[test]
fn full_slots_name_the_option_to_raise() {
    let segment = Segment::options()
        .capacity(1 << 30)
        .arrays(64)
        .anonymous()
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let arrays: Vec<_> = (0..1 << 16)
        .map(|_| table.zeros::<u8, _>(8).unwrap())
        .collect();
    let error = table.zeros::<u8, _>(8).unwrap_err();
    assert!(matches!(error, AllocError::Full { arrays: 65_536, .. }));
    says(
        error,
        &["table of arrays", "65536 slots", "SegmentOptions::arrays"],
    );
    table.free(arrays[63]).unwrap();
    assert!(table.zeros::<u8, _>(8).is_ok());
}

#[test]
fn more_memory_than_the_machine_has_is_an_error() {
    let table = table();
    let error = table.zeros::<u8, _>(4 << 40).unwrap_err();
    let AllocError::NoMemory(no_memory) = &error else {
        panic!("{error}");
    };
    assert_eq!(no_memory.need, 4 << 40);
    assert!(no_memory.have < no_memory.need && !no_memory.remedy.is_empty());
    says(&error, &["4 TiB", "free", no_memory.remedy]);
    assert_eq!(table.arrays().count(), 0);
    assert!(table.zeros::<u8, _>(4 << 10).is_ok());
}

// ---- handles --------------------------------------------------------------------------------

#[test]
fn a_freed_handle_is_stale_in_every_call() {
    let segment = Segment::anonymous().unwrap();
    let (mine, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let handle = mine.zeros::<f64, _>(4).unwrap();
    let text = handle.to_string();
    other.free(handle).unwrap();
    // The slot is reused: the old handle does not name the new array.
    let reused = other.zeros::<f64, _>(4).unwrap();
    assert_ne!(handle, reused);
    for table in [&mine, &other] {
        refuse_all(table, handle);
        let error = table.free(handle).unwrap_err();
        assert!(matches!(error, LeaseError::Stale { .. }));
        says(error, &[&text, "stale", "was freed", "another segment"]);
        says(
            table.read(handle).unwrap_err(),
            &[&text, "stale", "was freed"],
        );
    }
    assert!(mine.read(reused).is_ok());
}

#[test]
fn handles_of_another_segment_are_stale() {
    let (here, there) = (table(), table());
    let _same_slot = here.zeros::<f64, _>(4).unwrap();
    for _ in 0..100 {
        refuse_all(&here, there.zeros::<f64, _>(4).unwrap());
    }
    assert_eq!(here.arrays().count(), 1);
}

/// Asserts that all calls with a handle refuse this one.
fn refuse_all(table: &HandleTable, handle: Handle<f64, Ix1>) {
    let refused = [
        table.read(handle).map(drop),
        table.write(handle).map(drop),
        table.attach(handle).map(drop),
        table.info(handle).map(drop),
        table.detach(handle),
        table.adopt(handle),
        table.clear_poison(handle),
        AnyHandle::from(handle)
            .downcast::<f64, Ix1>(table)
            .map(drop),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert!(
            matches!(refused, Err(LeaseError::Stale { .. })),
            "operation {at}: {refused:?}"
        );
    }
    let free = table.free(handle);
    assert!(matches!(free, Err(LeaseError::Stale { .. })), "{free:?}");
    let partition = table.partition(handle.write(), Axis(0), 1).map(drop);
    assert!(matches!(
        partition,
        Err(PartitionError::Lease(LeaseError::Stale { .. }))
    ));
}

#[test]
fn invalid_texts_of_handles_are_refused() {
    for text in ["", "x", "0x", "-1", "ffffffffffffffffff", "12 34", "é"] {
        assert!(text.parse::<AnyHandle>().is_err(), "{text:?}");
        assert!(text.parse::<Handle<f64, Ix1>>().is_err(), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bits_are_never_an_array(bits: u64, near in 0usize..4, flip in 0u32..64) {
        let table = table();
        let live: Vec<_> = (0..4).map(|_| table.from_elem(4, 1.5f64).unwrap()).collect();
        // Try random bits, and bits that differ from a live handle in one position.
        for bits in [bits, live[near].to_bits() ^ 1 << flip] {
            let handle = Handle::<f64, Ix1>::from_bits(bits);
            if !live.contains(&handle) {
                refuse_all(&table, handle);
            }
            let partition = ndshm::PartitionHandle::<ndshm::Write<f64, Ix1>>::from_bits(bits);
            prop_assert!(table.open_partition(partition).is_err());
        }
        for handle in live {
            prop_assert_eq!(table.read(handle).unwrap().sum(), 6.0);
            table.free(handle).unwrap();
        }
    }
}

// ---- types ----------------------------------------------------------------------------------

#[test]
fn another_type_or_rank_names_both() {
    let table = table();
    let bits = table.zeros::<f64, _>((3, 4)).unwrap().to_bits();
    let wrong_type = Handle::<i32, Ix2>::from_bits(bits);
    let wrong_rank = Handle::<f64, Ix1>::from_bits(bits);
    let types = ["i32", "f64", "use the type that it was created with"];
    let ranks = ["1", "2", "use the type that it was created with"];
    for error in [
        table.read(wrong_type).unwrap_err(),
        table.write(wrong_type).unwrap_err(),
        table.attach(wrong_type).unwrap_err(),
    ] {
        assert!(matches!(error, LeaseError::WrongKind(_)));
        says(error, &types);
    }
    let error = AnyHandle::from_bits(bits)
        .downcast::<f64, Ix1>(&table)
        .unwrap_err();
    says(error, &ranks);
    says(table.read(wrong_rank).unwrap_err(), &ranks);
    says(table.write(wrong_rank).unwrap_err(), &ranks);
    // The refused calls hold no lease.
    assert!(table.write(Handle::<f64, IxDyn>::from_bits(bits)).is_ok());
}

// ---- leases, partitions, rounds -------------------------------------------------------------

#[test]
fn a_conflicting_lease_names_its_process() {
    let segment = Segment::anonymous().unwrap();
    let (mine, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let x = mine.zeros::<f64, _>(4).unwrap();
    let busy = |error: LeaseError| {
        assert!(matches!(error, LeaseError::Busy { pid, .. } if pid == process::id()));
        let pid = format!("process {}", process::id());
        says(error, &[&x.to_string(), &pid, "this process", "try again"]);
    };
    let reading = mine.read(x).unwrap();
    busy(mine.write(x).unwrap_err());
    busy(other.write(x).unwrap_err());
    assert!(other.read(x).is_ok() && mine.read(x).is_ok());
    drop(reading);
    let writing = mine.write(x).unwrap();
    for table in [&mine, &other] {
        busy(table.read(x).unwrap_err());
        busy(table.write(x).unwrap_err());
    }
    drop(writing);
    assert!(other.write(x).is_ok());
}

#[test]
fn invalid_partitions_name_the_array_and_the_numbers() {
    let table = table();
    let x = table.zeros::<f64, _>((6, 2)).unwrap();
    let y = table.zeros::<f64, _>(5).unwrap();
    let (x_text, y_text) = (x.to_string(), y.to_string());

    let error = table.partition(x.write(), Axis(0), 0).unwrap_err();
    assert!(matches!(error, PartitionError::EmptyTile));
    says(error, &["length of 0", "at least one"]);

    let error = table.partition(x.write(), Axis(2), 1).unwrap_err();
    assert!(matches!(
        error,
        PartitionError::NoSuchAxis {
            axes: 2,
            axis: 2,
            ..
        }
    ));
    says(error, &[&x_text, "2 axes", "axis 2"]);
    let error = table.partition(x.write(), Axis(usize::MAX), 1).unwrap_err();
    says(error, &[&x_text, "2 axes"]);

    let error = table
        .partition((x.write(), y.read()), Axis(0), 2)
        .unwrap_err();
    assert!(matches!(
        error,
        PartitionError::Lengths {
            found: 5,
            expected: 6,
            ..
        }
    ));
    says(error, &[&y_text, "5 indices", "axis 0", "have 6"]);

    for error in [
        table
            .partition((x.write(), x.write()), Axis(0), 2)
            .map(drop)
            .unwrap_err(),
        table
            .partition((x.read(), x.write()), Axis(0), 2)
            .map(drop)
            .unwrap_err(),
        table
            .partition((x.whole(), x.write()), Axis(0), 2)
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(matches!(error, PartitionError::Overlap { .. }));
        says(error, &[&x_text, "twice"]);
    }
    assert!(table.partition((x.read(), x.read()), Axis(0), 2).is_ok());
    // The refused partitions hold no lease.
    assert!(table.write(x).is_ok() && table.write(y).is_ok());
    assert_eq!(table.arrays().count(), 2);
}

#[test]
fn a_round_that_cannot_begin_names_the_conflicting_process() {
    let table = table();
    let x = table.zeros::<f64, _>(6).unwrap();
    let y = table.zeros::<f64, _>(6).unwrap();
    let tiles = table.partition((y.write(), x.write()), Axis(0), 2).unwrap();
    let pid = format!("process {}", process::id());

    let reading = table.read(x).unwrap();
    let error = tiles.begin().unwrap_err();
    assert!(matches!(
        error,
        RoundError::Lease(LeaseError::Busy { pid, .. }) if pid == process::id()
    ));
    says(error, &[&x.to_string(), &pid, "try again"]);
    assert!(
        table.write(y).is_ok(),
        "the lease of the first array was released"
    );
    assert!(tiles.enter().unwrap().is_none(), "no round has begun");
    drop(reading);

    let round = tiles.begin().unwrap();
    let error = tiles.begin().unwrap_err();
    assert!(matches!(error, RoundError::Running { .. }));
    says(
        error,
        &[&format!("round {}", round.number()), "running", &pid],
    );
    assert!(matches!(table.read(x), Err(LeaseError::Busy { .. })));
    let error = round.finish(Duration::from_millis(5)).unwrap_err();
    assert!(matches!(
        error,
        RoundError::Deadline {
            done: 0,
            held: 0,
            tiles: 3,
            ..
        }
    ));
    says(error, &["5ms", "0 of 3 tiles"]);

    table.free(x).unwrap();
    let error = tiles.begin().unwrap_err();
    assert!(
        matches!(error, RoundError::Lease(LeaseError::Stale { .. })),
        "{error}"
    );
    says(error, &[&x.to_string(), "stale"]);
}
