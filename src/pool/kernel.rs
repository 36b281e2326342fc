//! Conversion of a typed kernel to a callable address, and back.

use core::cell::Cell;

use super::context::{TileContext, WorkerContext};
use super::mailbox::{Arguments, Mailbox};
use super::params::{Kernel, Output, Param};
use super::report::{Cause, Work};
use super::results::Results;
use super::spin::Spin;
use super::stay::KeptMember;
use super::tile_notes::TileNotes;
use super::trace;
use super::unit::UnitContext;
use super::workers::platform::catch::catch;
use super::workers::platform::place;
use crate::error::Error;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::partition::{Group, PartitionHandle, RoundMember, UnitOf};
use crate::pool::error::PoolError;
use crate::table::error::LeaseError;

/// The data that a worker passes to the trampoline.
pub(super) struct Call<'a> {
    pub(super) table: &'a HandleTable,
    pub(super) mailbox: Mailbox<'a>,
    pub(super) spin: &'a Spin<'a>,
    pub(super) arguments: Arguments,
    /// The bytes of the parameters.
    pub(super) params: &'a [u8],
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// The worker's participation in a kept round, until the job uses it.
    pub(super) member: Cell<Option<KeptMember<'a>>>,
}

impl Call<'_> {
    /// Calls `run` with a participant of the job's round: the one that the worker has in a kept round,
    /// or one for this job. Does not call it if no round runs.
    fn in_round<G: Group>(
        &self,
        run: impl FnOnce(&mut RoundMember<'_, '_, G>) -> Work,
    ) -> Result<Work, Error> {
        let handle = PartitionHandle::<G>::from_bits(self.arguments.partition);
        if let Some(member) = self.member.take() {
            let worked = member.with(|part| match part.follow() {
                true => run(part),
                false => Work::default(),
            });
            return worked.ok_or_else(|| {
                let what = "a kept round of other arrays";
                self.table.core.tables().corrupt(handle.into(), what).into()
            });
        }
        let partition = self.table.open_partition(handle)?;
        match partition.enter_at(self.worker, self.workers)? {
            Some(mut part) => Ok(run(&mut part)),
            None => Ok(Work::default()),
        }
    }
}

