"""Objects: what they hold, who frees them, and what is refused."""

from __future__ import annotations

import array as std_array
import copy
import ctypes
import gc
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import ndshm
from ndshm import _ndshm


def lives(ref: ndshm.Ref[Any] | str) -> bool:
    handle = ref if isinstance(ref, str) else ref.handle
    return handle in ndshm.default().handles()


class Node:
    """An object of a class, with a cycle."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.itself = self


ARRAYS = {
    "doubles": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    "strided": np.arange(40)[::3],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 5)),
    "no axes": np.array(7.5),
    "bools": np.array([True, False, True]),
    "halves": np.arange(5, dtype="f2"),
    "dates": np.array(["2026-01-01", "NaT"], "M8[s]"),
    "strings": np.array(["a", "bcd"]),
    "big endian": np.arange(5, dtype=">i4"),
    "records": np.array([(1, 2.5), (3, 4.5)], [("i", "i4"), ("f", "f8")]),
    "aligned": np.zeros(3, np.dtype([("i", "i1"), ("f", "f8")], align=True)),
    "many axes": np.arange(2**10).reshape([2] * 10),
    "complex": np.array([1 + 2j]),
    "no bytes": np.zeros(3, "V0"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_they_were(name: str) -> None:
    source = ARRAYS[name]
    x = ndshm.put({"x": source, "again": source}).get()["x"]
    assert type(x) is np.ndarray and x.dtype == source.dtype and x.shape == source.shape
    assert x.tobytes() == source.tobytes()
    if source.flags.forc and source.size:
        assert x.strides == source.strides


def test_buffers_are_read_only_and_aligned() -> None:
    ref = ndshm.put([np.arange(n, dtype="u1") for n in (1, 63, 64, 65, 1000)])
    for n, x in zip((1, 63, 64, 65, 1000), ref.get(), strict=True):
        assert x.tolist() == np.arange(n, dtype="u1").tolist()
        assert x.ctypes.data % 64 == 0 and not x.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            x.flags.writeable = True
        assert memoryview(x).readonly
    # All come from the same bytes: a second call copies nothing.
    first, second = ref.get(), ref.get()
    assert [x.ctypes.data for x in first] == [x.ctypes.data for x in second]


def test_a_read_only_array_and_other_buffers() -> None:
    fixed = np.arange(100)
    fixed.flags.writeable = False
    views = {"fixed": fixed, "buffer": pickle.PickleBuffer(b"some bytes"), "empty": b""}
    got = ndshm.put(views).get()
    assert (got["fixed"] == fixed).all() and bytes(got["buffer"]) == b"some bytes"
    assert got["empty"] == b""


def test_values_of_all_kinds() -> None:
    shared = [1, 2]
    value = {
        "none": None, "text": "grüße" * 1000, "bytes": bytes(range(256)) * 1000,
        "bytearray": bytearray(b"x" * 100_000), "set": {1, 2}, "nested": [shared, shared],
        "type": dict, "function": os.path.join, "numbers": std_array.array("d", [1.5]),
        "big": 10**100, "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
        "objects": np.array([None, "a", [1]], object), "scalar": np.float32(1.5),
    }  # fmt: skip
    got = ndshm.put(value).get()
    assert got.keys() == value.keys()
    assert got["nested"][0] is got["nested"][1]
    assert got["masked"].tolist() == [1, None, 3]
    assert got["objects"].tolist() == [None, "a", [1]]
    for name in value.keys() - {"masked", "objects"}:
        assert got[name] == value[name] and type(got[name]) is type(value[name])
    node = ndshm.put(Node(np.arange(3))).get()
    assert node.itself is node and node.data.tolist() == [0, 1, 2]


def test_a_large_object_is_copied_right_by_several_threads() -> None:
    arrays = [np.random.default_rng(n).integers(0, 255, (40 << 20) + n, "u1") for n in range(3)]
    text = os.urandom(20 << 20)
    threads = len(os.listdir("/proc/self/task"))
    value = ndshm.put({"arrays": arrays, "text": text}).get()
    assert all((x == y).all() for x, y in zip(arrays, value["arrays"], strict=True))
    assert value["text"] == text
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/task")) > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) <= threads


def test_a_put_lets_other_threads_run() -> None:
    source = np.ones(1 << 26)  # 512 MiB
    turns, stop = [0.0], threading.Event()

    def turn() -> None:
        while not stop.is_set():
            turns.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=turn)
    thread.start()
    start = time.monotonic()
    ref = ndshm.put(source)
    end = time.monotonic()
    stop.set()
    thread.join()
    ref.free()
    assert sum(start < moment < end for moment in turns) >= 3


def test_an_object_that_was_not_sent_goes_with_its_last_use() -> None:
    ref = ndshm.put([np.arange(1000)])
    handle, x = ref.handle, ref.get()[0]
    assert lives(handle) and ref.is_owned and ref.nbytes >= 8000
    del ref
    assert lives(handle)
    y = x[5:10]
    del x
    assert lives(handle) and y.tolist() == [5, 6, 7, 8, 9]
    del y
    assert not lives(handle)
    ref = ndshm.put("no buffers")
    handle = ref.handle
    ref.get()
    del ref
    assert not lives(handle)


def test_a_sent_object_lives_until_it_is_freed() -> None:
    ref = ndshm.put({"a": np.arange(5)})
    sent = pickle.dumps(ref)
    assert len(sent) < 80
    handle = ref.handle
    del ref
    gc.collect()
    assert lives(handle)
    received = pickle.loads(sent)
    assert not received.is_owned and received.handle == handle
    again = pickle.loads(pickle.dumps(received))
    assert copy.copy(again) is again is copy.deepcopy(again)
    assert again == received and hash(again) == hash(received) and again != ndshm.put(1)
    assert handle in repr(received) and received.table == ndshm.default()
    x = received.get()["a"]
    again.free()
    assert not lives(handle) and x.tolist() == [0, 1, 2, 3, 4]
    for call in (received.get, again.get, again.free, lambda: pickle.loads(sent)):
        with pytest.raises(ndshm.Stale, match="freed"):
            call()
    # The bytes are not another object's while the array is in use.
    others = [ndshm.put([np.full(5, 9)]) for _ in range(10)]
    assert x.tolist() == [0, 1, 2, 3, 4]
    del others


def test_a_scope_frees_what_was_sent() -> None:
    with ndshm.scope():
        kept, sent = ndshm.put(1), ndshm.put(2)
        pickle.dumps(sent)
    assert kept.get() == 1 and lives(kept) and not lives(sent)


def test_an_array_in_an_object_travels_as_its_handle() -> None:
    x = ndshm.zeros((100, 100))
    ref = ndshm.put({"x": x, "part": x[5:7]})
    assert ref.nbytes < 1000
    got = ref.get()
    assert got["x"].handle == x.handle
    got["part"][0, 0] = 5
    assert x[5, 0] == 5
    # It was sent with the object, and is not freed with it.
    handle = x.handle
    ref.free()
    del x, got, ref
    assert lives(handle)


def test_a_table_and_a_ref_in_an_object() -> None:
    inner = ndshm.put([1, 2])
    got = ndshm.put({"table": ndshm.default(), "ref": inner}).get()
    assert got["table"] == ndshm.default() and got["ref"].get() == [1, 2]


def _sum(ref: Any) -> Any:
    value = ndshm.get(ref)
    return float(value["x"].sum()), value["label"]


def _put(table: ndshm.Table, given: bool) -> Any:
    ref = table.put({"x": np.full(1000, 2.0), "label": "from a worker"})
    return ndshm.give(ref) if given else ref


def test_processes_get_the_object(context: BaseContext) -> None:
    ref = ndshm.put({"x": np.ones(10**5), "label": "ours"})
    with context.Pool(2) as pool:
        assert pool.map(_sum, [ref] * 4) == [(1e5, "ours")] * 4
        result = pool.apply(_put, (ndshm.default(), True))
        lost = pool.apply(_put, (ndshm.default(), False))
        assert lost.get()["label"] == "from a worker"
        pool.close()
        pool.join()
    ndshm.default().reap()
    # One was handed over; the other has gone with its worker.
    assert result.is_owned and result.get()["x"].sum() == 2000 and not lost.is_owned
    with pytest.raises(ndshm.Stale, match="give"):
        lost.get()
    handle = result.handle
    del result
    assert not lives(handle)


def _check(ref: Any) -> None:
    time.sleep(0.2)
    assert ref.get()["x"].sum() == 1000


def test_the_argument_of_a_process(context: BaseContext) -> None:
    # Under fork, the parent has no reference any more when the child reads the object.
    process = context.Process(  # type: ignore[attr-defined]
        target=_check, args=(ndshm.put({"x": np.ones(1000)}),)
    )
    process.start()
    gc.collect()
    others = [ndshm.put({"x": np.zeros(1000)}) for _ in range(10)]
    process.join(30)
    assert process.exitcode == 0
    del others


def test_threads_put_and_get() -> None:
    def work(n: int) -> bool:
        ref = ndshm.put({"x": np.full(n, n), "n": n})
        value = ref.get()
        return value["n"] == n and bool((value["x"] == n).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))


def test_a_detached_object_outlives_its_process(context: BaseContext) -> None:
    with context.Pool(1) as pool:
        sent = pool.apply(_put_detached, (ndshm.default(),))
        pool.close()
        pool.join()
    ndshm.default().reap()
    ref = pickle.loads(bytes.fromhex(sent))
    assert ref.get() == [1, 2, 3] and not ref.is_owned
    ref.free()


def _put_detached(table: ndshm.Table) -> str:
    ref = table.put([1, 2, 3])
    ref.detach()
    return pickle.dumps(ref).hex()


@pytest.mark.parametrize(
    "value", [lambda: 1, threading.Lock(), (n for n in range(3)), [sys.stdout], sys]
)
def test_what_cannot_be_pickled_says_so(value: Any) -> None:
    with pytest.raises(ndshm.NotPicklable, match="top level of a module") as caught:
        ndshm.put(value)
    assert isinstance(caught.value, pickle.PicklingError)
    assert caught.value.__cause__ is not None and str(type(value)) in str(caught.value)


class Fails:
    """Its pickling raises an error of its own."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("mine")


