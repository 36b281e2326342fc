"""Arrays in one process: creation, types, views, pickles."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm

DTYPES = [
    "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "c8", "c16",
    "f2", "g", "G", ">f8", ">i4", ">c16", "S5", "U7", ">U3", "V6",
    "M8[ns]", "M8[25s]", "m8[D]", ">M8[us]", "q", "Q",
    [("a", "f8"), ("b", "i8")],
    [("a", "f8", (3,)), ("b", "i2")],
    [("a", "f8", (2, 2)), ("b", "i2"), ("c", "?")],
    [("a", ">f4"), ("b", [("x", "S3"), ("y", "M8[s]")])],
    {"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24},
]  # fmt: skip


def test_an_array_is_an_ndarray_on_shared_bytes() -> None:
    x = ndshm.zeros((4, 3))
    assert isinstance(x, np.ndarray) and type(x) is ndshm.ndarray
    assert x.dtype == np.float64 and x.shape == (4, 3) and not x.any()
    assert x.flags.c_contiguous and x.flags.writeable and not x.flags.owndata
    assert x.table == ndshm.default() and x.handle.startswith("ndshm:")
    assert ndshm.zeros((4, 3), "f4", "F").flags.f_contiguous


@pytest.mark.parametrize("shape", [(), 0, 5, (0, 3), (2, 0), (1,) * 8, [2, 3], np.int64(4)])
def test_shapes_are_as_numpys(shape: tuple[int, ...]) -> None:
    x, expected = ndshm.zeros(shape), np.zeros(shape)
    assert x.shape == expected.shape and (not x.size or x.strides == expected.strides)
    assert pickle.loads(pickle.dumps(x)).shape == expected.shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_without_objects(dtype: object) -> None:
    source = np.frombuffer(bytes(range(2, 242)) * 24, np.uint8)
    source = source[: 24 * np.dtype(dtype).itemsize].copy()
    if np.dtype(dtype) == bool:
        source &= 1
    source = source.view(dtype).reshape(2, 12) if np.dtype(dtype).kind != "U" else np.full((2, 12), "äß", dtype)
    x = ndshm.array(source)
    for view in (x, x[1], x.T, x[:, ::-2]):
        y = pickle.loads(pickle.dumps(view))
        assert type(y) is ndshm.ndarray and y.dtype == view.dtype and y.strides == view.strides
        assert y.tobytes() == view.tobytes()
        assert np.shares_memory(view, y) or y.__array_interface__["data"] == view.__array_interface__["data"]
    assert not ndshm.zeros(3, dtype).tobytes().strip(b"\0")


def test_a_subarray_is_a_part_of_the_shape() -> None:
    assert ndshm.zeros(3, ("f4", (2, 5))).shape == np.zeros(3, ("f4", (2, 5))).shape


def test_the_others_say_what_array_they_copy() -> None:
    source = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    x = ndshm.array(source)
    assert (x == source).all() and x.flags.f_contiguous
    assert ndshm.array([1, 2, 3], "f4").dtype == np.float32
    like = ndshm.zeros_like(source)
    assert like.shape == (2, 3) and like.flags.f_contiguous and not like.any()
    assert (ndshm.full((2, 2), 7) == 7).all() and ndshm.full(2, 7).dtype == np.int64
    assert ndshm.full(2, 7, "f2").dtype == np.float16
    assert ndshm.empty(5).shape == (5,)


def test_recycled_memory_is_zero() -> None:
    for size in (10, 10**6):
        x = ndshm.full(size, 7.0)
        address = x.__array_interface__["data"]
        del x
        y = ndshm.zeros(size)
        assert y.__array_interface__["data"] == address and not y.any()


def test_results_are_plain_arrays() -> None:
    x = ndshm.full((3, 3), 2.0)
    for result in (x + 1, 1 + x, np.sin(x), -x, x @ x, x.sum(0), np.where(x > 1, x, 0), x > 1,
                   x.copy(), copy.copy(x), copy.deepcopy(x), np.concatenate([x, x]), np.array(x)):  # fmt: skip
        assert type(result) is np.ndarray
    assert type(x.sum()) is np.float64 and type(np.add.reduce(x[0])) is np.float64
    assert type(np.add(x, 1, out=x)) is ndshm.ndarray and x[0, 0] == 3
    x += 1
    assert type(x) is ndshm.ndarray and x[0, 0] == 4
    zero = ndshm.zeros(())
    assert type(np.add(zero, 1, out=zero)) is ndshm.ndarray and zero == 1
    # Those that numpy makes in the class of their argument lie in no table.
    for result in (x[[0, 1]], x.astype("f4"), np.dot(x, x), x.flatten(), x.repeat(2)):
        y = pickle.loads(pickle.dumps(result))
        assert type(y) is np.ndarray and np.array_equal(y, result)
        if type(result) is ndshm.ndarray:
            with pytest.raises(ndshm.NdshmError, match="in no table.*ndshm.array"):
                result.handle


def test_a_pickle_is_a_handle() -> None:
    x = ndshm.zeros((10**6, 3))
    r = ndshm.zeros(1000, [("at", "f8", (3,)), ("id", "i8")])
    for view in (x, x[5:900_000:3], x.T, x[7], x[:, 1], x[::-1], x.reshape(-1), x[5], r["id"], r["at"]):
        sent = pickle.dumps(view)
        assert len(sent) < 80
        y = pickle.loads(sent)
        assert type(y) is ndshm.ndarray and y.strides == view.strides
        assert y.__array_interface__["data"] == view.__array_interface__["data"]
        assert y.handle == view.handle
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(x, protocol)).handle == x.handle
    y = pickle.loads(pickle.dumps(x))
    y[3] = 5
    assert (x[3] == 5).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_array_in_no_table_is_pickled_as_numpys(protocol: int) -> None:
    alike = np.empty_like(ndshm.zeros((2, 3)))
    alike[:] = [[1, 2, 3], [4, 5, 6]]
    assert type(alike) is ndshm.ndarray
    loaded = pickle.loads(pickle.dumps(alike, protocol))
    assert type(loaded) is np.ndarray and (loaded == alike).all()
    if protocol >= 5:
        # The function that pickles it is not told the protocol.
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(alike, protocol, buffer_callback=buffers.append)
        assert len(buffers) == 1 and (pickle.loads(stream, buffers=buffers) == alike).all()


def test_an_array_that_was_changed_in_place_is_pickled_as_it_is() -> None:
    x = ndshm.zeros((2, 6))
    x.shape = (3, 4)
    assert pickle.loads(pickle.dumps(x)).shape == (3, 4)
    y = x.view("u1")
    assert pickle.loads(pickle.dumps(y)).dtype == np.uint8


def test_portable_takes_the_bytes() -> None:
    x = ndshm.full(1000, 2.0)
    sent = pickle.dumps(ndshm.portable(x))
    assert len(sent) > 8000 and type(pickle.loads(sent)) is np.ndarray
    assert (pickle.loads(sent) == 2).all()


def test_readonly_cannot_be_undone() -> None:
    x = ndshm.array(np.arange(5), readonly=True)
    for y in (x, x[1:], pickle.loads(pickle.dumps(x)), pickle.loads(pickle.dumps(x[2:]))):
        assert not y.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            y.flags.writeable = True
        with pytest.raises(ValueError, match="WRITEABLE"):
            y.view("u1").setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            y[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            y.write()
        with y.read() as a:
            assert a[0] == y[0]


def test_bad_input_is_refused() -> None:
    for dtype in (object, [("a", "f8"), ("b", object)]):
        with pytest.raises(TypeError, match="objects"):
            ndshm.zeros(3, dtype)
    with pytest.raises(TypeError):
        ndshm.array([{}])
    with pytest.raises(ValueError, match="-3 .*negative"):
        ndshm.zeros((2, -3))
    with pytest.raises(TypeError, match="integers"):
        ndshm.zeros((2, 1.5))
    with pytest.raises(TypeError, match="integers"):
        ndshm.zeros("abc")
    with pytest.raises(ValueError, match="8"):
        ndshm.zeros((1,) * 9)
    with pytest.raises(ValueError, match="'C' or 'F'"):
        ndshm.zeros(3, order="K")
    with pytest.raises(TypeError):
        ndshm.zeros(2**63)
    for shape in (2**62, (2**40, 2**40), 2**50):
        with pytest.raises(MemoryError):
            ndshm.zeros(shape)
        with pytest.raises(ndshm.Full):
            ndshm.empty(shape)


def test_load_npy(tmp_path: Path) -> None:
    for number, source in enumerate(
        [np.arange(12.0).reshape(3, 4), np.asfortranarray(np.ones((3, 4), "f2")), np.zeros((0, 3)),
         np.array(5), np.zeros(3, [("ä", ">f8"), ("b", "S3")]), np.arange(10**6)]  # fmt: skip
    ):
        path = tmp_path / f"{number}.npy"
        np.save(path, source)
        x = ndshm.load_npy(path)
        assert type(x) is ndshm.ndarray and x.dtype == source.dtype and (x == source).all()
        assert x.flags.f_contiguous == source.flags.f_contiguous
    assert not ndshm.load_npy(path, readonly=True).flags.writeable
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="5 bytes less.*truncated"):
        ndshm.load_npy(path)
    np.save(path, np.array([{}]))
    with pytest.raises(TypeError, match="objects"):
        ndshm.load_npy(path)
    path.write_bytes(b"no array at all")
    with pytest.raises(ValueError):
        ndshm.load_npy(path)
    with pytest.raises(FileNotFoundError):
        ndshm.load_npy(tmp_path / "none.npy")


def test_damaged_pickles_are_refused() -> None:
    x = ndshm.zeros((20, 30))
    for view in (x, x[3:, ::-2], x.view("S8"), x.T[1:]):
        state = view.__reduce_ex__(5)[1][0]
        for cut in range(len(state)):
            with pytest.raises((ValueError, ndshm.NdshmError, TypeError)):
                ndshm._attach(state[:cut])
        for place in range(17, len(state)):
            for value in (0, 1, 0x7F, 0x80, 0xFF):
                changed = state[:place] + bytes([value]) + state[place + 1 :]
                try:
                    y = ndshm._attach(changed)
                except (ValueError, ndshm.NdshmError, TypeError, MemoryError):
                    continue
                # Whatever it shows is in the array.
                if y.size:
                    spans = [(n - 1) * stride for n, stride in zip(y.shape, y.strides, strict=True)]
                    low = y.ctypes.data + sum(span for span in spans if span < 0)
                    high = y.ctypes.data + sum(span for span in spans if span > 0) + y.itemsize
                    assert x.ctypes.data <= low and high <= x.ctypes.data + x.nbytes


@pytest.mark.parametrize("dtype", ["i4,f8", "i4,S3"])
def test_names_of_fields_are_an_arrays_own(dtype: str) -> None:
    x, y = ndshm.zeros(3, dtype), ndshm.zeros(3, dtype)
    x["f0"] = 5
    x.dtype.names = ("a", "b")
    assert y.dtype.names == ("f0", "f1") and ndshm.zeros(3, dtype).dtype.names == ("f0", "f1")
    received = pickle.loads(pickle.dumps(x))
    assert received.dtype.names == ("a", "b") and (received["a"] == 5).all()
    again = pickle.loads(pickle.dumps(y))
    assert again.dtype.names == ("f0", "f1") and again.dtype == y.dtype


def test_the_shape_may_change_while_an_array_is_pickled() -> None:
    x = ndshm.zeros((4, 6), "i4,S3").T
    stop = threading.Event()
    shapes = [(4, 6), (6, 4), (24,), (2, 3, 4)]

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flat.shape = shapes[turn % len(shapes)]

    flat = ndshm.zeros(24, "i4,S3")
    part = flat[:]
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert pickle.loads(pickle.dumps(flat)).size == 24
            assert pickle.loads(pickle.dumps(part[1:])).size == 23
    finally:
        stop.set()
        thread.join()
    assert x.shape == (6, 4)


@pytest.mark.parametrize("dtype", ["S", "U", str, bytes])
def test_a_dtype_without_a_size_gets_one(dtype: Any) -> None:
    assert ndshm.zeros(3, dtype).dtype == np.zeros(3, dtype).dtype


def test_load_npy_of_version_3(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    given = np.zeros(3, [("\u00e4\u4e2d", "f8"), ("b", "i4")])
    given["b"] = [1, 2, 3]
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, given, version=(3, 0))
    x = ndshm.load_npy(path)
    assert x.dtype == given.dtype and (x == given).all()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="truncated"):
        ndshm.load_npy(path)


def test_titles_of_fields_arrive() -> None:
    x = ndshm.zeros(3, [(("a title", "a"), "f8"), ("b", "i8")])
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype == x.dtype and y.dtype.fields["a"][2] == "a title"


class Described(ndshm.ndarray):
    """A subclass that pickles what it has beside the elements."""

    unit = ""

    def __reduce__(self) -> Any:
        return _describe, (self.view(ndshm.ndarray), self.unit)


def _describe(x: Any, unit: str) -> Described:
    made: Described = x.view(Described)
    made.unit = unit
    return made


def test_a_subclass_may_pickle_itself() -> None:
    x = ndshm.zeros(3).view(Described)
    x.unit = "m"
    y = pickle.loads(pickle.dumps(x))
    assert type(y) is Described and y.unit == "m" and y.handle == x.handle
