"""The process of one worker, as its parent sees it."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any


class Hired:
    """A process that was started, and a descriptor that is readable once it has ended.

    The sentinel of multiprocessing is the end of a pipe. A program that the worker has forked keeps
    its other end open after the worker's death. So the descriptor is that of the process, where the
    system has those (Linux 5.3).
    """

    def __init__(self, process: BaseProcess) -> None:
        self.process = process
        self._own: int | None = None
        try:
            self._own = os.pidfd_open(process.pid or 0)
        except (AttributeError, OSError):
            pass

    @property
    def fd(self) -> int:
        """A descriptor that is readable once the process has ended."""
        return self.process.sentinel if self._own is None else self._own

    def is_alive(self) -> bool:
        """Return False if the process has ended, and its exit code is known."""
        return self.process.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process. Return False if it still lives after that time."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        if self.is_alive():
            # A fork server passes the exit code on a moment later.
            self.process.join(1.0)
        return True

    def kill(self) -> None:
        """Kill the process. Wait for it by `wait`."""
        self.process.kill()

    def close(self) -> None:
        """Forget a process that has ended."""
        self.process.join()
        self.process.close()
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def __del__(self) -> None:
        if self._own is not None:
            os.close(self._own)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the end of the block.

    A process that is started in it begins with SIGINT blocked: it unblocks that when it has its own
    handler. In this process, another thread may get the signal although this one blocks it, and
    then the exception is raised here. So the handler notes the signal.
    """
    seen: list[FrameType | None] = []
    handler: Any = signal.getsignal(signal.SIGINT)
    is_main = threading.get_ident() == threading.main_thread().ident
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        if is_main and callable(handler):
            signal.signal(signal.SIGINT, lambda _, frame: seen.append(frame))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main and callable(handler):
            signal.signal(signal.SIGINT, handler)
            if seen:
                handler(signal.SIGINT, seen[0])
