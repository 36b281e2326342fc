"""`ndshm.gymnasium.VectorEnv`: the results of gymnasium's own class, and what that does not have."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm

gym = pytest.importorskip("gymnasium")

from gymnasium import spaces  # noqa: E402
from gymnasium.error import (  # noqa: E402
    AlreadyPendingCallError,
    ClosedEnvironmentError,
    NoAsyncCallError,
)
from gymnasium.utils.env_checker import data_equivalence  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

from ndshm.gymnasium import VectorEnv, WorkerDied, _worker  # noqa: E402

BASIC = spaces.Dict(
    {
        "picture": spaces.Box(0, 255, (4, 3), np.uint8),
        "pair": spaces.Tuple((spaces.Discrete(5), spaces.Box(-1.0, 1.0, (), np.float32))),
        "flags": spaces.MultiBinary(3),
        "levels": spaces.MultiDiscrete([3, 4]),
    }
)
MIXED = spaces.Dict({"text": spaces.Text(8), "x": spaces.Box(-1.0, 1.0, (2,), np.float64)})
CUSTOM = [
    BASIC,
    spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))),
    MIXED,
    spaces.Text(8),
    spaces.Sequence(spaces.Discrete(4)),
    spaces.Graph(spaces.Box(0.0, 1.0, (2,)), spaces.Discrete(3)),
]
if hasattr(spaces, "OneOf"):
    CUSTOM.append(spaces.OneOf([spaces.Discrete(2), spaces.Box(0.0, 1.0, (2,))]))


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


@pytest.fixture
def careful() -> Iterator[VectorEnv]:
    """Six environments in two workers: 0 to 2 and 3 to 5."""
    envs = VectorEnv([Careful] * 6, workers=2)
    envs.reset(seed=1)
    yield envs
    envs.close()


def acts(*pairs: tuple[int, int], count: int = 6) -> np.ndarray[Any, Any]:
    actions = np.zeros(count, np.int64)
    for env, action in pairs:
        actions[env] = action
    return actions


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


# ---- the results of SyncVectorEnv -----------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_equal_to_sync(mode: AutoresetMode, workers: int) -> None:
    env_fns = walks(7)
    ours = VectorEnv(env_fns, workers=workers, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode and ours.workers == workers
    run_beside(Closing(ours), Closing(SyncVectorEnv(env_fns, autoreset_mode=mode)))


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("space", CUSTOM, ids=lambda space: type(space).__name__)
def test_other_spaces(space: Any, shared_memory: bool) -> None:
    env_fns = walks(3, observations=space)
    ours = VectorEnv(env_fns, shared_memory, workers=2)
    run_beside(Closing(ours), Closing(SyncVectorEnv(env_fns)), 12)


@pytest.mark.parametrize("actions", [BASIC, spaces.Box(-1.0, 1.0, (2, 2)), spaces.MultiBinary(3)])
def test_action_spaces(actions: Any) -> None:
    class Echo(gym.Env):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.action_space = self.observation_space = copy.deepcopy(actions)
            self.before: Any = None

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.action_space.seed(int(self.np_random.integers(1 << 30)))
            return self.action_space.sample(), {}

        def step(self, action: Any) -> Any:
            assert action in self.action_space
            # It keeps an action without a copy.
            before, self.before = self.before, action
            info = {} if before is None else {"before": before}
            return action, 0.0, False, False, info

    run_beside(Closing(VectorEnv([Echo] * 3, workers=2)), Closing(SyncVectorEnv([Echo] * 3)), 5)


@pytest.mark.parametrize("seed", [None, 0, 7, [3, None, 1], np.int64(2)])
def test_seeds(seed: Any) -> None:
    with Closing(envs := VectorEnv([partial(gym.make, "CartPole-v1")] * 3, workers=2)):
        first, _ = envs.reset(seed=seed)
        again, _ = envs.reset(seed=seed)
        expected = {None: [], 0: [0, 1, 2], 7: [7, 8, 9], np.int64(2): [2, 3, 4]}
        known = [3, None, 1] if isinstance(seed, list) else expected[seed]
        for env, number in enumerate(known):
            if number is not None:
                assert envs.np_random_seed[env] == number
                assert (first[env] == again[env]).all()
        if not known:
            assert (first != again).any()
        with pytest.raises(ValueError, match="2 seeds were passed for 3"):
            envs.reset(seed=[1, 2])


@pytest.mark.parametrize("mode", ["different", "custom"])
def test_observation_modes(mode: Any) -> None:
    env_fns = [partial(Walk, spaces.Box(0.0, float(high), (2,))) for high in (1, 2, 3)]
    if mode == "custom":
        mode = (spaces.Box(0.0, 9.0, (3, 2)), spaces.Box(0.0, 9.0, (2,)))
    ours = VectorEnv(env_fns, observation_mode=mode)
    theirs = SyncVectorEnv(env_fns, observation_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    run_beside(Closing(ours), Closing(theirs), 5)
    with pytest.raises(RuntimeError, match="observation_mode='different'"):
        VectorEnv(env_fns)


def test_spaces_that_differ() -> None:
    with pytest.raises(RuntimeError, match="environment 1 has the action space"):
        VectorEnv([Walk, partial(Walk, actions=spaces.Discrete(3))])
    with pytest.raises(ValueError, match="observation_mode 'some'"):
        VectorEnv([Walk], observation_mode="some")


def test_wrappers() -> None:
    env_fns = [partial(gym.make, "CartPole-v1", max_episode_steps=20)] * 4
    found = []
    for envs in (VectorEnv(env_fns, workers=2), SyncVectorEnv(env_fns)):
        wrapped = gym.wrappers.vector.RecordEpisodeStatistics(envs)
        wrapped.reset(seed=1)
        episodes = []
        for _ in range(60):
            *_, infos = wrapped.step(np.array([0, 1, 0, 1]))
            if "episode" in infos:
                episodes.append((infos["episode"]["r"], infos["episode"]["l"], infos["_episode"]))
        wrapped.close()
        found.append(episodes)
    assert found[0] and data_equivalence(*found)


def test_copies() -> None:
    with Closing(envs := VectorEnv([Careful] * 2, workers=1)):
        first, *_ = envs.reset()
        envs.step(np.array([0, 0]))
        assert first.tolist() == [[0.0], [0.0]] and type(first) is np.ndarray
    with Closing(envs := VectorEnv([Careful] * 2, workers=1, copy=False)):
        first, *_ = envs.reset()
        later, *_ = envs.step(np.array([0, 0]))
        assert first is later and first.tolist() == [[1.0], [1.0]]


def test_actions_of_other_types() -> None:
    with Closing(envs := VectorEnv(walks(3), workers=2)):
        envs.reset(seed=1)
        for actions in ([1, 2, 3], np.array([1, 2, 3], np.int8), np.array([1.0, 2.0, 3.0])):
            envs.reset(seed=1)
            rewards = envs.step(actions)[1]
            assert (rewards - rewards % 1).tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(ValueError, match="2 actions were passed for 3"):
            envs.step([1, 2])


# ---- calls ----------------------------------------------------------------------------------------


def test_calls() -> None:
    with Closing(envs := VectorEnv(walks(5), workers=2)):
        envs.reset(seed=1)
        envs.step(np.zeros(5, int))
        assert envs.call("add", 10, by=2) == (21,) * 5
        assert len(set(envs.get_attr("pid"))) == 2 and os.getpid() not in envs.get_attr("pid")
        envs.set_attr("length", [9, 8, 7, 6, 5])
        assert envs.get_attr("length") == (9, 8, 7, 6, 5)
        envs.set_attr("length", 4)
        assert envs.get_attr("length") == (4,) * 5
        frames = envs.render()
        assert len(frames) == 5 and frames[0].shape == (40, 50, 3) and frames[0].max() == 1
        # Longer than a box, in both directions.
        envs.set_attr("large", np.arange(5000))
        assert all((array == np.arange(5000)).all() for array in envs.get_attr("large"))
        with pytest.raises(ValueError, match="2 values were passed for 5"):
            envs.set_attr("length", [1, 2])
        with pytest.raises(ValueError, match="method step"):
            envs.call("step", 1)
        with pytest.raises(AttributeError) as caught:
            envs.get_attr("nothing")
        assert caught.value.env_ids == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]


def test_large_letters_are_freed() -> None:
    table = ndshm.Table()
    with Closing(envs := VectorEnv(walks(4), workers=2, table=table)):
        envs.reset()
        before = len(table.handles())
        for _ in range(5):
            envs.set_attr("large", np.arange(5000))
            assert len(envs.render()) == 4
            envs.call_async("render")
            envs.call_wait()
        assert len(table.handles()) == before
    del envs
    assert not table.handles()
    table.close()


def test_order_of_calls() -> None:
    with Closing(envs := VectorEnv(walks(2), workers=1)):
        for name in ("reset", "step", "call"):
            with pytest.raises(NoAsyncCallError, match=f"`{name}_wait` without"):
                getattr(envs, f"{name}_wait")()
        with pytest.raises(NoAsyncCallError, match="recv"):
            envs.recv()
        envs.reset_async(seed=1)
        with pytest.raises(AlreadyPendingCallError, match="`reset` to complete"):
            envs.step_async(np.zeros(2, int))
        envs.reset_wait()
        envs.step_async(np.zeros(2, int))
        with pytest.raises(AlreadyPendingCallError, match="`step` to complete"):
            envs.send(np.zeros(2, int))
        envs.step_wait()
    for act in (envs.reset, envs.render, envs.recv, lambda: envs.step(np.zeros(2, int))):
        with pytest.raises(ClosedEnvironmentError):
            act()


def test_timeouts() -> None:
    with Closing(envs := VectorEnv([Careful] * 2, workers=2)):
        envs.reset()
        envs.step_async(np.array([3, 0]))
        with pytest.raises(multiprocessing.TimeoutError):
            envs.step_wait(0.05)
        # It can be waited for again.
        assert envs.step_wait()[1].tolist() == [1.0, 1.0]
        envs.send(np.array([3, 3]))
        with pytest.raises(multiprocessing.TimeoutError):
            envs.recv(2, timeout=0.05)
        assert envs.recv(2)[1].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([False, False]), ValueError),
    ],
)
def test_wrong_masks(mask: Any, error: type[Exception]) -> None:
    with Closing(envs := VectorEnv(walks(2), workers=1, autoreset_mode="Disabled")):
        with pytest.raises(error, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})


def test_disabled_autoreset_is_checked() -> None:
    with Closing(envs := VectorEnv(walks(2), workers=1, autoreset_mode="Disabled")):
        envs.reset(seed=1)
        for _ in range(3):
            envs.step(np.zeros(2, int))
        with pytest.raises(AssertionError, match="environment 0 has ended") as caught:
            envs.step(np.zeros(2, int))
        assert caught.value.env_ids == [0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"env_fns": []}, {"env_fns": [Careful] * 2049}])
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not possible: pass"):
        VectorEnv(**{"env_fns": [Careful], **arguments})


# ---- some environments at a time ------------------------------------------------------------------


def test_any_k_is_equal_to_single_environments() -> None:
    """Each environment sees its own actions, in whatever order they are received."""
    count, steps = 6, 15
    singles = SyncVectorEnv(walks(count), autoreset_mode="NextStep")
    with Closing(envs := VectorEnv(walks(count), workers=2)), Closing(singles):
        expected, (first, _) = [], singles.reset(seed=1)
        for step in range(steps):
            expected.append(singles.step(np.full(count, step % 9)))
        envs.reset_async(seed=1)
        done = [-1] * count
        while min(done) < steps:
            observations, rewards, terminations, truncations, infos = envs.recv(4)
            ids = infos.pop("env_ids")
            assert len(ids) == len(rewards) <= 4
            for place, env in enumerate(ids):
                step = done[env]
                row = lambda batch, at: spaces.utils.flatten(  # noqa: E731
                    BASIC, list(gym.vector.utils.iterate(envs.observation_space, batch))[at]
                )
                if step < 0:
                    assert (row(observations, place) == row(first, env)).all()
                    assert rewards[place] == 0
                elif step < steps:
                    e = expected[step]
                    assert (row(observations, place) == row(e[0], env)).all()
                    assert rewards[place] == e[1][env] and terminations[place] == e[2][env]
                    assert truncations[place] == e[3][env]
                    assert ("_n" in infos and infos["_n"][place]) == ("_n" in e[4] and e[4]["_n"][env])
                done[env] += 1
            again = [int(env) for env in ids if done[env] < steps]
            if again:
                envs.send(np.array([done[env] % 9 for env in again]), again)
        while True:
            try:
                envs.recv(count)
            except NoAsyncCallError:
                break
        envs.reset_async(seed=1)
        _, rewards, terminations, truncations, _ = envs.recv(count)
        assert not rewards.any() and not terminations.any() and not truncations.any()


def test_recv_does_not_wait_for_the_slow() -> None:
    with Closing(envs := VectorEnv([Careful] * 3, workers=3)):
        envs.reset()
        envs.send(np.array([3, 0, 0]))
        *_, infos = envs.recv(2)
        assert sorted(infos["env_ids"]) == [1, 2]
        with pytest.raises(ValueError, match=r"\[0\] have not been received"):
            envs.send(np.array([0]), [0])
        with pytest.raises(AlreadyPendingCallError, match="`recv`"):
            envs.step(np.zeros(3, int))
        envs.send(np.array([0]), [2])
        *_, infos = envs.recv(1)
        assert infos["env_ids"].tolist() == [2]
        *_, infos = envs.recv(5)
        assert infos["env_ids"].tolist() == [0]
        assert envs.step(np.zeros(3, int))[1].tolist() == [2.0, 2.0, 3.0]


def test_recv_does_not_wait_for_the_others_of_a_worker(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    careful.send(acts((1, 6), (5, 6)))
    _, rewards, *_, infos = careful.recv(2, timeout=10)
    assert rewards.tolist() == [1.0, 1.0]
    assert {0, 3} >= set(infos["env_ids"].tolist()) - {4}
    (tmp_path / "open").touch()
    *_, infos = careful.recv(4)
    assert {1, 2, 5} <= set(infos["env_ids"].tolist())


@pytest.mark.parametrize("ids", [[], [0, 0], [-1], [6], [0.5]])
def test_wrong_ids(careful: VectorEnv, ids: Any) -> None:
    with pytest.raises(ValueError, match="env_ids"):
        careful.send(np.zeros(len(ids), int), ids)
    with pytest.raises(ValueError, match="0 environments"):
        careful.send(np.zeros(6, int))
        careful.recv(0)
    careful.reset()


# ---- exceptions and deaths ------------------------------------------------------------------------


def test_an_exception(careful: VectorEnv) -> None:
    with pytest.raises(LookupError, match="no such move") as caught:
        careful.step(acts((1, 1), (4, 1)))
    error = caught.value
    assert error.env_ids == [1, 4]  # type: ignore[attr-defined]
    assert "in step\n    raise LookupError" in str(error.__cause__)
    assert any("environment 1 " in note for note in error.__notes__)
    assert any("environment 4 has raised LookupError" in note for note in error.__notes__)
    # All have taken their step, and go on.
    assert careful.step(acts())[1].tolist() == [2.0] * 6
    observations, infos = careful.restart([1, 4])
    assert observations[:, 0].tolist() == [2.0, 0.0, 2.0, 2.0, 0.0, 2.0] and infos == {}
    assert careful.step(acts())[1].tolist() == [3.0, 1.0, 3.0, 3.0, 1.0, 3.0]


def test_an_exception_in_reset(careful: VectorEnv) -> None:
    with pytest.raises(ValueError, match="not 13") as caught:
        careful.reset(seed=12)
    assert caught.value.env_ids == [1]  # type: ignore[attr-defined]
    careful.reset(seed=20)
    assert careful.step(acts())[1].tolist() == [1.0] * 6


def test_an_exit_is_an_exception(careful: VectorEnv) -> None:
    with pytest.raises(ndshm.KernelError, match="SystemExit"):
        careful.step(acts((0, 4)))
    assert careful.step(acts())[1].tolist() == [2.0] * 6


def test_an_observation_of_another_shape(careful: VectorEnv) -> None:
    with pytest.raises(ValueError, match=r"has the shape \(7,\), and its space has \(1,\)"):
        careful.step(acts((3, 5)))


def test_an_exception_is_received_alone(careful: VectorEnv) -> None:
    careful.send(acts((2, 1)))
    seen: list[int] = []
    while len(seen) < 6:
        try:
            *_, infos = careful.recv(4)
            seen += infos["env_ids"].tolist()
        except LookupError as error:
            assert error.env_ids == [2]  # type: ignore[attr-defined]
            seen.append(2)
            observations, _ = careful.restart([2])
            assert observations[2] == 0.0
    assert sorted(seen) == list(range(6))
    assert careful.step(acts())[1].tolist() == [2.0, 2.0, 1.0, 2.0, 2.0, 2.0]


def test_a_constructor_that_fails() -> None:
    def fail() -> Careful:
        raise OSError("no licence")

    with pytest.raises(OSError, match="no licence"):
        VectorEnv([Careful, fail], workers=2)


def test_a_death(careful: VectorEnv) -> None:
    before = time.monotonic()
    with pytest.raises(WorkerDied, match=r"\[0, 1, 2\] were lost") as caught:
        careful.step(acts((1, 2), (4, 3)))
    # The others need longer.
    took = time.monotonic() - before
    assert caught.value.env_ids == [0, 1, 2] and caught.value.exitcode == -signal.SIGKILL
    assert isinstance(caught.value, ndshm.WorkerDied)
    assert took < 0.35, took
    with pytest.raises(RuntimeError, match=r"restart\(\)"):
        careful.step(acts())
    observations, _ = careful.restart()
    assert observations[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert careful.step(acts())[1].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]


def test_reset_after_a_death(careful: VectorEnv) -> None:
    for worker in (0, 1, 1):
        with pytest.raises(WorkerDied) as caught:
            careful.step(acts((3 * worker, 2)))
        assert caught.value.env_ids == list(range(3 * worker, 3 * worker + 3))
        observations, _ = careful.reset(seed=2)
        assert not observations.any()
        assert careful.step(acts())[1].tolist() == [1.0] * 6


def test_all_die(careful: VectorEnv) -> None:
    lost: set[int] = set()
    with pytest.raises(WorkerDied) as caught:
        careful.step(acts((0, 2), (5, 2)))
    lost.update(caught.value.env_ids)
    # A death that was not told is told by a warning, if that call makes the environments anew.
    if len(lost) < 6:
        with pytest.warns(RuntimeWarning, match="were lost"):
            careful.restart()
    else:
        careful.restart()
    assert careful.step(acts())[1].tolist() == [1.0] * 6


@pytest.mark.parametrize("call", ["reset", "restart"])
def test_a_death_before_a_reset(careful: VectorEnv, call: str) -> None:
    pid = careful._crew._pool.pids[1]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    with pytest.warns(RuntimeWarning, match=rf"worker {pid} ended .* \[3, 4, 5\] were lost"):
        getattr(careful, call)()
    assert careful.step(acts())[1].tolist() == [1.0] * 6


@pytest.mark.parametrize("call", ["step", "render_mode", "send"])
def test_a_death_between_calls(careful: VectorEnv, call: str) -> None:
    pid = careful._crew._pool.pids[1]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    with pytest.raises(WorkerDied) as caught:
        if call == "step":
            careful.step(acts())
        elif call == "send":
            careful.send(acts())
            seen = 0
            while True:
                seen += len(careful.recv(1)[1])
                assert seen <= 3
        else:
            careful.get_attr(call)
    assert caught.value.env_ids == [3, 4, 5] and caught.value.pid == pid
    careful.reset()
    assert careful.step(acts())[1].tolist() == [1.0] * 6


def test_others_are_received_after_a_death(careful: VectorEnv) -> None:
    careful.send(acts((4, 2), (0, 3)))
    seen: list[int] = []
    died = False
    for _ in range(20):
        try:
            *_, infos = careful.recv(1)
            seen += infos["env_ids"].tolist()
        except WorkerDied as error:
            died = error.env_ids == [3, 4, 5]
        except NoAsyncCallError:
            break
    assert died and {0, 1, 2} <= set(seen) <= {0, 1, 2, 3}
    careful.restart()
    assert careful.step(acts())[1].tolist() == [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]


def ran(envs: VectorEnv, ids: list[int]) -> None:
    """Wait until environments have done what they were told."""
    deadline = time.monotonic() + 20
    while envs._exchange._words[ids, 0].any():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_a_dead_worker_has_answered_is_not_received(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    careful.send(acts((4, 7)))
    ran(careful, [0, 1, 2, 3])
    *_, infos = careful.recv(1)
    assert infos["env_ids"].tolist() == [0] and 3 in careful._crew._ready
    (tmp_path / "open").touch()
    with pytest.raises(WorkerDied):
        careful.recv(4)
    *_, infos = careful.recv(6)
    assert infos["env_ids"].tolist() == [1, 2]
    assert not careful._crew.busy and not careful._crew._ready


def test_a_second_death_is_received(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    careful.send(acts((0, 2), (3, 7)))
    with pytest.raises(WorkerDied) as caught:
        careful.recv(6)
    assert caught.value.env_ids == [0, 1, 2]
    (tmp_path / "open").touch()
    with pytest.raises(WorkerDied) as caught:
        careful.recv(3)
    assert caught.value.env_ids == [3, 4, 5]
    careful.restart()
    assert careful.step(acts())[1].tolist() == [1.0] * 6


def test_ctrl_c(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    careful.step_async(acts((1, 6)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            careful.step_wait()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    (tmp_path / "open").touch()
    assert careful.step_wait()[1].tolist() == [1.0] * 6


# ---- processes ------------------------------------------------------------------------------------


def test_start_methods(method: str) -> None:
    ours = VectorEnv(walks(4), workers=2, context=method)
    run_beside(Closing(ours), Closing(SyncVectorEnv(walks(4))), 12)


def test_lambdas_under_spawn() -> None:
    with Closing(envs := VectorEnv([lambda: Careful()] * 2, context="spawn")):
        envs.reset()
        with pytest.raises(WorkerDied):
            envs.step(np.array([2, 0]))
        envs.restart()
        assert envs.step(np.array([0, 0]))[1].tolist() == [1.0, 2.0]


def test_functions_that_cannot_be_pickled_under_fork() -> None:
    lock = multiprocessing.get_context("fork").Lock()

    def make() -> Careful:
        with lock:
            return Careful()

    with Closing(envs := VectorEnv([make] * 2, context="fork")):
        envs.reset()


def noting(folder: Path) -> type[Careful]:
    """Return environments that leave a file when they are closed."""

    class Noting(Careful):
        def close(self) -> None:
            (folder / f"{os.getpid()}-{id(self)}").touch()

    return Noting


def test_restart_closes_the_environments_before(tmp_path: Path) -> None:
    with Closing(envs := VectorEnv([noting(tmp_path)] * 4, workers=2)):
        envs.restart([1, 2])
        assert len(list(tmp_path.iterdir())) == 2


def test_close_ends_the_workers_and_closes_the_environments(tmp_path: Path) -> None:
    before = set(_worker.INHERITED)
    envs = VectorEnv([noting(tmp_path)] * 4, workers=2)
    pids = envs._crew._pool.pids
    envs.reset()
    envs.step_async(np.array([3, 0, 0, 0]))
    with pytest.warns(UserWarning, match="pending call to `step`"):
        envs.close()
    envs.close()
    assert len(list(tmp_path.iterdir())) == 4
    assert set(_worker.INHERITED) == before
    assert all(pid and not Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("how", ["terminate", "timeout", "drop"])
def test_close_does_not_wait(how: str) -> None:
    envs = VectorEnv(walks(2), workers=2)
    pids = envs._crew._pool.pids
    before = time.monotonic()
    envs.call_async("sleep", 30)
    if how == "drop":
        with pytest.warns(UserWarning, match="pending call"):
            del envs
            gc.collect()
    else:
        with pytest.warns(UserWarning, match="pending call"):
            envs.close(**({"terminate": True} if how == "terminate" else {"timeout": 0.1}))
    assert time.monotonic() - before < 20
    assert all(pid and not Path(f"/proc/{pid}").exists() for pid in pids)


def test_close_after_a_death(tmp_path: Path) -> None:
    envs = VectorEnv([noting(tmp_path)] * 4, workers=2)
    envs.reset()
    with pytest.raises(WorkerDied):
        envs.step(acts((0, 2), count=4))
    envs.close()
    # Those that were left.
    assert len(list(tmp_path.iterdir())) == 2


FORKS = """
import multiprocessing, numpy as np, gymnasium as gym
from ndshm.gymnasium import VectorEnv
if __name__ == "__main__":
    envs = VectorEnv([lambda: gym.make("CartPole-v1")] * 3, workers=2)
    envs.reset(seed=1)
    envs.close()
    process = multiprocessing.get_context("fork").Process(target=print, args=("forked",))
    process.start()
    process.join()
"""


def test_a_fork_after_close_has_nothing_to_warn_of() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("forked\n", "")


PROGRAM = """
import sys, numpy as np, gymnasium as gym
from ndshm.gymnasium import VectorEnv
if __name__ == "__main__":
    envs = VectorEnv([lambda: gym.make("CartPole-v1")] * 3, workers=2)
    envs.reset(seed=1)
    envs.step_async(np.zeros(3, int))
    print(*envs._crew._pool.pids, flush=True)
"""


def test_a_program_that_does_not_close() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10
    for pid in done.stdout.split():
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()


def test_without_gymnasium() -> None:
    code = "import sys; sys.modules['gymnasium'] = None\nimport ndshm.gymnasium"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert "pip install 'gymnasium>=1.1'" in done.stderr
