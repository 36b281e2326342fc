"""Past one machine with Ray: an actor on each node owns an array, and tasks of its node write it in place.

A handle means something on its own machine alone, so the actor starts the tasks of its node. What
crosses between nodes is a number, or `ndshm.portable(x)`.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ndshm


def square(x: ndshm.ndarray, first: int, last: int) -> None:
    x[first:last] **= 2  # in the node's memory: Ray's own arrays are read-only


class Node:
    def __init__(self, first: int, rows: int) -> None:
        self.x = ndshm.zeros(rows)
        self.x[:] = range(first, first + rows)
        here = ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(here, soft=False)
        self.here: Any = ray.remote(num_cpus=1, scheduling_strategy=strategy)(square)

    def step(self, tasks: int) -> float:
        cuts = [len(self.x) * i // tasks for i in range(tasks + 1)]
        ray.get([self.here.remote(self.x, *cuts[i : i + 2]) for i in range(tasks)])
        return float(self.x.sum())

    def last_row(self) -> Any:
        return ndshm.portable(self.x[-1:])  # its bytes, for another node


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")  # a cluster: address="auto"
    # Two actors on one machine. On a cluster: .options(scheduling_strategy="SPREAD").
    actor: Any = ray.remote(num_cpus=0)(Node)
    nodes = [actor.remote(first, 1000) for first in (0, 1000)]
    total = sum(ray.get([node.step.remote(4) for node in nodes]))
    assert total == sum(i**2 for i in range(2000))
    assert ray.get(nodes[0].last_row.remote())[0] == 999**2
    print(f"sum of squares: {total:.0f}")
    ray.shutdown()
