//! Log-weights and resampling. Calls leave no memory behind.

use ndarray::{ArrayView1, Ix1};
use ndshm::error::PrimitiveError;
use ndshm::primitives::{Real, SystematicPlan};
use ndshm::{HandleTable, Owned, Pool, Segment};
use proptest::prelude::*;

use super::{LENGTHS, numbers, props, reference, table, with_pools};

const INF: f64 = f64::INFINITY;

fn array<'t, T: Real>(table: &'t HandleTable, values: &[T]) -> Owned<'t, T, Ix1> {
    table.owned(table.from_array(&ArrayView1::from(values)).unwrap())
}

/// Returns weights of which some are 0, also at both ends.
fn weights(seed: u64, count: usize) -> Vec<f64> {
    let rounded = |x: f64| if x < -0.5 { 0.0 } else { (10.0 * x).exp() };
    let mut weights: Vec<f64> = numbers(seed, count).into_iter().map(rounded).collect();
    if count > 2 {
        (weights[0], weights[count / 2], weights[count - 1]) = (0.0, 1.0, 0.0);
    } else {
        weights.fill(0.25);
    }
    weights
}

pub fn log_sum_exp_equals_the_reference() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate().skip(1) {
            for scale in [1.0, 5000.0] {
                let x: Vec<f64> = numbers(seed as u64, length)
                    .iter()
                    .map(|x| scale * x - 1e4)
                    .collect();
                let found = pool.log_sum_exp(array(table, &x).handle()).unwrap();
                let expected = reference::log_sum_exp(&x);
                assert_eq!(found.to_bits(), expected.to_bits());
            }
            let x = numbers(seed as u64, length);
            let plain = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let found = pool.log_sum_exp(array(table, &x).handle()).unwrap();
            assert!((found - plain).abs() < 1e-12, "{found} {plain}");
            let found = pool.log_sum_exp(array(table, &narrow).handle()).unwrap();
            assert!((found - plain).abs() < 1e-6, "{found} {plain}");
        }
    });
}

pub fn log_sum_exp_of_infinities_and_nan() {
    with_pools(|table, pool| {
        for length in LENGTHS {
            let mut log_sum_exp = |ends: [f64; 2]| {
                let mut x = vec![-INF; length];
                if let [first, .., last] = &mut x[..] {
                    (*first, *last) = (ends[0], ends[1]);
                }
                pool.log_sum_exp(array(table, &x).handle()).unwrap()
            };
            assert_eq!(log_sum_exp([-INF, -INF]), -INF);
            if length > 1 {
                assert_eq!(log_sum_exp([INF, 0.0]), INF);
                assert_eq!(log_sum_exp([-INF, 3.5]), 3.5);
                assert!(log_sum_exp([f64::NAN, 0.0]).is_nan());
                assert!(log_sum_exp([INF, f64::NAN]).is_nan());
                assert!(log_sum_exp([f64::NAN, INF]).is_nan());
            }
        }
        let far = array(table, &[-1e308, 1e308]);
        assert_eq!(pool.log_sum_exp(far.handle()).unwrap(), 1e308);
    });
}

pub fn log_weights_are_normalized() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate().skip(1) {
            let mut logs: Vec<f64> = numbers(seed as u64, length)
                .iter()
                .map(|x| 30.0 * x - 1e5)
                .collect();
            if length > 1 {
                logs[length - 1] = -INF;
            }
            let (src, dst) = (array(table, &logs), array(table, &logs));
            let (src, dst) = (src.handle(), dst.handle());
            let log_sum = pool.normalize_log_weights(src, dst).unwrap();
            assert_eq!(*table.read(src).unwrap(), ArrayView1::from(&logs));

            let greatest = logs.iter().copied().fold(-INF, f64::max);
            let exps: Vec<f64> = logs.iter().map(|x| (x - greatest).exp()).collect();
            let sum = reference::sum(&exps);
            assert_eq!(log_sum.to_bits(), (greatest + sum.ln()).to_bits());
            let found = table.read(dst).unwrap().to_vec();
            assert!(exps.iter().zip(&found).all(|(exp, w)| exp / sum == *w));
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);

            assert_eq!(pool.normalize_log_weights(src, src).unwrap(), log_sum);
            assert_eq!(table.read(src).unwrap().to_vec(), found);
            let narrow: Vec<f32> = logs.iter().map(|x| (x + 1e5) as f32).collect();
            let narrow = array(table, &narrow);
            pool.normalize_log_weights(narrow.handle(), narrow.handle())
                .unwrap();
            assert!((pool.sum(narrow.handle()).unwrap() - 1.0).abs() < 1e-5);
        }
    });
}

