"""Past one machine with Ray: an actor on each node owns an array, and tasks of its node write it in place.

A handle means something on its own machine alone, so the actor starts the tasks of its node. What
crosses between nodes is a number, or `ndshm.portable(x)`.
"""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ndshm


@ray.remote(num_cpus=1)
def square(x, first, last):
    x[first:last] **= 2  # in the node's memory: Ray's own arrays are read-only


@ray.remote(num_cpus=0)
class Node:
    def __init__(self, first, rows):
        self.x = ndshm.zeros(rows)
        self.x[:] = range(first, first + rows)
        here = ray.get_runtime_context().get_node_id()
        self.here = square.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))

    def step(self, tasks):
        cuts = [len(self.x) * i // tasks for i in range(tasks + 1)]
        ray.get([self.here.remote(self.x, *cuts[i : i + 2]) for i in range(tasks)])
        return float(self.x.sum())

    def last_row(self):
        return ndshm.portable(self.x[-1:])  # its bytes, for another node


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")  # a cluster: address="auto"
    # Two actors on one machine. On a cluster: .options(scheduling_strategy="SPREAD").
    nodes = [Node.remote(first, 1000) for first in (0, 1000)]
    total = sum(ray.get([node.step.remote(4) for node in nodes]))
    assert total == sum(i**2 for i in range(2000))
    assert ray.get(nodes[0].last_row.remote())[0] == 999**2
    print(f"sum of squares: {total:.0f}")
    ray.shutdown()
