"""The process of a worker: it loads calls, runs their tiles, and answers."""

from __future__ import annotations

import io
import os
import pickle
import signal
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from . import _ndshm
from ._array import ndarray
from ._errors import NdshmError
from ._pool_errors import pack, pack_shortly
from ._pool_functions import find

RUN, LOAD, SETUP, BROADCAST = 1, 2, 3, 4
"""The numbers of calls."""

ATTACH_SECONDS = 60.0


class Streams:
    """A generator that is set to the stream of a tile.

    The streams are those of Philox with the key (seed, number of the call). A stream is the part of
    the counter that has the tile and its run in the upper half: 2**128 blocks of numbers each.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._state: Any = self._bits.state
        self.generator = np.random.Generator(self._bits)

    def at(self, seed: int, call: int, tile: int, run: int) -> np.random.Generator:
        """Return the generator, at the beginning of a stream."""
        state = self._state
        state["state"]["key"][:] = (seed, call)
        state["state"]["counter"][:] = (0, 0, run, tile)
        self._bits.state = state
        return self.generator


class Kernel:
    """A call that the worker has loaded."""

    def __init__(self, blob: bytes, before: Kernel | None = None) -> None:
        (
            (how, members, self.length, self.args, names, self.collect, runs),
            is_constant,
        ) = pickle.loads(blob)
        # A plain function keeps what it has in its globals.
        self.function: Callable[..., Any]
        if before is not None and isinstance(before.function, types.FunctionType):
            self.function = before.function
        else:
            self.function = find(how)
        # The first one of the call owns arrays that were given.
        self.first: Kernel | None = None if before is None else before.first or before
        # The call that it has run last.
        self.body: bytes | None = None
        # Objects that a function may have changed are loaded anew for the next call.
        self.blob = None if is_constant or runs is not None else blob
        self.names: list[str] = names
        # How often each tile was sent back.
        self.runs = None if runs is None else np.asarray(runs)
        self.bases: list[tuple[np.ndarray[Any, Any], bool]] = []
        for array, mode in members:
            base = np.asarray(array)
            if mode == "a":
                base = base.view()
                base.flags.writeable = False
            self.bases.append((base, mode == "a"))


class Worker:
    """A worker, in its process."""

    def __init__(self, core: _ndshm.PoolWorker, worker: int, workers: int) -> None:
        self._core = core
        # Not empty in a process that a function has forked.
        self._forked: list[bool] = []
        os.register_at_fork(after_in_child=lambda: self._forked.append(True))
        self._kernels: dict[int, Kernel] = {}
        self._streams: Streams | None = None
        self._known: dict[str, Any] = {"state": None, "worker": worker, "workers": workers}
        self._is_set_up = False
        # The call in which this worker has failed, and its answer.
        self._failed: tuple[bytes, bytes] | None = None

    def serve(self) -> None:
        """Answer calls until the pool ends."""
        while (call := self._core.next()) is not None:
            number, body = call
            if number == RUN:
                self._run(body)
            else:
                self._answer(number, body)

    def _answer(self, number: int, body: bytes) -> None:
        try:
            answer = self._load(body) if number == LOAD else self._do(number, body)
        except BaseException as error:
            self._end_a_fork(error)
            self._fail(pack(error, None))
        else:
            self._end_a_fork(None)
            self._finish(answer)

    def _load(self, body: bytes) -> bytes:
        key, blob, dropped = pickle.loads(body)
        for old in dropped:
            self._kernels.pop(old, None)
        if key not in self._kernels:
            self._kernels[key] = Kernel(blob)
        return b""

    def _do(self, number: int, body: bytes) -> bytes:
        if number == SETUP and self._is_set_up:
            return b""
        how, args, names = pickle.loads(body)
        function = find(how)
        result = function(*args, **{name: self._known[name] for name in names})
        if number != SETUP:
            return dumps(result)
        self._known["state"], self._is_set_up = result, True
        return b""

    def _run(self, body: bytes) -> None:
        core = self._core
        answer = b""
        try:
            entered = core.enter(body)
            if entered is None:
                core.finish(b"")
                return
            key, seed, call = entered
            kernel = self._kernels[key]
            # The call may have been announced again.
            if kernel.blob is not None and kernel.body not in (None, body):
                kernel = self._kernels[key] = Kernel(kernel.blob, kernel)
            kernel.body = body
            if kernel.names or kernel.collect:
                answer = self._run_tiles(kernel, seed, call)
            else:
                # The usual case.
                core.run(kernel.function, kernel.bases, kernel.length, kernel.args, self._forked)
                if self._forked:
                    os._exit(0)
        except BaseException as error:
            self._end_a_fork(error)
            self._failed = (body, pack(error, core.leave()))
        # A call that is announced again gets the first failure again.
        failed = self._failed
        if failed is None:
            self._finish(answer)
        elif failed[0] == body:
            self._fail(failed[1])
        else:
            self._failed = None
            self._finish(answer)

    def _run_tiles(self, kernel: Kernel, seed: int, call: int) -> bytes:
        """Run the tiles of a call with arguments by name, or with results. Return the results."""
        step, extras = self._core.step, self._extras(kernel)
        function, args, length = kernel.function, kernel.args, kernel.length
        results: list[tuple[int, Any]] = []
        while (tile := step()) is not None:
            rows = slice(tile * length, tile * length + length)
            parts = [base.view() if is_whole else base[rows] for base, is_whole in kernel.bases]
            result = function(*parts, *args, **extras(seed, call, tile))
            if self._forked:
                os._exit(0)
            if kernel.collect:
                results.append((tile, result))
        return dumps(results) if results else b""

    def _finish(self, answer: bytes) -> None:
        try:
            self._core.finish(answer)
        except NdshmError as error:
            # There is no memory for it. Arrays in it are this process's again, and freed.
            with suppress(Exception):
                pickle.loads(answer)
            self._fail(pack(error, None))

    def _fail(self, packed: bytes) -> None:
        try:
            self._core.fail(packed)
        except NdshmError as error:
            self._core.fail(pack_shortly(error))

    def _extras(self, kernel: Kernel) -> Callable[[int, int, int], dict[str, Any]]:
        """Return the arguments by name for a tile, as a function of seed, call and tile."""
        names = kernel.names
        fixed = {name: self._known[name] for name in names if name in self._known}
        if "rng" not in names and "tile" not in names:
            return lambda seed, call, tile: fixed
        if self._streams is None:
            self._streams = Streams()
        streams, uses_rng, uses_tile = self._streams, "rng" in names, "tile" in names
        runs = kernel.runs

        def extras(seed: int, call: int, tile: int) -> dict[str, Any]:
            if uses_rng:
                run = 0 if runs is None else int(runs[tile])
                fixed["rng"] = streams.at(seed, call, tile, run)
            if uses_tile:
                fixed["tile"] = tile
            return fixed

        return extras

    def _end_a_fork(self, error: BaseException | None) -> None:
        if self._forked:
            end_fork(error)


def end_fork(error: BaseException | None) -> NoReturn:
    """End a process that a function has forked and that has come out of it."""
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    os._exit(code if isinstance(code, int) else int(code is not None))


class _Pickler(pickle.Pickler):
    """A pickler that hands arrays over that this process has made."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out, pickle.HIGHEST_PROTOCOL)
        self.given: list[ndarray] = []

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is ndarray:
            try:
                is_owned = obj.is_owned
            except Exception:
                is_owned = False
            if is_owned:
                _ndshm.mark_given(obj)
                self.given.append(obj)
        return NotImplemented


def dumps(result: Any) -> bytes:
    """Pickle a result. The parent owns the arrays in it that this process has made."""
    out = io.BytesIO()
    pickler = _Pickler(out)
    try:
        pickler.dump(result)
    except BaseException:
        # Nobody gets them.
        for array in pickler.given:
            with suppress(NdshmError):
                array.free()
        raise
    return out.getvalue()


def main(table: _ndshm.Table, handle: int, worker: int, workers: int) -> None:
    """Run a worker. The target of its process."""
    # A terminal signals all processes of a program, and the parent acts on it. It is a function and
    # not SIG_IGN, because programs that a kernel starts would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    core = _ndshm.PoolWorker.attach(table, handle, worker, ATTACH_SECONDS)
    if core is None:
        # Its parent was interrupted while this process started.
        return
    try:
        Worker(core, worker, workers).serve()
    finally:
        core.close()
