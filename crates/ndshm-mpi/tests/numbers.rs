//! The same bits on any number of nodes and ranks, under both MPIs, and on one machine without MPI.

mod support;

use ndarray::{Array1, Array2};
use ndshm::pool::TileRng;
use ndshm::rand_core::Rng;
use ndshm::{HandleTable, Pool, Segment};
use ndshm_mpi::{Crossing, Node, Result, Traffic};

const ROWS: usize = 65_537;
const STEPS: u64 = 3;
const SEED: u64 = 42;

/// Digests of `ordinary` and `degenerate` weights with narrow and with wide rows.
const DIGESTS: [(&str, &str); 6] = [
    ("ordinary 1 4032", "42aec285486cb3b1"),
    ("degenerate 1 4032", "c0555b754cb67d87"),
    ("ordinary 16 4032", "3d01dd0930f3ea53"),
    ("degenerate 16 4032", "d77a7c90c6bb440f"),
    ("ordinary 9 500", "933256c995ddc474"),
    ("degenerate 9 500", "f5c35426c17ca850"),
];

/// Ranks, and nodes among which they are divided. Three ranks on two nodes are unequal.
const JOBS: [(usize, usize); 7] = [(1, 1), (2, 1), (2, 2), (3, 2), (4, 1), (4, 2), (4, 4)];

fn main() -> Result<()> {
    if let Some(case) = support::case() {
        return rank(&case);
    }
    support::main(&[
        ("resampling_has_the_same_bits", resampling_has_the_same_bits),
        (
            "reductions_have_the_same_bits",
            reductions_have_the_same_bits,
        ),
        (
            "odd_numbers_have_the_same_bits",
            odd_numbers_have_the_same_bits,
        ),
        ("rows_go_where_traffic_says", rows_go_where_traffic_says),
        ("wrong_traffic_is_named_once", wrong_traffic_is_named_once),
        ("an_ancestor_crosses_once", an_ancestor_crosses_once),
        ("wrong_weights_are_named_once", wrong_weights_are_named_once),
        ("messages_are_bounded", messages_are_bounded),
    ]);
    Ok(())
}

fn rank(case: &[String]) -> Result<()> {
    let number = |at: usize| case[at].parse::<usize>().unwrap();
    let job = ndshm_mpi::init()?;
    let node = Node::from_comm_by(&job.world(), support::color(&job, number(1)))?;
    match case[0].as_str() {
        "resample" => {
            for (kind, _) in DIGESTS {
                let found = digest_of(&resampled(&node, kind)?);
                if let Some(found) = found {
                    println!("digest {kind} {found}");
                }
            }
            Ok(())
        }
        "reduce" => reductions(&node),
        "odd" => odd(&node),
        "resample_one" => {
            let rows = || node.rows::<f64, _>(1);
            let (x, next, w) = (rows()?, rows()?, rows()?);
            let tiles = node.partition(&x, (x.write(), w.write()))?;
            node.for_each(&tiles, |(mut x, mut w), _| {
                x.fill(3.5);
                w.fill(1e-290);
            })?;
            node.resample_systematic(&w, 0.999, &x, &next)?;
            let (sum, range) = (node.sum(&next)?, node.min_max(&next)?);
            let (log, prefix) = (node.log_sum_exp(&next)?, node.prefix_sum(&next)?);
            println!("one {sum} {range:?} {log} {prefix}");
            Ok(())
        }
        "traffic" => wrong_traffic(&node, &case[2]),
        "once" => once(&node),
        "exchange" => ring(&node),
        "shapes" => {
            let (w, x) = (node.rows::<f64, _>(ROWS)?, node.rows::<f64, _>(ROWS + 1)?);
            node.resample_systematic(&w, 0.5, &x, &node.rows::<f64, _>(ROWS)?)
        }
        "weights" => {
            let (w, x) = (node.rows::<f64, _>(ROWS)?, node.rows::<f64, _>(ROWS)?);
            node.resample_systematic(&w, 0.5, &x, &node.rows::<f64, _>(ROWS)?)
        }
        "memory" => memory(&node),
        other => panic!("no case {other}"),
    }
}

