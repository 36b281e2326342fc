"""Pools: tiles in place, results, random numbers, functions, exceptions."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from multiprocessing.pool import RemoteTraceback
from typing import Any

import numpy as np
import pytest

import ndshm
from test_pool_deaths import until_told, wait_until


@pytest.fixture(scope="module")
def pool() -> Iterator[ndshm.Pool]:
    """A pool of two forked workers, which the tests of one module share."""
    with ndshm.Pool(2, context="fork") as pool:
        yield pool


def step(x: Any, w: Any, dt: float, rng: np.random.Generator) -> None:
    x += dt * rng.standard_normal(x.shape) + w[:, None]


def add(x: Any, value: float) -> None:
    x += value


def total(x: Any) -> float:
    return float(x.sum())


def nothing(*tiles: Any) -> None:
    pass


def test_tiles_are_written_in_place(context: BaseContext) -> None:
    x = ndshm.zeros((100, 3))
    with ndshm.Pool(2, context=context) as pool:
        for _ in range(3):
            pool.for_tiles(add, (x,), 7, 0.5)
        assert (x == 1.5).all()
        assert pool.map_tiles(total, (x,), 50) == [225.0, 225.0]
        assert pool.reduce_tiles(total, (x,), 7) == 450.0
        assert len(set(pool.broadcast(os.getpid))) == 2


def test_the_numbers_are_those_of_any_number_of_workers(context: BaseContext) -> None:
    results = []
    for workers in (1, 2, 3):
        x, w = ndshm.zeros((1000, 3)), ndshm.full(1000, 0.5)
        with ndshm.Pool(workers, context=context) as pool:
            for _ in range(2):
                pool.for_tiles(step, (x, w), 64, 0.1, seed=42)
            means = pool.reduce_tiles(noise, (x,), 10, seed=7)
        results.append((np.array(x), means))
    for values, means in results[1:]:
        assert (values == results[0][0]).all() and means == results[0][1]
    # The same, whatever the start method.
    assert results[0][0][0, 0] == EXPECTED.setdefault("first", results[0][0][0, 0])


EXPECTED: dict[str, float] = {}


def noise(x: Any, rng: np.random.Generator) -> float:
    return float(rng.standard_normal() * 1e-3 + x.sum())


def test_each_tile_and_call_has_its_own_numbers(pool: ndshm.Pool) -> None:
    x = ndshm.zeros((50, 4))
    drawn = [pool.map_tiles(draw, (x,), 1, seed=1) for _ in range(3)]
    numbers = [number for call in drawn for number in call]
    assert len(set(numbers)) == 150
    assert drawn[0] != pool.map_tiles(draw, (x,), 1)


def draw(x: Any, rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 62))


def test_the_stream_of_a_tile_is_that_of_philox() -> None:
    x = ndshm.zeros(30)
    with ndshm.Pool(2) as pool:
        pool.for_tiles(nothing, (x,), 10)
        drawn = pool.map_tiles(draw, (x,), 10, seed=5)
    bits = np.random.Philox(key=np.array([5, 1], dtype="u8"), counter=[0, 0, 0, 2])
    assert drawn[2] == np.random.Generator(bits).integers(1 << 62)


def test_results_are_in_the_order_of_the_tiles(pool: ndshm.Pool) -> None:
    x = ndshm.array(np.arange(3000), readonly=True)
    assert pool.map_tiles(first, (x,), 1) == list(range(3000))
    joined = pool.reduce_tiles(text, (x,), 100, combine=operator.add)
    assert joined == "".join(str(n) for n in range(0, 3000, 100))
    assert pool.map_tiles(none, (x,), 1000) == [None] * 3


def first(x: Any) -> int:
    return int(x[0])


def text(x: Any) -> str:
    return str(x[0])


def none(x: Any) -> None:
    return None


def test_a_result_may_be_large_or_an_array_of_a_table(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(4)
    parts = pool.map_tiles(large, (x,), 1)
    assert [part.shape for part in parts] == [(100_000,)] * 4 and parts[3].sum() == 0
    made = pool.map_tiles(make, (x,), 2)
    assert all(isinstance(array, ndshm.ndarray) and array.is_owned for array in made)
    assert [array.tolist() for array in made] == [[1.0] * 5] * 2


def large(x: Any) -> Any:
    return np.zeros(100_000)


def make(x: Any) -> Any:
    return ndshm.full(5, 1.0)


def test_whole_and_readonly_arrays(pool: ndshm.Pool) -> None:
    source, indices = ndshm.array([10.0, 20.0, 30.0]), ndshm.array([2, 0, 1, 2, 0])
    out = ndshm.zeros(5)
    with source.read(), indices.read():
        pool.for_tiles(gather, (out, ndshm.whole(source), ndshm.readonly(indices)), 2)
    assert out.tolist() == [30.0, 10.0, 20.0, 30.0, 10.0]
    fixed: Any
    for fixed in (ndshm.whole(source), ndshm.readonly(ndshm.zeros(5))):
        with pytest.raises(ValueError, match="read-only"):
            pool.map_tiles(put, (indices, fixed), 5)
        indices.clear_poison()


def gather(out: Any, source: Any, indices: Any) -> None:
    out[:] = source[indices]


def put(x: Any, y: Any) -> None:
    y[0] = 1


def test_views_and_fields(pool: ndshm.Pool) -> None:
    x = ndshm.zeros((10, 6))
    pool.for_tiles(add, (x[:, ::2],), 3, 1.0)
    assert x.sum() == 30 and (x[:, 1] == 0).all()
    pool.for_tiles(add, (x.reshape(10, 3, 2),), 3, 1.0)
    assert x.sum() == 90
    records = ndshm.zeros(8, dtype=[("a", "f8"), ("b", "i4")])
    pool.for_tiles(add, (records["b"],), 3, 2)
    assert records["b"].tolist() == [2] * 8 and (records["a"] == 0).all()
    # A part that is read may have any rows.
    assert pool.map_tiles(total, (ndshm.readonly(x[2:5]),), 2) == [18.0, 9.0]
    with pytest.raises(ValueError, match="10 rows"):
        pool.for_tiles(add, (x[2:5],), 2, 1.0)


def test_more_tiles_than_single_claims(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(10_000)
    pool.for_tiles(add, (x,), 1, 1.0)
    assert (x == 1).all()
    with pytest.raises(ValueError, match="tile length of at least 5"):
        pool.for_tiles(add, (x,), 1, 1.0, static=True)


def test_arrays_without_rows(pool: ndshm.Pool) -> None:
    x = ndshm.zeros((0, 3))
    pool.for_tiles(add, (x,), 4, 1.0)
    assert pool.map_tiles(total, (x,), 4) == []
    assert pool.reduce_tiles(total, (x,), 4) is None


def test_changed_arguments_are_seen(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(4)
    settings = {"value": 1.0}
    pool.for_tiles(add_setting, (x,), 2, settings)
    settings["value"] = 10.0
    pool.for_tiles(add_setting, (x,), 2, settings)
    assert x.tolist() == [11.0] * 4
    for value in (0.0, -0.0):
        signs = pool.map_tiles(sign_of, (x,), 4, value)
        assert signs == [np.copysign(1, value)]
    assert pool.map_tiles(is_writeable, (x,), 4) == [True]
    x.flags.writeable = False
    assert pool.map_tiles(is_writeable, (x,), 4) == [False]


def add_setting(x: Any, settings: dict[str, float]) -> None:
    x += settings["value"]


def sign_of(x: Any, value: float) -> float:
    return float(np.copysign(1, value))


def is_writeable(x: Any) -> bool:
    return bool(x.flags.writeable)


def test_many_calls_with_new_arrays_keep_no_memory(pool: ndshm.Pool) -> None:
    table = ndshm.default()
    before = len(table.handles())
    for n in range(50):
        with ndshm.scope():
            x = ndshm.zeros(100)
            pool.for_tiles(add, (x,), 10, 1.0 + n)
            assert (x == 1.0 + n).all()
    assert len(table.handles()) < before + 20


def test_state_and_places(context: BaseContext) -> None:
    x = ndshm.zeros(40, "i8")
    with ndshm.Pool(3, context=context, setup=make_state) as pool:
        assert pool.broadcast(place) == [(0, 3, 0), (1, 3, 10), (2, 3, 20)]
        for _ in range(3):
            pool.for_tiles(mark, (x,), 1, static=True)
    # The same worker for a tile, each time.
    assert (x == np.arange(40) * 3 + 3 * 10 * (np.arange(40) * 3 // 40)).mean() > 0.9
    assert set((x - np.arange(40) * 3).tolist()) == {0, 30, 60}


def make_state(worker: int) -> int:
    return worker * 10


def place(worker: int, workers: int, state: int) -> tuple[int, int, int]:
    return worker, workers, state


def mark(x: Any, *, state: int, tile: int) -> None:
    x += state + tile


def test_lambdas_and_closures(context: BaseContext) -> None:
    pytest.importorskip("cloudpickle")
    x = ndshm.zeros(10)
    with ndshm.Pool(2, context=context) as pool:
        for value in (1.0, 2.0):
            pool.for_tiles(lambda tile: tile.__iadd__(value), (x,), 3)
        assert x.tolist() == [3.0] * 10
        assert pool.broadcast(lambda: 5) == [5, 5]


def test_a_lambda_without_cloudpickle(pool: ndshm.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TypeError, match="install cloudpickle"):
        pool.for_tiles(lambda x: None, (ndshm.zeros(3),), 1)


def test_large_calls_warn(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(3)
    with pytest.warns(RuntimeWarning, match="ndshm arrays"):
        pool.for_tiles(nothing, (x,), 1)
        pool.for_tiles(add_all, (x,), 1, np.zeros(200_000))


def add_all(x: Any, values: Any) -> None:
    x += values.sum()


class Broken:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class Unfit(Exception):
    """Cannot be loaded: also where a package (tblib, for dask) pickles exceptions in its own way."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("unfit")
        self.one, self.two = one, Broken()


