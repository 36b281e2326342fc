"""A bootstrap particle filter that runs in parallel within one run.

The particles lie in shared memory. A step moves and weighs them in tiles, in place, on all workers:
no particle is pickled. Each tile draws from a random stream of its own, so the log-likelihood is
the same to the last bit for any number of workers.

The first model is linear, so that a Kalman filter knows the right answer. If the package
`particles` is installed, its model of stochastic volatility runs as well, next to that package's
own filter.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Protocol

import numpy as np

import ndshm

Array = np.ndarray[Any, np.dtype[np.float64]]


class Model(Protocol):
    """What the filter needs of a model. An instance is sent to the workers once."""

    def start(self, size: int, rng: np.random.Generator) -> Array:
        """Draw the first states."""

    def move(self, t: int, before: Array, rng: np.random.Generator) -> Array:
        """Draw the states at time t."""

    def weigh(self, t: int, y: float, before: Array | None, x: Array) -> Array:
        """Return the log-density of an observation."""


class Linear:
    """x' = rho x + noise, y = x + noise."""

    rho, noise, error = 0.9, 0.5, 1.0

    def start(self, size: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.noise / math.sqrt(1 - self.rho**2), size)

    def move(self, t: int, before: Array, rng: np.random.Generator) -> Array:
        return self.rho * before + rng.normal(0.0, self.noise, len(before))

    def weigh(self, t: int, y: float, before: Array | None, x: Array) -> Array:
        return -0.5 * ((y - x) / self.error) ** 2 - math.log(self.error * math.sqrt(2 * math.pi))

    def likelihood(self, data: Array) -> float:
        """Return the log-likelihood by the Kalman filter."""
        mean, var, total = 0.0, self.noise**2 / (1 - self.rho**2), 0.0
        for y in data:
            spread = var + self.error**2
            total -= 0.5 * ((y - mean) ** 2 / spread + math.log(2 * math.pi * spread))
            gain = var / spread
            mean, var = mean + gain * (y - mean), (1 - gain) * var
            mean, var = self.rho * mean, self.rho**2 * var + self.noise**2
        return total


class OfParticles:
    """A model of the package `particles`, whose distributions draw from numpy's global
    generator."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start(self, size: int, rng: np.random.Generator) -> Array:
        np.random.seed(int(rng.integers(1 << 32)))
        drawn: Array = self.model.PX0().rvs(size=size)
        return drawn

    def move(self, t: int, before: Array, rng: np.random.Generator) -> Array:
        np.random.seed(int(rng.integers(1 << 32)))
        drawn: Array = self.model.PX(t, before).rvs(size=len(before))
        return drawn

    def weigh(self, t: int, y: float, before: Array | None, x: Array) -> Array:
        weights: Array = self.model.PY(t, before, x).logpdf(y)
        return weights


def begin(x: Array, weights: Array, model: Model, y: float, rng: np.random.Generator) -> None:
    """Draw a tile of particles, and weigh it."""
    x[:] = model.start(len(x), rng)
    weights[:] = model.weigh(0, y, None, x)


def advance(
    x: Array, weights: Array, parents: Any, before: Array,
    model: Model, t: int, y: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Move a tile of particles from their parents, and weigh it."""
    chosen = before[parents]
    x[:] = model.move(t, chosen, rng)
    weights[:] = model.weigh(t, y, chosen, x)


def resample(weights: Array, parents: Any, rng: np.random.Generator) -> float:
    """Choose the parents of the next step. Return the mean weight's logarithm."""
    highest = weights.max()
    sums = np.cumsum(np.exp(weights - highest))
    points = (np.arange(len(weights)) + rng.random()) * (sums[-1] / len(weights))
    parents[:] = np.minimum(np.searchsorted(sums, points), len(weights) - 1)
    return float(highest + math.log(sums[-1] / len(weights)))


def run(pool: ndshm.Pool, model: Model, data: Array, count: int, tile: int, seed: int) -> float:
    """Run the filter, and return the log-likelihood of the data."""
    rng = np.random.default_rng(seed)
    x, before = ndshm.empty(count), ndshm.empty(count)
    weights, parents = ndshm.empty(count), ndshm.empty(count, np.intp)
    read = ndshm.readonly(parents)
    pool.for_tiles(begin, (x, weights), tile, model, float(data[0]), seed=seed)
    total = resample(weights, parents, rng)
    for t, y in enumerate(data[1:].tolist(), start=1):
        x, before = before, x
        arrays = (x, weights, read, ndshm.whole(before))
        pool.for_tiles(advance, arrays, tile, model, t, y, seed=seed)
        total += resample(weights, parents, rng)
    return total


def main(count: int = 100_000, steps: int = 30) -> None:
    """Compare numbers of workers, and with other filters."""
    rng = np.random.default_rng(1)
    state, data = 0.0, np.empty(steps)
    for t in range(steps):
        state = Linear.rho * state + rng.normal(0.0, Linear.noise)
        data[t] = state + rng.normal(0.0, Linear.error)
    found = []
    for workers in (1, 2):
        with ndshm.Pool(workers) as pool:
            start = time.perf_counter()
            found.append(run(pool, Linear(), data, count, 16384, seed=7))
            seconds = time.perf_counter() - start
        print(f"{workers} workers: log-likelihood {found[-1]:.6f}, {seconds:.2f} s")
    exact = Linear().likelihood(data)
    print(f"Kalman filter: {exact:.6f}")
    assert found[0] == found[1], "the same to the last bit"
    assert abs(found[0] - exact) < 20 / math.sqrt(count), (found[0], exact)

    try:
        import particles
        from particles import state_space_models
    except ImportError:
        print("the package `particles` is not installed: pip install particles")
        return
    model = state_space_models.StochVol(mu=-1.0, rho=0.95, sigma=0.3)
    np.random.seed(2)
    _, observed = model.simulate(steps)
    data = np.array(observed, dtype=float).ravel()
    with ndshm.Pool(2) as pool:
        start = time.perf_counter()
        ours = run(pool, OfParticles(model), data, count, 16384, seed=7)
        seconds = time.perf_counter() - start
    filter_of = state_space_models.Bootstrap(ssm=model, data=data)
    start = time.perf_counter()
    other = particles.SMC(fk=filter_of, N=count, ESSrmin=1.0)
    other.run()
    theirs = time.perf_counter() - start
    print(f"StochVol of `particles`: {ours:.4f} in {seconds:.2f} s on 2 workers")
    print(f"particles.SMC:           {other.logLt:.4f} in {theirs:.2f} s")
    assert abs(ours - other.logLt) < 40 / math.sqrt(count), (ours, other.logLt)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
