"""The exceptions of the package.

Most derive from a builtin exception as well, so that the usual `except` clauses catch them.
"""

from __future__ import annotations

import pickle

__all__ = [
    "Busy",
    "Closed",
    "Full",
    "InvalidName",
    "NameNotFound",
    "NameTaken",
    "NdshmError",
    "NotPicklable",
    "PickleRefused",
    "Poisoned",
    "ReadOnly",
    "Stale",
    "TypeMismatch",
    "Unreachable",
]


class NdshmError(Exception):
    """Base of all exceptions of the package. The text names the value and the remedy."""


class Stale(NdshmError, ReferenceError):
    """The array was freed, or its owner has ended."""


class Busy(NdshmError, BlockingIOError):
    """Another lease excludes this one."""

    pid: int
    """A process that has the lease."""


class Poisoned(NdshmError, RuntimeError):
    """A writer died or raised an exception, and has left the array half-written."""

    pid: int
    """The process that was writing."""
    time: int
    """When this was noticed, in seconds since 1970."""
    what: str
    """The part that it was writing."""


class ReadOnly(NdshmError, ValueError):
    """The table, or what was found through it, was opened to be looked at only."""


# MemoryError first, so that Full.__new__ is the one that makes a Full: tblib calls it by that name.
class Full(MemoryError, NdshmError):
    """There is no memory for the array, or no room in the table."""


class NameTaken(NdshmError, FileExistsError):
    """The name is in use."""


class InvalidName(NdshmError, ValueError):
    """The name is empty, or too long."""


class NameNotFound(NdshmError, KeyError):
    """Nothing has this name."""

    def __str__(self) -> str:
        # KeyError writes the representation of its argument.
        return str(self.args[0]) if self.args else ""


class NotPicklable(NdshmError, pickle.PicklingError):
    """The object cannot be pickled, so it cannot be put into a table."""


class PickleRefused(NdshmError, ValueError):
    """This is a pickled object, and the caller has said `allow_pickle=False`."""


class Unreachable(NdshmError, OSError):
    """This process cannot open the table of an array that it has received."""


class TypeMismatch(NdshmError, TypeError):
    """Elements of this type cannot be shared, or are not those of the array."""


class Closed(NdshmError, ValueError):
    """This process has left the table."""
