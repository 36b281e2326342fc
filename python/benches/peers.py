"""ndshm beside its peers, in one run: `python python/benches/peers.py`.

Peers: pickle, multiprocessing.shared_memory, and SharedArray, joblib and Ray if they are installed. The
ratio of a peer is ndshm's time divided by its time: below 1, ndshm is faster.
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from harness import Bench, Call, Mark, machine, seconds

import ndshm

# An older version, which is to be compared, may lack some of it.
package: Any = ndshm


def optional(name: str) -> Any:
    """Return a module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


SharedArray = optional("SharedArray")
joblib = optional("joblib")
ray = optional("ray")

CORES = len(os.sched_getaffinity(0))
# Names of this run, for the peers that have names.
PREFIX = f"ndshm-bench-{os.getpid()}"

Described = tuple[str, int]


# What workers run.


def nothing(_: Any) -> None:
    """Return."""


def first(x: Any) -> float:
    """Return the first element."""
    return float(x[0])


def first_of_memory(described: Described) -> float:
    """Return the first element of a SharedMemory."""
    name, count = described
    memory = shared_memory.SharedMemory(name)
    value = float(np.ndarray(count, float, memory.buf)[0])
    memory.close()
    return value


def first_of_shared_array(name: str) -> float:
    """Return the first element of a SharedArray."""
    return float(SharedArray.attach(name)[0])


def step(x: Any, w: Any, dt: float, rng: np.random.Generator) -> None:
    """Move particles, as a simulation does."""
    x += dt * rng.standard_normal(x.shape) + w[:, None]


def step_of_shared_array(task: tuple[str, str, int, int, float, int]) -> None:
    """Make the step on the rows of a SharedArray."""
    x, w, start, stop, dt, seed = task
    rng = np.random.Generator(np.random.Philox(seed))
    step(SharedArray.attach(x)[start:stop], SharedArray.attach(w)[start:stop], dt, rng)


def step_of_views(task: tuple[Any, Any, float, int]) -> None:
    """Make the step on views of ndshm's arrays."""
    x, w, dt, seed = task
    step(x, w, dt, np.random.Generator(np.random.Philox(seed)))


@contextmanager
def memory_of(count: int) -> Iterator[shared_memory.SharedMemory]:
    """Make a SharedMemory of ones, and remove it."""
    memory = shared_memory.SharedMemory(create=True, size=count * 8)
    try:
        np.ndarray(count, float, memory.buf)[:] = 1
        yield memory
    finally:
        memory.close()
        memory.unlink()


@contextmanager
def shared_array_of(suffix: str, shape: int | tuple[int, ...]) -> Iterator[str]:
    """Make a SharedArray of ones, if there is that package, and delete it. The value is its name."""
    name = f"{PREFIX}-{suffix}"
    if SharedArray is None:
        yield name
        return
    SharedArray.create(name, shape)[:] = 1
    try:
        yield name
    finally:
        SharedArray.delete(name)


def with_shared_array(subjects: dict[str, Call], call: Call) -> None:
    """Add SharedArray to the peers, if it is installed."""
    if SharedArray is not None:
        subjects["SharedArray"] = call


def pickles(bench: Bench) -> None:
    """Time pickle.loads and pickle.dumps of an array."""
    count = 1000
    x, plain = ndshm.zeros(count), np.zeros(count)
    text, plain_text = pickle.dumps(x), pickle.dumps(plain)
    # What a pickle of any object contains, and most of what pickle does for an array of ndshm.
    a_class = pickle.dumps(set)
    with memory_of(count) as memory, shared_array_of("loads", count) as name:
        subjects: dict[str, Call] = {
            "ndshm: loads": lambda: pickle.loads(text),
            "pickle of a class: the name alone": lambda: pickle.loads(a_class),
            "pickle of 8 kB": lambda: pickle.loads(plain_text),
            "SharedMemory: attach, view, close": lambda: first_of_memory((memory.name, count)),
        }
        with_shared_array(subjects, lambda: SharedArray.attach(name))
        bench.row("loads", subjects, [Mark(1.5e-6)], alone=True)
    bench.row(
        "dumps",
        {
            "ndshm: dumps": lambda: pickle.dumps(x),
            "pickle of a class: the name alone": lambda: pickle.dumps(set),
            "pickle of 8 kB": lambda: pickle.dumps(plain),
        },
        [Mark(1e-6)],
        alone=True,
    )
    x.free()


