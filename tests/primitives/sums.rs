//! Prefix sums and reductions.

use ndarray::{Array1, ArrayView1, Ix1, ShapeBuilder, arr0};
use ndshm::error::PrimitiveError;
use ndshm::primitives::Number;
use ndshm::{Handle, HandleTable, Owned, Pool};

use super::{LENGTHS, numbers, reference, table, with_pools};

fn array<'t, T: Number>(table: &'t HandleTable, values: &[T]) -> Owned<'t, T, Ix1> {
    table.owned(table.from_array(&ArrayView1::from(values)).unwrap())
}

fn values<T: Number>(table: &HandleTable, handle: Handle<T, Ix1>) -> Vec<T> {
    table.read(handle).unwrap().to_vec()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Returns the inclusive and the exclusive prefix sums, each computed into another array and in
/// place.
fn prefix_sums<T: Number + std::fmt::Debug>(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    x: &[T],
) -> [Vec<T>; 2] {
    let src = array(table, x);
    [true, false].map(|inclusive| {
        let dst = array(table, x);
        let (src, dst) = (src.handle(), dst.handle());
        let prefix_sum = match inclusive {
            true => Pool::prefix_sum,
            false => Pool::prefix_sum_exclusive,
        };
        prefix_sum(pool, dst, dst).unwrap();
        let in_place = values(table, dst);
        pool.copy(src, dst).unwrap();
        prefix_sum(pool, src, dst).unwrap();
        assert_eq!(values(table, dst), in_place);
        assert_eq!(values(table, src), x);
        in_place
    })
}

pub fn prefix_sums_of_floats_equal_the_reference() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate() {
            let x = numbers(seed as u64, length);
            let expected = reference::running_sums(&x);
            let [inclusive, exclusive] = prefix_sums(table, pool, &x);
            assert_eq!(bits(&inclusive), bits(&expected));
            let mut shifted = vec![0.0];
            shifted.extend(&expected);
            assert_eq!(bits(&exclusive), bits(&shifted[..length]));
            let sum = pool.sum(array(table, &x).handle()).unwrap();
            assert_eq!(sum.to_bits(), shifted[length].to_bits());
            for part in [length / 3, length / 2, length.saturating_sub(3)] {
                let sum = pool.sum(array(table, &x[..part]).handle()).unwrap();
                assert_eq!(sum.to_bits(), shifted[part].to_bits());
            }

            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let widened: Vec<f64> = narrow.iter().map(|&x| x.into()).collect();
            let expected: Vec<f32> = reference::running_sums(&widened)
                .iter()
                .map(|&x| x as f32)
                .collect();
            assert_eq!(prefix_sums(table, pool, &narrow)[0], expected);

            // Numbers of very different sizes: a sum that is off by one step would decrease.
            let positive: Vec<f64> = x.iter().map(|x| (40.0 * x).exp()).collect();
            let [inclusive, _] = prefix_sums(table, pool, &positive);
            assert!(inclusive.is_sorted());
        }
    });
}

pub fn sums_of_many_tiles_equal_the_reference() {
    with_pools(|table, pool| {
        // With 3 workers these are not enough tiles to be summed by more than one a claim.
        let x = numbers(7, 130 * reference::TILE + 1);
        let sum = pool.sum(array(table, &x).handle()).unwrap();
        assert_eq!(sum.to_bits(), reference::sum(&x).to_bits());
        let ones = table.owned(table.from_elem(x.len(), -1i8).unwrap());
        assert_eq!(pool.sum(ones.handle()).unwrap(), -(x.len() as i64));
    });
}

pub fn prefix_sums_of_integers_are_exact() {
    fn check<T: Number + std::fmt::Debug + TryFrom<i128>>(
        table: &HandleTable,
        pool: &mut Pool<'_>,
        x: &[i128],
    ) {
        let narrow = |x: &[i128]| -> Vec<T> {
            let element = |&x| T::try_from(x).ok().unwrap();
            x.iter().map(element).collect()
        };
        let mut sums = vec![0];
        sums.extend(x.iter().scan(0, |sum, x| {
            *sum += x;
            Some(*sum)
        }));
        let [inclusive, exclusive] = prefix_sums(table, pool, &narrow(x));
        assert_eq!(inclusive, narrow(&sums[1..]));
        assert_eq!(exclusive, narrow(&sums[..x.len()]));
    }
    with_pools(|table, pool| {
        for length in LENGTHS {
            let ones: Vec<i128> = (0..length).map(|at| i128::from(at % 300 == 0)).collect();
            check::<u8>(table, pool, &ones);
            check::<i8>(table, pool, &ones);
            let waves: Vec<i128> = (0..length).map(|at| (at % 3) as i128 - 1).collect();
            check::<i8>(table, pool, &waves);
            check::<i16>(table, pool, &waves);
            let large: Vec<i128> = (0..length)
                .map(|at| [1 << 30, -(1 << 30)][at % 2])
                .collect();
            check::<i32>(table, pool, &large);
            let largest = i128::from(u64::MAX) / 30_001;
            check::<u64>(table, pool, &vec![largest; length]);
            check::<u32>(table, pool, &vec![143_160; length.min(30_000)]);
            check::<i64>(table, pool, &vec![-(largest / 2); length]);
        }
        check::<i64>(table, pool, &[i64::MIN.into(), i64::MAX.into(), 1]);
    });
}

