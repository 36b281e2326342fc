//! By seats that idle processes have taken.

use std::hint::black_box;

use ndshm::{HandleTable, Segment};

use crate::common::process::Process;
use crate::common::{Bench, each};
use crate::curve::Curve;

/// Seats of the segment, of which the bench takes one more for a moment.
const MOST: u32 = 512;

pub fn curve(bench: &Bench) {
    let title = "Seats: time by the number of processes";
    let Some(mut curve) = Curve::new(bench, "seats", title, "processes with a seat") else {
        return;
    };
    let last = if bench.is_quick() { 8 } else { 256 };
    let segment = Segment::options().seats(MOST).anonymous();
    let segment = segment.expect("a segment");
    let table = HandleTable::join(&segment).expect("a seat");
    let x = table.zeros::<f64, _>(1000).expect("memory for the bench");
    let mut idle: Vec<Process> = Vec::new();
    for power in 0..=9 {
        let count = 1 << power;
        if count > last {
            break;
        }
        // One of them is this process.
        while idle.len() + 1 < count {
            let mut process = Process::fork(|| {
                let table = HandleTable::join(&segment).expect("a seat");
                move |_| table.seat().expect("it is joined") as u64
            });
            // It sleeps from its answer on.
            process.ask(0);
            process.answer();
            idle.push(process);
        }
        assert_eq!(table.peers().expect("a seat").len(), count);
        curve.measure(
            count,
            vec![
                each("alloc+free", || {
                    let array = table.uninit::<f64, _>(1000).expect("memory for the bench");
                    table.free(array).expect("nobody else frees it");
                }),
                each("read lease", || {
                    black_box(table.read(x).expect("nobody writes").as_ptr())
                }),
                each("write lease", || {
                    black_box(table.write(x).expect("nobody else has it").as_ptr())
                }),
                each("join+leave", || {
                    drop(HandleTable::join(&segment).expect("a seat"));
                }),
                each("reap of nobody", || table.reap().expect("a seat").seats),
            ],
        );
    }
    curve.finish();
}
