"""A linear policy for CartPole, found by random search on vector environments.

Sixteen environments live in two worker processes, which write observations and rewards in place.
Each environment tries a policy of its own for one episode; the best is kept, and the next ones are
drawn around it. One environment raises an exception on purpose, and one worker is killed: the
search goes on. At the end the time of a step is compared with that of gymnasium's AsyncVectorEnv.

Needs gymnasium: pip install gymnasium
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from typing import Any

import numpy as np

import ndshm

try:
    import gymnasium as gym
    from gymnasium.vector import AsyncVectorEnv

    from ndshm.gymnasium import VectorEnv, WorkerDied
except ImportError as error:
    print(error)
    sys.exit(0)

ENVS, LONGEST, GOAL = 16, 200, 190.0


class Fragile(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that fails when it is told to."""

    trouble = ""

    def step(self, action: Any) -> Any:
        if self.trouble == "raise":
            raise RuntimeError("the simulation has diverged")
        if self.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def make() -> gym.Env[Any, Any]:
    """Make an environment, in a worker."""
    return Fragile(gym.make("CartPole-v1", max_episode_steps=LONGEST))


def episode(envs: VectorEnv, policies: Any, seed: int) -> Any:
    """Run one episode in each environment. Return their scores."""
    observations, _ = envs.reset(seed=seed)
    scores, runs = np.zeros(ENVS), np.ones(ENVS, dtype=bool)
    while runs.any():
        actions = (np.einsum("ij,ij->i", observations, policies) > 0).astype(np.int64)
        observations, rewards, terminations, truncations, _ = envs.step(actions)
        scores += rewards * runs
        runs &= ~(terminations | truncations)
    return scores


def search(envs: VectorEnv, rounds: int) -> Any:
    """Search for a policy. Return the best."""
    rng = np.random.default_rng(1)
    best, spread = np.zeros(4), 1.0
    for number in range(rounds):
        policies = best + spread * rng.standard_normal((ENVS, 4))
        # The best has to show that it was not lucky.
        policies[0] = best
        if number in (1, 2):
            trouble = "raise" if number == 1 else "die"
            envs.set_attr("trouble", [trouble if env == 5 else "" for env in range(ENVS)])
        try:
            scores = episode(envs, policies, seed=100 * number)
        except WorkerDied as error:
            # The next reset makes them anew.
            print(f"round {number}: {error}")
        except RuntimeError as error:
            failed = getattr(error, "env_ids", [])
            print(f"round {number}: environments {failed}: {error}")
            envs.restart(failed)
        else:
            winner = int(scores.argmax())
            best, best_score = policies[winner], float(scores[winner])
            spread = max(0.1, 1.0 - best_score / LONGEST)
            print(f"round {number}: mean {scores.mean():5.1f}, best {best_score:5.1f}")
    return best


def seconds_of_a_step(envs: Any, steps: int) -> list[float]:
    """Time some steps."""
    actions, times = np.zeros(ENVS, dtype=np.int64), []
    for _ in range(steps):
        start = time.perf_counter()
        envs.step(actions)
        times.append(time.perf_counter() - start)
    return times


def compare() -> None:
    """Time steps beside AsyncVectorEnv, in turns."""
    ours, theirs = VectorEnv([make] * ENVS, workers=2), AsyncVectorEnv([make] * ENVS)
    ours.reset(seed=1)
    theirs.reset(seed=1)
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(8):
        for envs, times in zip((ours, theirs), taken):
            times += seconds_of_a_step(envs, 40)
    ours.close()
    theirs.close()
    mine, other = (statistics.median(times) for times in taken)
    print(f"a step of {ENVS} environments: {mine * 1e6:.0f} µs, AsyncVectorEnv {other * 1e6:.0f} µs")
    print(f"ratio {mine / other:.2f}")


def main(rounds: int = 8) -> None:
    envs = VectorEnv([make] * ENVS, workers=2)
    best = search(envs, rounds)
    scores = episode(envs, np.tile(best, (ENVS, 1)), seed=7)
    envs.close()
    print(f"the policy {np.round(best, 2)}: mean of {ENVS} new episodes {scores.mean():.1f}")
    assert scores.mean() > GOAL, scores
    compare()
    assert not ndshm.default().handles(), "no array is left"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
