"""Looking at tables: `info`, `arrays`, `stat`, `verify`."""

from __future__ import annotations

import dataclasses
import mmap
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm


@pytest.fixture
def table() -> Iterator[ndshm.Table]:
    with ndshm.Table() as made:
        yield made


def test_an_array_is_described(table: ndshm.Table) -> None:
    x = table.zeros((4, 3), "i2", "F")
    me = os.getpid()
    info = x.info()
    assert (info.handle, info.names, info.dtype) == (x.handle, (), np.dtype("i2"))
    assert (info.shape, info.order, info.nbytes) == ((4, 3), "F", 24)
    assert (info.owner, info.owner_alive, info.pins, info.sent) == (me, True, (me,), False)
    assert (info.writer, info.readers, info.poisoned, info.state) == (None, (), False, "idle")
    assert x[1:, 0].info() == info, "a part is described as its array"
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.nbytes = 5  # type: ignore[misc]
    assert repr(info).startswith(f"ArrayInfo(handle={x.handle!r}")
    assert pickle.loads(pickle.dumps(info)) == info
    with x.read():
        assert x.info().state == "read" and x.info().readers == (me,)
    with pytest.raises(ZeroDivisionError), x.write():
        assert x.info().state == "written" and x.info().writer == me
        raise ZeroDivisionError
    assert x.info().poisoned and x.info().state == "poisoned"
    x.clear_poison()
    pickle.dumps(x)
    assert x.info().sent
    x.detach()
    info = x.info()
    assert (info.owner, info.owner_alive, info.sent) == (None, None, None)
    x.free()
    with pytest.raises(ndshm.Stale):
        x.info()


def test_what_has_a_name_is_described(table: ndshm.Table) -> None:
    table["a"] = x = table.zeros(3)
    table["s"] = {"an": "object"}
    assert table.info("a").names == ("a",) and table.info("a").handle == x.handle
    assert x.info().names == ("a",)
    found = table.info("s")
    assert found.dtype is None and found.nbytes > 0 and found.owner is None
    with pytest.raises(KeyError, match="nobody"):
        table.info("nobody")
    assert {info.names for info in table.arrays()} == {("a",), ("s",)}
    ref = table.put([1])
    info = ref.info()
    assert (info.handle, info.owner, info.sent) == (ref.handle, os.getpid(), False)
    ref.free()
    with pytest.raises(ndshm.Stale):
        ref.info()
    text = np.array(["a", "bc"])
    table["t"] = text
    assert table.info("t").dtype == text.dtype


def test_a_type_that_numpy_does_not_know_is_none(
    table: ndshm.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_an_older_numpy(described: str) -> Any:
        raise ndshm.TypeMismatch(f"{described!r} is no dtype of this numpy")

    table["a"] = np.array(["a", "bc"])
    table["b"] = np.zeros(3)
    monkeypatch.setattr(ndshm._dtype, "_cached_from_text", of_an_older_numpy)
    assert table.info("a").dtype is None and table.info("a").shape == (2,)
    found = {info.names: info.dtype for info in table.arrays()}
    assert found[("a",)] is None and found[("b",)] == np.dtype("f8")


def _hold(x: Any, ready: Any) -> None:
    with x.write():
        ready.send(x[:1].info())
        signal.pause()


def test_a_dead_owner_and_a_writer_of_another_process(
    table: ndshm.Table, context: BaseContext
) -> None:
    x = table.zeros(3)
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(x, theirs))
    process.start()
    assert ours.poll(30)
    seen = ours.recv()
    assert (seen.owner, seen.owner_alive, seen.writer) == (os.getpid(), True, process.pid)
    assert process.pid in x.info().pins and x.info().state == "written"
    assert set(table.stat().processes) == {os.getpid(), process.pid}
    process.kill()
    process.join()
    found = table.stat()
    assert found.processes == (os.getpid(),) and found.dead == (process.pid,)
    table.reap()
    assert table.stat().dead == () and x.info().state == "poisoned"


def _make_and_die(table: ndshm.Table, ready: Any) -> None:
    x = table.zeros(3)
    ready.send(x.handle)
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_array_of_a_dead_owner_is_told(table: ndshm.Table, context: BaseContext) -> None:
    ours, theirs = context.Pipe()
    process = context.Process(target=_make_and_die, args=(table, theirs))
    process.start()
    assert ours.poll(30)
    handle = ours.recv()
    process.join()
    [info] = table.arrays()
    assert (info.handle, info.owner, info.owner_alive) == (handle, process.pid, False)
    table.reap()
    assert table.arrays() == []


def test_counts(table: ndshm.Table) -> None:
    empty = table.stat()
    assert (empty.name, empty.arrays, empty.bytes, empty.names) == (None, 0, 0, 0)
    assert empty.capacity == table.capacity and empty.processes == (os.getpid(),)
    x, y = table.full(10**6, 1.5), table.full(1000, 2)
    table["x"] = x
    found = table.stat()
    assert (found.arrays, found.bytes, found.names) == (2, 8_008_000, 1)
    assert found.committed >= 8_008_000 and found.retained < 8_000_000
    del y
    view = x[3:]
    x.free()
    found = table.stat()
    assert (found.arrays, found.retired) == (0, 1), "it is still in view"
    del x, view
    found = table.stat()
    assert found.retired == 0 and found.made - empty.made == found.freed - empty.freed
    assert found.retained >= 8_000_000, "its pages are kept for the next array"
    table.trim()
    assert table.stat().retained < 8_000_000
    assert table.stat().committed < found.committed
    assert "arrays=0" in repr(found)


def test_a_closed_table_is_not_looked_at() -> None:
    table = ndshm.Table()
    x = table.zeros(3)
    table.close()
    for look in (x.info, table.arrays, table.stat, table.verify, lambda: table.info("x")):
        with pytest.raises(ndshm.Closed):
            look()  # type: ignore[operator]


def test_arrays_outside_of_tables_have_no_info() -> None:
    copied: Any = ndshm.zeros(3).copy().view(ndshm.ndarray)
    with pytest.raises(ndshm.NdshmError, match=r"ndshm.array\(x\)"):
        copied.info()


def test_a_look_leaves_nothing_open(table: ndshm.Table) -> None:
    x = table.zeros(3)
    x.info(), table.stat()
    before = len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text())
    for _ in range(50):
        x.info(), table.stat(), table.verify()
    after = len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text())
    assert before[0] == after[0] and after[1] < before[1] + 4000


def test_verify_while_threads_work(table: ndshm.Table) -> None:
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            x = table.zeros(100)
            with x.write():
                pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            found = table.verify()
            assert found.is_clean and found.seats == 1
            table.stat(), table.arrays()
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    found = table.verify()
    assert (found.live, found.writers, found.pins, found.in_transit) == (0, 0, 0, 0)


def test_damage_is_reported() -> None:
    name = f"ndshm-test-damage-{os.getpid()}"
    with ndshm.open(name, "x", capacity=1 << 24) as table:
        assert table.verify().is_clean
        with open(f"/dev/shm/{name}", "r+b") as file, mmap.mmap(file.fileno(), 4096) as words:
            # The fourth word of the header says whether the name stays: 0 or 1.
            words[24] = 7
            found = table.verify()
            words[24] = 0
        assert not found.is_clean and "persistence" in found.damage[0]
        assert table.verify().is_clean
