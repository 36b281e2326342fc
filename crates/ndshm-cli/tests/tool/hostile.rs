//! Tests of small objects whose contents would take endless time or memory.

use ndshm::HandleTable;
use ndshm::element::{OpaqueType, Order};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::program::options;
use crate::runs::{self, piped};
use crate::support::Name;

/// Bytes that are stored as such.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// The fields of a tensor, with any shape.
#[derive(Serialize)]
struct Forged {
    dtype: &'static str,
    shape: Vec<u64>,
    order: &'static str,
    bytes: Bytes,
}

pub fn small_tensors_do_not_end_the_tool() {
    let name = Name::new("forged");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let put = |what: &str, shape: Vec<u64>, len: usize| {
        let forged = Forged {
            dtype: "u8",
            shape,
            order: "C",
            bytes: Bytes(vec![7; len]),
        };
        let handle = table.put_object(&forged).unwrap();
        table.publish(what, handle).unwrap();
    };
    let get = |path: &str, more: &[&str]| piped(&[&["get", &name.0, path], more].concat());
    put("fine", vec![2, 1], 2);
    assert_eq!(
        runs::json(&["get", &name.0, "fine"]).json()["data"],
        json!([[7], [7]])
    );
    // More axes than a tensor has: the fields of a map.
    put("deep", vec![1; 300_000], 1);
    for more in [&[][..], &["--json"], &["--all"]] {
        let deep = get("deep", more);
        assert!(deep.ends_with(0).out.contains("\"shape\""), "{}", deep.err);
    }
    get("deep/shape/-1", &[]).ends_with(0);
    // Lists without elements, of which there are too many.
    put("rows", vec![1 << 40, 0], 0);
    let rows = get("rows", &[]);
    assert_eq!(rows.ends_with(0).out.matches("[]").count(), 10);
    assert!(rows.out.contains("..."), "{}", rows.out);
    for more in [&["--json"][..], &["--all"]] {
        let rows = get("rows", more);
        assert!(
            rows.ends_with(2).err.contains("select a part"),
            "{}",
            rows.err
        );
    }
    assert_eq!(
        runs::json(&["get", &name.0, "rows", "-2:"]).json()["data"],
        json!([[], []])
    );
    put("many", [vec![12; 15], vec![0]].concat(), 0);
    get("many", &[]).ends_with(2);
    get("many/0", &["--json"]).ends_with(2);
    // No index reaches the end of such an axis.
    put("huge", vec![u64::MAX, 0], 0);
    for more in [&[][..], &["--json"], &["0:1"]] {
        get("huge", more).code();
    }
    get("huge/shape/0", &[]).ends_with(0);
    // The same of an array.
    let array = table.zeros::<u8, _>((1 << 40, 0)).unwrap();
    table.publish("array", array).unwrap();
    get("array", &[]).ends_with(0);
    let array = get("array", &["--json"]);
    assert!(
        array.ends_with(2).err.contains("select fewer"),
        "{}",
        array.err
    );
    assert_eq!(
        runs::json(&["get", &name.0, "array", ":2"]).json()["data"],
        json!([[], []])
    );
    piped(&["ls", &name.0]).ends_with(0);
}

pub fn lists_of_many_values_are_limited() {
    let name = Name::new("values");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let put = |what: &str, count: usize| {
        let handle = table.put_object(&vec![true; count]).unwrap();
        table.publish(what, handle).unwrap();
    };
    put("few", 1_500);
    put("many", (1 << 22) + 1);
    let listed = runs::json(&["ls", &name.0]).ends_with(0).json();
    assert_eq!(listed[0]["parts"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(listed[0]["more"], 500);
    assert_eq!(listed[1]["parts"], json!([]));
    let text = piped(&["ls", &name.0]);
    assert!(
        text.ends_with(0).out.contains("... and 1480 more"),
        "{}",
        text.out
    );
    let many = piped(&["get", &name.0, "many"]);
    let said = &many.ends_with(4).err;
    assert!(said.contains("HandleTable::open_object"), "{said}");
}

pub fn large_sizes_are_refused_before_they_are_read() {
    let name = Name::new("large-sizes");
    let table = HandleTable::join(&options().capacity(1 << 30).create(&name.0).unwrap()).unwrap();
    let object = table.put_object(&1).unwrap();
    let blocks = table.info(object).unwrap().dtype;
    let pickled = OpaqueType::new("pickled object", 1, 1).unwrap().into();
    // The pages are never written, and take no memory.
    let len = (256 << 20) / blocks.size() + 1;
    let large = table.zeros_untyped(&blocks, &[len], Order::C).unwrap();
    let refused = piped(&["get", &name.0, &large.to_string()]);
    let said = &refused.ends_with(4).err;
    assert!(said.contains("at most 256 MiB"), "{said}");
    let buffers = (1_u64 << 20) + 1;
    let mut bytes: Vec<u8> = [1, 8, buffers].map(u64::to_le_bytes).concat();
    bytes.resize(bytes.len() + 8 * buffers as usize, 0);
    let large = table
        .from_bytes(&pickled, &[bytes.len()], Order::C, &bytes)
        .unwrap();
    let refused = piped(&["get", &name.0, &large.to_string()]);
    let said = &refused.ends_with(4).err;
    assert!(said.contains("1048577 buffers"), "{said}");
}
