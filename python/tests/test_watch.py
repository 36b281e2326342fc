"""The processes of a table: owners, who lives, and waits for an end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm


def serve(table: ndshm.Table, pipe: Connection) -> None:
    """Own an array, give another a name, and live on."""
    x = table.full(3, 7.0)
    pipe.send((x, table.peer()))
    pipe.recv()


def start(context: BaseContext, table: ndshm.Table) -> tuple[Any, Connection, Any, ndshm.Peer]:
    """Start a process that serves."""
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(table, there))  # type: ignore[attr-defined]
    process.start()
    x, peer = here.recv()
    return process, here, x, peer


def test_a_killed_process_is_reported(context: BaseContext) -> None:
    with ndshm.Table(capacity=2**24) as t:
        process, _pipe, x, peer = start(context, t)
        try:
            assert x.sum() == 21 and t.owner(x) == peer == x.table.owner(x)
            assert peer.pid == process.pid and peer.is_alive and peer != t.peer()
            assert peer in t.peers() and t.peer() in t.peers()
            assert t.watch(peer, timeout=0) is None
            killer = threading.Timer(0.1, process.kill)
            killer.start()
            # A name that stays, and a process that lives, are not reported.
            t["x"] = 1
            gone = t.watch("x", t.peer(), peer, timeout=30)
            assert gone == peer and isinstance(gone, ndshm.Peer) and gone.pid == process.pid
            assert not peer.is_alive and peer not in t.peers()
            with pytest.raises(ndshm.Stale):
                t.owner(x)
            assert t.watch(peer, timeout=30) == peer, "also if it was dead before"
        finally:
            process.kill()
            process.join(30)
        del x


def test_a_process_that_closes_the_table_is_reported() -> None:
    context = multiprocessing.get_context("spawn")
    with ndshm.Table(capacity=2**24) as t:
        process, pipe, x, peer = start(context, t)
        del x
        pipe.send(None)
        assert t.watch(peer, timeout=30) == peer
        process.join(30)
        assert process.exitcode == 0


def test_the_end_of_a_name() -> None:
    with ndshm.Table(capacity=2**24) as t:
        t["a"], t["b"], t["c"] = np.zeros(3), {"x": 1}, 5
        assert t.watch("a", "b", "c", timeout=0) is None
        later = threading.Timer(0.05, t.pop, ("b",))
        later.start()
        assert t.watch("a", "b", "c", timeout=30) == "b"
        later.join(30)
        later = threading.Timer(0.05, t.__setitem__, ("a", np.ones(3)))
        later.start()
        assert t.watch("a", timeout=30) == "a", "it was given to another value"
        later.join(30)
        assert t.watch("a", timeout=0) is None
        with pytest.raises(ndshm.NameNotFound):
            t.watch("b", timeout=0)


def test_owners() -> None:
    with ndshm.Table(capacity=2**24) as t:
        x, ref = t.zeros((3, 3)), t.put([1, 2])
        assert t.owner(x) == t.owner(x[1:, ::2]) == t.owner(ref) == t.peer()
        x.detach()
        assert t.owner(x) is None
        t["x"] = np.zeros(2)
        assert t.owner("x") is None
        with pytest.raises(ndshm.NameNotFound):
            t.owner("y")
        with ndshm.Table(capacity=2**24) as other:
            with pytest.raises(ValueError, match="another table"):
                other.owner(x)
            with pytest.raises(ValueError, match="another table"):
                other.watch(t.peer(), timeout=0)
        with pytest.raises(ValueError, match="nothing to watch"):
            t.watch(timeout=0)
        with pytest.raises(ValueError, match="timeout is -1"):
            t.watch(t.peer(), timeout=-1)
        with pytest.raises(ndshm.NdshmError, match="in no table"):
            t.owner(np.zeros(3))
        x.free()
        with pytest.raises(ndshm.Stale):
            t.owner(x)
        assert t.watch(t.peer(), timeout=0.01) is None


def test_peers_are_values() -> None:
    t = ndshm.Table(capacity=2**24)
    me = t.peer()
    assert me == t.peer() and hash(me) == hash(t.peer()) and {me: 1}[t.peers()[0]] == 1
    again = pickle.loads(pickle.dumps(me))
    assert again == me and again.pid == os.getpid() and again.is_alive
    assert repr(me) == f"Peer(seat=0, pid={os.getpid()})"
    with ndshm.Table(capacity=2**24) as other:
        assert other.peer() != me
    t.close()
    for call in (t.peers, t.peer, lambda: me.is_alive, lambda: t.watch(me)):
        with pytest.raises(ndshm.Closed):
            call()


def test_ctrl_c_ends_a_wait() -> None:
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with ndshm.Table(capacity=2**24) as t:
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                t.watch(t.peer(), timeout=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_close_ends_a_wait_of_another_thread() -> None:
    t = ndshm.Table(capacity=2**24)
    me, seen = t.peer(), []

    def wait() -> None:
        with pytest.raises(ndshm.Closed) as caught:
            t.watch(me)
        seen.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    # The table is free while the thread waits.
    assert t.zeros(1000).sum() == 0
    t.close()
    thread.join(30)
    assert len(seen) == 1


def test_huge_pages_are_asked_for() -> None:
    with ndshm.Table(capacity=2**24, huge_pages=True) as t, ndshm.Table(capacity=2**24) as plain:
        t.zeros(2**16)[:] = 1
        assert "bytes in huge pages" in t.huge_pages and "huge_pages=True" not in t.huge_pages
        assert plain.huge_pages.endswith("make the table with huge_pages=True") or (
            not plain.huge_pages.startswith("0 of")
        )
