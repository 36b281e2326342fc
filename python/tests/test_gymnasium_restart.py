"""`ndshm.gymnasium.VectorEnv.restart`: in a loop of `recv`, after deaths, and when it fails itself."""

from __future__ import annotations

import multiprocessing
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from gymnasium.error import NoAsyncCallError  # noqa: E402
from walking import Careful, Closing  # noqa: E402

from ndshm.gymnasium import VectorEnv  # noqa: E402


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


class Gated(Careful):
    """Waits for a file in a reset with the seed 5."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self.gate_of_reset = gate

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed == 5:
            await_file(self.gate_of_reset)
        return super().reset(seed=seed)


def test_the_first_environment_of_the_worker_is_in_a_step(tmp_path: Path) -> None:
    with Closing(envs := VectorEnv([Careful] * 2, workers=1)):
        envs.reset()
        envs.set_attr("gate", str(tmp_path / "open"))
        envs.send(np.array([1]), [1])
        with pytest.raises(LookupError) as caught:
            envs.recv(1)
        envs.send(np.array([6]), [0])
        timer = threading.Timer(0.1, (tmp_path / "open").touch)
        timer.start()
        observations, _ = envs.restart(caught.value.env_ids)  # type: ignore[attr-defined]
        timer.join()
        assert observations[1] == 0.0
        _, rewards, *_, infos = envs.recv(2, timeout=20)
        assert infos["env_ids"].tolist() == [0] and rewards.tolist() == [1.0]
        assert envs.step(np.zeros(2, int))[1].tolist() == [2.0, 1.0]


def test_a_step_after_a_restart_is_no_reset(tmp_path: Path) -> None:
    with Closing(envs := VectorEnv([partial(Gated, tmp_path / "open")] * 2, workers=2)):
        envs.reset_async(seed=[5, 13])
        with pytest.raises(ValueError, match="not 13"):
            envs.recv(1, timeout=20)
        envs.restart([1], seed=3)
        envs.send(np.array([0]), [1])
        _, rewards, *_, infos = envs.recv(1, timeout=20)
        assert infos["env_ids"].tolist() == [1] and rewards.tolist() == [1.0]
        (tmp_path / "open").touch()
        _, rewards, *_, infos = envs.recv(1, timeout=20)
        assert infos["env_ids"].tolist() == [0] and rewards.tolist() == [0.0]


def test_nothing_is_left_to_receive() -> None:
    with Closing(envs := VectorEnv([Careful] * 2, workers=1)):
        envs.reset()
        envs.send(np.array([2, 0]))
        process = envs._crew._pool._workers[0]
        assert process is not None
        process.join(20)
        with pytest.warns(RuntimeWarning, match=r"\[0, 1\] were lost"):
            envs.restart()
        with pytest.raises(NoAsyncCallError):
            envs.recv()
        assert envs.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]


def test_a_constructor_that_fails(tmp_path: Path) -> None:
    flag, closed = tmp_path / "flag", tmp_path / "closed"

    class Licensed(Careful):
        def __init__(self) -> None:
            super().__init__()
            if flag.exists():
                raise OSError("no licence")

        def close(self) -> None:
            with closed.open("a") as file:
                file.write("x")

    with Closing(envs := VectorEnv([Licensed] * 2, workers=1)):
        envs.reset()
        flag.touch()
        for _ in range(2):
            with pytest.raises(OSError, match="no licence"):
                envs.restart([0])
        assert closed.read_text() == "x"
        for call in (lambda: envs.step(np.zeros(2, int)), envs.reset, partial(envs.call, "count")):
            with pytest.raises(RuntimeError, match=r"call restart\(\[0\]\)") as caught:
                call()
            assert caught.value.env_ids == [0]  # type: ignore[attr-defined]
        flag.unlink()
        envs.restart([0])
        envs.step(np.zeros(2, int))
    assert closed.read_text() == "xxx"


def test_no_environments() -> None:
    with Closing(envs := VectorEnv([Careful] * 2, workers=1)):
        envs.reset()
        envs.step(np.zeros(2, int))
        for none in ([], np.array([], int)):
            observations, infos = envs.restart(none)
            assert observations.tolist() == [[1.0], [1.0]] and infos == {}


def test_reset_wait_after_a_timeout_of_recv(tmp_path: Path) -> None:
    with Closing(envs := VectorEnv([partial(Gated, tmp_path / "open")] * 2, workers=1)):
        envs.reset_async(seed=[5, 5])
        with pytest.raises(multiprocessing.TimeoutError):
            envs.recv(1, timeout=0.01)
        (tmp_path / "open").touch()
        assert envs.reset_wait()[0].tolist() == [[0.0], [0.0]]
