"""`ndshm.compat.raw_array_manager`: the interface, and the four faults that it has not."""

from __future__ import annotations

import ctypes
import gc
import pickle
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm
from ndshm.compat.raw_array_manager import Handle, SharedNumpyMemManager


def add(handle: Handle, row: int) -> float:
    array = SharedNumpyMemManager.getArray(handle)
    array[row] += row
    return float(array.sum())


def free(handle: Handle) -> None:
    SharedNumpyMemManager.freeArray(handle)


def test_arrays_made_before_and_after_the_pool(context: BaseContext) -> None:
    before = SharedNumpyMemManager.createArray((3, 4))
    with context.Pool(2) as pool:
        after = SharedNumpyMemManager.createArray((3, 4), ctypes.c_int)
        for handle in (before, after):
            pool.starmap(add, [(handle, row) for row in range(3)] * 5)
            found = SharedNumpyMemManager.getArray(handle)
            assert found[:, 0].tolist() == [0, 5, 10]
    for handle in (before, after):
        SharedNumpyMemManager.freeArray(handle)


def test_a_worker_frees(context: BaseContext) -> None:
    handle = SharedNumpyMemManager.createArray(3)
    view = SharedNumpyMemManager.getArray(handle)
    view[:] = 7
    with context.Pool(1) as pool:
        pool.apply(free, (handle,))
        with pytest.raises(ndshm.Stale, match="freed"):
            SharedNumpyMemManager.getArray(handle)
        # The error comes back from the worker: it neither hangs nor finds another array.
        others = [SharedNumpyMemManager.createArray(3) for _ in range(10)]
        with pytest.raises(ndshm.Stale):
            pool.apply_async(add, (handle, 0)).get(30)
    assert view.tolist() == [7, 7, 7]
    assert handle not in others


def test_an_old_handle_is_no_other_array() -> None:
    old = SharedNumpyMemManager.createArray(3)
    SharedNumpyMemManager.freeArray(old)
    new = SharedNumpyMemManager.createArray(3)
    assert new != old and len({new, old}) == 2
    with pytest.raises(ndshm.Stale):
        SharedNumpyMemManager.getArray(old)
    SharedNumpyMemManager.freeArray(old)
    assert SharedNumpyMemManager.getArray(new).shape == (3,)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("count", ctypes.c_int)]


@pytest.mark.parametrize(
    ("ctype", "dtype"),
    [
        (ctypes.c_double, "f8"), (ctypes.c_float, "f4"), (ctypes.c_uint8, "u1"),
        (ctypes.c_bool, "?"), (Point, Point), ("i2", "i2"), (np.complex64, "c8"),
    ],
)  # fmt: skip
def test_types(ctype: Any, dtype: Any) -> None:
    array = SharedNumpyMemManager.getArray(SharedNumpyMemManager.createArray([2, 3], ctype))
    assert array.dtype == np.dtype(dtype)
    assert array.shape == (2, 3) and not array.any() if dtype is not Point else True


def test_no_largest_number_and_no_lock() -> None:
    handles = [SharedNumpyMemManager.createArray(1) for _ in range(5000)]
    for place, handle in enumerate(handles):
        SharedNumpyMemManager.getArray(handle)[0] = place
    assert all(SharedNumpyMemManager.getArray(h)[0] == i for i, h in enumerate(handles))
    with pytest.raises(ValueError):
        SharedNumpyMemManager.createArray(-1)
    assert SharedNumpyMemManager.createArray(1) not in handles


def test_the_instance() -> None:
    manager = SharedNumpyMemManager.getInstance()
    assert manager is SharedNumpyMemManager() is SharedNumpyMemManager.getInstance()
    handle = manager.createArray(2)
    assert manager.getArray(handle).shape == (2,)
    manager.freeArray(handle)
    manager.freeArray(handle)


def test_handles_are_small_and_free_nothing_when_received() -> None:
    handle = SharedNumpyMemManager.createArray(10**6)
    pickled = pickle.dumps(handle)
    assert len(pickled) < 250
    again = pickle.loads(pickle.dumps(pickle.loads(pickled)))
    assert again == handle and hash(again) == hash(handle)
    SharedNumpyMemManager.getArray(again)[0] = 1
    del again
    gc.collect()
    assert SharedNumpyMemManager.getArray(handle)[0] == 1
    SharedNumpyMemManager.freeArray(handle)
    late = pickle.loads(pickled)
    with pytest.raises(ndshm.Stale):
        SharedNumpyMemManager.getArray(late)
    SharedNumpyMemManager.freeArray(late)
