//! By jobs in a queue: half full, full, empty.

use std::hint::black_box;

use crossbeam_queue::ArrayQueue;

use crate::common::{Bench, each};
use crate::curve::Curve;

type Job = [u64; 2];

pub fn curve(bench: &Bench) {
    let title = "Queues: time by the capacity of the queue";
    let Some(mut curve) = Curve::new(bench, "queue", title, "cells of the queue") else {
        return;
    };
    let table = crate::table();
    let powers = if bench.is_quick() { 4..=8 } else { 4..=20 };
    for capacity in powers.step_by(2).map(|power| 1 << power) {
        let queue = || table.queue::<Job>(capacity).expect("memory for the bench");
        let (half, full, empty) = (queue(), queue(), queue());
        let ring = || ArrayQueue::<Job>::new(capacity);
        let (half_ring, full_ring) = (ring(), ring());
        for job in 0..capacity as u64 {
            full.push([job, 0]).expect("it has room");
            full_ring.push([job, 0]).expect("it has room");
            if job % 2 == 0 {
                half.push([job, 0]).expect("it has room");
                half_ring.push([job, 0]).expect("it has room");
            }
        }
        curve.measure(
            capacity,
            vec![
                each("push+pop, half full", || {
                    half.push(black_box([1, 2])).expect("it has room");
                    half.pop().expect("it lives").expect("a job")
                }),
                each("push+pop, half full/ArrayQueue, half full", || {
                    half_ring.push(black_box([1, 2])).expect("it has room");
                    half_ring.pop().expect("a job")
                }),
                each("push to a full one", || {
                    full.push([1, 2]).expect_err("it is full")
                }),
                each("push to a full one/full ArrayQueue", || {
                    full_ring.push([1, 2]).expect_err("it is full")
                }),
                each("pop from an empty one", || empty.pop().expect("it lives")),
            ],
        );
    }
    curve.finish();
}
