"""Tables that are opened with the mode "ro": a program may look, and not write."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ndshm
from test_processes import run

NAME = f"ndshm-test-readonly-{os.getpid()}"


@pytest.fixture
def table() -> Iterator[ndshm.Table]:
    """A table with an array, and objects of which one has a handle in it."""
    with ndshm.open(NAME, "x") as made:
        made["x"] = np.arange(6.0).reshape(2, 3)
        made["plain"] = [1, 2]
        kept = made.zeros(4)
        kept.detach()
        made["nested"] = {"array": kept, "own": np.zeros(4), "ref": made["x"].handle}
        yield made


@pytest.fixture
def seen(table: ndshm.Table) -> ndshm.Table:
    return ndshm.open(NAME, mode="ro")


def cannot_be_written(array: Any) -> bool:
    """Whether numpy refuses all ways to write an array."""
    attempts: list[Callable[[], Any]] = [
        lambda: array.__setitem__(..., 0),
        lambda: array.fill(0),
        lambda: np.add(array, 1, out=array),
        lambda: array.flags.__setattr__("writeable", True),
        lambda: array.setflags(True),
        lambda: array.view(np.ndarray).setflags(True),
        lambda: np.asarray(array)[...].setflags(True),
        lambda: array.T.__setitem__(..., 0),
        lambda: memoryview(array).__setitem__((0,) * array.ndim, 1.0),
    ]
    if isinstance(array, ndshm.ndarray):
        # Where it is received, it is the same array.
        attempts.append(lambda: pickle.loads(pickle.dumps(array)).setflags(True))
        attempts.append(lambda: pickle.loads(pickle.dumps(array[:1])).fill(0))
    for attempt in attempts:
        with pytest.raises((ValueError, TypeError), match="read-only|writeable|WRITEABLE"):
            attempt()
    return True


def test_it_looks_like_the_table(table: ndshm.Table, seen: ndshm.Table) -> None:
    assert seen.readonly and not table.readonly and seen == table
    assert "read-only" in repr(seen) and seen.name == NAME
    assert dict(seen.items())["plain"] == [1, 2] and len(seen) == 3 and "x" in seen
    assert seen["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    table["x"][0, 0] = 9
    assert seen["x"][0, 0] == 9, "it is the same memory"
    assert seen.get("nobody", 5) == 5 and seen.setdefault("plain", 5) == [1, 2]
    assert seen.names("pl") == ["plain"] and seen.info("x") == table.info("x")
    assert seen.stat() == table.stat() and seen.verify().is_clean
    with pytest.raises(KeyError):
        seen["nobody"]


def test_its_arrays_cannot_be_written(table: ndshm.Table, seen: ndshm.Table) -> None:
    x, nested = seen["x"], seen["nested"]
    assert type(x) is ndshm.ndarray and type(nested["array"]) is ndshm.ndarray
    for array in (x, nested["array"], nested["own"], x[1:], x.T, *seen["x"]):
        assert cannot_be_written(array)
    with x.read() as leased:
        assert cannot_be_written(leased.view())
    assert copy.copy(x).flags.writeable and (x + 1).flags.writeable
    assert table["x"].flags.writeable and table["nested"]["array"].flags.writeable
    assert table["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


CHANGES: dict[str, Callable[[ndshm.Table], Any]] = {
    "set": lambda t: t.__setitem__("y", np.zeros(3)),
    "set an object": lambda t: t.__setitem__("y", 1),
    "replace by itself": lambda t: t.__setitem__("plain", t["x"]),
    "del": lambda t: t.__delitem__("x"),
    "pop": lambda t: t.pop("x"),
    "pop an object": lambda t: t.pop("plain"),
    "popitem": lambda t: t.popitem(),
    "clear": lambda t: t.clear(),
    "setdefault": lambda t: t.setdefault("y", 1),
    "update": lambda t: t.update(y=1),
    "zeros": lambda t: t.zeros(3),
    "empty": lambda t: t.empty(3),
    "full": lambda t: t.full(3, 1),
    "array": lambda t: t.array([1]),
    "zeros_like": lambda t: t.zeros_like([1]),
    "put": lambda t: t.put(1),
    "reap": lambda t: t.reap(),
    "trim": lambda t: t.trim(),
    "free": lambda t: t["x"].free(),
    "ndshm.free": lambda t: ndshm.free(t["x"][1:]),
    "detach": lambda t: t["x"].detach(),
    "give": lambda t: ndshm.give(t["x"]),
    "write": lambda t: t["x"].write(),
    "recover": lambda t: t["x"].recover(),
    "clear_poison": lambda t: t["x"].clear_poison(),
    "free what an object has": lambda t: t["nested"]["array"].free(),
    "the table of an array": lambda t: t["x"].table.zeros(3),
    "the table of an array in an object": lambda t: t["nested"]["array"].table.zeros(3),
    "a sent table": lambda t: pickle.loads(pickle.dumps(t)).zeros(3),
    "a pool": lambda t: ndshm.Pool(1, t).close(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_refused(table: ndshm.Table, seen: ndshm.Table, change: str) -> None:
    def contents() -> Any:
        return [(info.handle, info.names, info.owner) for info in table.arrays()]

    before = contents()
    with pytest.raises(ndshm.ReadOnly, match=f'ndshm.open."{NAME}", "r"') as caught:
        CHANGES[change](seen)
    assert isinstance(caught.value, ValueError)
    del caught
    assert contents() == before


def test_the_remedy_works(table: ndshm.Table, seen: ndshm.Table) -> None:
    again = ndshm.open(NAME, "r")
    again["x"][0] = 7
    assert seen["x"][0].tolist() == [7, 7, 7]
    with again["x"].write():
        pass


def test_refs_found_in_objects(table: ndshm.Table, seen: ndshm.Table) -> None:
    ref = table.put({"z": 1})
    ref.detach()
    table["ref"] = [ref]
    [found] = seen["ref"]
    assert found.get() == {"z": 1} and found.table.readonly
    for change in (found.free, found.detach, lambda: ndshm.give(found)):
        with pytest.raises(ndshm.ReadOnly):
            change()
    [found] = table["ref"]
    found.free()


def test_what_is_given_in_an_object_is_not_adopted(table: ndshm.Table, seen: ndshm.Table) -> None:
    given = ndshm.give(table.zeros(3))
    table["given"] = [given]
    handle = given.handle
    del given
    found = seen["given"][0]
    assert not found.is_owned and found.info().owner is None
    del found
    assert handle in table.handles()
    assert table["given"][0].is_owned


class _Makes:
    """An object that makes an array when it is loaded."""

    def __reduce__(self) -> Any:
        return ndshm.full, (3, 1)


def test_loading_ends_with_the_call(table: ndshm.Table, seen: ndshm.Table) -> None:
    table["makes"] = _Makes()
    made = seen["makes"]
    assert made.is_owned and made.flags.writeable, "it is not of the table"
    table["broken"] = [1]
    pickled = pickle.dumps(table["x"])
    for _ in range(2):
        with pytest.raises(ndshm.NameNotFound):
            seen["nobody"]
        assert pickle.loads(pickled).flags.writeable


def test_another_program_looks(table: ndshm.Table) -> None:
    seen = run(f"""
        import ndshm
        t = ndshm.open({NAME!r}, "ro")
        print(t["x"].sum(), t["nested"]["array"].flags.writeable, t.info("x").state)
        try:
            t["x"][0, 0] = 1
        except ValueError as error:
            print(error)
        try:
            t["y"] = 1
        except ndshm.ReadOnly as error:
            print(type(error).__name__)
    """)
    assert seen == "15.0 False idle\nassignment destination is read-only\nReadOnly\n"
    assert "y" not in table


def test_only_a_table_that_exists_can_be_looked_at() -> None:
    with pytest.raises(ndshm.NameNotFound):
        ndshm.open(NAME + "-none", "ro")
    with pytest.raises(ValueError, match='"ro"'):
        ndshm.Table(mode="ro")
    with pytest.raises(ValueError, match="'ro'"):
        ndshm.open(NAME, "rw")


def test_tables_and_refs_in_objects(table: ndshm.Table, seen: ndshm.Table) -> None:
    ref = table.put({"x": table["x"]})
    table["objects"] = {"table": table, "ref": ref}
    found = seen["objects"]
    assert found["table"].readonly and found["table"] == table
    assert cannot_be_written(found["table"]["x"])
    assert cannot_be_written(found["ref"].get()["x"])
    sent = pickle.loads(pickle.dumps(found))
    assert sent["table"].readonly and sent["ref"].table.readonly
    assert cannot_be_written(sent["ref"].get()["x"])
    with pytest.raises(ndshm.ReadOnly):
        sent["ref"].free()
    assert not table["objects"]["table"].readonly
    table["objects"]["ref"].free()


def test_a_sent_array_leads_to_a_table_that_is_read_only(
    table: ndshm.Table, seen: ndshm.Table
) -> None:
    for array in (seen["x"], seen["x"][1:], pickle.loads(pickle.dumps(seen["x"]))):
        sent = pickle.loads(pickle.dumps(array))
        assert sent.table.readonly and cannot_be_written(sent.table["x"])
        with pytest.raises(ndshm.ReadOnly):
            sent.free()
    assert not pickle.loads(pickle.dumps(table["x"])).table.readonly


def _find(name: str) -> Any:
    return ndshm.open(name, "r")["x"]


class _Finds:
    """An object that opens a table by itself when it is loaded."""

    def __reduce__(self) -> Any:
        return _find, (NAME,)


def test_a_table_that_an_object_opens_is_its_own(table: ndshm.Table, seen: ndshm.Table) -> None:
    table["finds"] = [_Finds(), table["x"]]
    own, found = seen["finds"]
    assert own.flags.writeable and not own.table.readonly
    assert cannot_be_written(found)