pub fn invalid_log_weights_are_errors() {
    let table = table();
    let mut pool = Pool::fork(&table, 2).unwrap();
    for bad in [f64::NAN, INF] {
        let mut logs = vec![0.0; 10_000];
        (logs[7_000], logs[9_000]) = (bad, f64::NAN);
        let logs = array(&table, &logs);
        let outcome = pool.normalize_log_weights(logs.handle(), logs.handle());
        match outcome.unwrap_err() {
            PrimitiveError::LogWeight {
                position,
                log_weight,
                ..
            } => {
                assert_eq!(position, 7_000);
                assert_eq!(log_weight.to_bits(), bad.to_bits());
            }
            other => panic!("{other}"),
        }
        assert_eq!(table.read(logs.handle()).unwrap()[0], 0.0);
    }
    let nothing = array(&table, &[-INF; 5]);
    let outcome = pool.normalize_log_weights(nothing.handle(), nothing.handle());
    assert!(matches!(
        outcome.unwrap_err(),
        PrimitiveError::NoWeight { .. }
    ));
    let (none, one) = (array::<f64>(&table, &[]), array(&table, &[0.0]));
    let outcome = pool.normalize_log_weights(none.handle(), none.handle());
    assert!(matches!(outcome, Err(PrimitiveError::TooFew { .. })));
    let outcome = pool.normalize_log_weights(one.handle(), none.handle());
    assert!(matches!(outcome, Err(PrimitiveError::Shapes { .. })));
}

pub fn the_effective_sample_size_does_not_depend_on_the_scale() {
    with_pools(|table, pool| {
        for (seed, length) in LENGTHS.into_iter().enumerate().skip(1) {
            let w = weights(seed as u64, length);
            let sum = reference::sum(&w);
            let shares: Vec<f64> = w.iter().map(|w| (w / sum) * (w / sum)).collect();
            let expected = 1.0 / reference::sum(&shares);
            let found = pool.effective_sample_size(array(table, &w).handle());
            let expected = expected.clamp(1.0, length as f64);
            assert_eq!(found.unwrap().to_bits(), expected.to_bits());
            for scale in [2f64.powi(-600), 2f64.powi(900)] {
                let scaled: Vec<f64> = w.iter().map(|w| w * scale).collect();
                let found = pool.effective_sample_size(array(table, &scaled).handle());
                assert_eq!(found.unwrap().to_bits(), expected.to_bits());
            }
            let even = array(table, &vec![3f32; length]);
            let found = pool.effective_sample_size(even.handle()).unwrap();
            assert!((found / length as f64 - 1.0).abs() < 1e-9, "{found}");
            assert!(found <= length as f64, "{found} of {length}");
        }
    });
}

fn systematic(table: &HandleTable, pool: &mut Pool<'_>, w: &[f64], u: f64, n: usize) -> Vec<u64> {
    let (w, ancestors) = (array(table, w), table.owned(table.zeros(n).unwrap()));
    pool.resample_systematic(w.handle(), u, ancestors.handle())
        .unwrap();
    table.read(ancestors.handle()).unwrap().to_vec()
}

/// Returns weights that are spread, at a few distant particles, or at the ends.
fn weights_of_kind(kind: u8, seed: u64, count: usize) -> Vec<f64> {
    match kind {
        0 => weights(seed, count),
        1 => {
            let mut sparse = vec![0.0; count];
            let mut numbers = props::Numbers::from_seed(seed);
            for _ in 0..3 {
                sparse[numbers.below(count)] = 1.0;
            }
            sparse
        }
        _ => {
            let mut ends = vec![1e-300; count];
            (ends[0], ends[count - 1]) = (1.0, 3.0);
            ends
        }
    }
}

