//! By other named segments on the machine.

use ndshm::segment::Removal;
use ndshm::{HandleTable, Observer, Segment};
use shared_memory::ShmemConf;

use crate::common::{Bench, each};
use crate::curve::Curve;

pub fn curve(bench: &Bench) {
    let title = "Segments: time by the number of other named segments";
    let Some(mut curve) = Curve::new(bench, "segments", title, "other segments") else {
        return;
    };
    let last = if bench.is_quick() { 10 } else { 1000 };
    let mut others = Others(Vec::new());
    let [open, create] = ["open", "create"].map(name);
    let ours = HandleTable::open_or_create(&open).expect("a named segment");
    let theirs = ShmemConf::new().size(1 << 20).create();
    let theirs = theirs.expect("room in /dev/shm");
    let link = theirs.get_os_id();
    for count in crate::steps(bench, 1, last) {
        others.grow_to(count);
        curve.measure(
            count,
            vec![
                each("create+join+leave", || {
                    let segment = Segment::create(&create).expect("the name is free");
                    drop(HandleTable::join(&segment).expect("a seat"));
                }),
                each("create+join+leave/shared_memory, created", || {
                    let created = ShmemConf::new().size(1 << 20).create();
                    drop(created.expect("room in /dev/shm"));
                }),
                each("open+join+leave", || {
                    drop(HandleTable::open(&open).expect("it is there"));
                }),
                each("open+join+leave/shared_memory, opened", || {
                    drop(ShmemConf::new().os_id(link).open().expect("it is there"));
                }),
            ],
        );
        let look = each("look into each, per segment", || {
            for name in &others.0 {
                let other = Observer::open(name).expect("it is there");
                assert_eq!(other.arrays().count(), 0);
            }
        });
        curve.measure(count, vec![look.per(count)]);
    }
    drop(ours);
    curve.finish();
}

fn name(what: impl std::fmt::Display) -> String {
    format!("ndshm-bench-{}-{what}", std::process::id())
}

/// Names of segments without a process. Dropping this removes them, also in a panic.
struct Others(Vec<String>);

impl Others {
    fn grow_to(&mut self, count: usize) {
        for at in self.0.len()..count {
            let name = name(at);
            let options = Segment::options().capacity(1 << 20).persistent(true);
            let segment = options.create(&name).expect("room in /dev/shm");
            self.0.push(name);
            drop(segment);
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for name in &self.0 {
            let removed = Segment::options().persistent(true).remove(name);
            if !matches!(removed, Ok(Removal::Removed)) {
                eprintln!("/dev/shm/{name} was not removed: {removed:?}");
            }
        }
    }
}
