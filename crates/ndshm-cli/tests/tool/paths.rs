//! Tests of paths: parts of bundles, and values in objects.

use ndarray::{Array, Ix2, arr1, arr2};
use ndshm::element::{OpaqueType, Order};
use ndshm::object::Tensor;
use ndshm::{AnyHandle, HandleTable};
use serde::Serialize;
use serde_json::{Value, json};

use crate::program::options;
use crate::runs::{self, piped};
use crate::support::Name;

#[derive(Serialize)]
enum Kind {
    Linear,
    Deep { layers: u8 },
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    rate: f32,
    step: Option<u64>,
    kinds: Vec<Kind>,
    weights: Tensor<'a, f64, Ix2>,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    bias: Vec<f64>,
    active: bool,
}

/// The names of a segment with a bundle, an object in it, and other objects.
struct World {
    name: Name,
    table: HandleTable,
    weights: AnyHandle,
}

fn world(what: &str) -> World {
    let name = Name::new(what);
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let plain = table.from_array(&arr1(&[1.5, 2.5])).unwrap();
    table.publish("plain", plain).unwrap();
    let bundle = table.bundle().unwrap();
    let weights = table.from_array(&arr2(&[[1, 2, 3], [4, 5, 6]])).unwrap();
    bundle.insert("weights", weights).unwrap();
    bundle
        .insert("bias/first", table.from_elem(2, 7_u8).unwrap())
        .unwrap();
    let config = table
        .put_object(&json!({"a/b": [1, {"c": "x"}], "n": -1}))
        .unwrap();
    bundle.insert("config", config).unwrap();
    table.publish("net/model", bundle.handle()).unwrap();
    let transposed = arr2(&[[1.0, 4.0], [2.0, 5.0], [3.0, f64::NAN]]);
    let layer = |at: u8| Layer {
        bias: Array::range(0.0, f64::from(at) + 1.0, 1.0).to_vec(),
        active: at == 0,
    };
    let model = Model {
        name: "first",
        rate: 0.1,
        step: None,
        kinds: vec![Kind::Linear, Kind::Deep { layers: 2 }],
        weights: transposed.t().into(),
        layers: (0..3).map(layer).collect(),
    };
    let model = table.put_object(&model).unwrap();
    table.publish("dict", model).unwrap();
    drop(bundle);
    World {
        name,
        table,
        weights: weights.into(),
    }
}

impl World {
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let args = [&args[..1], &[&self.name.0], &args[1..]].concat();
        runs::json(&args).ends_with(0).json()
    }

    #[track_caller]
    fn text(&self, args: &[&str]) -> String {
        let args = [&args[..1], &[&self.name.0], &args[1..]].concat();
        piped(&args).ends_with(0).out.clone()
    }

    /// Returns the message with which the tool refuses.
    #[track_caller]
    fn refused(&self, code: i32, args: &[&str]) -> String {
        let args = [&args[..1], &[&self.name.0], &args[1..]].concat();
        piped(&args).ends_with(code).err.clone()
    }
}

pub fn parts_are_found_by_their_paths() {
    let world = world("parts");
    let data = |path: &str, index: &str| world.json(&["get", path, index])["data"].clone();
    assert_eq!(data("net/model/weights", ""), json!([[1, 2, 3], [4, 5, 6]]));
    assert_eq!(data("net/model/weights", ":,0"), json!([1, 4]));
    assert_eq!(data("net/model/weights/1", ""), json!([4, 5, 6]));
    assert_eq!(data("net/model/weights/1", "::2"), json!([4, 6]));
    assert_eq!(data("net/model/weights/1/-1", ""), json!(6));
    assert_eq!(data("net/model/bias/first/0", ""), json!(7));
    assert_eq!(data("plain/1", ""), json!(2.5));
    assert_eq!(data(&format!("{}/0", world.weights), ""), json!([1, 2, 3]));
    let parts = world.json(&["get", "net/model"])["parts"].clone();
    assert_eq!(
        (&parts[0]["name"], &parts[1]["kind"], &parts[2]["shape"]),
        (&json!("bias/first"), &json!("object"), &json!([2, 3]))
    );
    assert!(world.text(&["get", "net/model"]).contains("weights"));
    // The other commands take the same paths.
    assert_eq!(
        world.json(&["stat", "net/model/weights"])["parts"][0]["max"],
        6
    );
    let plotted = world.json(&["plot", "net/model/weights", "--heat"]);
    assert_eq!(plotted["rows"][1][0], 4.0);
    assert_eq!(
        world.json(&["set", "net/model/weights", "0,0", "9"])["changed"],
        1
    );
    assert_eq!(data("net/model/weights/0/0", ""), json!(9));
    let said = world.text(&["set", "net/model/weights", "0,0", "1"]);
    assert!(said.contains("(net/model/weights)"), "{said}");

    let said = world.refused(3, &["get", "net/model/none"]);
    assert!(
        said.contains("net/model/bias/first, net/model/config"),
        "{said}"
    );
    let said = world.refused(2, &["stat", "net/model"]);
    assert!(
        said.contains("is a bundle") && said.contains("net/model/weights"),
        "{said}"
    );
    world.refused(3, &["get", "net"]);
    world.refused(3, &["get", "net/model2/weights"]);
    let said = world.refused(3, &["stat", "plain/1"]);
    assert!(said.contains("ndshm get prints elements"), "{said}");
    assert_eq!(data("plain/", ""), json!([1.5, 2.5]), "a slash at the end");
    world.refused(2, &["get", "plain/x"]);
    world.refused(2, &["get", "plain/1/1"]);
    world.refused(2, &["get", "net/model", "0"]);
    assert!(world.table.verify().unwrap().is_clean());
}

