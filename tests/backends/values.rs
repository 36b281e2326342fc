//! Parameters of any type, by serde.

use std::collections::BTreeMap;

use ndshm::error::PoolError;
use ndshm::object::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::KINDS;
use crate::with_each_pool;

/// A parameter that fails where it is told to.
#[derive(Clone, Default, Serialize, Deserialize)]
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
        let before = table.arrays().count();
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
        let mut setup = Setup::default();
        setup.unwritable = true;
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
        assert_eq!(table.arrays().count(), before, "{kind:?}");
        pool.for_each(tiles, &1u32, |mut x, &one, _| x.fill(one))
            .unwrap();
    });
}
