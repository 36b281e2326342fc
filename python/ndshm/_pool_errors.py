"""The exceptions of a pool, and the way of a worker's exception to the parent."""

from __future__ import annotations

import os
import pickle
import traceback
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]

from ._errors import NdshmError

__all__ = ["KernelError", "WorkerDied"]


class WorkerDied(NdshmError, RuntimeError):
    """A worker of a pool has died in a call.

    The arrays that it was writing are poisoned: repair them in `with x.recover() as a`, or call
    `x.clear_poison()`. The pool starts another worker before its next call.
    """

    pid: int
    """The worker's process."""

    exitcode: int | None
    """Its exit code, negative for a signal, as `multiprocessing.Process.exitcode`."""

    rows: list[range]
    """The rows that it may have left half-written."""

    missing: list[range]
    """The rows that no worker has run, because no worker was left to run them."""

    def __init__(
        self, pid: int, exitcode: int | None, rows: list[range], missing: list[range]
    ) -> None:
        super().__init__(pid, exitcode, rows, missing)
        self.pid, self.exitcode, self.rows, self.missing = pid, exitcode, rows, missing

    def __str__(self) -> str:
        parts = [f"worker {self.pid} ended with exit code {self.exitcode}"]
        if self.rows:
            parts.append(
                f"rows {spell(self.rows)} may be half-written and their arrays are poisoned: repair "
                "them in `with x.recover() as a`, or call x.clear_poison()"
            )
        if self.missing:
            parts.append(f"rows {spell(self.missing)} were not run")
        if not self.rows and not self.missing:
            parts.append("no rows are half-written")
        return "; ".join(parts)


class KernelError(NdshmError, RuntimeError):
    """A function failed in a worker with an exception that cannot be raised in the parent.

    It cannot be pickled, or it would end the parent, as `SystemExit` and `KeyboardInterrupt` do.
    """


def spell(rows: list[range]) -> str:
    """Return ranges of rows as text."""
    shown = [f"{part.start}:{part.stop}" for part in rows[:8]]
    return ", ".join(shown) + (f" and {len(rows) - 8} more parts" if len(rows) > 8 else "")


def pack(error: BaseException, tile: int | None) -> bytes:
    """Return an exception of a worker as bytes."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    body = None
    if isinstance(error, Exception):
        try:
            body = pickle.dumps(error.with_traceback(None))
        except Exception:
            body = None
    return pickle.dumps((os.getpid(), tile, body, _shown(error), text))


def pack_shortly(error: BaseException) -> bytes:
    """Return an exception as bytes that need no memory of the table."""
    return pickle.dumps((os.getpid(), None, None, _shown(error)[:200], ""))


def _shown(error: BaseException) -> str:
    """Return an exception as text, also if its `__repr__` fails."""
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


def unpack(packed: bytes) -> Exception:
    """Return the exception of a worker, whose cause has the traceback as text."""
    pid, tile, body, shown, text = pickle.loads(packed)
    raised: Exception | None = None
    if body is not None:
        try:
            loaded = pickle.loads(body)
            raised = loaded if isinstance(loaded, Exception) else None
        except Exception:
            raised = None
    if raised is None:
        raised = KernelError(f"a function raised {shown} in worker {pid}")
    raised.__cause__ = RemoteTraceback(text)
    return raised


def tile_of(packed: bytes) -> int | None:
    """Return the tile in which an exception was raised."""
    tile: int | None = pickle.loads(packed)[1]
    return tile
