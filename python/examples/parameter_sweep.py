"""A parameter sweep: one big array that all workers read, and a table of results that they fill.

Each row of `parameters` is a case, and the same row of `results` gets its outcome: nothing is sent
back. A case that fails ends the sweep with its exception; the rows that were done before are kept.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import ndshm

Array = np.ndarray[Any, np.dtype[np.float64]]


def simulate(results: Array, parameters: Array, series: Array, rng: np.random.Generator) -> None:
    """Fit a smoothed series for each case of a tile."""
    for result, (rate, noise) in zip(results, parameters):
        level, error = 0.0, 0.0
        shocks = rng.normal(0.0, noise, len(series))
        for value, shock in zip(series, shocks):
            error += (value - level) ** 2
            level += rate * (value - level) + shock
        result[:] = level, error / len(series)


def main(cases: int = 400, length: int = 2000) -> None:
    """Sweep over two parameters."""
    rates, noises = np.linspace(0.01, 0.9, cases // 10), np.linspace(0.0, 0.2, 10)
    grid = np.stack(np.meshgrid(rates, noises, indexing="ij"), axis=-1).reshape(-1, 2)
    parameters = ndshm.array(grid, readonly=True)
    series = ndshm.array(np.sin(np.linspace(0, 60, length)), readonly=True)
    results = ndshm.full((len(grid), 2), np.nan)
    with ndshm.Pool() as pool:
        start = time.perf_counter()
        pool.for_tiles(simulate, (results, parameters, ndshm.whole(series)), 4, seed=1)
        seconds = time.perf_counter() - start
    best = results[:, 1].argmin()
    rate, noise = parameters[best]
    print(f"{len(grid)} cases in {seconds:.2f} s")
    print(f"best: rate {rate:.3f}, noise {noise:.2f}, error {results[best, 1]:.4f}")
    assert not np.isnan(results).any()
    assert noise == 0.0


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
