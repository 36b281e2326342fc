"""Past one machine with dask: each machine has an array, and tasks of its workers write it in place.

A handle means something on its own machine alone, so each task is bound to the workers of the array's
machine. What crosses between machines is a number, or `ndshm.portable(x)`.
"""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster

import ndshm


def make(first: int, rows: int) -> ndshm.ndarray:
    x = ndshm.zeros(rows)
    x[:] = range(first, first + rows)
    return x


def square(x: ndshm.ndarray, first: int, last: int) -> None:
    x[first:last] **= 2  # in the machine's memory


def total(x: ndshm.ndarray, _: list[None]) -> float:
    return float(x.sum())


def machines(client: Any) -> list[list[str]]:
    """Return the addresses of the workers of each machine."""
    found: dict[str, list[str]] = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        found.setdefault(worker["host"], []).append(address)
    return list(found.values())


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:  # a cluster of machines: Client("scheduler:8786")
            rows, totals = 1000, []
            for number, workers in enumerate(machines(client)):
                # The first worker owns the array: it is freed with the future.
                x = client.submit(make, number * rows, rows, workers=workers[:1], pure=False)
                done = [
                    client.submit(square, x, first, first + 250, workers=workers, pure=False)
                    for first in range(0, rows, 250)
                ]
                totals.append(client.submit(total, x, done, workers=workers, pure=False))
            found = sum(client.gather(totals))
            assert found == sum(i**2 for i in range(rows * len(totals)))
            print(f"sum of squares: {found:.0f}")
