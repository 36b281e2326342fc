"""The shortest proof that an installed wheel works: `python smoke.py`. Needs numpy alone."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from typing import Any

import numpy as np

import ndshm


def add(x: Any, row: int, value: float) -> float:
    """Write a row in a worker."""
    with x.write(timeout=10) as a:
        a[row] += value
        return float(a.sum())


def main() -> None:
    """Send arrays to workers under each start method, and look at what they wrote."""
    for method in ("fork", "forkserver", "spawn"):
        with ndshm.scope(), multiprocessing.get_context(method).Pool(2) as pool:
            x = ndshm.zeros((4, 1000))
            assert type(x) is ndshm.ndarray and isinstance(x, np.ndarray)
            assert len(pickle.dumps(x)) < 80
            pool.starmap(add, [(x, row, row + 1) for row in range(4)])
            assert x[:, 7].tolist() == [1, 2, 3, 4]
            records = ndshm.zeros(5, [("at", "f8", (3,)), ("id", "i8")])
            pool.starmap(add, [(records["id"], 2, 7)])
            assert records["id"].tolist() == [0, 0, 7, 0, 0]
            assert type(x + 1) is np.ndarray and np.sin(x).shape == x.shape
            pool.close()
            pool.join()
    x = ndshm.zeros(3)
    x.free()
    try:
        pickle.loads(pickle.dumps(x))
    except ndshm.Stale:
        pass
    else:
        raise AssertionError("a freed array was received")
    print(f"ndshm works on Python {sys.version.split()[0]} with numpy {np.__version__}")


if __name__ == "__main__":
    main()
