//! Partitions, rounds, participants and tiles.

use std::time::Duration;

use ndarray::Axis;
use ndshm::Grid;
use ndshm::error::RoundError;
use ndshm::partition::{AccessMode, Entered, OwnedMember, OwnedPartition, UntypedGroup};

use crate::InChild::{DoesNothing, Private, Refuses, Rejoins};
use crate::{Ground, Row, Vector, is_stale};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("Partition", "handle, group, tiles, range, sides, axis", Private, partition_private),
    ("Partition", "progress, begin, enter, wait", Rejoins, partition),
    ("Partition", "torn, read_rest, recover, clear_poison", Rejoins, partition_torn),
    ("Partition", "drop", DoesNothing, partition_drop),
    ("RestGuard", "torn, tile, iter, drop", DoesNothing, rest_guard),
    ("Round", "finish, try_finish", Refuses, round),
    ("Round", "done", Rejoins, round_done),
    ("Round", "drop, number", DoesNothing, round_drop),
    ("Participant", "claim, round, drop", DoesNothing, participant),
    ("Tile", "index, range, sides, round, tear, drop", DoesNothing, tile),
    ("OwnedPartition", "begin, enter_next, progress, torn, clear_poison, wait_finished, free", Refuses, owned_partition),
    ("OwnedPartition", "handle, tiles, drop", DoesNothing, owned_drop),
    ("OwnedRound", "try_finish, give_up", Refuses, owned_round),
    ("OwnedRound", "number, drop", DoesNothing, owned_drop),
    ("OwnedMember", "claim, claim_at, parts, range, done, tear, leave", Refuses, owned_member),
    ("OwnedMember", "round, out, drop", DoesNothing, owned_drop),
];

fn owned(ground: &Ground) -> OwnedPartition {
    let x: Vector = ground.table.zeros(100).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 10)]);
    ground.table.partition_untyped(group, &grid).unwrap()
}