def creation(bench: Bench) -> None:
    """Time creating and freeing arrays that are not touched."""
    for count, label in ((1000, "8 kB"), (10**7, "80 MB")):

        def memory(count: int = count) -> None:
            made = shared_memory.SharedMemory(create=True, size=count * 8)
            made.close()
            made.unlink()

        def shared_array(count: int = count) -> None:
            SharedArray.create(f"{PREFIX}-create", count)
            SharedArray.delete(f"{PREFIX}-create")

        def ours(count: int = count) -> None:
            ndshm.empty(count)

        def plain(count: int = count) -> None:
            np.empty(count)

        subjects: dict[str, Call] = {
            "ndshm: empty, drop": ours,
            "numpy: empty, drop": plain,
            "SharedMemory: create, close, unlink": memory,
        }
        with_shared_array(subjects, shared_array)
        bench.row(f"create and free/{label}", subjects, [Mark(1e-6)], alone=True)


def ufuncs(bench: Bench) -> None:
    """Time small operations of numpy, on the subclass and on numpy's class."""
    x, plain = ndshm.zeros(4), np.zeros(4)
    pairs: dict[str, Callable[[Any], Any]] = {
        "x + 1": lambda a: a + 1,
        "np.sin(x)": np.sin,
        "x += 1": lambda a: np.add(a, 1, out=a),
        "x.sum()": lambda a: a.sum(),
        "x[1:3]": lambda a: a[1:3],
        "x[1]": lambda a: a[1],
    }
    for text, call in pairs.items():
        bench.row(
            f"ufunc/{text}",
            {"ndshm": lambda call=call: call(x), "numpy": lambda call=call: call(plain)},  # type: ignore[misc]
            [Mark(0.2e-6, beyond="numpy")],
            alone=True,
        )


def sending(bench: Bench, pool: Any, count: int) -> None:
    """Time sending an array that exists to a worker of a Pool."""
    plain = np.ones(count)
    x = ndshm.array(plain)
    size = f"{count * 8 // 10**6} MB"
    with memory_of(count) as memory, shared_array_of("send", count) as name:
        subjects: dict[str, Call] = {
            "ndshm: apply(f, (x,))": lambda: pool.apply(first, (x,)),
            "nothing: apply(f, (1,))": lambda: pool.apply(nothing, (1,)),
            "SharedMemory: apply(f, (name,))": lambda: pool.apply(
                first_of_memory, ((memory.name, count),)
            ),
        }
        with_shared_array(subjects, lambda: pool.apply(first_of_shared_array, (name,)))
        marks = [Mark(1.2, against="nothing: apply(f, (1,))")]
        bench.row(f"send {size} to a Pool", subjects, marks)
        bench.row(
            f"send {size} to a Pool, by pickle",
            {
                "ndshm: apply(f, (x,))": lambda: pool.apply(first, (x,)),
                "pickle: apply(f, (plain,))": lambda: pool.apply(first, (plain,)),
            },
            samples=5,
        )
    if joblib is not None and bench.wants("joblib"):
        with joblib.Parallel(2) as parallel:
            bench.row(
                f"send {size} to joblib",
                {
                    "ndshm: array": lambda: parallel([joblib.delayed(first)(x)]),
                    "nothing": lambda: parallel([joblib.delayed(nothing)(1)]),
                    "joblib: memmap of a plain array": lambda: parallel(
                        [joblib.delayed(first)(plain)]
                    ),
                },
                samples=9,
            )
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    x.free()


def whole_life(bench: Bench, pool: Any, count: int) -> None:
    """Time making, filling, sending and freeing an array."""
    warm, shared = np.ones(count), ndshm.full(count, 1.0)
    # Shared memory as the kernel gives it, without a package.
    mapped = np.frombuffer(mmap.mmap(-1, count * 8))
    name = f"{PREFIX}-life"

    def ours() -> None:
        x = ndshm.full(count, 1.0)
        pool.apply(first, (x,))
        x.free()

    def memory() -> None:
        with memory_of(count) as made:
            pool.apply(first_of_memory, ((made.name, count),))

    def shared_array() -> None:
        SharedArray.create(name, count)[:] = 1
        pool.apply(first_of_shared_array, (name,))
        SharedArray.delete(name)

    subjects: dict[str, Call] = {
        "ndshm: full, apply, free": ours,
        "one fill of a warm ndshm array": lambda: shared.fill(1.0),
        "one fill of warm shared memory": lambda: mapped.fill(1.0),
        "one fill of warm private memory": lambda: warm.fill(1.0),
        "numpy: full, drop": lambda: np.full(count, 1.0),
        "pickle: full, apply": lambda: pool.apply(first, (np.full(count, 1.0),)),
        "SharedMemory": memory,
    }
    with_shared_array(subjects, shared_array)
    bench.row(
        f"make, fill, send and free {count * 8 // 10**6} MB",
        subjects,
        # Numpy's private memory is on huge pages, which the kernel does not give to shared memory.
        [Mark(1.1, against="one fill of a warm ndshm array")],
        samples=15,
    )


