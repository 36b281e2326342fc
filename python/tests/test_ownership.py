"""Who frees an array, and when."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest
from test_leaving import run

import ndshm


def lives(handle: str) -> bool:
    return handle in ndshm.default().handles()


def test_an_array_that_was_not_sent_goes_with_its_last_view() -> None:
    x = ndshm.zeros(1000)
    handle, part, plain = x.handle, x[5:], np.asarray(x)
    del x
    assert lives(handle)
    del part
    assert lives(handle)
    buffer = memoryview(plain)
    del plain
    assert lives(handle) and buffer[0] == 0
    del buffer
    assert not lives(handle)


def test_a_sent_array_lives_until_it_is_freed() -> None:
    x = ndshm.full(10, 3.0)
    handle, sent = x.handle, pickle.dumps(x)
    del x
    gc.collect()
    assert lives(handle)
    y = pickle.loads(sent)
    assert (y == 3).all()
    ndshm.free(y)
    assert not lives(handle) and (y == 3).all()
    with pytest.raises(ndshm.Stale, match="give.*detach"):
        pickle.loads(sent)


def test_views_of_a_freed_array_keep_their_bytes() -> None:
    x = ndshm.full(1000, 3.0)
    y = pickle.loads(pickle.dumps(x))
    address = x.__array_interface__["data"]
    x.free()
    del x
    others = [ndshm.full(1000, 4.0) for _ in range(10)]
    assert all(other.__array_interface__["data"] != address for other in others)
    assert (y == 3).all()


def test_a_scope_frees_what_was_sent() -> None:
    with ndshm.scope():
        kept, sent = ndshm.zeros(3), ndshm.zeros(3)
        with ndshm.scope():
            inner = ndshm.zeros(3)
            pickle.dumps(inner)
        assert not lives(inner.handle)
        pickle.dumps(sent)
        assert lives(sent.handle)
    assert lives(kept.handle) and not lives(sent.handle)
    with pytest.raises(ZeroDivisionError), ndshm.scope():
        sent = ndshm.zeros(3)
        pickle.dumps(sent)
        1 / 0
    assert not lives(sent.handle)


def test_a_scope_is_of_its_thread_and_table() -> None:
    other_table = ndshm.Table()
    made: list[Any] = []

    def make() -> None:
        made.append(ndshm.zeros(3))
        pickle.dumps(made[0])

    with ndshm.scope():
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        other = other_table.zeros(3)
        pickle.dumps(other)
    assert lives(made[0].handle) and other.handle in other_table.handles()
    made[0].free()
    other_table.close()


def test_a_scope_of_a_parent_frees_nothing_in_a_child() -> None:
    x = None
    scope = ndshm.scope()
    with scope:
        x = ndshm.zeros(3)
        pickle.dumps(x)
        pid = os.fork()
        if pid == 0:
            try:
                scope.__exit__(None, None, None)
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert lives(x.handle)
    assert not lives(x.handle)


def test_arrays_outlive_the_thread_that_made_them() -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda n: ndshm.full(100, n), range(20)))
    assert [int(x[0]) for x in made] == list(range(20))
    assert all(lives(x.handle) for x in made)


def _make(n: int) -> Any:
    return ndshm.full(n, 2.0)


def _give(table: ndshm.Table, n: int) -> Any:
    return ndshm.give(table.full(n, 2.0))


def test_a_worker_gives_its_result(context: BaseContext) -> None:
    with context.Pool(1) as pool:
        x = pool.apply(_give, (ndshm.default(), 1000))
        pool.terminate()
        pool.join()
    ndshm.default().reap()
    assert lives(x.handle) and x.is_owned and (x == 2).all()
    handle = x.handle
    again = pickle.loads(pickle.dumps(x))
    assert not again.is_owned
    x.free()
    del x, again
    assert not lives(handle)


def test_a_given_array_is_adopted_once() -> None:
    x = ndshm.give(ndshm.zeros(3))
    handle, sent = x.handle, pickle.dumps(x)
    assert not x.is_owned
    del x
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first.is_owned and not second.is_owned
    del second
    assert lives(handle)
    del first
    assert not lives(handle)
    # One that is never sent stays its maker's.
    x = ndshm.give(ndshm.zeros(3))
    handle = x.handle
    del x
    assert not lives(handle)


def _make_in(table: ndshm.Table, n: int) -> ndshm.ndarray:
    return table.full(n, 2.0)


def test_a_result_that_was_not_given_is_readable_while_it_is_held(context: BaseContext) -> None:
    with context.Pool(1) as pool:
        x = pool.apply(_make_in, (ndshm.default(), 10))
        pool.close()
        pool.join()
    ndshm.default().reap()
    assert (x == 2).all() and not lives(x.handle)
    with pytest.raises(ndshm.Stale):
        pickle.loads(pickle.dumps(x))


def _detach(table: ndshm.Table) -> str:
    x = table.full(3, 5.0)
    x.detach()
    return pickle.dumps(x).hex()


def test_a_detached_array_outlives_its_process(context: BaseContext) -> None:
    with context.Pool(1) as pool:
        sent = pool.apply(_detach, (ndshm.default(),))
        pool.close()
        pool.join()
    ndshm.default().reap()
    x = pickle.loads(bytes.fromhex(sent))
    assert (x == 5).all()
    x.free()


def test_sent_arrays_that_pile_up_are_warned_of() -> None:
    with ndshm.Table(capacity=128 << 20) as table:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(6):
                pickle.dumps(table.zeros(1 << 20))  # 8 MiB each
            # What is freed does not count.
            for _ in range(40):
                x = table.zeros(1 << 17)
                pickle.dumps(x)
                x.free()
        with pytest.warns(ResourceWarning, match=r"(9|10|11) arrays .*scope\(\)") as caught:
            for _ in range(6):
                pickle.dumps(table.zeros(1 << 20))
        assert len(caught) == 1 and caught[0].filename == __file__


def test_notes_of_sent_arrays_do_not_pile_up() -> None:
    # In a process of its own, whose memory nothing else changes.
    out = run("""
        import ndshm

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096

        x = ndshm.zeros(1)
        reduce_of = type(x).__reduce_ex__
        for turn in range(250_000):
            x = ndshm.empty(1)
            reduce_of(x, 5)
            x.free()
            if turn == 50_000:
                before = resident()
        print(resident() - before)
    """)
    # 16 bytes for each of them would be 3.2 MB.
    assert int(out) < 2 << 20


def test_a_table_can_be_closed() -> None:
    table = ndshm.Table()
    x = table.full(3, 2.0)
    sent = pickle.dumps(x)
    with x.read() as a:
        table.close()
    assert table.closed and "closed" in repr(table)
    table.close()
    # What is written now is not shared, and nothing crashes.
    assert (x == 2).all() and (a == 2).all()
    x[0] = 5
    for call in (lambda: table.zeros(3), x.read().__enter__, x.free, x.detach, table.handles,
                 table.reap, table.trim, lambda: pickle.dumps(x)):  # fmt: skip
        with pytest.raises(ndshm.Closed, match="left the table"):
            call()
    with pytest.raises(ndshm.NdshmError):
        pickle.loads(sent)
    del x, a
    with ndshm.Table() as table:
        table.zeros(3)
    assert table.closed


def test_many_tables_in_turn() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        x = ndshm.Table().zeros(3)
        x.table.full(3, 1)[0] = 1
    del x
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


def test_a_given_array_is_adopted_from_a_later_pickle() -> None:
    x = ndshm.give(ndshm.zeros(3))
    handle = x.handle
    pickle.dumps(x)  # lost, as by a library that tries twice
    sent = pickle.dumps(x)
    y = pickle.loads(sent)
    assert y.is_owned and not pickle.loads(pickle.dumps(x)).is_owned
    del x, y
    assert not lives(handle)


def test_an_array_whose_pickle_fails_was_not_sent() -> None:
    for given in (False, True):
        x = ndshm.zeros(2)
        if given:
            ndshm.give(x)
        handle = x.handle
        deep = np.ndarray.reshape(x, (2, 1, 1, 1, 1, 1, 1, 1, 1))
        with pytest.raises(ValueError, match="8 axes"):
            pickle.dumps(deep)
        assert x.is_owned
        del x, deep
        assert not lives(handle)


def test_a_damaged_pickle_of_a_given_array_adopts_nothing() -> None:
    x = ndshm.give(ndshm.zeros(8))
    good = pickle.dumps(x[2:])
    # The last number is the offset of the part: one byte, 16.
    at = good.rindex(b"\x10")
    with pytest.raises(ValueError, match="damaged"):
        pickle.loads(good[:at] + b"\x7f" + good[at + 1 :])
    y = pickle.loads(good)
    assert y.is_owned
    handle = y.handle
    del x, y
    assert not lives(handle)


def test_what_leaves_a_scope_is_not_freed_by_it() -> None:
    with ndshm.scope():
        detached, given = ndshm.zeros(3), ndshm.zeros(3)
        pickle.dumps(detached)
        pickle.dumps(given)
        detached.detach()
        pickle.dumps(ndshm.give(given))
    assert lives(detached.handle) and lives(given.handle)
    detached.free()
    given.free()


def test_a_task_is_in_its_own_scopes() -> None:
    async def other(go: asyncio.Event, done: asyncio.Event) -> Any:
        await go.wait()
        made = ndshm.zeros(3)
        pickle.dumps(made)
        done.set()
        return made

    async def main() -> Any:
        go, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(other(go, done))
        with ndshm.scope():
            mine = ndshm.zeros(3)
            pickle.dumps(mine)
            go.set()
            await done.wait()
        assert not lives(mine.handle)
        return await task

    made = asyncio.run(main())
    assert lives(made.handle)
    made.free()
