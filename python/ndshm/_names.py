"""Names: a table as a mapping that all its processes share."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _ndshm
from ._array import ndarray
from ._errors import NameNotFound, Stale, TypeMismatch
from ._ndshm import Ref
from ._object import MAX_AXES, Objects

if TYPE_CHECKING:
    from ._table import Table

#: Arrays of other classes are objects: a copy of their elements would lose the rest.
_ARRAYS = (np.ndarray, np.memmap, ndarray)

_MISSING = object()


class Names(Objects, MutableMapping[str, Any]):
    """The part of `Table` that maps names to values."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return self._value(_ndshm.find_named(self, name))

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(value, ndarray) and _ndshm.is_named(self, name, value):
            return  # The end of `t[name] += 1`.
        _ndshm.give_name(self, name, self._item(value), True)

    def __delitem__(self, name: str) -> None:
        _ndshm.remove_name(self, name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _ndshm.has_name(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __bool__(self) -> bool:
        # A table without names may be full of arrays.
        return True

    def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin with `prefix`, sorted.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t.update({"layer/1": 1, "layer/2": 2, "rate": 0.1})
        ...     print(t.names("layer/"))
        ['layer/1', 'layer/2']
        """
        return _ndshm.names(self, prefix)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Give the name to a value unless something has it. Return the value of the name then.

        Of several processes that call it at once, one makes the value and all return that:

        >>> import ndshm, numpy as np
        >>> with ndshm.Table() as t:
        ...     count = t.setdefault("count", np.zeros(1, int))
        ...     count += 1
        ...     print(t.setdefault("count", np.zeros(1, int)))
        [1]
        """
        while True:
            if name not in self:
                _ndshm.give_name(self, name, self._item(default), False)
            # Another process may have removed it.
            with suppress(NameNotFound):
                return self[name]

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Remove a name, and return its value, which only one of several processes gets.

        An array stays as long as it is in use.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t["rate"] = 0.1
        ...     print(t.pop("rate"), t.pop("rate", None))
        0.1 None
        """
        try:
            # A value that cannot be loaded keeps its name.
            found = _ndshm.find_named(self, name)
            value = self._value(found)
            removed = _ndshm.take_name(self, name)
        except NameNotFound:
            if default is _MISSING:
                raise
            return default
        try:
            if removed.handle != found.handle:
                # Another process has given the name to another value meanwhile.
                value = self._value(removed)
        finally:
            # Its own handle may have freed it before.
            with suppress(Stale):
                removed.free()
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove some name, and return it with its value, which only one of several processes gets.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t["rate"] = 0.1
        ...     print(t.popitem(), len(t))
        ('rate', 0.1) 0
        """
        for name in self.names():
            # Another process may have removed it.
            with suppress(NameNotFound):
                return name, self.pop(name)
        raise NameNotFound("nothing has a name in this table")

    def items(self) -> ItemsView[str, Any]:
        """Return a view of the names and their values.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t.update(rate=0.1, steps=7)
        ...     print(sorted(t.items()))
        [('rate', 0.1), ('steps', 7)]
        """
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values."""
        return _Values(self)

    def clear(self) -> None:
        """Remove all names, and free their values.

        >>> import ndshm
        >>> with ndshm.Table() as t:
        ...     t["rate"] = 0.1
        ...     t.clear()
        ...     print(len(t))
        0
        """
        for name in self.names():
            # Another process may have removed it.
            with suppress(NameNotFound):
                del self[name]

    def _value(self, found: ndarray | Ref[Any]) -> Any:
        return _ndshm.load_named(self, found) if isinstance(found, Ref) else found

    def _item(self, value: Any) -> ndarray | Ref[Any]:
        """Return the item for a name: an array of the table itself, or else a copy."""
        if type(value) not in _ARRAYS or value.dtype.hasobject or value.ndim > MAX_AXES:
            return self.put(value)
        if isinstance(value, ndarray) and _ndshm.is_nameable(self, value):
            return value
        try:
            return cast("Table", self).array(value)
        except TypeMismatch:
            # A dtype that only numpy knows, such as one with titles.
            return self.put(value)


class _Items(ItemsView[str, Any]):
    """The items of a table. Names that another process removes during the iteration are left out."""

    _mapping: Names

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for name in self._mapping:
            with suppress(NameNotFound):
                yield name, self._mapping[name]


class _Values(ValuesView[Any]):
    """The values of a table, as those of its items."""

    _mapping: Names

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.items())
