"""A pool of worker processes that run functions on tiles of arrays, in place."""

from __future__ import annotations

import multiprocessing
import operator
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any, Self

from ._caller import level_of_caller
from ._errors import NdshmError
from ._pool_answers import discard, loads
from ._pool_calls import Call
from ._pool_crew import Crew
from ._pool_functions import Function
from ._pool_sent import Sent
from ._pool_worker import BROADCAST, SETUP
from ._running import Running
from ._table import Table, default

_ALIVE = 0.002
"""Seconds after a call in which no look at the workers is needed."""

_STATIC_TILES = 2048
"""The most tiles that can be told apart: by their worker, or by the parent of a running call."""


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
        if not isinstance(context, BaseContext):
            context = multiprocessing.get_context(context)
        table = default() if table is None else table
        self._table = table
        self._seed = secrets.randbits(64)
        self._calls = 0
        self._setup = setup
        self._lock = threading.Lock()
        self._crew = Crew(table, context, count)
        self._core = self._crew.core
        self._sent = Sent(self._crew, table)
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
            answers = self._sent.once(BROADCAST, function, args)
            if len(answers) < len(self._crew):
                discard(answers)
                self._crew.doubt()
                raise NdshmError(
                    f"{len(answers)} of {len(self._crew)} workers have answered: the others have "
                    "ended before they were called; call again"
                )
        return loads(body for _, _, _, body in sorted(answers))

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
        call = self._sent.make(function, arrays, tile, args, False, counts_runs=True)
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
            call = self._sent.load(call)
            try:
                number, self._calls = self._calls, self._calls + 1
                tiles = call.divide(self._table)
                self._core.begin(tiles, call.key, self._seed_of(seed), number, static, True)
                self._crew.is_running = True
                return Running(self, self._crew, call, len(tiles))
            except BaseException:
                call.release()
                self._crew.give_up()
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
            recent = self._sent.recent
            # Usually it is the last call again.
            if recent and recent[0].is_same(function, arrays, tile, args, collect):
                call = recent[0]
            else:
                call = self._sent.find(function, arrays, tile, args, collect)
            # If the workers were alive a moment ago, the call itself reports a death since then.
            crew, now = self._crew, monotonic()
            if now > crew.alive_until or crew.is_running:
                self._ready()
            if not call.key:
                call = self._sent.load(call)
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
                        crew.alive_until = now + _ALIVE
                        return []
                    ended = plain
            except BaseException:
                self._crew.give_up()
                raise
            answers = crew.check(ended, call)
            if not collect:
                return []
            results: list[Any] = [None] * len(tiles)
            for part in loads(body for _, _, _, body in answers if body):
                for index, result in part:
                    results[index] = result
            return results

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
                stacklevel=level_of_caller(),
            )
            self._core.wait(None)
            return
        with tqdm(total=tiles, unit="tile") as bar:
            while not self._core.wait(0.1):
                bar.update(self._core.done() - bar.n)
            bar.update(self._core.done() - bar.n)

    @property
    def pids(self) -> list[int | None]:
        """Return the processes of the workers, in their order."""
        return [None if process is None else process.pid for process in self._workers]

    @property
    def _workers(self) -> list[BaseProcess | None]:
        """The processes of the workers, for other modules of the package."""
        return self._crew.processes

    def _ready(self) -> None:
        """Check that no call is open, and replace workers that have died."""
        if not self._crew.is_ready():
            self._repair()

    def _repair(self) -> None:
        """Start the workers that are missing, and set them up."""
        self._crew.fill()
        if self._crew.has_fresh:
            self._sent.forget()
            if self._setup is not None:
                self._sent.once(SETUP, self._setup, ())
        self._crew.trust()

    def close(self) -> None:
        """End the workers, and wait for them. A call that is running is cancelled."""
        self._crew.give_up()
        self._crew.end()

    def terminate(self) -> None:
        """Kill the workers at once."""
        self._crew.kill()
        self._crew.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ndshm.Pool of {len(self._crew)} workers, {self._crew.method}>"
