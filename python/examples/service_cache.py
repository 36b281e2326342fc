"""A cache for the processes of a service: each value is in memory once.

The processes are programs of their own, as the workers of a web server are. There is no server
process: the table is a name in /dev/shm, and ends with the last program that has it open.

    python service_cache.py             # starts three workers
    python service_cache.py --help
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

import ndshm

ROWS = 2_000_000


def load(version: int) -> Any:
    """Return data that takes long to make: a data frame, or a dict of arrays without pandas."""
    rng = np.random.default_rng(version)
    columns = {"price": rng.uniform(10, 20, ROWS), "volume": rng.integers(1, 100, ROWS)}
    try:
        import pandas
    except ImportError:
        return columns
    return pandas.DataFrame(columns)


def private_bytes() -> int:
    """Return the memory of this process that no other process shares with it."""
    with open("/proc/self/smaps_rollup") as file:
        sizes = dict(line.split(":") for line in file if ":" in line and "kB" in line)
    return sum(int(sizes[f"Private_{kind}"].split()[0]) for kind in ("Clean", "Dirty")) * 1024


def worker(name: str, number: int, rounds: int) -> None:
    """Answer requests from the cache."""
    table = ndshm.open(name, "r")
    # One array for all workers, made by the first one that comes here.
    served = table.setdefault("served", np.zeros(64, np.int64))
    # The first look-up imports the module of the value.
    versions = {table["quotes"]["version"]}
    before, slowest = private_bytes(), 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        cached = table["quotes"]  # Neither copied nor locked.
        slowest = max(slowest, time.perf_counter() - start)
        versions.add(cached["version"])
        quotes = cached["quotes"]
        assert float(np.max(quotes["price"])) <= 20
        served[number] += 1
        if number == 0 and served[0] == rounds // 2:
            # A new version. Programs that still use the old one keep it until they drop it.
            table["quotes"] = {"version": 2, "quotes": load(2)}
    grown = private_bytes() - before
    print(
        f"worker {number} (pid {os.getpid()}): {rounds} requests, versions {sorted(versions)}, "
        f"slowest look-up {slowest * 1e3:.2f} ms, {grown / 1e6:.1f} MB more memory for "
        f"{ROWS * 16 / 1e6:.0f} MB of data"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100, help="requests to each worker")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--name", default=f"service-cache-{os.getpid()}", help="of the table")
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.name, options.worker, options.rounds)
        return
    with ndshm.open(options.name) as table:
        table["quotes"] = {"version": 1, "quotes": load(1)}
        print(f"table {options.name!r}: {', '.join(table)}")
        command = [sys.executable, __file__, "--name", options.name, "--rounds", str(options.rounds)]
        workers = [
            subprocess.Popen([*command, "--worker", str(number)])
            for number in range(options.workers)
        ]
        codes = [process.wait(60) for process in workers]
        served = table["served"]
        print(f"{served.sum()} requests served; now version {table['quotes']['version']}")
    if any(codes):
        raise SystemExit(f"a worker has failed: {codes}")


if __name__ == "__main__":
    main()
