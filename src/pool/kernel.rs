//! From a typed kernel to an address that a forked worker can call, and back.

use core::any::type_name;
use core::ops::Range;

use bytemuck::{AnyBitPattern, NoUninit};

use super::mailbox::Arguments;
use crate::error::LeaseError;
use crate::handle::{AnyHandle, Handle};
use crate::partition::{Group, PartitionHandle};
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
use ndarray::Ix1;

/// What a kernel is told of the tile it works on.
#[derive(Debug)]
pub struct TileContext {
    pub(super) index: usize,
    pub(super) rows: Range<usize>,
    pub(super) worker: usize,
    pub(super) round: u64,
    pub(super) seed: u64,
}

impl TileContext {
    /// The tile's index in the partition.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The indices along the partition's axis that the tile covers.
    pub fn range(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The worker that runs the kernel, from 0. Results should not depend on it.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The number of this call on the pool, from 1.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The tile's own stream of random numbers in this call.
    ///
    /// ChaCha with 8 rounds, a counter-based generator: the key is the pool's
    /// [seed](super::Pool::seed) and the number of the call, the stream is the tile's index. So
    /// the numbers are the same for any number of workers, and no two tiles or calls share any.
    #[cfg(feature = "rand")]
    pub fn rng(&self) -> TileRng {
        use rand_core::SeedableRng;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&self.round.to_le_bytes());
        let mut rng = TileRng::from_seed(key);
        rng.set_stream(self.index as u64);
        rng
    }
}

/// The generator of [`TileContext::rng`].
#[cfg(feature = "rand")]
pub type TileRng = rand_chacha::ChaCha8Rng;

/// What a worker hands to the trampoline.
pub(super) struct Call<'a> {
    pub(super) table: &'a HandleTable,
    pub(super) arguments: Arguments,
    pub(super) round: u64,
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// Called for a tile whose kernel panicked, with the message.
    pub(super) on_panic: &'a dyn Fn(usize, &str),
}

/// The code that runs a kernel over the tiles of a round, in a worker.
pub(super) type Trampoline = fn(&Call<'_>) -> Result<(), crate::Error>;

/// The kernel `F` out of nothing: it has no captures, so that its type is all there is to it.
///
/// # Safety
/// A value of `F` was given to [`trampoline_of`], in this process or its parent.
unsafe fn conjure<F: Copy + 'static>() -> F {
    const { assert_captures_nothing::<F>() };
    // SAFETY: `F` is zero-sized (checked above), so reading it reads no bytes; a value of it
    // exists (the caller's duty) and `F: Copy`, so that another one may.
    unsafe { core::ptr::NonNull::<F>::dangling().read() }
}

const fn assert_captures_nothing<F>() {
    assert!(
        size_of::<F>() == 0,
        "a kernel must be a fn item or a closure without captures: pass values as parameters"
    );
}

