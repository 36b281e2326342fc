"""Environments for the tests of vector environments."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

BASIC = spaces.Dict(
    {
        "picture": spaces.Box(0, 255, (4, 3), np.uint8),
        "pair": spaces.Tuple((spaces.Discrete(5), spaces.Box(-1.0, 1.0, (), np.float32))),
        "flags": spaces.MultiBinary(3),
        "levels": spaces.MultiDiscrete([3, 4]),
    }
)


class Walk(gym.Env):  # type: ignore[misc,name-defined]
    """Draws observations and infos from its generator, and ends after some steps."""

    def __init__(
        self, observations: Any = BASIC, actions: Any = spaces.Discrete(9), length: int = 5
    ) -> None:
        self.observation_space, self.action_space = observations, actions
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.length, self.steps, self.pid = length, 0, os.getpid()
        self.options: Any = None

    def _draw(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(1 << 30)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.options = 0, options
        drawn = self.np_random.random()
        return self._draw(), {"drawn": drawn} if drawn < 0.5 else {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        ends, drawn = self.steps >= self.length, self.np_random.random()
        info = {"n": self.steps, "v": np.array([drawn, 1.0])} if drawn < 0.4 else {}
        return self._draw(), drawn + float(np.sum(action)), ends and drawn < 0.5, ends, info

    def render(self) -> Any:
        return np.full((40, 50, 3), self.steps, np.uint8)

    def add(self, number: int, by: int = 1) -> int:
        return self.steps + number * by

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Careful(gym.Env):  # type: ignore[misc,name-defined]
    """Counts, and does on order what environments should not do."""

    observation_space = spaces.Box(-1.0, 1e9, (1,), np.float64)
    action_space = spaces.Discrete(100)

    gate = "/"

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed == 13:
            raise ValueError("not 13")
        self.count = 0
        return np.array([0.0]), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        if action == 1:
            raise LookupError("no such move")
        if action == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 3:
            time.sleep(0.4)
        if action == 4:
            raise SystemExit(4)
        if action in (6, 7):
            deadline = time.monotonic() + 20
            while not os.path.exists(self.gate) and time.monotonic() < deadline:
                time.sleep(0.005)
        if action == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 5:
            return np.zeros(7), 0.0, False, False, {}
        return np.array([float(self.count)]), float(self.count), False, False, {}


def make_walk(index: int, **arguments: Any) -> Walk:
    return Walk(length=3 + index % 4, **arguments)


def walks(count: int, **arguments: Any) -> list[Callable[[], Walk]]:
    return [partial(make_walk, index, **arguments) for index in range(count)]


def acts(*pairs: tuple[int, int], count: int = 6) -> np.ndarray[Any, Any]:
    actions = np.zeros(count, np.int64)
    for env, action in pairs:
        actions[env] = action
    return actions


class Closing:
    """A vector environment in a `with` block."""

    def __init__(self, envs: Any) -> None:
        self.envs = envs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.envs, name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.envs.close()


def run_beside(ours: Any, theirs: Any, steps: int = 40, seed: Any = 5) -> None:
    """Check that two vector environments return the same."""
    with ours, theirs:
        masks = theirs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
        assert data_equivalence(ours.reset(seed=seed), theirs.reset(seed=seed))
        ours.action_space.seed(3)
        for _ in range(steps):
            actions = ours.action_space.sample()
            got, expected = ours.step(actions), theirs.step(actions)
            assert data_equivalence(got, expected), (got, expected)
            ended = expected[2] | expected[3]
            if masks and ended.any():
                got = ours.reset(options={"reset_mask": ended, "x": 1})
                expected = theirs.reset(options={"reset_mask": ended, "x": 1})
                assert data_equivalence(got, expected)
        if masks:
            assert ours.get_attr("options") == theirs.get_attr("options")
        assert data_equivalence(ours.reset(), theirs.reset())
