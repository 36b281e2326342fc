//! Fill, copy, swap and gather.

use ndarray::{
    Array, Array1, Array2, Array3, ArrayD, Dimension, IxDyn, RemoveAxis, ShapeBuilder, Zip, arr0,
};
use ndshm::error::{PoolError, PrimitiveError, RoundError};
use ndshm::{Complex, Element, Handle, HandleTable, Pool, record};
use proptest::prelude::*;

use super::{LENGTHS, props, table, with_pools};

#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Particle {
    x: f64,
    y: [f32; 2],
}

record!(Particle {
    x: f64,
    y: [f32; 2]
});

pub fn fill_copy_and_swap_move_every_type() {
    fn moves<T: Element + PartialEq + std::fmt::Debug>(
        table: &HandleTable,
        pool: &mut Pool<'_>,
        [one, other]: [T; 2],
    ) {
        for length in LENGTHS {
            let a = table.owned(table.from_elem(length, other).unwrap());
            let b = table.owned(table.from_elem(length, other).unwrap());
            let (a, b) = (a.handle(), b.handle());
            pool.fill(a, one).unwrap();
            assert!(table.read(a).unwrap().iter().all(|&x| x == one));
            pool.copy(a, b).unwrap();
            assert!(table.read(b).unwrap().iter().all(|&x| x == one));
            pool.fill(a, other).unwrap();
            pool.swap(a, b).unwrap();
            assert!(table.read(a).unwrap().iter().all(|&x| x == one));
            assert!(table.read(b).unwrap().iter().all(|&x| x == other));
        }
    }
    with_pools(|table, pool| {
        moves(table, pool, [1.5f64, -2.5]);
        moves(table, pool, [7u8, 9]);
        moves(table, pool, [true, false]);
        moves(table, pool, [u128::MAX, 1]);
        moves(
            table,
            pool,
            [Complex::new(1.0, 2.0), Complex::new(3.0, 4.0)],
        );
        let particle = |x| Particle { x, y: [0.5, -0.0] };
        moves(table, pool, [particle(1.0), particle(-1.0)]);
    });
}

/// Returns an array of this shape, in C or in Fortran order. Its elements count up from `start`.
fn counted<D: Dimension>(shape: impl ShapeBuilder<Dim = D>, start: u32) -> Array<u32, D> {
    let mut array = Array::zeros(shape);
    let mut next = start..;
    array.map_inplace(|x| *x = next.next().unwrap());
    array
}

pub fn copy_and_swap_keep_indices_in_any_order_of_memory() {
    with_pools(|table, pool| {
        for shape in [vec![], vec![0, 3], vec![1], vec![300, 70], vec![5, 1, 9000]] {
            for (is_f, is_other_f) in [(false, false), (false, true), (true, false), (true, true)] {
                let in_order = |is_f: bool, start| counted(IxDyn(&shape).set_f(is_f), start);
                let (a, b) = (in_order(is_f, 1), in_order(is_other_f, 1_000_000));
                let x = table.owned(table.from_array(&a).unwrap());
                let y = table.owned(table.from_array(&b).unwrap());
                pool.swap(x.handle(), y.handle()).unwrap();
                assert_eq!(table.read(x.handle()).unwrap().view(), b, "{shape:?}");
                assert_eq!(table.read(y.handle()).unwrap().view(), a, "{shape:?}");
                pool.copy(x.handle(), y.handle()).unwrap();
                assert_eq!(table.read(x.handle()).unwrap().view(), b, "{shape:?}");
                assert_eq!(table.read(y.handle()).unwrap().view(), b, "{shape:?}");
            }
        }
    });
}

pub fn an_array_may_be_copied_to_itself_and_swapped_with_itself() {
    with_pools(|table, pool| {
        let x = table
            .from_shape_fn((20, 30), |(i, j)| (i * 30 + j) as u64)
            .unwrap();
        pool.copy(x, x).unwrap();
        pool.swap(x, x).unwrap();
        let x = table.read(x).unwrap();
        assert!(x.iter().enumerate().all(|(at, &x)| x == at as u64));
    });
}

pub fn shapes_that_differ_are_errors() {
    let table = table();
    let mut pool = Pool::fork(&table, 1).unwrap();
    let x = table.from_elem((4, 6), 1.0).unwrap();
    let y = table.from_elem((6, 4), 2.0).unwrap();
    for error in [pool.copy(x, y).unwrap_err(), pool.swap(y, x).unwrap_err()] {
        let message = error.to_string();
        for part in [&y.to_string(), "[6, 4]", &x.to_string(), "[4, 6]", "equal"] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert_eq!(table.read(x).unwrap().sum(), 24.0);
    table.free(y).unwrap();
    let error = pool.copy(x, y).unwrap_err();
    assert!(error.to_string().contains("stale"), "{error}");
}

pub fn an_array_in_use_is_an_error() {
    let table = table();
    let mut pool = Pool::fork(&table, 1).unwrap();
    let x = table.from_elem(100, 1.0).unwrap();
    let guard = table.read(x).unwrap();
    let error = pool.fill(x, 2.0).unwrap_err();
    assert!(
        matches!(
            error,
            PrimitiveError::Pool(PoolError::Round(RoundError::Lease(_)))
        ),
        "{error}"
    );
    assert_eq!(guard[0], 1.0);
    assert_eq!(pool.sum(x).unwrap(), 100.0, "reading is no conflict");
    drop(guard);
    pool.fill(x, 2.0).unwrap();
    let error: ndshm::Error = pool
        .min(table.zeros::<u8, _>(0).unwrap())
        .unwrap_err()
        .into();
    assert!(error.to_string().contains("0 elements"), "{error}");
}

/// Gathers, and compares with the definition.
#[track_caller]
fn check_gather<D: RemoveAxis + 'static>(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    src: &Array<u32, D>,
    index: &[u32],
    dst: Array<u32, D>,
) {
    let mut expected = dst.clone();
    Zip::from(expected.outer_iter_mut())
        .and(index)
        .for_each(|mut row, &at| row.assign(&src.index_axis(ndarray::Axis(0), at as usize)));
    let source = table.owned(table.from_array(src).unwrap());
    let to = table.owned(table.from_array(&dst).unwrap());
    let narrow = table.owned(table.from_array(&Array1::from(index.to_vec())).unwrap());
    let wide: Array1<u64> = index.iter().map(|&at| at.into()).collect();
    let wide = table.owned(table.from_array(&wide).unwrap());
    pool.gather(source.handle(), narrow.handle(), to.handle())
        .unwrap();
    assert_eq!(table.read(to.handle()).unwrap().view(), expected);
    pool.fill(to.handle(), 0).unwrap();
    pool.gather(source.handle(), wide.handle(), to.handle())
        .unwrap();
    assert_eq!(table.read(to.handle()).unwrap().view(), expected);
}

