//! Names and bundles: two names that survive all kills, names that come and go, and bundles of
//! arrays that are filled, emptied and freed.

use ndarray::Ix1;
use ndshm::error::{AllocError, BundleError, LeaseError, NameError};
use ndshm::{AnyHandle, HandleTable};

use super::board::Count;
use super::pattern::Pattern;
use super::victim::{Array, Sitting};
use super::world::World;

/// A name that denotes some lasting array at every moment.
const ALWAYS: &str = "always";
/// Two names. At every moment exactly one of them exists; it denotes the first lasting array.
const SIDES: [&str; 2] = ["left", "right"];
/// Number of names that come and go.
const PASSING: usize = 24;

/// Publishes the names that last.
pub fn publish_lasting(world: &World, table: &HandleTable) -> Result<(), NameError> {
    table.publish(ALWAYS, world.lasting[0].handle)?;
    table.publish(SIDES[0], world.lasting[0].handle)
}

/// Removes all names. Reports errors in them to `note`.
pub fn unpublish_all(
    world: &World,
    table: &HandleTable,
    note: impl Fn(String),
) -> Result<(), NameError> {
    let names = table.names("")?;
    let sides = names
        .iter()
        .filter(|info| SIDES.contains(&info.name.as_str()));
    let sides: Vec<_> = sides.map(|info| info.handle).collect();
    if sides != [AnyHandle::from(world.lasting[0].handle)] {
        note(format!("the names {SIDES:?} denote {sides:?}"));
    }
    for info in &names {
        let here = names.iter().filter(|other| other.name == info.name).count();
        if here != 1 || info.name == ALWAYS && !world.lasts(info.handle) {
            note(format!("{here} times, or of a wrong array: {info:?}"));
        }
        table.unpublish(&info.name)?;
    }
    if !names.iter().any(|info| info.name == ALWAYS) {
        note(format!("the name {ALWAYS:?} is lost: {names:?}"));
    }
    Ok(())
}

impl Sitting<'_, '_> {
    pub fn use_names(&mut self) {
        for _ in 0..self.me.random.below(40) {
            let outcome = match self.me.random.below(8) {
                0 => self.replace_lasting(),
                1 | 2 => self.find_lasting(),
                3 => self.change_sides(),
                4 | 5 => self.name_something(),
                6 => self.take_name(),
                _ => self.use_named(),
            };
            match outcome {
                Ok(()) => self.me.count(Count::Names),
                Err(error) => self.name_refused(error),
            }
        }
    }

    fn some_name(&mut self) -> String {
        format!("passing/{}", self.me.random.below(PASSING))
    }

    fn replace_lasting(&mut self) -> Result<(), NameError> {
        let world = self.world;
        let array = &world.lasting[self.me.random.below(world.lasting.len())];
        match self.table.replace(ALWAYS, array.handle)? {
            Some(before) if world.lasts(before) => Ok(()),
            other => self.me.found(format!("{ALWAYS:?} stood for {other:?}")),
        }
    }

    fn find_lasting(&mut self) -> Result<(), NameError> {
        match self.table.find::<u64, Ix1>(ALWAYS) {
            Ok(array) if self.world.lasts(array.into()) => Ok(()),
            Ok(array) => self.me.found(format!("{ALWAYS:?} stands for {array}")),
            Err(NameError::NotFound { .. }) => self.me.found(format!("{ALWAYS:?} is lost")),
            Err(error) => Err(error),
        }
    }

    fn change_sides(&mut self) -> Result<(), NameError> {
        let from = self.me.random.below(2);
        match self.table.rename(SIDES[from], SIDES[1 - from]) {
            Err(NameError::Taken { .. }) => self.me.found(format!("both of {SIDES:?}")),
            outcome => outcome,
        }
    }

    fn name_something(&mut self) -> Result<(), NameError> {
        let name = self.some_name();
        let handle: AnyHandle = match self.private.last() {
            Some((handle, _)) if self.me.random.one_in(2) => (*handle).into(),
            _ => self.world.lasting[self.me.random.below(self.world.lasting.len())]
                .handle
                .into(),
        };
        self.table.publish(&name, handle)
    }

    fn take_name(&mut self) -> Result<(), NameError> {
        let (name, other) = (self.some_name(), self.some_name());
        match self.me.random.one_in(2) {
            true => self.table.unpublish(&name).map(drop),
            false => self.table.rename(&name, &other),
        }
    }

    /// Finds a name and checks that its array exists, or existed a moment ago.
    fn use_named(&mut self) -> Result<(), NameError> {
        let name = self.some_name();
        let handle = self.table.find_any(&name)?;
        match self.table.info(handle) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn name_refused(&mut self, error: NameError) {
        match error {
            NameError::Taken { .. } | NameError::NotFound { .. } => {
                self.me.count(Count::NamesRefused);
            }
            NameError::Lease(error) => {
                let _ = self.refused(error);
            }
            NameError::Alloc(error) => self.alloc_refused(error),
            NameError::Join(error) => self.join_refused(error),
            other => self.me.found(format!("names: {other}")),
        }
    }

    /// Creates a bundle, fills it, empties it in part, and frees it.
    pub fn use_bundle(&mut self) {
        let bundle = match self.table.bundle() {
            Ok(bundle) => bundle,
            Err(error) => return self.bundle_refused(error),
        };
        let count = self.me.random.below(6);
        let mut parts: Vec<Option<(Array, Pattern)>> = Vec::new();
        for at in 0..count {
            let handle: Array = match self.table.uninit(8) {
                Ok(handle) => handle,
                Err(error) => {
                    self.alloc_refused(error);
                    break;
                }
            };
            let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
            match self.table.write(handle) {
                Ok(mut x) => pattern.write(x.view_mut()),
                Err(error) => {
                    let _ = self.refused(error);
                }
            }
            if let Err(error) = bundle.insert(&at.to_string(), handle) {
                self.bundle_refused(error);
                let _ = self.table.free(handle);
                break;
            }
            parts.push(Some((handle, pattern)));
        }
        if let Some(at) = parts.len().checked_sub(1 + self.me.random.below(3)) {
            match bundle.remove(&at.to_string()) {
                Ok(()) => parts[at] = None,
                Err(error) => self.bundle_refused(error),
            }
        }
        // Others find the parts among all arrays, and may use and free those without owner.
        match bundle.parts() {
            Ok(found) if found.len() > parts.iter().flatten().count() => {
                self.me.found(format!("parts {found:?} of {parts:?}"));
            }
            Ok(_) => self.me.count(Count::Bundles),
            Err(error) => self.bundle_refused(error),
        }
        let handle = bundle.handle();
        drop(bundle);
        if self.table.free(handle).is_err() {
            self.me.found(format!("{handle} was freed by another"));
        }
        for (array, _) in parts.into_iter().flatten() {
            if self
                .table
                .info(array)
                .is_ok_and(|info| info.owner.is_none())
            {
                self.me.found(format!("{array} has outlived its bundle"));
            }
        }
    }

    fn bundle_refused(&mut self, error: BundleError) {
        match error {
            BundleError::Alloc(AllocError::Join(error)) | BundleError::Join(error) => {
                self.join_refused(error);
            }
            BundleError::Alloc(error) => self.alloc_refused(error),
            BundleError::Lease(LeaseError::Join(error)) => self.join_refused(error),
            BundleError::Lease(error) => {
                let _ = self.refused(error);
            }
            BundleError::NotFound { .. } | BundleError::NotOwned { .. } => {
                self.me.count(Count::NamesRefused);
            }
            other => self.me.found(format!("bundle: {other}")),
        }
    }
}
