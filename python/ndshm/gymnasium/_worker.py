"""The environments of one worker process, and what it does with them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import util
from typing import Any, TypeAlias

import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np
from gymnasium import Env
from gymnasium.vector import AutoresetMode

from .._pool_errors import pack
from .._pool_worker import end_fork
from ._layout import Layout, writer
from ._letters import (
    CALL,
    CLOSE,
    FAILED,
    GROUP,
    LETTER,
    MAKE,
    NOTHING,
    OP,
    PLAIN,
    RESET,
    SET,
    STATUS,
    STEP,
    STEP_PICKLED,
    WORDS,
    Arrays,
    Boxes,
    dumps,
)

EnvFn: TypeAlias = Callable[[], Env[Any, Any]]

INHERITED: dict[int, Sequence[EnvFn]] = {}
"""The functions that forked workers inherit: of each vector environment, by a number."""

FORBIDDEN = ("reset", "step", "close", "_setattr", "_check_spaces")
"""Names that `call` refuses, as gymnasium's class does."""


class Setup:
    """The function that each worker calls first.

    The parent keeps it, and a worker that takes the place of a dead one gets it as it is then. That
    one makes its environments at once, and the first ones do when they are asked for their spaces.
    So an environment that cannot be made does not end the pool, whose workers close theirs.
    """

    def __init__(self, source: bytes | int, count: int, mode: AutoresetMode) -> None:
        self.source, self.count, self.mode = source, count, mode
        self.shared: tuple[Layout, Arrays] | None = None

    def __call__(self, worker: int, workers: int) -> Host:
        """Return the environments of a worker."""
        if isinstance(self.source, int):
            env_fns = INHERITED[self.source]
        else:
            env_fns = cloudpickle.loads(self.source)
        envs = envs_of(worker, workers, self.count)
        host = Host(env_fns[envs.start : envs.stop], envs, self.mode)
        # For a worker that ends without being told to close them.
        util.Finalize(host, host.close, exitpriority=10)
        if self.shared is not None:
            host.make()
            host.attach(*self.shared)
        return host


