"""Where the parts of an observation lie: arrays in shared memory, or objects that are pickled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

BASIC = (Box, Discrete, MultiBinary, MultiDiscrete)
"""The spaces whose elements are arrays of one shape."""


@dataclass
class ArrayPart:
    """A part that is a row of a shared array."""

    place: int
    space: Space[Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass
class ObjectPart:
    """A part that is pickled, because its space is no array of a known shape."""

    place: int
    space: Space[Any]


@dataclass
class DictPart:
    """The parts of a dict."""

    parts: dict[Any, Part]


@dataclass
class TuplePart:
    """The parts of a tuple."""

    parts: list[Part]


Part: TypeAlias = ArrayPart | ObjectPart | DictPart | TuplePart


@dataclass
class Layout:
    """The parts of an observation of one environment."""

    root: Part
    arrays: list[ArrayPart] = field(default_factory=list)
    objects: list[ObjectPart] = field(default_factory=list)


def layout_of(space: Space[Any], shared: bool) -> Layout:
    """Return the layout of a space. Without `shared` all of it is one object."""
    arrays: list[ArrayPart] = []
    objects: list[ObjectPart] = []

    def part_of(space: Space[Any]) -> Part:
        if shared and isinstance(space, BASIC) and space.shape is not None:
            arrays.append(ArrayPart(len(arrays), space, space.shape, np.dtype(space.dtype)))
            return arrays[-1]
        if shared and isinstance(space, Dict):
            return DictPart({key: part_of(inner) for key, inner in space.spaces.items()})
        if shared and isinstance(space, Tuple):
            return TuplePart([part_of(inner) for inner in space.spaces])
        objects.append(ObjectPart(len(objects), space))
        return objects[-1]

    return Layout(part_of(space), arrays, objects)


def writer(part: Part, arrays: Sequence[Array]) -> Callable[[int, Any, list[Any]], None]:
    """Return a function that stores the observation of an environment.

    It writes the array parts in place, and appends the object parts to a list.
    """
    if isinstance(part, ArrayPart):
        found, array, shape, dtype = part, arrays[part.place], part.shape, part.dtype
        is_number = shape == () and dtype == np.int64

        def write_array(row: int, value: Any, objects: list[Any]) -> None:
            # The usual cases, for which an assignment is as safe, and faster.
            if isinstance(value, (np.ndarray, np.generic)):
                if value.dtype == dtype and value.shape == shape:
                    array[row] = value
                    return
            elif is_number and type(value) is int:
                array[row] = value
                return
            try:
                if np.shape(value) != shape:
                    # Numpy would repeat a smaller one.
                    value = _reshaped(value, shape)
                # An assignment would also cut off fractions and higher bits.
                np.copyto(array[row, ...], value, casting="same_kind")
            except (TypeError, ValueError, OverflowError) as error:
                raise _misfit(row, found, value, error) from error

        return write_array
    if isinstance(part, ObjectPart):
        return lambda row, value, objects: objects.append(value)
    keyed = list(part.parts.items()) if isinstance(part, DictPart) else list(enumerate(part.parts))
    inner = [(key, writer(value, arrays)) for key, value in keyed]

    def write_parts(row: int, value: Any, objects: list[Any]) -> None:
        for key, write in inner:
            write(row, value[key], objects)

    return write_parts


def _reshaped(value: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(value)
    if [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
        raise ValueError(f"the shape {array.shape} is not {shape}")
    return array.reshape(shape)


def _misfit(env: int, part: ArrayPart, value: Any, error: Exception) -> Exception:
    """Return the exception for an observation that its space cannot have."""
    try:
        array = np.asarray(value)
        found = f"the shape {array.shape} and the dtype {array.dtype}"
    except ValueError:
        # A nested list whose rows differ.
        found = f"the type {type(value).__name__} and no shape"
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(
        f"an observation of environment {env} has {found}, and its space is {part.space} with the "
        f"shape {part.shape} and the dtype {part.dtype}: return observations of the environment's "
        "observation_space"
    )


class Batch:
    """The observations of all environments, in the parent."""

    def __init__(self, layout: Layout, count: int, arrays: list[Array]) -> None:
        self._root, self._arrays, self._count = layout.root, arrays, count
        # The last object of each environment.
        self._objects: list[list[Any]] = [[None] * count for _ in layout.objects]

    def store(self, env: int, objects: list[Any]) -> None:
        """Store the object parts of an environment."""
        for kept, value in zip(self._objects, objects):
            kept[env] = value

    def all(self, copies: bool) -> Any:
        """Return the observations of all environments."""
        rows = range(self._count)
        if copies:
            return self._read(self._root, rows, lambda array: array.copy(), True)
        return self._read(self._root, rows, lambda array: array, False)

    def some(self, envs: list[int], copies: bool) -> Any:
        """Return the observations of some environments, in a batch of their number."""
        return self._read(self._root, envs, lambda array: array[envs], copies)

    def _read(
        self, part: Part, envs: Sequence[int], take: Callable[[Array], Array], copies: bool
    ) -> Any:
        if isinstance(part, ArrayPart):
            return take(self._arrays[part.place])
        if isinstance(part, DictPart):
            return {key: self._read(inner, envs, take, copies) for key, inner in part.parts.items()}
        if isinstance(part, TuplePart):
            return tuple(self._read(inner, envs, take, copies) for inner in part.parts)
        kept = self._objects[part.place]
        items = [kept[env] for env in envs]
        if copies:
            # The kept ones are also those of the next call.
            items = copy.deepcopy(items)
        empty: Any = create_empty_array(part.space, n=len(items))
        return concatenate(part.space, items, empty)
