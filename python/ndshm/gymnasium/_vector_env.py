"""The vector environment."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import Env, Space, logger
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_differing_spaces, batch_space, iterate
from numpy.typing import ArrayLike, NDArray

from .._errors import NdshmError
from .._pool_errors import unpack
from .._table import Table, default
from ._crew import Crew, WorkerDied
from ._layout import BASIC, Batch, Layout, layout_of
from ._letters import (
    CALL,
    FAILED,
    LETTER,
    MAKE,
    OP,
    PLAIN,
    RESET,
    ROOM,
    SET,
    STATUS,
    STEP,
    STEP_PICKLED,
    WORDS,
    Arrays,
    Boxes,
    dumps,
)

Seed: TypeAlias = int | Sequence[int | None] | None
Infos: TypeAlias = dict[str, Any]
Step: TypeAlias = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]

_MOST = 2048
"""The number of tiles that a pool hands out one by one."""


_VIEWS = (
    *("_batch", "_boxes", "_words", "_rewards", "_terminations", "_truncations", "_actions"),
    "_letters",
)
"""The attributes of a vector environment that show shared arrays."""


class VectorEnv(gymnasium.vector.VectorEnv[Any, Any, NDArray[Any]]):
    """Environments that live in a few worker processes, and write their observations in place.

    `env_fns` are functions that make the environments. `workers` is the number of processes, by
    default one for each processor, and at most one for each environment. An environment stays in
    its worker. `context` is a start method of `multiprocessing` or one of its contexts, and `table`
    the table of the arrays.

    The other arguments are those of `gymnasium.vector.AsyncVectorEnv`. With `copy=False` the
    observations that are returned are the shared arrays, which the next step changes. Spaces that
    are no arrays of one shape, such as `Text` or `Graph`, are pickled; `shared_memory=False` does
    that with all. The results are those of `gymnasium.vector.SyncVectorEnv`, for any number of
    workers.

    >>> import gymnasium as gym
    >>> from ndshm.gymnasium import VectorEnv
    >>> envs = VectorEnv([lambda: gym.make("CartPole-v1")] * 4, workers=2)
    >>> observations, infos = envs.reset(seed=42)
    >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    >>> observations.shape, rewards
    ((4, 4), array([1., 1., 1., 1.]))

    `send` and `recv` step some environments at a time: `recv(k)` returns the first k that are ready.

    >>> envs.send(np.array([0, 1, 0, 1]))
    >>> for _ in range(100):
    ...     observations, rewards, terminations, truncations, infos = envs.recv(2)
    ...     envs.send(np.array([1, 0]), infos["env_ids"])
    >>> envs.close()

    An exception in an environment is raised by the call that waits for it, with its traceback as the
    cause; its attribute `env_ids` tells which environments failed. They stay as they are, and the
    others have taken their step. `WorkerDied` names the environments of a worker that has died.
    After either, `restart` makes environments anew.
    """

    __module__ = "ndshm.gymnasium"

    def __init__(
        self,
        env_fns: Sequence[Callable[[], Env[Any, Any]]],
        shared_memory: bool = True,
        copy: bool = True,
        context: str | BaseContext | None = None,
        observation_mode: str | tuple[Space[Any], Space[Any]] = "same",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        workers: int | None = None,
        table: Table | None = None,
    ) -> None:
        # `close` is called also for a value that was not made to its end.
        self.closed = True
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
        self._everyone = list(range(count))
        self._crew = Crew(env_fns, processes, table, context, self.autoreset_mode)
        self._arrays: Arrays | None = None
        try:
            self._take_spaces(self._crew.spaces(observation_mode == "same"))
            layout = layout_of(self.single_observation_space, shared_memory)
            self._arrays = arrays = self._make_arrays(table, layout)
            self._boxes = Boxes(arrays)
            self._crew.attach(layout, arrays)
        except BaseException:
            self._end(True)
            raise
        self._words = np.asarray(arrays.words)
        self._rewards = np.asarray(arrays.rewards)
        self._terminations = np.asarray(arrays.terminations)
        self._truncations = np.asarray(arrays.truncations)
        self._actions = None if arrays.actions is None else np.asarray(arrays.actions)
        observations = [np.asarray(array) for array in arrays.observations]
        self._batch = Batch(layout, self.single_observation_space, count, observations)
        # Letters to the environments that have an array of their own.
        self._letters: dict[int, Any] = {}
        # Environments that were told to reset, and are received one by one.
        self._resetting: set[int] = set()
        self.closed = False

    def _take_spaces(self, found: list[Any]) -> None:
        """Set metadata and spaces from those of the environments."""
        metadata, self.render_mode, observation_space, action_space = found[0]
        self.metadata = {**metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space = action_space
        self.action_space = batch_space(action_space, self.num_envs)
        mode = self.observation_mode
        if isinstance(mode, tuple) and len(mode) == 2:
            for space in mode:
                if not isinstance(space, Space):
                    raise TypeError(f"observation_mode has a {type(space)}: pass two spaces")
            self.observation_space, self.single_observation_space = mode
        elif mode == "same":
            self.single_observation_space = observation_space
            self.observation_space = batch_space(observation_space, self.num_envs)
        elif mode == "different":
            self.single_observation_space = observation_space
            self.observation_space = batch_differing_spaces([space for _, _, space, _ in found])
        else:
            raise ValueError(
                f"the observation_mode {mode!r} is not known: pass 'same', 'different', or a tuple of "
                "the batched and the single observation space"
            )
        single = self.single_observation_space
        for env, (_, _, space, actions) in enumerate(found):
            if mode == "same":
                if space != single:
                    raise RuntimeError(
                        f"environment {env} has the observation space {space}, and environment 0 has "
                        f"{single}: pass observation_mode='different'"
                    )
            elif not is_space_dtype_shape_equiv(space, single):
                raise RuntimeError(
                    f"environment {env} has the observation space {space}, whose shapes or dtypes "
                    f"differ from {single}: they cannot be batched"
                )
            if actions != action_space:
                raise RuntimeError(
                    f"environment {env} has the action space {actions}, and environment 0 has "
                    f"{action_space}: they cannot be batched"
                )

    def _make_arrays(self, table: Table, layout: Layout) -> Arrays:
        count, space = self.num_envs, self.single_action_space
        actions = None
        if isinstance(space, BASIC) and space.shape is not None:
            actions = table.zeros((count, *space.shape), space.dtype)
        return Arrays(
            doors=table.zeros(count, "u1"),
            words=table.zeros((count, WORDS), "i8"),
            inbox=table.zeros((count, ROOM), "u1"),
            outbox=table.zeros((count, ROOM), "u1"),
            rewards=table.zeros(count, "f8"),
            terminations=table.zeros(count, "?"),
            truncations=table.zeros(count, "?"),
            actions=actions,
            observations=[table.zeros((count, *part.shape), part.dtype) for part in layout.arrays],
        )

    # ---- states ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(
                f"Trying to operate on `{type(self).__name__}`, after a call to `close()`."
            )

    def _check_idle(self, name: str) -> None:
        """Check that no answers are waited for, and drop those of calls that have failed."""
        self._check_open()
        if self._waiting is not None:
            raise AlreadyPendingCallError(
                f"Calling `{name}` while waiting for a pending call to `{self._waiting}` to complete",
                self._waiting,
            )
        self._resetting.clear()
        if self._crew.busy:
            self._drop(self._crew.answered())

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

    # ---- orders and answers ---------------------------------------------------------------------

    def _write(self, env: int, op: int, letter: Any) -> None:
        self._boxes.write(env, op, letter)
        if not isinstance(letter, bytes):
            self._letters[env] = letter

    def _order(self, op: int, bodies: list[Any]) -> None:
        """Tell each environment something."""
        letters = [self._boxes.letter(dumps(body)) for body in bodies]
        self._crew.prepare()
        for env in self._everyone:
            self._write(env, op, letters[env % len(letters)])
        self._crew.send_together(self._everyone)

    def _collect(self, envs: list[int]) -> list[tuple[int, Any]]:
        """Take environments that have answered, and return their letters. Raise if some have
        failed.
        """
        self._crew.take(envs)
        status = self._words[:, STATUS] if envs is self._everyone else self._words[envs, STATUS]
        if self._letters:
            for env in envs:
                self._letters.pop(env, None)
        if not status.any():
            return []
        letters, failed = [], []
        for env, kind in zip(envs, status.tolist()):
            if kind == FAILED:
                failed.append((env, self._boxes.read(env)))
            elif kind == LETTER:
                letters.append((env, self._boxes.read(env)))
        # None of them is read twice.
        self._words[envs, STATUS] = PLAIN
        if failed:
            self._raise(failed)
        return letters

    def _raise(self, failed: list[tuple[int, bytes]]) -> None:
        """Raise the exception of the first environment that has failed."""
        envs = [env for env, _ in failed]
        error = unpack(failed[0][1])
        error.add_note(f"raised in environment {envs[0]} of the vector, in its worker")
        for env, body in failed[1:]:
            error.add_note(f"environment {env} has raised {unpack(body)!r}")
        # An exception may refuse attributes.
        with suppress(Exception):
            error.env_ids = envs  # type: ignore[attr-defined]
        raise error

    def _drop(self, envs: list[int]) -> None:
        """Read the letters of environments for nothing, which frees their memory."""
        with suppress(Exception):
            self._collect(envs)

    def _infos(self, letters: list[tuple[int, Any]], places: dict[int, int] | None) -> Infos:
        """Store the objects in letters, and return the infos as gymnasium batches them."""
        batch: gymnasium.vector.VectorEnv[Any, Any, Any] = self
        if places is not None:
            batch = gymnasium.vector.VectorEnv()
            batch.num_envs = len(places)
        infos: Infos = {}
        for env, (info, objects) in letters:
            self._batch.store(env, objects)
            infos = batch._add_info(infos, info, env if places is None else places[env])
        return infos

    def _wait(self, envs: list[int], timeout: float | None) -> list[tuple[int, Any]]:
        """Wait for the answers of environments, and return their letters."""
        name = self._waiting
        try:
            has_answered = self._crew.wait_for(envs, timeout)
        except (WorkerDied, NdshmError):
            self._waiting = None
            raise
        if not has_answered:
            raise multiprocessing.TimeoutError(
                f"The call to `{name}_wait` has timed out after {timeout} second(s): the environments "
                "go on, and can be waited for again."
            )
        self._waiting = None
        return self._collect(envs)

    # ---- reset ----------------------------------------------------------------------------------

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:  # type: ignore[override]
        """Reset the environments, and return their observations and infos.

        Environment i gets `seed + i`, or its own of a list. `options["reset_mask"]`, an array of
        bools, resets some of them. Environments that were lost are there again.
        """
        self.reset_async(seed=seed, options=options)
        return self.reset_wait()

    def reset_async(self, seed: Seed = None, options: dict[str, Any] | None = None) -> None:
        """Begin to reset the environments. `reset_wait` returns the results, or `recv` some."""
        self._check_idle("reset_async")
        seeds = self._seeds(seed)
        envs = self._everyone
        if options is not None and "reset_mask" in options:
            options = dict(options)
            envs = self._masked(options.pop("reset_mask"))
        self._send_resets(envs, [RESET] * self.num_envs, seeds, options)
        self._resetting = set(envs)
        self._waiting = "reset"

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, Infos]:
        """Wait for the environments of `reset_async`, and return observations and infos.

        Raise `multiprocessing.TimeoutError` after `timeout` seconds.
        """
        self._check_waiting("reset")
        infos = self._infos(self._wait(sorted(self._resetting), timeout), None)
        return self._batch.all(self.copy), infos

    def restart(
        self,
        env_ids: ArrayLike | None = None,
        *,
        seed: Seed = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Infos]:
        """Make environments anew and reset them. Return the observations of all, and the infos.

        `env_ids` are by default those that were lost with their worker. A list of seeds has one for
        each environment of the vector.
        """
        self._check_open()
        if self._waiting != "recv":
            self._check_idle("restart")
        seeds = self._seeds(seed)
        # It finds the deaths since the last call.
        self._crew.prepare()
        lost = sorted(self._crew.lost)
        envs = lost if env_ids is None else self._ids(env_ids)
        # Those of a new worker are new.
        ops = [RESET if env in self._crew.lost else MAKE for env in self._everyone]
        self._send_resets(envs, ops, seeds, options)
        self._crew.wait_for(envs, None)
        return self._batch.all(self.copy), self._infos(self._collect(envs), None)

    def _send_resets(
        self, envs: list[int], ops: list[int], seeds: Sequence[int | None], options: Any
    ) -> None:
        letters = [(env, self._boxes.letter(dumps((seeds[env], options)))) for env in envs]
        self._crew.prepare()
        for env, letter in letters:
            self._write(env, ops[env], letter)
        self._crew.lost.difference_update(envs)
        self._crew.send_together(envs)

    def _seeds(self, seed: Seed) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + env for env in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"{len(seed)} seeds were passed for {self.num_envs} environments: pass one for each, "
                "or one number"
            )
        return seed

    def _masked(self, mask: Any) -> list[int]:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask)
            raise TypeError(
                f"options['reset_mask'] is a {kind}: pass a numpy array of dtype bool, as terminations"
            )
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] is {mask}: pass an array of shape ({self.num_envs},) with at "
                "least one True"
            )
        return [int(env) for env in np.flatnonzero(mask)]

    # ---- step -----------------------------------------------------------------------------------

    def step(self, actions: Any) -> Step:
        """Take a step in each environment, and return the results of all."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin to take a step in each environment. `step_wait` returns the results."""
        self._check_idle("step_async")
        self._check_made(self._everyone)
        self._write_steps(self._everyone, actions)
        self._crew.send_together(self._everyone)
        self._waiting = "step"

    def step_wait(self, timeout: float | None = None) -> Step:
        """Wait for the environments of `step_async`, and return the results.

        Raise `multiprocessing.TimeoutError` after `timeout` seconds; then it can be called again.
        """
        self._check_waiting("step")
        letters = self._wait(self._everyone, timeout)
        return (
            *(self._batch.all(self.copy), self._rewards.copy()),
            *(self._terminations.copy(), self._truncations.copy()),
            self._infos(letters, None),
        )

    def _write_steps(self, envs: list[int], actions: Any) -> None:
        shared = self._actions
        if (
            shared is not None
            and isinstance(actions, np.ndarray)
            and actions.dtype == shared.dtype
            and actions.shape == (len(envs), *shared.shape[1:])
        ):
            self._crew.prepare()
            place: Any = slice(None) if envs is self._everyone else envs
            shared[place] = actions
            self._words[place, OP] = STEP
        else:
            each = list(iterate(self.action_space, actions))
            if len(each) != len(envs):
                raise ValueError(
                    f"{len(each)} actions were passed for {len(envs)} environments: pass one for each"
                )
            letters = [self._boxes.letter(dumps(action)) for action in each]
            self._crew.prepare()
            for env, letter in zip(envs, letters):
                self._write(env, STEP_PICKLED, letter)

    # ---- some environments at a time ------------------------------------------------------------

    def send(self, actions: Any, env_ids: ArrayLike | None = None) -> None:
        """Begin to take a step in some environments, by default in all, and do not wait.

        `actions` are a batch with one for each of `env_ids`.
        """
        self._check_open()
        if self._waiting not in (None, "recv"):
            self._check_idle("send")
        envs = self._everyone if env_ids is None else self._ids(env_ids)
        if self._waiting is None:
            self._check_idle("send")
        elif busy := self._crew.busy.intersection(envs):
            raise ValueError(
                f"the environments {sorted(busy)} have not been received since they were sent: pass "
                "infos['env_ids'] of recv"
            )
        self._check_made(envs)
        self._write_steps(envs, actions)
        self._crew.send(envs)
        self._waiting = "recv"

    def recv(self, count: int = 1, timeout: float | None = None) -> Step:
        """Wait for `count` of the environments that were sent, or all of them if these are fewer.

        Return their results in the order in which they were ready. `infos["env_ids"]` is an array
        of their numbers, and the other infos have one place for each of them. After `reset_async`
        it returns environments that were reset, with rewards of 0.

        An environment that has raised an exception is received by that. The others are then
        received by the next call.
        """
        self._check_open()
        if self._waiting not in ("recv", "reset"):
            raise NoAsyncCallError("Calling `recv` without any prior call to `send`.", "recv")
        wanted = operator.index(count)
        if wanted < 1:
            raise ValueError(f"{wanted} environments cannot be received: pass a number from 1 on")
        self._waiting = "recv"
        wanted = min(wanted, len(self._crew.busy))
        try:
            envs = self._crew.wait_any(wanted, timeout)
            if not envs:
                raise multiprocessing.TimeoutError(
                    f"{wanted} environments were not ready after {timeout} second(s): call recv again"
                )
            failed = [env for env in envs if self._words[env, STATUS] == FAILED]
            letters = self._collect(failed[:1] or envs)
        finally:
            if not self._crew.busy:
                self._waiting = None
        infos = self._infos(letters, {env: place for place, env in enumerate(envs)})
        infos["env_ids"] = np.array(envs)
        rewards, ended = self._rewards[envs], self._terminations[envs]
        truncated = self._truncations[envs]
        if self._resetting:
            reset = np.isin(envs, list(self._resetting))
            rewards[reset], ended[reset], truncated[reset] = 0.0, False, False
            self._resetting.difference_update(envs)
        return self._batch.some(envs), rewards, ended, truncated, infos

    def _ids(self, env_ids: ArrayLike) -> list[int]:
        ids = np.array(env_ids, ndmin=1).ravel()
        envs: list[int] = ids.tolist()
        if not len(ids) or ids.dtype.kind not in "iu" or len(set(envs)) < len(envs):
            raise ValueError(f"env_ids is {env_ids!r}: pass numbers of environments, each once")
        if min(envs) < 0 or max(envs) >= self.num_envs:
            raise ValueError(
                f"env_ids is {env_ids!r}: pass numbers from 0 to {self.num_envs - 1}"
            )
        return envs

    # ---- other calls ----------------------------------------------------------------------------

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Return the seeds of the environments."""
        return self.get_attr("np_random_seed")

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Return copies of the generators of the environments."""
        return self.get_attr("np_random")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each environment, or get an attribute. Return the results."""
        self.call_async(name, *args, **kwargs)
        return self.call_wait()

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Begin to call a method of each environment. `call_wait` returns the results."""
        self._check_idle("call_async")
        self._check_made(self._everyone)
        self._order(CALL, [(name, args, kwargs)])
        self._waiting = "call"

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """Wait for the environments of `call_async`, and return the results."""
        self._check_waiting("call")
        return tuple(result for _, result in self._wait(self._everyone, timeout))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment: to its value of a list or tuple, or to one value."""
        self._check_idle("set_attr")
        self._check_made(self._everyone)
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(
                f"{len(values)} values were passed for {self.num_envs} environments: pass a list with "
                "one for each, or one value"
            )
        self._order(SET, [(name, value) for value in values])
        self._wait(self._everyone, None)

    def render(self) -> tuple[Any, ...]:
        """Return the rendered frame of each environment."""
        return self.call("render")

    # ---- the end --------------------------------------------------------------------------------

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments, and end the workers. The function behind `close`.

        Environments that are in a call are waited for. After `timeout` seconds, or with
        `terminate`, the workers are killed.
        """
        if self._waiting is not None:
            logger.warn(
                f"Calling `close` while waiting for a pending call to `{self._waiting}` to complete."
            )
        try:
            terminate = terminate or not self._crew.end(timeout)
        finally:
            self._end(terminate)

    def _end(self, terminate: bool) -> None:
        try:
            self._crew.close(terminate)
        finally:
            # The views first: a process that is forked later would warn of them.
            for name in _VIEWS:
                self.__dict__.pop(name, None)
            arrays, self._arrays = self._arrays, None
            if arrays is not None:
                arrays.free()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            with suppress(Exception):
                self.close(terminate=True)
