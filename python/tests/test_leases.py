"""Leases: who excludes whom, waiting, poison."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm


def test_a_lease_is_a_plain_array_of_the_same_bytes() -> None:
    x = ndshm.zeros((3, 4))
    with x[1].write() as a:
        assert type(a) is np.ndarray and a.shape == (4,)
        a += 2
    with x.read() as a:
        assert type(a) is np.ndarray and not a.flags.writeable and a.sum() == 8
        with x.read() as b:
            assert b.sum() == 8


def test_leases_exclude_each_other() -> None:
    x = ndshm.zeros(3)
    with x.write():
        for other in (x.read(), x.write(), x.recover(), pickle.loads(pickle.dumps(x)).read()):
            with pytest.raises(ndshm.Busy, match="this process.*timeout") as caught, other:
                pass
            assert caught.value.pid == os.getpid()
            assert isinstance(caught.value, BlockingIOError)
    with x.read():
        with pytest.raises(ndshm.Busy), x.write():
            pass
    with x.write():
        pass


def test_an_exception_poisons_what_is_written() -> None:
    x = ndshm.zeros(3)
    with pytest.raises(ZeroDivisionError), x.read():
        1 / 0
    with pytest.raises(ZeroDivisionError), x.write() as a:
        a[0] = 1
        1 / 0
    for lease in (x.read(), x.write()):
        with pytest.raises(ndshm.Poisoned, match="recover.*clear_poison") as caught, lease:
            pass
        error = pickle.loads(pickle.dumps(caught.value))
        assert error.pid == os.getpid() and abs(error.time - time.time()) < 60 and error.what
    with pytest.raises(ZeroDivisionError), x.recover():
        1 / 0
    with pytest.raises(ndshm.Poisoned), x.read():
        pass
    with x.recover() as a:
        a[0] = 0
    with x.write() as a:
        assert not a.any()
    with pytest.raises(KeyError), x.write() as a:
        raise KeyError
    x.clear_poison()
    with x.read():
        pass


def test_a_lease_is_used_once_at_a_time() -> None:
    x = ndshm.zeros(3)
    lease = x.read()
    with pytest.raises(RuntimeError, match="not held"):
        lease.__exit__(None, None, None)
    for _ in range(2):
        with lease:
            with pytest.raises(RuntimeError, match="held already"):
                lease.__enter__()
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            x.read(timeout=timeout)


def test_a_lease_that_is_dropped_is_given_back() -> None:
    x = ndshm.zeros(3)
    x.read().__enter__()
    with x.write():
        pass
    x.write().__enter__()
    with pytest.raises(ndshm.Poisoned), x.read():
        pass


def test_waiting_lets_other_threads_run() -> None:
    x = ndshm.zeros(3)
    held = threading.Event()

    def hold(seconds: float) -> None:
        with x.write() as a:
            held.set()
            time.sleep(seconds)
            a[0] = 1

    for timeout in (10, None, 1e300):
        x[0] = 0
        held.clear()
        thread = threading.Thread(target=hold, args=(0.15,))
        thread.start()
        held.wait()
        with x.read(timeout=timeout) as a:
            assert a[0] == 1
        thread.join()
    held.clear()
    thread = threading.Thread(target=hold, args=(2.0,))
    thread.start()
    held.wait()
    start = time.monotonic()
    with pytest.raises(ndshm.Busy), x.read(timeout=0.1):
        pass
    assert 0.1 <= time.monotonic() - start < 1.9
    thread.join()


def test_ctrl_c_ends_a_wait() -> None:
    x = ndshm.zeros(3)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with x.read():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt), x.write(timeout=None):
                pass
            assert time.monotonic() - start < 5
    finally:
        signal.signal(signal.SIGALRM, previous)
    with x.write():
        pass


def test_a_freed_array_has_no_leases() -> None:
    x = ndshm.zeros(3)
    x.free()
    for call in (x.read().__enter__, x.write().__enter__, x.free, x.clear_poison):
        with pytest.raises(ndshm.Stale, match=x.handle) as caught:
            call()
        assert isinstance(caught.value, ReferenceError)


def test_a_lease_survives_a_free() -> None:
    x = ndshm.zeros(3)
    with x.write() as a:
        x.free()
        a[0] = 7
    assert x[0] == 7


def _write_and_wait(x: Any, ready: Any) -> None:
    with x.write() as a:
        a[0] = 1
        ready.set()
        time.sleep(60)


def test_a_killed_writer_poisons(context: BaseContext) -> None:
    x = ndshm.zeros(3)
    ready = context.Event()
    process = context.Process(target=_write_and_wait, args=(x, ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(ndshm.Busy, match="another process") as busy, x.read():
        pass
    assert busy.value.pid == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    with pytest.raises(ndshm.Poisoned) as caught, x.read(timeout=5):
        pass
    assert caught.value.pid == process.pid
    with x.recover() as a:
        assert a[0] == 1


def test_a_fork_inside_of_a_lease_leaves_it_to_the_parent() -> None:
    x = ndshm.zeros(3)
    with x.write() as a:
        pid = os.fork()
        if pid == 0:
            try:
                # The end of the block in the child gives nothing back, and poisons nothing.
                lease_of_parent = x.read()
                with pytest.raises(ndshm.Busy), lease_of_parent:
                    pass
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        a[0] = 2
    with x.read() as a:
        assert a[0] == 2
    lease = x.write()
    with lease as a:
        pid = os.fork()
        if pid == 0:
            try:
                lease.__exit__(ValueError, None, None)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(ndshm.Busy), x.read():
            pass
    with x.read():
        pass
