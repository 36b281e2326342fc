//! Bundles: sets of arrays with names of their own, under one handle.
//!
//! A bundle is a bucket of names besides those of the table (see `../names/README.md`). It owns its
//! arrays, which live as long as the bundle.

pub(crate) mod error;
mod handle;
#[cfg(test)]
mod tests;

use core::fmt;
pub(crate) use error::BundleError;

use ndarray::Dimension;

use crate::descriptor::{ControlKind, Descriptor, WrongKind};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::names::NameError;
use crate::names::{self, Buckets, Contents, NameInfo, Value, sort_names};
use crate::sync::{Atom, Ordering};
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::kept_lease::KeptLease;
use crate::word::{BucketIndex, BucketWord};
pub use handle::BundleHandle;

/// A set of named arrays that is created, passed on, opened, listed and freed as one.
///
/// Its parts are ordinary arrays, leased one by one, read and written in place. They belong to the
/// bundle and are freed with it, no matter which participant inserted or adopted them. The bundle
/// itself has an owner, and is freed with it unless it is [detached](crate::HandleTable::detach).
/// Small values are arrays without axes.
///
/// ```
/// use ndarray::{Ix0, Ix2, array};
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let model = table.bundle()?;
/// model.insert("weights", table.from_array(&array![[1.0, 2.0], [3.0, 4.0]])?)?;
/// model.insert("step", table.from_elem((), 17_u64)?)?;
/// table.publish("model", model.handle())?;
///
/// // In any process:
/// let model = table.find_bundle("model")?;
/// let weights = model.get::<f64, Ix2>("weights")?;
/// assert_eq!(table.read(weights)?.sum(), 10.0);
/// assert_eq!(table.read(model.get::<u64, Ix0>("step")?)?[()], 17);
///
/// table.free(model.handle())?;
/// assert!(table.read(weights).is_err());
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// Changes and lookups never wait. If two participants insert the same name, one of them succeeds.
/// A participant may be killed at any moment: a part that it was inserting is in the bundle, or
/// freed.
#[doc(alias("dict", "HashMap", "state_dict", "npz"))]
pub struct Bundle<'t> {
    table: &'t Core,
    handle: AnyHandle,
    /// Keeps the slot, and with it the bucket.
    lease: KeptLease<'t>,
    bucket: BucketIndex,
}

impl Core {
    /// Creates an empty bundle, owned by this participant.
    pub(crate) fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        let reserved = self.reserve(size_of::<u64>() as u64)?;
        let (slot, generation) = (reserved.slot.index, reserved.word.generation());
        self.publish_record(reserved, |descriptor| {
            Descriptor::control(ControlKind::Bundle, 1).store(descriptor);
            // Relaxed: published with the slot.
            Descriptor::bundle(descriptor).store(BucketWord::EMPTY, Ordering::Relaxed);
        });
        self.open_bundle(BundleHandle::of(self.handle_of(slot, generation)))
    }

    /// Opens a bundle that any participant has created.
    pub(crate) fn open_bundle(&self, handle: BundleHandle) -> Result<Bundle<'_>, BundleError> {
        let handle = AnyHandle::from(handle);
        let lease = self.lease_shared(handle)?;
        let memory = self.segment().memory();
        let index = lease.slot.index;
        match Descriptor::is_bundle(memory.descriptor(lease.slot.index)) {
            true => Ok(Bundle {
                table: self,
                handle,
                lease: KeptLease::new(lease),
                bucket: BucketIndex::of_bundle(memory, index),
            }),
            false => {
                let words = memory.descriptor(index);
                let wrong = WrongKind::found_in(handle, words, memory, "a bundle");
                Err(LeaseError::from(wrong).into())
            }
        }
    }

    /// Frees the parts of a freed bundle. `word` is the last word of its bucket. The caller has
    /// kept the bundle's slot, so the bucket is still its own.
    ///
    /// Called by the participant that freed the bundle, and by one that put a record into its
    /// bucket too late. After an error the next reap frees the remaining parts.
    #[cold]
    pub(crate) fn free_parts(&self, bucket: BucketIndex, mut word: BucketWord) {
        let buckets = Buckets { table: self };
        while let Some((slot, generation)) = word.record() {
            let Ok(lease) = self.lease_shared(self.handle_of(slot, generation)) else {
                match buckets.load(bucket) {
                    Ok(now) if now != word => word = now,
                    // Another participant has freed the parts, and then the record.
                    _ => return,
                }
                continue;
            };
            for (_, value) in buckets.contents(lease.slot, bucket).names {
                // A damaged record may name an array that is not a part. A part's descriptor names
                // its bundle.
                let part = self.slot(value.handle).is_some_and(|(slot, generation)| {
                    let words = self.segment().memory().descriptor(slot.index);
                    Descriptor::part_of(words, generation) == Some(bucket)
                });
                if part && let Ok(Some(after)) = self.free_slot(value.handle) {
                    self.forget_names(after.name);
                }
            }
            drop(lease);
            return buckets.free(word);
        }
    }
}

