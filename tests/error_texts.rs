//! Error texts: the value, the limit, the remedy. Each text is compared with the file beside this
//! one. `UPDATE_SNAPSHOTS=1 cargo test --test error_texts` rewrites the file; read the difference.

use std::fmt::Write;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2};
use ndshm::element::{OpaqueType, Order};
use ndshm::error::{
    AllocError, BlockError, BundleError, Corrupt, HalfWritten, JoinError, LeaseError, NameError,
    NoMemory, PartitionError, PoolError, QueueError, RoundError, SegmentError,
};
use ndshm::partition::Edge;
use ndshm::primitives::SystematicPlan;
use ndshm::segment::{PeerAddress, SegmentId};
use ndshm::{AnyHandle, BundleHandle, Element, Error, Handle, HandleTable, QueueHandle, Segment};

const PEER: PeerAddress = PeerAddress::new(4711, 3, SegmentId::from_bits(0xc0_ffee));
const X: AnyHandle = AnyHandle::from_bits(0x7_c0ff_ee00);

/// Makes a list of [`Error`]s from errors of several types, one to a line.
macro_rules! errors {
    ($($error:expr;)+) => { vec![$(Error::from($error)),+] };
}

/// Returns errors that a full or damaged machine would cause.
fn made() -> Vec<Error> {
    let name = || "filter".to_owned();
    let weights = || "weights".to_owned();
    let two_seconds = Duration::from_secs(2);
    let one: Vec<_> = std::iter::once(70..80).collect();
    errors! {
        SegmentError::Capacity { capacity: 0, max: 1 << 46 };
        SegmentError::Capacity { capacity: (1 << 46) + 1, max: 1 << 46 };
        SegmentError::Capacity { capacity: 192 << 40, max: 1 << 46 };
        SegmentError::Seats { seats: 5000, max: 2048 };
        SegmentError::Arrays { arrays: 1 << 40, max: 1 << 28 };
        SegmentError::Name { name: "a/b".into(), problem: "it contains a slash" };
        SegmentError::Exists { name: name() };
        SegmentError::NotFound { name: name() };
        SegmentError::PermissionMismatch { name: name(), uid: 1000, mode: 0o666 };
        SegmentError::NotOurs {
            what: name(), problem: "it starts with something else", header: 0x1234, size: 8192,
        };
        SegmentError::Version { what: name(), found: 9, supported: 2 };
        SegmentError::NotInitialized { name: name(), size: 0, waited: two_seconds };
        SegmentError::NameContended { name: name(), waited: two_seconds };
        SegmentError::AddressSpace { bytes: 1 << 44, limit: Some(1 << 33) };
        SegmentError::Mappings { bytes: 1 << 30, limit: 65_530 };
        SegmentError::Descriptors {
            call: "memfd_create", what: "a segment".into(), limit: Some(1024),
        };
        SegmentError::Inodes { name: name(), inodes: 50 };
        SegmentError::FileSize { bytes: 1 << 40, limit: 1 << 30 };
        SegmentError::NotSealed;
        SegmentError::Hugetlb { what: "the descriptor".into(), page: 2 << 20 };
        SegmentError::NotShared;
        SegmentError::Closed { number: 3 };
        SegmentError::NotPassed { problem: "it is not connected; connect it first" };
        SegmentError::SocketTimeout { waited: two_seconds };
        SegmentError::NoPeer { address: PEER };
        SegmentError::PeerDenied {
            address: PEER, source: std::io::Error::from_raw_os_error(libc::EACCES),
        };
        SegmentError::OtherSegment {
            what: "/proc/4711/fd/3".into(), expected: PEER.id(), found: SegmentId::from_bits(7),
        };
        SegmentError::Left;
        SegmentError::Joined { seats: 2 };
        "1:2".parse::<PeerAddress>().unwrap_err();
        "0x7".parse::<SegmentId>().unwrap_err();
        AllocError::from(NoMemory {
            need: 512 << 20, have: 64 << 20, what: "/dev/shm".into(),
            remedy: "in Docker pass --shm-size",
        });
        AllocError::Corrupt(Corrupt { offset: 0x9000, what: "an invalid entry in the table of spans" });
        JoinError::SeatsFull { seats: 8, holders: vec![11, 12] };
        PoolError::Spin { spin: two_seconds, limit: Duration::from_millis(10) };
        PoolError::NoWorkers { places: 4 };
        PoolError::CallOpen;
        PoolError::NotAnswered;
        PoolError::NothingToAnswer;
        PoolError::PlaceTaken { worker: None, places: 4, waited: two_seconds };
        PoolError::PlaceTaken { worker: Some(3), places: 4, waited: two_seconds };
        PoolError::Gone;
        PoolError::Results { result: "String", at: 3, message: "the segment has no memory".into() };
        PoolError::Params { params: "bool", message: "the 2 bytes that arrived are ..".into() };
        PoolError::KernelPanicked {
            tile: 7, rows: 70..80, worker: 1, message: "the walker fell".into()
        };
        PoolError::WorkerDied {
            worker: 1, pid: 4711, signal: Some(9), code: None, tiles: vec![7], rows: one.clone()
        };
        PoolError::WorkerDied {
            worker: 1, pid: 4711, signal: None, code: Some(7),
            tiles: vec![7, 9], rows: vec![70..80, 90..100]
        };
        PoolError::WorkerDied {
            worker: 1, pid: 4711, signal: Some(9), code: None, tiles: vec![], rows: vec![]
        };
        PoolError::NotGivenBack { tiles: vec![7], rows: one.clone() };
        PoolError::NotGivenBack { tiles: vec![7, 9], rows: vec![70..80, 90..100] };
        SystematicPlan::new(&[0.0], 0.5, 10).unwrap_err();
        SystematicPlan::new(&[1.0, -1.0], 0.5, 10).unwrap_err();
        LeaseError::Busy { handle: X, name: None, pid: 4711 };
        LeaseError::Busy { handle: X, name: None, pid: 0 };
        LeaseError::TimedOut {
            handle: X,
            name: Some("weights".into()),
            pid: 4711,
            waited: Duration::from_millis(250)
        };
        LeaseError::TimedOut { handle: X, name: None, pid: 0, waited: Duration::from_secs(2) };
        LeaseError::Deadlock { handle: X, name: None };
        LeaseError::Poisoned {
            handle: X, name: Some(weights()), pid: 4711, unix_time: 1_795_000_000,
            what: HalfWritten::Tiles, rows: vec![],
        };
        LeaseError::Poisoned {
            handle: X, name: Some(weights()), pid: 4711, unix_time: 1_795_000_000,
            what: HalfWritten::Tiles, rows: vec![70..80, 120..130],
        };
        LeaseError::Corrupt {
            handle: X,
            error: Corrupt { offset: 0x2a08_9000, what: "the descriptor is not one" },
        };
        NameError::Taken { name: weights(), handle: X, pid: 4711 };
        NameError::NotGiven { name: weights(), waited: Duration::from_secs(5) };
        NameError::Shape {
            name: weights(), handle: X, found: vec![3], expected: vec![4],
        };
        NameError::Crowded { names: 65_536 };
        NameError::Corrupt(Corrupt {
            offset: 0x2a10_9000, what: "a bucket of names has no valid list",
        });
        BundleError::Taken { name: weights(), handle: X };
        BundleError::NotOwned { handle: X, owner: 4711 };
        BundleError::Frozen { handle: X };
        LeaseError::Queued { handle: X };
        LeaseError::Owned { handle: X, name: None, pid: 4711, is_own: false };
        LeaseError::Owned { handle: X, name: Some("x".into()), pid: 4711, is_own: true };
        LeaseError::NotHeld { handle: X, why: "it was given back before" };
        QueueError::NotOwned { handle: X, owner: 0 };
        QueueError::NotOwned { handle: X, owner: 4711 };
        QueueError::NotBound { handle: X };
        QueueError::NotQueued { handle: X, owner: 0 };
        QueueError::NotQueued { handle: X, owner: 4711 };
        RoundError::GivenUp { round: 3 };
        RoundError::TileOut { tile: 7 };
        RoundError::NoSuchTile { tile: 8, tiles: 8 };
        PartitionError::Rows { handle: X, name: Some(weights()), rows: 1, tiles: 8 };
        RoundError::NotOpened { after: 3, waited: Duration::from_secs(5) };
        PartitionError::Freed { handle: X };
        BlockError::NoSuchAxis { axis: 1, axes: 1 };
        BlockError::NotCut { axis: 1, axes: 2 };
        BlockError::Cyclic { axis: 0 };
        BlockError::Shape { found: vec![6, 5], expected: vec![6, 4] };
        BlockError::Halo { axis: 1, axis_len: 4, width: 4, edge: Edge::Reflected };
        RoundError::HalfWritten { tile: 7, rows: 70..80 };
        RoundError::Torn { round: 3, rows: vec![0..512, 1024..1536], tiles: vec![0, 2] };
    }
}

