//! Handles of all kinds have the same traits.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

use ndarray::Ix2;
use ndshm::bytemuck::{self, Pod};
use ndshm::{AnyHandle, BundleHandle, Handle, PartitionHandle, QueueHandle, Write};

fn has_all<H>(name: &str)
where
    H: Copy + Ord + Hash + Debug + Display + FromStr<Err: Debug> + Pod + Send + Sync,
    H: Into<AnyHandle> + Into<u64>,
{
    let handle: H = bytemuck::cast(0x1234u64);
    let text = handle.to_string();
    assert_eq!(text, "ndshm:0000000000001234");
    assert!(text.parse::<H>().unwrap() == handle);
    assert_eq!(format!("{handle:?}"), format!("{name}({text})"));
    assert_eq!(Into::<AnyHandle>::into(handle).to_bits(), 0x1234);
    assert_eq!(Into::<u64>::into(handle), 0x1234);
}

fn comes_from_any<H: From<AnyHandle> + Into<u64>>() {
    let handle: H = AnyHandle::from_bits(77).into();
    assert_eq!(Into::<u64>::into(handle), 77);
}

#[test]
fn all_kinds_have_the_same_traits() {
    has_all::<AnyHandle>("AnyHandle");
    has_all::<Handle<f64, Ix2>>("Handle");
    has_all::<QueueHandle<u8>>("QueueHandle");
    has_all::<PartitionHandle<Write<f64, Ix2>>>("PartitionHandle");
    has_all::<BundleHandle>("BundleHandle");
    comes_from_any::<QueueHandle<u8>>();
    comes_from_any::<PartitionHandle<Write<f64, Ix2>>>();
    comes_from_any::<BundleHandle>();
}

#[cfg(feature = "serde")]
#[test]
fn handles_of_objects_have_them_too() {
    has_all::<ndshm::object::ObjectHandle>("ObjectHandle");
    comes_from_any::<ndshm::object::ObjectHandle>();
}

#[cfg(feature = "serde")]
#[test]
fn all_kinds_serialize_as_text() {
    fn same<H: serde::Serialize + serde::de::DeserializeOwned + Into<u64> + Copy>(handle: H) {
        let text = serde_json::to_string(&handle).unwrap();
        assert_eq!(text, "\"ndshm:0000000000000005\"");
        let read: H = serde_json::from_str(&text).unwrap();
        assert_eq!(Into::<u64>::into(read), 5);
    }
    let any = AnyHandle::from_bits(5);
    same(any);
    same(Handle::<f64, Ix2>::from_bits(5));
    same(QueueHandle::<u8>::from(any));
    same(PartitionHandle::<Write<f64, Ix2>>::from(any));
    same(BundleHandle::from(any));
    same(ndshm::object::ObjectHandle::from(any));
}