impl<'t> Bundle<'t> {
    /// Returns the bundle's name for other processes. It also serves to free, detach, adopt or
    /// publish it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// table.publish("model", model.handle())?;
    /// table.detach(model.handle())?;                       // it outlives this participant
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> BundleHandle {
        BundleHandle::of(self.handle)
    }

    /// Inserts an array that this participant owns, under a name.
    ///
    /// The array keeps its place and its handle. From now on the bundle owns it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// let other = table.zeros::<f32, _>(10)?;
    /// assert!(model.insert("bias", other).is_err());       // the name is taken
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::Taken`] if a part has the name already.
    /// - [`BundleError::NotOwned`] if another participant, a bundle or nobody owns the array:
    ///   [adopt](crate::HandleTable::adopt) it first. A bundle or a queue cannot be a part.
    /// - [`BundleError::Frozen`] if the bundle is frozen.
    /// - [`BundleError::Lease`] if the array is stale or is being written.
    pub fn insert(&self, name: &str, array: impl Into<AnyHandle>) -> Result<(), BundleError> {
        let handle = array.into();
        let key = names::checked(name)?;
        let me = self.lease.enter()?;
        self.table.tables().usable(handle)?;
        // The lease keeps the array's slot its own while the descriptor names the bundle.
        let lease = self.table.lease_shared(handle)?;
        let slot = lease.slot;
        let words = self.table.segment().memory().descriptor(slot.index);
        let word = slot.word();
        let control = Descriptor::load(words).is_none_or(|descriptor| descriptor.is_control());
        if control || !word.is_owned_by(me) {
            return Err(BundleError::NotOwned {
                handle,
                owner: match word.is_detached() {
                    true => 0,
                    false => self.table.pid_of(word.owner()),
                },
            });
        }
        let generation = word.generation();
        Descriptor::store_part(words, self.bucket, generation);
        // An error says that the array was just freed.
        slot.change(|word| word.name(generation))
            .map_err(|_| LeaseError::Stale { handle })?;
        let value = Value {
            handle,
            pid: std::process::id(),
            arrival: None,
        };
        let put = self.change(|contents| match contents.position(&key) {
            Some(at) => Err(taken(name, contents.names[at].1.handle)),
            None => {
                contents.names.push((key, value));
                Ok(())
            }
        });
        if let Err(error) = put {
            Descriptor::clear_part(words);
            return Err(error);
        }
        slot.detach_record(generation, me);
        if !self.table.is_part(self.bucket, handle) {
            // The participant that removed it, or freed the bundle, may have died before freeing
            // it.
            drop(lease);
            let _ = self.table.free(handle);
            self.check_live()?;
        }
        Ok(())
    }

    /// Returns the part of that name.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// use ndarray::Ix1;
    ///
    /// model.insert("bias", table.from_elem(10, 0.5_f32)?)?;
    /// let bias = model.get::<f32, Ix1>("bias")?;
    /// assert_eq!(table.read(bias)?.sum(), 5.0);
    /// assert!(model.get::<f64, Ix1>("bias").is_err());     // it has other elements
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::NotFound`] if there is no such part.
    /// - [`BundleError::Lease`] with [`WrongKind`](LeaseError::WrongKind) if it has another
    ///   type, and with [`Stale`](LeaseError::Stale) if the bundle was freed.
    pub fn get<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, BundleError> {
        loop {
            match self.table.downcast(self.get_any(name)?) {
                Ok(handle) => return Ok(handle),
                // Removed since it was found.
                Err(LeaseError::Stale { .. }) => self.check_live()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the part of that name, of any type.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// let part = model.get_any("bias")?;
    /// assert_eq!(table.info(part)?.shape, [10]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BundleError::NotFound`] if there is no such part.
    pub fn get_any(&self, name: &str) -> Result<AnyHandle, BundleError> {
        let key = names::checked(name)?;
        self.lease.enter()?;
        let found = self.buckets().find(self.bucket, &key);
        let (_, found) = found.map_err(|error| self.told(error))?;
        let live = |value: &Value| self.table.tables().live(value.handle).is_ok();
        match found.filter(live) {
            Some(value) => Ok(value.handle),
            None => Err(not_found(name)),
        }
    }

    /// Frees the part of that name. Holders of a lease keep the bytes until they release it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// model.remove("bias")?;
    /// assert!(model.get_any("bias").is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::NotFound`] if there is no such part.
    /// - [`BundleError::Frozen`] if the bundle is frozen.
    pub fn remove(&self, name: &str) -> Result<(), BundleError> {
        let key = names::checked(name)?;
        self.lease.enter()?;
        let removed = self.change(|contents| {
            let at = contents.position(&key).ok_or_else(|| not_found(name))?;
            Ok(contents.names.remove(at).1.handle)
        })?;
        // An error says that it was freed by its handle.
        let _ = self.table.free(removed);
        Ok(())
    }

    /// Returns all parts, sorted by name.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// model.insert("weights", table.zeros::<f32, _>((10, 10))?)?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// for part in model.parts()? {
    ///     println!("{}: {:?}", part.name, table.info(part.handle)?.shape);
    /// }
    /// assert_eq!(model.parts()?[0].name, "bias");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn parts(&self) -> Result<Vec<NameInfo>, BundleError> {
        self.lease.enter()?;
        let seen = self.buckets().read(self.bucket);
        let mut contents = seen.map_err(|error| self.told(error))?.contents;
        contents
            .names
            .retain(|(_, value)| self.table.tables().live(value.handle).is_ok());
        let names = contents.names.iter();
        let mut parts: Vec<NameInfo> = names
            .map(|(name, value)| NameInfo::of(name, value))
            .collect();
        sort_names(&mut parts);
        Ok(parts)
    }

    /// Freezes the bundle: nobody can insert or remove parts any more. The parts can still be
    /// written.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let model = table.bundle()?;
    /// let bias = table.zeros::<f32, _>(10)?;
    /// model.insert("bias", bias)?;
    /// model.freeze()?;
    /// assert!(model.is_frozen());
    /// assert!(model.insert("more", table.zeros::<f32, _>(1)?).is_err());
    /// table.write(bias)?.fill(1.0);                        // the parts can be written
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<(), BundleError> {
        self.lease.enter()?;
        let place = self.place();
        // Relaxed: publishes nothing, and continues the release sequences of earlier changes.
        let _ = place.update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(word.frozen())
        });
        Ok(())
    }

    /// Returns `true` if the bundle is frozen. In a forked child, also returns `true` if the bundle
    /// was freed before the child used it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let model = table.bundle()?;
    /// assert!(!model.is_frozen());
    /// model.freeze()?;
    /// assert!(model.is_frozen());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_frozen(&self) -> bool {
        // Without a lease of this process the slot may have another bundle by now.
        self.lease.enter().is_err() || self.place().load(Ordering::Relaxed).is_frozen()
    }

    fn place(&self) -> &Atom<BucketWord> {
        let memory = self.table.segment().memory();
        let (slot, _) = self.handle.unpack(self.table.segment().key());
        Descriptor::bundle(memory.descriptor(slot))
    }

    fn buckets(&self) -> Buckets<'t> {
        Buckets { table: self.table }
    }

    /// Replaces the contents by the result of `next`.
    fn change<R>(
        &self,
        next: impl Fn(&mut Contents) -> Result<R, BundleError>,
    ) -> Result<R, BundleError> {
        let buckets = self.buckets();
        loop {
            self.check_live()?;
            let seen = buckets.read(self.bucket);
            let mut seen = seen.map_err(|error| self.told(error))?;
            if seen.word.is_frozen() {
                return Err(BundleError::Frozen {
                    handle: self.handle,
                });
            }
            let tidied = buckets.unlink_stale(self.bucket, &mut seen.contents, |_| true);
            tidied.map_err(|error| self.told(error))?;
            let done = next(&mut seen.contents)?;
            let put = buckets.swap(self.bucket, seen.word, &mut seen.contents);
            if put.map_err(|error| self.told(error))? {
                return Ok(done);
            }
        }
    }

    /// Converts an error. Returns `Stale` instead if the bundle was freed, which explains any
    /// error.
    fn told(&self, error: NameError) -> BundleError {
        match self.check_live() {
            Ok(()) => error.into(),
            Err(stale) => stale.into(),
        }
    }

    fn check_live(&self) -> Result<(), LeaseError> {
        self.table.tables().live(self.handle).map(drop)
    }
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

fn taken(name: &str, handle: AnyHandle) -> BundleError {
    BundleError::Taken {
        name: name.into(),
        handle,
    }
}

fn not_found(name: &str) -> BundleError {
    BundleError::NotFound { name: name.into() }
}

impl From<NameError> for BundleError {
    fn from(error: NameError) -> BundleError {
        match error {
            NameError::Lease(error) => BundleError::Lease(error),
            NameError::Alloc(error) => BundleError::Alloc(error),
            NameError::Join(error) => BundleError::Join(error),
            other => BundleError::Name(other),
        }
    }
}
