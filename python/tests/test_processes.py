"""Arrays between processes: start methods, forks, ends."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm


def _add(x: Any, row: int, value: float) -> float:
    x[row] += value
    return float(x.sum())


def run(code: str, *, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert not done.stderr or status, done.stderr
    return done.stdout


def test_a_pool_writes_in_place(context: BaseContext) -> None:
    x = ndshm.zeros((4, 1000))
    with context.Pool(2) as pool:
        pool.starmap(_add, [(x, row, row + 1) for row in range(4)])
        later = ndshm.zeros((4, 10))
        pool.starmap(_add, [(later[:, ::2], 1, 5)])
    assert x[:, 7].tolist() == [1, 2, 3, 4]
    assert later[1].tolist() == [5, 0] * 5


def test_an_executor(context: BaseContext) -> None:
    x = ndshm.zeros((4, 1000))
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(_add, [x] * 4, range(4), [2.0] * 4))
    assert (x == 2).all()


def _same(x: Any) -> Any:
    return x


def test_an_array_comes_back_as_itself(context: BaseContext) -> None:
    x = ndshm.zeros((3, 4))
    with context.Pool(1) as pool:
        y = pool.apply(_same, (x.T,))
    assert y.handle == x.handle and y.shape == (4, 3)
    y[0, 1] = 5
    assert x[1, 0] == 5


def _try_to_write(x: Any) -> str:
    try:
        x.flags.writeable = True
    except ValueError as error:
        return str(error)
    return "written"


def test_readonly_arrives_readonly(context: BaseContext) -> None:
    x = ndshm.array(np.arange(5), readonly=True)
    with context.Pool(1) as pool:
        assert "WRITEABLE" in pool.apply(_try_to_write, (x,))


def test_a_named_table_is_found_by_unrelated_programs() -> None:
    name = f"ndshm-pytest-{os.getpid()}"
    with ndshm.open(name, "x") as table:
        x = table.full(3, 1.0)
        with pytest.raises(FileExistsError), ndshm.open(name, "x"):
            pass
        out = run(f"""
            import ndshm, pickle
            t = ndshm.open({name!r}, "r")
            x = pickle.loads({pickle.dumps(x)!r})
            x += 1
            print(x.table == t, t.name)
        """)
        assert out == f"True {name}\n" and (x == 2).all()
    assert name not in os.listdir("/dev/shm")
    with pytest.raises(ndshm.NameNotFound) as caught:
        ndshm.open(name, "r")
    assert isinstance(caught.value, KeyError) and name in str(caught.value)
    with pytest.raises(ValueError, match="mode"):
        ndshm.open(name, "w")


def test_what_cannot_be_reached_says_what_to_do() -> None:
    sent = run("""
        import ndshm, pickle
        print(pickle.dumps(ndshm.zeros(3)).hex())
    """)
    with pytest.raises(ndshm.Unreachable, match=r"ndshm\.open.*portable") as caught:
        pickle.loads(bytes.fromhex(sent))
    assert isinstance(caught.value, OSError)


def test_a_forked_child_keeps_its_views() -> None:
    x = ndshm.full(1000, 3.0)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)
            # The parent has freed it, and made others.
            good = (x == 3).all()
            own = ndshm.zeros(10)
            own += 1
            os._exit(0 if good and own.sum() == 10 else 2)
        finally:
            os._exit(3)
    del x
    others = [ndshm.full(1000, 4.0) for _ in range(20)]
    time.sleep(0.1)
    others += [ndshm.full(1000, 4.0) for _ in range(20)]
    os.write(write, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_child_frees_nothing_of_its_parent() -> None:
    x = ndshm.full(10, 3.0)
    handle = x.handle
    pid = os.fork()
    if pid == 0:
        del x
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    ndshm.default().reap()
    assert handle in ndshm.default().handles() and (x == 3).all()


def test_forks_while_threads_work() -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                x = ndshm.zeros(100_000)
                with x.write(timeout=1) as a:
                    a[0] = 1
                y = pickle.loads(pickle.dumps(x))
                assert y[0] == 1
                x.free()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                try:
                    x = ndshm.full(10, 2.0)
                    y = pickle.loads(pickle.dumps(x))
                    os._exit(0 if y.sum() == 20 else 2)
                finally:
                    os._exit(3)
            deadline = time.monotonic() + 30
            while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert ended[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors


def _hold(x: Any, ready: Any) -> None:
    mine = x.table.zeros(1000)
    pickle.dumps(mine)
    x[0] = 1
    ready.set()
    time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_process_had_is_taken_back(context: BaseContext, number: int) -> None:
    table = ndshm.Table()
    x = table.zeros(3)
    ready = context.Event()
    process = context.Process(target=_hold, args=(x, ready))
    process.start()
    assert ready.wait(30) and len(table.handles()) == 2
    os.kill(process.pid, number)
    process.join(30)
    table.reap()
    assert table.handles() == [x.handle] and x[0] == 1
    table.close()


def _children_of_pool(x: Any) -> int:
    x.table.zeros(100)
    return os.getpid()


def test_the_end_of_a_pool_leaves_nothing(context: BaseContext) -> None:
    table = ndshm.Table()
    x = table.zeros(3)
    with context.Pool(2) as pool:
        pool.map(_children_of_pool, [x] * 10)
    pool.join()
    table.reap()
    assert table.handles() == [x.handle]
    table.close()


@pytest.mark.parametrize("first", ["multiprocessing", "ndshm"])
@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "sys.exit()", "del t"])
def test_a_program_that_ends_leaves_no_name(first: str, end: str) -> None:
    name = f"ndshm-pytest-{os.getpid()}-end"
    out = run(f"""
        import {first}
        import multiprocessing, sys, pickle, ndshm
        class Late:
            def __del__(self):
                print((self.x * 3)[0])       # a destructor uses the array at the very end
        t = ndshm.open({name!r})
        late = Late()
        late.x = x = t.full(3, 2.0)
        pickle.dumps(x)
        lease = x.write()
        a = lease.__enter__()
        {end}
    """)
    assert out == "6.0\n"
    assert name not in os.listdir("/dev/shm")


def test_an_exception_and_ctrl_c_leave_no_name() -> None:
    name = f"ndshm-pytest-{os.getpid()}-end"
    for error, status in (("ZeroDivisionError", 1), ("KeyboardInterrupt", -signal.SIGINT)):
        run(f"""
            import ndshm
            x = ndshm.open({name!r}).zeros(3)
            raise {error}
        """, status=status)  # fmt: skip
        assert name not in os.listdir("/dev/shm")


def test_a_child_that_outlives_the_main_program_opens_the_table(method: str) -> None:
    # The main program waits for it at its end. Its table has to be open until then.
    code = f"""
        import multiprocessing, ndshm, time
        from tests_child import late
        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            x = ndshm.full(3, 2.0)
            multiprocessing.Process(target=late, args=(x,)).start()
    """
    here = os.path.join(os.path.dirname(__file__), "programs")
    assert run(code, env={"PYTHONPATH": here}) == "6.0\n"


def test_subinterpreters_are_refused() -> None:
    out = run("""
        import sys
        try:
            import _interpreters as sub
        except ImportError:
            import _xxsubinterpreters as sub
        import ndshm
        code = "try: import ndshm\\nexcept ImportError as error: print('refused', flush=True)"
        sub.run_string(sub.create(), code)
    """)
    assert out == "refused\n"


def test_other_threads_run_while_a_hook_delays_the_child_of_a_fork() -> None:
    # The hook of another package waits in the child for a thread of the parent.
    out = run(
        """
        import os, threading, time
        reader, writer = os.pipe()
        os.register_at_fork(after_in_child=lambda: os.read(reader, 1))
        import ndshm

        x = ndshm.zeros(3)
        codes = []
        def fork():
            pid = os.fork()
            if pid == 0:
                os._exit(int(x[2]))
            codes.append(os.waitpid(pid, 0)[1])

        x[2] = 7
        thread = threading.Thread(target=fork)
        start = time.monotonic()
        thread.start()
        time.sleep(0.1)
        # The thread has forked by now, or comes to wait for this byte a moment later.
        os.write(writer, b"1")
        thread.join()
        # The parent gives up after five seconds.
        print(time.monotonic() - start < 4.5, [os.waitstatus_to_exitcode(code) for code in codes])
        """
    )
    assert out == "True [7]\n"
