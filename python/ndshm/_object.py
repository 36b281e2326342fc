"""Objects of any kind in a table: pickled, with their arrays beside the pickle."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _ndshm
from ._errors import NotPicklable, PickleRefused, TypeMismatch
from ._ndshm import Ref
from ._peers import Peers

__all__ = ["Ref", "get"]

_T = TypeVar("_T")

#: The most axes of an array in a table.
MAX_AXES = 8


class Objects(Peers):
    """The part of `Table` that stores objects."""

    __slots__ = ()

    def put(self, obj: _T) -> Ref[_T]:
        """Store an object, and return its `Ref`, which any process can be sent.

        The object is pickled. Its arrays lie beside the pickle, and `Ref.get` returns them without
        a copy, read-only: numpy arrays, those in data frames of pandas, the columns of pyarrow. An
        `ndshm.ndarray` in the object is not copied into it. Its handle is, as when it is sent: so
        it stays writeable, is not freed with the object, and goes with the process that made it
        unless `detach` was called.

        >>> import ndshm, numpy as np
        >>> with ndshm.Table() as t:
        ...     ref = t.put([np.arange(4), "text", None])
        ...     print(ref.get())
        [array([0, 1, 2, 3]), 'text', None]
        """
        if not self.allow_pickle:
            raise PickleRefused(
                f"objects of {type(obj)} would be pickled, and this table was opened with "
                "allow_pickle=False: store the data as arrays, or open it with allow_pickle=True"
            )
        pieces: list[bytes | memoryview] = []
        buffers: list[PickleBuffer] = []
        try:
            _dump(obj, pieces, buffers)
            return _ndshm.store(self, pieces, [buffer.raw() for buffer in buffers])
        except (pickle.PicklingError, TypeError, AttributeError, BufferError) as error:
            raise NotPicklable(
                f"an object of {type(obj)} cannot be pickled: {error}; define its functions and "
                "classes at the top level of a module, and replace open files, locks, connections "
                "and generators in it by what they are made from"
            ) from error


def get(ref: Ref[_T], *, allow_pickle: bool = True) -> _T:
    """Return the object of a `Ref`; see `Ref.get`.

    >>> import ndshm
    >>> ndshm.get(ndshm.put((1, 2)))
    (1, 2)
    """
    if not isinstance(ref, Ref):
        what = "an array, and is used as it is" if isinstance(ref, np.ndarray) else f"{type(ref)}"
        raise TypeMismatch(f"get() takes the Ref that put() has returned, but this is {what}")
    return ref.get(allow_pickle=allow_pickle)


class _Pieces:
    """A file for a pickler: large byte strings arrive as they are, and are not joined."""

    __slots__ = ("write",)

    def __init__(self, pieces: list[bytes | memoryview]) -> None:
        def write(piece: bytes | bytearray) -> None:
            # A view keeps a bytearray of the user from being resized until it is copied.
            pieces.append(piece if type(piece) is bytes else memoryview(piece))

        self.write: Callable[[bytes | bytearray], None] = write


def _dump(obj: Any, pieces: list[bytes | memoryview], buffers: list[PickleBuffer]) -> None:
    pickler = pickle.Pickler(_Pieces(pieces), 5, buffer_callback=buffers.append)
    pickler.dispatch_table = {**copyreg.dispatch_table, np.ndarray: _reduce_array}
    pickler.dump(obj)


def _reduce_array(array: NDArray[Any]) -> str | tuple[Any, ...]:
    """Pickle an array as a buffer that is loaded without a detour through numpy's Python code."""
    dtype = array.dtype
    if dtype.hasobject or not dtype.itemsize or array.ndim > MAX_AXES:
        return array.__reduce_ex__(5)
    flags = array.flags
    if not flags.forc:
        array = np.ascontiguousarray(array)
        flags = array.flags
    make = _ndshm._f_array if flags.fnc else _ndshm._c_array
    return make, (_buffer(array), _ndshm.short_dtype(dtype), *array.shape)


def _buffer(array: NDArray[Any]) -> PickleBuffer:
    exporter: Any = array
    try:
        return PickleBuffer(exporter)
    except (ValueError, BufferError):
        # Types of which the buffer protocol knows nothing, such as dates.
        exporter = array.reshape(-1, order="A").view(np.uint8)
        return PickleBuffer(exporter)
