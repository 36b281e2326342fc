"""The class of arrays."""

from __future__ import annotations

import copyreg
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _ndshm
from ._look import ArrayInfo
from ._ndshm import Ref

__all__ = ["free", "give", "ndarray", "portable"]

_Item = TypeVar("_Item", bound="ndarray | Ref[Any]")


class ndarray(_ndshm.ArrayMethods, np.ndarray[tuple[Any, ...], np.dtype[Any]]):
    """An array of a table: a `numpy.ndarray` on bytes that all processes share.

    Its pickle is its handle. So are those of its slices, transposes and fields, which share the
    bytes. The results of computations are plain arrays, and are pickled as such.

    Reading and writing are not synchronised, as with threads. `read` and `write` are leases, which
    are:

    >>> import ndshm
    >>> x = ndshm.zeros(3)
    >>> with x.write() as a:
    ...     a += 1.5
    >>> with x.read() as a:
    ...     print(a.sum())
    4.5
    """

    __slots__ = ()
    __module__ = "ndshm"
    # That of numpy's class, which looks it up at each operation: here it is found at once.
    __array_priority__ = 0.0

    # The results of computations are plain arrays. It is a function, and no method.
    __array_wrap__ = _ndshm.array_wrap  # type: ignore[assignment]

    def info(self) -> ArrayInfo:
        """Return the state of the array: its owner, names, leases and pins.

        It is of the whole array, also if this is a part of it.

        >>> import ndshm, os
        >>> info = ndshm.zeros((4, 3), "f4").info()
        >>> info.nbytes, info.owner == os.getpid(), info.state, info.sent
        (48, True, 'idle', False)
        """
        return ArrayInfo(**_ndshm.look_at_item(self))

    # A copy shares nothing, so it is a plain array.

    def copy(self, order: Any = "C") -> NDArray[Any]:  # type: ignore[override]
        """Return a copy, as a plain array."""
        return self.view(np.ndarray).copy(order)

    def __copy__(self) -> NDArray[Any]:  # type: ignore[override]
        return self.view(np.ndarray).copy("K")

    def __deepcopy__(self, memo: Any) -> NDArray[Any]:  # type: ignore[override]
        return self.view(np.ndarray).copy("K")


# Pickle looks here first. Classes that derive from this one have the method `__reduce_ex__`.
copyreg.pickle(ndarray, _ndshm.reduce_array)


def free(item: ndarray | Ref[Any]) -> None:
    """Free an array or an object, as its method `free` does.

    >>> import ndshm
    >>> x = ndshm.zeros(3)
    >>> ndshm.free(x)
    """
    item.free()


def give(item: _Item) -> _Item:
    """Hand an array or an object over to the process that it is sent to, and return it.

    It stays when its sender ends. The process that unpickles it first owns it, and frees it
    with its last view there. For the results of workers:

    >>> import ndshm
    >>> def work(n):
    ...     x = ndshm.zeros(n)
    ...     return ndshm.give(x)

    What is sent and never received stays until all processes have left the table.
    """
    _ndshm.mark_given(item)
    return item


def portable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same array as one whose pickle has the bytes, and not the handle.

    For files, and for processes that cannot open the table, as on another machine.

    >>> import ndshm, pickle
    >>> x = ndshm.zeros(1000)
    >>> len(pickle.dumps(x)) < 80, len(pickle.dumps(ndshm.portable(x))) > 8000
    (True, True)
    """
    return array.view(np.ndarray)