/// The trampoline of kernel `F`.
pub(super) fn trampoline_of<G, P, R, F>(_kernel: F) -> Trampoline
where
    G: Group,
    P: AnyBitPattern + NoUninit,
    R: NoUninit,
    F: Fn(G::Views<'_>, &P, &TileContext) -> R + Copy + 'static,
{
    const { assert_captures_nothing::<F>() };
    run::<G, P, R, F>
}

fn run<G, P, R, F>(call: &Call<'_>) -> Result<(), crate::Error>
where
    G: Group,
    P: AnyBitPattern + NoUninit,
    R: NoUninit,
    F: Fn(G::Views<'_>, &P, &TileContext) -> R + Copy + 'static,
{
    // SAFETY: this instance of `run` is reached only through `trampoline_of::<.., F>`, which was
    // given a value of `F`.
    let kernel = unsafe { conjure::<F>() };
    let arguments = &call.arguments;
    let partition = call
        .table
        .open_partition(PartitionHandle::<G>::from_bits(arguments.partition))?;
    let params: P = read_params(call.table, arguments.params)?;
    let mut results = match arguments.results {
        0 => None,
        bits => Some(Results::<R>::open(call.table, bits)?),
    };
    let Some(mut part) = partition.enter_at(call.worker, call.workers)? else {
        return Ok(());
    };
    while let Some(index) = part.claim_index() {
        let mut tile = match part.tile(index) {
            Ok(tile) => tile,
            // Its bytes are no values of its type: the kernel cannot be given this tile.
            Err(error) => {
                (call.on_panic)(index, &error.to_string());
                continue;
            }
        };
        let context = TileContext {
            index: tile.index(),
            rows: tile.rows(),
            worker: call.worker,
            round: call.round,
            seed: arguments.seed,
        };
        let views = tile.views();
        // What a panic leaves half-done is the tile, and that is torn.
        let body = std::panic::AssertUnwindSafe(|| kernel(views, &params, &context));
        match std::panic::catch_unwind(body) {
            Ok(result) => {
                if let Some(results) = &mut results {
                    results.store(context.index, result);
                }
            }
            Err(payload) => {
                (call.on_panic)(context.index, message_of(&*payload));
                tile.tear();
                // Dropping what was thrown could throw again.
                core::mem::forget(payload);
            }
        }
    }
    Ok(())
}

fn message_of(payload: &(dyn core::any::Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(message) => message,
        None => payload
            .downcast_ref::<&str>()
            .unwrap_or(&"a panic without a message"),
    }
}

fn read_params<P: AnyBitPattern>(table: &HandleTable, bits: u64) -> Result<P, LeaseError> {
    let handle = Handle::<u8, Ix1>::from_bits(bits);
    let bytes = table.read(handle)?;
    let params = bytes
        .as_slice()
        .and_then(|bytes| bytemuck::try_pod_read_unaligned(bytes).ok());
    params.ok_or(LeaseError::Corrupt {
        handle: AnyHandle::from(handle),
        what: type_name::<P>(),
    })
}

/// One result a tile, each written by the worker that has claimed the tile.
pub(super) struct Results<'t, R> {
    first: *mut R,
    len: usize,
    /// Not for reading: it keeps the bytes in place if the parent gives the round up and frees the
    /// array while this worker is still at a tile.
    _lease: SharedLease<'t>,
}

impl<'t, R: NoUninit> Results<'t, R> {
    pub(super) fn open(table: &'t HandleTable, bits: u64) -> Result<Self, LeaseError> {
        const {
            assert!(
                align_of::<R>() <= crate::element::MAX_ALIGN,
                "a result's alignment must be at most 64"
            );
        }
        let lease = table.lease_shared(AnyHandle::from_bits(bits))?;
        let mut array = table.locate::<u8, Ix1>(lease.slot, lease.handle)?;
        Ok(Results {
            len: array.view.len() / size_of::<R>().max(1),
            first: array.view.as_mut_ptr().cast(),
            _lease: lease,
        })
    }

    fn store(&mut self, tile: usize, result: R) {
        if tile < self.len {
            // SAFETY: inside the array, which starts on a multiple of 64 bytes.
            let place = unsafe { self.first.add(tile) };
            // SAFETY: the lease keeps the array's bytes, and keeps writers out; the parent reads
            // them only after the round: this entry belongs to the claimed tile, so nobody else
            // accesses it.
            unsafe { place.write(result) };
        }
    }
}

/// The results of all tiles, in tile order.
pub(super) fn read_results<R: AnyBitPattern>(
    table: &HandleTable,
    handle: Handle<u8, Ix1>,
    tiles: usize,
) -> Result<Vec<R>, LeaseError> {
    let bytes = table.read(handle)?;
    let bytes = bytes.as_slice().unwrap_or(&[]);
    let size = size_of::<R>();
    Ok((0..tiles)
        .map(|tile| match bytes.get(tile * size..(tile + 1) * size) {
            Some(bytes) => bytemuck::pod_read_unaligned(bytes),
            None => R::zeroed(),
        })
        .collect())
}
