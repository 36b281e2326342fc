"""The blocks of `ndshm.compat.shared_memory` in their table: names, and when they end."""

from __future__ import annotations

import errno
import os
import struct
import time
from contextlib import suppress
from multiprocessing import parent_process, process
from typing import Any

from .. import _ndshm
from .._array import ndarray
from .._errors import NameNotFound, NameTaken, Stale
from .._table import Table
from .._table import open as _open

# The last bytes of a block's array: the mark of its family, or 0 if the block outlives it.
_TAIL = struct.Struct("<Q")

# Keys of the settings that multiprocessing hands down to children, under all start methods: the name
# of the table, and the mark. A fork server was started in another environment, maybe.
_TABLE = "ndshm_table"
_FAMILY = "ndshm_family"


class _Joined:
    """The table of this process, once it is open."""

    table: Table | None = None
    marks: list[ndarray] = []
    """Arrays that live as long as this process, if that is the first of its family.

    They are several if several threads make their first block at once.
    """
    next_look: float = 0.0
    """When to look again which families have ended."""


def table() -> Table:
    """Return the table of the blocks, which is opened at the first call.

    >>> from ndshm.compat import shared_memory
    >>> shared_memory.table().name is not None
    True
    """
    joined = _Joined.table
    return _open_table(_table_name()) if joined is None or joined.closed else joined


def join(name: str) -> None:
    """Use the table of the process that has sent a block, unless one is in use already.

    The arguments of a process arrive before its settings.
    """
    if _Joined.table is None:
        _open_table(name)


def _open_table(name: str) -> Table:
    joined = _Joined.table = _open(name)
    _settings()[_TABLE] = name
    _Joined.next_look = 0.0
    return joined


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    return settings


def _table_name() -> str:
    if parent_process() is not None and (name := _settings().get(_TABLE)) is not None:
        return str(name)
    return os.environ.get("NDSHM_SHARED_MEMORY", f"ndshm-shared-memory-{os.getuid()}")


def _is_live(table: Table, mark: int) -> bool:
    table.reap()
    return _ndshm.is_live(table, mark)


def _family(table: Table) -> int:
    """Return the mark of the family of this process, or 0 if it is not known."""
    settings = _settings()
    found = settings.get(_FAMILY)
    if found is not None and found[0] == table.id and _is_live(table, found[1]):
        return int(found[1])
    if found is None and parent_process() is not None:
        return 0
    array = table.zeros(1, "u1")
    _Joined.marks.append(array)
    mark = _ndshm.handle_bits(array)
    settings[_FAMILY] = (table.id, mark)
    return mark


def _mark_of(block: ndarray) -> int:
    if block.dtype != "u1" or block.ndim != 1 or block.nbytes <= _TAIL.size:
        raise TypeError(
            f"{block.handle} is an array that this module has not made: publish it in another "
            "table, or with another name"
        )
    (mark,) = _TAIL.unpack_from(block.data, block.nbytes - _TAIL.size)
    return int(mark)


def _free_left(table: Table) -> None:
    """Free the blocks of families that have ended.

    It does so once a second, or less often, so that it takes a hundredth of the time at most.
    """
    begun = time.monotonic()
    if begun < _Joined.next_look:
        return
    table.reap()
    for name in _ndshm.names(table, "/"):
        try:
            block = _ndshm.find_block(table, name)
            mark = _mark_of(block)
            if mark and not _ndshm.is_live(table, mark):
                # Not by its name, which may be another block's by now.
                block.free()
        except (NameNotFound, Stale, TypeError):
            pass
    ended = time.monotonic()
    _Joined.next_look = ended + max(1.0, 100 * (ended - begun))


def check_name(name: str) -> None:
    """Raise an error for a text that is no name of a POSIX block."""
    if "\0" in name:
        raise ValueError("embedded null character")
    if len(os.fsencode(name)) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)


def not_found(name: str) -> FileNotFoundError:
    """Return the exception for a name that nothing has."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def create(name: str, size: int, track: bool) -> ndarray:
    """Create a block of zeros."""
    joined = table()
    _free_left(joined)
    block = joined.zeros(size + _TAIL.size, "u1")
    _TAIL.pack_into(block.data, size, _family(joined) if track else 0)
    try:
        _ndshm.publish_block(joined, name, block)
    except NameTaken:
        try:
            # If its family has ended, the name is free now.
            find(name)
        except FileNotFoundError:
            return create(name, size, track)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
    except Stale:
        # Another process has unlinked it already.
        pass
    return block


def find(name: str) -> ndarray:
    """Return the block of a name, unless its family has ended."""
    joined = table()
    try:
        block = _ndshm.find_block(joined, name)
        mark = _mark_of(block)
        if mark and not _is_live(joined, mark):
            block.free()
            raise not_found(name)
    except (NameNotFound, Stale):
        raise not_found(name) from None
    return block


def unlink(name: str) -> None:
    """Remove the name of a block, and free it."""
    check_name(name)
    if _Joined.table is not None and _Joined.table.closed:
        # As by the finalizer of a global variable, when the process has left the table at its end.
        # The blocks of its family are gone then. An exception is an ImportError if the interpreter
        # cannot import its class any more.
        with suppress(NameNotFound, Stale, ImportError), _open(_table_name(), "r") as joined:
            _ndshm.unlink_block(joined, name)
        return
    try:
        _ndshm.unlink_block(table(), name)
    except (NameNotFound, Stale):
        raise not_found(name) from None


def size_of(block: ndarray) -> int:
    """Return the number of bytes that the user has asked for."""
    return block.nbytes - _TAIL.size
