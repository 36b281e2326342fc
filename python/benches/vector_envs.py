"""Steps of vector environments: `ndshm.gymnasium` beside gymnasium's own classes.

    python python/benches/vector_envs.py [--quick] [--only TEXT] [--json]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from harness import Bench, Mark, machine

from ndshm.gymnasium import VectorEnv

ENVS = 16


class Pictures(gym.Env[Any, Any]):
    """Returns a picture of four frames, as of an Atari game. A step costs nothing else."""

    observation_space = gym.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def __init__(self) -> None:
        self.picture = np.zeros((84, 84, 4), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.picture, {}

    def step(self, action: Any) -> Any:
        self.picture[0, 0] = action
        return self.picture, 1.0, False, False, {}


class Simulation(gym.Env[Any, Any]):
    """Computes for about 0.1 ms in a step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,))
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.state = np.linspace(0.0, 1.0, 10_000)
        return self.state[:8].astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.state = np.sin(self.state + float(action))
        return self.state[:8].astype(np.float32), 1.0, False, False, {}


class Uneven(gym.Env[Any, Any]):
    """Takes as long for a step as its action says, in units of 0.1 ms."""

    observation_space = gym.spaces.Box(0.0, 1.0, (4,))
    action_space = gym.spaces.Discrete(100)
    observation = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation, {}

    def step(self, action: Any) -> Any:
        time.sleep(int(action) * 1e-4)
        return self.observation, 1.0, False, False, {}


def stepper(envs: Any) -> Callable[[], object]:
    """Return a function that takes one step in all environments."""
    envs.reset(seed=1)
    envs.action_space.seed(1)
    actions = envs.action_space.sample()
    return lambda: envs.step(actions)


def row(bench: Bench, name: str, make: Callable[[], Any], marks: list[Mark]) -> None:
    """Time a step of all environments."""
    if not bench.wants(name):
        return
    workers = min(ENVS, len(os.sched_getaffinity(0)))
    every = {
        f"ndshm, {workers} workers": VectorEnv([make] * ENVS, workers=workers),
        "ndshm, copy=False": VectorEnv([make] * ENVS, copy=False, workers=workers),
        "ndshm, 1 worker": VectorEnv([make] * ENVS, workers=1),
        "AsyncVectorEnv": AsyncVectorEnv([make] * ENVS, shared_memory=True),
        "SyncVectorEnv": SyncVectorEnv([make] * ENVS),
    }
    bench.row(name, {who: stepper(envs) for who, envs in every.items()}, marks)
    for envs in every.values():
        envs.close()


def uneven(bench: Bench) -> None:
    """Time 16 steps of environments of which one is slow: any 8 of them twice, and all at once."""
    name = "16 steps, one environment of 16 is slow"
    if not bench.wants(name):
        return
    ours, theirs = (
        VectorEnv([Uneven] * ENVS, workers=ENVS),
        AsyncVectorEnv([Uneven] * ENVS, shared_memory=True),
    )
    actions = np.ones(ENVS, np.int64)
    actions[3] = 40
    ours.reset()
    theirs.reset()
    ours.send(actions)

    def some() -> None:
        for _ in range(2):
            *_, infos = ours.recv(ENVS // 2)
            ready = infos["env_ids"]
            ours.send(actions[ready], ready)

    bench.row(name, {"ndshm, recv(8)": some, "AsyncVectorEnv": lambda: theirs.step(actions)})
    ours.recv(ENVS)
    ours.close()
    theirs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--only", default="", help="the rows with this text in their names")
    parser.add_argument("--json", action="store_true", help="print one JSON line per figure")
    options = parser.parse_args()
    bench = Bench(7 if options.quick else 61, options.json, options.only)
    bench.say(f"{machine()}, gymnasium {metadata.version('gymnasium')}")
    mark = [Mark(0.5, against="AsyncVectorEnv")]
    row(bench, "16 CartPoles", partial(gym.make, "CartPole-v1"), mark)
    row(bench, "16 pictures of 84 x 84 x 4", Pictures, mark)
    row(bench, "16 simulations of 0.1 ms", Simulation, [])
    uneven(bench)
    bench.say(f"\nmarks missed: {len(bench.missed)}")
    for line in bench.missed:
        bench.say(f"  {line}")


if __name__ == "__main__":
    main()