pub fn systematic_resampling_equals_the_reference() {
    let below_one = 1f64.next_down();
    let offsets = prop_oneof![Just(0.0), Just(below_one), 0.0..1.0];
    let cases = (
        1usize..12_000,
        0usize..10_000,
        offsets,
        0u8..3,
        any::<u64>(),
    );
    with_pools(|table, pool| {
        let pool = std::cell::RefCell::new(pool);
        props::check(12, cases.clone(), |(count, offspring, u, kind, seed)| {
            let w = weights_of_kind(kind, seed, count);
            let found = systematic(table, *pool.borrow_mut(), &w, u, offspring);
            assert!(found == reference::systematic(&w, u, offspring));
        });
    });
}

/// Expands a plan in parts: each process has the weights of some tiles, and expands a part of the
/// offspring at a time.
fn expand_in_parts(plan: &SystematicPlan, w: &[f64], seed: u64) -> Vec<u64> {
    let mut numbers = props::Numbers::from_seed(seed);
    let mut ancestors = vec![u64::MAX; plan.offspring()];
    let mut first_tile = 0;
    while first_tile < plan.tiles() {
        let end_tile = (first_tile + 1 + numbers.below(3)).min(plan.tiles());
        let own = first_tile * SystematicPlan::TILE..(end_tile * SystematicPlan::TILE).min(w.len());
        let offspring = plan.of_tiles(first_tile..end_tile);
        let mut from = offspring.start;
        while from < offspring.end {
            let upto = (from + 1 + numbers.below(5000)).min(offspring.end);
            let tiles = plan.tiles_of(from..upto);
            assert!(
                first_tile <= tiles.start && tiles.end <= end_tile,
                "{tiles:?}"
            );
            plan.expand(
                from..upto,
                first_tile,
                &w[own.clone()],
                &mut ancestors[from..upto],
            )
            .unwrap();
            from = upto;
        }
        first_tile = end_tile;
    }
    ancestors
}

pub fn a_systematic_plan_has_the_ancestors_of_the_pool() {
    let cases = (
        1usize..30_000,
        0usize..20_000,
        0.0..1.0,
        0u8..4,
        any::<u64>(),
    );
    with_pools(|table, pool| {
        let pool = std::cell::RefCell::new(pool);
        props::check(12, cases.clone(), |(count, offspring, u, kind, seed)| {
            let mut pool = pool.borrow_mut();
            let mut w = weights_of_kind(kind.min(2), seed, count);
            if kind == 3 {
                // Too small to divide by: the pool scales such weights.
                w.iter_mut().for_each(|w| *w *= 1e-310);
            }
            let expected = systematic(table, &mut pool, &w, u, offspring);
            let array = array(table, &w);
            let plan = pool.systematic_plan(array.handle(), u, offspring).unwrap();
            let most = pool.systematic_plan(array.handle(), u, usize::MAX);
            assert!(most.unwrap_err().to_string().contains("too many"));
            assert_eq!(plan.first().len(), count.div_ceil(SystematicPlan::TILE) + 1);
            assert!(expand_in_parts(&plan, &w, seed) == expected);
            for (tile, first) in plan.first().windows(2).enumerate() {
                for &ancestor in &expected[first[0]..first[1]] {
                    assert_eq!(ancestor as usize / SystematicPlan::TILE, tile);
                }
            }
            if kind < 3 {
                let sums = SystematicPlan::sums(&w);
                assert_eq!(SystematicPlan::new(&sums, u, offspring).unwrap(), plan);
            }
        });
    });
}

