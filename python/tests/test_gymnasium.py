"""`ndshm.gymnasium.VectorEnv`: the results of gymnasium's own class, calls, and any k of it."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Iterator
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
from walking import BASIC, Careful, Closing, Walk, acts, run_beside, walks  # noqa: E402

from ndshm.gymnasium import VectorEnv  # noqa: E402

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


@pytest.fixture
def careful() -> Iterator[VectorEnv]:
    """Six environments in two workers: 0 to 2 and 3 to 5."""
    envs = VectorEnv([Careful] * 6, workers=2)
    envs.reset(seed=1)
    yield envs
    envs.close()


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


def test_recv_does_not_wait_for_the_others_of_a_worker(tmp_path: Path) -> None:
    class Waiting(Careful):
        """Waits in its step, unless it is the first of its worker that takes one."""

        is_first = True

        def step(self, action: Any) -> Any:
            is_first, Waiting.is_first = Waiting.is_first, False
            return super().step(0 if is_first else 6)

    Waiting.gate = str(tmp_path / "open")
    with Closing(envs := VectorEnv([Waiting] * 6, workers=2)):
        envs.reset()
        envs.send(acts())
        _, rewards, *_, infos = envs.recv(2, timeout=10)
        first = infos["env_ids"].tolist()
        assert rewards.tolist() == [1.0, 1.0] and [env // 3 for env in first] == [0, 1]
        (tmp_path / "open").touch()
        *_, infos = envs.recv(4)
        assert sorted([*first, *infos["env_ids"]]) == list(range(6))


@pytest.mark.parametrize("ids", [[], [0, 0], [-1], [6], [0.5]])
def test_wrong_ids(careful: VectorEnv, ids: Any) -> None:
    with pytest.raises(ValueError, match="env_ids"):
        careful.send(np.zeros(len(ids), int), ids)
    with pytest.raises(ValueError, match="0 environments"):
        careful.send(np.zeros(6, int))
        careful.recv(0)
    careful.reset()
