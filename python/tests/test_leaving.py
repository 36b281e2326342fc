"""How a process leaves a table: while threads use it, around forks, and with views left."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest

import ndshm


def run(code: str, *, timeout: float = 60) -> str:
    """Run a program with the name of a table in `name`, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def table_name(what: str) -> str:
    return f"ndshm-pytest-{os.getpid()}-{what}"


def wait_for(pid: int, seconds: float = 30) -> int:
    """Wait for a child, and return its status. Kills it after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


class Other:
    """A process that has joined a table, and makes arrays of 1000 doubles in it."""

    def __init__(self, name: str) -> None:
        code = f"""
            import ndshm, sys
            t = ndshm.open({name!r}, "r")
            made = []
            print("joined", flush=True)
            for line in sys.stdin:
                if line.strip() == "make":
                    t.reap()
                    made += [t.full(1000, 4.0) for _ in range(50)]
                    print("made", flush=True)
                elif line.strip() == "check":
                    print(all((x == 4).all() for x in made), flush=True)
                elif line.strip() == "handles":
                    print(len(t.handles()), flush=True)
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.read() == "joined"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def test_what_is_written_after_close_reaches_nobody_and_views_stay() -> None:
    table = ndshm.open(table_name("after"), "x")
    x = table.full(1000, 1.0)
    other = Other(table_name("after"))
    table.close()
    assert other.ask("make") == "made"
    # The bytes belong to others by now; the view shows what it showed.
    assert (x == 1).all()
    x[:] = 7
    assert other.ask("check") == "True"
    assert other.ask("handles") == "50"
    other.end()
    assert table_name("after") not in os.listdir("/dev/shm")


def test_a_waiting_thread_does_not_keep_a_table_open() -> None:
    table = ndshm.open(table_name("wait"), "x")
    x, k = table.full(1000, 1.0), table.zeros(3)
    other = Other(table_name("wait"))
    held = k.read()
    held.__enter__()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            k.write(timeout=20).__enter__()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    table.close()
    thread.join(5)
    assert not thread.is_alive() and isinstance(errors[0], ndshm.Closed)
    assert other.ask("make") == "made"
    x[:] = 7
    assert other.ask("check") == "True"
    other.end()
    assert table_name("wait") not in os.listdir("/dev/shm")


def test_a_close_that_fails_gives_nothing_up() -> None:
    with ndshm.Table(capacity=1 << 30) as table:
        x = table.full(1000, 1.0)
        big = table.empty(1 << 26, "u1")
        stop = threading.Event()
        failed = 0

        def use() -> None:
            # Long calls: the thread is in the table nearly all the time.
            while not stop.is_set():
                try:
                    table.zeros(1 << 27, "u1")
                except ndshm.Closed:
                    time.sleep(0.001)

        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                try:
                    table.close()
                    break
                except RuntimeError:
                    failed += 1
                    assert not table.closed
                    y = pickle.loads(pickle.dumps(x))
                    y[0] += 1
                    assert x[0] == y[0]
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert failed
        del big


def test_a_table_with_an_open_pool_is_not_closed() -> None:
    with ndshm.Table() as table:
        x = table.full(1000, 1.0)
        with ndshm.Pool(1, table, context="fork"):
            with pytest.raises(RuntimeError, match="pool"):
                table.close()
            assert not table.closed
            y = pickle.loads(pickle.dumps(x))
            y[0] += 1
            assert x[0] == y[0] == 2


def test_a_lease_that_ends_while_a_close_fails_late_is_given_back() -> None:
    out = run("""
        import random, resource, threading, time, ndshm
        table = ndshm.Table(capacity=1 << 32)
        x = table.zeros(3)
        stop, failed = threading.Event(), []

        def close():
            while not stop.is_set():
                try:
                    table.close()
                except Exception as error:
                    failed.append(error)
                # A lease can begin: a close on the heels of another would refuse every one.
                time.sleep(0.001)

        closing = threading.Thread(target=close)
        pages = int(open("/proc/self/statm").read().split()[0])
        # There is no address space for the private mapping.
        limit = pages * resource.getpagesize() + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        closing.start()
        met, deadline = 0, time.monotonic() + 30
        while met < 100 and time.monotonic() < deadline:
            try:
                with x.write():
                    before = len(failed)
                    while len(failed) == before and time.monotonic() < deadline:
                        pass
                    # The lease ends before, during or after the next close.
                    until = time.monotonic() + random.uniform(0, 0.003)
                    while time.monotonic() < until:
                        pass
                    met += 1
            except ndshm.Closed:
                pass
        stop.set()
        closing.join(30)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with x.write(timeout=1):
            print(met, table.closed)
    """)
    assert out == "100 False\n"