/// The code that runs a kernel in a worker, over the tiles of a round or once.
pub(super) type Trampoline = fn(&Call<'_>) -> Result<Work, Error>;

/// Makes a value of the kernel type `F` without any bytes, because `F` has size zero.
///
/// # Safety
/// A value of `F` was given to a function of this module, in this process, in the process from
/// which it was forked, or in the process that spawned it. In the last case no value that `F`
/// captures stands for a state of the giving process; [`Pool::spawn`](super::Pool::spawn) states
/// this duty.
unsafe fn materialize_zst<F: Kernel>() -> F {
    const { <Captures<F>>::NONE };
    // SAFETY: `F` is zero-sized (checked above), so reading it reads no bytes. A value of `F`
    // exists (the caller's duty), and `F: Copy + Send`, so another value may exist in another
    // thread.
    unsafe { core::ptr::NonNull::<F>::dangling().read() }
}

/// The captures of a kernel. A call names [`NONE`](Captures::NONE) itself, and not only the functions
/// below it, so that the compiler's error names the line of the call.
pub(super) struct Captures<F>(core::marker::PhantomData<F>);

impl<F> Captures<F> {
    /// Fails to compile for a kernel with captures.
    pub(super) const NONE: () = assert!(
        size_of::<F>() == 0,
        "a kernel must be a fn item or a closure without captures: pass captured values as \
         parameters"
    );
}

/// Returns the trampoline that runs `kernel` on tiles.
#[track_caller]
pub(super) fn on_tiles<G, P, R, F, MP, MR>(kernel: F) -> Trampoline
where
    G: Group,
    P: Param<MP>,
    R: Output<MR>,
    F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
{
    place::note(&kernel);
    run_on_tiles::<G, P, R, F, MP, MR>
}

fn run_on_tiles<G, P, R, F, MP, MR>(call: &Call<'_>) -> Result<Work, Error>
where
    G: Group,
    P: Param<MP>,
    R: Output<MR>,
    F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
{
    // SAFETY: this instance is reached only through `on_tiles::<.., F>`, which was given a value of
    // `F`.
    let kernel = unsafe { materialize_zst::<F>() };
    let arguments = &call.arguments;
    let params: P = params_of(call)?;
    // A call that can send tiles back has notes of its tiles in place of results.
    let is_started = arguments.has(Arguments::EACH_TILE);
    let (mut results, notes) = match is_started {
        true => {
            let handle = AnyHandle::from_bits(arguments.results);
            (None, Some(TileNotes::open(call.table, handle)?))
        }
        false => (open_results(call)?, None),
    };
    // The parent learns of a torn tile by its claim. The failure must be there before.
    let fail = |index: usize, message: &str| match &notes {
        Some(notes) => notes.fail(index, call.worker, message),
        None => {
            let report = call.mailbox.report(call.worker);
            report.fail(arguments.call, Cause::Tile(index), message);
        }
    };
    let event = || {
        if is_started {
            call.mailbox.event();
        }
    };
    call.in_round::<G>(|part| {
        let own = part.partition().own_range(call.worker, call.workers);
        let mut work = Work::default();
        while let Some(index) = part.claim_index() {
            // The tile's bytes are invalid for their type: the kernel cannot get this tile.
            if let Err(error) = part.is_valid(index) {
                fail(index, &error.to_string());
                part.tear(index);
                event();
                continue;
            }
            let mut tile = place::at_call_of(&kernel, || part.open(index));
            work.tiles += 1;
            let stolen = !own.contains(&index);
            work.stolen += u64::from(stolen);
            trace::claimed(call.worker, index, stolen);
            let context = TileContext {
                tile: tile.tile_of(),
                worker: call.worker,
                call: arguments.call,
                seed: arguments.seed,
                step: 0,
                run: notes.as_ref().map_or(0, |notes| notes.runs(index)),
            };
            let views = tile.views();
            // Storing and dropping the result may run code of its type.
            let outcome = catch(|| {
                let result = kernel(views, &params, &context);
                if let Some(results) = &mut results {
                    result.store(results, index);
                }
            });
            match outcome {
                Ok(()) => drop(tile),
                Err(message) => {
                    fail(index, &message);
                    tile.tear();
                }
            }
            event();
        }
        work
    })
}

/// Returns the trampoline that runs `kernel` on units of tiles.
#[track_caller]
pub(super) fn on_units<G, P, F, M>(kernel: F) -> Trampoline
where
    G: Group,
    P: Param<M>,
    F: Fn(G::UnitViews<'_>, &P, &UnitContext<'_>) + Kernel,
{
    place::note(&kernel);
    run_on_units::<G, P, F, M>
}

fn run_on_units<G, P, F, M>(call: &Call<'_>) -> Result<Work, Error>
where
    G: Group,
    P: Param<M>,
    F: Fn(G::UnitViews<'_>, &P, &UnitContext<'_>) + Kernel,
{
    // SAFETY: this instance is reached only through `on_units::<.., F>`, which was given a value of
    // `F`.
    let kernel = unsafe { materialize_zst::<F>() };
    let arguments = &call.arguments;
    let params: P = params_of(call)?;
    // The parent learns of torn tiles by their claim. The failure must be there before.
    let fail = |first: usize, message: &str| {
        let report = call.mailbox.report(call.worker);
        report.fail(arguments.call, Cause::Tile(first), message);
    };
    call.in_round::<G>(|part| {
        let own = part.partition().own_range(call.worker, call.workers);
        let mut work = Work::default();
        while let Some(UnitOf { first, last, .. }) = part.claim_unit() {
            if let Err(error) = part.is_valid(first) {
                fail(first, &error.to_string());
                part.tear(first);
                continue;
            }
            let mut unit = place::at_call_of(&kernel, || part.open_unit(first, last));
            let stolen = !own.contains(&first);
            let tiles = (last + 1 - first) as u64;
            work.tiles += tiles;
            work.stolen += if stolen { tiles } else { 0 };
            trace::claimed_unit(call.worker, first..last + 1, stolen);
            let context = UnitContext {
                unit: unit.unit_of(),
                worker: call.worker,
                call: arguments.call,
                seed: arguments.seed,
                step: 0,
            };
            let views = unit.views();
            match catch(|| kernel(views, &params, &context)) {
                Ok(()) => drop(unit),
                Err(message) => {
                    fail(first, &message);
                    unit.tear();
                }
            }
        }
        work
    })
}

/// Returns the trampoline that runs `kernel` once in each worker.
pub(super) fn on_workers<P, R, F, MP, MR>(kernel: F) -> Trampoline
where
    P: Param<MP>,
    R: Output<MR>,
    F: Fn(&WorkerContext<'_>, &P) -> Result<R, Error> + Kernel,
{
    let _ = kernel;
    run_on_workers::<P, R, F, MP, MR>
}

fn run_on_workers<P, R, F, MP, MR>(call: &Call<'_>) -> Result<Work, Error>
where
    P: Param<MP>,
    R: Output<MR>,
    F: Fn(&WorkerContext<'_>, &P) -> Result<R, Error> + Kernel,
{
    // SAFETY: this instance is reached only through `on_workers::<.., F>`, which was given a value
    // of `F`.
    let kernel = unsafe { materialize_zst::<F>() };
    let arguments = &call.arguments;
    let params: P = params_of(call)?;
    let mut results = open_results(call)?;
    let base = arguments.flags >> Arguments::FLAGS;
    let context = WorkerContext {
        table: call.table,
        token: call.table.core.token(),
        mailbox: call.mailbox,
        spin: call.spin,
        worker: call.worker,
        workers: call.workers,
        call: arguments.call,
        seed: arguments.seed,
        base,
        epoch: Cell::new(base),
    };
    let report = call.mailbox.report(call.worker);
    let outcome = catch(|| {
        let result = kernel(&context, &params)?;
        if let Some(results) = &mut results {
            result.store(results, call.worker);
        }
        Ok(())
    });
    match outcome {
        Ok(Ok(())) => {}
        // The worker that broke the barrier reports the cause.
        Ok(Err(error @ Error::Pool(PoolError::BarrierBroken))) => {
            report.fail(arguments.call, Cause::Consequence, &error.to_string());
        }
        Ok(Err(error)) => report.fail(arguments.call, Cause::Kernel, &error.to_string()),
        Err(message) => report.fail(
            arguments.call,
            Cause::Kernel,
            &format!("it panicked: {message}"),
        ),
    }
    // This worker arrives at no further barrier of this call.
    call.mailbox.barrier().break_up(base);
    Ok(Work::default())
}

/// Reads the parameters of the call. This may run code of their type.
fn params_of<P: Param<M>, M>(call: &Call<'_>) -> Result<P, PoolError> {
    catch(|| P::from_bytes(call.params)).unwrap_or_else(|message| {
        Err(PoolError::Params {
            params: core::any::type_name::<P>(),
            message: format!("a panic: {message}"),
        })
    })
}

/// Opens the results of the call. Returns `None` if it has none.
fn open_results<'t>(call: &Call<'t>) -> Result<Option<Results<'t>>, LeaseError> {
    match call.arguments.results {
        0 => Ok(None),
        bits => Results::open(call.table, AnyHandle::from_bits(bits)).map(Some),
    }
}