/// Returns errors that mistakes of a program cause.
fn provoked() -> Vec<Error> {
    let segment = Segment::options().capacity(1 << 20).in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let half = OpaqueType::new("<f2", 2, 2).unwrap().into();
    let opaque = table.zeros_untyped(&half, &[3], Order::C).unwrap();
    let apart = HandleTable::join(&segment).unwrap();
    let stale: Handle<f64, Ix1> = Handle::from_bits(X.to_bits());
    let x = table.zeros::<f64, _>((4, 3)).unwrap();
    let bundle = table.bundle().unwrap();
    fn failed<T>(outcome: Result<T, impl Into<Error>>) -> Error {
        match outcome {
            Ok(_) => panic!("it should have been refused"),
            Err(error) => error.into(),
        }
    }
    vec![
        failed(table.read(stale)),
        failed(table.free(stale)),
        failed(table.zeros::<f64, _>((1 << 40, 1 << 40))),
        failed(table.zeros::<u8, _>(ndarray::IxDyn(&[1; 9]))),
        failed(table.zeros::<f64, _>(1 << 20)),
        failed(OpaqueType::new("", 2, 2).map_err(AllocError::from)),
        failed(OpaqueType::new("<f2", 0, 1).map_err(AllocError::from)),
        failed(OpaqueType::new("<f2", 2, 4).map_err(AllocError::from)),
        failed(OpaqueType::new("<f8", 8, 8).map_err(AllocError::from)),
        failed(opaque.downcast::<u16, Ix1>(&table)),
        failed(table.from_bytes(&f64::dtype(), &[4, 3], Order::C, &[0; 95])),
        failed(
            table.resume(
                apart
                    .builder(&f64::dtype(), &[4], Order::C)
                    .unwrap()
                    .suspend(),
            ),
        ),
        failed(
            table
                .partition(x.write(), Axis(2), 2)
                .map_err(|error: PartitionError| error),
        ),
        failed(table.partition(x.write(), Axis(0), 0)),
        failed(table.queue::<u64>(0)),
        failed(table.open_queue(QueueHandle::<u64>::from_bits(AnyHandle::from(x).to_bits()))),
        failed(table.find::<f64, Ix2>("weights")),
        failed(table.publish("", x)),
        failed(table.publish(&"w".repeat(300), x)),
        failed(table.open_bundle(BundleHandle::from_bits(AnyHandle::from(x).to_bits()))),
        failed(bundle.get::<f64, Ix2>("weights")),
        failed("x".parse::<AnyHandle>()),
    ]
}

