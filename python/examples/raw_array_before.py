"""A manager of numpy arrays over `multiprocessing.RawArray`, as programs had them before ndshm.

It is here to be compared with `ndshm.compat.raw_array_manager`, which has its interface. It works
where all arrays are made before a pool that forks. The comments say what goes wrong elsewhere.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from typing import Any

import numpy as np


class SharedNumpyMemManager:
    """Hands out places in a list of shared arrays."""

    _instance: SharedNumpyMemManager | None = None

    def __init__(self) -> None:
        # One lock for all processes, and a fixed number of arrays.
        self.lock = multiprocessing.Lock()
        # Each process has its own list: a fork copies it, and spawn begins with an empty one.
        self.arrays: list[Any] = [None] * 1024

    @classmethod
    def getInstance(cls) -> SharedNumpyMemManager:
        """Return the only instance of this process."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    @staticmethod
    def createArray(dimensions: Any, ctype: Any = ctypes.c_double) -> int:
        """Create an array of zeros, and return its place."""
        manager = SharedNumpyMemManager.getInstance()
        # An exception, as of a negative size, leaves it locked.
        manager.lock.acquire()
        # The place of a freed array is used again: its old handle is the new array's.
        place = [array is None for array in manager.arrays].index(True)
        shared = multiprocessing.RawArray(ctype, int(np.prod(dimensions)))
        manager.arrays[place] = np.ctypeslib.as_array(shared).reshape(dimensions)
        manager.lock.release()
        return place

    @staticmethod
    def getArray(handle: int) -> Any:
        """Return the array of a place, or None."""
        return SharedNumpyMemManager.getInstance().arrays[handle]

    @staticmethod
    def freeArray(handle: int) -> None:
        """Forget an array, in this process only."""
        SharedNumpyMemManager.getInstance().arrays[handle] = None
