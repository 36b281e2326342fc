"""What numpy's `test_memmap.py` asks of a memmap, asked of `ndshm.ndarray`.

judges/README.md lists its tests: those that are here, and those that do not apply.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import ndshm

SHAPE = (3, 4)
DATA = np.arange(12, dtype="f4").reshape(SHAPE)


@pytest.fixture
def x() -> Any:
    return ndshm.array(DATA)


def has_bytes_of(view: Any, x: Any) -> bool:
    """Whether a view is known to share the bytes of an array, and is sent as its handle."""
    return bool(view.handle == x.handle and np.may_share_memory(view, x))


def test_roundtrip(tmp_path: Path) -> None:
    x = ndshm.zeros(SHAPE, "f4")
    x[:] = DATA
    np.save(tmp_path / "x.npy", x)
    del x
    for readonly in (False, True):
        again = ndshm.load_npy(tmp_path / "x.npy", readonly=readonly)
        assert_array_equal(again, DATA)
        assert again.flags.writeable is not readonly


def test_del() -> None:
    """A view that goes does not take the memory along, nor does the array that it is of."""
    base = ndshm.zeros(SHAPE, "f4")
    base[0] = 5
    view = base[0:1]
    assert (view[0] == 5).all()
    del view
    base[0] = 6
    assert (base[0] == 6).all()
    view = base[0:1]
    del base
    assert (view[0] == 6).all()


def test_arithmetic_drops_references(x: Any) -> None:
    result = x + 10
    assert type(result) is np.ndarray and not np.may_share_memory(result, x)


def test_indexing_drops_references(x: Any) -> None:
    result = x[(1, 2), (2, 3)]
    assert not np.may_share_memory(result, x)
    # It is in no table. So its bytes are pickled.
    assert type(pickle.loads(pickle.dumps(result))) is np.ndarray


def test_slicing_keeps_references(x: Any) -> None:
    assert has_bytes_of(x[:2, :2], x)


def test_view(x: Any) -> None:
    new1 = x.view()
    new2 = new1.view()
    assert new1.base is x and new2.base is x
    assert np.asarray(x).base is x
    assert has_bytes_of(new2, x)


def test_ufunc_return_ndarray(x: Any) -> None:
    for unary in (np.sum, np.average, np.prod, np.mean, np.max):
        result = unary(x)
        assert np.isscalar(result)
        assert type(result) is type(unary(DATA))
        assert type(unary(x, axis=0)) is np.ndarray
        assert type(unary(x, axis=1)) is np.ndarray
    for binary in (np.add, np.subtract, np.multiply):
        assert type(binary(x, DATA)) is np.ndarray
        assert type(binary(DATA, x)) is np.ndarray
        assert type(binary(x, x)) is np.ndarray
    same = x
    x += 1
    assert x is same and type(x) is ndshm.ndarray
    np.add(x, 1, out=x)
    assert type(x) is ndshm.ndarray
    assert_array_equal(x, DATA + 2)


def test_getitem(x: Any) -> None:
    part = x[1:, :-1]
    assert type(part) is ndshm.ndarray and has_bytes_of(part, x)
    # Fancy indexing returns a copy, which shares nothing.
    assert not np.may_share_memory(x[[0, 1]], x)
    with pytest.raises(ndshm.NdshmError, match="no table"):
        x[[0, 1]].handle


def test_subclass() -> None:
    class Subclass(ndshm.ndarray):
        pass

    x = ndshm.array(DATA).view(Subclass)
    # The results of subclasses of memmap are of the subclass. Here they are plain arrays, as those of
    # the class are: they are in no table.
    assert type(np.sum(x, axis=0)) is np.ndarray
    assert type(x + 1) is np.ndarray
    assert type(x[1:, :-1]) is Subclass
    assert type(x[[0, 1]]) is Subclass
    assert has_bytes_of(x[1:], x)


def test_empty_array() -> None:
    for shape in [(0, 4), (3, 0), 0]:
        x = ndshm.zeros(shape)
        again = pickle.loads(pickle.dumps(x))
        assert again.shape == x.shape and again.size == 0


def test_shape_type() -> None:
    for shape in (3, SHAPE, list(SHAPE), tuple(np.asarray(SHAPE)), np.int64(3)):
        assert_array_equal(ndshm.zeros(shape).shape, np.zeros(shape).shape)
