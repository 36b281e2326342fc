//! Parameters and results of any type, by serde.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ndarray::ArrayViewMut1;
use ndshm::error::PoolError;
use ndshm::object::Value;
use ndshm::{HandleTable, Observer, OnFailure, TileContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::{KINDS, Kind, die};
use crate::with_each_pool;

/// Returns the number of arrays, the crate's own ones among them.
fn live(table: &HandleTable) -> u64 {
    let segment = table.segment().inheritable_fd().unwrap();
    Observer::from_fd(segment).unwrap().census().live
}

/// A value that fails where it is told to.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Setup {
    names: Vec<String>,
    weights: BTreeMap<u32, f64>,
    #[serde(serialize_with = "unless_set")]
    unwritable: bool,
    #[serde(deserialize_with = "only_false")]
    unreadable: bool,
}

fn unless_set<S: Serializer>(set: &bool, to: S) -> Result<S::Ok, S::Error> {
    match set {
        true => Err(serde::ser::Error::custom("not this one")),
        false => to.serialize_bool(false),
    }
}

fn only_false<'d, D: Deserializer<'d>>(from: D) -> Result<bool, D::Error> {
    match bool::deserialize(from)? {
        true => Err(serde::de::Error::custom("not here")),
        false => Ok(false),
    }
}

pub fn values_of_any_type_cross() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        let before = live(table);
        for count in [2, 300] {
            let setup = Value(Setup {
                names: (0..count).map(|name| name.to_string()).collect(),
                weights: (0..count).map(|at| (at, f64::from(at))).collect(),
                ..Setup::default()
            });
            pool.for_each(tiles, &setup, |mut x, Value(setup), _| {
                assert_eq!(setup.weights[&1], 1.0);
                x.fill(setup.names.len() as u32);
            })
            .unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 100 * count, "{kind:?}");
            let lasts = pool.broadcast(&setup, |_, Value(setup)| setup.weights.len());
            assert_eq!(lasts.unwrap(), [count as usize; 3], "{kind:?}");
        }
        let mut setup = Setup {
            unwritable: true,
            ..Setup::default()
        };
        let refused = pool.for_each(tiles, &Value(setup.clone()), |_, _, _| ());
        let Err(PoolError::Params { message, .. }) = refused else {
            panic!("{kind:?}: {refused:?}");
        };
        assert!(message.contains("not this one"), "{message}");
        setup.unwritable = false;
        setup.unreadable = true;
        let refused = pool.run(&Value(setup), |_, _| Ok(()));
        let Err(PoolError::WorkerFailed { message, .. }) = refused else {
            panic!("{kind:?}: {refused:?}");
        };
        assert!(message.contains("not here"), "{message}");
        // Nothing is left behind, and the pool works.
        assert_eq!(live(table), before, "{kind:?}");
        pool.for_each(tiles, &1u32, |mut x, &one, _| x.fill(one))
            .unwrap();
    });
}

pub fn results_of_any_type_come_back() {
    with_each_pool(&KINDS, 3, |kind, table, _, tiles, pool| {
        let before = live(table);
        for length in [1, 1000] {
            let got = pool.map_collect(tiles, &length, |_, &length, tile| {
                Value(vec![tile.index().to_string(); tile.index() * length])
            });
            let expected: Vec<_> = (0..10)
                .map(|tile: usize| Value(vec![tile.to_string(); tile * length]))
                .collect();
            assert_eq!(got.unwrap(), expected, "{kind:?}");
        }
        let ours = pool.run(&(), |worker, ()| {
            Ok(Value(Some(worker.worker().to_string())))
        });
        let expected = ["0", "1", "2"].map(|worker| Value(Some(worker.to_owned())));
        assert_eq!(ours.unwrap(), expected, "{kind:?}");

        let refused = pool.map_collect(tiles, &(), |_, (), tile| {
            Value(Setup {
                unwritable: tile.index() == 7,
                ..Setup::default()
            })
        });
        let Err(PoolError::Results { at: 7, message, .. }) = refused else {
            panic!("{kind:?}: {refused:?}");
        };
        assert!(message.contains("not this one"), "{message}");
        let refused = pool.broadcast(&(), |worker, ()| {
            Value(Setup {
                unreadable: worker.worker() == 2,
                ..Setup::default()
            })
        });
        let Err(PoolError::Results { at: 2, message, .. }) = refused else {
            panic!("{kind:?}: {refused:?}");
        };
        assert!(message.contains("not here"), "{message}");
        let panicked = pool.map_collect(tiles, &(), |_, (), tile| {
            assert!(tile.index() < 9, "the last tile");
            Value("stored".to_owned())
        });
        let panicked = panicked.unwrap_err();
        assert!(
            matches!(panicked, PoolError::KernelPanicked { tile: 9, .. }),
            "{kind:?}: {panicked}"
        );
        // Results of failed calls are freed too.
        assert_eq!(live(table), before, "{kind:?}");
    });
}