def fail(x: Any, kind: str) -> None:
    if x[0] == 4:
        x[0] = -1
        if kind == "unfit":
            raise Unfit(1, 2)
        if kind == "exit":
            sys.exit(3)
        if kind == "interrupt":
            raise KeyboardInterrupt
        raise ValueError("a bad row")


def test_an_exception_comes_with_its_traceback(context: BaseContext) -> None:
    x = ndshm.array(np.arange(10.0))
    with ndshm.Pool(2, context=context) as pool:
        with pytest.raises(ValueError, match="a bad row") as caught:
            pool.for_tiles(fail, (x,), 2, "plain")
        cause = caught.value.__cause__
        assert isinstance(cause, RemoteTraceback) and "test_pool.py" in str(cause)
        assert "on tile 2: rows 4:6" in caught.value.__notes__[0]
        # It is half-written, as after an exception in `with x.write()`.
        with pytest.raises(ndshm.Poisoned):
            pool.for_tiles(add, (x,), 2, 1.0)
        x.clear_poison()
        pool.for_tiles(add, (x,), 2, 1.0)
        assert x[4] == 0.0


@pytest.mark.parametrize("kind", ["unfit", "exit", "interrupt"])
def test_exceptions_that_cannot_be_raised_here(pool: ndshm.Pool, kind: str) -> None:
    x = ndshm.array(np.arange(10.0))
    with pytest.raises(ndshm.KernelError) as caught:
        pool.for_tiles(fail, (x,), 2, kind)
    names = {"unfit": "Unfit", "exit": "SystemExit(3)", "interrupt": "KeyboardInterrupt()"}
    assert names[kind] in str(caught.value)
    assert pool.map_tiles(len, (ndshm.readonly(ndshm.zeros(4)),), 2) == [2, 2]


