"""The timed rows of all peers in Python but Ray."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from typing import Any

import numpy as np
from peer import Plan, Row, Timed, each, in_child, scattered
from raw_array_before import SharedNumpyMemManager as Manager


def nothing(_: Any) -> None:
    """Return."""


def dictionary(plan: Plan) -> dict[str, Any]:
    """Return 20 large arrays."""
    return {f"array {at}": np.full(plan.large, float(at)) for at in range(20)}


def firsts(arrays: dict[str, Any]) -> float:
    """Return the sum of the first elements."""
    return sum(float(array[0]) for array in arrays.values())


# multiprocessing.Pool, and pickle


@contextmanager
def pool_share(plan: Plan) -> Iterator[Timed]:
    plain = np.ones(plan.large)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield each(lambda: pool.apply(nothing, (plain,)))


@contextmanager
def pool_tasks(_: Plan) -> Iterator[Timed]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield each(lambda: pool.map(nothing, (0, 1), chunksize=1))


@contextmanager
def pickle_put(plan: Plan) -> Iterator[Timed]:
    arrays = dictionary(plan)
    yield each(lambda: pickle.dumps(arrays, 5))


@contextmanager
def pickle_get(plan: Plan) -> Iterator[Timed]:
    text = pickle.dumps(dictionary(plan), 5)
    yield each(lambda: firsts(pickle.loads(text)))


# multiprocessing.shared_memory


def memory_made(name: str, count: int) -> shared_memory.SharedMemory:
    return shared_memory.SharedMemory(name, create=True, size=count * 8)


def memory_first(name: str, count: int) -> float:
    """Return the first element of a SharedMemory that this process opens for it."""
    memory = shared_memory.SharedMemory(name)
    value = float(np.ndarray(count, float, memory.buf)[0])
    memory.close()
    return value


def memory_create(large: bool) -> Row:
    @contextmanager
    def row(plan: Plan) -> Iterator[Timed]:
        count = plan.large if large else plan.small

        def call() -> None:
            memory = memory_made(f"{plan.prefix}-made", count)
            memory.close()
            memory.unlink()

        yield each(call)

    return row


@contextmanager
def memory_open(plan: Plan) -> Iterator[Timed]:
    name = f"{plan.prefix}-open"
    memory = memory_made(name, plan.large)
    with in_child(lambda: lambda: memory_first(name, plan.large)) as timed:
        yield timed
    memory.close()
    memory.unlink()


@contextmanager
def memory_find(plan: Plan) -> Iterator[Timed]:
    names = [f"{plan.prefix}-named-{at}" for at in range(plan.names)]
    for name in names:
        memory_made(name, 4).close()
    following = scattered(len(names))
    yield each(lambda: memory_first(names[following()], 4))
    for name in names:
        memory = shared_memory.SharedMemory(name)
        memory.close()
        memory.unlink()


# SharedArray


def array_create(large: bool) -> Row:
    @contextmanager
    def row(plan: Plan) -> Iterator[Timed]:
        import SharedArray

        count, name = plan.large if large else plan.small, f"{plan.prefix}-made"

        def call() -> None:
            SharedArray.create(name, count)
            SharedArray.delete(name)

        yield each(call)

    return row


@contextmanager
def array_open(plan: Plan) -> Iterator[Timed]:
    import SharedArray

    name = f"{plan.prefix}-open"
    SharedArray.create(name, plan.large)
    with in_child(lambda: lambda: SharedArray.attach(name)[0]) as timed:
        yield timed
    SharedArray.delete(name)


@contextmanager
def array_find(plan: Plan) -> Iterator[Timed]:
    import SharedArray

    names = [f"{plan.prefix}-named-{at}" for at in range(plan.names)]
    for name in names:
        SharedArray.create(name, 4)
    following = scattered(len(names))
    yield each(lambda: SharedArray.attach(names[following()])[0])
    for name in names:
        SharedArray.delete(name)


# The manager of RawArrays


def manager_create(large: bool) -> Row:
    @contextmanager
    def row(plan: Plan) -> Iterator[Timed]:
        count = plan.large if large else plan.small
        yield each(lambda: Manager.freeArray(Manager.createArray(count)))

    return row


@contextmanager
def manager_open(plan: Plan) -> Iterator[Timed]:
    # Before the child is forked: it would not find an array that was made afterwards.
    handle = Manager.createArray(plan.large)
    with in_child(lambda: lambda: Manager.getArray(handle)[0]) as timed:
        yield timed
    Manager.freeArray(handle)


# ndshm


def ndshm_create(large: bool) -> Row:
    @contextmanager
    def row(plan: Plan) -> Iterator[Timed]:
        import ndshm

        count = plan.large if large else plan.small
        yield each(lambda: ndshm.empty(count))

    return row


@contextmanager
def ndshm_open(plan: Plan) -> Iterator[Timed]:
    import ndshm

    x = ndshm.zeros(plan.large)
    # What goes through the pipe of a pool.
    sent = pickle.dumps(x)
    with in_child(lambda: lambda: pickle.loads(sent)[0]) as timed:
        yield timed
    x.free()


@contextmanager
def ndshm_tasks(_: Plan) -> Iterator[Timed]:
    import ndshm

    with ndshm.Table() as table, ndshm.Pool(2, table) as pool:
        two = table.zeros(2)
        yield each(lambda: pool.for_tiles(nothing, (two,), 1))


@contextmanager
def ndshm_put(plan: Plan) -> Iterator[Timed]:
    import ndshm

    arrays = dictionary(plan)
    yield each(lambda: ndshm.put(arrays).free())


@contextmanager
def ndshm_get(plan: Plan) -> Iterator[Timed]:
    import ndshm

    ref = ndshm.put(dictionary(plan))
    yield each(lambda: firsts(ref.get()))
    ref.free()


@contextmanager
def ndshm_find(plan: Plan) -> Iterator[Timed]:
    import ndshm

    with ndshm.Table() as table:
        names = [f"array-{at}" for at in range(plan.names)]
        for name in names:
            table[name] = table.zeros(4)
        following = scattered(len(names))
        yield each(lambda: table[names[following()]][0])


ROWS: dict[str, dict[str, Row]] = {
    "pool": {"share": pool_share, "tasks": pool_tasks, "put": pickle_put, "get": pickle_get},
    "SharedMemory": {
        "share": memory_create(True),
        "create": memory_create(False),
        "open": memory_open,
        "find": memory_find,
    },
    "SharedArray": {
        "share": array_create(True),
        "create": array_create(False),
        "open": array_open,
        "find": array_find,
    },
    "manager": {
        "share": manager_create(True),
        "create": manager_create(False),
        "open": manager_open,
    },
    "ndshm-python": {
        "share": ndshm_create(True),
        "create": ndshm_create(False),
        "open": ndshm_open,
        "tasks": ndshm_tasks,
        "put": ndshm_put,
        "get": ndshm_get,
        "find": ndshm_find,
    },
}
