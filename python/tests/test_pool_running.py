"""Calls that hand out tiles while they run."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm


def advance(x: Any, action: Any) -> None:
    x += action


def add_one(x: Any) -> None:
    x += 1


def test_tiles_are_handed_out_and_sent_back(context: BaseContext) -> None:
    x, action = ndshm.zeros(8), ndshm.full(8, 1.0)
    expected, runs = np.zeros(8), np.zeros(8, int)
    with ndshm.Pool(2, context=context) as pool:
        with pool.start(advance, (x, action), 1) as running:
            current = np.ones(8)
            for _ in range(200):
                ready = running.wait_any(3)
                assert len(ready) >= 3 and len(set(ready)) == len(ready)
                expected[ready] += current[ready]
                runs[ready] += 1
                assert (x[ready] == expected[ready]).all()
                current[ready] = x[ready] % 3 + ready
                action[ready] = current[ready]
                running.again(ready)
        assert runs.sum() >= 600
        # At the end every tile that was sent back has run.
        assert (x == expected + current).all()
        pool.for_tiles(advance, (x, action), 4)


def test_it_waits_for_what_the_workers_have() -> None:
    x, action = ndshm.zeros(4), ndshm.full(4, 1.0)
    with ndshm.Pool(2) as pool, pool.start(advance, (x, action), 1) as running:
        seen: set[int] = set()
        while len(seen) < 4:
            seen |= set(running.wait_any(100).tolist())
        assert running.wait_any(100).tolist() == []
        running.again([2, 0])
        got: set[int] = set()
        while len(got) < 2:
            got |= set(running.wait_any(5).tolist())
        assert got == {0, 2}
        running.again(np.array([], dtype=int))
        running.again(2)
    assert x.tolist() == [2, 1, 3, 1]


def draw(x: Any, rng: np.random.Generator) -> None:
    x[:] = rng.random()


def test_each_run_draws_its_own_numbers() -> None:
    series = []
    for workers in (1, 3):
        x = ndshm.zeros(4)
        values = []
        with ndshm.Pool(workers) as pool, pool.start(draw, (x,), 1, seed=3) as running:
            for _ in range(5):
                ready = running.wait_any(4)
                while len(ready) < 4:
                    ready = np.concatenate([ready, running.wait_any(4)])
                values.append(x.tolist())
                running.again(ready)
        series.append(values)
    assert series[0] == series[1]
    assert len({number for row in series[0] for number in row}) == 20


def sometimes(x: Any, kind: str) -> None:
    x += 1
    if x[0] == 7:
        if kind == "raise":
            raise ValueError("seven")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["raise", "kill"])
def test_a_failure_ends_the_call(context: BaseContext, kind: str) -> None:
    x = ndshm.zeros(4)
    x[2] = 5.0
    with ndshm.Pool(2, context=context) as pool:
        running = pool.start(sometimes, (x,), 1, kind)
        error = ValueError if kind == "raise" else ndshm.WorkerDied
        start = time.monotonic()
        with pytest.raises(error) as caught:
            while True:
                running.again(running.wait_any(1))
        assert time.monotonic() - start < 5
        if isinstance(caught.value, ndshm.WorkerDied):
            assert range(2, 3) in caught.value.rows
        with pytest.raises(RuntimeError, match="over"):
            running.wait_any()
        with pytest.raises(ndshm.Poisoned):
            pool.start(sometimes, (x,), 1, kind)
        x.clear_poison()
        x[:] = 0
        pool.for_tiles(advance, (x, ndshm.full(4, 2.0)), 1)
        assert x.tolist() == [2.0] * 4


def test_one_call_at_a_time() -> None:
    x, action = ndshm.zeros(4), ndshm.full(4, 1.0)
    with ndshm.Pool(2) as pool:
        running = pool.start(advance, (x, action), 1)
        for act in (
            lambda: pool.for_tiles(advance, (x, action), 1),
            lambda: pool.start(advance, (x, action), 1),
            lambda: pool.broadcast(os.getpid),
        ):
            with pytest.raises(RuntimeError, match="finish"):
                act()
        # It goes on.
        ready = running.wait_any(1)
        for wrong in ([9], [-1], [int(ready[0])] * 2, [n for n in range(4)] + [0]):
            with pytest.raises((ValueError, IndexError)):
                running.again(wrong)
        running.again(ready)
        running.finish()
        running.finish()
        pool.for_tiles(advance, (x, action), 1)


def test_a_call_that_is_dropped_or_closed() -> None:
    x, action = ndshm.zeros(4), ndshm.full(4, 1.0)
    with ndshm.Pool(2) as pool:
        running = pool.start(advance, (x, action), 1)
        del running
        pool.for_tiles(advance, (x, action), 1)
        with pytest.raises(ZeroDivisionError), pool.start(advance, (x, action), 1):
            raise ZeroDivisionError
        pool.for_tiles(advance, (x, action), 1)
        kept = pool.start(advance, (x, action), 1)
    with pytest.raises(RuntimeError):
        kept.wait_any()
    with x.write():
        pass


def test_too_many_tiles() -> None:
    x, action = ndshm.zeros(10_000), ndshm.full(10_000, 1.0)
    with ndshm.Pool(1) as pool:
        with pytest.raises(ValueError, match="tile length of at least 5"):
            pool.start(advance, (x, action), 1)
        with pool.start(advance, (x, action), 5) as running:
            running.again(running.wait_any(1000))


def envs(x: Any, action: Any, state: dict[int, float], tile: int) -> None:
    total = state.get(tile, 0.0) + action[0]
    state[tile] = total
    x[:] = total


def test_a_tile_keeps_its_worker() -> None:
    x, action = ndshm.zeros(6), ndshm.full(6, 1.0)
    with ndshm.Pool(2, setup=dict) as pool:
        with pool.start(envs, (x, action), 1, static=True) as running:
            for _ in range(50):
                running.again(running.wait_any(2))
            ready = running.wait_any(6)
            while len(ready) < 6:
                ready = np.concatenate([ready, running.wait_any(6)])
            before = np.array(x)
            running.again(ready)
        assert (x == before + 1).all()


def test_a_worker_that_dies_idle_ends_the_call_with_its_name(context: Any) -> None:
    x = ndshm.zeros(4)
    with ndshm.Pool(2, context=context) as pool:
        running = pool.start(add_one, (x,), 1)
        assert len(running.wait_any(4)) == 4
        pid = pool.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ndshm.WorkerDied) as caught:
            while True:
                running.again([0])
                running.wait_any(1)
        assert caught.value.pid == pid


def test_a_count_that_is_none_does_not_end_the_call(context: Any) -> None:
    x = ndshm.zeros(2)
    with ndshm.Pool(1, context=context) as pool, pool.start(add_one, (x,), 1) as running:
        with pytest.raises(ValueError):
            running.wait_any(-1)
        with pytest.raises(TypeError):
            running.wait_any("x")  # type: ignore[arg-type]
        assert len(running.wait_any(2)) == 2


def test_a_forked_child_kills_no_worker_of_its_parent(context: Any) -> None:
    with ndshm.Pool(1, context=context) as pool:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                pool.terminate()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        x = ndshm.zeros(2)
        pool.for_tiles(add_one, (x,), 1)
        assert x.tolist() == [1, 1]