def test_an_error_of_the_object_is_passed_on() -> None:
    before = ndshm.default().handles()
    with pytest.raises(ZeroDivisionError, match="mine"):
        ndshm.put([np.zeros(100), Fails()])
    assert ndshm.default().handles() == before


def test_a_strided_buffer_is_refused() -> None:
    with pytest.raises(ndshm.NotPicklable, match="contiguous"):
        ndshm.put(pickle.PickleBuffer(memoryview(bytes(100))[::2]))


def test_allow_pickle() -> None:
    ref = ndshm.put(1)
    for call in (lambda: ref.get(allow_pickle=False), lambda: ndshm.get(ref, allow_pickle=False)):
        with pytest.raises(ndshm.PickleRefused, match="allow_pickle=True") as caught:
            call()
        assert isinstance(caught.value, ValueError) and ref.handle in str(caught.value)
    with ndshm.Table(allow_pickle=False) as table:
        assert not table.allow_pickle
        with pytest.raises(ndshm.PickleRefused, match="allow_pickle=True"):
            table.put(1)
        copy = pickle.loads(pickle.dumps(table))
        assert copy == table and not copy.allow_pickle
        assert (table.zeros(3) == 0).all()


def test_get_of_something_else() -> None:
    with pytest.raises(ndshm.TypeMismatch, match="an array"):
        ndshm.get(ndshm.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NoneType"):
        ndshm.get(None)  # type: ignore[arg-type]
    # The handle of an array where that of an object belongs, and the other way round.
    x, ref = ndshm.zeros(3), ndshm.put(1)
    of_array, of_object = x.__reduce_ex__(5)[1][0], ref.__reduce__()[1][0]
    with pytest.raises(ndshm.TypeMismatch, match=f"{x.handle} is an array"):
        ndshm._attach_object(of_array)
    with pytest.raises(ndshm.TypeMismatch, match="pickled object"):
        ndshm._attach(of_object)
    for damaged in (b"", of_object[:-1], of_object[:10]):
        with pytest.raises(ValueError, match="damaged"):
            ndshm._attach_object(damaged)


def test_a_ref_of_another_table() -> None:
    table = ndshm.Table()
    ref = table.put([1])
    assert ref.table == table and ndshm.get(ref) == [1]
    state = ref.__reduce__()[1][0]
    # The handle is not one of the default table.
    own = ndshm.put(1).__reduce__()[1][0]
    mixed = own[:9] + state[9:17] + own[17:]
    with pytest.raises(ndshm.Stale):
        ndshm._attach_object(mixed)
    table.close()
    for call in (ref.get, ref.free, lambda: pickle.dumps(ref), lambda: table.put(1)):
        with pytest.raises(ndshm.Closed):
            call()


def test_a_full_table() -> None:
    with ndshm.Table(capacity=1 << 20) as table:
        with pytest.raises(ndshm.Full, match="capacity=") as caught:
            table.put(np.zeros(1 << 20))
        assert isinstance(caught.value, MemoryError)
        assert table.put([1]).get() == [1]


class Forged:
    """An array whose pickle describes other elements than it has."""

    def __init__(self, *description: Any) -> None:
        self.description = description

    def __reduce__(self) -> Any:
        buffer = pickle.PickleBuffer(bytes(24))
        return _ndshm._c_array, (buffer, *self.description)


def test_damaged_objects_are_refused() -> None:
    for description in [(0, 4), (0, 2**62), (200, 3), (np.dtype("O"), 3), (np.dtype("2f8"), 3)]:
        ref = ndshm.put(Forged(*description))
        with pytest.raises(ValueError, match="damaged"):
            ref.get()
    assert ndshm.put(Forged(0, 3)).get().tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="negative"):
        ndshm.put(Forged(0, -3)).get()
    ref = _ndshm.store(ndshm.default(), [b"no pickle"], [])
    with pytest.raises(pickle.UnpicklingError):
        ref.get()