def test_a_function_that_forks(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(4)
    pids = pool.map_tiles(fork, (x,), 1)
    assert x.tolist() == [1.0] * 4
    for pid in pids:
        # They have ended, though their parent did not wait for them.
        deadline = time.monotonic() + 10
        while not is_gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    pool.broadcast(collect_children)


def fork(x: Any) -> int:
    pid = os.fork()
    if pid:
        x += 1
    return pid


def collect_children() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] == "Z"
    except FileNotFoundError:
        return True


def until_told_beside(x: Any, y: Any, flags: Any) -> None:
    until_told(x, flags)


def test_arrays_are_leased_during_a_call(pool: ndshm.Pool) -> None:
    x, y, flags = ndshm.zeros(4), ndshm.zeros(4), ndshm.zeros(2)
    seen: list[BaseException] = []

    def look() -> None:
        wait_until(lambda: bool(flags[0]))
        try:
            with x.write():
                pass
        except BaseException as error:
            seen.append(error)
        # An array that is only read can be read by others.
        with y.read():
            pass
        flags[1] = 1

    thread = threading.Thread(target=look)
    thread.start()
    pool.for_tiles(until_told_beside, (x, ndshm.readonly(y)), 2, flags)
    thread.join()
    assert isinstance(seen[0], ndshm.Busy)
    with x.write():
        with pytest.raises(ndshm.Busy):
            pool.for_tiles(add, (x,), 2, 1.0)
    x.free()
    with pytest.raises(ndshm.Stale):
        pool.for_tiles(add, (x,), 2, 1.0)


