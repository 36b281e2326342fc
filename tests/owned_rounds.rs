//! Partitions, rounds and participants that do not borrow their table: tiles as memory, tokens, and
//! what becomes of values that are dropped, used twice, or used with another table.

use std::thread;
use std::time::{Duration, Instant};

use ndarray::{ArrayView, Axis, Dimension, Ix1, ShapeBuilder};
use ndshm::error::{LeaseError, PartitionError, RoundError};
use ndshm::partition::{
    AccessMode, Claimed, Entered, OwnedMember, OwnedPartition, OwnedRound, TilePart, TileState,
    UntypedGroup,
};
use ndshm::{Grid, Handle, HandleTable, PartitionHandle, Segment};

const NOW: Duration = Duration::ZERO;
const PATIENCE: Duration = Duration::from_secs(20);

fn table() -> HandleTable {
    let options = Segment::options().capacity(4 << 20).seats(8).arrays(256);
    HandleTable::join(&options.in_process().unwrap()).unwrap()
}

/// Returns a vector of zeros, and a partition of it in tiles of one element.
fn ground(table: &HandleTable, len: usize) -> (Handle<u64, Ix1>, OwnedPartition) {
    let x = table.zeros(len).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    (x, table.partition_untyped(group, &grid).unwrap())
}

fn enter(tiles: &mut OwnedPartition, table: &HandleTable) -> OwnedMember {
    match tiles.enter_next(table, 0, NOW).unwrap() {
        Entered::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

/// Adds one to the first element of each tile that can be claimed. Returns their number.
fn work(member: &mut OwnedMember, table: &HandleTable) -> usize {
    let mut done = 0;
    while let Some(token) = member.claim(table).unwrap() {
        let first = member.parts(table, token).unwrap()[0].first();
        let first = first.cast::<u64>();
        // SAFETY: the tile is claimed, and has one `u64`.
        let value = unsafe { first.read() };
        // SAFETY: as above, and the part is writable.
        unsafe { first.write(value + 1) };
        member.done(table, token).unwrap();
        done += 1;
    }
    done
}

fn is_not_held<T>(outcome: &Result<T, RoundError>) -> bool {
    matches!(outcome, Err(RoundError::NotHeld { .. }))
}

/// Returns what a part says of its memory: address, shape, strides.
fn of_part(part: &TilePart) -> (usize, Vec<usize>, Vec<usize>) {
    let strides = part.strides().to_vec();
    (
        part.first().as_ptr() as usize,
        part.shape().to_vec(),
        strides,
    )
}

fn of_view<T, D: Dimension>(view: &ArrayView<'_, T, D>) -> (usize, Vec<usize>, Vec<usize>) {
    let bytes = |&stride: &isize| stride.unsigned_abs() * size_of::<T>();
    let strides = view.strides().iter().map(bytes).collect();
    (view.as_ptr() as usize, view.shape().to_vec(), strides)
}

/// Opens a typed partition with an untyped group: the parts of each tile are the memory of its
/// views, for all accesses, orders and grids.
#[test]
fn parts_are_the_memory_of_the_views() {
    let table = table();
    let x = table.zeros::<u16, _>((7, 6)).unwrap();
    let y = table.zeros::<f64, _>((7, 6, 2).f()).unwrap();
    let z = table.zeros::<u8, _>(13).unwrap();
    for grid in [
        Grid::blocks([(Axis(0), 3), (Axis(1), 4)]),
        Grid::cyclic(Axis(1), 4),
        Grid::bounds(Axis(0), [0, 2, 7]),
    ] {
        let count = table.partition_by(x.read(), &grid).unwrap().tiles();
        let rows = table.zeros::<u32, _>((count, 3)).unwrap();
        let group = (x.write(), y.read(), z.whole(), rows.per_tile());
        let typed = table.partition_by(group, &grid).unwrap();
        let name = PartitionHandle::<UntypedGroup>::from_bits(typed.handle().to_bits());
        let mut tiles = table.open_untyped(name).unwrap();
        assert_eq!(tiles.tiles(), count);

        let mut round = tiles.begin(&table).unwrap();
        let mut member = enter(&mut tiles, &table);
        let mut seen = Vec::new();
        while let Some(token) = member.claim(&table).unwrap() {
            let parts = member.parts(&table, token).unwrap();
            let writable: Vec<_> = parts.iter().map(TilePart::is_writable).collect();
            assert_eq!(writable, [true, false, false, true]);
            assert_eq!(parts[1].handle(), y.into());
            let range = member.range(&table, token).unwrap();
            seen.push((
                token.tile(),
                range,
                parts.iter().map(of_part).collect::<Vec<_>>(),
            ));
            member.done(&table, token).unwrap();
        }
        member.leave(&table).unwrap();
        assert!(round.try_finish(&table).unwrap());

        let round = typed.begin().unwrap();
        let mut part = typed.enter().unwrap().unwrap();
        let mut seen = seen.into_iter();
        while let Some(mut tile) = part.claim().unwrap() {
            let (index, range) = (tile.index(), tile.range());
            let (x, y, z, row) = tile.views();
            let views = vec![
                of_view(&x.view()),
                of_view(&y),
                of_view(&z),
                of_view(&row.view()),
            ];
            assert_eq!(seen.next(), Some((index, range, views)));
        }
        assert_eq!(seen.next(), None);
        drop(part);
        round.finish(PATIENCE).unwrap();
    }
    let missing = UntypedGroup::new([(z.into(), AccessMode::PerTile)]);
    let refused = table.partition_untyped(missing, &Grid::blocks([(Axis(0), 1)]));
    assert!(matches!(
        refused,
        Err(PartitionError::Rows {
            rows: 13,
            tiles: 0,
            ..
        })
    ));
}

/// Runs rounds of several threads, each with a table of its own, until the partition is freed.
#[test]
fn ranks_claim_tiles_by_tokens() {
    const ROUNDS: u64 = 100;
    let table = table();
    let (x, mut tiles) = ground(&table, 16);
    let name = tiles.handle();
    thread::scope(|scope| {
        for _ in 0..3 {
            let table = HandleTable::join(table.segment()).unwrap();
            scope.spawn(move || {
                let mut tiles = match table.open_untyped(name) {
                    Ok(tiles) => tiles,
                    Err(late) => return assert!(matches!(late, PartitionError::Freed { .. })),
                };
                let mut last = 0;
                loop {
                    last = match tiles.enter_next(&table, last, PATIENCE).unwrap() {
                        Entered::Member(mut member) => {
                            work(&mut member, &table);
                            member.round()
                        }
                        Entered::Over { round } => round,
                        _ => break,
                    };
                }
                // Others may have run the last rounds, and the partition is freed, while it was away.
                assert!(last <= ROUNDS, "{last}");
            });
        }
        for turn in 1..=ROUNDS {
            let start = Instant::now();
            let mut round = loop {
                match tiles.begin(&table) {
                    Ok(round) => break round,
                    // A rank that has run its last tile may not have left the round before.
                    Err(RoundError::Lease(LeaseError::Busy { .. })) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
                assert!(start.elapsed() < PATIENCE, "a rank does not leave");
            };
            assert_eq!(round.number(), turn);
            while !round.try_finish(&table).unwrap() {
                thread::yield_now();
            }
            assert_eq!(table.read(x).unwrap().sum(), 16 * turn);
            assert_eq!(tiles.progress(&table).unwrap().done, 16);
        }
        tiles.free(&table).unwrap();
    });
}

/// Gives tokens back twice, to others, and too late; uses values with another table and after their
/// end. Each is refused, and nothing breaks.
#[test]
fn misuse_is_refused() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let (x, mut tiles) = ground(&table, 4);
    let mut round = tiles.begin(&table).unwrap();
    let mut first = enter(&mut tiles, &table);
    let mut second = enter(&mut tiles, &table);
    let token = first.claim(&table).unwrap().unwrap();
    assert_eq!((token.tile(), first.out()), (0, Some(token)));
    let refused = first.claim(&table).unwrap_err();
    assert!(matches!(refused, RoundError::TileOut { tile: 0 }));
    let refused = first.claim_at(&table, 2).unwrap_err();
    assert!(matches!(refused, RoundError::TileOut { tile: 0 }));

    // The other participant, and another table.
    assert!(is_not_held(&second.done(&table, token)));
    assert!(is_not_held(&second.tear(&table, token)));
    assert!(is_not_held(&second.parts(&table, token)));
    assert!(is_not_held(&first.done(&other, token)));
    assert!(is_not_held(&first.parts(&other, token)));
    assert!(is_not_held(&second.claim(&other)));
    assert!(is_not_held(&round.try_finish(&other)));
    assert!(is_not_held(&tiles.begin(&other)));
    assert!(is_not_held(&tiles.enter_next(&other, 0, NOW)));
    assert!(matches!(
        tiles.begin(&table),
        Err(RoundError::Running { round: 1, .. })
    ));

    // Twice.
    first.done(&table, token).unwrap();
    assert!(is_not_held(&first.done(&table, token)));
    assert!(is_not_held(&first.tear(&table, token)));
    assert_eq!(first.out(), None);
    let again = first.claim_at(&table, 0).unwrap();
    assert!(matches!(again, Claimed::Done), "{again:?}");
    let Claimed::Tile(third) = first.claim_at(&table, 2).unwrap() else {
        panic!("it is open");
    };
    assert!(is_not_held(&first.done(&table, token)), "an older token");
    assert!(matches!(
        second.claim_at(&table, 2),
        Ok(Claimed::Held { .. })
    ));
    assert!(!round.try_finish(&table).unwrap());
    first.done(&table, third).unwrap();
    work(&mut first, &table);
    assert!(round.try_finish(&table).unwrap());
    assert!(is_not_held(&round.try_finish(&table)));
    assert!(is_not_held(&round.give_up(&table)));

    // After the end of the round, and of the next.
    assert_eq!(second.claim(&table).unwrap(), None);
    first.leave(&table).unwrap();
    second.leave(&table).unwrap();
    assert_eq!(table.write(x).unwrap().sum(), 2);

    // A table that is gone.
    let kept = tiles.begin(&table).unwrap();
    let mut member = enter(&mut tiles, &table);
    let token = member.claim(&table).unwrap().unwrap();
    table.detach(x).unwrap();
    drop(table);
    assert!(is_not_held(&member.done(&other, token)));
    let seat = HandleTable::join(other.segment()).unwrap();
    assert!(is_not_held(&member.done(&seat, token)));
    // They have nothing left to tear or to give up, also if the seat has another holder now.
    let mut tiles_of_seat = ground(&seat, 2).1;
    let mut round = tiles_of_seat.begin(&seat).unwrap();
    let mut theirs = enter(&mut tiles_of_seat, &seat);
    let out = theirs.claim(&seat).unwrap().unwrap();
    drop((member, kept, tiles));
    theirs.done(&seat, out).unwrap();
    work(&mut theirs, &seat);
    assert!(round.try_finish(&seat).unwrap());
    assert!(matches!(other.read(x), Err(LeaseError::Poisoned { .. })));
}

/// Drops a participant with a tile in another thread: the tile is torn at once, and its leases are
/// released at the table's next call.
#[test]
fn a_dropped_participant_tears_its_tile() {
    let opener = table();
    let table = HandleTable::join(opener.segment()).unwrap();
    for len in [3, 5000] {
        let x = opener.zeros::<u64, _>(len).unwrap();
        let typed = opener.partition(x.write(), Axis(0), 1).unwrap();
        let name = PartitionHandle::from_bits(typed.handle().to_bits());
        let round = typed.begin().unwrap();
        let mut tiles = table.open_untyped(name).unwrap();
        let mut member = enter(&mut tiles, &table);
        let token = member.claim(&table).unwrap().unwrap();
        assert_eq!(token.tile(), 0);
        thread::spawn(move || drop(member)).join().unwrap();

        let mut part = typed.enter().unwrap().unwrap();
        while part.claim().unwrap().is_some() {}
        drop(part);
        match round.try_finish() {
            Ok(Err(RoundError::Torn { tiles, .. })) => assert_eq!(tiles[0], 0),
            Ok(outcome) => panic!("{outcome:?}"),
            Err(_) => panic!("the tile is held"),
        }
        opener.clear_poison(x).unwrap();
        assert!(matches!(opener.write(x), Err(LeaseError::Busy { .. })));
        table.reap().unwrap();
        opener.write(x).unwrap().fill(1);

        // Without a tile out, nothing is torn. Tiles that it has not run are left to others.
        let round = typed.begin().unwrap();
        let mut member = enter_after(&mut tiles, &table, 1);
        let token = member.claim(&table).unwrap().unwrap();
        member.done(&table, token).unwrap();
        drop(member);
        let mut part = typed.enter().unwrap().unwrap();
        let mut rest = 0;
        while part.claim().unwrap().is_some() {
            rest += 1;
        }
        drop(part);
        assert_eq!(rest, len - 1);
        tiles.progress(&table).unwrap();
        round.finish(PATIENCE).unwrap();
        opener.write(x).unwrap().fill(1);
    }
    let found = opener.verify().unwrap();
    assert!(found.is_clean() && found.readers <= 2, "{found}");
}

fn enter_after(tiles: &mut OwnedPartition, table: &HandleTable, after: u64) -> OwnedMember {
    match tiles.enter_next(table, after, NOW).unwrap() {
        Entered::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

/// Drops a round, and then its partition, in another thread. Nobody can enter at once; the arrays
/// and the memory come back at the table's next call.
#[test]
fn dropped_rounds_and_partitions_end() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let (x, mut tiles) = ground(&table, 4);
    let mut theirs = other.open_untyped(tiles.handle()).unwrap();
    let round = tiles.begin(&table).unwrap();
    thread::spawn(move || drop(round)).join().unwrap();
    let entered = theirs.enter_next(&other, 0, NOW).unwrap();
    assert!(matches!(entered, Entered::Over { round: 1 }), "{entered:?}");
    let refused = theirs.begin(&other).unwrap_err();
    assert!(matches!(refused, RoundError::Running { .. }), "{refused}");
    table.reap().unwrap();
    let ended = theirs.wait_finished(&other, 1, NOW);
    assert!(matches!(ended, Err(RoundError::GivenUp { round: 1 })));
    table.write(x).unwrap().fill(2);

    let round = tiles.begin(&table).unwrap();
    round.give_up(&table).unwrap();
    table.write(x).unwrap().fill(3);

    let before = table.verify().unwrap();
    thread::spawn(move || drop(tiles)).join().unwrap();
    let entered = theirs.enter_next(&other, 2, PATIENCE).unwrap();
    assert!(matches!(entered, Entered::Freed), "{entered:?}");
    drop(theirs);
    other.reap().unwrap();
    table.reap().unwrap();
    let after = table.verify().unwrap();
    assert!(after.is_clean(), "{after}");
    assert_eq!(after.free, before.free + 1, "the memory of the claims");
}

/// A wait for a lease takes back what dropped values hold: no lease of theirs is a deadlock.
#[test]
fn a_wait_for_a_lease_ends_dropped_rounds() {
    let table = table();
    let (x, mut tiles) = ground(&table, 4);
    let round = tiles.begin(&table).unwrap();
    let waited = table.write_timeout(x, PATIENCE).map(drop);
    assert!(
        matches!(waited, Err(LeaseError::Deadlock { .. })),
        "{waited:?}"
    );
    thread::spawn(move || drop(round)).join().unwrap();
    assert!(matches!(table.write(x), Err(LeaseError::Busy { .. })));
    table.write_timeout(x, PATIENCE).unwrap().fill(1);

    let round = tiles.begin(&table).unwrap();
    drop(round);
    assert_eq!(table.read_timeout(x, PATIENCE).unwrap().sum(), 4);
}

/// The opener sees the state of each tile, and sends back those that are done, and no others.
#[test]
fn finished_tiles_are_sent_back() {
    let table = table();
    let (x, mut tiles) = ground(&table, 3);
    let mut round = tiles.begin(&table).unwrap();
    let states = |round: &OwnedRound| [0, 1, 2].map(|tile| round.tile(tile).unwrap());
    assert_eq!(states(&round), [TileState::Open; 3]);
    assert_eq!(round.tile(3), None);
    let mut member = enter(&mut tiles, &table);
    let token = member.claim(&table).unwrap().unwrap();
    assert_eq!(states(&round)[token.tile()], TileState::Held);
    assert_eq!(round.again(&table, [0, 1, 2]).unwrap(), 0);
    member.done(&table, token).unwrap();
    assert_eq!(work(&mut member, &table), 2);
    assert_eq!(states(&round), [TileState::Done; 3]);
    assert_eq!(work(&mut member, &table), 0);
    assert_eq!(round.again(&table, [2, 0, 2]).unwrap(), 2);
    use TileState::{Done, Open, Torn};
    assert_eq!(states(&round), [Open, Done, Open]);
    assert!(!round.try_finish(&table).unwrap(), "tiles are left to run");
    member.leave(&table).unwrap();
    // A participant that enters anew finds them.
    let mut member = enter(&mut tiles, &table);
    assert_eq!(work(&mut member, &table), 2);
    round.again(&table, [1]).unwrap();
    let mut late = enter(&mut tiles, &table);
    let token = late.claim(&table).unwrap().unwrap();
    late.tear(&table, token).unwrap();
    assert_eq!(states(&round), [Done, Torn, Done]);
    assert_eq!(round.again(&table, [1]).unwrap(), 0);
    late.leave(&table).unwrap();
    member.leave(&table).unwrap();
    let error = round.again(&table, [3]).unwrap_err();
    assert!(matches!(
        error,
        RoundError::NoSuchTile { tile: 3, tiles: 3 }
    ));
    let error = round.try_finish(&table).unwrap_err();
    assert!(matches!(error, RoundError::Torn { tiles, .. } if tiles == [1]));
    assert_eq!(round.tile(0), None, "the round is over");
    assert!(is_not_held(&round.again(&table, [0])));
    table.clear_poison(x).unwrap();
    // The first tile was not written in its first run.
    assert_eq!(table.read(x).unwrap().to_vec(), [1, 1, 2]);
    // Tiles that are claimed several at once.
    let (_, mut many) = ground(&table, 3000);
    let mut round = many.begin(&table).unwrap();
    let mut member = enter(&mut many, &table);
    let token = member.claim(&table).unwrap().unwrap();
    member.done(&table, token).unwrap();
    assert_eq!(
        round.tile(token.tile()),
        Some(TileState::Held),
        "as its neighbours"
    );
    assert_eq!(work(&mut member, &table), 2999);
    assert_eq!(round.tile(2999), Some(TileState::Done));
    assert!(is_not_held(&round.again(&table, [0])));
    member.leave(&table).unwrap();
    assert!(round.try_finish(&table).unwrap());
}
