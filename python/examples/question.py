"""The question that started ndshm: one big array, a pool of processes, many parameters.

How does a `multiprocessing.Pool` work on an array of 80 MB without a copy of it for each task? Here
the array is made once in shared memory. What goes to the workers are 60 bytes, under every start
method.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time

import numpy as np

import ndshm


def func(array: np.ndarray, parameter: int) -> float:
    """Do what the question calls `func`: something with the array and one parameter."""
    return float(array[parameter:].sum())


def add(array: np.ndarray, row: int) -> None:
    """Write in place: the result needs no way back."""
    array[row] += row


def main() -> None:
    """Run the question's program under each start method."""
    big = np.arange(10**7, dtype=float)
    shared = ndshm.array(big, readonly=True)
    print(f"the array has {shared.nbytes} bytes, its pickle {len(pickle.dumps(shared))}")
    expected = sum(func(big, parameter) for parameter in range(100))
    rows = ndshm.zeros((100, 1000))
    for method in ("fork", "forkserver", "spawn"):
        start = time.perf_counter()
        with multiprocessing.get_context(method).Pool(os.cpu_count()) as pool:
            waiting = [pool.apply_async(func, [shared, parameter]) for parameter in range(100)]
            assert sum(result.get() for result in waiting) == expected
            pool.starmap(add, [(rows, row) for row in range(100)])
        print(f"{method:10}  100 tasks and 100 rows in {time.perf_counter() - start:.2f} s")
    assert rows[7, 0] == 3 * 7


if __name__ == "__main__":
    main()
