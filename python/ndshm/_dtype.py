"""Texts of dtypes that are no plain numbers, as a table stores them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ._errors import TypeMismatch


def text(dtype: np.dtype[Any]) -> str:
    """Return the text of a dtype: its `str`, or its list of fields, as in the header of a file."""
    return _cached_text(dtype)


def from_text(described: str) -> np.dtype[Any]:
    """Return the dtype of a text.

    One with fields is a new object at each call, because their names can be changed in place.
    """
    if described.startswith("["):
        return _from_text(described)
    return _cached_from_text(described)


def record(fields: list[tuple[str, np.dtype[Any], int]]) -> np.dtype[Any]:
    """Return the dtype of a record of numbers, which has no gaps."""
    return np.dtype([field[:2] if field[2] == 1 else (*field[:2], field[2:]) for field in fields])


def _text(dtype: np.dtype[Any]) -> str:
    found = np.lib.format.dtype_to_descr(dtype)
    described = found if isinstance(found, str) else repr(found)
    if from_text(described) != dtype:
        raise TypeMismatch(
            f"{dtype!r} has no text that numpy reads back as the same dtype: store the array as "
            f"unsigned integers, as by x.view('u1')"
        )
    return described


def _from_text(described: str) -> np.dtype[Any]:
    try:
        if described.startswith("["):
            return np.lib.format.descr_to_dtype(ast.literal_eval(described))
        return np.dtype(described)
    except (TypeError, ValueError, SyntaxError) as error:
        raise TypeMismatch(f"{described!r} is no dtype of this numpy: {error}") from None


_cached_text: Callable[[np.dtype[Any]], str] = lru_cache(maxsize=256)(_text)
_cached_from_text: Callable[[str], np.dtype[Any]] = lru_cache(maxsize=256)(_from_text)
