"""The interface of `multiprocessing.shared_memory` on a table.

>>> from ndshm.compat import shared_memory
>>> block = shared_memory.SharedMemory(create=True, size=100)
>>> same = shared_memory.SharedMemory(block.name)       # in any process of the user
>>> block.buf[:5] = b"howdy"
>>> bytes(same.buf[:5])
b'howdy'
>>> same.close(); block.close(); block.unlink()

All blocks of a user are in one table, whose name is `ndshm-shared-memory-` and the user's number,
or the value of the environment variable `NDSHM_SHARED_MEMORY`. A process opens it at the first use,
and leaves it at its end. There is no resource tracker. A block ends with

- `unlink`;
- the end of the process that started the family of processes which made the block, also if it is
  killed. A family is a process, and all that it starts by multiprocessing or by fork. Blocks made
  with `track=False` are excepted, and so are those of a child that was started before its parent
  had used this module;
- the last process that leaves the table. If that is killed, the table stays in `/dev/shm` for the
  next one that uses this module, or for `ndshm gc`.

The bytes of a block stay where they are as long as something refers to them, also after `unlink`,
and after `close` if `numpy.ndarray(buffer=block.buf)` has taken them without exporting the buffer.
"""

from __future__ import annotations

from multiprocessing import managers
from multiprocessing import shared_memory as _std
from multiprocessing.managers import BaseManager, dispatch  # type: ignore[attr-defined]
from types import FunctionType
from typing import Any, TypeVar, cast

from .. import _ndshm
from .._array import ndarray
from . import _blocks
from ._blocks import table

__all__ = ["ShareableList", "SharedMemory", "SharedMemoryManager", "table"]

_Item = TypeVar("_Item", int, float, bool, str, bytes, None)


class SharedMemory(_std.SharedMemory):
    """A block of bytes, created or found by its name.

    The arguments, attributes and exceptions are those of
    `multiprocessing.shared_memory.SharedMemory`. `size` is exact. `track=False` makes a block
    outlive the processes that made it.
    """

    _name: str | None = None
    _buf: memoryview | None = None
    _prepend_leading_slash = True
    _bytes: _ndshm.BlockBytes | None = None

    def __init__(
        self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True
    ) -> None:
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create and size == 0:
            raise ValueError("'size' must be a positive number different from zero")
        if name is None and not create:
            raise ValueError("'name' can only be None if create=True")
        if name is not None:
            block = self._enter(self._full_name(name), create, size, track)
        else:
            while True:
                try:
                    made: str = _std._make_filename()  # type: ignore[attr-defined]
                    block = self._enter(made, create, size, track)
                    break
                except FileExistsError:
                    continue
        self._size = _blocks.size_of(block)
        self._bytes = _ndshm.BlockBytes(block, self._size)
        self._buf = memoryview(cast(Any, self._bytes))

    def _full_name(self, name: str) -> str:
        return "/" + name if self._prepend_leading_slash else name

    def _enter(self, name: str, create: bool, size: int, track: bool) -> ndarray:
        """Create or find the block, and take its name."""
        _blocks.check_name(name)
        block = _blocks.create(name, size, track) if create else _blocks.find(name)
        self._name = name
        return block

    def __del__(self) -> None:
        try:
            self.close()
        except BufferError:
            # The bytes stay for those who have the buffer.
            pass

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (type(self), self.name, table().name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self) -> memoryview:
        """The bytes of the block; None after `close`."""
        return self._buf  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """The name by which other processes find the block."""
        name = self._name or ""
        return name.removeprefix("/") if self._prepend_leading_slash else name

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._size

    def close(self) -> None:
        """Give up this view of the block, which stays.

        Raises `BufferError` if something has exported `buf`, like a memoryview or numpy.frombuffer.
        """
        if self._buf is not None:
            self._buf.release()
            self._buf = None
        if self._bytes is not None and self._bytes.exports:
            raise BufferError(
                f"{self._bytes.exports} views of {self!r} exist: delete them first, or do not call "
                "close, as the bytes stay with the last view in any case"
            )
        # numpy.ndarray(buffer=block.buf) refers to the object and exports nothing: it keeps the bytes.
        self._bytes = None

    def unlink(self) -> None:
        """Remove the name, and free the block.

        Raises `FileNotFoundError` if nothing has the name, as at a second call.
        """
        if self._name:
            _blocks.unlink(self._name)


def _received(kind: Any, name: str, table_name: str) -> Any:
    """Return what was pickled."""
    _blocks.join(table_name)
    return kind(name=name)


# The method of this interpreter, so that the layout is that of its other methods, with this module's
# class where it names the other.
_std_init: Any = FunctionType(
    _std.ShareableList.__init__.__code__,
    {**_std.__dict__, "SharedMemory": SharedMemory},
    "__init__",
)


class ShareableList(_std.ShareableList[_Item]):
    """A list of a fixed length in a block: `multiprocessing.shared_memory.ShareableList`.

    >>> from ndshm.compat import shared_memory
    >>> values = shared_memory.ShareableList([1, 2.5, "three", None])
    >>> values[0] = 7
    >>> list(shared_memory.ShareableList(name=values.shm.name))
    [7, 2.5, 'three', None]
    >>> values.shm.close(); values.shm.unlink()
    """

    def __init__(self, sequence: Any = None, *, name: str | None = None) -> None:
        _std_init(self, sequence, name=name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (type(self), self.shm.name, table().name)


class _Tracker:
    """The names of the blocks of a manager, in the process of its server."""

    def __init__(self) -> None:
        self.segment_names: list[str] = []

    def register_segment(self, segment_name: str) -> None:
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name: str) -> None:
        self.segment_names.remove(segment_name)
        _blocks.unlink("/" + segment_name)

    def unlink(self) -> None:
        for name in self.segment_names[:]:
            self.destroy_segment(name)


class _Server(managers.SharedMemoryServer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared_memory_context: Any = _Tracker()


_Block = SharedMemory
_List = ShareableList


class SharedMemoryManager(managers.SharedMemoryManager):
    """`multiprocessing.managers.SharedMemoryManager` with the classes of this module.

    >>> from ndshm.compat.shared_memory import SharedMemoryManager
    >>> with SharedMemoryManager() as manager:
    ...     block = manager.SharedMemory(100)
    ...     block.size
    100
    """

    _Server = _Server
    _Client: Any
    _address: Any
    _authkey: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The server is told which table this process uses.
        table()
        # Without the resource tracker that the base starts.
        BaseManager.__init__(self, *args, **kwargs)

    def SharedMemory(self, size: int) -> _Block:
        """Create a block that ends with the manager."""
        with self._Client(self._address, authkey=self._authkey) as connection:
            block = _Block(None, create=True, size=size)
            self._track(connection, block)
        return block

    def ShareableList(self, sequence: Any) -> _List[Any]:
        """Create a list that ends with the manager."""
        with self._Client(self._address, authkey=self._authkey) as connection:
            made = _List(sequence)
            self._track(connection, made.shm)
        return made

    def _track(self, connection: Any, block: Any) -> None:
        try:
            dispatch(connection, None, "track_segment", (block.name,))
        except BaseException:
            block.unlink()
            raise