/// Replaces the handles in a text, because each segment gives them a key of its own.
fn without_handles(text: &str) -> String {
    let mut parts = text.split("ndshm:");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.chars().take_while(char::is_ascii_hexdigit).count();
        let known = digits != 16
            || part.starts_with("00000007c0ffee00")
            || part.starts_with("0000000700000003");
        let shown = if known { &part[..digits] } else { "HANDLE" };
        write!(plain, "ndshm:{shown}{}", &part[digits..]).unwrap();
    }
    plain
}

/// Checks the units in an observer's error.
#[test]
fn a_copy_out_of_range_is_named_in_units() {
    let error = LeaseError::OutOfRange {
        handle: X,
        offset: 8,
        len: 192 << 40,
        bytes: 96,
    };
    assert_eq!(
        error.to_string(),
        "ndshm:00000007c0ffee00 has 96 bytes: 192 TiB from byte 8 on are out of range"
    );
}

#[test]
fn errors_about_a_named_array_say_its_name() {
    let segment = Segment::options().capacity(1 << 20).in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let arrays: Vec<Handle<f64, Ix1>> = (0..5).map(|_| table.zeros(4).unwrap()).collect();
    for (number, &array) in arrays.iter().enumerate() {
        table.publish(&format!("layer/{number}"), array).unwrap();
    }
    let [a, b, ..] = arrays[..] else {
        unreachable!("there are five")
    };
    let with_name = |error: &dyn std::fmt::Display, handle: Handle<f64, Ix1>, name: &str| {
        let expected = format!("{} ({name:?})", AnyHandle::from(handle));
        assert!(error.to_string().contains(&expected), "{error}");
    };

    let reading = table.read(b).unwrap();
    let busy = table.write(b).unwrap_err();
    with_name(&busy, b, "layer/1");
    // A name that now belongs to another array is not mentioned.
    table.replace("layer/1", a).unwrap();
    let busy = table.write(b).unwrap_err();
    assert!(!busy.to_string().contains("layer"), "{busy}");
    drop(reading);
    // The search for names holds no lease: names can be changed, and the array written.
    table.publish("other/1", b).unwrap();
    table.write(b).unwrap().fill(1.0);

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _writing = table.write(b).unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    with_name(&table.read(b).unwrap_err(), b, "other/1");
    table.clear_poison(b).unwrap();

    let refused = |outcome: Result<_, PartitionError>| match outcome {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => error,
    };
    let longer = table.zeros::<f64, _>(5).unwrap();
    table.publish("longer", longer).unwrap();
    let error = refused(table.partition((a.write(), longer.write()), Axis(0), 2));
    with_name(&error, longer, "longer");
    let error = refused(table.partition((b.write(), b.write()), Axis(0), 2));
    with_name(&error, b, "other/1");
    let error = refused(table.partition((b.write(), b.write()), Axis(1), 2));
    with_name(&error, b, "other/1");

    // An array without a name is identified by its handle alone.
    let nameless = table.zeros::<f64, _>(4).unwrap();
    let _reading = table.read(nameless).unwrap();
    let busy = table.write(nameless).unwrap_err().to_string();
    let expected = format!("{} is leased", AnyHandle::from(nameless));
    assert!(busy.starts_with(&expected), "{busy}");
}

#[test]
fn texts_are_those_of_the_file() {
    let mut found = String::new();
    for error in made().into_iter().chain(provoked()) {
        let text = without_handles(&error.to_string());
        assert!(!text.contains('\n'), "one line: {text}");
        // `main` prints this text for an error that it returns.
        assert_eq!(format!("{error:?}"), error.to_string());
        writeln!(found, "{text}").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/error_texts.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
