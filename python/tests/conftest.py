"""Fixtures of all tests: the start methods, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.context import BaseContext

import pytest

import ndshm

METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """The name of a start method of multiprocessing."""
    return str(request.param)


@pytest.fixture
def context(method: str) -> BaseContext:
    """The start method of multiprocessing as a context."""
    return multiprocessing.get_context(method)


@pytest.fixture(autouse=True)
def sent_is_freed() -> Iterator[None]:
    """Free what a test has sent."""
    with ndshm.scope():
        yield


def _segments() -> set[str]:
    """Return the names in /dev/shm that tests of this process give: those with its pid in them.

    Other programs of the machine make and remove names meanwhile.
    """
    return {name for name in os.listdir("/dev/shm") if str(os.getpid()) in name.split("-")}


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left() -> Iterator[None]:
    """Check that a module leaves no segment in /dev/shm, and no array in the default table."""
    before = _segments()
    table = ndshm.default()
    arrays = set(table.handles())
    yield
    gc.collect()
    table.reap()
    assert _segments() <= before
    assert set(table.handles()) <= arrays
