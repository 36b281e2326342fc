"""The manager of numpy arrays over `multiprocessing.RawArray` that programs copy from the web.

It is a singleton, `SharedNumpyMemManager`, with `createArray`, `getArray` and `freeArray`: handles
are sent to the workers of a pool, which get the arrays by them. This module has its interface. A
program changes one import:

>>> from ndshm.compat.raw_array_manager import SharedNumpyMemManager
>>> handle = SharedNumpyMemManager.createArray((2, 3))
>>> SharedNumpyMemManager.getArray(handle)[0] = 1.5
>>> SharedNumpyMemManager.getArray(handle).sum()
np.float64(4.5)
>>> SharedNumpyMemManager.freeArray(handle)

and four faults of the original are gone:

- its list of arrays is copied by a fork, so a worker does not find an array that was made after the
  pool; with spawn and forkserver it finds none. Here a handle leads to its array in any process;
- its handles are places in that list, and `freeArray` hands the place on: an old handle returns
  another array, or None. Here it raises `ndshm.Stale`;
- `freeArray` frees in its own process only: the others keep the memory, and a worker's call does
  nothing. Here the array is freed everywhere, and views that exist keep their bytes;
- it has one lock, which an exception leaves locked for all processes, and a largest number of
  arrays. Here is neither.

A handle can be compared, and be a key of a dictionary. It is no number.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from .. import _ndshm
from .._array import ndarray
from .._errors import NdshmError, Stale
from .._table import zeros as _zeros

__all__ = ["Handle", "SharedNumpyMemManager", "SharedNumpyMemManagerError"]


class SharedNumpyMemManagerError(NdshmError):
    """Of the original. Nothing raises it here: there is no largest number of arrays."""


class Handle:
    """A handle of an array, as `SharedNumpyMemManager.createArray` returns it."""

    __slots__ = ("_array", "_bits", "_state")

    def __init__(self, array: ndarray) -> None:
        self._array: ndarray | None = array
        self._bits = _ndshm.handle_bits(array), array.table.id
        self._state: tuple[Any, ...] = ()

    def _attached(self) -> ndarray:
        """Return the array, which this process may not have seen yet."""
        if self._array is None:
            attach, arguments = self._state[:2]
            array: ndarray = attach(*arguments)
            self._array = array
        return self._array

    def _is_live(self) -> bool:
        return _ndshm.is_live(self._attached().table, self._bits[0])

    # Unpickling opens nothing. So an array that is gone raises its exception in the call that wants
    # it, and not in the machinery of a pool, which would hang.

    def __getstate__(self) -> tuple[Any, ...]:
        state = self._state if self._array is None else self._array.__reduce_ex__(5)
        return self._bits, state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._array = None
        self._bits, self._state = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other._bits == self._bits

    def __hash__(self) -> int:
        return hash(self._bits)

    def __repr__(self) -> str:
        return f"<handle {self._bits[0]:#x} of table {self._bits[1]:016x}>"


class SharedNumpyMemManager:
    """Creates, finds and frees numpy arrays that processes share.

    The methods are static, as in the original. An array lives until `freeArray`, the last of its
    handles and views if it was never sent, or the end of the process that created it.
    """

    _instance: SharedNumpyMemManager | None = None

    def __new__(cls) -> SharedNumpyMemManager:
        """Return the only instance."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    @staticmethod
    def getInstance() -> SharedNumpyMemManager:
        """Return the only instance, which has no state."""
        return SharedNumpyMemManager()

    @staticmethod
    def createArray(
        dimensions: SupportsIndex | tuple[SupportsIndex, ...] | list[int],
        ctype: DTypeLike | type[Any] = np.float64,
    ) -> Handle:
        """Create an array of zeros, and return its handle.

        `ctype` is a type of ctypes, a Structure included, or anything that numpy takes as a dtype.

        >>> import ctypes
        >>> from ndshm.compat.raw_array_manager import SharedNumpyMemManager as manager
        >>> manager.getArray(manager.createArray(3, ctypes.c_int)).dtype
        dtype('int32')
        """
        return Handle(_zeros(dimensions, np.dtype(ctype)))

    @staticmethod
    def getArray(handle: Handle) -> ndarray:
        """Return the array of a handle.

        Raises `ndshm.Stale` if it was freed, in any process.
        """
        array = handle._attached()
        if not handle._is_live():
            raise Stale(
                f"the array of {array.handle} was freed, by freeArray or because the process that "
                "created it has ended: create another one"
            )
        return array

    @staticmethod
    def freeArray(handle: Handle) -> None:
        """Free the array of a handle, for all processes. A second call does nothing."""
        try:
            handle._attached().free()
        except Stale:
            pass