def test_a_damaged_header_is_refused() -> None:
    ref = ndshm.put({"x": np.arange(3)})
    x = ref.get()["x"]
    header = x.ctypes.data - (ref.nbytes - x.nbytes)
    words = (ctypes.c_uint64 * 4).from_address(header)
    good = list(words)
    assert good[0] == 1 and good[2:] == [1, x.nbytes]
    for place, values in enumerate([(0, 2, 2**63), (0, good[1] + 64, 2**64 - 1, 2**63),
                                    (0, 2, 100, 2**61, 2**64 - 1), (0, 25, 2**64 - 8, 2**63)]):  # fmt: skip
        for value in values:
            words[place] = value
            with pytest.raises(ValueError, match="damaged"):
                ref.get()
            words[place] = good[place]
    assert ref.get()["x"].tolist() == [0, 1, 2]


def test_an_unknown_class_has_a_note() -> None:
    sent = pickle.dumps(Node(1)).replace(b"Node", b"Nope")
    ref = _ndshm.store(ndshm.default(), [sent], [])
    with pytest.raises(AttributeError) as caught:
        ref.get()
    assert any("module that both programs import" in note for note in caught.value.__notes__)


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(
        {
            "number": np.arange(1000.0), "count": np.arange(1000), "when": pandas.date_range(
                "2026-01-01", periods=1000, freq="s"), "name": ["a", "b"] * 500,
        }
    )  # fmt: skip
    ref = ndshm.put(frame)
    got, again = ref.get(), ref.get()
    pandas.testing.assert_frame_equal(got, frame)
    for column in ("number", "count"):
        data, same = got[column].to_numpy(), again[column].to_numpy()
        assert data.ctypes.data == same.ctypes.data and not data.flags.writeable
    assert got["number"].mean() == frame["number"].mean()
    with pytest.raises(ValueError, match="read-only"):
        got.loc[0, "number"] = 5
    own = got.copy()
    own.loc[0, "number"] = 5
    assert again["number"][0] == 0
    series = ndshm.put(frame["when"]).get()
    pandas.testing.assert_series_equal(series, frame["when"])


def test_pyarrow() -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table({"x": np.arange(1000.0), "name": ["a", None] * 500, "list": [[1], []] * 500})
    ref = ndshm.put(table)
    got, again = ref.get(), ref.get()
    assert got.equals(table)
    for column in range(3):
        buffers, same = ([b.address for b in one.column(column).chunk(0).buffers() if b is not None]
                         for one in (got, again))  # fmt: skip
        assert buffers == same and buffers
    column = got.column("x")
    handle = ref.handle
    del got, again, ref
    assert lives(handle) and column.to_numpy().sum() == 499500
    del column
    gc.collect()
    assert not lives(handle)
