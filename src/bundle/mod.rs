//! Bundles: a set of arrays, by names of its own, under one handle.
//!
//! A bundle is a bucket of names beside those of the table (see `../names/README.md`), whose arrays
//! belong to it: they live as long as it does.

mod handle;
#[cfg(all(test, not(loom)))]
mod tests;

use core::cell::{Cell, RefCell};
use core::fmt;

use ndarray::Dimension;

use crate::descriptor::{ControlKind, Descriptor};
use crate::element::Element;
use crate::error::{BundleError, LeaseError, NameError};
use crate::handle::{AnyHandle, Handle};
use crate::names::{self, Buckets, Contents, NameInfo, Value};
use crate::sync::{Atom, Ordering, Word};
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
use crate::word::BucketWord;
pub use handle::BundleHandle;

/// A set of arrays, each by a name, that is made, passed on, opened, listed and freed as one.
///
/// Its parts are arrays like any others: leased one by one, read and written in place. They belong to
/// the bundle: who frees it frees them, and they live as long as it does, whoever put them in or
/// adopts them. The bundle itself has an owner, and goes with it unless it is
/// [detached](HandleTable::detach). Small values are arrays without axes.
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
/// To change it, and to look a part up, waits for nobody. Of two who insert by one name one succeeds.
/// A participant may be killed at any moment: a part that it was inserting is in it, or freed.
pub struct Bundle<'t> {
    table: &'t HandleTable,
    handle: AnyHandle,
    /// Keeps the slot, whose number is that of the bucket.
    lease: RefCell<SharedLease<'t>>,
    /// The process whose lease it is.
    token: Cell<u64>,
    bucket: usize,
}

impl HandleTable {
    /// An empty bundle, which this participant owns.
    ///
    /// # Errors
    /// [`BundleError::Alloc`].
    pub fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        let reserved = self.reserve(size_of::<u64>() as u64)?;
        let (slot, generation) = (reserved.slot.index, reserved.word.generation());
        self.publish_record(reserved, |descriptor| {
            Descriptor::control(ControlKind::Bundle, 1).store(descriptor);
            // Relaxed: published with the slot.
            Descriptor::bundle(descriptor).store(BucketWord::EMPTY.bits(), Ordering::Relaxed);
        });
        self.open_bundle(BundleHandle::of(self.handle_of(slot, generation)))
    }

    /// Opens a bundle that some participant has made.
    ///
    /// # Errors
    /// [`BundleError::NotABundle`] if the handle names something else, [`BundleError::Lease`] if it
    /// was freed.
    pub fn open_bundle(&self, handle: BundleHandle) -> Result<Bundle<'_>, BundleError> {
        let handle = AnyHandle::from(handle);
        let lease = self.lease_shared(handle)?;
        let memory = self.segment().memory();
        let index = lease.slot.index;
        match names::is_bundle(memory, lease.slot) {
            true => Ok(Bundle {
                table: self,
                handle,
                lease: RefCell::new(lease),
                token: Cell::new(self.token()),
                bucket: memory.names().len() + index,
            }),
            false => Err(BundleError::NotABundle { handle }),
        }
    }

    /// Opens the bundle of that name.
    ///
    /// # Errors
    /// [`BundleError::Name`] if nothing is called so; as [`open_bundle`](HandleTable::open_bundle).
    pub fn find_bundle(&self, name: &str) -> Result<Bundle<'_>, BundleError> {
        loop {
            let handle = self.find_any(name)?;
            match self.open_bundle(BundleHandle::of(handle)) {
                // Freed since it was found: the name is another's by now, or nobody's.
                Err(BundleError::Lease(LeaseError::Stale { .. })) => {}
                outcome => return outcome,
            }
        }
    }

    /// Frees what a bundle holds that is not there any more: `word` is what its bucket held then. The
    /// caller has kept the bundle's slot, so that the bucket is still its own.
    ///
    /// Done by who has freed it, and by who has put another record into its bucket too late. What an
    /// error leaves is found by who reaps next: it belongs to a bundle that is not there.
    #[cold]
    pub(crate) fn free_parts(&self, bucket: usize, mut word: BucketWord) {
        let buckets = Buckets { table: self };
        while let Some((slot, generation)) = word.record() {
            let Ok(lease) = self.lease_shared(self.handle_of(slot, generation)) else {
                match buckets.load(bucket) {
                    Ok(now) if now != word => word = now,
                    // Somebody else has freed the parts, and then the record.
                    _ => return,
                }
                continue;
            };
            for (_, value) in buckets.contents(lease.slot, bucket).names {
                // Not what a damaged record names: a part knows that it is one.
                let part = self.slot(value.handle).is_some_and(|(slot, generation)| {
                    let words = self.segment().memory().descriptor(slot.index);
                    Descriptor::part_of(words, generation) == Some(bucket)
                });
                if part && let Ok(Some(following)) = self.free_slot(value.handle) {
                    self.forget_names(following.name);
                }
            }
            drop(lease);
            return buckets.free(word);
        }
    }
}

impl<'t> Bundle<'t> {
    /// The bundle's name for other processes; also to free, detach, adopt or publish it by.
    pub fn handle(&self) -> BundleHandle {
        BundleHandle::of(self.handle)
    }

