"""Pools whose workers die, and pools that are interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm


def add(x: Any, value: float) -> None:
    x += value


def die(x: Any, row: float, how: str) -> None:
    if x[0] == row:
        x[0] = -1
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)
    time.sleep(0.002)
    x += 1000


@pytest.mark.parametrize(("how", "exitcode"), [("kill", -signal.SIGKILL), ("exit", 7)])
def test_a_worker_dies_in_a_tile(context: BaseContext, how: str, exitcode: int) -> None:
    x = ndshm.array(np.arange(100.0))
    with ndshm.Pool(2, context=context) as pool:
        pids = pool.pids
        with pytest.raises(ndshm.WorkerDied) as caught:
            pool.for_tiles(die, (x,), 10, 40.0, how)
        died = caught.value
        assert died.pid in pids and died.exitcode == exitcode
        assert died.rows == [range(40, 50)] and died.missing == []
        assert "rows 40:50 may be half-written" in str(died)
        # The others have done the rest.
        assert x[40] == -1 and (np.delete(x, range(40, 50)) >= 1000).all()
        with pytest.raises(ndshm.Poisoned):
            pool.for_tiles(add, (x,), 10, 1.0)
        with x.recover() as a:
            a[:] = 0
        pool.for_tiles(add, (x,), 10, 1.0)
        assert (x == 1).all()
        assert died.pid not in pool.pids and len(set(pids) & set(pool.pids)) == 1


def test_all_workers_die(context: BaseContext) -> None:
    x = ndshm.zeros(100)
    with ndshm.Pool(2, context=context) as pool:
        with pytest.raises(ndshm.WorkerDied) as caught:
            pool.for_tiles(die, (x,), 10, 0.0, "exit")
        died = caught.value
        assert len(died.rows) == 2 and len(died.missing) == 8
        x.clear_poison()
        assert pool.map_tiles(len, (x,), 60) == [60, 40]


def until_told(x: Any, flags: Any) -> None:
    """Say that the call runs, and run until it is told to end."""
    flags[0] = 1
    wait_until(lambda: bool(flags[1]))
    x += 1


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def hold(x: Any, go: Any) -> None:
    go[0] = os.getpid()
    while True:
        time.sleep(10)


def delays_of_deaths() -> list[float]:
    delays = []
    with ndshm.Pool(2) as pool:
        for _ in range(10):
            x, go = ndshm.zeros(4), ndshm.zeros(1, "i8")
            killed: list[float] = []

            def kill() -> None:
                while not go[0]:
                    time.sleep(0.001)
                killed.append(time.monotonic())
                os.kill(int(go[0]), signal.SIGKILL)

            thread = threading.Thread(target=kill)
            thread.start()
            with pytest.raises(ndshm.WorkerDied) as caught:
                pool.for_tiles(hold, (x,), 4, go)
            delays.append(time.monotonic() - killed[0])
            thread.join()
            assert caught.value.exitcode == -signal.SIGKILL
    return sorted(delays)


def test_a_death_is_noticed_within_50_ms() -> None:
    # Other programs on the machine delay some deaths, and now and then many.
    for _ in range(4):
        delays = delays_of_deaths()
        if delays[5] < 0.05 and delays[2] < 0.03:
            return
    raise AssertionError(delays)


def test_a_worker_that_dies_between_calls_is_replaced(context: BaseContext) -> None:
    x = ndshm.zeros(10)
    with ndshm.Pool(2, context=context, setup=os.getpid) as pool:
        pool.for_tiles(add, (x,), 2, 1.0)
        for _ in range(3):
            victim = pool.pids[0]
            assert victim
            os.kill(victim, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while victim in [child.pid for child in multiprocessing.active_children()]:
                assert time.monotonic() < deadline
            pool.for_tiles(add, (x,), 2, 1.0)
            # The new one has called `setup`.
            assert pool.broadcast(state_of) == pool.pids
            assert victim not in pool.pids
    assert (x == 4).all()


def state_of(state: int) -> int:
    return state


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_dies_in_a_broadcast(context: BaseContext) -> None:
    with ndshm.Pool(2, context=context) as pool:
        with pytest.raises(ndshm.WorkerDied) as caught:
            pool.broadcast(exit_in_one)
        assert caught.value.exitcode == 9 and caught.value.rows == []
        assert pool.broadcast(len, "four") == [4, 4]


def exit_in_one(worker: int) -> None:
    if worker == 1:
        os._exit(9)


def test_setup_that_fails(context: BaseContext) -> None:
    with pytest.raises(ZeroDivisionError):
        ndshm.Pool(2, context=context, setup=fail)
    with pytest.raises(ndshm.WorkerDied):
        ndshm.Pool(2, context=context, setup=end)
    with pytest.raises(ndshm.KernelError, match="SystemExit"):
        ndshm.Pool(2, context=context, setup=sys.exit)


def fail() -> None:
    raise ZeroDivisionError


def end() -> None:
    os._exit(3)


def slow(x: Any, seconds: float) -> None:
    x += 1
    time.sleep(seconds)


PROGRAM = """
import os, signal, sys, threading, time
import numpy as np
import ndshm