fn owned_member_of(tiles: &mut OwnedPartition, ground: &Ground) -> OwnedMember {
    match tiles.enter_next(&ground.table, 0, Duration::ZERO).unwrap() {
        Entered::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

fn is_forked<T>(outcome: Result<T, RoundError>) -> bool {
    matches!(outcome, Err(RoundError::Forked))
}

fn owned_partition(ground: &Ground) {
    ground.cross(owned(ground), |mut tiles| {
        let table = &ground.table;
        assert!(is_forked(tiles.begin(table)));
        assert!(is_forked(tiles.enter_next(table, 0, Duration::ZERO)));
        assert!(is_forked(tiles.progress(table)));
        assert!(is_forked(tiles.torn(table)));
        assert!(is_forked(tiles.clear_poison(table)));
        assert!(is_forked(tiles.wait_finished(table, 1, Duration::ZERO)));
        assert!(is_forked(tiles.free(table)));
    });
}

fn owned_round(ground: &Ground) {
    let mut tiles = owned(ground);
    let round = tiles.begin(&ground.table).unwrap();
    ground.cross(round, |mut round| {
        assert!(is_forked(round.try_finish(&ground.table)));
        assert!(is_forked(round.give_up(&ground.table)));
    });
}

fn owned_member(ground: &Ground) {
    let mut tiles = owned(ground);
    let _round = tiles.begin(&ground.table).unwrap();
    let mut member = owned_member_of(&mut tiles, ground);
    let token = member.claim(&ground.table).unwrap().unwrap();
    ground.cross(member, |mut member| {
        let table = &ground.table;
        assert!(is_forked(member.parts(table, token)));
        assert!(is_forked(member.range(table, token)));
        assert!(is_forked(member.tear(table, token)));
        assert!(is_forked(member.done(table, token)));
        assert!(is_forked(member.claim(table)));
        assert!(is_forked(member.leave(table)));
    });
    let mut member = owned_member_of(&mut tiles, ground);
    ground.cross_kept(&mut member, |member| {
        assert!(is_forked(member.claim(&ground.table)));
        assert!(is_forked(member.claim_at(&ground.table, 1)));
    });
    // The first participant has torn its tile; 9 are left.
    assert_eq!(member.claim(&ground.table).unwrap().unwrap().tile(), 1);
}

fn owned_drop(ground: &Ground) {
    let table = &ground.table;
    let mut tiles = Some(owned(ground));
    let mut round = Some(tiles.as_mut().unwrap().begin(table).unwrap());
    let mut member = Some(owned_member_of(tiles.as_mut().unwrap(), ground));
    let token = member.as_mut().unwrap().claim(table).unwrap().unwrap();
    ground.cross_kept(
        &mut (&mut tiles, &mut round, &mut member),
        |(tiles, round, member)| {
            assert_eq!(member.as_ref().unwrap().out(), Some(token));
            assert_eq!(
                (
                    round.as_ref().unwrap().number(),
                    member.as_ref().unwrap().round()
                ),
                (1, 1)
            );
            assert_eq!(tiles.as_ref().unwrap().tiles(), 10);
            drop((member.take(), round.take(), tiles.take()));
            ground.table.reap().unwrap();
        },
    );
    let (mut member, mut round) = (member.unwrap(), round.unwrap());
    member.done(table, token).unwrap();
    while let Some(token) = member.claim(table).unwrap() {
        member.done(table, token).unwrap();
    }
    member.leave(table).unwrap();
    assert!(round.try_finish(table).unwrap());
    assert_eq!(tiles.unwrap().progress(table).unwrap().done, 10);
}

fn partition_private(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let name = tiles.handle();
    ground.cross(tiles, |tiles| {
        assert!(tiles.handle().to_bits() == name.to_bits());
        assert_eq!(
            (tiles.tiles(), tiles.axis(), tiles.range(3)),
            (10, Axis(0), 30..40)
        );
        assert_eq!(tiles.sides(3).count(), 1);
        assert_eq!(tiles.group().handle(), x);
    });
}

fn partition(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    ground.cross(tiles, |tiles| {
        assert!(is_stale(&tiles.progress().unwrap_err()));
        let stale = |error: RoundError| matches!(error, RoundError::Lease(e) if is_stale(&e));
        assert!(tiles.begin().is_err_and(stale));
        // The parent has freed it: there is nothing to do.
        let nothing = |entered: Result<Option<_>, RoundError>| entered.unwrap().is_none();
        assert!(nothing(tiles.enter()) && nothing(tiles.enter_at(0, 1)));
        let entered = tiles.enter_next(0, Duration::ZERO);
        assert!(matches!(entered, Ok(Entered::Freed)), "{entered:?}");
        let ended = tiles.wait_finished(1, Duration::ZERO);
        assert!(matches!(ended, Err(RoundError::GivenUp { round: 1 })));
    });
}

fn partition_torn(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    ground.cross(tiles, |tiles| {
        assert!(is_stale(&tiles.torn().unwrap_err()));
        let stale = |error: RoundError| matches!(error, RoundError::Lease(e) if is_stale(&e));
        assert!(tiles.read_rest().is_err_and(stale));
        assert!(tiles.recover(|_, _| ()).is_err_and(stale));
        assert!(tiles.clear_poison().is_err_and(stale));
    });
}

fn rest_guard(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut rest = Some(tiles.read_rest().unwrap());
    ground.cross_kept(&mut rest, |rest| {
        let rest = rest.take().unwrap();
        assert!(rest.torn().is_empty());
        assert_eq!(
            (rest.iter().count(), rest.tile(3).unwrap().index()),
            (10, 3)
        );
    });
    assert!(ground.table.write(x).is_err(), "the parent has its lease");
    drop(rest);
    assert!(ground.table.write(x).is_ok());
}

fn partition_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let mut tiles = Some(ground.table.partition(x.write(), Axis(0), 10).unwrap());
    ground.cross_kept(&mut tiles, |tiles| drop(tiles.take()));
    assert_eq!(tiles.unwrap().progress().unwrap().tiles, 10);
}

fn round(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    for patient in [true, false] {
        let round = tiles.begin().unwrap();
        ground.cross(round, |round| {
            let ended = match patient {
                true => round.finish(Duration::ZERO),
                false => round.try_finish().unwrap(),
            };
            assert!(matches!(ended, Err(RoundError::Forked)));
        });
    }
    assert!(ground.table.write(x).is_ok());
}

fn round_done(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    drop(part.claim().unwrap());
    drop(part);
    ground.cross_kept(&mut round, |round| assert_eq!(round.done(), 1));
    ground.cross(round, |round| assert_eq!(round.done(), 1));
}

fn round_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut round = Some(tiles.begin().unwrap());
    ground.cross_kept(&mut round, |round| {
        assert_eq!(round.as_ref().unwrap().number(), 1);
        drop(round.take());
    });
    assert!(
        tiles.progress().unwrap().running,
        "the child ended the round"
    );
    assert!(ground.table.write(x).is_err());
}

fn participant(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap();
    ground.cross_kept(&mut part, |crossed| {
        let part = crossed.as_mut().unwrap();
        assert_eq!(part.round(), 1);
        assert!(part.claim().unwrap().is_none());
        drop(crossed.take());
    });
    assert_eq!(tiles.progress().unwrap().held, 0);
    let mut part = part.unwrap();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(crate::support::DEADLINE).unwrap();
}

fn tile(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let mut tile = part.claim().unwrap();
    for tear in [true, false] {
        ground.cross_kept(&mut tile, |tile| {
            let tile = tile.take().unwrap();
            assert_eq!((tile.index(), tile.range(), tile.round()), (0, 0..10, 1));
            assert_eq!(tile.sides().count(), 1);
            if tear {
                tile.tear();
            }
        });
        assert_eq!(tiles.progress().unwrap().held, 1);
    }
    drop(tile);
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(crate::support::DEADLINE).unwrap();
}