pub fn plans_refuse_what_does_not_fit() {
    let w = vec![1.0; 10_000];
    let mut sums = SystematicPlan::sums(&w);
    let plan = SystematicPlan::new(&sums, 0.5, 100).unwrap();
    let backwards = |from: usize| from..from - 1;
    let text = |found: Result<(), PrimitiveError>| found.unwrap_err().to_string();
    let mut places = [0; 200];
    let text_of = text(plan.expand(50..101, 0, &w, &mut places[..51]));
    assert!(text_of.contains("its 100 offspring"), "{text_of}");
    let text_of = text(plan.expand(backwards(50), 0, &w, &mut []));
    assert!(text_of.contains("50..49"), "{text_of}");
    let text_of = text(plan.expand(50..60, 0, &w, &mut places[..11]));
    assert!(text_of.contains("10 offspring"), "{text_of}");
    // The second tile has offspring 40 to 80.
    for (first_tile, weights) in [
        (2, &w[..]),
        (0, &w[..4000]),
        (0, &w[..SystematicPlan::TILE]),
    ] {
        let text_of = text(plan.expand(50..60, first_tile, weights, &mut places[..10]));
        assert!(text_of.contains("tile 1 is missing"), "{text_of}");
    }
    let mut other = w.clone();
    other[5000] = 2.0;
    let text_of = text(plan.expand(50..60, 0, &other, &mut places[..10]));
    assert!(text_of.contains("end of tile 1 sum to 8065.0"), "{text_of}");
    plan.expand(0..10, 0, &other, &mut places[..10]).unwrap();
    for (tiles, offspring) in [
        (3..9, 100..100),
        (backwards(2), 81..81),
        (0..usize::MAX, 0..100),
    ] {
        assert_eq!(plan.of_tiles(tiles), offspring);
    }
    assert_eq!(plan.tiles_of(7..7), 0..0);
    assert_eq!(plan.tiles_of(39..300), 0..3);

    let made = |sums: &[f64], u, offspring| SystematicPlan::new(sums, u, offspring).map(drop);
    assert!(text(made(&sums, 1.0, 5)).contains("offset u is 1.0"));
    assert!(text(made(&sums, 0.0, 1 << 51)).contains("too many"));
    for total in [&[][..], &[0.0], &[f64::MAX, f64::MAX], &[1e-300]] {
        assert!(text(made(total, 0.0, 5)).contains("sum of all weights"));
    }
    for sum in [-1.0, f64::NAN] {
        sums[1] = sum;
        assert!(text(made(&sums, 0.0, 5)).contains("sum of tile 1"));
    }
    let invalid = SystematicPlan::sums(&[1.0, -1.0]);
    assert!(invalid[0].is_nan());
}

pub fn systematic_offspring_are_the_share_rounded_up_or_down() {
    let table = table();
    let mut pool = Pool::fork(&table, 2).unwrap();
    for (count, n) in [(20_000, 50_000), (50_000, 20_000), (30_000, 30_000)] {
        let w = weights(count as u64, count);
        let total: f64 = w.iter().sum();
        for u in [0.0, 0.3, 0.999] {
            let mut offspring = vec![0.0; count];
            for ancestor in systematic(&table, &mut pool, &w, u, n) {
                offspring[ancestor as usize] += 1.0;
            }
            for (w, offspring) in w.iter().zip(offspring) {
                let share = n as f64 * w / total;
                assert!(
                    (offspring - share).abs() < 1.0 + 1e-6,
                    "{offspring} {share}"
                );
                assert!(*w > 0.0 || offspring == 0.0);
            }
        }
    }
    // The first and the last particle with weight take the ends of the grid.
    let w = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
    let below_one = 1f64.next_down();
    assert_eq!(systematic(&table, &mut pool, &w, 0.0, 2), [2, 4]);
    assert_eq!(systematic(&table, &mut pool, &w, below_one, 1), [4]);
    assert_eq!(systematic(&table, &mut pool, &w, below_one, 2), [2, 4]);
    assert_eq!(systematic(&table, &mut pool, &[1e-291], 0.5, 3), [0; 3]);
    assert_eq!(
        systematic(&table, &mut pool, &[1e307; 4], 0.0, 4),
        [0, 1, 2, 3]
    );
    // With equal weights each particle has exactly its share, also where positions meet sums.
    let equal = systematic(&table, &mut pool, &[1.0; 10_000], 0.0, 20_000);
    assert!(
        equal
            .iter()
            .enumerate()
            .all(|(j, &ancestor)| ancestor == j as u64 / 2)
    );
}