def slow(x, seconds):
    x += 1
    time.sleep(seconds)

def interrupt():
    time.sleep(0.3)
    # As a terminal does: all processes of the group.
    os.killpg(os.getpgrp(), signal.SIGINT)

if __name__ == "__main__":
    x = ndshm.zeros(1000)
    with ndshm.Pool(2, context=sys.argv[1]) as pool:
        pool.for_tiles(slow, (x,), 500, 0.0)
        pids = pool.pids
        threading.Thread(target=interrupt).start()
        start = time.monotonic()
        try:
            pool.for_tiles(slow, (x,), int(sys.argv[2]), float(sys.argv[3]))
        except KeyboardInterrupt:
            print(f"interrupted {time.monotonic() - start < 3.0}")
        print(pool.pids == pids)
        try:
            print(pool.map_tiles(len, (ndshm.readonly(x),), 500))
        except ndshm.Poisoned:
            x.clear_poison()
            print(pool.map_tiles(len, (ndshm.readonly(x),), 500), "poisoned")
"""


@pytest.mark.parametrize(
    ("tile", "seconds", "rest"),
    [(1, 0.01, ["True", "[500, 500]"]), (500, 60.0, ["True", "[500, 500] poisoned"])],
)
def test_ctrl_c(method: str, tmp_path: Any, tile: int, seconds: float, rest: list[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), method, str(tile), str(seconds)],
        capture_output=True, text=True, timeout=60, start_new_session=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    # The workers print nothing.
    assert done.stderr == "" and done.returncode == 0, done.stderr
    assert lines[0] == "interrupted True"
    if seconds < 1:
        assert lines[1:] == rest
    else:
        assert lines[2] == rest[1]


def test_ctrl_c_ends_a_program(method: str, tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    text = textwrap.dedent(PROGRAM).replace("except KeyboardInterrupt", "except ZeroDivisionError")
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, str(program), method, "500", "60"],
        capture_output=True, text=True, timeout=60, start_new_session=True,
    )  # fmt: skip
    assert done.stderr.count("Traceback") == 1 and "KeyboardInterrupt" in done.stderr
    assert done.returncode in (-signal.SIGINT, 130)


def test_a_handler_of_the_parent_runs_during_a_call() -> None:
    x = ndshm.zeros(2)
    seen: list[float] = []
    old = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
    try:
        with ndshm.Pool(2) as pool:
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            pool.for_tiles(slow, (x,), 1, 1.5)
            assert seen and seen[0] - start < 1.2
    finally:
        signal.signal(signal.SIGALRM, old)


def test_other_threads_run_during_a_call() -> None:
    x = ndshm.zeros(2)
    count = 0
    stop = threading.Event()

    def work() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.001)

    with ndshm.Pool(2) as pool:
        thread = threading.Thread(target=work)
        thread.start()
        pool.for_tiles(slow, (x,), 1, 0.3)
        stop.set()
        thread.join()
    assert count > 10


def test_two_threads_of_one_pool() -> None:
    x = ndshm.zeros(2)
    with ndshm.Pool(2) as pool:
        flags = ndshm.zeros(2)
        thread = threading.Thread(target=pool.for_tiles, args=(until_told, (x,), 1, flags))
        thread.start()
        wait_until(lambda: bool(flags[0]))
        with pytest.raises(RuntimeError, match="another thread"):
            pool.for_tiles(slow, (ndshm.zeros(2),), 1, 0.0)
        flags[1] = 1
        thread.join()
        # The call of the other thread was not touched.
        assert x.tolist() == [1, 1]


def test_terminate() -> None:
    pool = ndshm.Pool(2)
    pids = [pid for pid in pool.pids if pid]
    pool.terminate()
    assert not any(alive(pid) for pid in pids)


def test_a_forked_child_does_not_use_the_pool_of_its_parent() -> None:
    x = ndshm.zeros(4)
    with ndshm.Pool(2) as pool:
        pool.for_tiles(add, (x,), 2, 1.0)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                pool.for_tiles(add, (x,), 2, 1.0)
            except ndshm.NdshmError:
                code = 0
            except BaseException:
                code = 2
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        pool.for_tiles(add, (x,), 2, 1.0)
    assert (x == 2).all()
