"""The process of one worker, as its parent sees it."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")


class Hired:
    """A process that was started, and a descriptor that is readable once it has ended.

    The sentinel of multiprocessing is the end of a pipe. A program that the worker has forked keeps
    its other end open after the worker's death. So the descriptor is that of the process, where the
    system has those (Linux 5.3).
    """

    # For `__del__`, if an exception ends `__init__`.
    _own: int | None = None

    def __init__(self, process: BaseProcess) -> None:
        self.process = process
        try:
            self._own = os.pidfd_open(process.pid or 0)
        except (AttributeError, OSError):
            pass

    @property
    def fd(self) -> int:
        """A descriptor that is readable once the process has ended."""
        return self.process.sentinel if self._own is None else self._own

    def is_alive(self) -> bool:
        """Return False if the process has ended, and its exit code is known or lost."""
        # The process may count as alive in multiprocessing for ever: its exit code is lost if the
        # program waits for all its children, or ignores SIGCHLD.
        return not self.wait(0) and self.process.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process. Return False if it still lives after that time."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        if self.process.is_alive():
            # A fork server passes the exit code on a moment later.
            self.process.join(1.0)
        return True

    def kill(self) -> None:
        """Kill the process. Wait for it by `wait`."""
        self.process.kill()

    def close(self) -> None:
        """Forget a process that has ended."""
        self.process.join()
        # It counts as alive if its exit code is lost.
        with suppress(ValueError):
            self.process.close()
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def __del__(self) -> None:
        if self._own is not None:
            os.close(self._own)


def uninterrupted(work: Callable[[], _T]) -> _T:
    """Call `work`, put Ctrl-C off until it returns, and return its result.

    A process that is started in it begins with SIGINT blocked: it unblocks that when it has its own
    handler. In this process, another thread may get the signal although this one blocks it, and
    then the exception is raised here. So the handler notes the signal.

    The handler of another signal may raise an exception here. Ctrl-C works after it, too.
    """
    seen: list[FrameType | None] = []
    handler: Any = signal.getsignal(signal.SIGINT)
    is_main = threading.get_ident() == threading.main_thread().ident and callable(handler)
    is_inside = True

    def note(number: int, frame: FrameType | None) -> None:
        if is_inside:
            seen.append(frame)
        else:
            handler(number, frame)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        if is_main:
            signal.signal(signal.SIGINT, note)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        return work()
    finally:
        # First: an assignment is not interrupted. From here on `note` is as good as the handler.
        is_inside = False
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            try:
                # Again: the handler of another signal may have raised before the call.
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                if is_main:
                    signal.signal(signal.SIGINT, handler)
            finally:
                if seen:
                    handler(signal.SIGINT, seen[0])