/// Draws the change of a row in a step, and its weight.
fn drawn(kind: &str, rng: &mut TileRng, row: usize) -> (f64, f64) {
    let noise = rng.next_u64() as f64 / u64::MAX as f64;
    let weight = match kind.starts_with("ordinary") {
        true => 0.1 + noise,
        // Nearly all weight is on a few rows of the last node.
        false => f64::from(u8::from(row % 7919 == 20_000 % 7919 && row > 50_000)) + 1e-12 * noise,
    };
    (noise, weight)
}

/// Returns the width of a row and the rows of a tile.
fn parts(kind: &str) -> (usize, usize) {
    let mut numbers = kind.split(' ').skip(1).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn resampled(node: &Node, kind: &str) -> Result<Option<Array2<f64>>> {
    let (width, tile) = parts(kind);
    let mut x = node.rows_in_tiles::<f64, _>((ROWS, width), tile)?;
    let mut next = node.rows_in_tiles::<f64, _>((ROWS, width), tile)?;
    let w = node.rows_in_tiles::<f64, _>(ROWS, tile)?;
    for step in 0..STEPS {
        let tiles = node.partition(&x, (x.write(), w.write()))?;
        node.for_each(&tiles, |(mut x, mut w), tile| {
            let mut rng = tile.rng(SEED, step);
            let rows = tile.rows().zip(x.rows_mut()).zip(&mut w);
            for ((row, mut x), w) in rows {
                let (noise, weight) = drawn(kind, &mut rng, row);
                for (column, x) in x.iter_mut().enumerate() {
                    *x += noise * (column + 1) as f64;
                }
                *w = weight;
            }
        })?;
        node.resample_systematic(&w, 0.25, &x, &next)?;
        std::mem::swap(&mut x, &mut next);
    }
    let all = node.gather(&x)?;
    let everywhere = node.gather_everywhere(&x)?;
    if let Some(all) = &all {
        assert_eq!(*all, everywhere);
    }
    for array in [x, next] {
        node.free(array)?;
    }
    node.free(w)?;
    Ok(all)
}

/// Computes the same by ndshm alone, without nodes and MPI.
fn reference(kind: &str) -> ndshm::Result<Array2<f64>> {
    let (width, tile) = parts(kind);
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = Pool::threads(&table, 1)?;
    let ancestors = table.zeros::<u64, _>(ROWS)?;
    let mut x = Array2::<f64>::zeros((ROWS, width));
    for step in 0..STEPS {
        let mut weights = Array1::<f64>::zeros(ROWS);
        for row in 0..ROWS {
            let mut rng = TileRng::at(SEED, step, row / tile);
            // Positions within a tile.
            if row % tile != 0 {
                continue;
            }
            for row in row..(row + tile).min(ROWS) {
                let (noise, weight) = drawn(kind, &mut rng, row);
                for (column, x) in x.row_mut(row).iter_mut().enumerate() {
                    *x += noise * (column + 1) as f64;
                }
                weights[row] = weight;
            }
        }
        let w = table.from_array(&weights)?;
        pool.resample_systematic(w, 0.25, ancestors)?;
        table.free(w)?;
        let ancestors = table.read(ancestors)?;
        x = Array2::from_shape_fn((ROWS, width), |(row, column)| {
            x[[ancestors[row] as usize, column]]
        });
    }
    Ok(x)
}

fn digest_of(x: &Option<Array2<f64>>) -> Option<String> {
    let hash = |hash: u64, x: &f64| (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
    let digest = x.as_ref()?.iter().fold(0xcbf2_9ce4_8422_2325, hash);
    Some(format!("{digest:016x}"))
}

fn resampling_has_the_same_bits() {
    let mut expected = Vec::new();
    for (kind, constant) in DIGESTS {
        let found = digest_of(&Some(reference(kind).unwrap())).unwrap();
        assert_eq!(found, constant, "{kind}");
        expected.push(format!("{kind} {found}"));
    }
    expected.sort();
    for (ranks, nodes) in JOBS {
        let ran = support::run(ranks, &format!("resample {nodes}")).succeeded();
        assert_eq!(
            ran.values("digest"),
            expected,
            "{ranks} ranks on {nodes} nodes"
        );
    }
}

fn reductions(node: &Node) -> Result<()> {
    // So many tiles that blocks of 256 lie on several nodes.
    let x = node.rows_in_tiles::<f64, _>((3000, 5), 2)?;
    let sums = node.rows_in_tiles::<f64, _>(3000, 2)?;
    let tiles = node.partition(&x, (x.write(), sums.write()))?;
    let bits = |x: f64| format!("{:016x}", x.to_bits());
    // Rounding hides many a wrong order: not in all of them.
    let mut orders = Vec::new();
    for step in 0..16 {
        node.for_each(&tiles, |(mut x, mut sums), tile| {
            let mut rng = tile.rng(SEED, step);
            x.map_inplace(|x| *x = (rng.next_u64() as f64 / 1e17).sin() * 300.0);
            sums.assign(&x.column(0));
        })?;
        orders.extend([bits(node.sum(&x)?), bits(node.log_sum_exp(&x)?)]);
    }
    println!("orders {}", orders.join(" "));
    let total = node.prefix_sum(&sums)?;
    let [min, max] = node.min_max(&x)?;
    let found = [
        node.sum(&x)?,
        node.mean(&x)?,
        min,
        max,
        node.log_sum_exp(&x)?,
        total,
    ];
    println!("found {}", found.map(bits).join(" "));
    let (all, sums) = (node.gather_everywhere(&x)?, node.gather_everywhere(&sums)?);
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * a.abs().max(1.0), "{a} {b}");
    near(found[0], all.sum());
    near(found[1], all.mean().unwrap());
    near(max + all.mapv(|x| (x - max).exp()).sum().ln(), found[4]);
    assert!(all.iter().all(|&x| min <= x && x <= max));
    let mut sum = 0.0;
    for (&x, &prefix) in all.column(0).iter().zip(&sums) {
        sum += x;
        near(sum, prefix);
    }
    assert_eq!(sums[2999], total);
    println!(
        "last {}",
        sums.iter()
            .fold(0, |hash: u64, x| hash.rotate_left(7) ^ x.to_bits())
    );
    Ok(())
}

fn reductions_have_the_same_bits() {
    let mut expected = None;
    for (ranks, nodes) in JOBS {
        let ran = support::run(ranks, &format!("reduce {nodes}")).succeeded();
        let found = [
            ran.values("found"),
            ran.values("last"),
            ran.values("orders"),
        ]
        .concat();
        assert_eq!(found.len(), 3, "all ranks have one result: {found:?}");
        let expected = expected.get_or_insert(found.clone());
        assert_eq!(*expected, found, "{ranks} ranks on {nodes} nodes");
    }
}

/// Each node sends its last rows to the first places of the next one, twice each.
fn ring(node: &Node) -> Result<()> {
    fn round<const W: usize>(node: &Node) -> Result<()> {
        let x = node.rows_in_tiles::<f64, _>((1000, W), 3)?;
        let next = node.rows_in_tiles::<f64, _>((1000, W), 3)?;
        let fill = node.partition(&x, x.write())?;
        node.for_each(&fill, |mut x, tile| {
            for (row, mut x) in tile.rows().zip(x.rows_mut()) {
                x.fill(row as f64);
            }
        })?;
        let (layout, k, nodes) = (x.layout(), node.index(), node.nodes());
        let places = |node: usize| layout.rows_of(node).start..layout.rows_of(node).start + 20;
        let (to, from) = ((k + 1) % nodes, (k + nodes - 1) % nodes);
        let crossing = |node: usize, rows| vec![Crossing { node, rows }];
        let traffic = Traffic::new(
            &layout,
            k,
            crossing(to, places(to)),
            crossing(from, places(k)),
        )?;
        let source = |row: usize, to: usize, from: usize| {
            layout.rows_of(from).end - 10 + (row - layout.rows_of(to).start) / 2
        };
        node.exchange(&traffic, &x, &next, |rows, ancestors| {
            for (row, ancestor) in rows.zip(ancestors) {
                *ancestor = source(row, to, k) as u64;
            }
        })?;
        let found = node.read(&next)?;
        for (row, found) in next.range().zip(found.rows()) {
            let expected = match places(k).contains(&row) {
                true => source(row, k, from) as f64,
                false => 0.0,
            };
            assert!(
                found.iter().all(|&x| x == expected),
                "row {row}: {found} of {expected}"
            );
        }
        Ok(())
    }
    round::<1>(node)?;
    round::<20>(node)
}

fn rows_go_where_traffic_says() {
    for (ranks, nodes) in [(2, 2), (3, 2), (4, 4)] {
        support::run(ranks, &format!("exchange {nodes}")).succeeded();
    }
}

fn wrong_weights_are_named_once() {
    for (ranks, nodes) in [(2, 1), (2, 2), (4, 2)] {
        let ran = support::run(ranks, &format!("weights {nodes}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count("the sum of all weights is 0"), 1, "{ran:#?}");
        let ran = support::run(ranks, &format!("shapes {nodes}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(
            ran.count("65537 weights, 65538 rows of 1 elements"),
            1,
            "{ran:#?}"
        );
    }
}

/// Numbers at which sums and comparisons go wrong first.
const ODD: [f64; 8] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    -0.0,
    0.0,
    f64::MAX,
    -1e308,
    5e-324,
];

/// Reductions of a few odd numbers among zeros of both signs, and of all rows alike.
fn odd(node: &Node) -> Result<()> {
    let bits = |x: f64| match x.is_nan() {
        // The sign of a NaN is the processor's choice.
        true => "nan".to_owned(),
        false => format!("{:016x}", x.to_bits()),
    };
    for rows in [5, 600] {
        let x = node.rows_in_tiles::<f64, _>(rows, 1)?;
        let sums = node.rows_in_tiles::<f64, _>(rows, 1)?;
        let tiles = node.partition(&x, (x.write(), sums.write()))?;
        for first in ODD {
            for (at, second) in [(rows - 1, first), (rows / 2, -0.0)] {
                node.for_each(&tiles, |(mut x, mut sums), tile| {
                    x[0] = match tile.index() {
                        0 => first,
                        row if row == at => second,
                        row if row % 2 == 0 => 0.0,
                        _ => -0.0,
                    };
                    sums[0] = x[0];
                })?;
                let [min, max] = node.min_max(&x)?;
                let found = [
                    node.sum(&x)?,
                    node.mean(&x)?,
                    min,
                    max,
                    node.log_sum_exp(&x)?,
                    node.prefix_sum(&sums)?,
                ];
                let name = format!("{rows} {first:?} {at} {second:?}");
                println!("odd {name}: {}", found.map(bits).join(" "));
                assert_eq!(min.is_nan(), first.is_nan() || second.is_nan(), "{name}");
                assert_eq!(min.is_nan(), max.is_nan(), "{name}");
                if min.is_nan() {
                    assert!(found.iter().all(|x| x.is_nan()), "{name}: {found:?}");
                } else if first == f64::INFINITY {
                    assert_eq!([max, found[4]], [first, first], "{name}");
                } else if first == f64::MAX {
                    assert_eq!(found[4], first, "{name}");
                }
            }
        }
        // No term above zero.
        node.for_each(&tiles, |(mut x, _), _| x.fill(f64::NEG_INFINITY))?;
        assert_eq!(node.log_sum_exp(&x)?, f64::NEG_INFINITY);
        assert_eq!(node.min_max(&x)?, [f64::NEG_INFINITY; 2]);
        node.free(x)?;
        node.free(sums)?;
    }
    Ok(())
}

fn odd_numbers_have_the_same_bits() {
    let mut expected = None;
    for (ranks, nodes) in [(1, 1), (2, 2), (3, 2)] {
        let ran = support::run(ranks, &format!("odd {nodes}")).succeeded();
        let found = ran.values("odd");
        assert_eq!(found.len(), 2 * 8 * 2, "all ranks have one result");
        assert_eq!(
            expected.get_or_insert(found.clone()),
            &found,
            "{ranks} {nodes}"
        );
    }
    // One row, on one node.
    let ran = support::run(2, "resample_one 1").succeeded();
    assert_eq!(ran.values("one"), ["3.5 [3.5, 3.5] 3.5 3.5"]);
}

/// Exchanges rows, of which the second node expects others than the first sends.
fn wrong_traffic(node: &Node, how: &str) -> Result<()> {
    let (x, next) = (node.rows::<f64, _>(20_000)?, node.rows::<f64, _>(20_000)?);
    let layout = x.layout();
    let first = layout.rows_of(1).start;
    let crossing = |node: usize, len: usize| match len {
        0 => vec![],
        _ => vec![Crossing {
            node,
            rows: first..first + len,
        }],
    };
    let (sent, expected) = match how {
        "fewer" => (20, 10),
        "none" => (20, 0),
        _ => (0, 20),
    };
    let traffic = match node.index() {
        0 => Traffic::new(&layout, 0, crossing(1, sent), vec![])?,
        _ => Traffic::new(&layout, 1, vec![], crossing(0, expected))?,
    };
    let to = match how {
        // The second node has another array in mind, as far as its traffic goes.
        "within" => &x,
        _ => &next,
    };
    node.exchange(&traffic, &x, to, |rows, ancestors| {
        for (row, ancestor) in rows.zip(ancestors) {
            *ancestor = (row - first) as u64;
        }
    })
}

fn wrong_traffic_is_named_once() {
    for (how, problem) in [
        (
            "fewer",
            "node 0 sends rows 8064..8084 to node 1, which does not receive them",
        ),
        (
            "none",
            "node 0 sends rows 8064..8084 to node 1, which does not receive them",
        ),
        (
            "more",
            "node 1 receives rows 8064..8084 from node 0, which does not send them",
        ),
        ("within", "rows cannot move within one array"),
    ] {
        let ran = support::run(3, &format!("traffic 2 {how}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count(problem), 1, "{ran:#?}");
    }
}

/// Wide rows in small tiles, all of one ancestor or of two.
fn once(node: &Node) -> Result<()> {
    let (rows, width) = (200_000, 8);
    let x = node.rows_in_tiles::<u64, _>((rows, width), 1)?;
    let next = node.rows_in_tiles::<u64, _>((rows, width), 1)?;
    let w = node.rows_in_tiles::<f64, _>(rows, 1)?;
    let tiles = node.partition(&x, (x.write(), w.write()))?;
    for heavy in [7, 1] {
        node.for_each(&tiles, |(mut x, mut w), tile| {
            let row = tile.index();
            x.fill(row as u64);
            w[0] = f64::from(u8::from(row == heavy || row == rows - heavy));
        })?;
        node.resample_systematic(&w, 0.5, &x, &next)?;
        for (row, found) in next.range().zip(node.read(&next)?.rows()) {
            let expected = if row < rows / 2 { heavy } else { rows - heavy };
            assert!(
                found.iter().all(|&x| x == expected as u64),
                "row {row}: {found}"
            );
        }
    }
    Ok(())
}

fn an_ancestor_crosses_once() {
    // More offspring for a node than fit one message.
    for (ranks, nodes) in [(2, 2), (3, 3)] {
        support::run(ranks, &format!("once {nodes}")).succeeded();
    }
}

/// All rows of the second node come from the first, of one ancestor.
fn memory(node: &Node) -> Result<()> {
    let rows = 2_000_000;
    let (x, next) = (node.rows::<f64, _>(rows)?, node.rows::<f64, _>(rows)?);
    let w = node.rows::<f64, _>(rows)?;
    let tiles = node.partition(&x, (x.write(), w.write()))?;
    node.for_each(&tiles, |(mut x, mut w), tile| {
        for ((row, x), w) in tile.rows().zip(&mut x).zip(&mut w) {
            *x = row as f64;
            *w = f64::from(u8::from(row == 77));
        }
    })?;
    let before = peak();
    node.resample_systematic(&w, 0.5, &x, &next)?;
    assert_eq!(node.min_max(&next)?, [77.0, 77.0]);
    println!("grown {}", peak() - before);
    Ok(())
}

/// Returns the private memory of this process, in KiB.
fn peak() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn messages_are_bounded() {
    let ran = support::run(2, "memory 2").succeeded();
    // 8 MB cross: without a bound, the sender needs as much for them.
    for grown in ran.values("grown") {
        let kib: i64 = grown.parse().unwrap();
        assert!(kib < 6000, "{kib} KiB");
    }
}
