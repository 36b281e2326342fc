"""Reports on a table: its arrays, its memory and processes, and damage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ArrayInfo", "TableStat", "Verification"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """An array or an object of a table at one moment; see `ndarray.info`. Processes are pids.

    >>> import ndshm
    >>> x = ndshm.zeros((1000, 3))
    >>> with x.write():
    ...     x.info().state
    'written'
    """

    handle: str
    """The text of the handle."""
    names: tuple[str, ...]
    """The names that it has."""
    dtype: np.dtype[Any] | None
    """The type of the elements; None for an object that `put` has stored, and for a type that this
    version of numpy does not know."""
    shape: tuple[int, ...]
    """The length of each axis of the array as it was made."""
    order: str
    """"C" or "F"."""
    nbytes: int
    """The bytes of all elements."""
    owner: int | None
    """The process that frees it when it ends; None if the array outlives all processes but the last."""
    owner_alive: bool | None
    """Whether the owner lives. The next `reap` frees the arrays of a dead one."""
    writer: int | None
    """The process that has leased it for writing, or whose pool works on it."""
    readers: tuple[int, ...]
    """The processes that have leased it for reading, or that work on tiles of it."""
    pins: tuple[int, ...]
    """The processes that have a view of it, which keeps its bytes in place."""
    poisoned: bool
    """A writer has left it half-written."""
    sent: bool | None = None
    """Whether this process has sent it, so that it outlives its last view. None if this process does
    not own it, or if the look was not through an array or a `Ref`."""

    @property
    def state(self) -> str:
        """Return "written", "poisoned", "read", or "idle" if no process has a lease."""
        if self.writer is not None:
            return "written"
        if self.poisoned:
            return "poisoned"
        return "read" if self.readers else "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStat:
    """Counts of a table at one moment; see `Table.stat`."""

    name: str | None
    """The name of the table."""
    arrays: int
    """Arrays and objects that live, of all processes."""
    bytes: int
    """The bytes of their elements."""
    names: int
    """Names."""
    retired: int
    """Freed arrays that still are in view, or leased."""
    made: int
    """Arrays that were made since the table was, with those that the table makes for itself."""
    freed: int
    """How many of these were freed."""
    retained: int
    """Bytes of freed arrays that are kept for the next ones, at most: `trim` gives them back."""
    committed: int
    """Bytes of memory that the table takes, with its own words."""
    capacity: int
    """Bytes of address space for the elements of all arrays."""
    processes: tuple[int, ...]
    """The processes that have the table open, as pids."""
    dead: tuple[int, ...]
    """Processes that died in the table. `reap` takes back their arrays, leases and seats."""
    seats: int
    """The largest number of processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of `Table.verify`.

    >>> import ndshm
    >>> found = ndshm.default().verify()
    >>> assert found.is_clean, found.damage
    """

    damage: tuple[str, ...]
    """The words that no process writes: where they are, and what is wrong."""
    live: int
    """Live arrays, with those that the table makes for itself."""
    poisoned: int
    """How many of them are half-written."""
    writers: int
    """Leases for writing."""
    readers: int
    """Leases for reading, one for each process and array."""
    pins: int
    """Views, one for each process and array."""
    retired: int
    """Freed arrays that still are in view, or leased."""
    in_transit: int
    """Places that a process is changing, or in which one has died."""
    slots: int
    """Places for arrays so far."""
    seats: int
    """Processes in the table."""

    @property
    def is_clean(self) -> bool:
        """Return whether nothing is damaged."""
        return not self.damage
