"""Serve one of the peers in Python to `benches/peers/run.py`: `peer.py NAME`, `peer.py NAME trials ..`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter

from harness import one_sample

# Returns the time of a number of calls, in seconds.
Timed = Callable[[int], float]
Row = Callable[["Plan"], AbstractContextManager[Timed]]


@dataclass
class Plan:
    """Numbers and names that the driver gives in the environment."""

    large: int = int(os.environ.get("PEERS_LARGE", "0"))
    small: int = int(os.environ.get("PEERS_SMALL", "0"))
    names: int = int(os.environ.get("PEERS_NAMES", "0"))
    prefix: str = os.environ.get("PEERS_PREFIX", "")
    directory: str = os.environ.get("PEERS_DIRECTORY", "")


def each(call: Callable[[], object]) -> Timed:
    """Return what times a call."""
    return lambda times: one_sample(call, times, perf_counter) * times


@contextmanager
def in_child(prepare: Callable[[], Callable[[], object]]) -> Iterator[Timed]:
    """Time a call in a forked process. `prepare` runs there, and returns the call."""
    here, there = multiprocessing.Pipe()

    def run() -> None:
        here.close()
        timed = each(prepare())
        while times := there.recv():
            there.send(timed(times))

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    there.close()

    def ask(times: int) -> float:
        here.send(times)
        took: float = here.recv()
        return took

    try:
        yield ask
    finally:
        here.send(0)
        child.join()


def scattered(count: int) -> Callable[[], int]:
    """Return indices below `count` in an order that no cache predicts."""
    at = 0

    def following() -> int:
        nonlocal at
        at = (at + 0x9E3779B97F4A7C15) % 2**64
        return (at >> 16) % count

    return following


def serve(rows: dict[str, Row], plan: Plan) -> None:
    """Answer the driver until it closes the input."""
    prepared: dict[str, tuple[ExitStack, Timed]] = {}
    for line in sys.stdin:
        what, row, *rest = line.split()
        if what == "prepare" and row not in rows:
            answer = "none not offered"
        elif what == "prepare":
            stack = ExitStack()
            prepared[row] = stack, stack.enter_context(rows[row](plan))
            answer = "ready"
        elif what == "sample":
            answer = repr(prepared[row][1](int(rest[0])))
        else:
            prepared.pop(row)[0].close()
            answer = "done"
        print(answer, flush=True)
    for stack, _ in prepared.values():
        stack.close()


def main() -> None:
    """Serve, or run trials."""
    name, *arguments = sys.argv[1:]
    if arguments:
        import trials

        kind, count, seed = arguments[1:]
        trials.run(name, kind, int(count), int(seed), Plan())
        return
    plan = Plan()
    if name == "ray":
        import with_ray

        with with_ray.started(plan):
            serve(with_ray.ROWS, plan)
    else:
        import rows

        serve(rows.ROWS[name], plan)


# The modules of the peers import this one by its name.
sys.modules.setdefault("peer", sys.modules[__name__])

if __name__ == "__main__":
    main()
