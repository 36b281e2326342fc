"""Calls of a pool: arrays that are divided into tiles, and the form in which workers keep a call."""

from __future__ import annotations

import operator
import pickle
import warnings
import weakref
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from . import _ndshm
from ._caller import level_of_caller
from ._errors import NdshmError
from ._pool_functions import Function, by_value, extras, spec

LARGE = 1 << 20
"""A call of more bytes than this is worth a warning."""

KEPT = 8
"""The number of calls that the workers keep."""

Answer: TypeAlias = tuple[int, int, str, bytes]
"""The answer of a worker: its number, its pid, the kind of answer, the bytes."""

Ended: TypeAlias = tuple[list[Answer], list[int], list[int]]
"""A call that has ended: the answers, the torn tiles, the tiles that were not run."""

_CONSTANT = (int, float, bool, str, bytes, type(None))

A = TypeVar("A", bound="np.ndarray[Any, Any]")


class Whole(Generic[A]):
    """An array that every tile sees whole; see `ndshm.whole`."""

    __slots__ = ("array",)

    def __init__(self, array: A) -> None:
        self.array = array

    def __repr__(self) -> str:
        return f"whole({self.array!r})"


def whole(array: A) -> Whole[A]:
    """Mark an array of a `Pool` call that every tile sees whole, and read-only.

    >>> import ndshm, numpy as np
    >>> def gather(out, source, indices):
    ...     out[:] = source[indices]
    >>> source = ndshm.array([10.0, 20.0, 30.0])
    >>> out, indices = ndshm.zeros(4), ndshm.array([2, 0, 1, 2])
    >>> with ndshm.Pool(2) as pool:
    ...     pool.for_tiles(gather, (out, ndshm.whole(source), indices), 2)
    >>> print(out)
    [30. 10. 20. 30.]
    """
    return Whole(array)


def readonly(array: A) -> A:
    """Return a read-only view of an array: a `Pool` call reads its rows, and other readers may,
    too.

    >>> import ndshm
    >>> x = ndshm.zeros(3)
    >>> ndshm.readonly(x).flags.writeable
    False
    """
    view = array.view()
    view.flags.writeable = False
    return view


