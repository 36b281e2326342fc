"""Large arrays, which several threads fill: `array`, `full`, `load_npy`."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm
from ndshm import _copy


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide small arrays as large ones, among three threads."""
    monkeypatch.setattr(_copy, "PIECE", 1 << 10)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})


SHAPES = [(0,), (), (1,), (127,), (128,), (256,), (257,), (100_003,), (1, 5000), (5000, 1), (3, 7, 411),
          (2, 3, 5000), (700, 11), (0, 5)]  # fmt: skip


def ways(shape: tuple[int, ...]) -> list[Any]:
    """Return arrays of the shape that lie in memory in different ways."""
    whole = np.random.default_rng(1).standard_normal(shape)
    every_other = (*(slice(None, None, 2) for _ in shape), ...)
    wide = np.zeros([2 * length for length in shape])[every_other]
    wide[...] = whole
    reverse = np.asfortranarray(whole)[(*(slice(None, None, -1) for _ in shape), ...)]
    return [whole, np.asfortranarray(whole), wide, reverse, np.broadcast_to(1.5, shape)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_array_copies_all_elements(shape: tuple[int, ...]) -> None:
    for source in ways(shape):
        made = ndshm.array(source)
        assert made.shape == source.shape and np.array_equal(made, source)
        assert made.flags.fnc == (source.flags.fnc)
    for kind in ("M8[s]", "S3", "?", [("a", "i4"), ("b", "f8")]):
        given = np.zeros(shape, "i8").astype("f8").astype(kind) if isinstance(kind, str) else None
        given = np.ones(shape, kind) if given is None else given
        made = ndshm.array(given)
        assert made.dtype == given.dtype and made.tobytes() == given.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_full_fills_all_elements(shape: tuple[int, ...]) -> None:
    for order in "CF":
        assert (ndshm.full(shape, 7, "i2", order) == 7).all()
        assert (ndshm.full(shape, "ab", "S3", order) == b"ab").all()
    with pytest.raises(OverflowError):
        ndshm.full((5000,), 300, "u1")
    assert ndshm.full((4, 300), np.arange(300)).sum() == 4 * 44850


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_files_are_read_whole(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for source in ways(shape)[:2]:
        np.save(path, source)
        loaded = ndshm.load_npy(path)
        assert np.array_equal(loaded, source) and loaded.flags.fnc == source.flags.fnc
        size = path.stat().st_size
        for cut in {1, source.nbytes // 3, source.nbytes - 1}:
            if 0 < cut < source.nbytes:
                os.truncate(path, size - cut)
                with pytest.raises(ValueError, match=f"has {cut} bytes less"):
                    ndshm.load_npy(path)


def test_a_pipe_is_read_in_order(tmp_path: Path) -> None:
    path, file = tmp_path / "pipe", tmp_path / "x.npy"
    source = np.arange(50_000.0)
    np.save(file, source)
    os.mkfifo(path)
    for cut in (0, 8):
        content = file.read_bytes()[: file.stat().st_size - cut]
        writer = threading.Thread(target=path.write_bytes, args=(content,))
        writer.start()
        try:
            if cut:
                with pytest.raises(ValueError, match="has 8 bytes less"):
                    ndshm.load_npy(path)
            else:
                assert np.array_equal(ndshm.load_npy(path), source)
        finally:
            writer.join()


def test_three_threads_take_the_parts() -> None:
    barrier, seen = threading.Barrier(3, timeout=30), set()

    def work(part: int) -> None:
        if part < 3:
            # Passes only if three threads come here at once.
            barrier.wait()
        seen.add(part)

    _copy.in_threads(work, range(20))
    assert seen == set(range(20))


def test_a_failure_is_raised_and_ends_the_others() -> None:
    done = []

    def work(part: int) -> None:
        if part == 5:
            raise KeyError(part)
        done.append(part)

    before = threading.active_count()
    with pytest.raises(KeyError):
        _copy.in_threads(work, range(100_000))
    assert len(done) < 99_999 and threading.active_count() == before


def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    source = np.arange(10_000.0)
    assert np.array_equal(ndshm.array(source), source)


def test_full_converts_once_and_as_the_caller_does() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = ndshm.full(5000, np.float64(1e300), "f4")
    assert len(caught) == 1 and np.isinf(made).all()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        ndshm.full(5000, np.float64(1e300), "f4")
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        ndshm.full(5000, np.float64(1e300), "f4")


@pytest.mark.parametrize("length", [3, 5000])
def test_full_converts_as_numpy_does(length: int) -> None:
    for value, dtype in ((np.nan, "i4"), (1.5, "i2"), (2 + 3j, "f8"), ("12", "i8"), (7, "M8[s]")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made, known = ndshm.full(length, value, dtype), np.full(length, value, dtype)
        assert made.tobytes() == known.tobytes()


def test_an_interrupted_wait_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", join)
        go.set()
        raise KeyboardInterrupt

    main, done = threading.current_thread(), []

    def work(part: int) -> None:
        if threading.current_thread() is not main:
            go.wait(30)
            time.sleep(0.05)
            done.append(part)
        else:
            # The others have a part each, and this thread waits for them.
            time.sleep(0.05)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        _copy.in_threads(work, range(20))
    assert threading.active_count() == before and done