pub fn a_prefix_sum_that_overflows_names_the_position_and_writes_nothing() {
    #[track_caller]
    fn overflows<T: Number + std::fmt::Debug>(x: &[T], at: usize) {
        let table = table();
        let mut pool = Pool::fork(&table, 2).unwrap();
        let (src, dst) = (array(&table, x), array(&table, x));
        for dst in [src.handle(), dst.handle()] {
            match pool.prefix_sum(src.handle(), dst).unwrap_err() {
                PrimitiveError::Overflow {
                    operation: "prefix_sum",
                    handle,
                    position: Some(position),
                    dtype,
                } => {
                    assert_eq!((handle, position), (src.handle().into(), at));
                    assert_eq!(dtype, std::any::type_name::<T>());
                }
                other => panic!("{other}"),
            }
            assert_eq!(values(&table, dst), x);
        }
    }
    overflows(&[200u8, 55, 1, 0], 2);
    let mut ones = vec![0u16; 20_000];
    ones[5] = u16::MAX;
    ones[12_345] = 1;
    overflows(&ones, 12_345);
    overflows(&[i64::MAX, 1, -1], 1);
    overflows(&[-100i8, -28, 127, -127, -1], 4);
    let mut back_again = vec![0i32; 10_000];
    (back_again[0], back_again[4031]) = (i32::MIN, -1);
    back_again[4032] = 1;
    overflows(&back_again, 4031);
    overflows(&[u64::MAX, 1], 1);
}

pub fn sums_of_integers_are_exact_or_an_error() {
    with_pools(|table, pool| {
        for length in LENGTHS {
            let x = vec![u32::MAX; length];
            let sum = pool.sum(array(table, &x).handle()).unwrap();
            assert_eq!(sum, u64::from(u32::MAX) * length as u64);
            let x: Vec<i8> = (0..length).map(|at| -((at % 128) as i8)).collect();
            let sum = pool.sum(array(table, &x).handle()).unwrap();
            assert_eq!(sum, x.iter().map(|&x| i64::from(x)).sum::<i64>());
        }
        let dips = [i64::MAX, i64::MAX, -i64::MAX, 7, -i64::MAX];
        assert_eq!(pool.sum(array(table, &dips).handle()).unwrap(), 7);
        let x = array(table, &[u64::MAX, 1]);
        let error = pool.sum(x.handle()).unwrap_err().to_string();
        assert!(error.contains(&x.handle().to_string()), "{error}");
        assert!(error.contains("does not fit into u64"), "{error}");
    });
}

pub fn sums_do_not_depend_on_the_shape() {
    with_pools(|table, pool| {
        let x = numbers(1, 30_000);
        let flat = array(table, &x);
        let line = ArrayView1::from(&x);
        let in_c = line.to_shape((3, 100, 100)).unwrap();
        let in_f = line.to_shape(((30, 1000), ndarray::Order::F)).unwrap();
        let cube = table.owned(table.from_array(&in_c).unwrap());
        let columns = table.owned(table.zeros((30, 1000).f()).unwrap());
        table.write(columns.handle()).unwrap().assign(&in_f);
        let point = table.owned(table.from_array(&arr0(-2.5)).unwrap());
        let sum = reference::sum(&x);
        assert_eq!(pool.sum(flat.handle()).unwrap().to_bits(), sum.to_bits());
        assert_eq!(pool.sum(cube.handle()).unwrap().to_bits(), sum.to_bits());
        assert_eq!(pool.sum(columns.handle()).unwrap().to_bits(), sum.to_bits());
        assert_eq!(pool.sum(point.handle()).unwrap(), -2.5);
        assert_eq!(pool.min_max(point.handle()).unwrap(), (-2.5, -2.5));
        let none = table.owned(table.zeros::<f32, _>((0, 5)).unwrap());
        assert_eq!(pool.sum(none.handle()).unwrap(), 0.0);
        let exact: f64 = x.iter().sum();
        assert!((sum - exact).abs() < 1e-10, "{sum} {exact}");
    });
}

