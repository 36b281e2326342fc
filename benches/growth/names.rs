//! By names: finding one, giving one, listing.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use ndarray::Ix1;
use ndshm::{AnyHandle, Handle};

use crate::common::{Bench, Random, each};
use crate::curve::Curve;

pub fn curve(bench: &Bench) {
    let title = "Names: time by the number of names";
    let Some(mut curve) = Curve::new(bench, "names", title, "names") else {
        return;
    };
    let table = crate::table();
    let mut names: Vec<String> = Vec::new();
    let map = Mutex::new(HashMap::<String, AnyHandle>::new());
    let one_more = table.zeros::<f64, _>(4).expect("memory for the bench");
    for count in crate::steps(bench, 10, 1_000_000) {
        for at in names.len()..count {
            let name = format!("layer/{at}/weights");
            let array: Handle<f64, Ix1> = table.uninit(4).expect("memory for the bench");
            table.publish(&name, array).expect("the name is free");
            let mut map = map.lock().expect("no panic");
            map.insert(name.clone(), array.into());
            names.push(name);
        }
        // A participant remembers some names only when it finds them a second time.
        for name in names.iter().chain(&names) {
            table.find::<f64, Ix1>(name).expect("it is there");
        }
        let mut random = [1, 1].map(Random::new);
        let [ours, theirs] = &mut random;
        curve.measure(
            count,
            vec![
                each("find any", || {
                    let name = &names[ours.below(count)];
                    black_box(table.find::<f64, Ix1>(name).expect("it is there"))
                }),
                each("find any/HashMap behind a mutex", || {
                    let map = map.lock().expect("no panic");
                    black_box(map.get(names[theirs.below(count)].as_str()).copied())
                }),
                each("find one again", || {
                    black_box(table.find::<f64, Ix1>(&names[0]).expect("it is there"))
                }),
                each("publish+unpublish", || {
                    table.publish("one more", one_more).expect("it is free");
                    table.unpublish("one more").expect("it is there");
                }),
            ],
        );
        let list = each("list, per name", || {
            assert_eq!(table.names("").expect("not damaged").len(), count);
        });
        curve.measure(count, vec![list.per(count)]);
    }
    curve.finish();
}
