"""Tables, and the functions on the default table."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _ndshm
from ._array import ndarray
from ._copy import copy, fill
from ._load import load_npy as _load_npy
from ._look import ArrayInfo, TableStat, Verification
from ._names import Names
from ._object import Ref

_T = TypeVar("_T")

__all__ = [
    "Table",
    "array",
    "default",
    "empty",
    "full",
    "load_npy",
    "open",
    "put",
    "scope",
    "zeros",
    "zeros_like",
]


class Table(Names):
    """A table of arrays in shared memory, and this process's part in it.

    `Table()` makes a new one without a name: it ends with its last process, and leaves nothing
    behind, however that ends. Other processes open it when an array of it is sent to them.
    `ndshm.open(name)` opens one that unrelated programs find by its name.

    `capacity` is the number of bytes for all arrays together. It is address space, not memory, and
    by default 16 times the machine's memory. `retain` is the number of bytes of freed arrays that
    are kept for the next ones, by default a quarter of the memory. `seats` is the largest number of
    processes at one time, 1024 by default. `huge_pages=True` asks the system for huge pages, in
    this process and in those that it forks. They make random access to large arrays faster. The
    attribute `huge_pages` says what the system grants, or what to change.

    A table is also a mapping from names to values, which all programs share that have opened it;
    see `ndshm.open`. `allow_pickle=False` refuses objects that are no arrays, because loading a
    pickle runs code that it names.

    >>> import ndshm
    >>> with ndshm.Table() as t:
    ...     x = t.full((2, 3), 7)
    ...     print(x.sum())
    42
    """

    __slots__ = ()
    __module__ = "ndshm"

    def full(
        self,
        shape: int | tuple[int, ...],
        fill_value: Any,
        dtype: DTypeLike | None = None,
        order: str = "C",
    ) -> ndarray:
        """Create an array with all elements `fill_value`."""
        if dtype is None:
            dtype = np.asarray(fill_value).dtype
        made: ndarray = self.empty(shape, dtype, order)
        fill(made.view(np.ndarray), fill_value)
        return made

    def array(
        self, source: ArrayLike, dtype: DTypeLike | None = None, *, readonly: bool = False
    ) -> ndarray:
        """Create a copy of an array, in the same order of axes.

        `readonly=True` makes it read-only for its receivers, too: numpy does not let them change
        that by accident. They can still free it.
        """
        given = np.asarray(source, dtype)
        fortran = given.flags.f_contiguous and not given.flags.c_contiguous
        made: ndarray = self.empty(given.shape, given.dtype, "F" if fortran else "C")
        copy(made.view(np.ndarray), given)
        if readonly:
            made.flags.writeable = False
        return made

    def zeros_like(self, source: ArrayLike, dtype: DTypeLike | None = None) -> ndarray:
        """Create an array of zeros with the shape, type and order of another array."""
        given = np.asarray(source)
        fortran = given.flags.f_contiguous and not given.flags.c_contiguous
        chosen = given.dtype if dtype is None else dtype
        return self.zeros(given.shape, chosen, "F" if fortran else "C")

    def load_npy(self, path: str | os.PathLike[str], *, readonly: bool = False) -> ndarray:
        """Create an array from a file of `numpy.save`, which is read into the table directly."""
        return _load_npy(self, path, readonly)

    def info(self, name: str) -> ArrayInfo:
        """Return the state of the array or object that has a name.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t["settings"] = {"rate": 0.5}
        ...     t["x"] = t.zeros(2)
        ...     print(t.info("x").names, t.info("settings").dtype)
        ('x',) None
        """
        return ArrayInfo(**_ndshm.look_at_name(self, name))

    def arrays(self) -> list[ArrayInfo]:
        """Return the states of all arrays and objects of the table, of all processes.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     x = t.zeros((100, 3))
        ...     print([(info.shape, info.state) for info in t.arrays()])
        [((100, 3), 'idle')]
        """
        return [ArrayInfo(**fields) for fields in _ndshm.look_at_arrays(self)]

    def stat(self) -> TableStat:
        """Return counts of the arrays, the memory and the processes of the table.

        >>> import ndshm, os
        >>> with ndshm.Table(capacity=2**30) as t:
        ...     x = t.zeros(1000)
        ...     found = t.stat()
        ...     print(found.arrays, found.bytes, found.processes == (os.getpid(),))
        1 8000 True
        """
        return TableStat(**_ndshm.table_stat(self))

    def verify(self) -> Verification:
        """Check every word of the table, and return a report.

        Processes may use the table meanwhile; other threads of this process wait. The elements of
        arrays are not looked at.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     x = t.zeros(1000)
        ...     print(t.verify().is_clean)
        True
        """
        return Verification(**_ndshm.verify(self))

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        state = " (closed)" if self.closed else " (read-only)" if self.readonly else ""
        return f"<ndshm.Table{name} {self.id:016x}{state}>"


def _from_address(address: bytes, allow_pickle: bool = True, mode: str = "r") -> Table:
    """Open a table, for unpickling."""
    return Table(_address=address, allow_pickle=allow_pickle, mode=mode)


def open(
    name: str,
    mode: str = "a",
    *,
    capacity: int | None = None,
    retain: int | None = None,
    seats: int | None = None,
    allow_pickle: bool = True,
    huge_pages: bool = False,
) -> Table:
    """Open the table of a name, which appears below `/dev/shm`.

    `mode` is `"a"` to make the table if there is none, `"r"` if it has to exist, and `"x"` if it
    must not. `"ro"` is `"r"` to look only, see below. The last process that leaves removes the name.

    The table is a mapping that all these programs share. Arrays stay arrays, which each program
    changes in place. Other values are pickled; see `put`.

    >>> import ndshm, numpy as np
    >>> with ndshm.open("docs-example") as t:
    ...     t["scores"] = np.zeros(3)
    ...     t["settings"] = {"rate": 0.5}
    ...     t["scores"][1] = 7
    ...     print(t["scores"], t["settings"], list(t))
    [0. 7. 0.] {'rate': 0.5} ['scores', 'settings']

    A process with write access to the table can run code in every process that loads an object
    from it. `allow_pickle=False` refuses objects; arrays are not concerned.

    With `mode="ro"` the program can look and not write. The arrays that it finds through the table
    are read-only, which numpy lets nobody undo. So are arrays, `Ref`s and tables in objects. Each
    change of the table raises `ReadOnly`:

    >>> t = ndshm.open("docs-example")
    >>> t["scores"] = np.zeros(3)
    >>> seen = ndshm.open("docs-example", mode="ro")
    >>> seen["scores"].flags.writeable
    False
    >>> seen["scores"] = np.ones(3)
    Traceback (most recent call last):
    ...
    ndshm.ReadOnly: ...
    >>> t.close()

    That guards against mistakes of the program. It is no border: the process takes part in the table
    as others do, and code that goes around numpy, by addresses or by a table that is opened
    otherwise, can write. It also takes leases, if the program calls `read`.
    """
    return Table(
        name,
        mode,
        capacity=capacity,
        retain=retain,
        seats=seats,
        allow_pickle=allow_pickle,
        huge_pages=huge_pages,
    )


def default() -> Table:
    """Return the table that the functions of the module use, which is made at the first call.

    >>> import ndshm
    >>> ndshm.zeros(3).table == ndshm.default()
    True
    """
    made = _ndshm.default()
    assert isinstance(made, Table)
    return made


zeros = _ndshm.zeros
empty = _ndshm.empty


def full(
    shape: int | tuple[int, ...],
    fill_value: Any,
    dtype: DTypeLike | None = None,
    order: str = "C",
) -> ndarray:
    """Create an array in the default table with all elements `fill_value`.

    >>> import ndshm
    >>> ndshm.full(3, 7)
    ndarray([7, 7, 7])
    """
    return default().full(shape, fill_value, dtype, order)


def array(source: ArrayLike, dtype: DTypeLike | None = None, *, readonly: bool = False) -> ndarray:
    """Create a copy of an array in the default table; see `Table.array`.

    >>> import ndshm
    >>> ndshm.array([1.5, 2.5], readonly=True).flags.writeable
    False
    """
    return default().array(source, dtype, readonly=readonly)


def zeros_like(source: ArrayLike, dtype: DTypeLike | None = None) -> ndarray:
    """Create an array of zeros in the default table, with the shape and type of another.

    >>> import ndshm
    >>> ndshm.zeros_like([[1, 2], [3, 4]])
    ndarray([[0, 0],
             [0, 0]])
    """
    return default().zeros_like(source, dtype)


def load_npy(path: str | os.PathLike[str], *, readonly: bool = False) -> ndarray:
    """Create an array in the default table from a file of `numpy.save`."""
    return default().load_npy(path, readonly=readonly)


def scope() -> _ndshm.Scope:
    """Return a context manager that frees the arrays that are made in the default table and sent.

    An array that was sent lives until it is freed, because a process may be about to receive it. At
    the end of the block the arrays that this thread, or task of asyncio, has made in it and sent are
    freed, except those that were given away or detached:

    >>> import ndshm, pickle
    >>> with ndshm.scope():
    ...     x = ndshm.zeros(3)
    ...     sent = pickle.dumps(x)
    >>> pickle.loads(sent)
    Traceback (most recent call last):
    ...
    ndshm.Stale: ...
    """
    return default().scope()


def put(obj: _T) -> Ref[_T]:
    """Store an object in the default table, and return its `Ref`; see `Table.put`.

    >>> import ndshm, numpy as np
    >>> ref = ndshm.put({"x": np.ones(1000), "label": "first"})
    >>> ndshm.get(ref)["label"]
    'first'
    """
    return default().put(obj)
