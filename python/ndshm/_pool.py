"""A pool of worker processes that run functions on tiles of arrays, in place."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import secrets
import select
import signal
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from time import monotonic
from types import TracebackType
from typing import Any, Self

from . import _ndshm
from ._errors import NdshmError
from ._pool_calls import KEPT, Answer, Call, Ended, warn_of_size
from ._pool_errors import WorkerDied, spell, tile_of, unpack
from ._pool_functions import Function, FunctionNotFound, by_value, extras, spec
from ._pool_worker import BROADCAST, LOAD, SETUP, main
from ._running import Running
from ._table import Table, default

_SLICE = 0.04
_GRACE = 1.0
_ALIVE = 0.002
_STATIC_TILES = 2048


class Pool:
    """Worker processes that run a function on tiles of arrays, in place.

    `workers` is their number, by default one for each processor. `table` is the table of the
    arrays, by default `ndshm.default()`. `context` is a start method of `multiprocessing` or one of
    its contexts. `setup` is a function that each worker calls once, also one that replaces a worker
    that has died; what it returns is the worker's `state`.

    A *tile* is some neighbouring rows of each array. A function gets a tile of each array as a
    plain numpy array, and then the arguments of the call:

    >>> import ndshm
    >>> def step(x, w, dt, rng):
    ...     x += dt * rng.standard_normal(x.shape) + w[:, None]
    >>> x, w = ndshm.zeros((1000, 3)), ndshm.full(1000, 0.5)
    >>> with ndshm.Pool(2) as pool:
    ...     for _ in range(4):
    ...         pool.for_tiles(step, (x, w), 64, 0.1, seed=42)
    >>> bool(abs(x.mean() - 2.0) < 0.05)
    True

    Each array of a call is written, unless it is read-only (`ndshm.readonly(x)`), or every tile
    sees all of it (`ndshm.whole(x)`). During the call the arrays are leased: others get `Busy`. If
    a worker dies, or its function raises an exception, the arrays that it was writing are poisoned.

    A function gets these arguments by name if it has such parameters and the other arguments do not
    reach them:

    - `rng`: a `numpy.random.Generator` of the tile, which depends on the seed, the number of the
      call in this pool, and the tile. So the numbers are the same for any number of workers. It is
      for this tile only.
    - `tile`: the index of the tile.
    - `state`: what `setup` has returned in this worker.
    - `worker`, `workers`: the number of the worker, from 0, and the number of all.

    A function is sent by its name, if the workers can import it. Others, such as lambdas, need
    `cloudpickle`. The pool is used by one thread at a time. `close` or the end of a `with` block
    ends the workers, and so does dropping the pool.
    """

    __module__ = "ndshm"

    def __init__(
        self,
        workers: int | None = None,
        table: Table | None = None,
        context: str | BaseContext | None = None,
        setup: Function | None = None,
    ) -> None:
        count = os.cpu_count() or 1 if workers is None else operator.index(workers)
        if count < 1:
            raise ValueError(
                f"a pool of {workers} workers is not possible: pass a number from 1 on"
            )
        if isinstance(context, BaseContext):
            self._context = context
        else:
            self._context = multiprocessing.get_context(context)
        self._table = default() if table is None else table
        self._seed = secrets.randbits(64)
        self._calls = 0
        self._key = 0
        # The calls that the workers have, the latest first.
        self._recent: list[Call] = []
        self._dropped: list[int] = []
        self._by_value: weakref.WeakSet[Function] = weakref.WeakSet()
        self._setup = setup
        self._is_running = False
        self._lock = threading.Lock()
        self._core = _ndshm.PoolParent(self._table, count)
        self._pid = os.getpid()
        self._workers: list[BaseProcess | None] = [None] * count
        self._poll = select.poll()
        # The first: all workers live and are set up. The second: some are new and not set up.
        self._is_whole, self._has_fresh = False, False
        # No look at the workers is needed before that time.
        self._alive_until = 0.0
        self._finalize = util.Finalize(
            self, _end, args=(self._core, self._workers), exitpriority=15
        )
        try:
            self._repair()
        except BaseException:
            self.terminate()
            raise

    # ---- calls ----------------------------------------------------------------------------------

    def for_tiles(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        *args: Any,
        seed: int | None = None,
        static: bool = False,
        progress: bool = False,
    ) -> None:
        """Call `function(*tiles, *args)` for each tile of `tile` rows of the arrays.

        With `static` a tile is run by the same worker in each call, for functions that keep
        something of a tile in their worker. `progress` shows a bar, if `tqdm` is installed.

        The worker's exception is raised here, with its traceback. `WorkerDied` names the rows that
        a dead worker may have left half-written. `Busy`, `Poisoned` and `Stale` are raised before
        anything is run.

        >>> import ndshm
        >>> def double(x):
        ...     x *= 2
        >>> x = ndshm.array([1, 2, 3])
        >>> with ndshm.Pool(2) as pool:
        ...     pool.for_tiles(double, (x,), 1)
        >>> print(x)
        [2 4 6]
        """
        self._run(function, arrays, tile, args, seed, static, progress, False)

    def map_tiles(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        *args: Any,
        seed: int | None = None,
        static: bool = False,
        progress: bool = False,
    ) -> list[Any]:
        """As `for_tiles`, and return the results of all tiles, in their order.

        The results are pickled. Arrays of a table that the function makes are handed over.

        >>> import ndshm
        >>> x = ndshm.array([1.0, 2.0, 3.0, 4.0], readonly=True)
        >>> with ndshm.Pool(2) as pool:
        ...     pool.map_tiles(len, (x,), 3)
        [3, 1]
        """
        return self._run(function, arrays, tile, args, seed, static, progress, True)

    def reduce_tiles(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        *args: Any,
        combine: Callable[[Any, Any], Any] = operator.add,
        seed: int | None = None,
        static: bool = False,
        progress: bool = False,
    ) -> Any:
        """As `map_tiles`, and combine the results from the first tile to the last.

        So the result is the same to the last bit for any number of workers. It is None if the
        arrays have no rows.

        >>> import ndshm, numpy as np
        >>> x = ndshm.array(np.arange(1000.0), readonly=True)
        >>> with ndshm.Pool(2) as pool:
        ...     print(pool.reduce_tiles(np.sum, (x,), 64))
        ...     print(pool.reduce_tiles(np.max, (x,), 64, combine=max))
        499500.0
        999.0
        """
        results = self._run(function, arrays, tile, args, seed, static, progress, True)
        if not results:
            return None
        combined = results[0]
        for result in results[1:]:
            combined = combine(combined, result)
        return combined

    def broadcast(self, function: Function, *args: Any) -> list[Any]:
        """Call `function(*args)` once in each worker. Return the results in the workers' order.

        >>> import ndshm
        >>> def name(prefix, worker):
        ...     return f"{prefix}{worker}"
        >>> with ndshm.Pool(2) as pool:
        ...     pool.broadcast(name, "w")
        ['w0', 'w1']
        """
        with self._alone():
            self._ready()
            answers = self._once(BROADCAST, function, args)
            if len(answers) < len(self._workers):
                _discard(answers)
                self._doubt()
                raise NdshmError(
                    f"{len(answers)} of {len(self._workers)} workers have answered: the others have "
                    "ended before they were called; call again"
                )
        return _loads(body for _, _, _, body in sorted(answers))

    def start(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        *args: Any,
        seed: int | None = None,
        static: bool = False,
    ) -> Running:
        """Begin to call `function(*tiles, *args)` for each tile, and do not wait.

        `Running.wait_any` hands out tiles as they become ready, and `Running.again` sends them
        back. The arrays have at most 2,048 tiles. What the function returns is ignored.

        >>> import ndshm
        >>> def advance(x, action):
        ...     x += action
        >>> x, action = ndshm.zeros(8), ndshm.full(8, 1.0)
        >>> with ndshm.Pool(2) as pool, pool.start(advance, (x, action), 1) as running:
        ...     for _ in range(100):
        ...         ready = running.wait_any(4)
        ...         action[ready] = x[ready] % 3
        ...         running.again(ready)
        """
        call = Call(
            self._table, function, arrays, tile, args, False, self._is_named(function), True
        )
        try:
            return self._start(call, seed, static)
        except BaseException:
            call.release()
            raise

    def _start(self, call: Call, seed: int | None, static: bool) -> Running:
        if call.rows > _STATIC_TILES * call.tile:
            raise ValueError(
                f"{-(-call.rows // call.tile)} tiles are too many to be handed out one by one: pass "
                f"a tile length of at least {-(-call.rows // _STATIC_TILES)} rows"
            )
        if not call.rows:
            raise ValueError("the arrays have no rows, so there is no tile to run")
        with self._alone():
            self._ready()
            call = self._load_or_by_value(call)
            try:
                number, self._calls = self._calls, self._calls + 1
                tiles = call.divide(self._table)
                self._core.begin(tiles, call.key, self._seed_of(seed), number, static, True)
                self._is_running = True
                return Running(self, call, len(tiles))
            except BaseException:
                call.release()
                self._give_up()
                raise

    def _alone(self) -> threading.Lock:
        """Return a lock that the caller leaves free, if no other thread uses the pool."""
        if self._lock.locked():
            raise RuntimeError(
                "another thread uses the pool at this moment: make a pool for each thread, or take "
                "a lock around its calls"
            )
        return self._lock

    def _run(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        seed: int | None,
        static: bool,
        progress: bool,
        collect: bool,
    ) -> list[Any]:
        lock = self._lock
        if lock.locked():
            self._alone()
        with lock:
            recent = self._recent
            # Usually it is the last call again.
            if recent and recent[0].is_same(function, arrays, tile, args, collect):
                call = recent[0]
            else:
                call = self._find(function, arrays, tile, args, collect)
            # If the workers were alive a moment ago, the call itself reports a death since then.
            if monotonic() > self._alive_until or self._is_running:
                self._ready()
            if not call.key:
                call = self._load_or_by_value(call)
            number = self._calls
            self._calls = number + 1
            seed = self._seed if seed is None else self._seed_of(seed)
            tiles = call.tiles
            if tiles is None:
                if not call.rows:
                    return []
                tiles = call.divide(self._table)
            if static and len(tiles) > _STATIC_TILES:
                raise ValueError(
                    f"{len(tiles)} tiles are too many for static=True: pass a tile length of at "
                    f"least {-(-call.rows // _STATIC_TILES)} rows"
                )
            try:
                if progress:
                    self._core.begin(tiles, call.key, seed, number, static, False)
                    self._show(len(tiles))
                    ended = self._core.end()
                else:
                    plain = self._core.run(tiles, call.key, seed, number, static)
                    if plain is None:
                        self._alive_until = monotonic() + _ALIVE
                        return []
                    ended = plain
            except BaseException:
                self._give_up()
                raise
            answers = self._check(ended, call)
            if not collect:
                return []
            results: list[Any] = [None] * len(tiles)
            for part in _loads(body for _, _, _, body in answers if body):
                for index, result in part:
                    results[index] = result
            return results

    def _find(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        collect: bool,
    ) -> Call:
        """Return the call with these arguments that the workers have, or a new one."""
        recent = self._recent
        for place, known in enumerate(recent):
            if known.is_same(function, arrays, tile, args, collect):
                recent.insert(0, recent.pop(place))
                return known
        call = Call(self._table, function, arrays, tile, args, collect, self._is_named(function))
        for place, known in enumerate(recent):
            if known.blob == call.blob:
                # The arrays are the same, but perhaps not their views.
                known.known = call.known
                recent.insert(0, recent.pop(place))
                return known
        return call

    def _load_or_by_value(self, call: Call) -> Call:
        """Send a call to the workers: with its function by value, if they do not know its name."""
        try:
            self._load(call)
        except FunctionNotFound:
            if not self._must_send_by_value(call.function):
                raise
            call.release()
            call = call.by_value(self._table)
            self._load(call)
        return call

    def _must_send_by_value(self, function: Function) -> bool:
        """Note that the workers do not know a function. Return False if sending it by value would
        not help.
        """
        if not isinstance(function, types.FunctionType) or function.__module__ != "__main__":
            return False
        self._by_value.add(function)
        return True

    def _is_named(self, function: Function) -> bool:
        return not (isinstance(function, types.FunctionType) and function in self._by_value)

    def _load(self, call: Call) -> None:
        if call.key:
            return
        recent = self._recent
        for known in [known for known in recent if known.is_gone()] + recent[KEPT - 1 :]:
            if known in recent:
                recent.remove(known)
                self._dropped.append(known.key)
        warn_of_size(call.function, len(call.blob))
        self._key += 1
        key, dropped = self._key, self._dropped
        try:
            self._call(LOAD, pickle.dumps((key, call.blob, dropped)), call)
        except BaseException:
            # Some workers may have it.
            dropped.append(key)
            raise
        self._dropped = []
        call.key = key
        recent.insert(0, call)

    def _once(self, number: int, function: Function, args: tuple[Any, ...]) -> list[Answer]:
        """Call a function once in each worker, and return the answers."""
        try:
            return self._call(number, self._pack(function, args), None)
        except FunctionNotFound:
            if not self._must_send_by_value(function):
                raise
            return self._call(number, self._pack(function, args), None)

    def _call(self, number: int, body: bytes, call: Call | None) -> list[Answer]:
        """Call all workers with bytes, and return their answers."""
        try:
            ended = self._core.call(number, body)
        except BaseException:
            self._give_up()
            raise
        return self._check(ended, call)

    def _check(self, ended: Ended, call: Call | None, killed: bool = False) -> list[Answer]:
        """Raise the error of a call that has ended, or return its answers. Pass `killed` if the pool
        has killed workers because of an error.
        """
        answers, torn, missing = ended
        if torn or missing or any(kind != "finished" for _, _, kind, _ in answers):
            _discard(answers)
        if killed:
            for _, pid, kind, body in answers:
                if kind == "failed":
                    raise self._failure(pid, body, call, missing)
        for worker, pid, kind, _ in answers:
            if kind in ("died", "left"):
                self._doubt()
                exitcode = self._exitcode(worker, pid)
                rows = [] if call is None else call.rows_of(torn)
                raise WorkerDied(pid, exitcode, rows, [] if call is None else call.rows_of(missing))
        for worker, pid, kind, body in answers:
            if kind == "failed":
                raise self._failure(pid, body, call, missing)
            if kind == "lost":
                self._doubt()
                raise NdshmError(
                    f"the answer of worker {pid} was lost: it has ended before that was read"
                )
        if call is not None and (torn or missing):
            self._doubt()
            left = spell(call.rows_of([*torn, *missing]))
            raise NdshmError(
                f"no worker has run the rows {left} of the call to their end; call again"
            )
        return answers

    def _failure(self, pid: int, body: bytes, call: Call | None, missing: list[int]) -> Exception:
        raised = unpack(body)
        tile = tile_of(body)
        if tile is not None and call is not None:
            rows = call.rows_of([tile])[0]
            note = (
                f"raised in worker {pid} of the pool, on tile {tile}: rows {rows.start}:{rows.stop}"
            )
            if call.writes():
                note += (
                    "; the arrays that it writes are poisoned: see x.recover() and x.clear_poison()"
                )
            if missing:
                note += f"; the rows {spell(call.rows_of(missing))} were not run"
            raised.add_note(note)
        return raised

    def _pack(self, function: Function, args: tuple[Any, ...]) -> bytes:
        """Return a function to call once in a worker, as bytes."""
        how = spec(function)[0] if self._is_named(function) else by_value(function, True)
        names = sorted(extras(function, len(args)) - {"rng", "tile"})
        body = pickle.dumps((how, args, names))
        warn_of_size(function, len(body))
        return body

    def _seed_of(self, seed: int | None) -> int:
        if seed is None:
            return self._seed
        number = operator.index(seed)
        if not 0 <= number < 1 << 64:
            raise ValueError(f"the seed {seed} is not possible: pass a number from 0 to 2**64 - 1")
        return number

    def _show(self, tiles: int) -> None:
        """Wait until the open call is over, with a bar."""
        try:
            # Not every program has it, nor its types.
            from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            warnings.warn(
                "progress=True shows a bar if tqdm is installed (pip install tqdm)",
                RuntimeWarning,
                stacklevel=4,
            )
            self._core.wait(None)
            return
        with tqdm(total=tiles, unit="tile") as bar:
            while not self._core.wait(0.1):
                bar.update(self._core.done() - bar.n)
            bar.update(self._core.done() - bar.n)

    def _abort(self) -> None:
        """End an open call that an exception interrupts, as KeyboardInterrupt."""
        is_open = self._core.is_open
        self._is_running = False
        if not is_open:
            return
        self._cancel()
        self._doubt()
        try:
            _discard(self._core.end()[0])
        except NdshmError:
            pass

    def _give_up(self) -> None:
        """End an open call because of an exception, which the caller raises."""
        try:
            self._abort()
        except RuntimeError:
            # Another thread has closed the pool.
            pass

    def _cancel(self) -> bool:
        """Cancel the open call. Return True if workers were killed for that."""
        if self._core.cancel(_GRACE):
            return False
        # They are in long tiles. The arrays of these are poisoned.
        self._kill()
        self._core.cancel(_GRACE)
        return True

    # ---- workers --------------------------------------------------------------------------------

    @property
    def pids(self) -> list[int | None]:
        """Return the processes of the workers, in their order."""
        return [None if process is None else process.pid for process in self._workers]

    def _ready(self) -> None:
        """Check that no call is open, and replace workers that have died."""
        if self._is_running:
            raise RuntimeError("a call of the pool is running: finish() it first")
        if not self._is_whole or self._poll.poll(0):
            self._repair()

    def _doubt(self) -> None:
        """Look at the workers before the next call."""
        self._is_whole, self._alive_until = False, 0.0

    def _repair(self) -> None:
        """Start the workers that are missing, and set them up."""
        hired: set[int | None] = set()
        while True:
            for worker, process in enumerate(self._workers):
                if process is not None and process.is_alive():
                    continue
                if process is not None:
                    if process.pid in hired:
                        raise NdshmError(
                            f"worker {process.pid} ended with exit code {process.exitcode} before "
                            "it was ready, see its message above: with spawn and forkserver it "
                            "imports the main module of the program, which makes its pool below "
                            '`if __name__ == "__main__":`'
                        )
                    self._poll.unregister(process.sentinel)
                    self._workers[worker] = None
                    process.join()
                    process.close()
                hired.add(self._hire(worker))
            if self._core.wait_for_workers(len(self._workers), _SLICE):
                break
        if self._has_fresh:
            # They have none of the calls.
            for call in self._recent:
                self._dropped.append(call.key)
                call.key = 0
            self._recent = []
            if self._setup is not None:
                self._once(SETUP, self._setup, ())
            self._has_fresh = False
        self._is_whole = True

    def _hire(self, worker: int) -> int | None:
        """Start a worker, and return its pid."""
        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
            target=main,
            args=(self._table, self._core.handle, worker, len(self._workers)),
            name=f"ndshm-worker-{worker}",
            daemon=True,
        )
        # A Ctrl-C that comes before the worker has its handler is blocked until then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            self._has_fresh = True
            process.start()
            self._workers[worker] = process
            self._poll.register(process.sentinel, select.POLLIN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process.pid

    def _exitcode(self, worker: int, pid: int) -> int | None:
        process = self._workers[worker]
        if process is None or process.pid != pid:
            return None
        process.join(_GRACE)
        return process.exitcode

    def _dead(self) -> tuple[int, int | None] | None:
        """Return the pid and the exit code of a worker that has ended."""
        for process in self._workers:
            if process is not None and process.pid is not None and not process.is_alive():
                return process.pid, process.exitcode
        return None

    def _kill(self) -> None:
        # In a forked child they are the parent's.
        if os.getpid() != self._pid:
            return
        for process in self._workers:
            if process is not None:
                process.kill()
        for process in self._workers:
            if process is not None:
                process.join()

    def close(self) -> None:
        """End the workers, and wait for them. A call that is running is cancelled."""
        try:
            self._abort()
        except RuntimeError:
            pass
        self._finalize()

    def terminate(self) -> None:
        """Kill the workers at once."""
        self._kill()
        self._finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ndshm.Pool of {len(self._workers)} workers, {self._context.get_start_method()}>"


def _loads(bodies: Iterable[bytes]) -> list[Any]:
    """Load results. If one cannot be loaded, the others are all the same: the arrays in them are this
    process's then, and are freed.
    """
    results: list[Any] = []
    failure: Exception | None = None
    for body in bodies:
        try:
            results.append(pickle.loads(body))
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return results


def _discard(answers: list[Answer]) -> None:
    """Free the arrays in results that nobody gets."""
    for _, _, kind, body in answers:
        if kind == "finished" and body:
            try:
                pickle.loads(body)
            except Exception:
                # The arrays that it had loaded before are freed.
                pass


def _end(core: _ndshm.PoolParent, workers: list[BaseProcess | None]) -> None:
    """End the workers of a pool that is closed, dropped, or left when the interpreter ends."""
    core.close()
    deadline = monotonic() + 5.0
    for process in workers:
        if process is None:
            continue
        process.join(max(0.0, deadline - monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
