//! Arrays of all kinds, to be damaged.

use ndarray::IxDyn;
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::element::{OpaqueType, Order};
use ndshm::{AnyHandle, Complex, HandleTable};

/// A type with its own layout: its array has a schema to damage.
#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "ndshm::bytemuck")]
#[repr(C)]
pub struct Point {
    at: [f32; 3],
    id: u32,
}

ndshm::record!(Point {
    at: [f32; 3],
    id: u32
});

/// Creates arrays of all kinds, and returns their handles.
pub fn populate(table: &HandleTable) -> Vec<AnyHandle> {
    let point = Point {
        at: [1.0; 3],
        id: 9,
    };
    let half = OpaqueType::new("<f2", 2, 2).unwrap().into();
    let freed = table.from_elem(300, 1u16).unwrap();
    let complex = Complex::new(1.0, 2.0);
    let handles = vec![
        table.from_elem((40, 3), 1.5).unwrap().into(),
        table.from_elem(40, 7u8).unwrap().into(),
        table.from_elem(40, point).unwrap().into(),
        table.from_elem(64, true).unwrap().into(),
        table.from_elem((), 3i64).unwrap().into(),
        table.from_elem(IxDyn(&[2; 8]), complex).unwrap().into(),
        table.from_elem(9_000, 2u8).unwrap().into(),
        table.zeros_untyped(&half, &[30], Order::C).unwrap(),
        freed.into(),
    ];
    table.free(freed).unwrap();
    table.detach(handles[1]).unwrap();
    handles
}
