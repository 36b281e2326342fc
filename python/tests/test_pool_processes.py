"""The processes of a pool: how their end is noticed, and how they begin."""

from __future__ import annotations

import _thread
import multiprocessing
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
from ndshm._ndshm import PoolParent
from ndshm._pool_process import uninterrupted
from ndshm._pool_worker import main


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


@pytest.mark.parametrize("restore", ["signal", "pthread_sigmask"])
def test_ctrl_c_works_after_the_handler_of_another_signal_has_raised(
    monkeypatch: pytest.MonkeyPatch, restore: str
) -> None:
    original, calls = getattr(signal, restore), []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        # The last argument is what was there before.
        if len(calls) > 1 and args[-1] in (signal.default_int_handler, set()):
            monkeypatch.undo()
            raise TimeoutError
        return original(*args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    calls.append(())
    try:
        monkeypatch.setattr(signal, restore, interrupted)
        with pytest.raises(TimeoutError) as caught:
            uninterrupted(lambda: calls.append(()))
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        del caught
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


SERVER = """
import multiprocessing.resource_tracker, signal, sys
import ndshm

def blocked(queue):
    queue.put(signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    # Its start would unblock SIGINT.
    multiprocessing.resource_tracker.ensure_running()
    context = multiprocessing.get_context(sys.argv[1])
    ndshm.Pool(1, context=context).close()
    queue = context.SimpleQueue()
    process = context.Process(target=blocked, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
"""


def test_other_processes_of_the_server_do_not_block_ctrl_c(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SERVER)
    done = subprocess.run(
        [sys.executable, str(program), method], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr


REAPS = """
import os, signal, sys
import ndshm

def die(x):
    os.kill(os.getpid(), signal.SIGKILL)

def add(x):
    x += 1

if __name__ == "__main__":
    if sys.argv[1] == "ignores":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    x = ndshm.zeros(4)
    with ndshm.Pool(2, context="fork") as pool:
        pool.for_tiles(add, (x,), 2)
        try:
            pool.for_tiles(die, (x,), 2)
        except ndshm.WorkerDied as error:
            print(error.pid > 0)
        x.clear_poison()
        pool.for_tiles(add, (x,), 2)
        if sys.argv[1] == "waits":
            for pid in pool.pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        pool.for_tiles(add, (x,), 2)
    print(x.tolist())
"""


@pytest.mark.parametrize("program", ["ignores", "waits"])
def test_a_program_that_loses_the_exit_codes_of_workers(program: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(REAPS)
    done = subprocess.run(
        [sys.executable, str(path), program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "True\n[3.0, 3.0, 3.0, 3.0]\n", done.stderr


def test_a_closed_pool_has_no_descriptors(context: BaseContext) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    # What the start method keeps for the process.
    ndshm.Pool(2, context=context).close()
    before = count()
    pool = ndshm.Pool(2, context=context)
    assert count() > before
    pool.close()
    assert count() == before and pool.pids == [None, None]
    pool.close()
    pool.terminate()
    with pytest.raises(RuntimeError):
        pool.broadcast(os.getpid)
    assert count() == before


def test_a_worker_that_comes_after_the_end_of_its_pool_ends_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    table = ndshm.default()
    core = PoolParent(table, 1)
    handle = core.handle
    core.close()
    process = multiprocessing.get_context("fork").Process(target=main, args=(table, handle, 0, 1))
    process.start()
    process.join(30)
    assert process.exitcode == 0 and capfd.readouterr().err == ""


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
