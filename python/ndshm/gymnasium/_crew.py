"""The workers of a vector environment, as its parent sees them."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.context import BaseContext
from typing import Any, NoReturn

import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import clear_mpi_env_vars

from .. import _pool_errors
from .._array import ndarray
from .._errors import NdshmError
from .._pool import Pool
from .._pool_calls import readonly
from .._running import Running
from .._table import Table
from . import _worker
from ._layout import Layout
from ._letters import GROUP, NOTHING, OP, WORDS, Arrays, Boxes

_GRACE = 1.0
_NUMBERS = count(1)


class WorkerDied(_pool_errors.WorkerDied):
    """A worker of a vector environment has died, and its environments with it.

    The other environments go on, and finish what they were told. `VectorEnv.restart()` makes the
    lost ones anew, and so does `VectorEnv.reset()`.
    """

    env_ids: list[int]
    """The environments that were lost."""

    def __init__(self, pid: int, exitcode: int | None, env_ids: list[int]) -> None:
        super().__init__(pid, exitcode, [], [])
        self.env_ids = env_ids
        self.args = (pid, exitcode, env_ids)

    def __str__(self) -> str:
        return (
            f"worker {self.pid} ended with exit code {self.exitcode}; the environments "
            f"{self.env_ids} were lost: make them anew by restart(), or reset() all"
        )


class Crew:
    """A pool whose open call runs the tiles of the environments.

    Between a death and the next order the call is ended: the environments that live finish what
    they do, the pool replaces the worker, and the next call begins.
    """

    def __init__(
        self,
        env_fns: Sequence[_worker.EnvFn],
        workers: int,
        table: Table,
        context: BaseContext,
        mode: AutoresetMode,
    ) -> None:
        self.count = len(env_fns)
        self._number: int | None = None
        source: bytes | int
        if context.get_start_method() == "fork":
            # They need not be picklable then.
            source = self._number = next(_NUMBERS)
            _worker.INHERITED[source] = env_fns
        else:
            source = cloudpickle.dumps(list(env_fns))
        self._setup = _worker.Setup(source, self.count, mode)
        try:
            with clear_mpi_env_vars():
                self._pool = Pool(workers, table, context, self._setup)
        except BaseException:
            self._forget()
            raise
        self._workers = workers
        parts = (self._envs_of(worker) for worker in range(workers))
        # The environments of each worker, by the first of them.
        self._all: dict[int, Sequence[int]] = {part[0]: part for part in parts}
        # Those of workers that answer together.
        self._groups: dict[int, Sequence[int]] = {}
        self._pids = self._pool.pids
        self._doors: ndarray | None = None
        self._words: Any = None
        self._running: Running | None = None
        # A worker has died, and the call was not ended since.
        self._has_failed = False
        self._reason: NdshmError | None = None
        # Environments that were told to do something, and whose answer was not taken since.
        self.busy: set[int] = set()
        # Environments that have answered, in the order in which they did.
        self._ready: list[int] = []
        # Environments whose worker has died, and that were not made anew.
        self.lost: set[int] = set()

    # ---- before the first call ------------------------------------------------------------------

    def spaces(self, only_different: bool) -> list[Any]:
        """Return metadata, render mode and spaces of each environment."""
        found: list[Any] = []
        for part in self._pool.broadcast(_worker.spaces, only_different):
            for entry in pickle.loads(part):
                found.append(found[-1] if entry is None else entry)
        return found

    def attach(self, layout: Layout, arrays: Arrays) -> None:
        """Give the workers the arrays, and begin."""
        self._setup.shared = (layout, arrays)
        self._doors, self._words = readonly(arrays.doors), Boxes(arrays).words
        self._pool.broadcast(_worker.attach, layout, arrays)
        self._begin()

    def _begin(self) -> None:
        """Begin a call, in which each environment is handed out at once."""
        assert self._doors is not None, "the arrays are there"
        self._groups.clear()
        for env in range(self.count):
            self._words[env * WORDS + GROUP] = 0
        for env in self.lost:
            self._words[env * WORDS + OP] = NOTHING
        with clear_mpi_env_vars():
            self._running = self._pool.start(_worker.run, (self._doors,), 1, static=True)
        if self._pool._core.wait_any(self.count) is None:
            self._fail()
        before, self._pids = self._pids, self._pool.pids
        new = [worker for worker, pid in enumerate(self._pids) if pid != before[worker]]
        if unknown := self._lose(new):
            raise WorkerDied(before[new[0]] or 0, None, unknown)

    # ---- calls ----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make sure that a call is open. Then the words of environments that are not busy may be
        written.
        """
        if self._has_failed:
            self._settle(None)
        if self._running is None:
            if dead := self._dead():
                self._raise(dead)
            self._begin()

    def recover(self) -> None:
        """As `prepare`, before environments are made anew: warn of a death that was not told."""
        for _ in range(self._workers):
            try:
                if not self._has_failed and self._running and (dead := self._dead()):
                    self._has_failed = True
                    self._raise(dead)
                return self.prepare()
            except WorkerDied as error:
                warnings.warn(
                    f"worker {error.pid} ended with exit code {error.exitcode}, and the environments "
                    f"{error.env_ids} were lost",
                    RuntimeWarning,
                    stacklevel=5,
                )
        self.prepare()

    def send(self, envs: list[int]) -> None:
        """Let environments do what their words say."""
        self._pool._core.again(envs)
        self.busy.update(envs)

    def send_together(self, envs: list[int]) -> None:
        """As `send`, but those of a worker answer together, which takes less time."""
        if len(envs) == self.count:
            groups = self._all
        else:
            chosen = set(envs)
            every = ((first, [e for e in part if e in chosen]) for first, part in self._all.items())
            groups = {first: part for first, part in every if part}
        tiles = list(groups)
        for first in tiles:
            self._words[first * WORDS + GROUP] = 1
        self._groups.update(groups)
        self._pool._core.again(tiles)
        self.busy.update(envs)

    def wait_any(self, wanted: int, timeout: float | None) -> list[int]:
        """Wait until that many environments have answered. Return them, or none after `timeout`.

        Raise `WorkerDied` once for a death. The answers of the others can be waited for then.
        """
        if not self._wait(lambda: wanted - len(self._ready), timeout):
            return []
        return self._ready[:wanted]

    def wait_for(self, envs: list[int], timeout: float | None) -> bool:
        """Wait until these environments have answered. Return False after `timeout`. Raise
        `WorkerDied` as `wait_any`.
        """
        wanted = set(envs)
        if not self._wait(lambda: len(wanted.difference(self._ready)), timeout):
            return False
        return True

    def _wait(self, missing: Callable[[], int], timeout: float | None) -> bool:
        """Wait until `missing` returns no number above 0."""
        end = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while (count := missing()) > 0:
            if left is not None and left < 0:
                return False
            if self._has_failed:
                self._settle(left)
            elif self._running is None:
                raise NdshmError("the environments that are waited for were lost: call restart()")
            else:
                groups = self._groups
                tiles = count
                if groups:
                    tiles = len(groups) if count >= len(self.busy) else 1
                answered = self._pool._core.wait_any(tiles, left)
                if answered is None:
                    self._fail()
                for tile in answered:
                    if tile in groups:
                        self._ready.extend(groups.pop(tile))
                    else:
                        self._ready.append(tile)
            left = None if end is None else end - time.monotonic()
        return True

    def take(self, envs: list[int]) -> None:
        """Take environments that have answered. They can be told something then."""
        if len(envs) == len(self._ready):
            self._ready = []
        else:
            taken = set(envs)
            self._ready = [env for env in self._ready if env not in taken]
        self.busy.difference_update(envs)

    def answered(self) -> list[int]:
        """Wait until no environment does anything. Return those that have answered."""
        if self._has_failed:
            self._settle(None)
        return self.wait_any(len(self.busy), None)

    # ---- deaths ---------------------------------------------------------------------------------

    def _envs_of(self, worker: int) -> range:
        return _worker.envs_of(worker, self._workers, self.count)

    def _lose(self, workers: list[int]) -> list[int]:
        """Note that workers have died. Return those of their environments that were not lost."""
        envs = {env for worker in workers for env in self._envs_of(worker)} - self.lost
        self.lost |= envs
        self.busy -= envs
        self._ready = [env for env in self._ready if env not in envs]
        return sorted(envs)

    def _dead(self) -> list[int]:
        """Return the workers whose processes have ended and are not known as dead."""
        return [
            worker
            for worker, process in enumerate(self._pool._workers)
            if process is not None
            and not process.is_alive()
            and not self.lost.issuperset(self._envs_of(worker))
        ]

    def _raise_deaths(self) -> None:
        """Raise `WorkerDied` if a worker has ended."""
        # The end of a process may be seen a moment after its seat is free.
        end = time.monotonic() + _GRACE
        while time.monotonic() < end:
            if dead := self._dead():
                self._raise(dead)
            time.sleep(0.001)

    def _raise(self, dead: list[int]) -> NoReturn:
        process = self._pool._workers[dead[0]]
        pid, exitcode = (0, None) if process is None else (process.pid or 0, process.exitcode)
        raise WorkerDied(pid, exitcode, self._lose(dead))

    def _fail(self) -> NoReturn:
        """Raise the reason for which the open call has failed."""
        self._has_failed = True
        self._raise_deaths()
        self._settle(None)
        raise NdshmError("the call of the workers has failed: call reset()") from self._reason

    def _settle(self, timeout: float | None) -> None:
        """Wait until the environments that live have done what they were told, and end the call.

        Raise `WorkerDied` if another worker has died meanwhile.
        """
        if not self._pool._core.wait(timeout):
            return
        running, self._running, self._has_failed = self._running, None, False
        try:
            if running is not None:
                running.finish()
        except NdshmError as error:
            # What was not run is found below.
            self._reason = error
        finally:
            done = {env for env in self.busy if self._words[env * WORDS + OP] == NOTHING}
            undone, self.busy = self.busy - done, done
            self._ready.extend(sorted(done.difference(self._ready)))
        if undone:
            self._raise_deaths()
            self.lost |= undone

    # ---- the end --------------------------------------------------------------------------------

    def end(self, timeout: float | None) -> bool:
        """Wait until no environment does anything, and end the call. Return False after
        `timeout`.
        """
        if self._running is not None and not self._pool._core.wait(timeout):
            return False
        self._has_failed = True
        self._settle(None)
        return True

    def is_whole(self) -> bool:
        """Return whether all workers live. The pool would replace one that has died."""
        alive = (process is not None and process.is_alive() for process in self._pool._workers)
        return not self.lost and all(alive)

    def close(self, terminate: bool) -> None:
        """End the workers. Without `terminate` they close the environments that they have."""
        try:
            if terminate:
                self._pool.terminate()
            else:
                self._pool.close()
        finally:
            self.leave()

    def leave(self) -> None:
        """Drop what a closed value does not need."""
        self._forget()
        self._setup.shared = self._doors = self._words = None

    def _forget(self) -> None:
        if self._number is not None:
            _worker.INHERITED.pop(self._number, None)
