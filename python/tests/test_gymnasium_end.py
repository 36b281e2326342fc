"""The end of `ndshm.gymnasium.VectorEnv`: `close` that fails or waits, forks, a failing start."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest

import ndshm

pytest.importorskip("gymnasium")

from gymnasium import spaces  # noqa: E402
from gymnasium.error import ClosedEnvironmentError  # noqa: E402
from walking import Careful, Closing  # noqa: E402

from ndshm.gymnasium import VectorEnv, WorkerDied  # noqa: E402


def noting(folder: Path, flag: str = "") -> type[Careful]:
    """Return environments that leave a file when they are closed, and cannot be made if there is a
    file `flag`.
    """

    class Noting(Careful):
        def __init__(self) -> None:
            super().__init__()
            if flag and Path(flag).exists():
                raise OSError("no licence")

        def close(self) -> None:
            (folder / f"{os.getpid()}-{id(self)}").touch()

    return Noting


def have_ended(pids: list[int | None]) -> bool:
    return all(pid and not Path(f"/proc/{pid}").exists() for pid in pids)


# ---- close ----------------------------------------------------------------------------------------


def test_an_environment_cannot_be_closed() -> None:
    class Stuck(Careful):
        def close(self) -> None:
            raise OSError("cannot close")

    table = ndshm.Table()
    envs = VectorEnv([Stuck] * 3, workers=2, table=table)
    pids = envs._crew._pool.pids
    envs.reset()
    with pytest.raises(OSError, match="cannot close") as caught:
        envs.close()
    assert caught.value.env_ids == [0, 1, 2]  # type: ignore[attr-defined]
    assert envs.closed and have_ended(pids) and not table.handles()
    with pytest.raises(ClosedEnvironmentError):
        envs.step(np.zeros(3, int))
    envs.close()
    table.close()


def test_a_death_that_was_not_received() -> None:
    envs = VectorEnv([Careful] * 2, workers=2)
    pids = envs._crew._pool.pids
    envs.reset()
    envs.send(np.array([3, 2]))
    envs.close()
    assert envs.closed and have_ended(pids)


def test_the_timeout_bounds_the_close_of_environments() -> None:
    class Slow(Careful):
        def close(self) -> None:
            time.sleep(40)

    envs = VectorEnv([Slow] * 2, workers=2)
    pids = envs._crew._pool.pids
    envs.reset()
    before = time.monotonic()
    envs.close(timeout=0.1)
    assert time.monotonic() - before < 20 and have_ended(pids)


# ---- forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "terminate", "drop"])
def test_a_forked_child_leaves_the_arrays(how: str) -> None:
    table = ndshm.Table()
    envs = VectorEnv([Careful] * 4, workers=2, table=table)
    envs.reset()
    before = len(table.handles())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if how == "drop":
                del envs
                gc.collect()
            else:
                envs.close(terminate=how == "terminate")
                assert envs.closed
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(table.handles()) == before
    assert envs.step(np.zeros(4, int))[1].tolist() == [1.0] * 4
    # A new worker opens them by their handles.
    with pytest.raises(WorkerDied):
        envs.step(np.array([2, 0, 0, 0]))
    envs.restart()
    envs.close()
    assert not table.handles()
    table.close()


# ---- a start that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_environments_are_closed_if_another_cannot_be_made(tmp_path: Path, workers: int) -> None:
    def fail() -> Careful:
        raise OSError("no licence")

    with pytest.raises(OSError, match="no licence"):
        VectorEnv([noting(tmp_path), noting(tmp_path), fail], workers=workers)
    assert len(list(tmp_path.iterdir())) == 2


def test_environments_are_closed_if_their_spaces_differ(tmp_path: Path) -> None:
    class Other(noting(tmp_path)):  # type: ignore[misc]
        observation_space = spaces.Box(0.0, 1.0, (2,))

    with pytest.raises(RuntimeError, match="observation space"):
        VectorEnv([noting(tmp_path), Other], workers=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_environments_of_a_new_worker_are_closed(tmp_path: Path) -> None:
    flag, folder = tmp_path / "flag", tmp_path / "closed"
    folder.mkdir()
    makers = [noting(folder), noting(folder, str(flag))]
    with Closing(envs := VectorEnv(makers, workers=1)):
        envs.reset()
        with pytest.raises(WorkerDied):
            envs.step(np.array([2, 0]))
        flag.touch()
        with pytest.raises(OSError, match="no licence"):
            envs.restart()
        assert len(list(folder.iterdir())) == 1
        flag.unlink()
        envs.restart()
        assert envs.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]