pub fn objects_are_printed_as_json() {
    let world = world("objects");
    let expected = json!({
        "name": "first",
        "rate": 0.1,
        "step": null,
        "kinds": ["Linear", {"Deep": {"layers": 2}}],
        "weights": [[1.0, 2.0, 3.0], [4.0, 5.0, "NaN"]],
        "layers": [
            {"bias": [0.0], "active": true},
            {"bias": [0.0, 1.0], "active": false},
            {"bias": [0.0, 1.0, 2.0], "active": false},
        ],
    });
    let got = world.json(&["get", "dict"]);
    assert_eq!((&got["kind"], &got["data"]), (&json!("object"), &expected));
    // The text is JSON, too.
    let text = world.text(&["get", "dict"]);
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        expected,
        "{text}"
    );
    assert!(text.contains("    [1.0, 2.0, 3.0],\n"), "{text}");
    let data = |path: &str, index: &str| world.json(&["get", path, index])["data"].clone();
    assert_eq!(data("dict/layers/2/bias/1", ""), json!(1.0));
    assert_eq!(data("dict/weights/0", ""), json!([1.0, 2.0, 3.0]));
    assert_eq!(data("dict/weights", "::-1,0"), json!([4.0, 1.0]));
    assert_eq!(data("dict/weights/1", "0"), json!(4.0));
    assert_eq!(data("net/model/config/a/b/1/c", ""), json!("x"));
    let said = world.refused(3, &["get", "dict/none"]);
    assert!(said.contains("\"layers\""), "{said}");
    world.refused(2, &["get", "dict/name", "0"]);
    world.refused(2, &["get", "dict/weights/9"]);
    let said = world.refused(3, &["get", "dict/weights/shape"]);
    assert!(said.contains("a tensor f64 [2, 3]"), "{said}");
    let said = world.refused(2, &["stat", "dict"]);
    assert!(said.contains("ndshm get prints objects"), "{said}");
    let long: Vec<u32> = (0..100).collect();
    let object = world.table.put_object(&long).unwrap();
    let text = world.text(&["get", &object.to_string()]);
    assert_eq!(text, "[0, 1, 2, 3, 4, ..., 95, 96, 97, 98, 99]\n");
    let text = world.text(&["get", &object.to_string(), "--all"]);
    assert_eq!(serde_json::from_str::<Vec<u32>>(&text).unwrap(), long);
    // A damaged object.
    let blocks = world.table.info(object).unwrap();
    let lost = world
        .table
        .from_bytes(&blocks.dtype, &[1], Order::C, &[7; 64])
        .unwrap();
    let said = world.refused(1, &["get", &lost.to_string()]);
    assert!(said.contains("not that of an object"), "{said}");
}

pub fn pickles_are_not_read() {
    let world = world("pickles");
    let pickled = OpaqueType::new("pickled object", 1, 1).unwrap().into();
    let stored = |numbers: &[u64], len: usize| {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        bytes.resize(len, 1);
        world
            .table
            .from_bytes(&pickled, &[len], Order::C, &bytes)
            .unwrap()
            .to_string()
    };
    // As the Python package stores it: version, pickle, count and lengths of the buffers.
    let two = stored(&[1, 20, 2, 100, 8], 64 + 128 + 8);
    let text = world.text(&["get", &two]);
    assert_eq!(
        text,
        "a Python object, 200 bytes: a pickle of 20 bytes, 2 buffers of 108 bytes in all\n"
    );
    let document = world.json(&["get", &two]);
    assert_eq!(
        (&document["kind"], &document["pickle"], &document["buffers"]),
        (&json!("python"), &json!(20), &json!([100, 8]))
    );
    world.refused(2, &["get", &two, "0"]);
    world.refused(2, &["get", &format!("{two}/key")]);
    for damaged in [
        stored(&[2, 20, 0], 44),
        stored(&[1, 20, u64::MAX], 44),
        stored(&[1, u64::MAX, 1, 5], 44),
        stored(&[], 3),
        stored(&[1, 20, 0], 45),
    ] {
        world.refused(1, &["get", &damaged]);
    }
}

