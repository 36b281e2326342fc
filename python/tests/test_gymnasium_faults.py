"""`ndshm.gymnasium.VectorEnv`: environments that fail, workers that die, start methods, the end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ndshm

pytest.importorskip("gymnasium")

from gymnasium.error import NoAsyncCallError  # noqa: E402
from gymnasium.vector import SyncVectorEnv  # noqa: E402
from walking import Careful, Closing, acts, run_beside, walks  # noqa: E402

from ndshm.gymnasium import VectorEnv, WorkerDied, _worker  # noqa: E402
from ndshm.gymnasium._letters import NOTHING, OP  # noqa: E402


@pytest.fixture
def careful() -> Iterator[VectorEnv]:
    """Six environments in two workers: 0 to 2 and 3 to 5."""
    envs = VectorEnv([Careful] * 6, workers=2)
    envs.reset(seed=1)
    yield envs
    envs.close()


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
    with pytest.raises(ValueError, match=r"environment 3 has the shape \(7,\) and .* space is Box"):
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


def test_a_death(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    with pytest.raises(WorkerDied, match=r"\[0, 1, 2\] were lost") as caught:
        careful.step(acts((1, 2), (4, 6)))
    # It does not wait for the others.
    assert 4 in careful._crew.busy and careful._exchange._words[4, OP] != NOTHING
    (tmp_path / "open").touch()
    assert caught.value.env_ids == [0, 1, 2] and caught.value.exitcode == -signal.SIGKILL
    assert isinstance(caught.value, ndshm.WorkerDied)
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
    # A worker takes the steps of its environments in any order.
    assert died and {0, 1, 2} <= set(seen) <= {0, 1, 2, 3, 5}
    careful.restart()
    assert careful.step(acts())[1].tolist() == [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]


def test_what_a_dead_worker_has_answered_is_not_received(careful: VectorEnv, tmp_path: Path) -> None:
    careful.set_attr("gate", str(tmp_path / "open"))
    careful.send(acts(count=4), range(4))
    assert careful._crew.wait_any(4, 20) == [0, 1, 2, 3]
    # Sent only now, because a worker takes the steps of its environments in any order.
    careful.send(np.array([7]), [4])
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