def sleep(*tiles: Any) -> None:
    time.sleep(tiles[-1])


def test_results_without_room() -> None:
    with ndshm.Table(capacity=4 << 20) as table:
        x = table.zeros(4)
        with ndshm.Pool(1, table) as pool:
            with pytest.raises(ndshm.Full):
                pool.map_tiles(huge, (x,), 2)
            assert pool.map_tiles(len, (x,), 2) == [2, 2]
        del x


def huge(x: Any) -> bytes:
    return bytes(16 << 20)


@pytest.mark.parametrize(
    ("arrays", "tile", "kind", "text"),
    [
        ((np.zeros(3),), 1, ndshm.NdshmError, "ndshm.array"),
        (([1, 2],), 1, TypeError, "ndshm.array"),
        ("x", 1, TypeError, r"\(x,\)"),
        ((), 1, ValueError, "at least one array"),
        ("xy", 1, ValueError, "ndshm.whole"),
        ("xx", 1, ndshm.NdshmError, "twice|overlap|both"),
        ("0", 1, ValueError, "no axis"),
        ("x,", 0, ValueError, "from 1 on"),
        ("x,", -1, ValueError, "from 1 on"),
        ("x,", 1.5, TypeError, "float"),
        ("whole", 1, ValueError, "at least one array"),
        ("nine", 1, ndshm.NdshmError, "at most 8"),
    ],
)
def test_wrong_arguments(
    pool: ndshm.Pool, arrays: Any, tile: Any, kind: type[Exception], text: str
) -> None:
    x = ndshm.zeros(3)
    named = {
        "x": x,
        "xy": (x, ndshm.zeros(4)),
        "xx": (x, x),
        "0": (ndshm.zeros(()),),
        "x,": (x,),
        "whole": (ndshm.whole(x),),
        "nine": tuple(ndshm.zeros(3) for _ in range(9)),
    }
    with pytest.raises(kind, match=text):
        pool.for_tiles(nothing, named[arrays] if isinstance(arrays, str) else arrays, tile)
    assert pool.map_tiles(len, (x,), 2) == [2, 1]


def test_wrong_functions_and_pools(pool: ndshm.Pool) -> None:
    x = ndshm.zeros(3)
    with pytest.raises(TypeError, match="no function"):
        pool.for_tiles(5, (x,), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        pool.for_tiles(add, (x,), 1, 1.0, seed=-1)
    with pytest.raises(ValueError, match="from 1 on"):
        ndshm.Pool(0)
    with pytest.raises(TypeError, match="pickled"):
        pool.for_tiles(add, (x,), 1, threading.Lock())  # type: ignore[arg-type]
    with ndshm.Table() as other, pytest.raises(ValueError, match="another table"):
        pool.for_tiles(add, (other.zeros(3),), 1, 1.0)
    with pytest.raises(TypeError):
        pool.for_tiles(add, (x,), 1)  # a missing argument
    x.clear_poison()


def test_a_named_table() -> None:
    with ndshm.open(f"test-pool-{os.getpid()}") as table:
        x = table.zeros(10)
        with ndshm.Pool(2, table, context="spawn") as pool:
            pool.for_tiles(add, (x,), 3, 1.0)
        assert x.sum() == 10
        del x


def test_a_bar(pool: ndshm.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    x = ndshm.zeros(20)
    pool.for_tiles(add, (x,), 1, 1.0, progress=True)
    assert "20/20" in capsys.readouterr().err


def run(code: str, *, method: str = "fork", status: int = 0, timeout: float = 60) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), method],
        capture_output=True, text=True, timeout=timeout, env=os.environ,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert not done.stderr or status, done.stderr
    return done.stdout


