"""The life of a vector environment: how it begins, what it waits for, and how it ends."""

from __future__ import annotations

import multiprocessing
import operator
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, logger
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from .._errors import NdshmError
from .._table import Table, default
from ._crew import Crew, WorkerDied
from ._exchange import Exchange, Letters
from ._layout import layout_of
from ._letters import CLOSE, Arrays
from ._spaces import Mode, make_arrays, spaces_of

_MOST = 2048
"""The number of tiles that a pool hands out one by one."""


class Life(gymnasium.vector.VectorEnv[Any, Any, NDArray[Any]]):  # type: ignore[misc,unused-ignore]
    """The part of `VectorEnv` that makes it, keeps what it waits for, and ends it."""

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Env[Any, Any]]],
        shared_memory: bool = True,
        copy: bool = True,
        context: str | BaseContext | None = None,
        *,
        observation_mode: Mode = "same",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        workers: int | None = None,
        table: Table | None = None,
    ) -> None:
        # `close` is called also for a value that was not made to its end.
        self.closed = True
        self._pid = os.getpid()
        self.env_fns = env_fns = list(env_fns)
        self.num_envs = count = len(env_fns)
        if not 1 <= count <= _MOST:
            raise ValueError(
                f"{count} environments are not possible: pass a list of 1 to {_MOST} functions"
            )
        processes = len(os.sched_getaffinity(0)) if workers is None else operator.index(workers)
        if processes < 1:
            raise ValueError(f"{workers} workers are not possible: pass a number from 1 on")
        self.workers = processes = min(processes, count)
        self.shared_memory, self.copy, self.observation_mode = shared_memory, copy, observation_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if not isinstance(context, BaseContext):
            context = multiprocessing.get_context(context)
        table = default() if table is None else table
        self._waiting: str | None = None
        self._crew = Crew(env_fns, processes, table, context, self.autoreset_mode)
        self._arrays: Arrays | None = None
        try:
            found = self._crew.spaces(observation_mode == "same")
            made = spaces_of(found, observation_mode)
            layout = layout_of(made.single_observation_space, shared_memory)
            self._arrays = make_arrays(table, count, layout, made.single_action_space)
            self._crew.attach(layout, self._arrays)
        except BaseException as error:
            self._end(not isinstance(error, Exception))
            raise
        self.__dict__.update(vars(made))
        self.metadata = {**found[0][0], "autoreset_mode": self.autoreset_mode}
        self.render_mode = found[0][1]
        self._exchange = Exchange(self._crew, self._arrays, layout)
        self._everyone = self._exchange.everyone
        # Environments that were told to reset, and were not received since.
        self._resetting: set[int] = set()
        self.closed = False

    # ---- states ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(
                f"Trying to operate on `{type(self).__name__}`, after a call to `close()`."
            )

    def _check_idle(self, name: str, recovers: bool = False) -> None:
        """Check that no answers are waited for, and drop those of calls that have failed."""
        self._check_open()
        if self._waiting is not None:
            raise AlreadyPendingCallError(
                f"Calling `{name}` while waiting for a pending call to `{self._waiting}` to complete",
                self._waiting,
            )
        self._resetting.clear()
        if recovers:
            self._crew.recover()
        if self._crew.busy:
            self._exchange.drop(self._crew.answered())

    def _check_waiting(self, name: str) -> None:
        self._check_open()
        if self._waiting != name:
            raise NoAsyncCallError(
                f"Calling `{name}_wait` without any prior call to `{name}_async`.", name
            )

    def _check_made(self, envs: list[int]) -> None:
        if lost := self._crew.lost.intersection(envs):
            raise RuntimeError(
                f"the environments {sorted(lost)} were lost with their worker: make them anew by "
                "restart(), or reset() all"
            )

    def _wait(self, envs: list[int], timeout: float | None) -> Letters:
        """Wait for the answers of environments, and return their letters."""
        name = self._waiting
        try:
            has_answered = self._crew.wait_for(envs, timeout)
        except NdshmError:
            self._waiting = None
            raise
        if not has_answered:
            raise multiprocessing.TimeoutError(
                f"The call to `{name}_wait` has timed out after {timeout} second(s): the environments "
                "go on, and can be waited for again."
            )
        self._waiting = None
        return self._exchange.collect(envs)

    def _forget_received(self) -> None:
        """Note what is waited for still, after `recv` or `restart`."""
        busy = self._crew.busy
        self._resetting &= busy
        if not busy and self._waiting == "recv":
            self._waiting = None

    # ---- the end --------------------------------------------------------------------------------

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments, and end the workers. The function behind `close`.

        Environments that are in a call are waited for, and then closed. Where both together take
        longer than `timeout` seconds the workers are killed, and with `terminate` at once. The
        workers of closed environments end by themselves; one that does not is killed after five
        seconds more. If one has died, the others close their environments in these seconds. An
        exception of an environment's `close` is raised at the end.

        In a process that was forked it only drops what the process has inherited.
        """
        if os.getpid() != self._pid:
            return self._end(False)
        if self._waiting not in (None, "recv"):
            logger.warn(
                f"Calling `close` while waiting for a pending call to `{self._waiting}` to complete."
            )
        try:
            terminate = terminate or not self._close_envs(timeout)
        finally:
            self._end(terminate)

    def _close_envs(self, timeout: float | None) -> bool:
        """Wait for the environments, and close them. Return False after `timeout`."""
        end = None if timeout is None else time.monotonic() + timeout
        try:
            if not self._crew.end(timeout):
                return False
        except WorkerDied:
            # Nothing is waited for.
            return True
        if not self._crew.is_whole():
            return True
        self._exchange.drop(sorted(self._crew.busy))
        self._exchange.order(CLOSE, [None])
        left = None if end is None else max(0.0, end - time.monotonic())
        if not self._crew.wait_for(self._everyone, left):
            return False
        self._exchange.collect(self._everyone)
        return True

    def _end(self, terminate: bool) -> None:
        is_ours = os.getpid() == self._pid
        self.closed = True
        try:
            if is_ours:
                self._crew.close(terminate)
            else:
                self._crew.leave()
        finally:
            exchange = self.__dict__.pop("_exchange", None)
            arrays, self._arrays = self._arrays, None
            if is_ours and exchange is not None:
                exchange.drop_all()
            # The views first: a process that is forked later would warn of them.
            del exchange
            if is_ours and arrays is not None:
                arrays.free()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            with suppress(Exception):
                self.close(terminate=True)