pub fn minimum_and_maximum_propagate_nan() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate().skip(1) {
            let mut x = numbers(seed as u64, length);
            // Put the extremes at each kind of place: first, last, inside a tile.
            for (low, high) in [(0, length - 1), (length - 1, 0), (length / 2, length / 3)] {
                let kept = x.clone();
                (x[high], x[low]) = (2.0, -3.0);
                let handle = array(table, &x);
                let expected = (-3.0, if low == high { -3.0 } else { 2.0 });
                if length > 1 {
                    assert_eq!(pool.min_max(handle.handle()).unwrap(), expected);
                }
                assert_eq!(pool.min(handle.handle()).unwrap(), -3.0);
                x[high] = f64::NAN;
                let handle = array(table, &x);
                assert!(pool.min(handle.handle()).unwrap().is_nan());
                assert!(pool.max(handle.handle()).unwrap().is_nan());
                x = kept;
            }
            let least = x.iter().copied().fold(f64::INFINITY, f64::min);
            assert_eq!(pool.min(array(table, &x).handle()).unwrap(), least);
            let whole: Vec<i64> = x.iter().map(|x| (x * 1e18) as i64).collect();
            let expected = (*whole.iter().min().unwrap(), *whole.iter().max().unwrap());
            let handle = array(table, &whole);
            assert_eq!(pool.min_max(handle.handle()).unwrap(), expected);
        }
        let all = array(table, &[f32::INFINITY, f32::NEG_INFINITY, 0.0]);
        let expected = (f32::NEG_INFINITY, f32::INFINITY);
        assert_eq!(pool.min_max(all.handle()).unwrap(), expected);
    });
}

pub fn means_and_variances_equal_the_reference() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate().skip(1) {
            // With the large mean, the rounding of the tiles' means becomes visible.
            let offset = [0.0, 1e9][seed % 2];
            let x: Vec<f64> = numbers(seed as u64, length)
                .iter()
                .map(|x| x + offset)
                .collect();
            let handle = array(table, &x);
            let n = length as f64;
            let mean = pool.mean(handle.handle()).unwrap();
            assert_eq!(mean.to_bits(), (reference::sum(&x) / n).to_bits());
            let squares = reference::squared_deviations(&x);
            for ddof in 0..length.min(3) {
                let variance = pool.variance(handle.handle(), ddof).unwrap();
                assert_eq!(variance.to_bits(), (squares / (n - ddof as f64)).to_bits());
            }
            let plain = Array1::from(numbers(seed as u64, length)).var(0.0);
            assert!((squares / n - plain).abs() < 1e-6, "{squares} {plain}");
        }
        let x = array(table, &[1u8, 2, 3, 255]);
        assert_eq!(pool.mean(x.handle()).unwrap(), 65.25);
        assert_eq!(pool.variance(x.handle(), 1).unwrap(), 48_008.75 / 3.0);
        let x = array(table, &[1.0, f64::NAN]);
        assert!(pool.variance(x.handle(), 0).unwrap().is_nan());
        assert!(pool.mean(x.handle()).unwrap().is_nan());
    });
}

pub fn a_large_mean_costs_no_digits() {
    let table = table();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let x: Vec<f64> = (0..100_000).map(|at| 1e9 + (at % 2) as f64).collect();
    let variance = pool.variance(array(&table, &x).handle(), 0).unwrap();
    assert!((variance - 0.25).abs() < 1e-12, "{variance}");
}

pub fn too_few_elements_are_an_error() {
    let table = table();
    let mut pool = Pool::fork(&table, 1).unwrap();
    let none = table.zeros::<f64, _>((3, 0)).unwrap();
    let two = table.zeros::<i32, _>(2).unwrap();
    let errors = [
        (pool.min(none).map(|_| ()), "min", 0, 1),
        (pool.max(none).map(|_| ()), "max", 0, 1),
        (pool.min_max(none).map(|_| ()), "min_max", 0, 1),
        (pool.mean(none).map(|_| ()), "mean", 0, 1),
        (pool.variance(none, 0).map(|_| ()), "variance", 0, 1),
        (pool.variance(two, 2).map(|_| ()), "variance", 2, 3),
    ];
    for (outcome, name, has, fewest) in errors {
        match outcome.unwrap_err() {
            PrimitiveError::TooFew {
                operation,
                elements,
                needed,
                ..
            } => assert_eq!((operation, elements, needed), (name, has, fewest)),
            other => panic!("{other}"),
        }
    }
    assert_eq!(pool.variance(two, 1).unwrap(), 0.0);
}
