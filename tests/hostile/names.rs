//! Names and a bundle to be damaged, and the calls of a program on them.

use ndshm::{AnyHandle, BundleHandle, HandleTable, Observer};

/// Creates names, two of them for one array, and a named bundle with two parts.
pub fn populate(table: &HandleTable, handles: &[AnyHandle]) -> BundleHandle {
    for (at, &handle) in handles[..4].iter().enumerate() {
        table.publish(&format!("array/{at}"), handle).unwrap();
    }
    table
        .publish("the longest name of all that are given here", handles[0])
        .unwrap();
    table.rename("array/3", "moved").unwrap();
    let bundle = table.bundle().unwrap();
    for name in ["a", "b"] {
        let part = table.from_elem(10, 1u32).unwrap();
        bundle.insert(name, part).unwrap();
    }
    table.publish("bundle", bundle.handle()).unwrap();
    bundle.handle()
}

/// Makes all calls on names and bundles. Returns each call with its outcome; errors as their texts.
pub fn use_all(
    table: &HandleTable,
    bundle: BundleHandle,
    change: bool,
) -> Vec<(&'static str, Result<(), String>)> {
    fn text<T>(outcome: Result<T, impl std::fmt::Display>) -> Result<(), String> {
        outcome.map(drop).map_err(|error| error.to_string())
    }
    let mut done = vec![
        ("find", text(table.find_any("array/0"))),
        ("find", text(table.find_any("moved"))),
        ("find bundle", text(table.find_bundle("bundle"))),
        ("names", text(table.names(""))),
    ];
    if change {
        let new = table.from_elem(3, 1u8);
        if let Ok(new) = new {
            done.push(("publish", text(table.publish("new", new))));
            done.push(("replace", text(table.replace("array/1", new))));
        }
        done.push(("rename", text(table.rename("array/2", "renamed"))));
        done.push(("rename", text(table.rename("moved", "back"))));
        done.push(("unpublish", text(table.unpublish("array/0"))));
    }
    match table.open_bundle(bundle) {
        Err(error) => done.push(("open bundle", Err(error.to_string()))),
        Ok(bundle) => {
            done.push(("parts", text(bundle.parts())));
            done.push(("get", text(bundle.get_any("a"))));
            if change {
                if let Ok(part) = table.from_elem(3, 1u8) {
                    done.push(("insert", text(bundle.insert("c", part))));
                }
                done.push(("remove", text(bundle.remove("b"))));
                done.push(("freeze", text(bundle.freeze())));
                done.push(("free bundle", text(table.free(bundle.handle()))));
            }
        }
    }
    done
}

/// Makes an observer's calls on names.
pub fn observe(observer: &Observer) {
    std::hint::black_box(observer.names("").map(|names| names.len()).ok());
    std::hint::black_box(observer.find("array/0").ok());
}
