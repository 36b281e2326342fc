//! Arbitrary bytes in a segment's tables: calls return a value or an error. They never panic, hang
//! or access memory outside.

mod props;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2, IxDyn, ShapeBuilder};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::{
    AnyHandle, Complex, Element, Handle, HandleTable, Partition, PartitionHandle, Read, Segment,
    WholeArray, Write,
};
use proptest::prelude::*;

const CAPACITY: u64 = 512 << 10;

#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "ndshm::bytemuck")]
#[repr(C)]
struct Point {
    at: [f32; 3],
    id: u32,
}

ndshm::record!(Point {
    at: [f32; 3],
    id: u32
});

type Parts = (Write<f64, Ix2>, Read<u8, Ix1>, WholeArray<Point, Ix1>);

/// The change of a word.
#[derive(Clone, Debug)]
enum Change {
    Flip(u32),
    Set(u64),
    Add(i8),
    /// Set to the value of another word that is not zero.
    Copy(prop::sample::Index),
}

/// The choice of a word: one that was not zero, or its neighbour; or any word of the tables.
#[derive(Clone, Debug)]
enum Place {
    Near(prop::sample::Index, i8),
    Anywhere(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<(Place, Change)>> {
    let place = prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(|at| Place::Near(at, 0)),
        2 => (any::<prop::sample::Index>(), -2i8..=2).prop_map(|(at, by)| Place::Near(at, by)),
        1 => any::<prop::sample::Index>().prop_map(Place::Anywhere),
    ];
    let change = prop_oneof![
        4 => (0u32..64).prop_map(Change::Flip),
        2 => any::<u64>().prop_map(Change::Set),
        1 => prop_oneof![Just(0), Just(u64::MAX)].prop_map(Change::Set),
        1 => any::<i8>().prop_map(Change::Add),
        2 => any::<prop::sample::Index>().prop_map(Change::Copy),
    ];
    prop::collection::vec((place, change), 1..24)
}

fn segment() -> Segment {
    Segment::options()
        .capacity(CAPACITY)
        .seats(8)
        .arrays(1024)
        .anonymous()
        .unwrap()
}

/// The segment's file. Changes its words behind the program's back.
struct Words {
    file: File,
    tables: u64,
    used: Vec<u64>,
}

impl Words {
    fn of(segment: &Segment) -> Words {
        let file = File::from(segment.inheritable_fd().unwrap());
        let total = file.metadata().unwrap().len();
        let mut bytes = vec![0; total as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let is_used = |at: &usize| bytes[8 * at..8 * at + 8] != [0; 8];
        Words {
            tables: (total - CAPACITY) / 8,
            used: (0..bytes.len() / 8)
                .filter(is_used)
                .map(|at| at as u64)
                .collect(),
            file,
        }
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 8 * at).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn apply(&self, place: &Place, change: &Change) {
        let at = match place {
            Place::Near(at, by) => at.get(&self.used).saturating_add_signed((*by).into()),
            Place::Anywhere(at) => at.index(self.tables as usize) as u64,
        };
        let old = self.get(at);
        let new = match change {
            Change::Flip(bit) => old ^ 1 << bit,
            Change::Set(new) => *new,
            Change::Add(by) => old.wrapping_add_signed((*by).into()),
            Change::Copy(from) => self.get(*from.get(&self.used)),
        };
        self.file.write_all_at(&new.to_le_bytes(), 8 * at).unwrap();
    }
}

/// Creates arrays of all kinds, and returns their handles.
fn populate(table: &HandleTable) -> Vec<AnyHandle> {
    let point = Point {
        at: [1.0; 3],
        id: 9,
    };
    let freed = table.from_elem(300, 1u16).unwrap();
    let handles = vec![
        table.from_elem((40, 3), 1.5).unwrap().into(),
        table.from_elem(40, 7u8).unwrap().into(),
        table.from_elem(40, point).unwrap().into(),
        table.from_elem(64, true).unwrap().into(),
        table.from_elem((5, 6).f(), -1i32).unwrap().into(),
        table
            .from_elem(IxDyn(&[2; 8]), Complex::new(1.0, 2.0))
            .unwrap()
            .into(),
        table.from_elem((), 3i64).unwrap().into(),
        table.from_elem(20_000, 2u8).unwrap().into(),
        freed.into(),
    ];
    table.free(freed).unwrap();
    table.detach(handles[1]).unwrap();
    handles
}

fn parts(handles: &[AnyHandle]) -> Parts {
    (
        Handle::<f64, Ix2>::from_bits(handles[0].to_bits()).write(),
        Handle::<u8, Ix1>::from_bits(handles[1].to_bits()).read(),
        Handle::<Point, Ix1>::from_bits(handles[2].to_bits()).whole(),
    )
}

/// Opens an array in each way as an array of `T`.
fn open<T: Element>(table: &HandleTable, handle: AnyHandle) {
    let handle = Handle::<T, IxDyn>::from_bits(handle.to_bits());
    if let Ok(attached) = table.attach(handle) {
        assert!(attached.shape().len() <= 8);
    }
    if let Ok(guard) = table.read(handle) {
        let last = guard.iter().last();
        assert_eq!(last.is_some(), !guard.is_empty());
    }
    if let Ok(mut guard) = table.write(handle)
        && let Some(&first) = guard.first()
    {
        guard.fill(first);
    }
}

/// Takes part in the round of a partition, if possible.
fn take_part(tiles: &Partition<'_, Parts>) {
    if let Ok(Some(mut part)) = tiles.enter() {
        while let Ok(Some(mut tile)) = part.claim() {
            let (mut x, w, all) = tile.views();
            x.fill(w.len() as f64 + all.len() as f64);
        }
    }
}

/// Performs all operations that a program may do with a table.
fn use_all(table: &HandleTable, handles: &[AnyHandle], tiles: PartitionHandle<Parts>) {
    let listed: Vec<AnyHandle> = table.arrays().map(|info| info.handle).collect();
    for &handle in listed.iter().chain(handles) {
        let _ = table.info(handle).map(|info| format!("{info:?}"));
        open::<f64>(table, handle);
        open::<u8>(table, handle);
        open::<bool>(table, handle);
        open::<Point>(table, handle);
        open::<Complex<f64>>(table, handle);
        let _ = table.adopt(handle);
        let _ = table.clear_poison(handle);
    }
    if let Ok(tiles) = table.open_partition(tiles) {
        take_part(&tiles);
        if let Ok(round) = tiles.begin() {
            take_part(&tiles);
            let _ = round.finish(Duration::from_millis(2));
        }
    }
    if let Ok(tiles) = table.partition(parts(handles), Axis(0), 7)
        && let Ok(round) = tiles.begin()
    {
        take_part(&tiles);
        let _ = round.finish(Duration::from_millis(2));
    }
    let _ = table.reap();
    let mut made: Vec<AnyHandle> = Vec::new();
    for bytes in [1, 64, 65, 500, 4096, 20_000, 70_000, 1 << 20] {
        for _ in 0..3 {
            made.extend(table.zeros::<u8, _>(bytes).ok().map(AnyHandle::from));
        }
    }
    let point = Point::zeroed();
    made.extend(table.from_elem(3, point).ok().map(AnyHandle::from));
    let _ = table.trim();
    for handle in made.into_iter().chain(handles.iter().copied()) {
        let _ = table.free(handle);
    }
    let _ = table.reap();
}

fn run(changes: &[(Place, Change)]) {
    let segment = segment();
    let table = HandleTable::join(&segment).unwrap();
    let other = HandleTable::join(&segment).unwrap();
    let handles = populate(&table);
    let tiles = table.partition(parts(&handles), Axis(0), 6).unwrap();
    let written = other.partition(
        Handle::<i32, Ix2>::from_bits(handles[4].to_bits()).write(),
        Axis(1),
        2,
    );
    let written = written.unwrap();
    let round = written.begin().unwrap();
    let mut part = written.enter().unwrap().unwrap();
    let mut tile = part.claim().unwrap().unwrap();
    let guard = other
        .read(Handle::<i64, IxDyn>::from_bits(handles[6].to_bits()))
        .unwrap();

    let words = Words::of(&segment);
    for (place, change) in changes {
        words.apply(place, change);
    }

    // Values that were opened before stay usable, and can be released.
    assert_eq!(guard.len(), 1);
    assert_eq!(tile.views().len(), 10);
    use_all(&table, &handles, tiles.handle());
    drop(tile);
    while let Ok(Some(mut tile)) = part.claim() {
        tile.views().fill(1);
    }
    drop(part);
    let _ = round.finish(Duration::from_millis(2));
    drop(guard);
    if let Ok(newcomer) = HandleTable::join(&segment) {
        use_all(&newcomer, &handles, tiles.handle());
    }
    if let Ok(again) = Segment::from_fd(segment.inheritable_fd().unwrap())
        && let Ok(stranger) = HandleTable::join(&again)
    {
        use_all(&stranger, &handles, tiles.handle());
    }
    use_all(&other, &handles, tiles.handle());
}

#[test]
fn no_bytes_in_the_tables_make_a_call_panic_or_hang() {
    props::check(300, changes(), |changes| run(&changes));
}

/// Runs the same calls while a thread keeps changing words: each call uses the values that it
/// checked.
#[test]
fn bytes_that_change_meanwhile_make_no_call_panic_or_hang() {
    let heart = props::Watchdog::start(Duration::from_secs(60));
    for seed in 0..30 {
        heart.beat();
        let segment = segment();
        let table = HandleTable::join(&segment).unwrap();
        let handles = populate(&table);
        let tiles = table.partition(parts(&handles), Axis(0), 6).unwrap();
        let mut words = Words::of(&segment);
        // Leave out the contents of arrays, because they are not read by atomics.
        words.used.retain(|&at| at < words.tables);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = props::Numbers::from_seed(seed);
                // The channel moves in here, so a panic outside ends this loop.
                let ended = ended;
                while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let at = words.used[random.below(words.used.len())];
                    let old = words.get(at);
                    let new = match random.below(3) {
                        0 => old ^ 1 << random.below(64),
                        1 => random.any(),
                        _ => words.get(words.used[random.below(words.used.len())]),
                    };
                    for word in [new, old] {
                        words
                            .file
                            .write_all_at(&word.to_le_bytes(), 8 * at)
                            .unwrap();
                    }
                }
            });
            let end = end;
            for _ in 0..20 {
                use_all(&table, &handles, tiles.handle());
            }
            drop(end);
        });
    }
}

#[test]
fn unchanged_bytes_work_as_usual() {
    run(&[]);
    let segment = segment();
    let words = Words::of(&segment);
    let before = words.used.len();
    populate(&HandleTable::join(&segment).unwrap());
    assert!(Words::of(&segment).used.len() > before + 40);
}