    /// Gives an array that this participant owns to the bundle, under a name.
    ///
    /// The array stays what and where it is, and its handle good; its owner from now on is the bundle.
    ///
    /// # Errors
    /// - [`BundleError::Taken`] says what has the name already.
    /// - [`BundleError::NotOwned`] if another participant owns the array, or nobody does, or a bundle:
    ///   [adopt](HandleTable::adopt) it before. A bundle cannot be a part, nor can a queue.
    /// - [`BundleError::Frozen`], [`BundleError::Lease`] if the array is stale or is being written.
    pub fn insert(&self, name: &str, array: impl Into<AnyHandle>) -> Result<(), BundleError> {
        let handle = array.into();
        let key = names::checked(name)?;
        let me = self.enter_bundle()?;
        self.table.look().usable(handle)?;
        // The lease keeps the array's slot its own while it is marked.
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
        // An error says that it was freed just now.
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
        slot.detach_record(generation);
        if !self.table.is_part(self.bucket, handle) {
            // Who has taken it out, or has freed the bundle, may have died before freeing it.
            drop(lease);
            let _ = self.table.free(handle);
            self.check_live()?;
        }
        Ok(())
    }

    /// The part of that name.
    ///
    /// # Errors
    /// [`BundleError::NotFound`]; [`BundleError::Lease`] with
    /// [`TypeMismatch`](LeaseError::TypeMismatch) if it is of another type, and
    /// [`Stale`](LeaseError::Stale) if the bundle was freed.
    pub fn get<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, BundleError> {
        loop {
            match self.get_any(name)?.typed::<T, D>(self.table) {
                Ok(handle) => return Ok(handle),
                // Taken out since it was found.
                Err(LeaseError::Stale { .. }) => self.check_live()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The part of that name, of whichever type.
    ///
    /// # Errors
    /// [`BundleError::NotFound`].
    pub fn get_any(&self, name: &str) -> Result<AnyHandle, BundleError> {
        let key = names::checked(name)?;
        self.enter_bundle()?;
        let found = self.buckets().visit(self.bucket, names::find(&key));
        let (_, found) = found.map_err(|error| self.told(error))?;
        let live = |value: &Value| self.table.look().live(value.handle).is_ok();
        match found.flatten().filter(live) {
            Some(value) => Ok(value.handle),
            None => Err(not_found(name)),
        }
    }

    /// Frees the part of that name; who holds a lease of it keeps the bytes until it gives that back.
    ///
    /// # Errors
    /// [`BundleError::NotFound`], [`BundleError::Frozen`].
    pub fn remove(&self, name: &str) -> Result<(), BundleError> {
        let key = names::checked(name)?;
        self.enter_bundle()?;
        let removed = self.change(|contents| {
            let at = contents.position(&key).ok_or_else(|| not_found(name))?;
            Ok(contents.names.remove(at).1.handle)
        })?;
        // An error says that it was freed by its handle.
        let _ = self.table.free(removed);
        Ok(())
    }

    /// All parts, sorted by their names.
    pub fn parts(&self) -> Result<Vec<NameInfo>, BundleError> {
        self.enter_bundle()?;
        let seen = self.buckets().read(self.bucket);
        let mut contents = seen.map_err(|error| self.told(error))?.contents;
        contents
            .names
            .retain(|(_, value)| self.table.look().live(value.handle).is_ok());
        let mut parts: Vec<NameInfo> = contents.names.iter().map(NameInfo::of).collect();
        parts.sort();
        Ok(parts)
    }

    /// Nothing is put in or taken out any more, by anyone. The parts can be written still.
    pub fn freeze(&self) -> Result<(), BundleError> {
        self.enter_bundle()?;
        let place = self.place();
        // Relaxed: it publishes nothing, and what was published before it goes on through it.
        let _ = place.update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(BucketWord::from_bits(word).frozen().bits())
        });
        Ok(())
    }

    /// Returns `true` if somebody has frozen it, and in a fork's child also if it was freed before
    /// that child used it.
    pub fn is_frozen(&self) -> bool {
        // Without a lease of this process the slot may hold another bundle by now.
        self.enter_bundle().is_err()
            || BucketWord::from_bits(self.place().load(Ordering::Relaxed)).is_frozen()
    }

    fn place(&self) -> &Atom {
        let memory = self.table.segment().memory();
        Descriptor::bundle(memory.descriptor(self.bucket - memory.names().len()))
    }

    fn buckets(&self) -> Buckets<'t> {
        Buckets { table: self.table }
    }

    /// Puts what `next` makes of the contents in their place.
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
            let tidied = buckets.tidy(self.bucket, &mut seen.contents, |_| true);
            tidied.map_err(|error| self.told(error))?;
            let done = next(&mut seen.contents)?;
            let put = buckets.swap(self.bucket, seen.word, &mut seen.contents);
            if put.map_err(|error| self.told(error))? {
                return Ok(done);
            }
        }
    }

    /// An error as a bundle's: that it was freed, if that is behind it.
    fn told(&self, error: NameError) -> BundleError {
        match self.check_live() {
            Ok(()) => error.into(),
            Err(stale) => stale.into(),
        }
    }

    fn check_live(&self) -> Result<(), LeaseError> {
        self.table.look().live(self.handle).map(drop)
    }

    /// This participant's seat, whose lease of the bundle is held.
    fn enter_bundle(&self) -> Result<crate::word::SeatId, LeaseError> {
        let me = self.table.enter()?;
        if self.token.get() != self.table.token() {
            // A child's first use of a bundle that crossed a fork: the parent's lease says nothing of it.
            let lease = self.table.lease_shared(self.handle)?;
            drop(self.lease.replace(lease));
            self.token.set(self.table.token());
        }
        Ok(me)
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
