//! Cost of names: finding an array by name, and publishing, replacing, renaming and unpublishing.

mod common;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use common::{Bench, each};
use ndarray::Ix1;
use ndshm::{AnyHandle, Handle, HandleTable, Segment};

fn main() {
    let bench = Bench::from_args();
    let most = if bench.is_quick() { 1_000 } else { 100_000 };
    for count in [100, most] {
        with(&bench, count);
    }
}

fn with(bench: &Bench, count: usize) {
    let segment = Segment::anonymous().expect("a segment");
    let join = || HandleTable::join(&segment).expect("a seat");
    let table = join();
    let names: Vec<String> = (0..count).map(|at| format!("layer/{at}/weights")).collect();
    let arrays: Vec<Handle<f64, Ix1>> = names
        .iter()
        .map(|_| table.zeros(4).expect("memory for the bench"))
        .collect();
    let mut map: HashMap<&str, AnyHandle> = HashMap::new();
    for (name, &array) in names.iter().zip(&arrays) {
        table.publish(name, array).expect("the name is free");
        map.insert(name, array.into());
    }
    let map = Mutex::new(map);
    // A generator of full period: every name once, in an order that no cache predicts.
    let step = 0x9e37_79b9_7f4a_7c15_u64 as usize | 1;
    let scattered = |at: &mut usize| {
        *at = at.wrapping_add(step);
        &names[(*at >> 16) % count]
    };
    let few = |at: &mut usize| {
        *at = (*at + 1) % 64;
        &names[*at]
    };
    // The same for participants that find every name once. The factor has no divisor in common with
    // the count.
    let nth = |at: usize| &names[at * 77_777 % count];
    let (mut a, mut b, mut c, mut d, mut e) = (0, 0, 0, 0, 0);
    bench.compare(vec![
        each(format!("find/64 of {count}"), || {
            black_box(table.find::<f64, Ix1>(few(&mut a)).expect("it is there"))
        }),
        each(format!("find/64 of {count}/mutex and HashMap"), || {
            let map = map.lock().expect("no panic");
            black_box(map.get(few(&mut b).as_str()).copied())
        }),
    ]);
    let (mut finder, mut found) = (join(), 0);
    bench.compare(vec![
        each(format!("find/first time, of {count}"), || {
            if found == count {
                (finder, found) = (join(), 0);
            }
            found += 1;
            black_box(finder.find::<f64, Ix1>(nth(found)).expect("it is there"))
        }),
        each(
            format!("find/first time, of {count}/mutex and HashMap"),
            || {
                let map = map.lock().expect("no panic");
                e += 1;
                black_box(map.get(nth(e).as_str()).copied())
            },
        ),
    ]);
    if bench.wants("find/any") {
        // The cache of names remembers some of them at the second attempt.
        for name in names.iter().chain(&names) {
            table.find::<f64, Ix1>(name).expect("it is there");
        }
    }
    bench.compare(vec![
        each(format!("find/any of {count}"), || {
            black_box(
                table
                    .find::<f64, Ix1>(scattered(&mut c))
                    .expect("it is there"),
            )
        }),
        each(format!("find/any of {count}/mutex and HashMap"), || {
            let map = map.lock().expect("no panic");
            black_box(map.get(scattered(&mut d).as_str()).copied())
        }),
    ]);
    let x = table.zeros::<f64, _>(4).expect("memory for the bench");
    bench.compare(vec![each(format!("publish+unpublish/{count}"), || {
        table.publish("one more", x).expect("the name is free");
        table.unpublish("one more").expect("it is there");
    })]);
    bench.compare(vec![each(format!("replace/{count}"), || {
        table.replace("one more", x).expect("memory for a record")
    })]);
    bench.compare(vec![each(format!("rename there and back/{count}"), || {
        table.rename("one more", "another").expect("it is there");
        table.rename("another", "one more").expect("it is there");
    })]);
    bench.compare(vec![each(format!("list/{count}"), || {
        table.names("").expect("not damaged").len()
    })]);
}