/// A value with code that panics: when 1 is written, and when 2 is read.
#[derive(Debug)]
struct Panics(u32);

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 == 1 {
            std::panic::resume_unwind(Box::new("cannot be written".to_owned()));
        }
        self.0.serialize(to)
    }
}

impl<'d> Deserialize<'d> for Panics {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(from)?;
        if number == 2 {
            std::panic::resume_unwind(Box::new("cannot be read".to_owned()));
        }
        Ok(Panics(number))
    }
}

/// Panics in the code of parameters and results. No worker dies of it.
pub fn panics_of_values_are_failures() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        for policy in [OnFailure::Fail, OnFailure::Skip] {
            pool.set_on_failure(policy);
            let refused = pool.map_collect(tiles, &(), |mut x, (), tile| {
                x += 1;
                Value(Panics(u32::from(tile.index() == 3)))
            });
            match refused {
                Err(PoolError::KernelPanicked { tile, message, .. }) => {
                    assert_eq!((tile, &*message), (3, "cannot be written"), "{kind:?}");
                }
                other => panic!("{kind:?}: {other:?}"),
            }
            assert_eq!(tiles.recover(|_, mut x| x.fill(0)).unwrap(), 1);
            let refused = pool.for_each(tiles, &Value(Panics(2)), |_, _, _| ());
            match refused {
                Err(PoolError::WorkerFailed { message, .. }) => {
                    assert!(message.contains("cannot be read"), "{kind:?}: {message}");
                }
                other => panic!("{kind:?}: {other:?}"),
            }
            let refused = pool.run(&(), |_, ()| Ok(Value(Panics(1))));
            match refused {
                Err(PoolError::WorkerFailed { message, .. }) => {
                    assert!(message.contains("cannot be written"), "{kind:?}: {message}");
                }
                other => panic!("{kind:?}: {other:?}"),
            }
        }
        assert_eq!(pool.deaths(), 0, "{kind:?}");
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

/// A value that its first reader in this process cannot read.
#[derive(Serialize)]
struct RefusedOnce(());

impl<'d> Deserialize<'d> for RefusedOnce {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        static WAS_READ: OnceLock<()> = OnceLock::new();
        <()>::deserialize(from)?;
        match WAS_READ.set(()) {
            Ok(()) => Err(serde::de::Error::custom("not this time")),
            Err(()) => Ok(RefusedOnce(())),
        }
    }
}

/// One worker cannot read the parameters, and the other one runs all tiles.
pub fn a_started_call_fails_with_one_worker() {
    with_each_pool(&[Kind::Threads], 2, |kind, _, _, tiles, pool| {
        let kernel = |mut x: ArrayViewMut1<u32>, _: &Value<RefusedOnce>, _: &TileContext<'_>| {
            x += 1;
        };
        let mut running = pool.start(tiles, &Value(RefusedOnce(())), kernel).unwrap();
        let error = loop {
            match running.wait_any(1) {
                Ok(arrived) => {
                    assert!(
                        !arrived.is_empty(),
                        "{kind:?}: the call is over, without an error"
                    );
                    arrived.ready.for_each(|ready| ready.rerun());
                }
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, PoolError::WorkerFailed { message, .. } if message.contains("not this time")),
            "{kind:?}: {error}"
        );
        running.finish().unwrap();
    });
}

pub fn results_of_a_dead_worker_are_reported() {
    with_each_pool(
        &[Kind::Fork, Kind::Spawn],
        1,
        |kind, table, x, tiles, pool| {
            let before = live(table);
            pool.set_on_failure(OnFailure::RunAgain);
            let lost = pool.map_collect(tiles, &(), |mut x, (), tile| {
                // The first worker ends at the last tile. Its successor runs this tile alone.
                x += 1;
                if tile.index() == 9 && x[0] == 1 {
                    die();
                }
                Value(tile.index().to_string())
            });
            let Err(PoolError::Results { at: 0, message, .. }) = lost else {
                panic!("{kind:?}: {lost:?}");
            };
            assert!(message.contains("has died"), "{message}");
            assert_eq!(table.read(x).unwrap().sum(), 110, "{kind:?}");
            assert_eq!(live(table), before, "{kind:?}");
            let got = pool.map_collect(tiles, &(), |_, (), tile| Value(tile.index()));
            assert_eq!(got.unwrap()[9], Value(9), "{kind:?}");
        },
    );
}
