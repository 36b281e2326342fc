//! Queues, names, bundles, objects, and arrays lent to Arrow.

use ndarray::Ix1;
use ndshm::error::PushError;
use ndshm::{Handle, HandleTable};

use super::table;

#[test]
fn jobs_go_through_a_queue() {
    let table = table();
    let queue = table.queue::<[u32; 3]>(2).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let theirs = other.open_queue(queue.handle()).unwrap();
    for turn in 0..3 {
        queue.push([turn, 1, 2]).unwrap();
        queue.push([turn, 3, 4]).unwrap();
        assert!(matches!(
            queue.push([9; 3]),
            Err(PushError::Full { job: [9, 9, 9], .. })
        ));
        assert_eq!(theirs.pop().unwrap(), Some([turn, 1, 2]));
        assert_eq!(queue.pop().unwrap(), Some([turn, 3, 4]));
        assert_eq!(theirs.pop().unwrap(), None);
    }
    queue.close();
    assert!(theirs.is_drained());
}

#[test]
fn names_and_bundles_lead_to_arrays() {
    let table = table();
    let x = table.from_elem(3, 1.5f32).unwrap();
    table.publish("x", x).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let found: Handle<f32, Ix1> = other.find("x").unwrap();
    assert_eq!(other.read(found).unwrap().sum(), 4.5);
    let y = table.from_elem(2, 2.0f32).unwrap();
    table.replace("x", y).unwrap();
    assert_eq!(other.find::<f32, Ix1>("x").unwrap(), y);
    let bundle = table.bundle().unwrap();
    bundle.insert("w", x).unwrap();
    table.publish("model", bundle.handle()).unwrap();
    let theirs = other.find_bundle("model").unwrap();
    let w: Handle<f32, Ix1> = theirs.get("w").unwrap();
    other.write(w).unwrap()[0] = 0.0;
    assert_eq!(table.read(x).unwrap().sum(), 3.0);
    assert_eq!(theirs.parts().unwrap().len(), 1);
    bundle.remove("w").unwrap();
    assert!(theirs.get::<f32, Ix1>("w").is_err());
    assert_eq!(other.names("").unwrap().len(), 2);
}

#[cfg(feature = "serde")]
#[test]
fn an_object_lends_its_tensors_and_texts() {
    use ndarray::Array1;
    use ndshm::object::Tensor;

    let table = table();
    type Value<'a> = (&'a str, Tensor<'a, f64, Ix1>, Vec<u16>, Option<bool>);
    let tensor = Tensor::from(Array1::from_iter((0..10).map(f64::from)));
    let value: Value<'_> = ("layer", tensor, vec![1, 2, 3], Some(true));
    let handle = table.put_object(&value).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let object = other.open_object(handle).unwrap();
    let read: Value<'_> = object.get().unwrap();
    assert!(read.1.is_borrowed());
    table.free(handle).unwrap();
    // The lease keeps the bytes alive. Two values are read from them at once.
    let again: Value<'_> = object.get().unwrap();
    assert_eq!(
        (read.0, read.1.view().sum(), &read.2),
        ("layer", 45.0, &again.2)
    );
}

#[cfg(feature = "arrow")]
#[test]
fn an_array_is_lent_to_arrow() {
    let table = table();
    let x = table.from_elem(20, 2i64).unwrap();
    let lent = table.lend_arrow(x).unwrap();
    let part = lent.slice(5, 10);
    drop(lent);
    let sum = std::thread::spawn(move || part.values().iter().sum::<i64>())
        .join()
        .unwrap();
    assert_eq!(sum, 20);
    table.write(x).unwrap().fill(1);
    let rows = table.zeros::<u8, _>((2, 3)).unwrap();
    assert_eq!(table.lend_arrow_rows(rows).unwrap().value_length(), 3);
}