def test_functions_of_an_interactive_program(method: str) -> None:
    pytest.importorskip("cloudpickle")
    out = run(
        """
        import sys, ndshm
        x = ndshm.zeros(4)
        pool = ndshm.Pool(2, context=sys.argv[1])
        def add(x): x += 1
        pool.for_tiles(add, (x,), 1)
        def add(x): x += 10
        pool.for_tiles(add, (x,), 1)
        print(x, pool.broadcast(add, 1))
        pool.close()
        """,
        method=method,
    )
    assert out == "[11. 11. 11. 11.] [None, None]\n"


def test_a_pool_that_is_dropped_leaves_no_process(method: str) -> None:
    out = run(
        """
        import sys, gc, multiprocessing, ndshm
        pool = ndshm.Pool(2, context=sys.argv[1])
        pids = pool.pids
        assert len(multiprocessing.active_children()) == 2
        del pool
        gc.collect()
        print(len(multiprocessing.active_children()), *pids)
        """,
        method=method,
    )
    count, *pids = map(int, out.split())
    assert count == 0 and all(is_gone(pid) for pid in pids)


def test_a_program_that_forgets_its_pool(method: str) -> None:
    out = run(
        """
        import sys, ndshm
        pool = ndshm.Pool(2, context=sys.argv[1])
        x = ndshm.zeros(4)
        print(*pool.pids, *pool.map_tiles(len, (x,), 2))
        """,
        method=method,
    )
    *pids, one, two = map(int, out.split())
    assert (one, two) == (2, 2) and all(is_gone(pid) for pid in pids)


def test_the_parent_is_killed(method: str) -> None:
    out = run(
        """
        import os, sys, ndshm
        pool = ndshm.Pool(2, context=sys.argv[1])
        print(*pool.pids, flush=True)
        os.kill(os.getpid(), 9)
        """,
        method=method,
        status=-signal.SIGKILL,
    )
    deadline = time.monotonic() + 10
    while not all(is_gone(int(pid)) for pid in out.split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_pool() -> None:
    pool = ndshm.Pool(1)
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.for_tiles(nothing, (ndshm.zeros(3),), 1)


def draw_from(x: Any, rng_of_the_user: Any) -> None:
    x[:] = rng_of_the_user.random(len(x))


def test_an_argument_is_as_it_was_passed_in_each_call(context: Any) -> None:
    x = ndshm.zeros(64)
    with ndshm.Pool(1, context=context) as pool:
        results = []
        for _ in range(2):
            pool.for_tiles(draw_from, (x,), 64, np.random.default_rng(5))
            results.append(np.array(x))
    assert (results[0] == results[1]).all()


def reshape(x: Any, w: Any) -> None:
    x += w.sum()
    w.shape = (2, 2)


def test_a_whole_array_is_a_view_of_its_own_for_each_tile(context: Any) -> None:
    x, w = ndshm.zeros(4), ndshm.full(4, 1.0)
    with ndshm.Pool(1, context=context) as pool:
        pool.for_tiles(reshape, (x, ndshm.whole(w)), 1)
    assert x.tolist() == [4.0] * 4


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def fail_unspeakably(x: Any) -> None:
    raise Unspeakable


def test_an_exception_without_text_is_no_death(context: Any) -> None:
    with ndshm.Pool(1, context=context) as pool, pytest.raises(Exception) as caught:
        pool.for_tiles(fail_unspeakably, (ndshm.zeros(1),), 1)
    assert not isinstance(caught.value, ndshm.WorkerDied)


def test_code_that_differs_is_told_apart() -> None:
    from ndshm._pool_functions import _print_of, spec

    def of(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(text, names)
        return names["f"]

    pairs = [
        ("def f(x, k=2): x *= k", "def f(x, k=3): x *= k"),
        ("def f(x): x += sum(i * 2 for i in x)", "def f(x): x += sum(i * 3 for i in x)"),
        ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    ]
    for one, other in pairs:
        assert _print_of(of(one)) == _print_of(of(one))
        assert _print_of(of(one)) != _print_of(of(other))
    assert spec(test_code_that_differs_is_told_apart)[1]
