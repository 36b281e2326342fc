"""The workers of a pool: their processes, and the end of a call that they have."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from time import monotonic

from . import _ndshm
from ._errors import NdshmError
from ._pool_answers import check, discard
from ._pool_calls import Answer, Call, Ended
from ._pool_process import Hired, uninterrupted
from ._pool_worker import main

_SLICE = 0.04
_GRACE = 1.0


class Crew:
    """The workers of a pool."""

    def __init__(self, table: _ndshm.Table, context: BaseContext, workers: int) -> None:
        self._table, self._context = table, context
        self.core = _ndshm.PoolParent(table, workers)
        # In a forked child the workers are the parent's.
        self._pid = os.getpid()
        self._hired: list[Hired | None] = [None] * workers
        self._poll = select.poll()
        # All workers live and are set up.
        self._is_whole = False
        # Some workers are new: they are not set up, and have none of the calls.
        self.has_fresh = False
        # No look at the workers is needed before that time.
        self.alive_until = 0.0
        # A call hands out its tiles one by one.
        self.is_running = False
        self._finalize = util.Finalize(
            self, _end, args=(self.core, self._hired), exitpriority=15
        )

    def __len__(self) -> int:
        return len(self._hired)

    @property
    def processes(self) -> list[BaseProcess | None]:
        """The processes of the workers, in their order."""
        return [None if hired is None else hired.process for hired in self._hired]

    @property
    def method(self) -> str:
        """The start method of the processes."""
        method: str = self._context.get_start_method()
        return method

    # ---- calls ----------------------------------------------------------------------------------

    def call(self, number: int, body: bytes, call: Call | None) -> list[Answer]:
        """Call all workers with bytes, and return their answers."""
        try:
            ended = self.core.call(number, body)
        except BaseException:
            self.give_up()
            raise
        return self.check(ended, call)

    def check(self, ended: Ended, call: Call | None, killed: bool = False) -> list[Answer]:
        """Raise the error of a call that has ended, or return its answers. Pass `killed` if workers
        were killed because of an error.
        """
        try:
            return check(ended, call, killed, self._exitcode)
        except BaseException:
            self.doubt()
            raise

    def cancel(self) -> bool:
        """Cancel the open call. Return True if workers were killed for that."""
        if self.core.cancel(_GRACE):
            return False
        # They are in long tiles. The arrays of these are poisoned.
        self.kill()
        self.core.cancel(_GRACE)
        return True

    def abort(self) -> None:
        """End an open call that an exception interrupts, as KeyboardInterrupt."""
        is_open = self.core.is_open
        self.is_running = False
        if not is_open:
            return
        self.cancel()
        self.doubt()
        with suppress(NdshmError):
            discard(self.core.end()[0])

    def give_up(self) -> None:
        """End an open call because of an exception, which the caller raises."""
        # Another thread may have closed the pool.
        with suppress(RuntimeError):
            self.abort()

    # ---- processes ------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return False if workers have to be replaced or set up."""
        if self.is_running:
            raise RuntimeError("a call of the pool is running: finish() it first")
        if self._poll.poll(0):
            self.doubt()
        return self._is_whole

    def doubt(self) -> None:
        """Look at the workers before the next call."""
        self._is_whole, self.alive_until = False, 0.0

    def trust(self) -> None:
        """Note that all workers live and are set up."""
        self._is_whole, self.has_fresh = True, False

    def fill(self) -> None:
        """Start the workers that are missing, and wait for them."""
        new: set[Hired] = set()
        while True:
            for worker, hired in enumerate(self._hired):
                if hired is not None and hired.is_alive():
                    continue
                if hired is not None:
                    process = hired.process
                    if hired in new:
                        raise NdshmError(
                            f"worker {process.pid} ended with exit code {process.exitcode} before "
                            "it was ready, see its message above: with spawn and forkserver it "
                            "imports the main module of the program, which makes its pool below "
                            '`if __name__ == "__main__":`'
                        )
                    self._poll.unregister(hired.fd)
                    self._hired[worker] = None
                    hired.close()
                new.add(self._hire(worker))
            if self.core.wait_for_workers(len(self), _SLICE):
                return

    def _hire(self, worker: int) -> Hired:
        """Start a worker."""
        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
            target=main,
            args=(self._table, self.core.handle, worker, len(self)),
            name=f"ndshm-worker-{worker}",
            daemon=True,
        )
        self.has_fresh = True
        if self.method == "forkserver":
            # Before SIGINT is blocked: all processes of the server begin as it does.
            forkserver.ensure_running()
        elif self.method == "spawn":
            # Its start would unblock SIGINT.
            resource_tracker.ensure_running()

        def start() -> Hired:
            process.start()
            hired = self._hired[worker] = Hired(process)
            self._poll.register(hired.fd, select.POLLIN)
            return hired

        return uninterrupted(start)

    def _exitcode(self, worker: int, pid: int) -> int | None:
        """Return the exit code of a worker that has died."""
        hired = self._hired[worker]
        if hired is None or hired.process.pid != pid or not hired.wait(_GRACE):
            return None
        return hired.process.exitcode

    def dead(self) -> tuple[int, int | None] | None:
        """Return the pid and the exit code of a worker that has ended."""
        for hired in self._hired:
            if hired is not None and not hired.is_alive():
                return hired.process.pid or 0, hired.process.exitcode
        return None

    def kill(self) -> None:
        """Kill the workers, and wait for them."""
        if os.getpid() != self._pid:
            return
        for hired in self._hired:
            if hired is not None:
                hired.kill()
        for hired in self._hired:
            if hired is not None:
                hired.process.join()

    def end(self) -> None:
        """End the workers, and wait for them."""
        self._finalize()


def _end(core: _ndshm.PoolParent, crew: list[Hired | None]) -> None:
    """End the workers of a pool that is closed, dropped, or left when the interpreter ends."""
    core.close()
    deadline = monotonic() + 5.0
    for worker, hired in enumerate(crew):
        if hired is not None:
            if not hired.wait(max(0.0, deadline - monotonic())):
                hired.kill()
            crew[worker] = None
            hired.close()
