"""A program over the manager of RawArrays, before and after its import was changed.

    python examples/raw_array_manager.py            # both, under all start methods
    python examples/raw_array_manager.py before     # as it was
    python examples/raw_array_manager.py after      # with ndshm

The program updates an array of particles, in the parent and in the workers of a pool, which get the
array by its handle. Then it does four things that a program comes to do sooner or later.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

# The change is this import.
if os.environ.get("EXAMPLE") == "before":
    from raw_array_before import SharedNumpyMemManager
else:
    from ndshm.compat.raw_array_manager import SharedNumpyMemManager  # type: ignore[assignment]

PARTICLES = 1000
STEPS = 2000


def propagate(task: tuple[int, Any, float]) -> None:
    """Update one particle. What it computes is of no use, and takes a while."""
    i, handle, evidence = task
    particles = SharedNumpyMemManager.getArray(handle)
    for _ in range(STEPS):
        particles[i] = i * evidence


def total(handle: Any) -> float:
    """Sum up an array."""
    return float(SharedNumpyMemManager.getArray(handle).sum())


def free(handle: Any) -> None:
    """Free an array."""
    SharedNumpyMemManager.freeArray(handle)


class ParticleFilter:
    """Particles in shared memory, and a pool of workers."""

    def __init__(self) -> None:
        self.handle = SharedNumpyMemManager.createArray(PARTICLES)
        self.pool = multiprocessing.Pool(2)

    def update_parallel(self, evidence: float) -> None:
        """Update all particles in the workers."""
        self.pool.map(propagate, [(i, self.handle, evidence) for i in range(PARTICLES)])

    def update_sequential(self, evidence: float) -> None:
        """Update all particles here."""
        for i in range(PARTICLES):
            propagate((i, self.handle, evidence))

    def particles(self) -> np.ndarray:
        """Return the array of particles."""
        found: np.ndarray = SharedNumpyMemManager.getArray(self.handle)
        return found


def attempt(what: str, action: Any) -> None:
    """Do something, and print how it ended."""
    try:
        print(f"  {what}: {action()}")
    except Exception as error:
        print(f"  {what}: {type(error).__name__}: {str(error)[:60]}")


def updates(filter: ParticleFilter) -> str:
    """Compare the two ways to update."""
    times = []
    for update in (filter.update_sequential, filter.update_parallel):
        filter.particles()[:] = 0
        start = time.perf_counter()
        update(0.5)
        times.append(time.perf_counter() - start)
        if not (filter.particles() == np.arange(PARTICLES) * 0.5).all():
            return f"{update.__name__} is WRONG"
    return "right; sequential {:.2f} s, with 2 workers {:.2f} s".format(*times)


def made_later(filter: ParticleFilter) -> str:
    """Send an array that was made after the pool."""
    later = SharedNumpyMemManager.createArray((10, 10))
    SharedNumpyMemManager.getArray(later)[:] = 1
    found = filter.pool.apply_async(total, (later,)).get(10)
    SharedNumpyMemManager.freeArray(later)
    return "right" if found == 100 else f"WRONG: {found} and not 100"


def old_handle() -> str:
    """Use the handle of an array that was freed."""
    old = SharedNumpyMemManager.createArray(3)
    SharedNumpyMemManager.freeArray(old)
    new = SharedNumpyMemManager.createArray(4)
    found = SharedNumpyMemManager.getArray(old)
    return f"WRONG: it is an array of {len(found)}" if new == old else str(found)


def freed_by_a_worker(filter: ParticleFilter) -> str:
    """Free an array in a worker, and look for it here."""
    handle = SharedNumpyMemManager.createArray(5)
    filter.pool.apply_async(free, (handle,)).get(10)
    found = SharedNumpyMemManager.getArray(handle)
    return f"WRONG: it has its {len(found)} elements still"


def after_an_exception() -> str:
    """Create an array after an attempt that has failed."""
    try:
        SharedNumpyMemManager.createArray(-1)
    except ValueError:
        pass
    lock = getattr(SharedNumpyMemManager.getInstance(), "lock", None)
    if lock is not None and not lock.acquire(timeout=1):
        return "WRONG: the next createArray in any process would wait for ever"
    return f"right: {SharedNumpyMemManager.getArray(SharedNumpyMemManager.createArray(2))}"


def program() -> None:
    """Run everything once."""
    filter = ParticleFilter()
    attempt("updates", lambda: updates(filter))
    attempt("an array made after the pool", lambda: made_later(filter))
    attempt("an old handle", old_handle)
    attempt("freed by a worker", lambda: freed_by_a_worker(filter))
    attempt("after an exception", after_an_exception)
    filter.pool.terminate()
    filter.pool.join()
    SharedNumpyMemManager.freeArray(filter.handle)


def main() -> None:
    """Run the program in processes of its own, before and after, under each start method."""
    for which in sys.argv[1:] or ["before", "after"]:
        for method in ("fork", "forkserver", "spawn"):
            print(f"{which}, {method}", flush=True)
            settings = {**os.environ, "EXAMPLE": which, "EXAMPLE_METHOD": method}
            # Before, the resource tracker complains of the lock that is left locked.
            stderr = subprocess.DEVNULL if which == "before" else None
            subprocess.run(
                [sys.executable, __file__], env=settings, stderr=stderr, timeout=120, check=True
            )


if __name__ == "__main__":
    if "EXAMPLE_METHOD" in os.environ:
        multiprocessing.set_start_method(os.environ["EXAMPLE_METHOD"])
        program()
    else:
        main()
