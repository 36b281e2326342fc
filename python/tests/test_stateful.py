"""Random programs against a model: plain numpy arrays, and the rules of leases and ownership."""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import ndshm

Item = TypeVar("Item")
Mode = Literal["read", "write", "recover"]

DTYPES = ["f8", "i4", "?", "c8", "u1", ">f4", "S3", "M8[s]", [("a", "f8", (2,)), ("b", "i2")]]


@dataclass
class Shared:
    """An array of the table, and what is known of it."""

    handle: str
    sent: bool = False
    freed: bool = False
    poisoned: bool = False
    readers: int = 0
    writer: bool = False

    def refusal(self, mode: Mode) -> type[Exception] | None:
        """Return the exception that a lease has to raise."""
        if self.freed:
            return ndshm.Stale
        if self.writer or (self.readers and mode != "read"):
            return ndshm.Busy
        if self.poisoned and mode != "recover":
            return ndshm.Poisoned
        return None


@dataclass
class View:
    """A view of an array, and the same view of its model."""

    of: Shared
    real: Any
    model: Any


@dataclass
class Pickled:
    """A pickle of a view, and the view of the model."""

    of: Shared
    text: bytes
    model: Any


@dataclass
class Held:
    """A lease that is held."""

    of: Shared
    lease: Any
    mode: Mode
    real: Any
    model: Any


def same(real: Any, model: Any) -> None:
    """Check that two arrays have the same bytes and layout."""
    assert (real.shape, real.dtype) == (model.shape, model.dtype)
    if model.size:
        assert real.strides == model.strides
    assert real.flags.writeable == model.flags.writeable
    assert real.tobytes() == model.tobytes()


def pick(data: st.DataObject, items: list[Item]) -> Item:
    """Draw an item by its index: hypothesis keeps what it draws, and a view has to go."""
    return items[data.draw(st.integers(0, len(items) - 1))]


def end_of(pid: int) -> int:
    """Wait for a child, and return its status."""
    deadline = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child did not end")
        time.sleep(0.0005)