fn multinomial(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    w: &[f64],
    [seed, stream]: [u64; 2],
    n: usize,
) -> Vec<u64> {
    let (w, ancestors) = (array(table, w), table.owned(table.zeros(n).unwrap()));
    pool.resample_multinomial(w.handle(), seed, stream, ancestors.handle())
        .unwrap();
    table.read(ancestors.handle()).unwrap().to_vec()
}

pub fn multinomial_resampling_equals_the_reference() {
    let cases = (1usize..12_000, 0usize..10_000, 0u8..3, any::<[u64; 2]>());
    with_pools(|table, pool| {
        let pool = std::cell::RefCell::new(pool);
        props::check(12, cases.clone(), |(count, offspring, kind, names)| {
            let w = weights_of_kind(kind, names[0], count);
            let found = multinomial(table, *pool.borrow_mut(), &w, names, offspring);
            let [seed, stream] = names;
            assert!(found == reference::multinomial(&w, seed, stream, offspring));
        });
    });
}

pub fn multinomial_offspring_follow_the_weights() {
    let table = table();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let w = [1.0, 0.0, 2.0, 3.0, 4.0, 0.0];
    let n = 200_000;
    let mut samples = Vec::new();
    for names in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        let found = multinomial(&table, &mut pool, &w, names, n);
        assert!(found.is_sorted());
        let count = |at| found.iter().filter(|&&ancestor| ancestor == at).count();
        let counts: Vec<usize> = (0..6).map(count).collect();
        let chi_squared: f64 = w
            .iter()
            .zip(&counts)
            .filter(|(w, _)| **w > 0.0)
            .map(|(w, &count)| {
                let expected = n as f64 * w / 10.0;
                (count as f64 - expected).powi(2) / expected
            })
            .sum();
        // 3 degrees of freedom: above 21.1 once in ten thousand.
        assert!(chi_squared < 21.1, "{counts:?}");
        assert_eq!((counts[1], counts[5]), (0, 0));
        assert!(!samples.contains(&counts), "another stream, other numbers");
        samples.push(counts);
    }
    // Independent draws: the counts vary like those of a binomial distribution; a grid's would not.
    let first = |stream| {
        let found = multinomial(&table, &mut pool, &[1.0, 1.0], [9, stream], 1000);
        found.iter().filter(|&&ancestor| ancestor == 0).count() as f64 - 500.0
    };
    let variance = (0..400).map(first).map(|d| d * d).sum::<f64>() / 400.0;
    assert!((200.0..300.0).contains(&variance), "{variance}");
}

pub fn invalid_weights_are_errors() {
    with_pools(|table, pool| {
        let ancestors = table.owned(table.from_elem(9, 77u64).unwrap());
        let ancestors = ancestors.handle();
        let mut refuse = |w: &[f64]| {
            let w = array(table, w);
            let errors = [
                pool.resample_systematic(w.handle(), 0.5, ancestors),
                pool.resample_multinomial(w.handle(), 1, 2, ancestors),
                pool.effective_sample_size(w.handle()).map(|_| ()),
                pool.normalize_weights(w.handle(), w.handle()).map(|_| ()),
            ];
            errors.map(Result::unwrap_err)
        };
        for bad in [-1e-300, INF, -INF, f64::NAN] {
            let mut w = vec![1.0; 10_000];
            (w[8_063], w[9_000]) = (bad, -5.0);
            for error in refuse(&w) {
                match error {
                    PrimitiveError::Weight {
                        position, weight, ..
                    } => {
                        assert_eq!(position, 8_063);
                        assert_eq!(weight.to_bits(), bad.to_bits());
                    }
                    other => panic!("{other}"),
                }
            }
        }
        for none in [&[][..], &[0.0, -0.0], &[0.0; 10_000]] {
            for error in refuse(none) {
                assert!(matches!(error, PrimitiveError::NoWeight { .. }), "{error}");
            }
        }
        let w = array(table, &[1.0]);
        for u in [-1e-9, 1.0, f64::NAN, INF] {
            let error = pool.resample_systematic(w.handle(), u, ancestors);
            assert!(matches!(error, Err(PrimitiveError::Offset { .. })));
        }
        assert!(table.read(ancestors).unwrap().iter().all(|&x| x == 77));
    });
}