def test_large_views_are_not_copied() -> None:
    run("""
        import ndshm, resource
        from ndshm import _ndshm
        t = ndshm.Table()
        memory = int(open("/proc/meminfo").readline().split()[1]) * 1024
        views = [t.empty(memory // 16, "u1") for _ in range(5)]
        try:
            t.close()
        except BufferError as error:
            assert "del x" in str(error)
        else:
            raise AssertionError
        assert not t.closed
        del views[1:]
        t.close()
        assert t.closed
    """)


@pytest.mark.parametrize("end", ["pass", "os._exit(0)"])
def test_a_raw_fork_that_outlives_its_parent_leaves_no_name(end: str) -> None:
    name = table_name("raw")
    out = run(f"""
        import ndshm, os, pickle, time
        t = ndshm.open({name!r}, "x")
        x = t.full(3, 2.0)
        pickle.dumps(x)                 # so that the process stays in the table until its end
        if os.fork() == 0:
            time.sleep(0.3)
            print(x.sum(), flush=True)
        else:
            {end}
    """)
    assert out == "6.0\n"
    # The output of the program has ended, but not yet all of its processes.
    deadline = time.monotonic() + 10
    while name in os.listdir("/dev/shm"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_daemon_thread_that_waits_at_the_end_leaves_no_name() -> None:
    name = table_name("daemon")
    run(f"""
        import ndshm, threading, time
        t = ndshm.open({name!r}, "x")
        x = t.zeros(3)
        lease = x.write()
        lease.__enter__()
        def wait():
            try:
                x.write(timeout=None).__enter__()
            except ndshm.Closed:
                time.sleep(60)
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.1)
    """)
    assert name not in os.listdir("/dev/shm")


def test_a_fork_during_the_first_use() -> None:
    # Both threads start at the same moment: in some rounds the fork comes in the middle of the
    # first use of the other.
    run("""
        import os, sys, threading, time
        import ndshm
        sys.setswitchinterval(1e-6)
        thread = threading.Thread(target=ndshm.default)
        thread.start()
        pid = os.fork()
        if pid == 0:
            assert ndshm.zeros(3).sum() == 0
            os._exit(0)
        deadline = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                sys.exit("the child hangs")
            time.sleep(0.001)
        thread.join()
    """)


def test_a_fork_inside_of_the_first_use() -> None:
    # The thread that makes the default table is in the middle of it.
    run("""
        import os, sys, threading, time
        import ndshm, ndshm._table
        inside, go_on = threading.Event(), threading.Event()
        made = ndshm._table.Table
        def slow(*arguments, **options):
            if threading.current_thread() is thread:
                inside.set()
                go_on.wait(10)
            return made(*arguments, **options)
        ndshm._table.Table = slow
        thread = threading.Thread(target=ndshm.zeros, args=(3,))
        thread.start()
        assert inside.wait(10)
        pid = os.fork()
        if pid == 0:
            assert ndshm.zeros(3).sum() == 0
            os._exit(0)
        deadline = time.monotonic() + 10
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                go_on.set()
                sys.exit("the child hangs")
            time.sleep(0.001)
        go_on.set()
        thread.join()
    """)


def test_the_default_table_is_made_anew_after_a_close() -> None:
    run("""
        import ndshm
        x = ndshm.full(3, 2.0)
        ndshm.default().close()
        y = ndshm.full(3, 4.0)
        assert x.sum() == 6 and y.sum() == 12 and not ndshm.default().closed
    """)


def test_views_that_are_dropped_between_the_hooks_of_a_fork_wait() -> None:
    # Hooks of other packages run Python code between those of ndshm and the fork.
    out = run("""
        import os, sys
        views = []
        def drop():
            views.clear()
            others.extend(ndshm.full(1000, 4.0) for _ in range(50))
        others = []
        os.register_at_fork(after_in_parent=drop)      # runs before those of ndshm
        import ndshm
        views.append(ndshm.full(1000, 3.0))
        address = views[0].__array_interface__["data"][0]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            os._exit(0 if (views[0] == 3).all() else 2)
        os.write(write, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        assert all(other.__array_interface__["data"][0] != address for other in others)
    """)
    assert out == ""


def test_views_in_a_child_without_a_seat_are_kept_by_the_parent() -> None:
    table = ndshm.Table(seats=1)
    x = table.full(1000, 3.0)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)
            os._exit(0 if (x == 3).all() else 2)
        finally:
            os._exit(3)
    del x
    others = [table.full(1000, 4.0) for _ in range(50)]
    os.write(write, b"x")
    assert wait_for(pid) == 0
    assert len(others) == 50
    os.close(read)
    os.close(write)
    table.close()


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("ndshm" in line or "memfd" in line for line in maps)


