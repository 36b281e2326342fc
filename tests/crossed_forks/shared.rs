//! Shared tables, and their guards and builders.

use std::time::Duration;

use ndarray::Axis;
use ndshm::element::Order;
use ndshm::error::{AllocError, LeaseError, RoundError};
use ndshm::partition::{AccessMode, Entered, UntypedGroup};
use ndshm::untyped::Mode;
use ndshm::{Element, Grid, SharedTable};

use crate::InChild::{DoesNothing, Looks, Refuses, Rejoins};
use crate::{Ground, Row, Vector, is_stale};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("SharedTable", "seat, zeros, read, write, free, adopt, detach, ..", Rejoins, table),
    ("SharedTable", "arrays, verify", Looks, looks),
    ("Shared guards", "handle, drop", DoesNothing, guards),
    ("SharedPin", "is_kept, drop", DoesNothing, pins),
    ("SharedTable", "pin, pins, after_fork", Rejoins, pinned),
    ("SharedTable", "unlock of a parent's lock", Refuses, locked),
    ("SharedTable", "calls of a parent's OwnedPartition, OwnedRound, OwnedMember", Refuses, owned),
    ("SharedBuilder", "publish", Refuses, published),
    ("SharedBuilder", "drop", DoesNothing, dropped),
];

fn shared(ground: &Ground) -> SharedTable {
    SharedTable::of(ground.table.segment()).unwrap()
}

fn table(ground: &Ground) {
    let table = shared(ground);
    let x: Vector = table.zeros(7).unwrap();
    ground.cross(table, |table| {
        assert!(is_stale(&table.read(x).unwrap_err()));
        assert!(is_stale(&table.write(x).unwrap_err()));
        assert!(is_stale(&table.lock(x, Mode::Read).unwrap_err()));
        assert!(is_stale(&table.adopt(x).unwrap_err()));
        assert!(is_stale(&table.detach(x).unwrap_err()));
        assert!(table.free(x).is_err());
        let y: Vector = table.from_elem(9, 3).unwrap();
        table.publish("y", y).unwrap();
        assert_eq!(table.find_any("y").unwrap(), y.into());
        assert_eq!(table.read(y).unwrap().sum(), 27);
        assert_eq!(table.info(y).unwrap().owner, Some(std::process::id()));
        table.free(y).unwrap();
        table.reap().unwrap();
        table.trim().unwrap();
        table.after_fork().unwrap();
        assert_eq!(shared(ground).seat().unwrap(), table.seat().unwrap());
    });
}

fn looks(ground: &Ground) {
    let x: Vector = ground.table.zeros(7).unwrap();
    ground.cross(shared(ground), |table| {
        assert!(table.arrays().any(|info| info.handle == x.into()));
        assert!(table.verify().unwrap().is_clean());
    });
}

fn guards(ground: &Ground) {
    let table = shared(ground);
    let [x, y]: [Vector; 2] = [(); 2].map(|()| table.zeros(3).unwrap());
    let mut guards = Some((table.read(x).unwrap(), table.write(y).unwrap()));
    ground.cross_kept(&mut guards, |guards| {
        let (read, write) = guards.take().unwrap();
        assert_eq!((read.handle(), write.handle()), (x.into(), y.into()));
    });
    assert!(table.write(x).is_err() && table.read(y).is_err());
    drop(guards);
    let mut guards = Some((
        table.read_untyped(x).unwrap(),
        table.write_untyped(y).unwrap(),
    ));
    ground.cross_kept(&mut guards, |guards| drop(guards.take()));
    assert!(table.write(x).is_err() && table.read(y).is_err());
}