pub fn a_gather_takes_rows_in_any_order_of_memory() {
    let cases = (
        1usize..400,
        0usize..20_000,
        0usize..6,
        any::<[bool; 2]>(),
        any::<u64>(),
    );
    with_pools(|table, pool| {
        let pool = std::cell::RefCell::new(pool);
        props::check(12, cases.clone(), |(from, to, width, order, seed)| {
            let mut numbers = props::Numbers::from_seed(seed);
            let index: Vec<u32> = (0..to).map(|_| numbers.below(from) as u32).collect();
            let pool = &mut **pool.borrow_mut();
            let line = counted(from, 1);
            check_gather(table, pool, &line, &index, Array1::zeros(to));
            let source: Array2<u32> = counted((from, width).set_f(order[0]), 1);
            let dst = Array2::zeros((to, width).set_f(order[1]));
            check_gather(table, pool, &source, &index, dst);
            let source: Array3<u32> = counted((from, 2, width).set_f(order[0]), 1);
            let dst = Array3::zeros((to, 2, width).set_f(order[1]));
            check_gather(table, pool, &source, &index, dst);
        });
        let pool = pool.into_inner();
        check_gather(table, pool, &counted(0, 1), &[], Array1::zeros(0));
        let index = vec![2, 0, 1, 1];
        let source: ArrayD<u32> = counted(IxDyn(&[3, 2]), 1);
        check_gather(table, pool, &source, &index, ArrayD::zeros(IxDyn(&[4, 2])));
    });
}

pub fn an_index_out_of_range_is_an_error_and_the_others_are_gathered() {
    with_pools(|table, pool| {
        for width in [1, 3, 5, 11] {
            for (is_f, is_dst_f) in [(false, false), (true, false), (true, true)] {
                let src = table
                    .from_shape_fn((10, width).set_f(is_f), |(i, _)| i as f64)
                    .unwrap();
                let shape = (30_000, width).set_f(is_dst_f);
                let dst = table.from_elem(shape, -1.0).unwrap();
                let bad = [(29_999, u64::MAX), (12_345, 10), (20_000, 1 << 63)];
                let mut index: Array1<u64> = (0..30_000).map(|at| at % 10).collect();
                for (at, value) in bad {
                    index[at] = value;
                }
                let index = table.from_array(&index).unwrap();
                match pool.gather(src, index, dst).unwrap_err() {
                    PrimitiveError::Index {
                        handle,
                        position,
                        index: value,
                        source_array,
                        length,
                    } => {
                        assert_eq!((position, value, length), (12_345, 10, 10));
                        assert_eq!((handle, source_array), (index.into(), src.into()));
                    }
                    other => panic!("{other}"),
                }
                let rows = table.read(dst).unwrap();
                for (at, row) in rows.outer_iter().enumerate() {
                    let is_bad = bad.iter().any(|&(position, _)| position == at);
                    let expected = if is_bad { -1.0 } else { (at % 10) as f64 };
                    assert!(row.iter().all(|&x| x == expected), "{at} {row}");
                }
            }
        }
        let empty = table.zeros::<f64, _>(0).unwrap();
        let index = table.zeros::<u32, _>(3).unwrap();
        let error = pool.gather(empty, index, table.zeros(3).unwrap());
        let message = error.unwrap_err().to_string();
        assert!(message.contains("index 0 at position 0"), "{message}");
    });
}

pub fn a_gather_refuses_aliases_and_other_shapes() {
    let table = table();
    let mut pool = Pool::fork(&table, 1).unwrap();
    let x = table.zeros::<u64, _>(10).unwrap();
    let y = table.zeros::<u64, _>(10).unwrap();
    let wide = table.zeros::<u64, _>((10, 2)).unwrap();
    let wider = table.zeros::<u64, _>((10, 3)).unwrap();
    let short = table.zeros::<u64, _>(9).unwrap();
    for (src, index) in [(x, y), (y, x), (x, x)] {
        let error = pool.gather(src, index, x).unwrap_err();
        assert!(matches!(
            error,
            PrimitiveError::Aliased { operation: "gather", handle } if handle == x.into()
        ));
    }
    pool.gather(x, x, y).unwrap();
    for error in [
        pool.gather(wide, x, wider).unwrap_err(),
        pool.gather(x, short, y).unwrap_err(),
    ] {
        assert!(matches!(error, PrimitiveError::Shapes { .. }), "{error}");
    }
    let point: Handle<u64, _> = table.from_array(&arr0(1)).unwrap();
    let other = table.from_array(&arr0(2)).unwrap();
    let error = pool.gather(point, x, other).unwrap_err();
    assert!(matches!(error, PrimitiveError::Partition(_)), "{error}");
}
