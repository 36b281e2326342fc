"""What joblib's `test_memmapping.py` asks of memmaps, asked of `ndshm.ndarray`.

judges/README.md lists its tests: those that are here, and those that do not apply.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import ndshm

joblib = pytest.importorskip("joblib", reason="joblib is not installed")
from joblib.externals.loky import get_reusable_executor  # noqa: E402
from joblib.externals.loky.backend import get_context  # noqa: E402
from joblib.pool import MemmappingPool  # noqa: E402

BACKENDS = ["multiprocessing", "loky"]


@pytest.fixture(autouse=True, scope="module")
def no_workers_are_left(nothing_is_left: None) -> Iterator[None]:
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check_array(task: tuple[Any, Any, Any]) -> None:
    data, position, expected = task
    assert_array_equal(data[position], expected)


def inplace_double(task: tuple[Any, Any, float]) -> None:
    data, position, expected = task
    assert data[position] == expected
    data[position] *= 2
    assert_array_equal(data[position], 2 * expected)


def error_of(call: tuple[Callable[[Any], None], Any]) -> str:
    """The text of the error of a call that must fail.

    It is not raised in the worker: joblib would end the pool while the other worker sends its result.
    That worker may then die with the lock of the results, for which multiprocessing waits for ever.
    """
    function, task = call
    try:
        function(task)
    except (AssertionError, RuntimeError, ValueError) as error:
        return str(error)
    return "no error"


def positions(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(np.ndindex(shape))


def shares(x: Any) -> bool:
    """Whether an array is pickled as its handle."""
    return isinstance(x, ndshm.ndarray) and len(pickle.dumps(x)) < 120


def again(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def test_memmap_based_array_reducing() -> None:
    buffer = ndshm.zeros(500)
    buffer[:] = -np.arange(500.0)
    a = ndshm.empty((3, 5, 4), order="F")
    a[:] = np.arange(60).reshape(a.shape)
    b = a[1:-1, 2:-1, 2:4]
    b2 = buffer.reshape(10, 50)
    d = b.T
    for x in (a, b, b2, d):
        received = again(x)
        assert shares(received) and type(received) is ndshm.ndarray
        assert received.strides == x.strides
        assert_array_equal(received, x)
        received[...] = 7
        assert (x == 7).all()
    # A result of a computation is in no table.
    for x in (a * 3, np.asarray(a * 3)):
        received = again(x)
        assert type(received) is np.ndarray and not np.may_share_memory(received, a)
        assert_array_equal(received, a * 3)


def test_high_dimension_memmap_array_reducing() -> None:
    a = ndshm.array(np.arange(100 * 15 * 15 * 3.0).reshape(100, 15, 15, 3))
    for x in (a, a[0:10], a[:, 5:10], a[:, :, :, 0], a[1:3:4]):
        assert shares(again(x))
        assert_array_equal(again(x), x)


def run(backend: str, folder: Path, function: Callable[..., Any], tasks: list[Any]) -> list[Any]:
    """Run tasks in workers that would write arrays of more than two bytes to files."""
    return list(
        joblib.Parallel(n_jobs=2, backend=backend, max_nbytes=2, temp_folder=str(folder))(
            joblib.delayed(function)(task) for task in tasks
        )
    )


def files(folder: Path) -> list[str]:
    """The files of arrays that joblib has written. The functions of workers are no matter."""
    found = [file.name for file in folder.rglob("*") if file.is_file()]
    return [name for name in found if name.endswith(".pkl") and "array" in name]


def test_pool_with_memmap(backend: str, tmp_path: Path) -> None:
    a = ndshm.full((3, 5), 1.0, "f4")
    run(backend, tmp_path, inplace_double, [(a, p, 1.0) for p in positions(a.shape)])
    assert (a == 2).all()
    c = ndshm.array(a, readonly=True)
    checks = [(check_array, (c, i, 3.0)) for i in range(3)]
    assert all("not equal" in error for error in run(backend, tmp_path, error_of, checks))
    writes = [(inplace_double, (c, p, 2.0)) for p in positions(c.shape)]
    assert all("read-only" in error for error in run(backend, tmp_path, error_of, writes))
    assert not files(tmp_path)


def test_the_memmapping_pool(tmp_path: Path) -> None:
    # The workers exist before the arrays.
    with MemmappingPool(2, max_nbytes=2, temp_folder=str(tmp_path)) as pool:
        a = ndshm.full((3, 5), 1.0, "f4")
        pool.map(inplace_double, [(a, p, 1.0) for p in positions(a.shape)])
        part = a[1:, ::2]
        pool.map(inplace_double, [(part, p, 2.0) for p in positions(part.shape)])
        assert_array_equal(a[0], 2)
        assert_array_equal(part, 4)
        assert not files(tmp_path)
        pool.terminate()
        pool.join()


def test_plain_arrays_are_written_to_files(tmp_path: Path) -> None:
    """So the assertions above that there are no files can fail."""
    seen = run("loky", tmp_path, class_of, [(np.ones(100),)])
    assert seen == ["memmap"]
    assert run("loky", tmp_path, class_of, [(ndshm.zeros(100),)]) == ["ndarray"]


def class_of(task: tuple[Any]) -> str:
    kind = type(task[0])
    assert kind is not np.ndarray
    return kind.__name__


def ones(count: int) -> Any:
    return np.ones(count)


def test_memmapping_pool_for_large_arrays_in_return(backend: str, tmp_path: Path) -> None:
    [large] = run(backend, tmp_path, ones, [1000])
    assert type(large) is np.ndarray
    assert_array_equal(large, 1)


def triple(a: Any) -> Any:
    assert shares(a)
    return a * 3


def test_workaround_against_bad_memmap_with_copied_buffers(backend: str, tmp_path: Path) -> None:
    a = ndshm.array(np.asarray(np.arange(6000).reshape((1000, 2, 3)), order="F"))[:, :1, :]
    [b] = run(backend, tmp_path, triple, [a])
    assert type(b) is np.ndarray
    assert_array_equal(b, 3 * a)


def identity(x: Any) -> Any:
    return x


def test_pool_memmap_with_big_offset(backend: str, tmp_path: Path) -> None:
    x = ndshm.array(np.arange(5 * 4096, dtype="u1"))[4097:]
    [result] = run(backend, tmp_path, identity, [x])
    assert shares(result) and result.handle == x.handle
    assert result.ctypes.data == x.ctypes.data


def test_memmap_returned_as_the_array(backend: str, tmp_path: Path) -> None:
    """Joblib returns a copy of a temporary memmap. An array of a table returns as itself."""
    x = ndshm.zeros(1000)
    [result] = run(backend, tmp_path, identity, [x])
    result[0] = 5
    assert x[0] == 5


def fill(task: tuple[Any, int]) -> Any:
    array, value = task
    array[:] = value
    return array


def test_numpy_arrays_use_different_memory(backend: str, tmp_path: Path) -> None:
    arrays = [ndshm.zeros((10, 10)) for _ in range(10)]
    results = run(backend, tmp_path, fill, [(array, i) for i, array in enumerate(arrays)])
    for i, (array, result) in enumerate(zip(arrays, results)):
        assert_array_equal(result, i)
        assert_array_equal(array, i)


def square(x: Any) -> Any:
    return x**2


def test_parallel_memmap2d_as_memmap_1d_base(backend: str, tmp_path: Path) -> None:
    plain = np.arange(10, dtype="u1").reshape(5, 2)
    x = ndshm.array(np.arange(10, dtype="u1")).reshape(5, 2)
    [result] = run(backend, tmp_path, square, [x])
    assert not result.flags.f_contiguous
    assert_array_equal(result, square(plain))
    [same] = run(backend, tmp_path, identity, [x])
    assert not same.flags.f_contiguous
    assert_array_equal(same, plain)


def fail(x: Any) -> None:
    raise ValueError(float(x.sum()))


def test_child_raises_parent_exits_cleanly(backend: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="100"):
        run(backend, tmp_path, fail, [ndshm.full(100, 1.0)])


@pytest.mark.parametrize("method", ["loky", "loky_init_main"])
def test_loky_executor(method: str) -> None:
    executor = get_reusable_executor(max_workers=2, context=get_context(method))
    x = ndshm.zeros((4, 3))
    list(executor.map(fill, [(x[row], row + 1) for row in range(4)], timeout=30))
    assert x[:, 0].tolist() == [1, 2, 3, 4]
    assert executor.submit(os.getpid).result(30) != os.getpid()
    executor.shutdown(wait=True, kill_workers=True)