class Programs(RuleBasedStateMachine):
    """What one process does with the arrays of a table, with forks."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ndshm.Table()
        self.arrays: list[Shared] = []
        self.views: list[View] = []
        self.pickles: list[Pickled] = []
        self.leases: list[Held] = []

    def teardown(self) -> None:
        self.leases.clear()
        self.views.clear()
        self.table.close()

    @rule(
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        dtype=st.sampled_from(DTYPES),
        order=st.sampled_from("CF"),
        value=st.integers(0, 1),
        readonly=st.booleans(),
    )
    def create(
        self, shape: tuple[int, ...], dtype: Any, order: Literal["C", "F"], value: int, readonly: bool
    ) -> None:
        model = np.full(shape, value, dtype, order)
        real = self.table.array(model, readonly=readonly)
        if model.flags.f_contiguous and model.flags.c_contiguous:
            # One order is as good as the other: the strides of axes of length 1 may differ.
            model = np.full(shape, value, dtype, "C")
        model.flags.writeable = not readonly
        shared = Shared(real.handle)
        self.arrays.append(shared)
        self.views.append(View(shared, real, model))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        view = pick(data, self.views)
        names = view.model.dtype.names
        index = data.draw(
            hnp.basic_indices(view.model.shape, max_dims=6, allow_newaxis=True)
            if not names
            else st.sampled_from(names) | hnp.basic_indices(view.model.shape)
        )
        self.derive(view, lambda array: array[index])

    @precondition(lambda self: self.views)
    @rule(data=st.data(), how=st.sampled_from(["T", "view", "flip", "ravel"]))
    def derived(self, data: st.DataObject, how: str) -> None:
        view = pick(data, self.views)
        if how == "T":
            self.derive(view, lambda array: array.T)
        elif how == "view":
            self.derive(view, lambda array: array.view())
        elif how == "flip":
            self.derive(view, lambda array: np.flip(array))
        elif view.model.flags.c_contiguous:
            self.derive(view, lambda array: array.reshape(-1))

    def derive(self, view: View, step: Any) -> None:
        real, model = step(view.real), step(view.model)
        # An index of single elements gives a scalar.
        if isinstance(model, np.ndarray) and model.ndim <= 8 and len(self.views) < 40:
            assert type(real) is ndshm.ndarray
            self.views.append(View(view.of, real, model))

    @precondition(lambda self: self.views)
    @rule(data=st.data(), value=st.integers(0, 100))
    def write(self, data: st.DataObject, value: int) -> None:
        view = pick(data, self.views)
        if view.model.flags.writeable:
            view.real[...] = value
            view.model[...] = value
        else:
            with pytest.raises(ValueError, match="read-only"):
                view.real[...] = value
            with pytest.raises(ValueError, match="WRITEABLE"):
                view.real.flags.writeable = True

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        view = pick(data, self.views)
        text = pickle.dumps(view.real)
        view.of.sent = True
        self.pickles.append(Pickled(view.of, text, view.model))

    @precondition(lambda self: self.pickles)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        pickled = pick(data, self.pickles)
        if pickled.of.freed:
            with pytest.raises(ndshm.Stale):
                pickle.loads(pickled.text)
        else:
            real = pickle.loads(pickled.text)
            assert real.handle == pickled.of.handle and real.table == self.table
            self.views.append(View(pickled.of, real, pickled.model))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.views) - 1))
        shared = self.views.pop(at).of
        self.last_view(shared)

    def last_view(self, shared: Shared) -> None:
        """An array that was never sent goes with its last view."""
        left = [view.of for view in self.views] + [held.of for held in self.leases]
        if not shared.sent and all(other is not shared for other in left):
            shared.freed = True

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        view = pick(data, self.views)
        self.free_view(view)

    def free_view(self, view: View) -> None:
        shared = view.of
        if shared.freed:
            with pytest.raises(ndshm.Stale):
                view.real.free()
        else:
            view.real.free()
            shared.freed = True

    @precondition(lambda self: self.views)
    @rule(data=st.data(), mode=st.sampled_from(["read", "write", "recover"]))
    def lease(self, data: st.DataObject, mode: Mode) -> None:
        view = pick(data, self.views)
        lease = self.lease_of(view, mode)
        if lease is None:
            return
        refusal = view.of.refusal(mode)
        if refusal is not None:
            with pytest.raises(refusal):
                lease.__enter__()
            return
        real = lease.__enter__()
        assert type(real) is np.ndarray
        model = view.model.view()
        if mode == "read":
            model.flags.writeable = False
            view.of.readers += 1
        else:
            view.of.writer = True
        self.leases.append(Held(view.of, lease, mode, real, model))

    def lease_of(self, view: View, mode: Mode) -> Any:
        if mode != "read" and not view.model.flags.writeable:
            with pytest.raises(ValueError, match="read-only"):
                getattr(view.real, mode)()
            return None
        return getattr(view.real, mode)()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), fails=st.booleans(), value=st.integers(0, 100))
    def end_lease(self, data: st.DataObject, fails: bool, value: int) -> None:
        held = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        if held.mode == "read":
            held.of.readers -= 1
        else:
            held.real[...] = value
            held.model[...] = value
            held.of.writer = False
            held.of.poisoned = fails
        error = RuntimeError() if fails else None
        held.lease.__exit__(type(error) if error else None, error, None)
        shared = held.of
        del held
        self.last_view(shared)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def clear_poison(self, data: st.DataObject) -> None:
        view = pick(data, self.views)
        if view.of.freed or view.of.readers or view.of.writer:
            return
        view.real.clear_poison()
        view.of.poisoned = False

    @precondition(lambda self: self.views)
    @rule(
        data=st.data(),
        deed=st.sampled_from(["look", "write", "lease", "free", "die writing"]),
        value=st.integers(0, 100),
    )
    def fork(self, data: st.DataObject, deed: str, value: int) -> None:
        view = pick(data, self.views)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.child(view, deed, value)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        status = end_of(pid)
        writes = view.model.flags.writeable
        if deed == "die writing" and writes and view.of.refusal("write") is None:
            assert status == signal.SIGKILL
            view.of.poisoned = True
            self.table.reap()
        else:
            assert status == 0
        if deed == "write" and writes:
            view.model[...] = value
        if deed == "free":
            view.of.freed = True

    def child(self, view: View, deed: str, value: int) -> None:
        """Run in a child: it has the same views, in a seat of its own."""
        self.views_are_as_in_the_model()
        for pickled in self.pickles[-3:]:
            if pickled.of.freed:
                with pytest.raises(ndshm.Stale):
                    pickle.loads(pickled.text)
            else:
                same(pickle.loads(pickled.text), pickled.model)
        own = self.table.full(5, value)
        assert own.sum() == 5 * value
        if deed == "write" and view.model.flags.writeable:
            view.real[...] = value
        elif deed == "free":
            self.free_view(view)
        elif deed in ("lease", "die writing"):
            mode: Mode = "write" if deed == "die writing" else "read"
            lease = self.lease_of(view, mode)
            if lease is None:
                return
            refusal = view.of.refusal(mode)
            if refusal is not None:
                with pytest.raises(refusal):
                    lease.__enter__()
                return
            lease.__enter__()
            if mode == "write":
                os.kill(os.getpid(), signal.SIGKILL)
            lease.__exit__(None, None, None)

    @invariant()
    def views_are_as_in_the_model(self) -> None:
        for view in self.views:
            same(view.real, view.model)
        for held in self.leases:
            same(held.real, held.model)

    @invariant()
    def readers_are_refused_as_in_the_model(self) -> None:
        for view in {id(view.of): view for view in self.views}.values():
            refusal = view.of.refusal("read")
            lease = view.real.read()
            if refusal is not None:
                with pytest.raises(refusal):
                    lease.__enter__()
            else:
                with lease as real:
                    assert real.tobytes() == view.model.tobytes()

    @invariant()
    def the_arrays_that_live_are_those_of_the_model(self) -> None:
        assert set(self.table.handles()) == {a.handle for a in self.arrays if not a.freed}


Programs.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPrograms = pytest.mark.timeout(300)(Programs.TestCase)