fn locked(ground: &Ground) {
    let table = shared(ground);
    let x: Vector = table.zeros(3).unwrap();
    let mut locked = table.lock(x, Mode::Write).unwrap();
    ground.cross_kept(&mut locked, |locked| {
        let refused = table.unlock(locked, true);
        assert!(
            matches!(refused, Err(LeaseError::NotHeld { .. })),
            "{refused:?}"
        );
    });
    assert!(table.read(x).is_err());
    table.unlock(&mut locked, false).unwrap();
    assert!(table.read(x).is_ok());
}

fn owned(ground: &Ground) {
    const NOW: Duration = Duration::ZERO;
    let table = shared(ground);
    let x: Vector = table.zeros(4).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    let mut tiles = table.partition_untyped(group, &grid).unwrap();
    let mut round = tiles.begin(&table).unwrap();
    let Entered::Member(mut member) = tiles.enter_next(&table, 0, NOW).unwrap() else {
        panic!("the round runs");
    };
    let token = member.claim(&table).unwrap().unwrap();
    ground.cross_kept(&mut (&mut tiles, &mut round, &mut member), |values| {
        let (tiles, round, member) = values;
        let is_forked =
            |refused| assert!(matches!(refused, Err(RoundError::Forked)), "{refused:?}");
        is_forked(tiles.begin(&table).map(drop));
        is_forked(tiles.progress(&table).map(drop));
        is_forked(tiles.enter_next(&table, 0, NOW).map(drop));
        is_forked(tiles.wait_finished(&table, 1, NOW));
        is_forked(round.try_finish(&table).map(drop));
        is_forked(member.parts(&table, token).map(drop));
        is_forked(member.range(&table, token).map(drop));
        is_forked(member.tear(&table, token));
        is_forked(member.done(&table, token));
    });
    member.done(&table, token).unwrap();
    while let Some(token) = member.claim(&table).unwrap() {
        member.done(&table, token).unwrap();
    }
    ground.cross((tiles, round, member), |(tiles, round, mut member)| {
        let is_forked =
            |refused| assert!(matches!(refused, Err(RoundError::Forked)), "{refused:?}");
        is_forked(member.claim(&table).map(drop));
        is_forked(member.claim_at(&table, 0).map(drop));
        is_forked(member.leave(&table));
        is_forked(round.give_up(&table));
        is_forked(tiles.free(&table));
    });
}

fn published(ground: &Ground) {
    let array = shared(ground)
        .builder(&u64::dtype(), &[3], Order::C)
        .unwrap();
    ground.cross(array, |mut array| {
        assert_eq!(array.bytes_mut().len(), 24);
        let refused = array.publish();
        assert!(matches!(refused, Err(AllocError::Forked)), "{refused:?}");
    });
}

fn dropped(ground: &Ground) {
    let table = shared(ground);
    let mut array = Some(table.builder(&u64::dtype(), &[3], Order::C).unwrap());
    ground.cross_kept(&mut array, |array| drop(array.take()));
    let made = array.unwrap().publish().unwrap();
    assert!(table.info(made).is_ok());
}

fn pins(ground: &Ground) {
    let table = shared(ground);
    let x: Vector = table.zeros(3).unwrap();
    let mut pin = Some(table.pin(x).unwrap());
    ground.cross_kept(&mut pin, |pin| {
        let pin = pin.take().unwrap();
        assert!(!pin.is_kept());
    });
    assert!(pin.unwrap().is_kept());
}

fn pinned(ground: &Ground) {
    let table = shared(ground);
    let x: Vector = table.zeros(3).unwrap();
    let mut pin = Some(table.pin(x).unwrap());
    ground.cross_kept(&mut pin, |pin| {
        assert!(table.after_fork().unwrap().is_empty());
        assert_eq!(table.pins().unwrap(), [(x.into(), 1)]);
        let second = table.pin(x).unwrap();
        assert!(pin.as_ref().unwrap().is_kept() && second.is_kept());
        drop(pin.take());
        assert_eq!(table.pins().unwrap(), [(x.into(), 1)]);
    });
    assert_eq!(table.pins().unwrap(), [(x.into(), 1)]);
}
