"""The processes of a pool: how their end is noticed, and how they begin."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import time
from multiprocessing import popen_fork
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from test_pool_deaths import add, alive, state_of, wait_until

import ndshm


def leave_a_child(pids: Any, go: Any, worker: int) -> None:
    """Fork a process that has all descriptors of the worker, and lives longer than it."""
    pid = os.fork()
    if pid == 0:
        deadline = time.monotonic() + 30
        while not go[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(0)
    pids[worker] = pid


def kill(victim: int) -> None:
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim))


def test_a_death_is_seen_although_a_child_of_the_worker_lives(context: BaseContext) -> None:
    pids, go = ndshm.zeros(2, "i8"), ndshm.zeros(1)
    pool = ndshm.Pool(2, context=context)
    try:
        pool.broadcast(leave_a_child, pids, go)
        assert all(pids)
        victim = pool.pids[0]
        assert victim
        kill(victim)
        assert pool.broadcast(len, "four") == [4, 4]
        assert victim not in pool.pids
        start = time.monotonic()
        pool.close()
        # The other worker is not waited for by its pipe, which takes five seconds.
        assert time.monotonic() - start < 4.5
        assert all(alive(int(pid)) for pid in pids)
    finally:
        go[0] = 1
        pool.close()
        wait_until(lambda: not any(alive(int(pid)) for pid in pids if pid))


def test_ctrl_c_while_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = ndshm.zeros(4)
    launch = popen_fork.Popen._launch  # type: ignore[attr-defined]

    launched: list[int] = []

    def interrupted(self: Any, process: Any) -> None:
        launch(self, process)
        launched.append(self.pid)
        # As if another thread had got the signal: this one blocks it.
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ndshm.Pool(2, context="fork", setup=os.getpid) as pool:
            pool.for_tiles(add, (x,), 1, 1.0)
            victim = pool.pids[0]
            assert victim
            kill(victim)
            with monkeypatch.context() as patch:
                patch.setattr(popen_fork.Popen, "_launch", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    pool.for_tiles(add, (x,), 1, 1.0)
            # The pool has the worker that has just started, and knows that it is new.
            assert pool.broadcast(os.getpid) == pool.pids and pool.pids[0] == launched[0]
            assert pool.broadcast(state_of) == pool.pids
            pool.for_tiles(add, (x,), 1, 1.0)
            assert x.tolist() == [2.0] * 4
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


PARTIAL = """
import sys
sys.modules["cloudpickle"] = None
import functools
import ndshm

def add(x, value):
    x += value

class Adder:
    def __call__(self, x):
        x += 1

    def method(self, x):
        x += 1

if __name__ == "__main__":
    x = ndshm.zeros(2)
    functions = functools.partial(add, value=1.0), Adder(), Adder().method
    with ndshm.Pool(1, context=sys.argv[1]) as pool:
        for function in functions:
            pool.for_tiles(function, (x,), 1)
        print(x.tolist())

        def add(x, value):
            x += 100 * value

        def other(self, x):
            x += 200

        other.__qualname__ = "Adder.method"
        Adder.method = other
        for function in functools.partial(add, value=1.0), Adder().method:
            try:
                pool.for_tiles(function, (x,), 1)
            except TypeError as error:
                print(str(error).endswith("install cloudpickle (pip install cloudpickle)"))
        pool.for_tiles(Adder(), (x,), 1)
        print(x.tolist())
"""


def test_a_partial_of_a_changed_function_without_cloudpickle(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PARTIAL)
    done = subprocess.run(
        [sys.executable, str(program), method], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["[3.0, 3.0]", "True", "True", "[4.0, 4.0]"], done.stderr
