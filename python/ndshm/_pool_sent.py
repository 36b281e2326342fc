"""What the workers of a pool have: its latest calls, and names of functions."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Sequence
from typing import Any

from . import _ndshm
from ._pool_calls import KEPT, Answer, Call, warn_of_size
from ._pool_crew import Crew
from ._pool_functions import Function, FunctionNotFound, by_value, extras, inner_of, spec
from ._pool_worker import LOAD


class Sent:
    """The calls that the workers of a pool have."""

    def __init__(self, crew: Crew, table: _ndshm.Table) -> None:
        self._crew, self._table = crew, table
        # The latest first.
        self.recent: list[Call] = []
        # The keys of calls that the workers forget at the next chance.
        self._dropped: list[int] = []
        self._key = 0
        # The functions that the workers do not know by name.
        self._by_value: weakref.WeakSet[Function] = weakref.WeakSet()

    def find(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        collect: bool,
    ) -> Call:
        """Return the call with these arguments that the workers have, or a new one."""
        recent = self.recent
        for place, known in enumerate(recent):
            if known.is_same(function, arrays, tile, args, collect):
                recent.insert(0, recent.pop(place))
                return known
        call = self.make(function, arrays, tile, args, collect)
        for place, known in enumerate(recent):
            if known.blob == call.blob:
                # The arrays are the same, but perhaps not their views.
                known.known = call.known
                recent.insert(0, recent.pop(place))
                return known
        return call

    def make(
        self,
        function: Function,
        arrays: Sequence[Any],
        tile: int,
        args: tuple[Any, ...],
        collect: bool,
        counts_runs: bool = False,
    ) -> Call:
        """Return a new call, which the workers do not have."""
        is_named = self._is_named(function)
        return Call(self._table, function, arrays, tile, args, collect, is_named, counts_runs)

    def load(self, call: Call) -> Call:
        """Send a call to the workers: with its function by value, if they do not know its name.

        Return the call that they have.
        """
        try:
            self._load(call)
        except FunctionNotFound:
            if not self._must_send_by_value(call.function):
                raise
            call.release()
            call = call.by_value(self._table)
            self._load(call)
        return call

    def _load(self, call: Call) -> None:
        if call.key:
            return
        recent = self.recent
        for known in [known for known in recent if known.is_gone()] + recent[KEPT - 1 :]:
            if known in recent:
                recent.remove(known)
                self._dropped.append(known.key)
        warn_of_size(call.function, len(call.blob))
        self._key += 1
        key, dropped = self._key, self._dropped
        try:
            self._crew.call(LOAD, pickle.dumps((key, call.blob, dropped)), call)
        except BaseException:
            # Some workers may have it.
            dropped.append(key)
            raise
        self._dropped = []
        call.key = key
        recent.insert(0, call)

    def forget(self) -> None:
        """Note that some workers have none of the calls."""
        for call in self.recent:
            self._dropped.append(call.key)
            call.key = 0
        self.recent = []

    def once(self, number: int, function: Function, args: tuple[Any, ...]) -> list[Answer]:
        """Call a function once in each worker, and return the answers."""
        try:
            return self._crew.call(number, self._pack(function, args), None)
        except FunctionNotFound:
            if not self._must_send_by_value(function):
                raise
            return self._crew.call(number, self._pack(function, args), None)

    def _pack(self, function: Function, args: tuple[Any, ...]) -> bytes:
        """Return a function to call once in a worker, as bytes."""
        how = spec(function)[0] if self._is_named(function) else by_value(function, True)
        names = sorted(extras(function, len(args)) - {"rng", "tile"})
        body = pickle.dumps((how, args, names))
        warn_of_size(function, len(body))
        return body

    def _must_send_by_value(self, function: Function) -> bool:
        """Note that the workers do not know a function. Return False if sending it by value would
        not help.
        """
        inner = inner_of(function)
        if inner is not None:
            self._by_value.add(inner)
        return inner is not None

    def _is_named(self, function: Function) -> bool:
        return inner_of(function) not in self._by_value