pub fn lists_have_parts_below_their_parents() {
    let world = world("lists");
    let text = world.text(&["ls"]);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .collect()
        })
        .collect();
    let paths: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    let expected = [
        "PATH",
        "dict",
        "name",
        "rate",
        "step",
        "kinds",
        "weights",
        "layers",
        "net/model",
        "bias/first",
        "config",
        "a/b",
        "n",
        "weights",
        "plain",
    ];
    assert_eq!(paths, expected, "{text}");
    assert!(
        text.contains("\n  weights  ") && text.contains("\n    a/b  "),
        "{text}"
    );
    let document = world.json(&["ls"]);
    assert_eq!(
        (&document[1]["kind"], &document[1]["parts"][2]["path"]),
        (&json!("bundle"), &json!("net/model/weights"))
    );
    let paths = document[0]["parts"].as_array().unwrap().iter();
    for path in paths.map(|part| part["path"].as_str().unwrap()) {
        world.text(&["get", path]);
    }

    let shown = world.json(&["show"]);
    let arrays = shown["arrays"].as_array().unwrap();
    let weights = arrays
        .iter()
        .find(|it| it["handle"] == world.weights.to_string());
    assert_eq!(weights.unwrap()["bundle"], shown["bundles"][0]["handle"]);
    assert_eq!(shown["bundles"][0]["names"], json!(["net/model"]));
    assert_eq!(shown["bundles"][0]["owner"], std::process::id());
    let text = world.text(&["show"]);
    let bundle = text.find("net/model").unwrap();
    let part = text.find("  weights").unwrap();
    assert!(bundle < part && text.contains("3 parts"), "{text}");
    assert!(text.contains("  object  "), "{text}");
    assert!(!text.contains("names of queues"), "{text}");

    // Freed arrays keep their pages, and the tool says so.
    assert!(!text.contains("keep their pages"), "{text}");
    let x = world.table.from_elem::<u8, _>(100_000, 1).unwrap();
    world.table.free(x).unwrap();
    let text = world.text(&["show"]);
    assert!(
        text.contains("free slots keep their pages, at most 128 KiB"),
        "{text}"
    );
    world.table.trim().unwrap();
    assert!(
        !world
            .text(&["show"])
            .contains("keep their pages, at most 1"),
        "{text}"
    );
}

pub fn odd_keys_and_shadowed_parts_are_reached() {
    let name = Name::new("odd-keys");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let weights = table.from_elem(1, 6_u8).unwrap().into();
    let world = World {
        name,
        table,
        weights,
    };
    let table = &world.table;
    let publish = |name: &str, handle: AnyHandle| table.publish(name, handle).unwrap();
    let put = |value: Value| AnyHandle::from(table.put_object(&value).unwrap());
    publish("odd", put(json!({"k//z": 1, "c/": 2, "": 3, "x": 4})));
    // The name takes the path of the key.
    publish("odd/x", put(json!("other")));
    let bundle = table.bundle().unwrap();
    let part = |name: &str, value: u8| {
        let array = table.from_elem(1, value).unwrap();
        bundle.insert(name, array).unwrap();
    };
    part("b", 5);
    publish("a", bundle.handle().into());
    let text = world.text(&["ls"]);
    assert!(
        text.contains("1 part ") && !text.contains("1 parts"),
        "{text}"
    );
    assert!(world.text(&["show"]).contains("1 part "));
    publish("a/b", world.weights);
    part("c", 7);

    let listed = world.json(&["ls"]);
    let entries = listed.as_array().unwrap();
    let parts_of = |path: &str| {
        let entry = entries.iter().find(|entry| entry["path"] == path).unwrap();
        entry["parts"].as_array().unwrap().iter()
    };
    let get = |part: &Value| world.json(&["get", part["path"].as_str().unwrap()])["data"].clone();
    let mut values: Vec<Value> = parts_of("odd").map(get).collect();
    values.sort_by_key(Value::to_string);
    assert_eq!(values, [1, 2, 3, 4].map(Value::from), "{listed:#}");
    let values: Vec<Value> = parts_of("a").map(get).collect();
    assert_eq!(values, [json!([5]), json!([7])], "{listed:#}");
    assert_eq!(world.json(&["get", "a/b"])["data"], json!([6]));
    let shadowed = parts_of("a").next().unwrap()["path"].as_str().unwrap();
    let text = world.text(&["ls"]);
    assert!(text.contains(&format!("  b ({shadowed})  ")), "{text}");
    // Texts with a handle do not give it the name of another array.
    let said = world.text(&["stat", shadowed]);
    assert!(said.starts_with(&format!("{shadowed}: ")), "{said}");
    let said = world.refused(3, &["get", "odd/k/z"]);
    assert!(said.contains("\"k//z\""), "{said}");
}