def _use(x: Any) -> tuple[int, int, float]:
    total = float(x.sum())
    del x
    return len(os.listdir("/proc/self/fd")), _mappings(), total


def test_a_worker_does_not_keep_every_table(context: Any) -> None:
    with context.Pool(1) as pool:
        seen = []
        for turn in range(40):
            with ndshm.Table() as table:
                fds, maps, total = pool.apply(_use, (table.full(10, turn),))
                assert total == 10 * turn
                seen.append((fds, maps))
        assert seen[-1][0] <= seen[0][0] + 2 and seen[-1][1] <= seen[0][1] + 6
        # Also with tables that stay open.
        tables = [ndshm.Table(capacity=1 << 30) for _ in range(30)]
        for table in tables:
            fds, maps, _ = pool.apply(_use, (table.full(10, 1),))
        assert fds <= seen[0][0] + 10
    for table in tables:
        table.close()
    gc.collect()


def _make(table: ndshm.Table) -> Any:
    return table.full(3, 5.0)


def test_a_worker_keeps_the_tables_with_its_own_arrays() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, ndshm.Table() as table:
        x = pool.apply(_make, (table,))
        for _ in range(12):
            with ndshm.Table() as other:
                pool.apply(_use, (other.full(10, 1),))
        table.reap()
        assert x.handle in table.handles() and (x == 5).all()
        np.testing.assert_array_equal(x, 5)


def test_forks_while_threads_leave_tables() -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                with ndshm.open(table_name(f"forks-{number}"), "x") as table:
                    x = table.full(1000, 3.0)
                    pickle.dumps(x)
                assert (x == 3).all()
                deadline = time.monotonic() + 20
                while table_name(f"forks-{number}") in os.listdir("/dev/shm"):
                    # A child may have the table, until it ends.
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                try:
                    good = ndshm.full(10, 2.0).sum() == 20
                    # As at the end of an interpreter, or of a child of multiprocessing.
                    ndshm._ndshm.leave_all()
                    os._exit(0 if good else 2)
                finally:
                    os._exit(3)
            assert wait_for(pid) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors


def test_a_lease_that_ends_while_another_thread_fails_to_close_is_given_back() -> None:
    with ndshm.Table() as table:
        x = table.zeros(3)
        with ndshm.Pool(1, table, context="fork"):
            closing = threading.Thread(target=lambda: pytest.raises(RuntimeError, table.close))
            with x.write():
                closing.start()
                time.sleep(0.05)
            with x.write(timeout=1):
                pass
            closing.join(10)
            assert not closing.is_alive()
            with x.write(timeout=1):
                pass


def test_a_fork_while_another_thread_fails_to_close_keeps_the_views() -> None:
    with ndshm.Table() as table:
        x = table.full(1000, 3.0)
        with ndshm.Pool(1, table, context="fork"):
            closing = threading.Thread(target=lambda: pytest.raises(RuntimeError, table.close))
            closing.start()
            time.sleep(0.05)
            go, out = os.pipe(), os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(go[1])
                    os.read(go[0], 1)
                    os.write(out[1], b"y" if (x == 3.0).all() else b"n")
                    os._exit(0)
                finally:
                    os._exit(3)
            closing.join(10)
            x.free()
            del x
            others = [table.full(1000, 4.0) for _ in range(20)]
            os.write(go[1], b"g")
            assert os.read(out[0], 1) == b"y"
            assert wait_for(pid) == 0
            del others
            for end in (*go, *out):
                os.close(end)
