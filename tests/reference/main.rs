//! Random programs against a reference: a plain map of arrays and leases determines the expected
//! answer of each call.

mod program;
#[path = "../props/mod.rs"]
mod props;
mod round;
mod sample;
mod threads;
mod world;

use ndshm::{HandleTable, Segment};

#[test]
fn random_programs_of_several_seats_behave_like_the_reference() {
    props::check(300, program::programs(), |program| {
        // Seats for the tables below, the observing table, and visitors.
        let options = Segment::options().capacity(64 << 20).seats(8).arrays(4096);
        let segment = options.anonymous().unwrap();
        let onlooker = HandleTable::join(&segment).unwrap();
        let tables: Vec<HandleTable> = (0..program::TABLES)
            .map(|_| HandleTable::join(&segment).unwrap())
            .collect();
        let survivors = {
            let mut world = world::World::new(&tables);
            world.run(&program, 0);
            world.end()
        };
        drop(tables);
        let mut left: Vec<_> = onlooker.arrays().map(|info| info.handle).collect();
        left.sort();
        assert_eq!(left, survivors, "only detached arrays are left");
        for handle in left {
            onlooker.free(handle).unwrap();
        }
        assert_eq!(
            onlooker.reap().unwrap(),
            ndshm::inspect::ReapReport::default()
        );
    });
}
