"""Names: a table as a mapping that programs share."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, MutableMapping
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm
from test_processes import run


@pytest.fixture
def table() -> Iterator[ndshm.Table]:
    """A new table, which has to be empty at the end but for the values of names."""
    with ndshm.Table() as made:
        yield made
        made.clear()
        assert not made.handles()


def test_a_table_is_a_mapping(table: ndshm.Table) -> None:
    assert isinstance(table, MutableMapping) and not len(table) and list(table) == []
    assert table, "a table is true, also without names"
    table["a"] = {"x": 1}
    table["b"] = np.arange(3)
    table.update({"c/1": "text", "c/2": None})
    assert list(table) == table.names() == ["a", "b", "c/1", "c/2"] and len(table) == 4
    assert table.names("c/") == ["c/1", "c/2"]
    assert table["a"] == {"x": 1} and table["c/1"] == "text" and table["c/2"] is None
    assert "a" in table and "z" not in table and 3 not in table
    assert table.get("z") is None and table.get("z", 5) == 5
    assert dict(table.items())["a"] == {"x": 1} and len(list(table.values())) == 4
    del table["a"]
    assert "a" not in table
    assert table.pop("c/1") == "text" and table.pop("c/1", 7) == 7
    assert table.setdefault("c/2", 8) is None and table.setdefault("d", [9]) == [9]
    for call in (lambda: table["z"], lambda: table.__delitem__("z"), lambda: table.pop("z")):
        with pytest.raises(KeyError, match="z") as caught:
            call()
        assert isinstance(caught.value, ndshm.NameNotFound)
    assert table.popitem()[0] == "b"
    table.clear()
    with pytest.raises(KeyError):
        table.popitem()
    assert not table.names() and not table.handles()


def test_arrays_stay_arrays(table: ndshm.Table) -> None:
    source = np.arange(12.0).reshape(3, 4)
    table["x"] = source
    x = table["x"]
    assert type(x) is ndshm.ndarray and (x == source).all() and x.table == table
    x[0, 0] = 5
    assert table["x"][0, 0] == 5 and source[0, 0] == 0
    # The name keeps it, and not this process.
    assert not x.is_owned
    for value in (np.asfortranarray(source), np.array(3), np.array(["a", "bc"]), np.zeros((0, 2)),
                  np.array(["2026-01-01"], "M8[D]"), np.zeros(2, [("a", "i4"), ("b", "f8")])):  # fmt: skip
        table["y"] = value
        y = table["y"]
        assert type(y) is ndshm.ndarray and y.dtype == value.dtype and y.shape == value.shape
        assert y.flags.fnc == value.flags.fnc
        assert y.tobytes() == value.tobytes()


def test_other_values_are_objects(table: ndshm.Table) -> None:
    for value in (np.array([None, "a"], object), np.ma.array([1, 2], mask=[0, 1]), np.float64(3),
                  np.zeros([1] * 9), [np.zeros(3)]):  # fmt: skip
        table["x"] = value
        assert type(table["x"]) is type(value)
    assert table["x"][0].tolist() == [0, 0, 0]
    with pytest.raises(ndshm.NotPicklable):
        table["x"] = lambda: 1
    assert table["x"][0].tolist() == [0, 0, 0]


def test_a_new_value_frees_the_old_one(table: ndshm.Table) -> None:
    table["x"] = np.zeros(1000)
    old = table["x"]
    table["x"] = np.ones(1000)
    assert old.handle not in table.handles() and (old == 0).all()
    table["x"] = {"data": np.arange(1000)}
    data = table["x"]["data"]
    table["x"] = 3
    assert table["x"] == 3 and (data == np.arange(1000)).all()
    assert len(table.handles()) == 1
    del table["x"]
    assert not table.handles()


def test_an_array_of_the_table_is_named_without_a_copy(table: ndshm.Table) -> None:
    x = table.zeros(1000)
    table["x"] = x
    assert table["x"].handle == x.handle and not x.is_owned
    # One that has a name already is another's: a second name is one of a copy.
    table["y"] = x
    assert table["y"].handle != x.handle
    del table["y"]
    table["x"] += 5
    assert table["x"].handle == x.handle and (x == 5).all()
    table["x"] = x
    assert table["x"].handle == x.handle
    part, fixed = table.zeros(10), table.zeros(10)
    fixed.flags.writeable = False
    for name, value in (("part", part[2:]), ("fixed", fixed), ("other", ndshm.zeros(3))):
        table[name] = value
        assert table[name].handle != value.handle and table[name].shape == value.shape
    table["x"] = 1
    assert (x == 5).all() and x.handle not in table.handles()


def test_a_name_keeps_what_a_scope_would_free() -> None:
    table = ndshm.default()
    with table.scope():
        x = table.zeros(3)
        pickle.dumps(x)
        table["test-scope"] = x
        table["test-object"] = [1]
    assert table["test-scope"].handle == x.handle and table["test-object"] == [1]
    del table["test-scope"], table["test-object"]


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128])
def test_names_of_wrong_length(table: ndshm.Table, name: str) -> None:
    for value in (1, np.zeros(3), table.zeros(3)):
        with pytest.raises(ndshm.InvalidName, match="1 to 255 bytes") as caught:
            table[name] = value
        assert isinstance(caught.value, ValueError)
    own = table.zeros(3)
    with pytest.raises(ndshm.InvalidName):
        table[name] = own
    assert own.is_owned, "an array that has got no name stays as it was"
    del own, value, caught
    with pytest.raises(KeyError, match="1 to 255 bytes"):
        table[name]
    assert name not in table and table.get(name, 3) == 3 and not table.handles()


def test_a_sent_array_without_its_name_is_still_sent(table: ndshm.Table) -> None:
    with table.scope():
        x = table.zeros(3)
        sent = pickle.dumps(x)
        with pytest.raises(ndshm.InvalidName):
            table[""] = x
        handle = x.handle
        del x
        assert pickle.loads(sent).handle == handle
    assert handle not in table.handles()


def test_names_that_are_none(table: ndshm.Table) -> None:
    for name in (3, None, b"x"):
        with pytest.raises(TypeError):
            table[name] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            table[name]  # type: ignore[index]
    with pytest.raises(UnicodeEncodeError):
        table["\ud800"] = 1
    table["a/b c\n\0ü"] = 1
    assert table.names() == ["a/b c\n\0ü"]


def test_allow_pickle(table: ndshm.Table) -> None:
    table["object"], table["array"] = [1], np.arange(3)
    strict = ndshm.Table(_address=table.__reduce__()[1][0], allow_pickle=False)
    assert strict["array"].tolist() == [0, 1, 2] and "object" in strict
    strict["more"] = np.zeros(3)
    for call in (lambda: strict["object"], lambda: strict.pop("object"),
                 lambda: strict.update(a=[1])):  # fmt: skip
        with pytest.raises(ndshm.PickleRefused, match="allow_pickle=True"):
            call()
    assert table["object"] == [1], "nothing was removed"
    del strict["object"]


def test_a_value_that_cannot_be_loaded_keeps_its_name(table: ndshm.Table) -> None:
    table["x"] = Broken()
    for call in (lambda: table["x"], lambda: table.pop("x")):
        with pytest.raises(ZeroDivisionError):
            call()
    assert "x" in table


def _fail() -> None:
    raise ZeroDivisionError


class Broken:
    """An object that cannot be loaded."""

    def __reduce__(self) -> Any:
        return _fail, ()


def test_unrelated_programs() -> None:
    name = f"python-names-{os.getpid()}"
    with ndshm.open(name, "x") as table:
        table["x"] = np.zeros((2, 3))
        table["settings"] = {"rate": 0.5, "names": ["a"], "data": np.arange(10)}
        out = run(f"""
            import ndshm, numpy as np
            t = ndshm.open({name!r}, "r")
            t["x"][1] = 7
            print(sorted(t), t["settings"]["rate"], t["settings"]["data"].sum())
            t["result"] = {{"done": True, "data": np.ones(3)}}
            t["more"] = np.ones(3)
            t["settings"] = 5
        """)
        assert out == "['settings', 'x'] 0.5 45\n"
        table.reap()
        # What has a name outlives the program that made it.
        assert table["x"].tolist() == [[0, 0, 0], [7, 7, 7]] and table["settings"] == 5
        assert table["result"]["data"].sum() == 3 and table["more"].sum() == 3
    assert name not in os.listdir("/dev/shm")


def _count(table: ndshm.Table, n: int) -> str:
    count = table.setdefault("count", np.zeros(1, int))
    with count.write(timeout=30):
        count += n
    table[f"worker/{n}"] = {"n": n, "data": np.full(100, n)}
    return str(count.handle)


def test_processes_share_names(context: BaseContext, table: ndshm.Table) -> None:
    with context.Pool(4) as pool:
        handles = pool.starmap(_count, [(table, n) for n in range(20)])
        pool.close()
        pool.join()
    assert len(set(handles)) == 1 and table["count"].tolist() == [190]
    assert len(table.names("worker/")) == 20
    assert all(table[f"worker/{n}"]["data"].sum() == 100 * n for n in range(20))


def _replace(table: ndshm.Table) -> None:
    for n in range(100_000):
        table["x"] = {"n": n, "data": np.full(100, n)}
        table["y"] = np.full(100, n)


def test_a_process_replaces_values(context: BaseContext) -> None:
    """A reader finds a whole value at every moment, also if the writer is killed."""
    with ndshm.Table() as table:
        table["x"], table["y"] = {"n": 0, "data": np.zeros(100)}, np.zeros(100)
        writer = context.Process(target=_replace, args=(table,))  # type: ignore[attr-defined]
        writer.start()
        seen = set()
        deadline = time.monotonic() + 30
        while len(seen) < 300 and time.monotonic() < deadline:
            value, y = table["x"], table["y"]
            assert (value["data"] == value["n"]).all() and (y == y[0]).all()
            seen.add(value["n"])
        writer.kill()
        writer.join(30)
        assert len(seen) >= 300
        table.reap()
        assert (table["x"]["data"] == table["x"]["n"]).all() and len(table["y"]) == 100
        # The kill may have left a value that has no name yet, or the old one, which has none more.
        assert table.names() == ["x", "y"] and len(table.handles()) in (2, 3)


def _put_for_ever(table: ndshm.Table) -> None:
    while True:
        table.put(np.zeros(1 << 22))


def test_a_process_is_killed_in_put(context: BaseContext, table: ndshm.Table) -> None:
    for delay in (0.05, 0.1, 0.2):
        process = context.Process(  # type: ignore[attr-defined]
            target=_put_for_ever, args=(table,)
        )
        process.start()
        deadline = time.monotonic() + 30
        while not table.handles() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join(30)
        table.reap()
        assert not table.handles()
    assert table.put([1]).get() == [1]


def test_threads_replace_a_value(table: ndshm.Table) -> None:
    """A reader finds a whole value at every moment."""
    table["x"] = {"n": 0, "data": np.zeros(1000)}
    stop, errors = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                value = table["x"]
                assert (value["data"] == value["n"]).all()
            except Exception as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(300):
        table["x"] = {"n": n, "data": np.full(1000, n)}
    stop.set()
    for reader in readers:
        reader.join(30)
    assert not errors


def test_an_iteration_leaves_out_what_is_removed(table: ndshm.Table) -> None:
    table.update({str(n): n for n in range(5)})
    seen = []
    for name, value in table.items():
        seen.append((name, value))
        if name == "1":
            del table["2"], table["3"]
    assert seen == [("0", 0), ("1", 1), ("4", 4)] and list(table.values()) == [0, 1, 4]


def _take(table: ndshm.Table, _: int) -> list[Any]:
    taken = []
    while True:
        try:
            taken.append(table.popitem()[1]["n"])
        except KeyError:
            return taken


def test_an_item_is_popped_once(context: BaseContext, table: ndshm.Table) -> None:
    table.update({str(n): {"n": n, "data": np.zeros(3)} for n in range(200)})
    with context.Pool(3) as pool:
        taken = pool.starmap(_take, [(table, n) for n in range(3)])
        pool.close()
        pool.join()
    assert sorted(n for part in taken for n in part) == list(range(200))


def test_a_closed_table() -> None:
    table = ndshm.Table()
    table["x"] = 1
    table.close()
    for call in (lambda: table["x"], lambda: table.update(x=2), table.names, table.clear,
                 lambda: "x" in table, lambda: table.pop("x")):  # fmt: skip
        with pytest.raises(ndshm.Closed):
            call()


def _tool() -> str | None:
    """Return the path of the tool `ndshm`, if it was built."""
    target = Path(__file__).parents[2] / "target"
    built = [target / profile / "ndshm" for profile in ("release", "debug")]
    found = [str(path) for path in built if path.exists()]
    return os.environ.get("NDSHM_TOOL") or (found[0] if found else shutil.which("ndshm"))


def test_the_tool_finds_the_values() -> None:
    tool = _tool()
    if tool is None:
        pytest.skip("the tool is not built: cargo build -p ndshm-cli")
    name = f"python-names-{os.getpid()}"
    with ndshm.open(name, "x") as table:
        table["weights"] = np.arange(6.0).reshape(2, 3)
        table["settings"] = {"rate": 0.5}

        def call(*arguments: str) -> str:
            done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            return done.stdout

        listed = call("show", name)
        assert "weights" in listed and "settings" in listed and "Python object" in listed
        assert "f64" in listed and "5" in call("get", name, "weights", "1,2")


def test_a_table_that_refuses_objects_refuses_them_by_its_arrays() -> None:
    name = f"ndshm-pytest-{os.getpid()}-refuses"
    with ndshm.open(name, "x") as table:
        table["x"], table["object"] = np.zeros(3), {"a": 1}
        out = run(f"""
            import ndshm
            t = ndshm.open({name!r}, "r", allow_pickle=False)
            try:
                t["x"].table["object"]
            except ndshm.PickleRefused:
                print("refused")
        """)
        assert out == "refused\n"
        table.clear()