/// Checks weights that differ only by a power of two, up to both ends of the range of numbers.
pub fn the_scale_of_weights_does_not_matter() {
    with_pools(|table, pool| {
        let count = 5_000;
        let plain: Vec<f64> = weights(3, count)
            .iter()
            .map(|w| w.min(1e3) + 1e-3)
            .collect();
        let plain: Vec<f64> = plain.iter().map(|&w| f64::from(w as f32)).collect();
        let ancestors = table.owned(table.zeros::<u64, _>(count).unwrap());
        let normalized = table.owned(table.zeros::<f64, _>(count).unwrap());
        let mut results = Vec::new();
        for exponent in [0, -990, -1000, 900, 1012] {
            // Use two factors, because a power of two may exceed the largest number.
            let half = 2f64.powi(exponent / 2);
            let scaled: Vec<f64> = plain.iter().map(|w| w * half * half).collect();
            assert!(scaled.iter().all(|w| w.is_normal()));
            let w = array(table, &scaled);
            let (x, to) = (w.handle(), ancestors.handle());
            let size = pool.effective_sample_size(x).unwrap();
            pool.resample_systematic(x, 0.25, to).unwrap();
            let systematic = table.read(to).unwrap().to_vec();
            pool.resample_multinomial(x, 7, 1, to).unwrap();
            let multinomial = table.read(to).unwrap().to_vec();
            let sum = pool.normalize_weights(x, normalized.handle()).unwrap();
            let shares = table.read(normalized.handle()).unwrap().to_vec();
            let expected: f64 = plain.iter().sum::<f64>() * half * half;
            match expected.is_finite() {
                true => assert!((sum / expected - 1.0).abs() < 1e-12, "{sum} {expected}"),
                false => assert_eq!(sum, INF),
            }
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            results.push((size.to_bits(), systematic, multinomial, shares));
        }
        let first = results[0].clone();
        assert!(results.into_iter().all(|result| result == first));
    });
}

pub fn tiny_weights_keep_their_share() {
    with_pools(|table, pool| {
        let tiny = f64::from_bits(1);
        for weight in [1e-300, tiny, 1.0, f64::MAX] {
            for count in [1, 1000, 12_345] {
                let w = array(table, &vec![weight; count]);
                let size = pool.effective_sample_size(w.handle()).unwrap();
                let n = count as f64;
                assert!(size <= n && size > n * (1.0 - 1e-12), "{weight:e}: {size}");
                pool.normalize_weights(w.handle(), w.handle()).unwrap();
                let share = table.read(w.handle()).unwrap()[count / 2];
                assert!((share * n - 1.0).abs() < 1e-12, "{weight:e}: {share}");
            }
        }
        let narrow = array(table, &[1e-45f32, 0.0, 3e-45]);
        assert!(
            pool.normalize_weights(narrow.handle(), narrow.handle())
                .unwrap()
                > 0.0
        );
        let shares = table.read(narrow.handle()).unwrap().to_vec();
        assert!(
            (shares[0] - 0.33).abs() < 0.1 && shares[1] == 0.0,
            "{shares:?}"
        );
    });
}

pub fn calls_leave_no_arrays() {
    // A partition takes 512 bytes: there is room for the partitions of 300 calls.
    let segment = Segment::options().capacity(256 << 10).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let count = 5_000;
    let w = table.from_elem(count, 1.0).unwrap();
    let bad = table.from_elem(count, -1.0).unwrap();
    let small = table.from_elem(count, 100u8).unwrap();
    let ancestors = table.zeros(count).unwrap();
    let arrays = table.arrays().count();
    for stream in 0..600 {
        pool.resample_systematic(w, 0.5, ancestors).unwrap();
        pool.resample_multinomial(w, 0, stream, ancestors).unwrap();
        pool.resample_systematic(bad, 0.5, ancestors).unwrap_err();
        pool.gather(w, ancestors, bad).unwrap();
        pool.fill(bad, -1.0).unwrap();
        pool.prefix_sum(small, small).unwrap_err();
        pool.variance(w, 1).unwrap();
        pool.normalize_log_weights(bad, w).unwrap();
        assert_eq!(table.arrays().count(), arrays);
    }
}
