"""The processes of a table: owners of arrays, living processes, and a wait for their end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _ndshm
from ._ndshm import Ref

if TYPE_CHECKING:
    from ._table import Table

__all__ = ["Peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that has a table open, as others see it; see `Table.peers` and `Table.owner`.

    A process that closes the table and opens it again is another `Peer`. A `Peer` can be pickled, and
    so be sent to other processes.

    >>> import ndshm, os
    >>> with ndshm.Table() as t:
    ...     me = t.peer()
    ...     print(me.pid == os.getpid(), me.is_alive)
    True True
    """

    table: Table = field(repr=False)
    """The table that the process has open."""
    seat: int
    """The number of its place in the table, from 0."""
    pid: int = field(compare=False)
    """Its pid, as it sees it itself: another number than here if it is in another container."""
    epoch: int = field(repr=False)
    """How often the place was taken."""

    @property
    def is_alive(self) -> bool:
        """Return whether the process lives and has the table open."""
        return _ndshm.is_alive(self.table, (self.seat, self.pid, self.epoch))


class Peers(_ndshm.Table):
    """The part of `Table` that concerns other processes."""

    __slots__ = ()

    def peer(self) -> Peer:
        """Return this process, as others see it."""
        return Peer(cast("Table", self), *_ndshm.own_peer(self))

    def peers(self) -> list[Peer]:
        """Return the processes that have the table open, this one too.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     print(t.peers() == [t.peer()])
        True
        """
        return [Peer(cast("Table", self), *fields) for fields in _ndshm.peers(self)]

    def owner(self, item: np.ndarray[Any, Any] | Ref[Any] | str) -> Peer | None:
        """Return the process that owns an array, a `Ref`, or the value of a name.

        Return None if no process owns it, as with everything that has a name: that stays until
        the last process leaves the table. The arrays of a dead owner stay until the next `reap`.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     x = t.zeros(3)
        ...     print(t.owner(x) == t.peer())
        ...     t["x"] = x
        ...     print(t.owner("x"))
        True
        None
        """
        found = (
            _ndshm.owner_of_name(self, item)
            if isinstance(item, str)
            else _ndshm.owner_of_item(self, item)
        )
        return None if found is None else Peer(cast("Table", self), *found)

    def watch(self, *what: Peer | str, timeout: float | None = None) -> Peer | str | None:
        """Wait until one of these processes or names ends, and return it. Return None after `timeout`.

        A process ends when it closes the table or dies, however that happens. All that it held is
        taken back before this returns. A name ends when it is removed or is given to another value.
        An end is noticed within 10 ms. `timeout` is in seconds; None waits without end, 0 looks once.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t["server"] = "ready"
        ...     print(t.watch("server", timeout=0))
        None

        A program that depends on others waits for the end of any of them:

        >>> def supervise(table: ndshm.Table) -> None:
        ...     others = [it for it in table.peers() if it != table.peer()]
        ...     while others:
        ...         gone = table.watch(*others)
        ...         others.remove(gone)
        ...         print("process", gone.pid, "has ended")
        """
        peers, names = [], []
        for it in what:
            if isinstance(it, str):
                names.append(it)
            elif it.table == self:
                peers.append((it.seat, it.pid, it.epoch))
            else:
                raise ValueError(f"{it} is of another table: watch it there, by its table.watch()")
        if not what:
            raise ValueError("nothing to watch: pass processes, as from peers(), or names")
        gone = _ndshm.watch(self, peers, names, timeout)
        if gone is None or isinstance(gone, str):
            return gone
        return Peer(cast("Table", self), *gone)