class Call:
    """A function, its arrays and its arguments, as the workers keep them."""

    __slots__ = (
        "args",
        "blob",
        "collect",
        "function",
        "is_constant",
        "key",
        "known",
        "names",
        "rows",
        "runs",
        "tile",
        "tiles",
    )

    def __init__(
        self,
        table: _ndshm.Table,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        collect: bool,
        is_named: bool,
        counts_runs: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"{function!r} is no function: pass one that takes tiles of the arrays")
        self.function, self.args, self.collect = function, args, collect
        self.tile = operator.index(tile)
        if self.tile < 1:
            raise ValueError(f"a tile of {tile} rows is not possible: pass a number from 1 on")
        members, self.rows = _members(arrays)
        # The arrays, with the attributes that a caller may change.
        self.known: list[tuple[weakref.ref[Any], str, tuple[int, ...]]] = [
            (weakref.ref(array), mode, array.shape) for array, mode in members
        ]
        self.names = extras(function, len(arrays) + len(args))
        how, is_stable = spec(function) if is_named else (by_value(function, True), False)
        # A changed argument is seen by its value, if it is constant, else by its pickle.
        self.is_constant = is_stable and all(type(arg) in _CONSTANT for arg in args)
        count = -(-self.rows // self.tile)
        self.runs = table.zeros(count, "u8") if counts_runs and "rng" in self.names else None
        content = (how, members, self.tile, args, sorted(self.names), collect, self.runs)
        self.blob = _pickle((content, self.is_constant))
        self.tiles: _ndshm.Tiles | None = None
        # The number under which the workers have it, or 0.
        self.key = 0

    def divide(self, table: _ndshm.Table) -> _ndshm.Tiles:
        """Return the tiles, which are made once."""
        if self.tiles is None:
            # The caller has them in view.
            members: list[tuple[Any, str]] = [(ref(), mode) for ref, mode, _ in self.known]
            self.tiles = _ndshm.Tiles(table, members, self.rows, self.tile)
        return self.tiles

    def by_value(self, table: _ndshm.Table) -> Call:
        """Return the same call with the function by value. The arrays are in the caller's view."""
        arrays: list[tuple[Any, str]] = [(ref(), mode) for ref, mode, _ in self.known]
        given = [Whole(array) if mode == "a" else array for array, mode in arrays]
        has_runs = self.runs is not None
        return Call(
            table, self.function, given, self.tile, self.args, self.collect, False, has_runs
        )

    def is_same(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        collect: bool,
    ) -> bool:
        """Return whether this is a call with these arguments, as far as that can be told at once."""
        if (
            self.function is not function
            or self.tile != tile
            or not self.is_constant
            or self.collect is not collect
            or self.runs is not None
            or len(self.args) != len(args)
            or len(self.known) != len(arrays)
        ):
            return False
        for new, old in zip(args, self.args):
            # Equal zeros may differ in their sign.
            if new is not old and (type(new) is not type(old) or new != old or not new):
                return False
        given: Any
        for (ref, mode, shape), given in zip(self.known, arrays):
            array: Any = ref()
            if array is not given or array is None:
                if mode != "a" or type(given) is not Whole or array is not given.array:
                    return False
            elif mode == "a" or array.flags.writeable is not (mode == "w"):
                return False
            if array is None or array.shape != shape:
                return False
        return True

    def release(self) -> None:
        """Free the arrays that belong to the call alone."""
        if self.runs is not None:
            try:
                self.runs.free()
            except NdshmError:
                # The process has left the table.
                pass

    def writes(self) -> bool:
        """Return whether the tiles write an array."""
        return any(mode == "w" for _, mode, _ in self.known)

    def is_gone(self) -> bool:
        """Return whether an array of the call has no view any more."""
        return any(ref() is None for ref, _, _ in self.known)

    def rows_of(self, tiles: Sequence[int]) -> list[range]:
        """Return the rows of tiles."""
        starts = (tile * self.tile for tile in tiles)
        return [range(start, min(start + self.tile, self.rows)) for start in starts]


def _members(arrays: Sequence[Any]) -> tuple[list[tuple[Any, str]], int]:
    """Return the arrays with their modes, and the number of rows."""
    if isinstance(arrays, (np.ndarray, Whole)):
        raise TypeError("the arrays of a call are a tuple: pass (x,) for one array x")
    members: list[tuple[Any, str]] = []
    rows: int | None = None
    for place, given in enumerate(arrays):
        array = given.array if isinstance(given, Whole) else given
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"array {place} of the call is a {type(array).__name__}: pass arrays of a table, as "
                "made by ndshm.array(x), and other values behind the tile length"
            )
        if isinstance(given, Whole):
            members.append((array, "a"))
            continue
        if array.ndim == 0:
            raise ValueError(
                f"array {place} of the call has no axis to divide: pass ndshm.whole(x) to read it"
            )
        if rows is not None and rows != len(array):
            raise ValueError(
                f"array {place} of the call has {len(array)} rows, and those before have {rows}: pass "
                "arrays of one length, and ndshm.whole(x) for an array that every tile reads"
            )
        rows = len(array)
        members.append((array, "w" if array.flags.writeable else "r"))
    if rows is None:
        raise ValueError("no array of the call is divided into tiles: pass at least one array")
    return members, rows


def _pickle(content: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(
            f"the arguments of the call cannot be pickled ({error}): pass values that pickle takes, "
            "or make them in each worker by setup="
        ) from error


def warn_of_size(function: Function, size: int) -> None:
    """Warn of a call that carries much data."""
    if size > LARGE:
        warnings.warn(
            f"a call of {getattr(function, '__qualname__', function)} carries {size} bytes to each "
            "worker: arrays that the function captures or gets as arguments are copied; pass them as "
            "ndshm arrays, as made by ndshm.array(x)",
            RuntimeWarning,
            stacklevel=level_of_caller(),
        )