def envs_of(worker: int, workers: int, count: int) -> range:
    """Return the environments of a worker, as the pool divides tiles with `static`."""
    return range(count * worker // workers, count * (worker + 1) // workers)


class Made(dict[int, Env[Any, Any]]):
    """The environments that were made."""

    def __missing__(self, env: int) -> Env[Any, Any]:
        raise RuntimeError(
            f"environment {env} was not made, because its function has raised an exception: call "
            f"restart([{env}])"
        )


class Host:
    """The environments of a worker."""

    def __init__(self, env_fns: Sequence[EnvFn], envs: range, mode: AutoresetMode) -> None:
        self._fns, self._range, self._mode = env_fns, envs, mode
        self._envs = Made()
        # Those whose episode has ended, and that were not reset since.
        self._ended = dict.fromkeys(envs, False)
        # Not empty in a process that an environment has forked.
        self._forked: list[bool] = []
        os.register_at_fork(after_in_child=lambda: self._forked.append(True))

    def make(self) -> None:
        """Make the environments. Close those that were made if one cannot be made."""
        try:
            for env, make in zip(self._range, self._fns):
                self._envs[env] = make()
        except BaseException:
            with suppress(Exception):
                self.close()
            raise

    def spaces(self, only_different: bool) -> bytes:
        """Return metadata and spaces of the environments.

        With `only_different`, an environment with the spaces of the one before has None.
        """
        found: list[Any] = []
        last: Any = None
        for env in self._envs.values():
            spaces = env.observation_space, env.action_space
            if only_different and last is not None and spaces == last:
                found.append(None)
            else:
                found.append((env.metadata, env.render_mode, *spaces))
            last = spaces
        return dumps(found)

    def attach(self, layout: Layout, arrays: Arrays) -> None:
        """Take the arrays that the environments write."""
        self._boxes = Boxes(arrays)
        self._words = self._boxes.words
        self._rewards = np.asarray(arrays.rewards)
        self._terminations = np.asarray(arrays.terminations)
        self._truncations = np.asarray(arrays.truncations)
        self._actions = None if arrays.actions is None else np.asarray(arrays.actions)
        self._write = writer(layout.root, [np.asarray(array) for array in arrays.observations])

    def run(self, env: int) -> None:
        """Do what the parent has ordered for an environment, or for all of this worker, and leave the
        answers.
        """
        words, group = self._words, env * WORDS + GROUP
        envs: Sequence[int] = (env,)
        if words[group]:
            words[group], envs = 0, self._range
        for env in envs:
            op = words[env * WORDS + OP]
            if op != NOTHING:
                self._do(op, env)
                # The parent tells by that what has been done when a worker has died.
                words[env * WORDS + OP] = NOTHING

    def _do(self, op: int, env: int) -> None:
        try:
            if op == STEP or op == STEP_PICKLED:
                if op == STEP_PICKLED:
                    action = self._boxes.order(env)
                else:
                    actions: Any = self._actions
                    # A number is a copy already.
                    action = actions[env] if actions.ndim == 1 else actions[env].copy()
                info, objects = self._step(env, action)
            elif op == RESET or op == MAKE:
                seed, options = self._boxes.order(env)
                if op == MAKE:
                    self._make(env)
                info, objects = self._reset(env, seed=seed, options=options)
            else:
                found = self._other(op, env)
                self._end_a_fork(None)
                self._boxes.answer(env, LETTER, dumps(found))
                return
            if info or objects:
                self._boxes.answer(env, LETTER, dumps((info, objects)))
            else:
                self._words[env * WORDS + STATUS] = PLAIN
        except BaseException as error:
            self._end_a_fork(error)
            self._boxes.answer(env, FAILED, dumps(pack(error, env)))

    def _end_a_fork(self, error: BaseException | None) -> None:
        """End a process that an environment has forked and that has come out of it: the orders are
        its parent's.
        """
        if self._forked:
            if isinstance(error, Exception):
                traceback.print_exception(error)
            end_fork(error)

    def _step(self, env: int, action: Any) -> tuple[dict[str, Any], list[Any]]:
        mode = self._mode
        if self._ended[env]:
            if mode is AutoresetMode.NEXT_STEP:
                made = self._reset(env)
                self._rewards[env] = 0.0
                self._terminations[env] = self._truncations[env] = False
                return made
            if mode is AutoresetMode.DISABLED:
                raise AssertionError(
                    f"the episode of environment {env} has ended, and the autoreset mode is DISABLED: "
                    "call reset(options={'reset_mask': terminations | truncations}) first"
                )
        observation, reward, terminated, truncated, info = self._envs[env].step(action)
        has_ended = bool(terminated or truncated)
        if has_ended and mode is AutoresetMode.SAME_STEP:
            last = {"final_obs": observation, "final_info": info}
            observation, info = self._envs[env].reset()
            info, has_ended = {**last, **info}, False
        objects = self._store(env, observation)
        self._rewards[env] = reward
        self._terminations[env], self._truncations[env] = terminated, truncated
        self._ended[env] = has_ended
        return info, objects

    def _reset(self, env: int, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
        observation, info = self._envs[env].reset(**arguments)
        objects = self._store(env, observation)
        self._ended[env] = False
        return info, objects

    def _store(self, env: int, observation: Any) -> list[Any]:
        """Write an observation. Return its object parts."""
        self._end_a_fork(None)
        objects: list[Any] = []
        self._write(env, observation, objects)
        return objects

    def _make(self, env: int) -> None:
        if (before := self._envs.pop(env, None)) is not None:
            with suppress(Exception):
                before.close()
        self._envs[env] = self._fns[env - self._range.start]()

    def _other(self, op: int, env: int) -> Any:
        if op == CALL:
            name, args, kwargs = self._boxes.order(env)
            if name in FORBIDDEN:
                raise ValueError(f"call cannot call {name}: use the method {name} of the vector")
            found = self._envs[env].get_wrapper_attr(name)
            return found(*args, **kwargs) if callable(found) else found
        if op == SET:
            name, value = self._boxes.order(env)
            self._envs[env].set_wrapper_attr(name, value)
        elif (made := self._envs.pop(env, None)) is not None:
            made.close()
        return None

    def close(self) -> None:
        """Close the environments. Raise the first exception at the end."""
        failure: Exception | None = None
        envs, self._envs = self._envs, Made()
        for env in envs.values():
            try:
                env.close()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


def run(door: Any, state: Host, tile: int) -> None:
    """Run the tile of an environment. The function of the pool."""
    state.run(tile)


def spaces(only_different: bool, state: Host) -> bytes:
    """Make a worker's environments. Return their metadata and spaces."""
    state.make()
    return state.spaces(only_different)


def attach(layout: Layout, arrays: Arrays, state: Host) -> None:
    """Give a worker the arrays."""
    state.attach(layout, arrays)
