"""Ray: objects in the store of its daemon, tasks on two workers, and trials."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from peer import Plan, Row, Timed, each
from rows import dictionary, firsts


@contextmanager
def started(plan: Plan) -> Iterator[None]:
    """Run Ray's daemons, with two workers and a store for three dictionaries."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=max(3 * 20 * plan.large * 8, 1 << 28),
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=plan.directory + "/ray",
    )
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote
def nothing() -> None:
    """Return."""


@ray.remote(num_cpus=0)
class Worker:
    """A worker that opens an object of the store."""

    def opened(self, refs: list[Any], times: int) -> float:
        """Return the time of opening an object so many times."""
        return each(lambda: ray.get(refs[0])[0])(times)


def put_row(large: bool) -> Row:
    @contextmanager
    def row(plan: Plan) -> Iterator[Timed]:
        plain = np.ones(plan.large if large else plan.small)
        yield each(lambda: ray.put(plain))

    return row


@contextmanager
def open_row(plan: Plan) -> Iterator[Timed]:
    worker = Worker.remote()  # type: ignore[attr-defined]
    # In a list, which keeps Ray from opening it for the call.
    refs = [ray.put(np.ones(plan.large))]
    yield lambda times: ray.get(worker.opened.remote(refs, times))
    ray.kill(worker)


@contextmanager
def tasks_row(_: Plan) -> Iterator[Timed]:
    yield each(lambda: ray.get([nothing.remote(), nothing.remote()]))


@contextmanager
def put_dictionary(plan: Plan) -> Iterator[Timed]:
    arrays = dictionary(plan)
    yield each(lambda: ray.put(arrays))


@contextmanager
def get_dictionary(plan: Plan) -> Iterator[Timed]:
    ref = ray.put(dictionary(plan))
    yield each(lambda: firsts(ray.get(ref)))


ROWS: dict[str, Row] = {
    "share": put_row(True),
    "create": put_row(False),
    "open": open_row,
    "tasks": tasks_row,
    "put": put_dictionary,
    "get": get_dictionary,
}


@ray.remote(max_retries=0)
def work(mark: str) -> None:
    """Write an array until the process is killed."""
    Path(mark + ".part").write_text(str(os.getpid()))
    Path(mark + ".part").rename(mark)
    numbers = np.zeros(1 << 17)
    while True:
        numbers.fill(1)


def trial(plan: Plan, seed: int) -> dict[str, Any]:
    """Kill a worker in its task. The parent waits for the task."""
    mark = Path(f"{plan.directory}/ray-{seed}")
    ref = work.remote(str(mark))
    while not mark.exists():
        time.sleep(0.001)
    victim = int(mark.read_text())
    mark.unlink()
    time.sleep(random.Random(seed).uniform(0.001, 0.02))
    os.kill(victim, signal.SIGKILL)
    start = time.perf_counter()
    said: str | None = None
    # Its daemon answers; a second would not be a fair limit for that.
    try:
        ray.get(ref, timeout=10)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(ref, force=True)
    except ray.exceptions.WorkerCrashedError:
        said = "is told"
    took = time.perf_counter() - start
    return {"hang": said is None, "said": said, "seconds": took, "held": None}
