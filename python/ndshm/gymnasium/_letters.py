"""Messages between the parent and the environments, as pickles in shared memory.

Each environment has an inbox and an outbox of some hundred bytes. A longer pickle is an array of
its own, and the box has its handle.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np

from .._array import give, ndarray
from .._errors import NdshmError
from .._table import Table

ROOM = 1024
"""The bytes of a box."""

# The words of an environment.
OP, IN_SIZE, STATUS, OUT_SIZE, GROUP = range(5)
WORDS = 8

# What an environment is to do.
NOTHING, STEP, STEP_PICKLED, RESET, CALL, SET, MAKE, CLOSE = range(8)

# How it has answered.
PLAIN, LETTER, FAILED = range(3)

LARGE = 1 << 32
"""Is added to the size if the box has a handle."""


@dataclass
class Arrays:
    """The arrays that the parent and the workers share. Each has a row for an environment."""

    doors: ndarray
    """Has no content: the pool divides it into tiles."""

    words: ndarray
    inbox: ndarray
    outbox: ndarray
    rewards: ndarray
    terminations: ndarray
    truncations: ndarray
    actions: ndarray | None
    observations: list[ndarray]

    def free(self) -> None:
        """Free all of them. Views keep their bytes."""
        own = [self.doors, self.words, self.inbox, self.outbox, self.rewards]
        own += [self.terminations, self.truncations, *self.observations]
        for array in own if self.actions is None else [*own, self.actions]:
            with suppress(NdshmError):
                array.free()


class Large:
    """A long letter to the workers, which is freed with its last variable."""

    def __init__(self, table: Table, body: bytes) -> None:
        self.array = table.array(np.frombuffer(body, np.uint8))
        self.handle = pickle.dumps(self.array)

    def __del__(self) -> None:
        with suppress(NdshmError, AttributeError):
            self.array.free()


class Boxes:
    """The words and the boxes of all environments, in one process."""

    def __init__(self, arrays: Arrays) -> None:
        self._table = arrays.words.table
        # Single elements of a memoryview are faster than those of an array.
        self.words, self._inbox, self._outbox = map(
            _flat, (arrays.words, arrays.inbox, arrays.outbox)
        )

    # ---- in the parent --------------------------------------------------------------------------

    def write(self, env: int, op: int, body: bytes | Large) -> None:
        """Tell an environment what to do."""
        words, at = self.words, env * WORDS
        is_large = isinstance(body, Large)
        text = body.handle if isinstance(body, Large) else body
        self._inbox[env * ROOM : env * ROOM + len(text)] = text
        words[at + IN_SIZE] = len(text) + (LARGE if is_large else 0)
        words[at + OP] = op

    def letter(self, body: bytes) -> bytes | Large:
        """Return bytes in the form in which `write` takes them."""
        return body if len(body) <= ROOM else Large(self._table, body)

    def read(self, env: int) -> Any:
        """Return the letter of an environment."""
        size = self._taken(env)
        return _load(self._outbox, env, size)

    def drop(self, env: int) -> None:
        """Free the letter of an environment, if it was not read."""
        if (size := self._taken(env)) >= LARGE:
            with suppress(NdshmError):
                _array_of(self._outbox, env, size)

    def _taken(self, env: int) -> int:
        """Return the size of a letter, and note that it is not there any more."""
        at = env * WORDS + OUT_SIZE
        size: int = self.words[at]
        self.words[at] = 0
        return size

    # ---- in a worker ----------------------------------------------------------------------------

    def order(self, env: int) -> Any:
        """Return the letter of the parent to an environment."""
        return _load(self._inbox, env, self.words[env * WORDS + IN_SIZE])

    def answer(self, env: int, status: int, body: bytes) -> None:
        """Leave a letter of an environment."""
        size = len(body)
        if size > ROOM:
            body = pickle.dumps(give(self._table.array(np.frombuffer(body, np.uint8))))
            size = len(body) + LARGE
        self._outbox[env * ROOM : env * ROOM + len(body)] = body
        self.words[env * WORDS + OUT_SIZE] = size
        self.words[env * WORDS + STATUS] = status


def _flat(array: Any) -> memoryview:
    # Before 3.12 numpy's types do not tell that it is a buffer.
    flat: Any = np.asarray(array).reshape(-1)
    return memoryview(flat)


def _load(box: memoryview, env: int, size: int) -> Any:
    start = env * ROOM
    if size < LARGE:
        return pickle.loads(box[start : start + size])
    body = _array_of(box, env, size).tobytes()
    return pickle.loads(body)


def _array_of(box: memoryview, env: int, size: int) -> ndarray:
    """Return the array of a long letter. One that was given is freed with this view."""
    start = env * ROOM
    array: ndarray = pickle.loads(box[start : start + size - LARGE])
    return array


def dumps(value: Any) -> bytes:
    """Pickle a value, by `cloudpickle` if it cannot be pickled without."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        by_value: Callable[[Any], bytes] = cloudpickle.dumps
        return by_value(value)
