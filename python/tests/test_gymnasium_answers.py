"""`ndshm.gymnasium.VectorEnv`: observations that do not fit, forks in environments, letters."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import ndshm

gym = pytest.importorskip("gymnasium")

from gymnasium import spaces  # noqa: E402
from gymnasium.vector import SyncVectorEnv  # noqa: E402
from walking import Careful, Closing, walks  # noqa: E402

from ndshm.gymnasium import VectorEnv, WorkerDied  # noqa: E402

PICTURE = spaces.Box(0, 255, (2, 3), np.uint8)
GRAPH = spaces.Graph(spaces.Box(0.0, 9.0, (2,)), None)


@pytest.fixture
def table() -> Iterator[ndshm.Table]:
    """A table of which nothing may be left."""
    table = ndshm.Table()
    yield table
    assert not table.handles()
    table.close()


class Returning(gym.Env):  # type: ignore[misc,name-defined]
    """Returns what it was told to."""

    action_space = spaces.Discrete(2)

    def __init__(self, observation: Any, space: Any) -> None:
        self.observation_space, self.observation = space, observation

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation, {}

    def step(self, action: Any) -> Any:
        return self.observation, 0.0, False, False, {}


# ---- observations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "error", "text"),
    [
        (np.zeros((3, 2), np.uint8), ValueError, r"shape \(3, 2\) and the dtype uint8"),
        (np.zeros(6, np.uint8), ValueError, r"shape \(6,\)"),
        (np.full((2, 3), -1.5), TypeError, r"shape \(2, 3\) and the dtype float64"),
        (np.full((2, 3), 300), TypeError, "dtype int64"),
        (np.full((2, 3), None), TypeError, "dtype object"),
        ([[1, 2], [3]], ValueError, "type list and no shape"),
    ],
)
def test_observations_that_do_not_fit(observation: Any, error: type[Exception], text: str) -> None:
    make = partial(Returning, observation, PICTURE)
    with Closing(sync := SyncVectorEnv([make])), pytest.raises((TypeError, ValueError)):
        sync.reset()
    with Closing(envs := VectorEnv([make])):
        expected = rf"environment 0 has the .*{text}.* space is Box.*: return observations of"
        with pytest.raises(error, match=expected):
            envs.reset()


@pytest.mark.parametrize(
    ("observation", "space"),
    [
        (np.ones((1, 2, 3, 1), np.uint8), PICTURE),
        (np.ones((2, 3), bool), PICTURE),
        (np.float64(1.0), spaces.Box(0.0, 1.0, (1,), np.float32)),
        (1, spaces.Discrete(3)),
        (np.uint8(1), spaces.Discrete(3)),
    ],
)
def test_observations_that_fit(observation: Any, space: Any) -> None:
    with Closing(envs := VectorEnv([partial(Returning, observation, space)] * 2, workers=1)):
        observations, _ = envs.reset()
        assert (observations == 1).all() and observations.dtype == space.dtype


def test_objects_are_copies() -> None:
    graph = spaces.GraphInstance(np.ones((2, 2), np.float32), None, None)
    envs = VectorEnv([partial(Returning, graph, GRAPH)] * 2, workers=1, autoreset_mode="Disabled")
    with Closing(envs):
        others = {"reset_mask": np.array([False, True])}
        first, _ = envs.reset()
        first[0].nodes[:] = 7.0
        assert envs.reset(options=others)[0][0].nodes.max() == 1.0
        envs.send(np.zeros(1, int), [0])
        received = envs.recv(1)[0]
        received[0].nodes[:] = 7.0
        assert envs.reset(options=others)[0][0].nodes.max() == 1.0


# ---- forks ----------------------------------------------------------------------------------------


class Forking(Careful):
    """Forks in a step; the child comes out of it by an exception (1) or a return (2)."""

    def step(self, action: Any) -> Any:
        self.count += 1
        info, child = {}, -1
        if action:
            child = os.fork()
            if child == 0 and action == 1:
                raise OSError("the child cannot run its program")
            if child == 0:
                return np.array([-1.0]), -1.0, False, False, {}
            # Whatever the child does, it does before.
            info["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return np.array([float(self.count)]), float(self.count), False, False, info

    def forked(self) -> int:
        child = os.fork()
        return os.waitpid(child, 0)[1] if child else -1


@pytest.mark.parametrize(("action", "code"), [(1, 1), (2, 0)])
def test_a_forked_child_runs_nothing_of_others(action: int, code: int) -> None:
    with Closing(envs := VectorEnv([Forking] * 2, workers=1)):
        envs.reset()
        observations, rewards, *_, infos = envs.step(np.array([action, 0]))
        assert observations[:, 0].tolist() == rewards.tolist() == [1.0, 1.0]
        assert infos["code"][0] == code
        assert envs.step(np.zeros(2, int))[1].tolist() == [2.0, 2.0]
        assert envs.call("forked") == (0, 0)


# ---- letters --------------------------------------------------------------------------------------


class Boaster(Careful):
    """Answers with more than a box has room for."""

    def step(self, action: Any) -> Any:
        return (*super().step(action)[:4], {"large": np.zeros(5000)})


class Broken:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Answering(Careful):
    number = 0

    def answer(self) -> Any:
        return np.zeros(5000) if self.number else Broken()


def has_answered(envs: VectorEnv) -> None:
    deadline = time.monotonic() + 20
    while envs._exchange._words[:, 0].any():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("terminate", [False, True])
@pytest.mark.parametrize("how", ["send", "call"])
def test_letters_that_are_not_received(table: ndshm.Table, how: str, terminate: bool) -> None:
    make = walks(1)[0] if how == "call" else Boaster
    envs = VectorEnv([make] * 4, workers=2, table=table)
    envs.reset()
    if how == "call":
        envs.call_async("render")
        has_answered(envs)
        with pytest.warns(UserWarning, match="pending call"):
            envs.close(terminate=terminate)
    else:
        envs.send(np.zeros(4, int))
        has_answered(envs)
        envs.close(terminate=terminate)


def test_letters_of_a_dead_worker(table: ndshm.Table) -> None:
    with Closing(envs := VectorEnv([Boaster] * 4, workers=2, table=table)):
        envs.reset()
        before = len(table.handles())
        for _ in range(3):
            with pytest.raises(WorkerDied):
                envs.step(np.array([0, 2, 0, 0]))
            envs.restart()
        envs.reset()
        assert len(table.handles()) == before


def test_a_letter_that_cannot_be_unpickled(table: ndshm.Table) -> None:
    with Closing(envs := VectorEnv([Answering] * 4, workers=2, table=table)):
        envs.reset()
        envs.set_attr("number", [0, 1, 2, 3])
        before = len(table.handles())
        with pytest.raises(ValueError, match="no number") as caught:
            envs.call("answer")
        assert "its answer cannot be unpickled in the parent" in caught.value.__notes__
        assert caught.value.env_ids == [0]  # type: ignore[attr-defined]
        assert len(table.handles()) == before


class Telling(Careful):
    """Tells its number, and the first one what cannot be unpickled."""

    number = -1

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        what = Broken() if self.number == 0 else self.number
        return observation, reward, terminated, truncated, {**info, "what": what}


@pytest.mark.parametrize("how", ["recv", "reset", "close"])
def test_an_answer_that_cannot_be_unpickled_is_received_alone(
    table: ndshm.Table, how: str
) -> None:
    with Closing(envs := VectorEnv([Telling] * 4, workers=2, table=table)):
        envs.reset()
        envs.set_attr("number", [0, 1, 2, 3])
        envs.send(np.zeros(4, int))
        with pytest.raises(ValueError, match="no number") as caught:
            envs.recv(4)
        assert "its answer cannot be unpickled in the parent" in caught.value.__notes__
        assert caught.value.env_ids == [0]  # type: ignore[attr-defined]
        if how == "recv":
            # The others are there still, with what they told.
            *_, infos = envs.recv(4)
            assert sorted(infos["env_ids"]) == [1, 2, 3]
            assert infos["what"].tolist() == infos["env_ids"].tolist()
            envs.send(np.zeros(4, int))
            with pytest.raises(ValueError, match="no number"):
                envs.recv(4)
            assert len(envs.recv(4)[0]) == 3
        elif how == "reset":
            # What was read and not received is forgotten.
            envs.reset()
            envs.set_attr("number", [4, 5, 6, 7])
            *_, infos = envs.step(np.zeros(4, int))
            assert infos["what"].tolist() == [4, 5, 6, 7]