def objects(bench: Bench, count: int) -> None:
    """Time storing and opening a dict of 20 arrays."""
    label = f"dict of 20 x {count * 8 // 10**6} MB"
    if not bench.wants(f"put a {label}") and not bench.wants(f"get a {label}"):
        return
    big = {i: np.full(count, float(i)) for i in range(20)}
    warm = {i: np.full(count, 0.0) for i in range(20)}
    with ThreadPoolExecutor(min(CORES, 8)) as threads:

        def put() -> None:
            package.put(big).free()

        def copy() -> None:
            list(threads.map(np.copyto, warm.values(), big.values()))

        subjects: dict[str, Call] = {
            "ndshm: put, free": put,
            f"a copy by {min(CORES, 8)} threads, warm": copy,
            "pickle: dumps": lambda: pickle.dumps(big, 5),
        }
        if ray is not None:
            subjects["Ray: put, drop"] = lambda: ray.put(big)
        mark = Mark(1 / 0.9, against=f"a copy by {min(CORES, 8)} threads, warm")
        bench.row(f"put a {label}", subjects, [mark], samples=7)
    warm.clear()
    # Of small arrays, because the time of `get` does not depend on the size. The peers copy.
    ref = package.put(big)
    subjects = {"ndshm: get": lambda: ref.get()}
    if ray is not None:
        there = ray.put(big)
        subjects["Ray: get"] = lambda: ray.get(there)
    bench.row(f"get a {label}", subjects, [Mark(20e-6)])
    text = pickle.dumps(big, 5)
    bench.row(
        f"get a {label}, by pickle",
        {"ndshm: get": lambda: ref.get(), "pickle: loads": lambda: pickle.loads(text)},
        samples=3,
    )
    ref.free()


def pools(bench: Bench, plain: Any, workers: int) -> None:
    """Time rounds of ndshm.Pool beside Pool.map."""
    rows, tile, dt = 10**6, 4096, 0.1
    table = ndshm.Table()
    with (
        package.Pool(workers, table) as pool,
        shared_array_of("x", (rows, 3)) as x_name,
        shared_array_of("w", rows) as w_name,
    ):
        two = table.zeros(2)
        bench.row(
            "an empty round of two tiles",
            {
                "ndshm.Pool: for_tiles": lambda: pool.for_tiles(nothing, (two,), 1),
                "multiprocessing: Pool.map": lambda: plain.map(nothing, (0, 1)),
            },
            [Mark(10e-6)],
        )
        x, w = table.zeros((rows, 3)), table.full(rows, 0.5)
        cuts = [(at, min(at + tile, rows)) for at in range(0, rows, tile)]
        subjects: dict[str, Call] = {
            "ndshm.Pool: for_tiles": lambda: pool.for_tiles(step, (x, w), tile, dt, seed=42),
            "Pool.map over views of ndshm": lambda: plain.map(
                step_of_views, [(x[a:b], w[a:b], dt, a) for a, b in cuts]
            ),
        }
        with_shared_array(
            subjects,
            lambda: plain.map(
                step_of_shared_array, [(x_name, w_name, a, b, dt, a) for a, b in cuts]
            ),
        )
        marks = [Mark(1.0, against="SharedArray")] if SharedArray is not None else []
        bench.row(f"a step of 10^6 x 3 on {workers} workers", subjects, marks, samples=15)
    table.close()


def main() -> None:
    """Run the rows that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--quick", action="store_true", help="fewer samples, and 8 MB for 80 MB")
    parser.add_argument("--only", default="", help="the rows with this text in their names")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    options = parser.parse_args()
    global ray
    if options.no_ray:
        ray = None
    bench = Bench(7 if options.quick else 31, options.json, options.only)
    count = 10**6 if options.quick else 10**7
    bench.say(machine())
    for peer, module in (("SharedArray", SharedArray), ("joblib", joblib), ("Ray", ray)):
        if module is None:
            bench.say(f"left out: {peer}")
    start = time.perf_counter()
    # The tracker of SharedMemory is to be that of the workers, too: so it starts before them.
    with memory_of(1), ndshm.scope(), multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(nothing, range(4))
        pickles(bench)
        creation(bench)
        ufuncs(bench)
        sending(bench, pool, count)
        whole_life(bench, pool, count)
        if hasattr(package, "Pool"):
            pools(bench, pool, 2)
        else:
            bench.say("left out: rounds, because this version has no ndshm.Pool")
        if hasattr(package, "put"):
            if ray is not None:
                store = 20 * count * 8 * 3
                ray.init(num_cpus=2, include_dashboard=False, object_store_memory=store, logging_level="error")
            objects(bench, count)
            if ray is not None:
                ray.shutdown()
        else:
            bench.say("left out: objects, because this version has no ndshm.put")
        pool.close()
        pool.join()
    bench.say(f"\n{seconds(time.perf_counter() - start)}; {len(bench.missed)} marks missed")
    for missed in bench.missed:
        bench.say(f"  {missed}")
    bench.say(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
