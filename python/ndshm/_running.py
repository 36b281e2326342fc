"""Calls that hand out single tiles while they run."""

from __future__ import annotations

import operator
from typing import NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._errors import NdshmError
from ._pool_calls import Call, Ended
from ._pool_crew import Crew
from ._pool_errors import WorkerDied


class Running:
    """A running call; see `Pool.start`.

    The arrays are leased until the call is over: at the end of a `with` block, or by `finish`. The
    parent reads and writes the rows of tiles that were handed out, and of no others.
    """

    __module__ = "ndshm"

    def __init__(self, pool: object, crew: Crew, call: Call, tiles: int) -> None:
        # A pool that nobody has ends its workers.
        self._pool = pool
        self._crew = crew
        self._call: Call | None = call
        # The tiles that were handed out and not sent back.
        self._resting = np.zeros(tiles, dtype=bool)

    def wait_any(self, count: int = 1) -> NDArray[np.intp]:
        """Wait until `count` tiles are ready, or all that the workers have if these are fewer.

        Return the indices of all tiles that are ready, each only once until it is sent back. Raise
        the exception of a worker, or `WorkerDied`: the call is over then.
        """
        if self._call is None:
            raise RuntimeError("the call is over: start another by Pool.start")
        core, wanted = self._crew.core, operator.index(count)
        if wanted < 0:
            raise ValueError(f"{wanted} tiles cannot be waited for: pass a number from 0 on")
        try:
            ready = core.wait_any(wanted)
        except BaseException as error:
            # Another thread uses the pool: the call is not over.
            if type(error) is not RuntimeError:
                self._abort()
            raise
        if ready is None:
            self._fail()
        indices = np.array(ready, dtype=np.intp)
        self._resting[indices] = True
        return indices

    def again(self, tiles: ArrayLike) -> None:
        """Send tiles back that were handed out: a worker runs each once more.

        It sees what was written to the tile here. Each run draws random numbers of its own.
        """
        if self._call is None:
            raise RuntimeError("the call is over: start another by Pool.start")
        indices = np.array(tiles, dtype=np.intp, ndmin=1).ravel()
        outside = (indices < 0) | (indices >= len(self._resting))
        wrong = indices[outside] if outside.any() else indices[~self._resting[indices]]
        if len(wrong) or len(np.unique(indices)) < len(indices):
            raise ValueError(
                f"the tiles {(wrong if len(wrong) else indices).tolist()} were not handed out by "
                "wait_any, or are sent back twice: pass indices that wait_any has returned, each once"
            )
        self._resting[indices] = False
        if self._call.runs is not None:
            # Before they are sent back: then a worker reads it.
            self._call.runs[indices] += 1
        self._crew.core.again(indices.tolist())

    def finish(self) -> None:
        """Wait until all tiles were run, and end the call. Raise the exception of a worker."""
        if self._call is None:
            return
        core = self._crew.core
        try:
            core.wait(None)
            ended = core.end()
        except BaseException as error:
            # As in `wait_any`.
            if type(error) is not RuntimeError:
                self._abort()
            raise
        self._end(ended, False)

    def _fail(self) -> NoReturn:
        """End the call because of a failure, and raise that."""
        crew = self._crew
        dead = crew.dead()
        try:
            killed = crew.cancel()
            crew.doubt()
            if not killed:
                # The end of a process may be seen a moment after its seat is free.
                dead = dead or crew.dead()
            self._end(crew.core.end(), killed)
        except BaseException as error:
            self._abort()
            # Rows that were not run follow from the death.
            if dead is None or type(error) is not NdshmError:
                raise
        if dead is None:
            raise NdshmError("the call has ended without an answer of its workers: start another")
        # It held no tile.
        raise WorkerDied(*dead, [], [])

    def _end(self, ended: Ended, killed: bool) -> None:
        call, self._call = self._call, None
        self._crew.is_running = False
        if call is not None:
            call.release()
        self._crew.check(ended, call, killed)

    def _abort(self) -> None:
        """End the call in any case."""
        if self._call is not None:
            self._crew.abort()
            call, self._call = self._call, None
            call.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._abort()

    def __del__(self) -> None:
        try:
            self._abort()
        except Exception:
            # The pool was closed, or not made to its end.
            pass

    def __repr__(self) -> str:
        state = "over" if self._call is None else "running"
        return f"<ndshm.Running, {state}>"
