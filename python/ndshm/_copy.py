"""Filling large arrays on several threads: one core does not fill the memory's bandwidth."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import EllipsisType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PIECE = 8 << 20
"""Bytes that one thread takes at a time; from twice as many on there is a second thread. Copying them
takes about a millisecond, ten times as long as starting a thread."""

_Part: TypeAlias = tuple[slice | EllipsisType, ...]


def copy(to: NDArray[Any], source: NDArray[Any]) -> None:
    """Copy all elements to an array of the same shape, which has them without gaps."""
    order: Literal["C", "F"] = "F" if to.flags.fnc else "C"
    if source.flags.fnc if to.flags.fnc else source.flags.c_contiguous:
        to, source = to.reshape(-1, order=order), source.reshape(-1, order=order)
    in_threads(lambda part: np.copyto(to[part], source[part]), _parts(to))


def fill(to: NDArray[Any], value: Any) -> None:
    """Set all elements of an array, which has them without gaps."""
    if np.ndim(value):
        to[...] = value
        return
    # Here, because `np.errstate` and warnings are those of a thread.
    one = np.empty((), to.dtype)
    np.copyto(one, value, casting="unsafe")
    flat = to.reshape(-1, order="F" if to.flags.fnc else "C")
    in_threads(lambda part: np.copyto(flat[part], one), _parts(flat))


def read(descriptor: int, to: memoryview, start: int) -> int:
    """Read bytes of a file from an offset on. Return how many are missing at its end."""
    missing: deque[int] = deque()

    def read_piece(first: int) -> None:
        rest = to[first : first + PIECE]
        while rest:
            count = os.preadv(descriptor, [rest], start + first)
            if not count:
                missing.append(len(rest))
                return
            first, rest = first + count, rest[count:]

    in_threads(read_piece, range(0, len(to), PIECE))
    return sum(missing)


def _parts(array: NDArray[Any]) -> list[_Part]:
    """Divide an array among threads, by its outermost axis unless that is short."""
    pieces = array.nbytes // PIECE
    if pieces < 2:
        return [(...,)]
    axis = array.ndim - 1 if array.flags.fnc else 0
    if array.shape[axis] < pieces:
        axis = int(np.argmax(array.shape))
    length = array.shape[axis]
    ends = [length * piece // pieces for piece in range(pieces + 1)]
    before = (slice(None),) * axis
    return [(*before, slice(first, end), ...) for first, end in zip(ends, ends[1:])]


def in_threads(work: Callable[[Any], object], parts: Iterable[Any]) -> None:
    """Call `work` for each part, on as many threads as there are processors for this process. Raise
    what it raises."""
    left, failures = deque(parts), deque[BaseException]()

    def run() -> None:
        try:
            while left:
                try:
                    part = left.popleft()
                except IndexError:
                    return  # Another thread has taken it.
                work(part)
        except BaseException as error:
            failures.append(error)
            left.clear()

    threads: list[threading.Thread] = []
    # The number of processors comes from the system, which takes longer than a small copy.
    helpers = min(len(left), len(os.sched_getaffinity(0))) - 1 if len(left) > 1 else 0
    try:
        for _ in range(helpers):
            thread = threading.Thread(target=run, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break  # Do without: the system has no more, or the interpreter is ending.
            threads.append(thread)
        run()
        for thread in threads:
            thread.join()
    finally:
        # KeyboardInterrupt may end the wait, and no thread works on after that.
        left.clear()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
