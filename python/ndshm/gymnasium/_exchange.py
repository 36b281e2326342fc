"""What the parent tells the environments, and what it reads of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from .._pool_errors import unpack
from ._crew import Crew
from ._layout import Batch, Layout
from ._letters import (
    FAILED,
    LETTER,
    MAKE,
    OP,
    PLAIN,
    RESET,
    STATUS,
    STEP,
    STEP_PICKLED,
    Arrays,
    Boxes,
    Large,
    dumps,
)

_SHOWN = 4
"""The number of environments whose exceptions are shown."""

Infos: TypeAlias = dict[str, Any]
Letters: TypeAlias = list[tuple[int, Any]]


class Exchange:
    """The arrays of a vector environment in its parent, and the orders through them."""

    def __init__(self, crew: Crew, arrays: Arrays, layout: Layout) -> None:
        self._crew, self._boxes, self.count = crew, Boxes(arrays), crew.count
        self.everyone = list(range(self.count))
        self._words = np.asarray(arrays.words)
        self.rewards: NDArray[np.float64] = np.asarray(arrays.rewards)
        self.terminations: NDArray[np.bool_] = np.asarray(arrays.terminations)
        self.truncations: NDArray[np.bool_] = np.asarray(arrays.truncations)
        self._actions = None if arrays.actions is None else np.asarray(arrays.actions)
        observations = [np.asarray(array) for array in arrays.observations]
        self.batch = Batch(layout, self.count, observations)
        # Letters to the environments that have an array of their own.
        self._letters: dict[int, Large] = {}
        # Letters that were read before their environments are taken, or the errors of reading them.
        self._read: dict[int, tuple[Any, Exception | None]] = {}

    # ---- orders ---------------------------------------------------------------------------------

    def _write(self, env: int, op: int, letter: bytes | Large) -> None:
        self._boxes.write(env, op, letter)
        if isinstance(letter, Large):
            self._letters[env] = letter

    def order(self, op: int, bodies: list[Any]) -> None:
        """Tell each environment something of its own, or all the same."""
        letters = [self._boxes.letter(dumps(body)) for body in bodies]
        self._crew.prepare()
        for env in self.everyone:
            self._write(env, op, letters[env % len(letters)])
        self._crew.send_together(self.everyone)

    def reset(
        self, envs: list[int], seeds: Sequence[int | None], options: Any, make: bool = False
    ) -> None:
        """Tell environments to reset. With `make`, those that were not lost are made anew before."""
        letters = [self._boxes.letter(dumps((seeds[env], options))) for env in envs]
        self._crew.prepare()
        lost = self._crew.lost
        for env in lost.intersection(envs):
            # What a dead worker has answered.
            self._drop_letter(env)
        for env, letter in zip(envs, letters):
            # Those of a new worker are new.
            self._write(env, MAKE if make and env not in lost else RESET, letter)
        lost.difference_update(envs)
        if make:
            # Others of their worker may be in a step, and those run the orders of a worker.
            self._crew.send(envs)
        else:
            self._crew.send_together(envs)

    def step(self, envs: list[int], actions: Any, space: Space[Any], together: bool) -> None:
        """Tell environments to take a step. `space` is that of a batch of actions."""
        shared = self._actions
        if (
            shared is not None
            and isinstance(actions, np.ndarray)
            and actions.dtype == shared.dtype
            and actions.shape == (len(envs), *shared.shape[1:])
        ):
            self._crew.prepare()
            place: Any = slice(None) if envs is self.everyone else envs
            shared[place] = actions
            self._words[place, OP] = STEP
        else:
            # The environments get the actions of the type in which they were passed.
            each = list(iterate(space, actions))
            if len(each) != len(envs):
                raise ValueError(
                    f"{len(each)} actions were passed for {len(envs)} environments: pass one for each"
                )
            letters = [self._boxes.letter(dumps(action)) for action in each]
            self._crew.prepare()
            for env, letter in zip(envs, letters):
                self._write(env, STEP_PICKLED, letter)
        if together:
            self._crew.send_together(envs)
        else:
            self._crew.send(envs)

    # ---- answers --------------------------------------------------------------------------------

    def failed(self, envs: list[int]) -> list[int]:
        """Return those of some environments that have raised an exception, or whose letter cannot be
        read. Take none: the letters of the others are kept for `collect`.
        """
        found = []
        for env, kind in zip(envs, self._words[envs, STATUS].tolist()):
            if kind == LETTER and env not in self._read:
                self._read[env] = self._load(env)
            if kind == FAILED or self._read.get(env, (None, None))[1] is not None:
                found.append(env)
        return found

    def _load(self, env: int) -> tuple[Any, Exception | None]:
        """Return the letter of an environment, or the reason for which it cannot be read."""
        try:
            return self._boxes.read(env), None
        except Exception as error:
            error.add_note("its answer cannot be unpickled in the parent")
            return None, error

    def _drop_letter(self, env: int) -> None:
        self._read.pop(env, None)
        self._boxes.drop(env)

    def collect(self, envs: list[int]) -> Letters:
        """Take environments that have answered, and return their letters. Raise if some have
        failed.
        """
        self._crew.take(envs)
        status = self._words[:, STATUS] if envs is self.everyone else self._words[envs, STATUS]
        if self._letters:
            for env in envs:
                self._letters.pop(env, None)
        if not status.any():
            return []
        letters: Letters = []
        failed: list[tuple[int, Exception]] = []
        for env, kind in zip(envs, status.tolist()):
            if kind == PLAIN:
                continue
            letter, error = self._read.pop(env) if env in self._read else self._load(env)
            if error is None and kind == LETTER:
                letters.append((env, letter))
            else:
                failed.append((env, error or _unpacked(letter)))
            del error
        if failed:
            try:
                raise _error(failed)
            finally:
                # They have this frame in their tracebacks, and it has the arrays.
                failed.clear()
        return letters

    def drop(self, envs: list[int]) -> None:
        """Take environments that have answered, and free their letters."""
        self._crew.take(envs)
        for env in envs:
            self._letters.pop(env, None)
            self._drop_letter(env)

    def drop_all(self) -> None:
        """Free the letters that nobody will read, after the end of the workers."""
        for env in self.everyone:
            # One that was not written to its end has no handle.
            with suppress(Exception):
                self._drop_letter(env)
        self._letters.clear()

    def infos(self, letters: Letters, places: dict[int, int] | None = None) -> Infos:
        """Store the objects of observations, and return the infos as gymnasium batches them.

        `places` are the places of some environments, if the batch is of them alone.
        """
        batch: gymnasium.vector.VectorEnv[Any, Any, Any] = gymnasium.vector.VectorEnv()
        batch.num_envs = self.count if places is None else len(places)
        infos: Infos = {}
        for env, (info, objects) in letters:
            self.batch.store(env, objects)
            infos = batch._add_info(infos, info, env if places is None else places[env])
        return infos


def _unpacked(letter: Any) -> Exception:
    """Return the exception of a letter."""
    try:
        return unpack(letter)
    except Exception as error:
        error.add_note("its answer cannot be unpickled in the parent")
        return error


def _error(failed: list[tuple[int, Exception]]) -> Exception:
    """Return the exception of the first environment that has failed, with notes on the others."""
    envs = [env for env, _ in failed]
    error = failed[0][1]
    error.add_note(f"raised in environment {envs[0]} of the vector, in its worker")
    for env, other in failed[1:_SHOWN]:
        error.add_note(f"environment {env} has raised {other!r}")
    if envs[_SHOWN:]:
        error.add_note(f"and the environments {envs[_SHOWN:]}")
    # An exception may refuse attributes.
    with suppress(Exception):
        error.env_ids = envs  # type: ignore[attr-defined]
    return error
